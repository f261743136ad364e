"""Random access for training: frames at given times and a window of audio, of a file that was scanned before.

:func:`read_moment` opens the file once, seeks, and decodes only what it needs for the same frames, byte for byte, as
:func:`~crisscross_zoo.media.decode.read_frames` over the whole file. It needs no more of a scan than an index keeps.

A file is read by seeking if its timestamps are regular and its format is one whose seeking was checked (MP4, Matroska,
MPEG-TS, FLV). Other files are decoded from their start, with the same clock, and so is a file in which a seek lands
late or the decoder does not return the expected frames. Memory does not grow with the file in either case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.container import InputContainer
from av.video import VideoStream

from crisscross_zoo.errors import InputError, UnreadableMediaError
from crisscross_zoo.media.audio import MonoAudio, Piece, channels_of, cut_out, frame_of
from crisscross_zoo.media.clock import LONGEST_REORDERING
from crisscross_zoo.media.decode import convert_frames, read_audio
from crisscross_zoo.media.frames import (
    INDEXED_FORMATS,
    Decoded,
    DecodingPlan,
    NotAsIndexedError,
    RgbConverter,
    decode_video,
    shown_frames,
)
from crisscross_zoo.media.hidden import HiddenPackets
from crisscross_zoo.media.packets import (
    AudioBreak,
    changed,
    decode_audio,
    ignore_damage,
    open_media,
    opens_unprobed,
    read_packets,
    stream_at,
)
from crisscross_zoo.media.tracks import EARLY_SECONDS, AudioTrack, Media, Packets, VideoTrack

PREROLL_SECONDS = 0.2
"""Audio is decoded from this much earlier, so that decoder and resampler have settled at the requested start."""

SEEK_GAP_SECONDS = 1.0
"""Times further apart than this get a seek each."""

_ROUNDING = 1e-6

# Formats that are read by seeking although their key-frame flags come from a parser: all packets from there on are
# decoded.
_PLAINLY_SOUGHT_FORMATS = frozenset({"mpegts", "flv"})

# Formats in which a packet's timestamp is exact after a seek. In others, packets are read from the start, but not
# decoded.
_AUDIO_SOUGHT_FORMATS = INDEXED_FORMATS | {"mpegts", "flv", "flac"}
_PCM_SOUGHT_FORMATS = frozenset({"wav"})  # PCM only: for other codecs FFmpeg estimates the position

# If a seek for a key frame lands after the frame, it is retried this many seconds earlier.
_STEPS_BACK = (0.0, 0.5, 2.0, 10.0)


def read_moment(
    media: Media,
    *,
    times: npt.NDArray[np.float64] | None,
    audio: tuple[float, int] | None = None,
    sample_rate: int = 16_000,
    source: BinaryIO | None = None,
) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.int16] | None]:
    """Read the frames shown at given times, and a window of audio, with one open and as little decoding as possible.

    The frames are those of :func:`~crisscross_zoo.media.decode.read_frames`, byte for byte, in an undamaged file.

    The audio lies on the sample grid on which :func:`~crisscross_zoo.media.decode.read_audio` puts the whole file.
    Values are the same for PCM, FLAC, ALAC, MP3 and AAC, and within 16 of 32767 for Opus, whose decoder forgets slowly.
    What a decoder draws at random differs between reads: AAC's noise substitution (which FFmpeg's own encoder uses),
    AC-3's dither. If a file's timestamps drift from its samples, the audio is positioned by the timestamp near it, up
    to 0.1 s from its position in a read of the whole file. For rates that share no useful factor with ``sample_rate``
    (22,051 Hz), the audio is off by less than a sample.

    Damage is not reported. As in the readers of the whole file, what can be decoded is returned.

    Args:
        media: From :func:`~crisscross_zoo.media.scan.scan`, or read from an index.
        times: Seconds, shape (n,), n >= 1, in any order; None for no frames. A time before the first frame gets the
            first one, a time after the last frame the last one.
        audio: ``(start, samples)``: start of the audio in seconds, and its number of samples; None for no audio.
        sample_rate: The rate to resample to, Hz.
        source: The file's bytes, such as an ``io.BytesIO``, read instead of ``media.path``; it must be seekable, and
            stays open.

    Returns:
        ``(frames, samples)``: uint8 RGB, shape (n, H, W, 3), upright, in the order of ``times``; and mono int16,
        shape (samples,), with silence where the stream has no audio; divide by 32767 for [-1, 1]. None for what was
        not requested.

    Raises:
        NoStreamError: the file lacks a requested stream.
        MediaNotFoundError: the file does not exist any more.
        UnreadableMediaError: the file has changed since it was scanned or cannot be opened, a requested stream cannot
            be decoded, or the frames differ in size.
        InputError: ``times`` or ``audio`` has the wrong shape or is not finite.
    """
    video_track, audio_track = media.video, media.audio
    wanted = None if times is None else _checked_times(times)
    if wanted is not None and video_track is None:
        raise media.lacks("video")
    if audio is not None:
        if not (math.isfinite(audio[0]) and audio[1] >= 0):
            raise InputError(f"audio={audio!r} is not (start in seconds, number of samples)")
        if audio_track is None:
            raise media.lacks("audio")
    _check_unchanged(media, source)
    samples: npt.NDArray[np.int16] | None = None
    frames: npt.NDArray[np.uint8] | None = None
    seek_frames = video_track is not None and _seeks_frames(media, video_track)
    seek_audio = audio_track is not None and audio_track.regular
    # The file is opened without probing first, and with probing if that is not enough.
    codec = None if video_track is None else video_track.codec
    for unprobed in (True, False) if opens_unprobed(media.format, codec) else (False,):
        need_audio = audio is not None and samples is None and seek_audio
        need_frames = wanted is not None and frames is None and seek_frames
        if not need_audio and not need_frames:
            break
        with open_media(media.path, source, media.format, unprobed=unprobed) as container:
            # The audio goes first: near the file's start it is read without seeking.
            if need_audio and audio is not None and audio_track is not None:
                samples = _seek_audio(container, media, audio_track, *audio, sample_rate)
            if need_frames and wanted is not None and video_track is not None:
                # If the seek lands late or the frames are not as indexed, the whole file is decoded, below.
                with contextlib.suppress(NotAsIndexedError, av.error.FFmpegError, OSError):
                    frames = _gather(
                        _sought_frames(container, media, video_track, np.sort(wanted)), wanted, media
                    )
    if audio is not None and samples is None:
        pieces = read_audio(media, sample_rate, on_damage=ignore_damage, source=source)
        samples = cut_out(pieces, round(audio[0] * sample_rate), audio[1])
    if wanted is not None and frames is None:
        whole = convert_frames(media, np.sort(wanted), RgbConverter, on_damage=ignore_damage, source=source)
        frames = _gather(whole, wanted, media)
    return frames, samples


def _checked_times(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array = np.asarray(times, np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise InputError(f"times of shape {array.shape} are not a 1-D array of finite seconds")
    return array


def _check_unchanged(media: Media, source: BinaryIO | None) -> None:
    try:
        size = Path(media.path).stat().st_size if source is None else source.seek(0, os.SEEK_END)
    except (OSError, ValueError):
        return  # opening the file raises the right error
    if size != media.size:
        raise changed(media.path, f"{media.size} bytes then, {size} now")


# --- frames ------------------------------------------------------------------------------------------------------


def _seeks_frames(media: Media, track: VideoTrack) -> bool:
    return track.regular and media.format in INDEXED_FORMATS | _PLAINLY_SOUGHT_FORMATS


def _gather(
    served: Iterable[tuple[int, npt.NDArray[np.uint8]]], times: npt.NDArray[np.float64], media: Media
) -> npt.NDArray[np.uint8]:
    """Return the frames, served in ascending order of time, in the order of ``times``."""
    order = np.argsort(times, kind="stable")
    frames: npt.NDArray[np.uint8] | None = None
    done = 0
    for count, frame in served:
        if frames is None:
            frames = np.empty((len(times), *frame.shape), np.uint8)
        elif frame.shape != frames.shape[1:]:
            raise UnreadableMediaError(
                f"its frames change from {frames.shape[1:3]} to {frame.shape[:2]} (height, width)",
                remedy="re-encode it, or exclude it",
                path=media.path,
            )
        frames[order[done : done + count]] = frame
        done += count
    assert frames is not None
    return frames


def _sought_frames(
    container: InputContainer, media: Media, track: VideoTrack, times: npt.NDArray[np.float64]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield the frames at ``times``, which ascend, stretch by stretch of packets; each stretch is like a small file."""
    stream = stream_at(container, track.index, track.codec, media.path, VideoStream)
    context = stream.codec_context
    convert = RgbConverter(track)
    for packets, stretch_times in _stretches(container, stream, track, times):
        context.flush_buffers()
        context.skip_frame = "DEFAULT"
        stretch = track_of(packets, track, stream)
        assert stretch.packets is not None
        if not stretch.packets.shown.any():
            raise NotAsIndexedError
        plan = None
        if media.format in INDEXED_FORMATS:
            plan = DecodingPlan(stretch, stretch_times)
            del packets[np.flatnonzero(plan.needed)[-1] + 1 :]  # no needed frame depends on later packets
        decoded = decode_video(packets, stream, plan, ignore_damage)
        decoded = _from_first(decoded, stretch.packets.stamps, sure=plan is None)
        try:
            yield from shown_frames(decoded, stretch, stretch_times, convert, plan, media.path, ignore_damage)
        except UnreadableMediaError:
            raise NotAsIndexedError from None


