"""Pictures and sound to a file.

:func:`write_clip` makes H.264 and AAC in MP4 of arrays, :func:`preview_clip` bytes that a browser plays (VP9 and Opus
in WebM), :func:`reencode` a small copy of a file that is quick to read at random (H.264 and FLAC in MP4).
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
from crisscross_zoo.media.frames import Orientation, display_matrix, orientation_of
from crisscross_zoo.media.tracks import Media, VideoTrack
from crisscross_zoo.settings import Range, Settings

KEY_FRAME_EVERY = 8
"""Pictures from one that stands alone to the next: few, since a reader in the middle must begin with such a one."""

_AUDIO_FRAME = 1024
_AUDIO_BITS = 64_000
_VIDEO_OPTIONS = {"crf": "26", "preset": "veryfast", "bf": "0", "threads": "1"}
_CONTAINER_OPTIONS = {"fflags": "+bitexact"}

_PREVIEW_AUDIO_BITS = 40_000
_PREVIEW_VIDEO_OPTIONS = {"crf": "36", "b": "0", "deadline": "good", "cpu-used": "4", "threads": "1"}

_TICK = Fraction(1, 90_000)
_SCALING = Interpolation.BICUBIC
_NO_COLORSPACE = 2  # FFmpeg's number
_SILENCE = 1 << 16  # samples of a gap that are written at a time
_COPY_CONTAINER_OPTIONS = {
    **_CONTAINER_OPTIONS,
    "movie_timescale": "720000",
}  # where streams begin, to 1.4 us


@dataclass(frozen=True, kw_only=True)
class CopyOptions(Settings):
    """How :func:`reencode` writes a copy.

    Attributes:
        short_side: Pixels of the shorter side, at most; pictures are not made larger.
        fps: Pictures a second, at most; None: all that there are.
        gop: Pictures from one that stands alone to the next, at most; there are no B-pictures.
        crf: Quality of libx264, 0 (lossless) to 51.
        fast_decode: Leave out what costs decoders time: CABAC, the deblocking filter, weighted prediction.
        sample_rate: Of the sound, which becomes mono, Hz.

    Raises:
        ConfigError: a number is out of range.
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
    """Write an MP4 file of H.264 pictures and mono AAC sound, whole or not at all; what was there is replaced.

    The same arrays give the same bytes with the same FFmpeg. Key frames are :data:`KEY_FRAME_EVERY` pictures apart.

    Args:
        path: Of the file; its folder is made if need be.
        frames: RGB, uint8, (T, H, W, 3), with T above 0 and even H and W.
        wave: float32, (samples,), in [-1, 1], mono.
        fps: Pictures a second.
        sample_rate: Of ``wave``, Hz; one that AAC has.

    Raises:
        InputError: the arrays have not these forms.
        ConfigError: a rate is not possible.
        OSError: the file cannot be written.
    """
    _check_frames(frames)
    _check_wave(wave)
    if fps < 1 or sample_rate not in _AAC_RATES:
        raise ConfigError(
            f"fps={fps!r}, sample_rate={sample_rate!r}: not possible",
            remedy=f"pass fps from 1 and a rate of {', '.join(map(str, _AAC_RATES))}",
        )
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4", options=_CONTAINER_OPTIONS) as container:
        video = container.add_stream("libx264", fps, options=_VIDEO_OPTIONS)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt, video.gop_size = "yuv420p", KEY_FRAME_EVERY
        audio = container.add_stream("aac", sample_rate, layout="mono", bit_rate=_AUDIO_BITS)
        _mux_pictures(container, video, frames)
        _mux_sound(container, audio, wave, sample_rate)
    write_atomically(path, memory.getvalue())


