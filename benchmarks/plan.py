"""Plan the extraction of a large data set: measure a file's cost on one core, and apply docs/scale.md's arithmetic.

    python benchmarks/plan.py                                  AudioSet: 1.8 million clips of 10 s, 640x360
    python benchmarks/plan.py --files 306000 --height 720 --stride 1

The cost on one core is measured on a generated clip (see ``clips.py``), as processor time, with one torch thread. The
rates of GPUs are options, whose defaults were measured on one H200 (``GPU.md``, extraction from memory). The efficiency
of many cores that share memory is an option with an assumed default.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clips import make_clip
from report import Report, add_json_option, finish
from torch.utils.flop_counter import FlopCounterMode

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.encoders.head import clip_features
from crisscross_zoo.extract.outputs import known_result
from crisscross_zoo.files.store import LocalFolder
from crisscross_zoo.media.clips import file_events

CHECKS = 1000
"""Number of checks of a finished output, for measuring the time of one."""


def core_seconds(call: Callable[[], Any], rounds: int) -> float:
    """Return the processor time of a call: the minimum over ``rounds``, after a warm-up call."""
    took = []
    for _ in range(rounds + 1):
        start = time.process_time()
        call()
        took.append(time.process_time() - start)
    return min(took[1:])


class File:
    """The cost of one file in core-seconds, and the size of its features; ``rows`` is the number for each modality."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        path, output = folder / "clip.mp4", folder / "clip.npz"
        make_clip(path, options.width, options.height, options.seconds)

        def extractor(modality: str, precision: str = "fp32") -> FeatureExtractor:
            given: dict[str, Any] = {"modality": modality, "precision": precision, "stride": options.stride}
            return FeatureExtractor(options.weights, device="cpu", workers=0, **given)

        def read(by: FeatureExtractor) -> None:
            for _ in file_events(path, by._sampling):
                pass

        both = extractor("both")
        features = both(path)
        features.save(output)
        shapes = features.metadata["shapes"]
        self.clips = {"video": both._sampling.video, "audio": both._sampling.audio}
        self.rows: int = shapes["video"][0]
        self.metadata = output.stat().st_size - sum(4 * rows * size for rows, size in shapes.values())
        self.decode = core_seconds(lambda: read(both), options.rounds)
        self.network: dict[tuple[str, str], float] = {}
        for modality in self.clips:
            for precision in ("fp32", "bf16"):
                one = extractor(modality, precision)  # audio alone has other windows
                rows = one(path).metadata["shapes"][modality][0]
                whole = core_seconds(lambda e=one: e(path), options.rounds)
                alone = core_seconds(lambda e=one: read(e), options.rounds)
                self.network[modality, precision] = (whole - alone) / rows * self.rows
        video, audio = self.clips["video"], self.clips["audio"]
        inputs = {
            "video": torch.zeros(1, 3, video.frames, video.size, video.size),
            "audio": torch.zeros(1, 1, audio.n_mels, audio.clip_samples // audio.hop_length),
        }
        self.flops = {}
        for name, encoder in both.encoders.items():
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                encoder(inputs[name])
            self.flops[name] = counter.get_total_flops() * self.rows
        start = time.perf_counter()
        for _ in range(CHECKS):
            assert known_result(str(path), LocalFolder(output.parent), output.name, both.identity) is not None
        self.check = (time.perf_counter() - start) / CHECKS

    def whole(self, precision: str) -> float:
        """Return the core-seconds of a file."""
        return self.decode + self.network["video", precision] + self.network["audio", precision]

    def stored(self, pooling: str) -> list[int]:
        """Return the bytes of each modality's features."""
        return [4 * self.rows * clip_features(config, pooling) for config in self.clips.values()]


def costs(file: File, options: argparse.Namespace) -> Report:
    report = Report(
        f"A file of {options.seconds:g} s, {options.width}x{options.height}, {file.rows} rows of each modality",
        ("what", "float32, core-s", "bfloat16, core-s", "GFLOP"),
    )
    report.add("decode, sample, crop", f"{file.decode:.2f}", f"{file.decode:.2f}", "")
    for name in file.clips:
        seconds = [f"{file.network[name, precision]:.2f}" for precision in ("fp32", "bf16")]
        what = {"video": "video network", "audio": "log-mel and audio network"}[name]
        report.add(what, *seconds, f"{file.flops[name] / 1e9:.0f}")
    report.add("all", *(f"{file.whole(p):.2f}" for p in ("fp32", "bf16")), "")
    return report


def times(file: File, options: argparse.Namespace) -> list[Report]:
    def hours(seconds: float) -> str:
        return f"{seconds / 3600:.1f} h"

    cores = Report(
        f"{options.files:,} files on {options.cores:,} cores",
        ("precision", "million core-s", "hours", f"hours at {options.sharing:.0%} of that rate (assumed)"),
    )
    for name, precision in (("float32", "fp32"), ("bfloat16", "bf16")):
        work = file.whole(precision) * options.files
        alone = work / options.cores
        cores.add(name, f"{work / 1e6:.1f}", hours(alone), hours(alone / options.sharing))
    decoders = options.gpus * options.cores_a_gpu
    gpus = Report(
        f"{options.files:,} files on {options.gpus} GPUs with {options.cores_a_gpu} cores each",
        ("stage", "time", "from"),
    )
    decode = file.decode * options.files / decoders
    gpus.add(f"decode on {decoders} cores", hours(decode), f"{file.decode:.2f} core-s per file (measured)")
    carried = file.rows * options.files / options.gpus * options.carry / 1e3
    gpus.add(
        "video clips to the batch, one process per GPU",
        hours(carried),
        f"{options.carry:g} ms each (assumed)",
    )
    work = sum(file.flops.values()) * options.files
    for name, rate in (("float32", options.fp32), ("bfloat16", options.bf16)):
        seconds = work / (rate * 1e12 * options.gpus)
        gpus.add(f"networks, {name}", hours(seconds), f"{work / 1e18:.2f} EFLOP at {rate:g} TFLOP/s")
        gpus.add(
            f"the longest stage, {name}", hours(max(decode, carried, seconds)), "stages run at the same time"
        )
    return [cores, gpus]


def storage(file: File, options: argparse.Namespace) -> Report:
    report = Report(
        f"Features of {options.files:,} files in .npz", ("pooling", "video, KB", "audio, KB", "all, GB")
    )
    for pooling in ("linear", "fusion", "avg"):
        video, audio = file.stored(pooling)
        every = options.files * (video + audio + file.metadata) / 1e9
        report.add(pooling, f"{video / 1e3:.0f}", f"{audio / 1e3:.0f}", f"{every:.0f}")
    report.notes.append(
        f"A restart checks every output: {1e3 * file.check:.2f} ms each on a local disk with warm caches (measured),"
        f" {file.check * options.files:.0f} s for all. An output has {file.metadata / 1e3:.1f} KB besides its features."
    )
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--files", type=int, default=1_800_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a file")
    parser.add_argument("--height", type=int, default=360, help="height of a 16:9 frame")
    parser.add_argument("--stride", type=float, help="seconds between clips (default: that of the command)")
    parser.add_argument("--cores", type=int, default=1000)
    parser.add_argument(
        "--sharing", type=float, default=0.6, help="relative rate of a core if all are used (default: 0.6)"
    )
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--cores-a-gpu", type=int, default=16)
    parser.add_argument(
        "--fp32",
        type=float,
        default=19,
        help="TFLOP/s that a GPU reaches in float32 (default: measured on an H200)",
    )
    parser.add_argument("--bf16", type=float, default=51, help="the same in bfloat16")
    parser.add_argument("--carry", type=float, default=0.7, help="ms to move a video clip into the batch")
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args()
    options.width = 2 * round(options.height * 8 / 9)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = File(Path(folder), options)
        finish([costs(file, options), *times(file, options), storage(file, options)], options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