def track_of(packets: list[av.Packet[Any]], track: VideoTrack, stream: VideoStream) -> VideoTrack:
    """Return the track of some packets of a stream, from a key frame on, as if the stream had no others."""
    hidden = HiddenPackets(track.codec, stream.codec_context.extradata)
    rows = [(p.pts, hidden.shows(p), p.is_keyframe and not hidden.second) for p in packets]
    stamps, shown, keys = (np.array(column) for column in zip(*rows, strict=True))
    return dataclasses.replace(track, packets=Packets(stamps.astype(np.int64), shown, keys))


def _from_first(
    decoded: Iterable[Decoded], stamps: npt.NDArray[np.int64], *, sure: bool
) -> Iterator[Decoded]:
    """Drop frames shown before the first key frame: their references may be missing.

    With ``sure``, raise if the decoder does not return that key frame first: it was none.
    """
    for item in decoded:
        number = item.frame.pts
        if number is None or not 0 <= number < len(stamps) or (sure and stamps[number] > stamps[0]):
            raise NotAsIndexedError
        if stamps[number] >= stamps[0]:
            sure = False
            yield item


def _stretches(
    container: InputContainer, stream: VideoStream, track: VideoTrack, times: npt.NDArray[np.float64]
) -> list[tuple[list[av.Packet[Any]], npt.NDArray[np.float64]]]:
    """Return stretches of packets, each from a key frame on, and the ``times`` that each stretch serves."""
    stretches: list[tuple[list[av.Packet[Any]], npt.NDArray[np.float64]]] = []
    # Times before the first frame show the first one, times after the last frame the last one.
    clipped = np.clip(times, track.span[0], track.span[1] + 1.0)
    for near in np.split(clipped, np.flatnonzero(np.diff(clipped) > SEEK_GAP_SECONDS) + 1):
        packets = _packets_from_key(container, stream, track, float(near[0]), float(near[-1]))
        if stretches:
            before, earlier = stretches[-1]
            same = [k for k, p in enumerate(before) if p.is_keyframe and p.pts == packets[0].pts]
            if same:  # the same group, or one that was read already: one stretch for both
                stretches[-1] = ([*before[: same[0]], *packets], np.concatenate([earlier, near]))
                continue
        stretches.append((packets, near))
    return stretches


