"""Open media files, read their time stamps, decode pictures and sound by time.

A file is read twice. :func:`scan` demultiplexes it once without decoding (15 ms a minute of video): the packets' own
time stamps say where each stream begins and ends, which headers often do not, and which packets a set of clips needs.
:func:`read_frames` and :func:`read_sound` then decode in one forward pass, without seeking. Memory does not grow with
the length of the file, but for 9 bytes a frame.

Times are seconds since the file's first picture, or its first sound where that leads by more than
:data:`CODEC_DELAY_SECONDS` or there is no picture.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.stream import Disposition
from av.video import VideoStream
from av.video.reformatter import VideoReformatter

from crisscross_zoo.errors import MediaError, MediaNotFoundError, NoStreamError, UnreadableMediaError

StrPath = str | os.PathLike[str]

_Picture = TypeVar("_Picture")

CODEC_DELAY_SECONDS = 0.1
"""Sound that leads the picture by less is codec delay, not content: the picture's start stays time 0."""

MAX_CLOCK_DRIFT_SECONDS = 0.1
"""Sound whose time stamps differ by more from the samples counted so far is placed anew: a gap or an overlap."""

STRAY_SECONDS = 60.0
"""A time stamp is not believed if it lies outside twice the stream's length by more."""

LONGEST_PACKET_SECONDS = {"video": 600.0, "audio": 5.0}
"""A picture or a piece of sound that says it lasts longer is not believed."""

TRUNCATION_SECONDS = 1.0
"""A file that ends this much earlier than it says (and 1 % of its length) is truncated."""

_EARLY_SECONDS = 1e-6
"""A picture is shown from this much before its time on, for what rounding does to sums of seconds."""

INT16_SCALE = 32767.0
"""Decoded 16-bit sound is divided by this, as the reference does."""

# Demuxers that make "video" of text, and ones that open other files or addresses named in the input.
_REFUSED_FORMATS = frozenset(
    {"tty", "bin", "xbin", "adf", "idf", "hls", "concat", "dash", "sdp", "applehttp"}
)
_REFUSED_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})

# Formats whose picture time stamps are missing or in decoding order: pictures are counted over the frame rate.
_COUNTED_FORMATS = frozenset({"avi", "h264", "hevc", "vvc", "m4v", "mpegvideo", "mjpeg", "image2", "obu"})

# Formats whose key-frame flags can be trusted, so that packets no clip needs are not decoded.
_INDEXED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})

# Of the decoders that FFmpeg probes a file with: they decode nothing, and one packet is enough.
_UNPROBED = {"skip_frame": "all", "probesize": "32"}

# Formats whose header says all that reading needs, decoding times too, where the codec is one of these. What comes out
# is held against the index, so that a file whose header says too little is noticed.
_UNPROBED_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"
_UNPROBED_CODECS = frozenset({"h264", "hevc"})

# Codecs whose non-reference pictures can be left out without changing the others (checked in tests/media).
_SKIPPABLE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video"})

# Formats whose header states a real duration; elsewhere FFmpeg estimates it from the bit rate.
_STATED_DURATION_FORMATS = frozenset(
    {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "wav", "flac", "ogg"}
)


