"""Peak memory of extraction. It must not grow with the length of a file, nor with the number of files.

    python benchmarks/memory.py --minutes 2 60 --files 100 10000

Makes 640x360 clips (H.264, AAC) of each length, and folders with each number of small files. Runs ``crisscross-extract
--modality both`` on each in a separate process, and prints the peak resident memory and its ratio. Exits with 1 if the
peak grows by more than 10 % or exceeds 1.5 GB.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from report import Ratio, Report, add_json_option, finish

LIMIT_RATIO = 1.10
LIMIT_GB = 1.5

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
    images = [
        np.stack([127 + 120 * np.sin(x / 23 + y / 31 + p + c) for c in colours], axis=-1).astype(np.uint8)
        for p in phases
    ]
    rate = 44_100
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono")
        for second in range(math.ceil(minutes * 60)):
            for k in range(fps):
                number = second * fps + k
                frame = av.VideoFrame.from_ndarray(images[number % 50], format="rgb24")
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
    """Extract in a new process and return its peak resident memory."""
    command = [sys.executable, "-m", "crisscross_zoo.cli.extract", str(clip), "--out", str(out)]
    command += [
        "--modality",
        "both",
        "--weights",
        "random:0",
        "--device",
        "cpu",
        "--workers",
        "0",
        "--quiet",
        *options,
    ]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


def by_length(folder: Path, minutes: Sequence[float], size: int) -> Report:
    report = Report(
        f"Peak memory by length, 640x360, both modalities, size {size}",
        ("minutes", "peak", "the file's features in it", "seconds"),
        notes=["A file's features are held until they are written; the ratio does not include them."],
    )
    peaks = []
    for length in minutes:
        clip = folder / f"{length}.mp4"
        make_clip(clip, length)
        started = time.monotonic()
        out = clip.with_suffix(".npz")
        peak = peak_bytes(clip, out, ["--size", str(size)])
        features = out.stat().st_size
        peaks.append(peak - features)
        seconds = time.monotonic() - started
        report.add(f"{length:g}", f"{peak / 1e6:.0f} MB", f"{features / 1e6:.0f} MB", f"{seconds:.0f}")
        clip.unlink()
    _judge(report, "minutes", minutes, peaks)
    return report


def by_files(folder: Path, counts: Sequence[int]) -> Report:
    """Measure small files with the ``demo`` weights, where bookkeeping would show, if it grew."""
    report = Report(
        "Peak memory by number of files of 1 s, `demo` weights", ("files", "peak", "seconds", "files/s")
    )
    small, peaks = folder / "small.mp4", []
    make_clip(small, 1 / 60, 64, 48)
    for count in counts:
        many = folder / str(count)
        for k in range(count):
            (many / str(k // 1000)).mkdir(parents=True, exist_ok=True)
            (many / str(k // 1000) / f"{k}.mp4").hardlink_to(small)
        started = time.monotonic()
        peaks.append(peak_bytes(many, folder / f"{count}-out", ["--weights", "demo"]))
        seconds = time.monotonic() - started
        report.add(count, f"{peaks[-1] / 1e6:.0f} MB", f"{seconds:.0f}", f"{count / seconds:.0f}")
        shutil.rmtree(many)
        shutil.rmtree(folder / f"{count}-out")
    _judge(report, "files", counts, peaks)
    return report


def _judge(report: Report, what: str, counts: Sequence[float], peaks: Sequence[int]) -> None:
    name = f"peak memory, {counts[-1]:g} {what} over {counts[0]:g}"
    report.ratios.append(Ratio(name, peaks[-1] / peaks[0], LIMIT_RATIO, more_is_better=False))
    report.ratios.append(
        Ratio(f"largest peak by {what}, GB", max(peaks) / 1e9, LIMIT_GB, more_is_better=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 20])
    parser.add_argument("--files", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--size", type=int, default=224)
    add_json_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        reports = [by_length(Path(name), args.minutes, args.size), by_files(Path(name), args.files)]
    finish(reports, args.json)
    return 0 if all(r.kept for report in reports for r in report.ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