def _packets_from_key(
    container: InputContainer, stream: VideoStream, track: VideoTrack, first: float, last: float
) -> list[av.Packet[Any]]:
    """Return the packets from the key frame at or before ``first`` to the last one shown by ``last``; seconds."""
    for back in _STEPS_BACK:
        seconds = max(first - back, track.span[0]) + EARLY_SECONDS
        container.seek(math.floor((seconds + track.origin) / track.tick), stream=stream)
        packets: list[av.Packet[Any]] = []
        later = 0
        for packet in read_packets(container, stream, ignore_damage):
            if not packets and not packet.is_keyframe:
                continue
            if packet.pts is None:
                raise NotAsIndexedError
            shown = float(track.seconds(packet.pts))
            if not packets and shown > first + EARLY_SECONDS:
                break  # landed late
            packets.append(packet)
            later = later + 1 if shown > last + EARLY_SECONDS else 0
            # No later packet is shown before this packet is decoded.
            decoded = -math.inf if packet.dts is None else (packet.dts - 1) * track.tick - track.origin
            if later and (last + EARLY_SECONDS < decoded <= track.span[1] + 1.0):
                break
            if later > LONGEST_REORDERING:
                break
        extradata = stream.codec_context.extradata
        if packets and not HiddenPackets.begin_inside(packets, track.codec, extradata):
            return packets
    raise NotAsIndexedError


# --- audio -------------------------------------------------------------------------------------------------------