@dataclass(frozen=True)
class VideoTrack:
    """The picture stream that clips are taken from.

    Attributes:
        index: Stream index in the file.
        codec: FFmpeg's name of the codec.
        span: ``(start, end)`` in seconds: first picture shown, last picture's end.
        rate: Frames a second by the header; pictures are counted over it where time stamps are missing.
        counted: Whether the file's time stamps are unusable, so that picture i is at ``i / rate``.
        constant: Whether the time stamps are multiples of ``1 / rate``, rounded to ticks; the rounding is then undone.
        pts: Presentation time stamps in decoding order, int64, in units of ``tick``; empty if counted.
        keys: Whether each packet starts a group that decodes on its own; same length as ``pts``.
        tick: Seconds per unit of ``pts``.
        origin: ``pts * tick - origin`` is the time in the file.
    """

    index: int
    codec: str
    span: tuple[float, float]
    rate: float
    counted: bool
    constant: bool
    pts: npt.NDArray[np.int64] = field(repr=False)
    keys: npt.NDArray[np.bool_] = field(repr=False)
    tick: float
    origin: float

    def seconds(self, pts: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Times in the file of presentation time stamps."""
        seconds = np.asarray(pts, np.float64) * self.tick - self.origin
        if self.constant:
            first = self.span[0]
            seconds = first + np.rint((seconds - first) * self.rate) / self.rate
        return seconds

    def stamps_at(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Time stamps of the pictures shown at ``times``, seconds in the file; the first one's before it."""
        shown = np.unique(self.pts)
        later = np.searchsorted(self.seconds(shown), times + _EARLY_SECONDS, side="right")
        stamps: npt.NDArray[np.int64] = shown[np.maximum(later - 1, 0)]
        return stamps


@dataclass(frozen=True)
class AudioTrack:
    """The sound stream that clips are taken from.

    Attributes:
        index: Stream index in the file.
        codec: FFmpeg's name of the codec.
        span: ``(start, end)`` in seconds.
        tick: Seconds per unit of a time stamp.
        origin: ``pts * tick - origin`` is the time in the file.
    """

    index: int
    codec: str
    span: tuple[float, float]
    tick: float
    origin: float


@dataclass(frozen=True)
class Media:
    """What :func:`scan` found in a file.

    Attributes:
        path: The file.
        size: Its length in bytes.
        modified_ns: When it was last changed, nanoseconds since 1970.
        format: FFmpeg's name of the container format.
        video: The best picture stream, or None (attached cover art does not count).
        audio: The best sound stream, or None.
        damage: What is wrong with the file although it can be read, one phrase each.
    """

    path: str
    size: int
    modified_ns: int
    format: str
    video: VideoTrack | None
    audio: AudioTrack | None
    damage: tuple[str, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds to the end of the stream that ends last."""
        return max(t.span[1] for t in (self.video, self.audio) if t is not None)


def decoder_versions() -> dict[str, str]:
    """Versions of PyAV and of the libraries inside it that decide what pictures and sound come out."""
    libraries = ("libavcodec", "libavformat", "libswscale", "libswresample")
    return {"av": av.__version__, **{n: ".".join(map(str, av.library_versions[n])) for n in libraries}}


def scan(path: StrPath) -> Media:
    """Read a file's streams and time stamps without decoding more than the first picture and sound.

    Args:
        path: A local file.

    Returns:
        The best stream of each kind, with the times between which it has content.

    Raises:
        MediaNotFoundError: there is no such file.
        UnreadableMediaError: empty, not media, a folder or device, no permission, or nothing can be decoded.
        NoStreamError: readable, but with neither picture nor sound.
    """
    with _open(path) as container:
        streams = _best_streams(container)
        if not streams:
            raise NoStreamError(
                f"has neither pictures nor sound (read as {container.format.name!r})",
                remedy="pass video or sound files",
                path=path,
            )
        damage: list[str] = []
        tracks = {s.index: _TrackScan(s) for s in streams}
        try:
            for packet in container.demux(streams):
                tracks[packet.stream.index].add(packet)
        except (av.error.FFmpegError, OSError) as error:
            damage.append(f"reading stops early ({_reason(error)})")
        for track in list(tracks.values()):
            if track.first is None:
                damage.append(f"nothing in its {track.stream.type} stream can be decoded")
                del tracks[track.stream.index]
        if not tracks:
            raise UnreadableMediaError(
                "nothing in it can be decoded",
                remedy="check the file in a player, or fetch it again",
                path=path,
            )
        media = _place(path, container, tracks, damage)
        end = media.duration
        stated = _stated_seconds(container)
        if stated - end > max(TRUNCATION_SECONDS, 0.01 * stated):
            damage.append(f"says {stated:.2f} s, {end:.2f} s can be read")
        elif media.video is not None:
            frames, found = container.streams[media.video.index].frames, len(tracks[media.video.index].pts)
            if frames - found > max(TRUNCATION_SECONDS * media.video.rate, 0.01 * frames):
                damage.append(f"says {frames} pictures, {found} can be read")
        return dataclasses.replace(media, damage=tuple(damage))


def read_frames(
    media: Media, times: npt.NDArray[np.float64], *, on_damage: Callable[[str], None]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Decode the pictures shown at ``times``: at each, the last one whose time stamp is not later.

    This is the released code's ``int(time * fps)``, on files with a constant frame rate, and right on others.

    Args:
        media: From :func:`scan`, with a video track.
        times: Seconds, shape (n,), ascending.
        on_damage: Told, in one phrase, of what could not be decoded.

    Yields:
        ``(count, picture)``: the picture serves the next ``count`` of ``times``; uint8 RGB, shape (H, W, 3), upright.

    Raises:
        UnreadableMediaError: no picture could be decoded.
    """
    yield from _pictures(media, times, _RgbConverter(), on_damage=on_damage)


def _pictures(
    media: Media,
    times: npt.NDArray[np.float64],
    convert: Callable[[av.VideoFrame], _Picture],
    *,
    on_damage: Callable[[str], None],
) -> Iterator[tuple[int, _Picture]]:
    """See :func:`read_frames`; ``convert`` makes of a decoded frame what is given."""
    track = media.video
    if track is None:
        raise NoStreamError("has no picture stream", remedy="use modality 'audio'", path=media.path)
    done = 0
    sparse = not track.counted and media.format in _INDEXED_FORMATS
    if sparse:
        try:
            served = _serve(media, track, times, convert, only_needed=True, on_damage=on_damage)
            for count, picture in served:
                yield count, picture
                done += count
        except _NotAsIndexedError:
            # Damaged, or a key frame that was none: decode all of it for the times that are left.
            pass
        else:
            return
    yield from _serve(media, track, times[done:], convert, only_needed=False, on_damage=on_damage)


def read_sound(
    media: Media, sample_rate: int, *, on_damage: Callable[[str], None]
) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
    """Decode the sound stream to mono, placed by its time stamps.

    FFmpeg's resampler does rate and downmix in ``s16p``, as the reference does (planar float would skip the downmix's
    normalisation). It is flushed at the end and at gaps.

    Args:
        media: From :func:`scan`, with an audio track.
        sample_rate: Samples a second to resample to, Hz.
        on_damage: Told, in one phrase, of what could not be decoded.

    Yields:
        ``(first, samples)``: int16 samples, shape (m,), and the place of the first, in samples since time 0. Places
        ascend and never overlap; what lies between them is a gap in the file.

    Raises:
        UnreadableMediaError: nothing could be decoded.
    """
    track = media.audio
    if track is None:
        raise NoStreamError("has no sound stream", remedy="use modality 'video'", path=media.path)
    sound = _ResampledSound(sample_rate, track, on_damage)
    unprobed = media.video is not None and opens_unprobed(media.format, media.video.codec)
    with _open(media.path, unprobed=unprobed) as container:
        stream = container.streams[track.index]
        assert isinstance(stream, AudioStream)
        yield from sound.of(_decoded(_packets(container, stream, on_damage), stream, None, on_damage))
    if not sound.heard:
        raise UnreadableMediaError(
            "its sound cannot be decoded", remedy="check it in a player", path=media.path
        )


# --- opening -----------------------------------------------------------------------------------------------------


def opens_unprobed(format_name: str, video_codec: str | None) -> bool:
    """Return whether a file can be opened without a look at its first pictures."""
    return format_name == _UNPROBED_FORMAT and video_codec in _UNPROBED_CODECS


def _open(
    path: StrPath, source: BinaryIO | None = None, format_name: str | None = None, *, unprobed: bool = False
) -> InputContainer:
    """Open a file, or ``source``, which holds its bytes, as the format that the file was read as before.

    What is open reads on from where ``source`` stands: one container of a source at a time. FFmpeg decodes the first
    pictures when it opens a file, to see what its header may not say; ``unprobed`` keeps it from that (1 ms instead
    of 6 at 640x360, 22 at 1280x720). The decoders used later are not told.
    """
    name = os.fspath(path)
    if source is None:
        _check_regular(name)
    try:
        # Local files only: a playlist must not make the decoder open addresses or pipes.
        # The path is made absolute because FFmpeg takes "12:30.mp4" for a protocol.
        file: Any = os.path.abspath(name)  # noqa: PTH100
        if source is not None:
            source.seek(0)
            file = source
        container: InputContainer = av.open(
            file,
            # Bytes have no suffix to tell raw formats by. Stills have another demuxer, which is found by content.
            format=None if source is None or format_name == "image2" else format_name,
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file"},
            # Only where they are needed: up to 17.0.1 PyAV crashes on them where streams turn up late, as in FLV.
            options=_UNPROBED if unprobed else None,
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(name, error) from None
    if container.format.name in _REFUSED_FORMATS:
        container.close()
        raise UnreadableMediaError(
            f"is not a media file (read as {container.format.name!r})",
            remedy="pass video or sound files",
            path=name,
        )
    return container


def _check_regular(name: str) -> None:
    try:
        status = Path(name).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MediaNotFoundError("no such file", remedy="check the path", path=name) from None
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableMediaError("is a folder, not a file", remedy="pass the files in it", path=name)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableMediaError("is not a regular file", remedy="copy it to a file first", path=name)
    if status.st_size == 0:
        raise UnreadableMediaError("is empty (0 bytes)", remedy="fetch it again", path=name)


def _unreadable(path: str, error: Exception) -> MediaError:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EACCES:
        return UnreadableMediaError("permission denied", remedy="check its access rights", path=path)
    if isinstance(error, av.error.InvalidDataError):
        return UnreadableMediaError(
            "is not media that FFmpeg can read, or its index is cut off",
            remedy="check it in a player, or fetch it again",
            path=path,
        )
    return UnreadableMediaError(
        f"cannot be opened ({_reason(error)})", remedy="check it in a player", path=path
    )


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _best_streams(container: InputContainer) -> list[VideoStream | AudioStream]:
    """The largest picture of the streams marked as default, and the sound that FFmpeg holds best."""
    found: list[VideoStream | AudioStream] = []
    pictures = [s for s in container.streams.video if _is_video(s)]
    if pictures:
        found.append(
            max(pictures, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height))
        )
    best_audio = container.streams.best("audio")
    if isinstance(best_audio, AudioStream) and best_audio.codec_context is not None:
        found.append(best_audio)
    return found


def _is_video(stream: VideoStream) -> bool:
    context = stream.codec_context
    cover = bool(stream.disposition & Disposition.attached_pic)
    return context is not None and not cover and context.name not in _REFUSED_CODECS


# --- scanning ----------------------------------------------------------------------------------------------------


class _TrackScan:
    """Collects one stream's time stamps, and decodes until its first picture or sound is out.

    Attributes:
        first: Time stamp of the first picture or sound that was decoded, None until then.
        start: Seconds on the file's clock at which the stream's content begins.
        end: Seconds at which it ends.
        seconds: Distinct time stamps in seconds, ascending, without those so far off that only damage explains them.
        far_off: Whether there were such.
    """

    def __init__(self, stream: VideoStream | AudioStream) -> None:
        self.stream = stream
        self.pts: list[int | None] = []
        self.keys: list[bool] = []
        self.lengths: list[int] = []
        self.first: int | None = None
        self.tick = float(stream.time_base or 0) or 1e-6
        stream.codec_context.thread_count = 1

    def add(self, packet: av.Packet[Any]) -> None:
        """Take the stream's next packet; an empty one is its end."""
        if packet.size > 0:
            self.pts.append(packet.pts)
            self.keys.append(packet.is_keyframe)
            self.lengths.append(max(packet.duration or 0, 0))
        if self.first is None:
            try:
                frames = self.stream.codec_context.decode(packet if packet.size else None)
            except (av.error.FFmpegError, ValueError):
                return
            if frames:
                self.first = frames[0].pts or 0

    def finish(self, stated: float) -> None:
        """Work out the times; ``stated`` is the length in seconds by the file's header, 0 if there is none."""
        longest = LONGEST_PACKET_SECONDS[self.stream.type]
        lengths = np.minimum(np.array(self.lengths, np.float64) * self.tick, longest)
        length = float(lengths.sum())
        stated = min(stated, longest * len(lengths))
        stamped = {p: float(n) for p, n in zip(self.pts, lengths, strict=True) if p is not None}
        stamps = np.array(sorted(stamped), np.float64) * self.tick
        self.start = (self.first or 0) * self.tick
        self.end = self.start + length
        self.seconds = stamps
        self.far_off = False
        if not len(stamps):
            return
        # Hours of nothing would be filled if one broken stamp were believed.
        middle, reach = np.median(stamps), 2 * max(length, stated) + STRAY_SECONDS
        self.seconds = stamps[np.abs(stamps - middle) < reach]
        self.far_off = len(self.seconds) < len(stamps)
        if abs(self.start - middle) >= reach:
            self.start = float(self.seconds[0])
        last = float(self.seconds[-1])
        steps = np.diff(self.seconds)
        typical = float(np.median(steps)) if len(steps) else length
        self.end = max(last, self.start) + (stamped.get(round(last / self.tick), 0.0) or typical)


def _place(
    path: StrPath, container: InputContainer, tracks: dict[int, _TrackScan], damage: list[str]
) -> Media:
    """Put both streams on one clock, see the module's docstring."""
    stated = _stated_seconds(container)
    for track in tracks.values():
        track.finish(stated)
        if track.far_off:
            damage.append(f"time stamps in the {track.stream.type} stream are far off and not believed")
    by_type = {t.stream.type: t for t in tracks.values()}
    video, audio = by_type.get("video"), by_type.get("audio")
    counted = container.format.name in _COUNTED_FORMATS or container.format.name.endswith("_pipe")
    counted = video is not None and (counted or None in video.pts)
    if video is not None and counted:
        rate = _rate(video)
        video.start, video.end = 0.0, len(video.pts) / rate
    video_origin = audio_origin = 0.0
    if video is not None:
        video_origin = audio_origin = video.start
    if audio is not None and (video is None or audio.start < video.start - CODEC_DELAY_SECONDS):
        video_origin = audio_origin = audio.start
    if video is not None and audio is not None:
        longest = max(stated, video.end - video.start, audio.end - audio.start)
        if abs(video.start - audio.start) > longest + STRAY_SECONDS:
            damage.append("picture and sound have different clocks; both are taken to begin at once")
            video_origin, audio_origin = video.start, audio.start
    status = Path(path).stat()
    return Media(
        path=os.fspath(path),
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        format=container.format.name,
        video=None if video is None else _video_track(video, video_origin, counted=counted),
        audio=None if audio is None else _audio_track(audio, audio_origin),
    )


def _stated_seconds(container: InputContainer) -> float:
    """Length by the header; 0 where there is none, or FFmpeg estimates it from the bit rate or the last stamps."""
    stated = container.format.name in _STATED_DURATION_FORMATS
    return (container.duration or 0) / av.time_base if stated else 0.0


def _rate(scan: _TrackScan) -> float:
    assert isinstance(scan.stream, VideoStream)
    return float(scan.stream.guessed_rate or scan.stream.average_rate or 25)


def _video_track(scan: _TrackScan, origin: float, *, counted: bool) -> VideoTrack:
    rate = _rate(scan)
    grid = (scan.seconds - scan.start) * rate
    rounding = 0.75 * scan.tick * rate
    return VideoTrack(
        index=scan.stream.index,
        codec=scan.stream.codec_context.name,
        span=(scan.start - origin, scan.end - origin),
        rate=rate,
        counted=counted,
        constant=not counted and rounding < 0.4 and bool(np.all(np.abs(grid - np.rint(grid)) <= rounding)),
        pts=np.empty(0, np.int64) if counted else np.asarray(scan.pts, np.int64),
        keys=np.asarray(scan.keys, np.bool_),
        tick=scan.tick,
        origin=origin,
    )


def _audio_track(scan: _TrackScan, origin: float) -> AudioTrack:
    first = max(scan.start - origin, 0.0)
    return AudioTrack(
        index=scan.stream.index,
        codec=scan.stream.codec_context.name,
        span=(first, max(scan.end - origin, first + scan.tick)),
        tick=scan.tick,
        origin=origin,
    )


# --- pictures ----------------------------------------------------------------------------------------------------


class _NotAsIndexedError(Exception):
    """A picture that the index promises did not come out of the decoder."""


def _serve(
    media: Media,
    track: VideoTrack,
    times: npt.NDArray[np.float64],
    convert: Callable[[av.VideoFrame], _Picture],
    *,
    only_needed: bool,
    on_damage: Callable[[str], None],
    source: BinaryIO | None = None,
) -> Iterator[tuple[int, _Picture]]:
    """One pass over the file; see :func:`read_frames`. ``only_needed`` decodes no more than the index asks for."""
    if not len(times):
        return
    plan = _DecodingPlan(track, times) if only_needed else None
    unprobed = only_needed and opens_unprobed(media.format, track.codec)
    with _open(media.path, source, media.format, unprobed=unprobed) as container:
        stream = container.streams[track.index]
        assert isinstance(stream, VideoStream)
        frames = _decoded(_packets(container, stream, on_damage), stream, plan, on_damage)
        yield from _shown(frames, track, times, convert, plan, media.path)


def _shown(
    frames: Iterable[av.VideoFrame],
    track: VideoTrack,
    times: npt.NDArray[np.float64],
    convert: Callable[[av.VideoFrame], _Picture],
    plan: _DecodingPlan | None,
    path: str,
) -> Iterator[tuple[int, _Picture]]:
    """Of decoded ``frames``, those shown at ``times``, of which there is one or more; see :func:`read_frames`."""
    wall = times + _EARLY_SECONDS
    done, serial, current, newest = 0, 0, None, -np.inf
    for frame in frames:
        counted = track.counted or frame.pts is None
        seconds = serial / track.rate if counted else float(track.seconds(frame.pts or 0))
        serial += 1
        if seconds <= newest or seconds > track.span[1] + 1.0:
            continue  # out of order or beyond the end: a damaged time stamp
        newest = seconds
        if current is not None:
            count = int(np.searchsorted(wall, seconds, side="left")) - done
            if count > 0:
                if plan is not None:
                    plan.check(done, count, current)
                yield count, convert(current)
                done += count
                if done == len(times):
                    return
        current = frame
    if current is None:
        if plan is not None:
            raise _NotAsIndexedError
        raise UnreadableMediaError("its pictures cannot be decoded", remedy="check it in a player", path=path)
    if plan is not None:
        plan.check(done, len(times) - done, current)
    yield len(times) - done, convert(current)


class _DecodingPlan:
    """Which packets to decode so that the pictures at some times come out, and nothing else if possible.

    Packets form groups that start with a key frame, in decoding order. A group with no needed picture is dropped
    before the decoder. Pictures shown before their group's key frame also need the group before. In a group,
    non-reference pictures that are not needed are skipped by the decoder, which leaves the others bit for bit the same.
    """

    def __init__(self, track: VideoTrack, times: npt.NDArray[np.float64]) -> None:
        self.picks = track.stamps_at(times)
        self.needed = np.isin(track.pts, self.picks)
        group = np.maximum(np.cumsum(track.keys) - 1, 0)
        key_pts = track.pts[np.flatnonzero(track.keys)] if track.keys.any() else track.pts[:1]
        wanted = np.zeros(len(key_pts), np.bool_)
        wanted[group[self.needed]] = True
        leading = self.needed & (track.pts < key_pts[group])
        wanted[np.maximum(group[leading] - 1, 0)] = True
        self.decode = wanted[group]
        self.skips = track.codec in _SKIPPABLE_CODECS

    def check(self, done: int, count: int, frame: av.VideoFrame) -> None:
        if frame.pts is None or np.any(self.picks[done : done + count] != frame.pts):
            raise _NotAsIndexedError


class _RgbConverter:
    """Frames to upright RGB arrays, with one reused scaler (4 to 5 times faster than a new one a frame)."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        rgb = self._reformatter.reformat(frame, frame.width, frame.height, "rgb24").to_ndarray()
        upright: npt.NDArray[np.uint8] = np.ascontiguousarray(np.rot90(rgb, k=round(frame.rotation / 90)))
        return upright


def _decoded(
    packets: Iterable[av.Packet[Any]],
    stream: VideoStream | AudioStream,
    plan: _DecodingPlan | None,
    on_damage: Callable[[str], None],
) -> Iterator[Any]:
    """Decode packet by packet, so that a bad packet costs no more than itself."""
    context = stream.codec_context
    if context.thread_count != 1:  # it cannot be set again once the codec is open
        context.thread_count = 1
    damaged = f"damaged packets in the {stream.type} stream"

    def decode(packet: av.Packet[Any] | None) -> list[Any]:
        try:
            return list(context.decode(packet))
        except (av.error.FFmpegError, ValueError):
            on_damage(damaged)
            return []

    serial, drained = 0, True
    for packet in packets:
        if plan is not None and serial < len(plan.decode):
            needed, wanted = plan.needed[serial], plan.decode[serial]
            serial += 1
            if not wanted:
                if not drained:
                    yield from decode(None)
                    context.flush_buffers()
                    drained = True
                continue
            if plan.skips:
                context.skip_frame = "DEFAULT" if needed else "NONREF"
        drained = False
        yield from decode(packet)
    yield from decode(None)


def _packets(
    container: InputContainer, stream: VideoStream | AudioStream, on_damage: Callable[[str], None]
) -> Iterator[av.Packet[Any]]:
    """The stream's packets that hold data, up to where the file can be read."""
    try:
        for packet in container.demux(stream):
            if packet.size > 0:
                yield packet
    except (av.error.FFmpegError, OSError) as error:
        on_damage(f"reading stops early ({_reason(error)})")


# --- sound -------------------------------------------------------------------------------------------------------


class _ResampledSound:
    """Decoded frames to mono int16 at one rate, each piece with its place in samples since time 0.

    A first frame without a time stamp is placed at ``start`` seconds.
    """

    def __init__(
        self, sample_rate: int, track: AudioTrack, on_damage: Callable[[str], None], *, start: float = 0.0
    ) -> None:
        self._on_damage = on_damage
        self._rate = sample_rate
        self._track = track
        self._resampler: AudioResampler | None = None
        self._form: tuple[int, str, str] | None = None
        self._next_seconds = start  # where the input should go on
        self._first = self._place = 0  # of the current resampler's output
        self._unheard: list[av.AudioFrame] = []  # frames of a piece of which nothing has come out yet
        self.heard = False

    def of(self, frames: Iterable[av.AudioFrame]) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
        """Resample all of ``frames``; places ascend from 0 and never overlap."""
        cursor = 0
        for first, samples in itertools.chain.from_iterable(
            itertools.chain(map(self.add, frames), [self.flush()])
        ):
            keep = samples[max(0, cursor - first) :]
            if len(keep):
                yield max(first, cursor), keep
                cursor = max(first, cursor) + len(keep)

    def add(self, frame: av.AudioFrame) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
        """Resample a frame; one that does not follow on, or has another form, starts a new piece."""
        if frame.samples == 0 or frame.sample_rate <= 0:
            return
        form = (frame.sample_rate, frame.layout.name, frame.format.name)
        seconds = (
            self._next_seconds if frame.pts is None else frame.pts * self._track.tick - self._track.origin
        )
        if seconds > self._track.span[1] + MAX_CLOCK_DRIFT_SECONDS:
            return  # a damaged time stamp
        if form != self._form or abs(seconds - self._next_seconds) > MAX_CLOCK_DRIFT_SECONDS:
            yield from self.flush()
            self._form = form
            self._resampler = AudioResampler(format="s16p", layout="mono", rate=self._rate)
            self._first = self._place = round(seconds * self._rate)
            self._next_seconds = seconds
        self._next_seconds += frame.samples / frame.sample_rate
        frame.pts = None  # places are counted here; the resampler need not know
        if self._place == self._first:
            self._unheard.append(frame)
        else:
            self._unheard.clear()
        yield from self._placed(frame)

    def flush(self) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
        """Give what is still inside, before a gap or at the end."""
        if self._resampler is None or self._form is None:
            return
        yield from self._placed(None)
        if self._place == self._first:
            # Shorter than the resampler's filter, so that nothing comes out: let silence follow, and cut it off.
            rate, layout, form = self._form
            silence = av.AudioFrame(format=form, layout=layout, samples=rate // 10)
            silence.sample_rate = rate
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            length = max(1, round(self._next_seconds * self._rate) - self._first)
            self._resampler = AudioResampler(format="s16p", layout="mono", rate=self._rate)
            pieces = [p for f in (*self._unheard, silence) for p in self._placed(f)]
            if pieces:
                yield self._first, np.concatenate([samples for _, samples in pieces])[:length]
        self._unheard.clear()
        self._resampler = None

    def _placed(self, frame: av.AudioFrame | None) -> Iterator[tuple[int, npt.NDArray[np.int16]]]:
        if self._resampler is None:
            return
        try:
            resampled = self._resampler.resample(frame)
        except (av.error.FFmpegError, ValueError) as error:
            self._on_damage(f"sound of a form that cannot be resampled ({_reason(error)})")
            self._resampler = None  # not safe to use again; the rest of the piece is lost
            return
        for piece in resampled:
            if piece is not None:  # a resampler with nothing to do hands None back
                samples = piece.to_ndarray().reshape(-1).astype(np.int16, copy=False)
                self.heard = True
                yield self._place, samples
                self._place += len(samples)
