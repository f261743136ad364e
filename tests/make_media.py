"""Small media files for the tests, made with PyAV. Every frame shows its number, all audio is a sine."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODE_BITS = 12


def numbered_frame(number: int, width: int = 192, height: int = 64) -> np.ndarray:
    """Return an RGB frame whose upper half shows ``number`` in binary, as black and white blocks; grey below."""
    frame = np.full((height, width, 3), 96, np.uint8)
    block = width // CODE_BITS
    for bit in range(CODE_BITS):
        frame[: height // 2, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0
    return frame


def read_number(frame: np.ndarray) -> int:
    """Read back the number of :func:`numbered_frame` from an RGB array (H, W, 3) of any size."""
    height, width = frame.shape[:2]
    row = frame[height // 4].mean(axis=-1)
    centres = [int((bit + 0.5) * width / CODE_BITS) for bit in range(CODE_BITS)]
    return sum(1 << bit for bit, x in enumerate(centres) if row[x] > 128)


def sine(seconds: float, rate: int, channels: int, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    """Return int16 samples (samples, channels), the same in every channel."""
    t = np.arange(round(seconds * rate)) / rate
    wave = (level * 32767 * np.sin(2 * np.pi * hertz * t)).astype(np.int16)
    return np.repeat(wave[:, None], channels, axis=1)


def make_media(
    path: Path | str,
    *,
    seconds: float = 2.0,
    video: str | None = "libx264",
    fps: Fraction | int = 25,
    size: tuple[int, int] = (192, 64),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 12,
    frame_ticks: Sequence[int] | None = None,
    video_start: float = 0.0,
    rotation: int = 0,
    audio: str | None = "aac",
    sample_rate: int = 44_100,
    layout: str = "stereo",
    audio_seconds: float | None = None,
    audio_start: float = 0.0,
    samples: np.ndarray | None = None,
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a file. ``frame_ticks`` are the timestamps of the frames in milliseconds (variable frame rate)."""
    path = Path(path)
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        streams = []
        frames = []
        if video:
            stream = container.add_stream(video, rate=fps, options=options or {})
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            stream.gop_size = gop
            stream.codec_context.thread_count = 1  # libvpx's threads spin for minutes where others run too
            base = Fraction(1, 1000) if frame_ticks is not None else 1 / Fraction(fps)
            stream.codec_context.time_base = base
            streams.append(stream)
            ticks = frame_ticks if frame_ticks is not None else range(round(seconds * fps))
            for number, tick in enumerate(ticks):
                frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), format="rgb24")
                frame.pts, frame.time_base = tick + round(video_start / base), base
                frames.append((stream, frame))
        if audio:
            audio_stream = container.add_stream(audio, rate=sample_rate)
            audio_stream.layout = layout
            streams.append(audio_stream)
            channels = len(audio_stream.layout.channels)
            length = seconds if audio_seconds is None else audio_seconds
            wave = sine(length, sample_rate, channels) if samples is None else samples
            for first in range(0, len(wave), 1024):
                piece = np.ascontiguousarray(wave[first : first + 1024]).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
                frame.sample_rate = sample_rate
                frame.pts = first + round(audio_start * sample_rate)
                frame.time_base = Fraction(1, sample_rate)
                frames.append((audio_stream, frame))
        for stream, frame in frames:
            container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    if rotation:
        _turn(path, rotation)
    return path


def _turn(path: Path, degrees: int) -> None:
    """Make players rotate the first track of an MP4 counterclockwise, by the matrix in its header (``tkhd``)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    cosine, sine = (round(f(math.radians(degrees))) << 16 for f in (math.cos, math.sin))
    data[matrix : matrix + 36] = struct.pack(">9i", cosine, -sine, 0, sine, cosine, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
