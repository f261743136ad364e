"""Encode frames and audio.

:func:`write_clip` encodes arrays as H.264 and AAC in MP4, :func:`preview_clip` as bytes that a browser plays (VP9 and
Opus in WebM). :func:`reencode` writes a small copy of a file with fast random access (H.264 and FLAC in MP4).
"""

from __future__ import annotations

import dataclasses
import heapq
import io
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.container import OutputContainer
from av.video import VideoStream
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from crisscross_zoo.errors import (
    ConfigError,
    CrissCrossError,
    InputError,
    OutputError,
    UnreadableMediaError,
)
from crisscross_zoo.files.atomic import atomic_path, write_atomically
from crisscross_zoo.media.decode import convert_frames, read_audio, with_packets
from crisscross_zoo.media.frames import ONE_THREAD, Orientation, display_matrix, orientation_of
from crisscross_zoo.media.tracks import Media, VideoTrack
from crisscross_zoo.settings import Range, Settings

KEY_FRAME_EVERY = 8
"""Frames from one key frame to the next: few, since random access must start at a key frame."""

_AUDIO_FRAME = 1024
_AUDIO_BITS = 64_000
# mbtree=0: with mbtree, x264's AVX-512 code gives other bytes in one of a hundred runs; mbtree gains nothing here.
_X264_OPTIONS = {"preset": "veryfast", "mbtree": "0", "bf": "0", "threads": "1"}
_CLIP_CRF = "26"
_CONTAINER_OPTIONS = {"fflags": "+bitexact"}

_PREVIEW_AUDIO_BITS = 40_000
_PREVIEW_VIDEO_OPTIONS = {"crf": "36", "b": "0", "deadline": "good", "cpu-used": "4", "threads": "1"}

_TICK = Fraction(1, 90_000)
_SCALING = Interpolation.BICUBIC
_NO_COLORSPACE = 2  # FFmpeg's number
_SILENCE = 1 << 16  # samples of a gap that are written at a time
_COPY_CONTAINER_OPTIONS = {
    **_CONTAINER_OPTIONS,
    "movie_timescale": "720000",  # keeps the start times of streams to 1.4 us
}


@dataclass(frozen=True, kw_only=True)
class CopyOptions(Settings):
    """How :func:`reencode` writes a copy.

    Attributes:
        short_side: Largest length of the shorter side, pixels; frames are never enlarged.
        fps: Highest frame rate; None: keep all frames.
        gop: Most frames from one key frame to the next; there are no B-frames.
        crf: Quality of libx264, 0 (lossless) to 51.
        fast_decode: Disable what is slow to decode: CABAC, the deblocking filter, weighted prediction.
        sample_rate: Sample rate of the audio, which becomes mono, Hz.

    Raises:
        ConfigError: a value is out of range.
    """

    short_side: Annotated[int, Range(16, 4096)] = 256
    fps: Annotated[float, Range(0.1, 1000)] | None = None
    gop: Annotated[int, Range(1, 10_000)] = 15
    crf: Annotated[float, Range(0, 51)] = 23.0
    fast_decode: bool = True
    sample_rate: Annotated[int, Range(8000, 192_000)] = 16_000


def write_clip(
    path: str | Path,
    frames: npt.NDArray[np.uint8],
    wave: npt.NDArray[np.float32],
    *,
    fps: int,
    sample_rate: int,
) -> None:
    """Write an MP4 file of H.264 video and mono AAC audio atomically; an existing file is replaced.

    The same arrays give the same bytes with the same FFmpeg. Key frames are :data:`KEY_FRAME_EVERY` frames apart.

    Args:
        path: The file to write; its folder is created if it does not exist.
        frames: RGB, uint8, (T, H, W, 3), with T above 0 and even H and W.
        wave: float32, (samples,), in [-1, 1], mono.
        fps: Frames per second.
        sample_rate: Sample rate of ``wave``, Hz; one that AAC supports.

    Raises:
        InputError: an array has another dtype or shape.
        ConfigError: ``fps`` or ``sample_rate`` is not possible.
        OSError: the file cannot be written.
    """
    _check_frames(frames)
    _check_wave(wave)
    if fps < 1 or sample_rate not in _AAC_RATES:
        raise ConfigError(
            f"fps={fps!r}, sample_rate={sample_rate!r}: not possible",
            remedy=f"pass fps of at least 1 and a sample_rate of {', '.join(map(str, _AAC_RATES))}",
        )
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4", options=_CONTAINER_OPTIONS) as container:
        video = container.add_stream("libx264", fps, options={"crf": _CLIP_CRF, **_X264_OPTIONS})
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt, video.gop_size = "yuv420p", KEY_FRAME_EVERY
        audio = container.add_stream("aac", sample_rate, layout="mono", bit_rate=_AUDIO_BITS)
        _mux_frames(container, video, frames)
        _mux_audio(container, audio, wave, sample_rate)
    write_atomically(path, memory.getvalue())