def _seek_audio(
    container: InputContainer, media: Media, track: AudioTrack, start: float, length: int, sample_rate: int
) -> npt.NDArray[np.int16] | None:
    """Read the audio for :func:`read_moment` from a newly opened ``container``; None: it must be opened again."""
    stream = stream_at(container, track.index, track.codec, media.path, AudioStream)
    begin = round(start * sample_rate)
    # The first frame is dropped, and the next one must not be too late.
    target = min(start, track.span[1]) - PREROLL_SECONDS
    target -= 2 * max(track.frame, track.lead) / (track.rate or 1)
    first = -math.inf if track.first is None else track.first * track.tick - track.origin
    if math.isfinite(first) and target > first:
        with contextlib.suppress(NotAsIndexedError, av.error.FFmpegError, OSError):
            pieces = _sought_audio(container, stream, media, track, target, sample_rate)
            return cut_out(pieces, begin, length)
        return None
    frames = decode_audio(read_packets(container, stream, ignore_damage), stream, ignore_damage)
    mono = MonoAudio(sample_rate, track, ignore_damage)
    samples = cut_out(mono.of(frames), begin, length)
    return samples if mono.has_output else None


def _sought_audio(
    container: InputContainer,
    stream: AudioStream,
    media: Media,
    track: AudioTrack,
    target: float,
    sample_rate: int,
) -> Iterator[Piece]:
    """Yield audio from about ``target`` seconds on, on the sample grid on which the whole file is resampled.

    Output sample k of the whole file lies on input sample ``k * rate / sample_rate``, counted from the first. If that
    is a whole number, the resampler can start there and return the same samples, once its filter is full.

    Raises:
        NotAsIndexedError: the position where the seek landed is not known well enough.
    """
    rate, origin = track.rate, track.first or 0
    pcm = media.format in _PCM_SOUGHT_FORMATS and track.codec.startswith("pcm_")
    if pcm or media.format in _AUDIO_SOUGHT_FORMATS:
        container.seek(math.floor((target + track.origin) / track.tick), stream=stream)
    packets = _packets_from(
        read_packets(container, stream, ignore_damage), (target + track.origin) / track.tick
    )
    frames = (
        f for f in decode_audio(packets, stream, ignore_damage) if isinstance(f, AudioBreak) or f.samples
    )
    # The first frame is decoded without those before it, and some decoders trim it as the first one of a file.
    next(frames, None)
    first = next(frames, None)
    if not isinstance(first, av.AudioFrame) or first.pts is None or first.sample_rate != rate:
        raise NotAsIndexedError
    index = _sample_index(track, first.pts)
    common = rate // math.gcd(rate, sample_rate)
    drop = -index % common
    if drop > PREROLL_SECONDS / 2 * rate:
        drop = 0  # the rates have no useful common factor: stay within a sample of the grid
    position = round((origin * track.tick - track.origin) * sample_rate)
    position += round((index + drop) * sample_rate / rate)
    mono = MonoAudio(sample_rate, track, ignore_damage, start=position / sample_rate)
    return mono.of(_without(drop, itertools.chain([first], frames)))


def _packets_from(packets: Iterable[av.Packet[Any]], stamp: float) -> Iterator[av.Packet[Any]]:
    """Yield the packets from the last one on that begins at or before ``stamp``."""
    held: av.Packet[Any] | None = None
    found = False
    for packet in packets:
        if not found and packet.pts is not None:
            found = packet.pts > stamp
            if found:
                if held is None:
                    raise NotAsIndexedError  # landed late
                yield held
        if found:
            yield packet
        held = packet
    if not found and held is not None:
        yield held


def _sample_index(track: AudioTrack, pts: int) -> int:
    """Return the number of the stream's sample with this timestamp, counted from the first decoded sample.

    A timestamp in ticks coarser than a sample (Matroska's milliseconds) is rounded to the start of the nearest frame.
    """
    samples_a_tick = track.tick * track.rate
    index = (pts - (track.first or 0)) * samples_a_tick
    exact = samples_a_tick <= 1.5 and abs(round(1 / samples_a_tick) * samples_a_tick - 1) < _ROUNDING
    if not exact and track.frame:
        counted = track.lead + round((index - track.lead) / track.frame) * track.frame
        if abs(counted - index) <= 2 * samples_a_tick:
            return counted
    return round(index)


def _without(drop: int, frames: Iterable[av.AudioFrame | AudioBreak]) -> Iterator[av.AudioFrame | AudioBreak]:
    """Drop the first ``drop`` samples; the first remaining frame then has no timestamp."""
    begun = False
    for frame in frames:
        if begun or isinstance(frame, AudioBreak):
            yield frame
        elif frame.samples <= drop:
            drop -= frame.samples
        else:
            begun = True
            yield _shortened(frame, drop)


def _shortened(frame: av.AudioFrame, drop: int) -> av.AudioFrame:
    if drop:
        try:
            rest = channels_of(frame)[:, drop:]
            shorter = frame_of(rest, frame.format.name, frame.layout.name)
        except ValueError:  # a layout without a name, a format without an array type
            raise NotAsIndexedError from None
        shorter.sample_rate = frame.sample_rate
        frame = shorter
    frame.pts = None
    return frame
