"""Peak memory of extraction must not grow with the length of the file.

    python benchmarks/memory.py --minutes 2 20

Makes 640x360 clips (H.264, AAC) of each length, runs ``crisscross-extract --modality both`` on each in a process of its
own and prints the peak resident memory of each and their ratio. Exits with 1 if they differ by more than 10 % or exceed
1.5 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

LIMIT_RATIO = 1.10
LIMIT_BYTES = 1.5e9

_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def make_clip(path: Path, minutes: float, width: int = 640, height: int = 360, fps: int = 25) -> None:
    """Write drifting stripes and a beating tone."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    phases = [2 * np.pi * k / 50 for k in range(50)]
    colours = (0, 2, 4)
    pictures = [
        np.stack([127 + 120 * np.sin(x / 23 + y / 31 + p + c) for c in colours], axis=-1).astype(np.uint8)
        for p in phases
    ]
    rate = 44_100
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono")
        for second in range(round(minutes * 60)):
            for k in range(fps):
                number = second * fps + k
                frame = av.VideoFrame.from_ndarray(pictures[number % 50], format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(video.encode(frame))
            t = second + np.arange(rate) / rate
            wave = 0.3 * np.sin(2 * np.pi * 440 * t) * np.sin(2 * np.pi * 0.7 * t)
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, second * rate, Fraction(1, rate)
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def peak_bytes(clip: Path, out: Path, options: list[str]) -> int:
    """Extract in a fresh process and return its peak resident memory."""
    command = [sys.executable, "-m", "crisscross_zoo.cli.extract", str(clip), "--out", str(out)]
    command += ["--modality", "both", "--weights", "random:0", "--device", "cpu", *options]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 20])
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    peaks = []
    print("| minutes | peak memory | seconds |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        for minutes in args.minutes:
            clip = Path(name) / f"{minutes}.mp4"
            make_clip(clip, minutes)
            started = time.monotonic()
            peaks.append(peak_bytes(clip, clip.with_suffix(".npz"), ["--size", str(args.size)]))
            print(
                f"| {minutes:g} | {peaks[-1] / 1e6:.0f} MB | {time.monotonic() - started:.0f} |", flush=True
            )
    ratio = max(peaks) / min(peaks)
    print(
        f"\nlargest over smallest: {ratio:.3f} (bound {LIMIT_RATIO}); largest: {max(peaks) / 1e9:.2f} GB (bound 1.5)"
    )
    return 0 if ratio <= LIMIT_RATIO and max(peaks) <= LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
