"""Random access for training: the pictures and the sound of one moment of a file that was scanned before.

:func:`describe` keeps of a scan what later reads need, as plain values for the columns of a table.
:func:`read_moment` then opens the file once, seeks, and decodes as little as gives the same pictures, byte for byte,
as :func:`crisscross_zoo.media.decode.read_frames` over the whole file.

Pictures are sought in formats whose seeking was checked (MP4, Matroska, MPEG-TS, FLV); where a seek lands late, or the
decoder does not give what it should, and in all other formats, the file is decoded from its start. Memory does not
grow with the file in either case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.container import InputContainer
from av.video import VideoStream

from crisscross_zoo.errors import InputError, NoStreamError, UnreadableMediaError
from crisscross_zoo.media.decode import (
    _EARLY_SECONDS,
    _INDEXED_FORMATS,
    AudioTrack,
    Media,
    VideoTrack,
    _decoded,
    _DecodingPlan,
    _NotAsIndexedError,
    _open,
    _packets,
    _ResampledSound,
    _RgbConverter,
    _serve,
    _shown,
    opens_unprobed,
)

PREROLL_SECONDS = 0.2
"""Sound is decoded from this much earlier, so that decoder and resampler have settled where it is wanted."""

SEEK_GAP_SECONDS = 1.0
"""Times further apart than this are sought one by one."""

_ROUNDING = 1e-6

Value: TypeAlias = int | float | bool | str | None

# Formats in which pictures are sought although their key-frame flags come from a parser: all is decoded from there on.
_PLAINLY_SOUGHT_FORMATS = frozenset({"mpegts", "flv"})

# Formats in which a sought packet's time stamp is exact. In others packets are read from the start, but not decoded.
_SOUND_SOUGHT_FORMATS = _INDEXED_FORMATS | {"mpegts", "flv", "wav", "flac"}

# Where a seek for a key frame lands after the picture, it is tried again this many seconds earlier.
_STEPS_BACK = (0.0, 0.5, 2.0, 10.0)

# No codec shows a picture later than this many others that come after it in the file.
_LONGEST_REORDERING = 32


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What is known of a file, in plain values: enough to read any moment of it without another scan.

    Names with ``video_`` are None where there is no picture stream, those with ``audio_`` where there is no sound.

    Attributes:
        path: The file.
        size: Its length in bytes.
        modified_ns: When it was last changed, nanoseconds since 1970.
        format: FFmpeg's name of the container format.
        duration: Seconds to the end of the stream that ends last.
        video_index: Stream index in the file.
        video_codec: FFmpeg's name of the codec.
        video_start: Seconds at which the first picture is shown.
        video_end: Seconds at which the last picture ends.
        video_rate: Frames a second by the header.
        video_counted: Whether the time stamps are unusable, so that picture i is at ``i / video_rate``.
        video_constant: Whether the time stamps are multiples of ``1 / video_rate``, rounded to ticks.
        video_tick: Seconds per unit of a time stamp.
        video_origin: ``time stamp * video_tick - video_origin`` is the time in the file.
        video_pictures: Pictures in the stream.
        video_width: Pixels a line as stored, before the picture is turned upright.
        video_height: Lines as stored.
        audio_index: Stream index in the file.
        audio_codec: FFmpeg's name of the codec.
        audio_start: Seconds at which sound begins, 0 or later.
        audio_end: Seconds at which it ends.
        audio_tick: Seconds per unit of a time stamp.
        audio_origin: ``time stamp * audio_tick - audio_origin`` is the time in the file.
        audio_rate: Samples a second in the file, Hz.
        audio_first: Time stamp of the first decoded frame of sound; None if it has none.
        audio_lead: Samples in that first frame.
        audio_frame: Samples in each later frame; 0 if they differ.
        damage: What is wrong with the file although it can be read, one phrase each.
    """

    path: str
    size: int
    modified_ns: int
    format: str
    duration: float
    video_index: int | None = None
    video_codec: str | None = None
    video_start: float | None = None
    video_end: float | None = None
    video_rate: float | None = None
    video_counted: bool | None = None
    video_constant: bool | None = None
    video_tick: float | None = None
    video_origin: float | None = None
    video_pictures: int | None = None
    video_width: int | None = None
    video_height: int | None = None
    audio_index: int | None = None
    audio_codec: str | None = None
    audio_start: float | None = None
    audio_end: float | None = None
    audio_tick: float | None = None
    audio_origin: float | None = None
    audio_rate: int | None = None
    audio_first: int | None = None
    audio_lead: int | None = None
    audio_frame: int | None = None
    damage: tuple[str, ...] = ()

    @property
    def video_span(self) -> tuple[float, float] | None:
        """``(start, end)`` of the pictures in seconds, None if there are none."""
        track = self._video()
        return None if track is None else track.span

    @property
    def audio_span(self) -> tuple[float, float] | None:
        """``(start, end)`` of the sound in seconds, None if there is none."""
        track = self._audio()
        return None if track is None else track.span

    def to_row(self) -> dict[str, Value]:
        """Return the fields by name as int, float, bool, str or None; ``damage`` has one phrase a line."""
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**row, "damage": "\n".join(self.damage)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_row`; other keys of ``row`` are left aside.

        Raises:
            InputError: a field is missing.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        if missing := [n for n in names if n not in row]:
            raise InputError(f"no column {missing[0]!r}", remedy="index the folder again")
        values = {n: row[n] for n in names}
        return cls(**{**values, "damage": tuple((row["damage"] or "").splitlines())})

    def _video(self) -> VideoTrack | None:
        if (
            self.video_index is None
            or self.video_codec is None
            or self.video_start is None
            or self.video_end is None
            or self.video_rate is None
            or self.video_tick is None
            or self.video_origin is None
        ):
            return None
        return VideoTrack(
            index=self.video_index,
            codec=self.video_codec,
            span=(self.video_start, self.video_end),
            rate=self.video_rate,
            counted=bool(self.video_counted),
            constant=bool(self.video_constant),
            pts=np.empty(0, np.int64),
            keys=np.empty(0, np.bool_),
            tick=self.video_tick,
            origin=self.video_origin,
        )

    def _audio(self) -> AudioTrack | None:
        if (
            self.audio_index is None
            or self.audio_codec is None
            or self.audio_start is None
            or self.audio_end is None
            or self.audio_tick is None
            or self.audio_origin is None
        ):
            return None
        return AudioTrack(
            index=self.audio_index,
            codec=self.audio_codec,
            span=(self.audio_start, self.audio_end),
            tick=self.audio_tick,
            origin=self.audio_origin,
        )


def describe(media: Media) -> MediaInfo:
    """Keep of a scan what :func:`read_moment` needs. Opens the file once more, and decodes a few frames of sound.

    Args:
        media: From :func:`crisscross_zoo.media.decode.scan`.

    Returns:
        Plain values, without anything that grows with the file's length.

    Raises:
        MediaError: the file can no longer be opened.
    """
    found: dict[str, Any] = {}
    with _open(media.path) as container:
        if (video := media.video) is not None:
            stream = container.streams[video.index]
            assert isinstance(stream, VideoStream)
            found |= {
                "video_index": video.index,
                "video_codec": video.codec,
                "video_start": float(video.span[0]),
                "video_end": float(video.span[1]),
                "video_rate": video.rate,
                "video_counted": video.counted,
                "video_constant": video.constant,
                "video_tick": video.tick,
                "video_origin": float(video.origin),
                "video_pictures": len(video.keys),
                "video_width": stream.width,
                "video_height": stream.height,
            }
        if (audio := media.audio) is not None:
            sound = container.streams[audio.index]
            assert isinstance(sound, AudioStream)
            found |= {
                "audio_index": audio.index,
                "audio_codec": audio.codec,
                "audio_start": float(audio.span[0]),
                "audio_end": float(audio.span[1]),
                "audio_tick": audio.tick,
                "audio_origin": float(audio.origin),
                **_first_sound(container, sound),
            }
    return MediaInfo(
        path=media.path,
        size=media.size,
        modified_ns=media.modified_ns,
        format=media.format,
        duration=float(media.duration),
        damage=media.damage,
        **found,
    )


def read_moment(
    info: MediaInfo,
    *,
    times: npt.NDArray[np.float64] | None,
    sound: tuple[float, int] | None = None,
    sample_rate: int = 16_000,
    source: BinaryIO | None = None,
) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.int16] | None]:
    """Read the pictures shown at some times, and a stretch of sound, with one open and as little decoding as possible.

    Pictures are those that :func:`crisscross_zoo.media.decode.read_frames` gives, byte for byte, in an undamaged file.

    Sound lies on the sample grid on which :func:`crisscross_zoo.media.decode.read_sound` puts the whole file. Values
    are the same for PCM, FLAC, ALAC, MP3 and AAC, and within 16 of 32767 for Opus, whose decoder forgets slowly. What a
    decoder draws at random is drawn anew on each reading: AAC's noise substitution (which FFmpeg's own encoder uses),
    AC-3's dither. Where a file's time stamps do not follow its samples, the sound is placed by the time stamp near it,
    up to 0.1 s from where counting through the file puts it. Rates that share no useful factor with ``sample_rate``
    (22,051 Hz) are off by less than a sample.

    Damage is not reported; what can be decoded is given, as in the readers of the whole file.

    Args:
        info: From :func:`describe`.
        times: Seconds, shape (n,), n >= 1, in any order; None for no pictures. One before the first picture, or after
            the last, gets that one.
        sound: ``(start, samples)``: seconds at which to begin, and how many samples; None for no sound.
        sample_rate: Samples a second to resample to, Hz.
        source: The file's bytes, such as an ``io.BytesIO``, read instead of ``info.path``; it must be able to seek,
            and stays open.

    Returns:
        ``(pictures, samples)``: uint8 RGB, shape (n, H, W, 3), upright, in the order of ``times``; and mono int16,
        shape (samples,), with silence where the stream has none; divide by 32767 for [-1, 1]. None for what was not
        wanted.

    Raises:
        NoStreamError: the file has no stream of a kind that is wanted.
        MediaNotFoundError: the file is gone.
        UnreadableMediaError: it has changed since it was described, cannot be opened, nothing in the stream can be
            decoded, or the pictures differ in size.
        InputError: ``times`` or ``sound`` has the wrong shape or is not finite.
    """
    video, audio = info._video(), info._audio()
    wanted = None if times is None else _checked_times(times)
    if wanted is not None and video is None:
        raise NoStreamError("has no picture stream", remedy="read its sound alone", path=info.path)
    if sound is not None:
        if not (math.isfinite(sound[0]) and sound[1] >= 0):
            raise InputError(f"sound={sound!r} is not (start in seconds, number of samples)")
        if audio is None:
            raise NoStreamError("has no sound stream", remedy="read its pictures alone", path=info.path)
    _check_unchanged(info, source)
    samples: npt.NDArray[np.int16] | None = None
    pictures: npt.NDArray[np.uint8] | None = None
    seek = video is not None and _seeks_pictures(info)
    # Opened without a look at its pictures first; where that is not enough, with one.
    for unprobed in (True, False) if opens_unprobed(info.format, info.video_codec) else (False,):
        hear = sound is not None and samples is None
        see = wanted is not None and pictures is None and seek
        if not hear and not see:
            break
        with _open(info.path, source, info.format, unprobed=unprobed) as container:
            # The sound goes first: near the file's start it is read without seeking.
            if hear and sound is not None and audio is not None:
                samples = _read_sound(container, info, audio, sound, sample_rate)
            if see and wanted is not None and video is not None:
                # Where it lands late or is not as it should be, the whole file is decoded, below.
                with contextlib.suppress(_NotAsIndexedError, av.error.FFmpegError, OSError):
                    pictures = _gather(
                        _sought_pictures(container, info, video, np.sort(wanted)), wanted, info
                    )
    if sound is not None and audio is not None and samples is None:
        with _open(info.path, source, info.format) as container:
            samples = _cut_from_start(container, audio, sound, sample_rate)
    if wanted is not None and video is not None and pictures is None:
        whole = Media(info.path, info.size, info.modified_ns, info.format, video, audio)
        served = _serve(
            whole,
            video,
            np.sort(wanted),
            _RgbConverter(),
            only_needed=False,
            on_damage=_no_one,
            source=source,
        )
        pictures = _gather(served, wanted, info)
    return pictures, samples


def _no_one(_: str) -> None:
    """Nobody is told of damage: the scan has told of it, and a moment gives what can be read."""


def _checked_times(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array = np.asarray(times, np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise InputError(f"times of shape {array.shape} are not one row of finite seconds")
    return array


def _check_unchanged(info: MediaInfo, source: BinaryIO | None) -> None:
    try:
        size = Path(info.path).stat().st_size if source is None else source.seek(0, os.SEEK_END)
    except (OSError, ValueError):
        return  # opening it says what is wrong
    if size != info.size:
        raise UnreadableMediaError(
            f"has changed since it was indexed ({info.size} bytes then, {size} now)",
            remedy="index the folder again",
            path=info.path,
        )


# --- pictures ----------------------------------------------------------------------------------------------------


def _seeks_pictures(info: MediaInfo) -> bool:
    return not info.video_counted and info.format in _INDEXED_FORMATS | _PLAINLY_SOUGHT_FORMATS


def _gather(
    served: Iterable[tuple[int, npt.NDArray[np.uint8]]], times: npt.NDArray[np.float64], info: MediaInfo
) -> npt.NDArray[np.uint8]:
    """Put pictures that come in the order of time in the order of ``times``."""
    order = np.argsort(times, kind="stable")
    pictures: npt.NDArray[np.uint8] | None = None
    done = 0
    for count, picture in served:
        if pictures is None:
            pictures = np.empty((len(times), *picture.shape), np.uint8)
        elif picture.shape != pictures.shape[1:]:
            raise UnreadableMediaError(
                f"its pictures change from {pictures.shape[1:3]} to {picture.shape[:2]} lines and columns",
                remedy="re-encode it, or leave it out",
                path=info.path,
            )
        pictures[order[done : done + count]] = picture
        done += count
    assert pictures is not None
    return pictures


def _sought_pictures(
    container: InputContainer, info: MediaInfo, track: VideoTrack, times: npt.NDArray[np.float64]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Pictures at ``times``, which ascend, from one stretch of packets after another; each is like a small file."""
    stream = container.streams[track.index]
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    convert = _RgbConverter()
    for packets, moments in _stretches(container, stream, track, times):
        context.flush_buffers()
        context.skip_frame = "DEFAULT"
        pts = np.array([p.pts for p in packets], np.int64)
        part = dataclasses.replace(track, pts=pts, keys=np.array([p.is_keyframe for p in packets], np.bool_))
        plan = None
        if info.format in _INDEXED_FORMATS:
            plan = _DecodingPlan(part, moments)
            del packets[np.flatnonzero(plan.needed)[-1] + 1 :]  # what comes later is not needed for the last
        frames = _from_first(_decoded(packets, stream, plan, _no_one), int(pts[0]), sure=plan is None)
        try:
            yield from _shown(frames, part, moments, convert, plan, info.path)
        except UnreadableMediaError:
            raise _NotAsIndexedError from None


def _from_first(frames: Iterable[av.VideoFrame], first: int, *, sure: bool) -> Iterator[av.VideoFrame]:
    """Leave out pictures shown before the key frame ``first``: they may lack what they refer to.

    With ``sure`` that key frame must come out, or it was none.
    """
    for frame in frames:
        if frame.pts is None or (sure and frame.pts > first):
            raise _NotAsIndexedError
        if frame.pts >= first:
            sure = False
            yield frame


def _stretches(
    container: InputContainer, stream: VideoStream, track: VideoTrack, times: npt.NDArray[np.float64]
) -> list[tuple[list[av.Packet[Any]], npt.NDArray[np.float64]]]:
    """Packets from a key frame on for all of ``times``, and which times each stretch is for."""
    stretches: list[tuple[list[av.Packet[Any]], npt.NDArray[np.float64]]] = []
    # Before the first picture the first is shown; after the last, the last.
    clipped = np.clip(times, track.span[0], track.span[1] + 1.0)
    for moments in np.split(clipped, np.flatnonzero(np.diff(clipped) > SEEK_GAP_SECONDS) + 1):
        packets = _packets_from_key(container, stream, track, float(moments[0]), float(moments[-1]))
        if stretches:
            before, earlier = stretches[-1]
            same = [k for k, p in enumerate(before) if p.is_keyframe and p.pts == packets[0].pts]
            if same:  # the same group of pictures, or one that was read already: one stretch for both
                stretches[-1] = ([*before[: same[0]], *packets], np.concatenate([earlier, moments]))
                continue
        stretches.append((packets, moments))
    return stretches


def _packets_from_key(
    container: InputContainer, stream: VideoStream, track: VideoTrack, first: float, last: float
) -> list[av.Packet[Any]]:
    """Packets from the key frame at or before ``first`` to where no more is shown by ``last``; seconds."""
    for back in _STEPS_BACK:
        seconds = max(first - back, track.span[0]) + _EARLY_SECONDS
        container.seek(math.floor((seconds + track.origin) / track.tick), stream=stream)
        packets: list[av.Packet[Any]] = []
        later = 0
        for packet in _packets(container, stream, _no_one):
            if not packets and not packet.is_keyframe:
                continue
            if packet.pts is None:
                raise _NotAsIndexedError
            shown = float(track.seconds(packet.pts))
            if not packets and shown > first + _EARLY_SECONDS:
                break  # landed late
            packets.append(packet)
            later = later + 1 if shown > last + _EARLY_SECONDS else 0
            # No later packet is shown before this one is decoded.
            decoded = -math.inf if packet.dts is None else (packet.dts - 1) * track.tick - track.origin
            if later and (last + _EARLY_SECONDS < decoded <= track.span[1] + 1.0):
                break
            if later > _LONGEST_REORDERING:
                break
        if packets:
            return packets
    raise _NotAsIndexedError


# --- sound -------------------------------------------------------------------------------------------------------


def _first_sound(container: InputContainer, stream: AudioStream) -> dict[str, int | None]:
    """Where the first frame of sound lies and how long the next ones are: what samples are counted from."""
    lengths: list[int] = []
    first = rate = None
    for frame in _decoded(_packets(container, stream, _no_one), stream, None, _no_one):
        if not frame.samples or frame.sample_rate <= 0:
            continue
        if not lengths:
            first, rate = frame.pts, frame.sample_rate
        lengths.append(frame.samples)
        if len(lengths) == 4:
            break
    later = set(lengths[1:])
    return {
        "audio_rate": rate or stream.sample_rate or 0,
        "audio_first": first,
        "audio_lead": lengths[0] if lengths else 0,
        "audio_frame": later.pop() if len(later) == 1 else 0,
    }


def _read_sound(
    container: InputContainer, info: MediaInfo, track: AudioTrack, sound: tuple[float, int], sample_rate: int
) -> npt.NDArray[np.int16] | None:
    """See :func:`read_moment`; ``container`` was just opened. None: open it again and read from its start."""
    stream = container.streams[track.index]
    assert isinstance(stream, AudioStream)
    begin = round(sound[0] * sample_rate)
    # The first frame is thrown away, and the next must come in time.
    rate, frame = info.audio_rate or 1, max(info.audio_frame or 0, info.audio_lead or 0)
    target = min(sound[0], track.span[1]) - PREROLL_SECONDS - 2 * frame / rate
    first = -math.inf if info.audio_first is None else info.audio_first * track.tick - track.origin
    if math.isfinite(first) and target > first:
        with contextlib.suppress(_NotAsIndexedError, av.error.FFmpegError, OSError):
            return _cut(_sought_sound(container, stream, info, track, target, sample_rate), begin, sound[1])
        return None
    return _cut_from_start(container, track, sound, sample_rate)


def _cut_from_start(
    container: InputContainer, track: AudioTrack, sound: tuple[float, int], sample_rate: int
) -> npt.NDArray[np.int16]:
    stream = container.streams[track.index]
    assert isinstance(stream, AudioStream)
    pieces = _sound_from_start(container, stream, track, sample_rate)
    return _cut(pieces, round(sound[0] * sample_rate), sound[1])


def _cut(
    pieces: Iterable[tuple[int, npt.NDArray[np.int16]]], begin: int, length: int
) -> npt.NDArray[np.int16]:
    """Samples ``begin`` to ``begin + length`` of placed pieces, silence where there is none."""
    samples = np.zeros(length, np.int16)
    for place, piece in pieces:
        low, high = max(begin, place), min(begin + length, place + len(piece))
        if low < high:
            samples[low - begin : high - begin] = piece[low - place : high - place]
        if place + len(piece) >= begin + length:
            break
    return samples


def _sound_from_start(
    container: InputContainer, stream: AudioStream, track: AudioTrack, sample_rate: int
) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
    frames = _decoded(_packets(container, stream, _no_one), stream, None, _no_one)
    return _ResampledSound(sample_rate, track, _no_one).of(frames)


def _sought_sound(
    container: InputContainer,
    stream: AudioStream,
    info: MediaInfo,
    track: AudioTrack,
    target: float,
    sample_rate: int,
) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
    """Sound from about ``target`` seconds on, on the grid on which the whole file is resampled.

    Output sample k of the whole file lies on input sample ``k * rate / sample_rate``, counted from the first. Where
    that is a whole number, the resampler can begin anew and give the same samples, once its filter is full.

    Raises:
        _NotAsIndexedError: where the seek landed is not known well enough.
    """
    rate = info.audio_rate or 0
    if info.format in _SOUND_SOUGHT_FORMATS:
        container.seek(math.floor((target + track.origin) / track.tick), stream=stream)
    packets = _packets_from(_packets(container, stream, _no_one), (target + track.origin) / track.tick)
    frames = (f for f in _decoded(packets, stream, None, _no_one) if f.samples)
    next(frames, None)  # lacks what comes before it, and some decoders trim it like the first of the file
    first = next(frames, None)
    if first is None or first.pts is None or first.sample_rate != rate:
        raise _NotAsIndexedError
    index = _sample_index(info, first.pts)
    common = rate // math.gcd(rate, sample_rate)
    drop = -index % common
    if drop > PREROLL_SECONDS / 2 * rate:
        drop = 0  # no useful common measure: within a sample of the grid
    place = round(((info.audio_first or 0) * track.tick - track.origin) * sample_rate)
    place += round((index + drop) * sample_rate / rate)
    sound = _ResampledSound(sample_rate, track, _no_one, start=place / sample_rate)
    return sound.of(_without(drop, itertools.chain([first], frames)))


def _packets_from(packets: Iterable[av.Packet[Any]], stamp: float) -> Iterator[av.Packet[Any]]:
    """Leave out packets before the last one that begins at or before ``stamp``."""
    held: av.Packet[Any] | None = None
    found = False
    for packet in packets:
        if not found and packet.pts is not None:
            found = packet.pts > stamp
            if found:
                if held is None:
                    raise _NotAsIndexedError  # landed late
                yield held
        if found:
            yield packet
        held = packet
    if not found and held is not None:
        yield held


def _sample_index(info: MediaInfo, pts: int) -> int:
    """Which input sample of the stream has this time stamp, counted from the first one decoded.

    Time stamps in ticks coarser than a sample (Matroska's milliseconds) are moved to the beginning of the frame that
    they must mean.
    """
    assert info.audio_tick is not None
    assert info.audio_rate is not None
    samples_a_tick = info.audio_tick * info.audio_rate
    index = (pts - (info.audio_first or 0)) * samples_a_tick
    exact = (
        abs(round(1 / samples_a_tick) * samples_a_tick - 1) < _ROUNDING if samples_a_tick <= 1.5 else False
    )
    if not exact and info.audio_frame:
        lead = info.audio_lead or 0
        counted = lead + round((index - lead) / info.audio_frame) * info.audio_frame
        if abs(counted - index) <= 2 * samples_a_tick:
            return counted
    return round(index)


def _without(drop: int, frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Leave out the first ``drop`` samples; what is then first has no time stamp."""
    begun = False
    for frame in frames:
        if begun:
            yield frame
        elif frame.samples <= drop:
            drop -= frame.samples
        else:
            begun = True
            yield _shortened(frame, drop)


def _shortened(frame: av.AudioFrame, drop: int) -> av.AudioFrame:
    if drop:
        values = frame.to_ndarray()
        skipped = drop if frame.format.is_planar else drop * len(frame.layout.channels)
        rest: npt.NDArray[Any] = np.ascontiguousarray(values[:, skipped:])
        try:
            shorter = av.AudioFrame.from_ndarray(rest, format=frame.format.name, layout=frame.layout.name)
        except ValueError:  # a layout without a name, a format without an array type
            raise _NotAsIndexedError from None
        shorter.sample_rate = frame.sample_rate
        frame = shorter
    frame.pts = None
    return frame