def preview_clip(
    frames: npt.NDArray[np.uint8] | None,
    wave: npt.NDArray[np.float32] | None,
    *,
    fps: float | Fraction,
    sample_rate: int,
) -> bytes:
    """Encode a small clip for a web page: VP9 video and mono Opus audio in WebM, which need no licensed codec.

    The same arrays give the same bytes with the same FFmpeg.

    Args:
        frames: RGB, uint8, (T, H, W, 3), with T above 0 and even H and W; None for audio only.
        wave: float32, (samples,), in [-1, 1], mono, with one sample or more; None for video only.
        fps: Frames per second; unused without frames.
        sample_rate: Sample rate of ``wave``, Hz: 8000, 12000, 16000, 24000 or 48000, which Opus supports; unused
            without audio.

    Returns:
        The bytes of a WebM file.

    Raises:
        InputError: an array has another dtype or shape, or neither is given.
        ConfigError: ``fps`` or ``sample_rate`` is not possible.
    """
    if frames is None and wave is None:
        raise InputError("neither frames nor a wave", remedy="pass one of them, or both")
    if frames is not None:
        _check_frames(frames)
        if not (math.isfinite(fps) and fps > 0):
            raise ConfigError(f"fps={fps!r} is out of range", remedy="pass a number above 0")
    if wave is not None:
        _check_wave(wave)
        if not len(wave):
            raise InputError("the wave is empty", remedy="pass None for no audio")
        if sample_rate not in _OPUS_RATES:
            raise ConfigError(
                f"sample_rate={sample_rate!r} is not supported by Opus",
                remedy=f"resample to {', '.join(map(str, _OPUS_RATES))} Hz",
            )
    memory = io.BytesIO()
    with av.open(memory, "w", format="webm", options=_CONTAINER_OPTIONS) as container:
        video = audio = None
        if frames is not None:
            rate = Fraction(fps).limit_denominator(1001)  # 15000 / 1001 is kept
            video = container.add_stream("libvpx-vp9", rate, options=_PREVIEW_VIDEO_OPTIONS)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt, video.gop_size = "yuv420p", len(frames)
        if wave is not None:
            audio = container.add_stream("libopus", sample_rate, layout="mono", bit_rate=_PREVIEW_AUDIO_BITS)
        if video is not None and frames is not None:
            _mux_frames(container, video, frames)
        if audio is not None and wave is not None:
            _mux_audio(container, audio, wave, sample_rate)
    return memory.getvalue()


