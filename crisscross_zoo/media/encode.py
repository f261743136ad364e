"""Pictures and sound to a file (H.264 and AAC in MP4), and to bytes that a browser plays (VP9 and Opus in WebM)."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.container import OutputContainer
from av.video import VideoStream

from crisscross_zoo.atomic import write_atomically
from crisscross_zoo.errors import ConfigError, InputError

KEY_FRAME_EVERY = 8
"""Pictures from one that stands alone to the next: few, since a reader in the middle must begin with such a one."""

_AUDIO_FRAME = 1024
_AUDIO_BITS = 64_000
_VIDEO_OPTIONS = {"crf": "26", "preset": "veryfast", "bf": "0", "threads": "1"}
_CONTAINER_OPTIONS = {"fflags": "+bitexact"}

_PREVIEW_AUDIO_BITS = 40_000
_PREVIEW_VIDEO_OPTIONS = {"crf": "36", "b": "0", "deadline": "good", "cpu-used": "4", "threads": "1"}


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