def preview_clip(
    frames: npt.NDArray[np.uint8] | None,
    wave: npt.NDArray[np.float32] | None,
    *,
    fps: float | Fraction,
    sample_rate: int,
) -> bytes:
    """Encode a small clip for a web page: VP9 pictures and mono Opus sound in WebM, which need no licensed codec.

    The same arrays give the same bytes with the same FFmpeg.

    Args:
        frames: RGB, uint8, (T, H, W, 3), with T above 0 and even H and W; None for sound alone.
        wave: float32, (samples,), in [-1, 1], mono, with one sample or more; None for pictures alone.
        fps: Pictures a second; unused without pictures.
        sample_rate: Of ``wave``, Hz: 8000, 12000, 16000, 24000 or 48000, which Opus has; unused without sound.

    Returns:
        The bytes of a WebM file.

    Raises:
        InputError: the arrays have not these forms, or neither is given.
        ConfigError: a rate is not possible.
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
            raise InputError("the wave is empty", remedy="pass None for no sound")
        if sample_rate not in _OPUS_RATES:
            raise ConfigError(
                f"sample_rate={sample_rate!r} is not one of Opus",
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
            _mux_pictures(container, video, frames)
        if audio is not None and wave is not None:
            _mux_sound(container, audio, wave, sample_rate)
    return memory.getvalue()


def reencode(
    media: Media, path: str | Path, options: CopyOptions, *, on_damage: Callable[[str], None]
) -> None:
    """Write a copy of a file's pictures and sound that is quick to read at random, whole or not at all.

    Pictures are those that :func:`~crisscross_zoo.media.decode.read_frames` gives, upright, in the file's own colours,
    scaled; sound is what :func:`~crisscross_zoo.media.decode.read_audio` gives, every sample of it, with silence in
    its gaps. Times stay: pictures to a 90,000th of a second, sound to the sample. With a lower ``fps`` a picture is
    that shown at a multiple of ``1 / fps``. Memory does not grow with the file's length. The same file and options
    give the same bytes with the same FFmpeg.

    Args:
        media: From :func:`~crisscross_zoo.media.scan.scan`, with both tracks.
        path: Of the MP4 file to write; its folder is made if need be, what was there is replaced.
        options: How to write it.
        on_damage: Told, in one phrase, of what could not be decoded.

    Raises:
        NoStreamError: the file has no pictures or no sound.
        UnreadableMediaError: nothing of one of them can be decoded, or the pictures differ in size.
        OutputError: the copy cannot be written.
    """
    pictures = _sized_pictures(media, options, on_damage)
    sounds = _whole_sound(media, options.sample_rate, on_damage)
    first = next(pictures)
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
            lengths: dict[int, int] = {}  # of the pictures in the encoder, which does not keep the last one's

            def mux_pictures(frame: av.VideoFrame | None) -> None:
                if frame is not None and frame.pts is not None:
                    lengths[frame.pts] = frame.duration
                for packet in video.encode(frame):
                    assert packet.pts is not None
                    packet.duration = lengths.pop(packet.pts)
                    container.mux(packet)

            for frame in heapq.merge(itertools.chain([first], pictures), sounds, key=attrgetter("time")):
                if isinstance(frame, av.VideoFrame):
                    mux_pictures(frame)
                elif isinstance(frame, av.AudioFrame):
                    container.mux(audio.encode(frame))
            mux_pictures(None)
            container.mux(audio.encode(None))
    except CrissCrossError:
        raise
    except OSError as error:  # of the writing: the readers keep their own to themselves
        raise OutputError(
            f"cannot be written ({error.strerror})", remedy="choose another folder", path=path
        ) from None


# --- copies ------------------------------------------------------------------------------------------------------


def _x264_options(options: CopyOptions) -> dict[str, str]:
    tune = {"tune": "fastdecode"} if options.fast_decode else {}
    # With mbtree x264 now and then gives other bytes where a side is no multiple of 16; it gains nothing here.
    quality = {"crf": f"{options.crf:g}", "preset": "veryfast", "mbtree": "0"}
    return {**quality, "bf": "0", "threads": "1", **tune}


def _copy_rate(media: Media, options: CopyOptions) -> Fraction:
    assert media.video is not None
    rate = media.video.rate if options.fps is None else min(media.video.rate, options.fps)
    return max(Fraction(rate).limit_denominator(1001), Fraction(1, 1001))


def _copy_times(track: VideoTrack, fps: float | None) -> npt.NDArray[np.float64]:
    """Seconds at which the copy takes pictures, ascending: each picture's own, or multiples of ``1 / fps``."""
    start, end = track.span
    if fps is not None and (track.rate > fps or not (track.constant or track.counted)):
        return start + np.arange(max(1, math.ceil((end - start) * fps - 0.01))) / fps
    assert track.packets is not None
    times = np.unique(track.seconds(track.packets.stamps[track.packets.shown]))
    times = times[(times > start) & (times < end)]  # what comes before the first frame cannot be decoded
    return np.concatenate([[start], times])