def reencode(
    media: Media, path: str | Path, options: CopyOptions, *, on_damage: Callable[[str], None]
) -> None:
    """Write a copy of a file's video and audio with fast random access, atomically.

    The frames are those of :func:`~crisscross_zoo.media.decode.read_frames`, upright, in the file's own colours and
    scaled. The audio is that of :func:`~crisscross_zoo.media.decode.read_audio`, every sample of it, with silence in
    its gaps. Times are kept: those of frames to a 90,000th of a second, those of audio to the sample. With a lower
    ``fps``, each frame is the one shown at a multiple of ``1 / fps``. Memory does not grow with the file's length. The
    same file and options give the same bytes with the same FFmpeg.

    Args:
        media: From :func:`~crisscross_zoo.media.scan.scan`, with both tracks.
        path: The MP4 file to write; its folder is created if it does not exist, an existing file is replaced.
        options: How to write it.
        on_damage: Called with one phrase for what could not be decoded.

    Raises:
        NoStreamError: the file has no video stream or no audio stream.
        UnreadableMediaError: nothing of a stream can be decoded, or the frames differ in size.
        OutputError: the copy cannot be written.
    """
    frames = _sized_frames(media, options, on_damage)
    audio_frames = _whole_audio(media, options.sample_rate, on_damage)
    first = next(frames)
    try:
        with (
            atomic_path(path) as temporary,
            av.open(str(temporary), "w", format="mp4", options=_COPY_CONTAINER_OPTIONS) as container,
        ):
            video = container.add_stream(
                "libx264", _copy_rate(media, options), options=_x264_options(options)
            )
            video.width, video.height, video.pix_fmt = first.width, first.height, "yuv420p"
            video.gop_size, video.codec_context.time_base = options.gop, _TICK
            video.codec_context.color_range = first.color_range
            video.codec_context.colorspace = first.colorspace or _NO_COLORSPACE  # 0: it was RGB
            audio = container.add_stream("flac", options.sample_rate, layout="mono")
            audio.codec_context.format = "s16"
            lengths: dict[int, int] = {}  # durations of frames in the encoder, which loses the last one's

            def mux_video(frame: av.VideoFrame | None) -> None:
                if frame is not None and frame.pts is not None:
                    lengths[frame.pts] = frame.duration
                for packet in video.encode(frame):
                    assert packet.pts is not None
                    packet.duration = lengths.pop(packet.pts)
                    container.mux(packet)

            for frame in heapq.merge(itertools.chain([first], frames), audio_frames, key=attrgetter("time")):
                if isinstance(frame, av.VideoFrame):
                    mux_video(frame)
                elif isinstance(frame, av.AudioFrame):
                    container.mux(audio.encode(frame))
            mux_video(None)
            container.mux(audio.encode(None))
    except CrissCrossError:
        raise
    except OSError as error:  # from writing: the readers handle their own
        raise OutputError(
            f"cannot be written ({error.strerror})", remedy="choose another folder", path=path
        ) from None


# --- copies ------------------------------------------------------------------------------------------------------


def _x264_options(options: CopyOptions) -> dict[str, str]:
    tune = {"tune": "fastdecode"} if options.fast_decode else {}
    return {"crf": f"{options.crf:g}", **_X264_OPTIONS, **tune}


def _copy_rate(media: Media, options: CopyOptions) -> Fraction:
    assert media.video is not None
    rate = media.video.rate if options.fps is None else min(media.video.rate, options.fps)
    return max(Fraction(rate).limit_denominator(1001), Fraction(1, 1001))


def _copy_times(track: VideoTrack, fps: float | None) -> npt.NDArray[np.float64]:
    """Return the ascending seconds at which the copy takes frames: each frame's own, or multiples of ``1 / fps``."""
    start, end = track.span
    if fps is not None and (track.rate > fps or not (track.constant or track.counted)):
        return start + np.arange(max(1, math.ceil((end - start) * fps - 0.01))) / fps
    assert track.packets is not None
    times = np.unique(track.seconds(track.packets.stamps[track.packets.shown]))
    times = times[(times > start) & (times < end)]  # frames before the first one shown cannot be decoded
    return np.concatenate([[start], times])


def _sized_frames(
    media: Media, options: CopyOptions, on_damage: Callable[[str], None]
) -> Iterator[av.VideoFrame]:
    """Yield the copy's frames with their timestamps and durations."""
    track = with_packets(media)
    media = dataclasses.replace(media, video=track)
    times = _copy_times(track, options.fps)
    # Rounded down: at its time, a frame must be shown.
    ticks, distinct = np.unique(np.floor(times / float(_TICK) + 1e-3).astype(np.int64), return_index=True)
    times = times[distinct]
    ends = [*ticks[1:].tolist(), max(math.floor(track.span[1] / float(_TICK)), int(ticks[-1]) + 1)]
    done = 0

    def scaler(track: VideoTrack) -> _CopyScaler:
        return _CopyScaler(track, media.path, options.short_side)

    for count, frame in convert_frames(media, times, scaler, on_damage=on_damage):
        frame.pts, frame.time_base = int(ticks[done]), _TICK
        done += count
        frame.duration = ends[done - 1] - frame.pts
        frame.pict_type = PictureType.NONE  # otherwise the encoder keeps the original's key frames
        yield frame


