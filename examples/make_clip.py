"""Make clip.mp4: 6 s of H.264 and AAC, whose video and audio change together.

A ball bounces once per second and rings at each bounce, higher every time. At 3 s the scene changes: bars drift
left, a tone glides. Other encoders give other bytes. Run: `python examples/make_clip.py examples/clip.mp4`.
"""

import sys
from fractions import Fraction

import av
import numpy as np

SECONDS, CUT = 6, 3  # length of the clip, time of the scene change
FPS, WIDTH, HEIGHT, RADIUS = 25, 320, 240, 28
SAMPLE_RATE, AUDIO_FRAME = 44_100, 1024  # Hz, samples in a frame of AAC


def video_frame(t: float) -> np.ndarray:
    """Return the RGB frame at ``t`` seconds, uint8 (HEIGHT, WIDTH, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    if t < CUT:
        rgb = np.stack([40 + 60 * y / HEIGHT, 60 + 80 * x / WIDTH, 140 - 20 * t + 0 * x], axis=-1)
        fall = 4 * (t % 1) * (1 - t % 1)  # 0 on the ground, at whole seconds; 1 at the top
        left, top = WIDTH * (0.15 + 0.7 * t / CUT), HEIGHT - RADIUS - fall * (HEIGHT - 3 * RADIUS)
        rgb[(x - left) ** 2 + (y - top) ** 2 < RADIUS**2] = (240, 200 - 50 * t, 40)
    else:
        bars = 0.5 + 0.5 * np.sin(2 * np.pi * (x / 64 + y / 480 + 0.8 * (t - CUT)))
        rgb = np.stack([30 + 60 * bars, 90 + 130 * bars, 60 + 40 * np.sin(t) + 0 * x], axis=-1)
    return rgb.clip(0, 255).astype(np.uint8)


def waveform() -> np.ndarray:
    """Return the whole waveform, float32 (1, samples) in [-1, 1]."""
    t = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    ring = np.exp(-6 * (t % 1)) * np.sin(2 * np.pi * (330 + 110 * np.floor(t)) * (t % 1))
    hertz = 600 + 350 * np.sin(2 * np.pi * (t - CUT) / 1.5)
    glide = 0.5 * np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE)
    return (0.6 * np.where(t < CUT, ring, glide)).astype(np.float32)[None]


def main(path: str) -> None:
    with av.open(path, "w", options={"fflags": "+bitexact", "movflags": "+faststart"}) as file:
        settings = {"crf": "25", "preset": "slow", "g": "50", "threads": "1"}
        video = file.add_stream("libx264", FPS, width=WIDTH, height=HEIGHT, options=settings)
        audio = file.add_stream("aac", SAMPLE_RATE, layout="mono", bit_rate=64_000)
        for i in range(SECONDS * FPS):
            file.mux(video.encode(av.VideoFrame.from_ndarray(video_frame(i / FPS))))
        file.mux(video.encode(None))
        wave = waveform()
        for first in range(0, wave.shape[1], AUDIO_FRAME):
            chunk = np.ascontiguousarray(wave[:, first : first + AUDIO_FRAME])
            frame = av.AudioFrame.from_ndarray(chunk, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
            file.mux(audio.encode(frame))
        file.mux(audio.encode(None))


if __name__ == "__main__":
    main(sys.argv[1])