def _sized_pictures(
    media: Media, options: CopyOptions, on_damage: Callable[[str], None]
) -> Iterator[av.VideoFrame]:
    """The copy's pictures with their times and lengths."""
    track = with_packets(media)
    media = dataclasses.replace(media, video=track)
    times = _copy_times(track, options.fps)
    # Never later than the time itself, at which the picture must be there.
    ticks, distinct = np.unique(np.floor(times / float(_TICK) + 1e-3).astype(np.int64), return_index=True)
    times = times[distinct]
    ends = [*ticks[1:].tolist(), max(math.floor(track.span[1] / float(_TICK)), int(ticks[-1]) + 1)]
    done = 0
    for count, frame in convert_frames(
        media, times, _CopyScaler(media.path, options.short_side), on_damage=on_damage
    ):
        frame.pts, frame.time_base = int(ticks[done]), _TICK
        done += count
        frame.duration = ends[done - 1] - frame.pts
        frame.pict_type = PictureType.NONE  # the encoder would keep the original's key frames
        yield frame


class _CopyScaler:
    """Decoded frames to upright ones of the copy's size, yuv420p in limited range, in their own colour space."""

    def __init__(self, path: str, short_side: int) -> None:
        self._path = path
        self._short_side = short_side
        self._form: tuple[int, int, Orientation] | None = None
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        orientation = orientation_of(display_matrix(frame))
        form = (frame.width, frame.height, orientation)
        self._form = self._form or form
        if form != self._form:
            raise UnreadableMediaError(
                f"its frames change from {_form_text(self._form)} to {_form_text(form)}",
                remedy="leave it out",
                path=self._path,
            )
        short = min(frame.width, frame.height)
        width, height = (
            max(2, side * min(short, self._short_side) // short // 2 * 2)
            for side in (frame.width, frame.height)
        )
        small = self._reformatter.reformat(
            frame, width, height, "yuv420p", interpolation=_SCALING, dst_color_range=ColorRange.MPEG
        )
        small.color_range = ColorRange.MPEG  # which not every PyAV notes
        return small if orientation == Orientation() else _upright(small, orientation)


def _form_text(form: tuple[int, int, Orientation]) -> str:
    width, height, orientation = form
    how = [name.replace("_", " ") for name, value in orientation._asdict().items() if value]
    return f"{width}x{height}" + (f" ({', '.join(how)})" if how else "")


def _upright(frame: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
    """Turn a yuv420p frame."""
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


def _whole_sound(media: Media, sample_rate: int, on_damage: Callable[[str], None]) -> Iterator[av.AudioFrame]:
    """The sound from its first sample on, with silence in its gaps."""
    end: int | None = None
    for place, samples in read_audio(media, sample_rate, on_damage=on_damage):
        for first in range(place if end is None else end, place, _SILENCE):
            yield _sound_frame(np.zeros(min(_SILENCE, place - first), np.int16), first, sample_rate)
        yield _sound_frame(samples, place, sample_rate)
        end = place + len(samples)


def _sound_frame(samples: npt.NDArray[np.int16], place: int, sample_rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, place, Fraction(1, sample_rate)
    return frame


def _check_frames(frames: npt.NDArray[np.uint8]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(
            f"frames are {frames.dtype} {frames.shape}", remedy="pass uint8 (T, H, W, 3), one picture or more"
        )
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise InputError(
            f"pictures of {frames.shape[1]} x {frames.shape[2]} pixels", remedy="pass even sides"
        )


def _check_wave(wave: npt.NDArray[np.float32]) -> None:
    if wave.dtype != np.float32 or wave.ndim != 1 or not np.isfinite(wave).all():
        raise InputError(f"the wave is {wave.dtype} {wave.shape}", remedy="pass float32 (samples,), finite")


def _mux_pictures(container: OutputContainer, stream: VideoStream, frames: npt.NDArray[np.uint8]) -> None:
    for picture in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode(None))


def _mux_sound(
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
