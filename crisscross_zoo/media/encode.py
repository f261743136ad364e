"""Pictures and sound to a file: H.264 and AAC in MP4."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from crisscross_zoo.atomic import write_atomically
from crisscross_zoo.errors import ConfigError, InputError

KEY_FRAME_EVERY = 8
"""Pictures from one that stands alone to the next: few, since a reader in the middle must begin with such a one."""

_AUDIO_FRAME = 1024
_AUDIO_BITS = 64_000
_VIDEO_OPTIONS = {"crf": "26", "preset": "veryfast", "bf": "0", "threads": "1"}
_CONTAINER_OPTIONS = {"fflags": "+bitexact"}


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
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(
            f"frames are {frames.dtype} {frames.shape}", remedy="pass uint8 (T, H, W, 3), one picture or more"
        )
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise InputError(
            f"pictures of {frames.shape[1]} x {frames.shape[2]} pixels", remedy="pass even sides"
        )
    if wave.dtype != np.float32 or wave.ndim != 1 or not np.isfinite(wave).all():
        raise InputError(f"the wave is {wave.dtype} {wave.shape}", remedy="pass float32 (samples,), finite")
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
        for picture in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        for first in range(0, len(wave), _AUDIO_FRAME):
            chunk = np.ascontiguousarray(wave[None, first : first + _AUDIO_FRAME])
            frame = av.AudioFrame.from_ndarray(chunk, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = sample_rate, first, Fraction(1, sample_rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    write_atomically(path, memory.getvalue())


_AAC_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
