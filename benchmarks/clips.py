"""Generate clips to measure on: a moving texture in front of another, film grain, and a beating tone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

RATE = 44_100


def make_clip(
    path: Path,
    width: int,
    height: int,
    seconds: float = 10,
    *,
    fps: int = 30,
    gop: int = 150,
    layout: str = "stereo",
) -> None:
    """Write a clip in H.264 (x264, CRF 23, a key frame every ``gop`` frames) and AAC.

    A disc with one texture moves in front of another texture that moves too, and the grain changes with every frame. A
    frame takes about as long to decode as a frame of a real film: 2 to 4 ms at 1280x720 on one core.
    """
    side = max(width, height)
    far, near = (_texture(seed, 2 * side, blur) for seed, blur in ((1, 25), (2, 9)))
    rng = np.random.default_rng(0)
    grain = [(2 * rng.standard_normal((height, width, 1))).astype(np.int16) for _ in range(8)]
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        video = container.add_stream(
            "libx264", fps, width=width, height=height, options={"g": str(gop), "crf": "23"}
        )
        audio = container.add_stream("aac", RATE, layout=layout)
        for k in range(round(seconds * fps)):
            t = k / fps
            centre = width / 2 * (1 + 0.6 * np.sin(t))
            disc = ((x - centre) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2)[..., None]
            back = _crop(far, 0.7 * t, 0.5 * t + 1, height, width)
            front = _crop(near, 0.9 * t + 1, 0.6 * t, height, width)
            image = np.where(disc, front, back).astype(np.int16) + grain[k % len(grain)]
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8))
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        times = np.arange(round(seconds * RATE)) / RATE
        wave = 0.3 * np.sin(2 * np.pi * 440 * times) * np.sin(2 * np.pi * times)
        channels = np.repeat(wave[None].astype(np.float32), 2 if layout == "stereo" else 1, axis=0)
        for first in range(0, channels.shape[1], 1024):
            piece = np.ascontiguousarray(channels[:, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = RATE, first, Fraction(1, RATE)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def _texture(seed: int, side: int, blur: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((1, 3, side, side)).astype(np.float32)
    smooth = F.avg_pool2d(torch.from_numpy(noise), blur, 1, blur // 2)[0]
    levels: np.ndarray = (smooth / smooth.std() * 45 + 127).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return levels


def _crop(texture: np.ndarray, a: float, b: float, height: int, width: int) -> np.ndarray:
    """Return a crop of the texture, whose position moves vertically with ``a`` and horizontally with ``b``."""
    top = round((texture.shape[0] - height) / 2 * (1 + np.sin(a)))
    left = round((texture.shape[1] - width) / 2 * (1 + np.sin(b)))
    return texture[top : top + height, left : left + width]