class _CopyScaler:
    """Convert decoded frames to upright ones of the copy's size: yuv420p, limited range, their own colour space.

    Frames with orientations of their own get the first frame's shape, as from
    :class:`~crisscross_zoo.media.frames.RgbConverter`.
    """

    def __init__(self, track: VideoTrack, path: str, short_side: int) -> None:
        self._track, self._path = track, path
        self._short_side = short_side
        self._form: tuple[int, int, Orientation] | None = None
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        orientation = orientation_of(display_matrix(frame))
        first = orientation_of(self._track.matrix) if self._track.turns else orientation
        form = (frame.width, frame.height, first)
        self._form = self._form or form
        if form != self._form:
            raise UnreadableMediaError(
                f"its frames change from {_form_text(self._form)} to {_form_text(form)}",
                remedy="exclude it",
                path=self._path,
            )
        short = min(frame.width, frame.height)
        width, height = (
            max(2, side * min(short, self._short_side) // short // 2 * 2)
            for side in (frame.width, frame.height)
        )
        if orientation.transpose != first.transpose:
            width, height = height, width
        small = self._reformatter.reformat(
            frame,
            width,
            height,
            "yuv420p",
            interpolation=_SCALING,
            dst_color_range=ColorRange.MPEG,
            **ONE_THREAD,
        )
        small.color_range = ColorRange.MPEG  # not every PyAV sets it
        return small if orientation == Orientation() else _upright(small, orientation)


def _form_text(form: tuple[int, int, Orientation]) -> str:
    width, height, orientation = form
    how = [name.replace("_", " ") for name, value in orientation._asdict().items() if value]
    return f"{width}x{height}" + (f" ({', '.join(how)})" if how else "")


def _upright(frame: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
    """Return a yuv420p frame turned upright."""
    lines, half = frame.to_ndarray(), frame.height // 2
    planes = [
        lines[: frame.height],
        *lines[frame.height :].reshape(2, half, frame.width // 2),
    ]
    upright = [orientation.apply(plane) for plane in planes]
    width = upright[0].shape[1]
    turned = av.VideoFrame.from_ndarray(
        np.concatenate([plane.reshape(-1, width) for plane in upright]), format="yuv420p"
    )
    turned.colorspace, turned.color_range = frame.colorspace, frame.color_range
    return turned


def _whole_audio(media: Media, sample_rate: int, on_damage: Callable[[str], None]) -> Iterator[av.AudioFrame]:
    """Yield the audio from its first sample on, with silence in its gaps."""
    end: int | None = None
    for position, samples in read_audio(media, sample_rate, on_damage=on_damage):
        for first in range(position if end is None else end, position, _SILENCE):
            yield _mono_frame(np.zeros(min(_SILENCE, position - first), np.int16), first, sample_rate)
        yield _mono_frame(samples, position, sample_rate)
        end = position + len(samples)


def _mono_frame(samples: npt.NDArray[np.int16], position: int, sample_rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, position, Fraction(1, sample_rate)
    return frame


def _check_frames(frames: npt.NDArray[np.uint8]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(
            f"frames are {frames.dtype} {frames.shape}", remedy="pass uint8 (T, H, W, 3), at least one frame"
        )
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise InputError(
            f"frames of {frames.shape[1]} x {frames.shape[2]} pixels", remedy="pass an even height and width"
        )


def _check_wave(wave: npt.NDArray[np.float32]) -> None:
    if wave.dtype != np.float32 or wave.ndim != 1 or not np.isfinite(wave).all():
        raise InputError(f"the wave is {wave.dtype} {wave.shape}", remedy="pass float32 (samples,), finite")


def _mux_frames(container: OutputContainer, stream: VideoStream, frames: npt.NDArray[np.uint8]) -> None:
    for frame in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode(None))


def _mux_audio(
    container: OutputContainer, stream: AudioStream, wave: npt.NDArray[np.float32], sample_rate: int
) -> None:
    for first in range(0, len(wave), _AUDIO_FRAME):
        chunk = np.ascontiguousarray(wave[None, first : first + _AUDIO_FRAME])
        frame = av.AudioFrame.from_ndarray(chunk, "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, first, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


_OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)
_AAC_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
