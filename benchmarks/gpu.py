"""Measure tests, pretraining and extraction on one NVIDIA GPU, in at most 11 minutes, offline.

    python benchmarks/gpu.py --out found/                  writes found/gpu.json and found/gpu.md
    python benchmarks/gpu.py --out found/ --smoke          on a CPU, with tiny sizes, to check that everything runs

- ``pytest -m cuda``.
- A pretraining step of the ``kinetics400`` preset against the plain fp16-autocast step of the same batch: samples per
  second, utilisation of the GPU (the model's floating-point operations, without recomputed ones, divided by the data
  sheet's dense rate at that precision), peak memory; and the largest batch, with and without recomputed activations.
- Extraction: the extractor on clips in memory, its features against those of the CPU, and whole files with each
  decoder.

Each part runs in a process of its own with a time limit. If a row or a whole part fails, the reason is recorded, the
other parts run, and the exit code is 1. Without PyAV the parts that decode are skipped.
"""

from __future__ import annotations

# ruff: noqa: E402 - a missing PyAV must be mocked before the package is imported
import argparse
import contextlib
import datetime as dt
import gc
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

HAS_AV = importlib.util.find_spec("av") is not None
if not HAS_AV:  # the package imports it at module level; without it, nothing below calls it
    for name in ("", ".error", ".audio", ".audio.resampler", ".container", ".stream", ".video"):
        sys.modules[f"av{name}"] = mock.MagicMock(__version__="none")
    sys.modules["av.video.reformatter"] = mock.MagicMock()

import numpy as np
import torch
from pretrain import COLUMNS, RATES, measure_step, step_ratio, variants, views
from report import Report
from run import machine, page, versions
from torch.utils.flop_counter import FlopCounterMode

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.errors import ConfigError, first_line
from crisscross_zoo.extract import extractor as extract
from crisscross_zoo.media.clips import Clip, FileOpened, FileRead
from crisscross_zoo.pretrain.data import Batch
from crisscross_zoo.pretrain.distributed import World
from crisscross_zoo.pretrain.loop import _Trainer
from crisscross_zoo.pretrain.presets import PretrainConfig, make_config

ROOT = Path(__file__).resolve().parents[1]

PEAKS = {"H100 PCIe": 756, "H100 NVL": 835, "H200 NVL": 835, "H100": 989, "H200": 989, "A100": 312}
"""Dense 16-bit TFLOP/s of the data sheets, by a substring of the device's name; the first match counts."""

AGREE = 1e-4
"""Largest allowed difference of fp32 features from the CPU's, relative to the largest value."""

SPEED_SECONDS = 3.0
"""Measuring time of each row of extraction."""


class Part:
    """One part as it runs. Its tables are written after every row, so that only one row is lost if it is killed."""

    def __init__(self, path: Path, *, smoke: bool, seconds: float) -> None:
        self.smoke = smoke
        self.device = "cpu" if smoke else "cuda"
        self.until = time.monotonic() + seconds
        self.reports: list[Report] = []
        self._path = path

    @property
    def left(self) -> float:
        """The seconds that remain."""
        return self.until - time.monotonic()

    def check_time(self) -> None:
        """Raise if no time is left for a row."""
        if self.left < 0:
            raise TimeoutError("no time was left")

    def table(self, title: str, columns: Sequence[str], notes: Sequence[str] = ()) -> Report:
        self.reports.append(Report(title, columns, notes=list(notes)))
        self.save()
        return self.reports[-1]

    def save(self) -> None:
        found = json.dumps([report.to_json() for report in self.reports])
        self._path.write_text(found, encoding="utf-8")

    @contextlib.contextmanager
    def row(self, report: Report, *cells: object) -> Iterator[None]:
        """Measure a row that begins with these cells. If it fails, record the failure and continue."""
        where = ", ".join(map(str, cells))
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            report.failures.append(f"{where}: {type(error).__name__}: {first_line(error)[:200]}")
            report.add(*cells, "failed", *[""] * (len(report.columns) - len(cells) - 1))
        self.save()
        if self.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def the_machine(part: Part) -> None:
    """Report the GPU and the settings that decide its speed."""
    report = part.table("GPU and settings", ("what", "value"))
    cudnn: Any = torch.backends.cudnn
    found: dict[str, object] = {"torch": torch.__version__, "Python": sys.version.split()[0]}
    if part.device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        query = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"]
        with contextlib.suppress(OSError):
            found["driver, power limit"] = subprocess.run(
                query, capture_output=True, text=True
            ).stdout.strip()
        found = {"GPU": gpu.name, "memory, GiB": f"{gpu.total_memory / 2**30:.1f}", **found}
        found |= {"CUDA": torch.version.cuda, "cuDNN": cudnn.version()}
    found |= {
        "cudnn.benchmark, deterministic, allow_tf32": f"{cudnn.benchmark}, {cudnn.deterministic}, {cudnn.allow_tf32}",
        "float32 products": torch.get_float32_matmul_precision(),
        "PYTORCH_CUDA_ALLOC_CONF": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "not set"),
    }
    for what, value in found.items():
        report.add(what, value)
    part.save()


# --- tests -------------------------------------------------------------------------------------------------------


def tests(part: Part) -> None:
    """Run ``pytest -m cuda``; only files with such tests are imported."""
    report = part.table("pytest -m cuda", ("passed", "failed", "skipped", "seconds"))
    installed = {"pytest": importlib.util.find_spec("pytest") is not None, "av": HAS_AV}
    absent = [name for name, found in installed.items() if not found]
    if absent:
        report.notes.append(f"Skipped: {' and '.join(absent)} not installed.")
        part.save()
        return
    files = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in p.read_text("utf-8")]
    with part.row(report), tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "found.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-o",
            "addopts=-q --strict-markers",  # in one process: there is one GPU
            "-m",
            "cuda",
            "-p",
            "no:cacheprovider",
            f"--junitxml={junit}",
        ]
        command += ["--continue-on-collection-errors", *map(str, files)]
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, timeout=part.left, check=False
        )
        cases = list(ET.parse(junit).getroot().iter("testcase"))
        bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
        skipped = sum(case.find("skipped") is not None for case in cases)
        seconds = sum(float(case.get("time", 0)) for case in cases)
        report.add(len(cases) - len(bad) - skipped, len(bad), skipped, f"{seconds:.0f}")
        for case in bad:
            (reason,) = [e.get("message", "") for e in case if e.tag in ("failure", "error")][:1]
            report.failures.append(
                f"{case.get('classname')}::{case.get('name')}: {reason.splitlines()[0][:200]}"
            )
        if not cases or (skipped == len(cases) and not part.smoke):
            report.failures.append("no test ran")


# --- pretraining -------------------------------------------------------------------------------------------------


def config_of(part: Part, batch_size: int, **overrides: Any) -> PretrainConfig:
    preset = "demo" if part.smoke else "kinetics400"
    extra = {"optim.larc": True, "optim.batch_size": batch_size}
    if part.smoke:
        # 16 channels: with 8, torch 2.15 writes past a gradient's end (bfloat16 on a CPU, stride 2, odd batches).
        extra |= {"video.frames": 4, "data.crop": 32, "video.width": 16, "audio.width": 16}
    return make_config(preset, overrides={**extra, **overrides})


def peak_of(device: str) -> float | None:
    """Return the data sheet's TFLOP/s, or None for a device that is not in :data:`PEAKS`."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((rate for model, rate in PEAKS.items() if model in name), None)


def flops_per_sample(part: Part) -> float:
    """Return the floating-point operations of a step per sample, counted in a step of 2 samples."""
    config = config_of(part, 2, **{"optim.precision": "fp32"})
    trainer = _Trainer(config, World(part.device))
    with FlopCounterMode(display=False) as counter:
        trainer.step(Batch(views(2, config), ["", ""], []), RATES, norm=False)
    return counter.get_total_flops() / 2


def step_rows(part: Part, wanted: Callable[[str], bool]) -> None:
    size, steps = (2, 1) if part.smoke else (256, 3)
    named = variants(on_gpu=True)
    first = next(iter(named))
    report = part.table(
        f"A pretraining step of {size} samples",
        (
            "variant",
            "samples/s",
            f"speed-up over {first}",
            "TFLOP/s",
            "utilisation",
            "peak GiB",
            *(f"{c}, ms" for c in COLUMNS),
        ),
        [
            f"{first} is the plain step; fp16, channels-last is the unchanged preset. Clips come from pinned memory."
        ],
    )
    operations, plain = flops_per_sample(part), 0.0
    for label, changes in named.items():
        if label != first and not wanted(label):
            continue
        with part.row(report, label):
            part.check_time()
            compiles = partial_compile() if part.smoke else contextlib.nullcontext()
            with compiles:
                times, peak = measure_step(config_of(part, size, **changes), part.device, steps)
            whole = times["whole step"]
            plain = plain or (whole if label == first else 0.0)
            rate, most = operations * size / whole / 1e12, peak_of(part.device)
            report.add(
                label, f"{size / whole:.1f}", f"{plain / whole:.2f}" if plain else "", f"{rate:.1f}",
                f"{100 * rate / most:.1f} %" if most else "", f"{peak:.1f}",
                *(f"{1000 * times[c]:.1f}" for c in COLUMNS),
            )  # fmt: skip
            if plain and label != first and not part.smoke:
                report.ratios.append(step_ratio(first, label, plain / whole))


def partial_compile() -> Any:
    """Patch torch.compile to trace only, which takes seconds."""
    real = torch.compile
    return mock.patch.object(torch, "compile", lambda model: real(model, backend="eager"))


def step(part: Part) -> None:
    """Measure every variant except the compiled one."""
    step_rows(part, lambda label: "compiled" not in label)


def compiled(part: Part) -> None:
    """Measure the plain step again and the compiled one."""
    step_rows(part, lambda label: "compiled" in label)


def search(fits: Callable[[int], bool], first: int, in_time: Callable[[int], bool]) -> tuple[int, int | None]:
    """Return the largest size that fits, within a 32nd, and the smallest found that does not. Doubles, then bisects.

    It ends early at a size for which ``in_time`` is false.
    """
    low, high, size = 0, None, first
    while in_time(size) and (high is None or high - low > max(1, low // 32)):
        if fits(size):
            low = size
        else:
            high = size
        size = 2 * low if high is None else (low + high) // 2
        if size == 0:
            break
    return low, high


def largest(part: Part) -> None:
    """Find the largest batch, with steps that run out of memory."""
    report = part.table(
        "Largest batch, bf16, channels-last",
        ("checkpointing", "fits", "does not fit", "peak GiB", "samples/s at the largest"),
    )
    for number, frugal in enumerate((False, True)):
        cell = "yes" if frugal else "no"
        with part.row(report, cell):
            part.check_time()
            report.add(cell, *largest_of(part, report, frugal, time.monotonic() + part.left / (2 - number)))


def largest_of(part: Part, report: Report, frugal: bool, until: float) -> tuple[object, ...]:
    """Return the cells of a row: the largest batch, the smallest that does not fit, and what the largest takes."""
    peaks, rates, took = {0: 0.0}, {0: 0.0}, {0: 0.0}  # by size

    def in_time(size: int) -> bool:
        slowest = max(seconds / max(tried, 1) for tried, seconds in took.items())
        return time.monotonic() + slowest * size < until

    def fits(size: int) -> bool:
        start = time.monotonic()
        config = config_of(part, size, **{"optim.precision": "bf16", "run.checkpoint_activations": frugal})
        one = {name: view.expand(size, *view.shape[1:]) for name, view in views(1, config).items()}
        trainer = None
        try:
            if part.smoke and size > 3:
                raise torch.OutOfMemoryError("out of memory")  # as a GPU does
            if part.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            trainer = _Trainer(config, World(part.device))
            for _ in range(2):  # the second step begins with Adam's state
                began = time.perf_counter()
                trainer.step(Batch(one, [""] * size, []), RATES, norm=False)
                if part.device == "cuda":
                    torch.cuda.synchronize()
                    peaks[size] = torch.cuda.max_memory_allocated() / 2**30
                rates[size] = size / (time.perf_counter() - began)
            return True
        except RuntimeError as error:
            if not extract._OUT_OF_MEMORY.search(str(error)):
                report.notes.append(f"{size} samples fail for another reason: {first_line(error)[:200]}.")
            return False
        finally:
            took[size] = time.monotonic() - start
            del trainer
            gc.collect()
            if part.device == "cuda":
                torch.cuda.empty_cache()

    low, high = search(fits, 2 if part.smoke else 512, in_time)
    return low, high or "not reached", f"{peaks.get(low, 0.0):.1f}", f"{rates[low]:.0f}"


# --- extraction --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Replace the extractor's ``exact_float32``, to use TF32 convolutions."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.conv.fp32_precision
    cudnn.deterministic, cudnn.conv.fp32_precision = True, "tf32"
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.conv.fp32_precision = before


PRECISIONS = {"fp32": "fp32", "tf32": "fp32", "bf16": "bf16", "fp16": "fp16"}
"""The extractor's precision, by the name of a row."""


def extractor(part: Part, modality: Any, precision: str, size: int | None, device: str) -> FeatureExtractor:
    weights = "demo" if part.smoke else "random:0"
    return FeatureExtractor(weights, modality, device=device, precision=PRECISIONS[precision], size=size)  # type: ignore[arg-type]


def encode(by: FeatureExtractor, precision: str, count: int, until: float = float("inf")) -> tuple[Any, int]:
    """Return features of a fake file of ``count`` clips in memory, read ``until`` a time, and the number of clips."""
    (modality,) = by.encoders
    random = np.random.default_rng(0)
    if modality == "video":
        video: Any = by._sampling.video
        coarse = random.integers(0, 256, (32, video.frames, 8, 8, 3), np.uint8)
        made = coarse.repeat(video.size // 8, 2).repeat(video.size // 8, 3)
    else:
        audio: Any = by._sampling.audio
        made = random.integers(-8000, 8000, (32, audio.clip_samples), np.int16)

    def read_files(names: Any, *_: Any, **__: Any) -> Iterator[Any]:
        for serial, path in enumerate(names):
            windows = np.arange(count)[:, None] + np.array([0.0, 1.0])
            yield serial, path, FileOpened({"path": "memory"}, float(count), {modality: windows}, ())
            for row, clip in zip(range(count), itertools.cycle(made), strict=False):
                yield serial, path, Clip(modality, row, clip)
            yield serial, path, FileRead(())

    def paths() -> Iterator[str]:
        yield "memory"
        while time.monotonic() < until < float("inf"):
            yield "memory"

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(extract, "read_files", read_files))
        if precision == "tf32":
            stack.enter_context(mock.patch.object(extract, "exact_float32", tf32))
        found = [features for _, features in by.stream(paths())]
    return getattr(found[0], modality), count * len(found)


def extraction(part: Part) -> None:
    """Measure the extractor without the decoder."""
    report = part.table(
        "Extraction from clips in memory",
        ("modality", "size", "precision", "clips per batch", "clips/s", "speed-up over fp32"),
        ["The whole extractor except decoding: collecting a batch, copies, preprocessing, network."],
    )
    cases: list[tuple[str, int | None]] = [("video", 112), ("video", 224), ("audio", None)]
    cases = cases[::2] if part.smoke else cases
    for modality, size in cases:
        plain = 0.0
        for precision in PRECISIONS:
            with part.row(report, modality, size or "", precision):
                part.check_time()
                by = extractor(part, modality, precision, size, part.device)
                batch = 1 if part.smoke else by._batch[modality]
                encode(by, precision, 2 * batch)
                began = time.monotonic()
                until = began + (0.0 if part.smoke else SPEED_SECONDS)
                _, clips = encode(by, precision, (1 if part.smoke else 4) * batch, until)
                rate = clips / (time.monotonic() - began)
                plain = plain or (rate if precision == "fp32" else 0.0)
                over = f"{rate / plain:.2f}" if plain else ""
                report.add(modality, size or "", precision, batch, f"{rate:.0f}", over)


def features(part: Part) -> None:
    """Compare features with those of the CPU in fp32."""
    report = part.table(
        "Features against the CPU's in fp32",
        (
            "modality",
            "size",
            "precision",
            "largest difference",
            "relative to the largest value",
            "smallest cosine",
        ),
        [f"In fp32 the difference may be {AGREE:g} of the largest value."],
    )
    count = 4 if part.smoke else 16
    for modality, size in (("video", 112), ("audio", None)):
        expected, _ = encode(extractor(part, modality, "fp32", size, "cpu"), "fp32", count)
        for precision in PRECISIONS:
            with part.row(report, modality, size or "", precision):
                part.check_time()
                found, _ = encode(extractor(part, modality, precision, size, part.device), precision, count)
                apart = float(np.abs(found - expected).max())
                relative = apart / float(np.abs(expected).max())
                lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
                cosine = float(((found * expected).sum(1) / lengths).min())
                report.add(
                    modality, size or "", precision, f"{apart:.1e}", f"{relative:.1e}", f"{cosine:.6f}"
                )
                if precision == "fp32" and not relative <= AGREE:
                    report.failures.append(
                        f"{modality}, fp32: {relative:.1e} of the largest value, above {AGREE:g}"
                    )


def files(part: Part) -> None:
    """Extract whole files, with the decoding workers of this machine."""
    report = part.table(
        "Extraction from files, 640x360, H.264, video alone",
        ("decoder", "size", "precision", "files", "clips", "clips/s", "waiting for the decoder"),
        ["The time includes the start of the decoding workers."],
    )
    if not HAS_AV:
        report.notes.append("Skipped: av is not installed.")
        part.save()
        return
    from clips import make_clip
    from extraction import run

    from crisscross_zoo.media.torchcodec_frames import check_torchcodec

    seconds, copies = (1, 1) if part.smoke else (10, 160)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.mp4"
        make_clip(path, 640, 360, seconds)
        paths = [path, *(Path(folder) / f"{k}.mp4" for k in range(1, copies))]
        for copy in paths[1:]:
            copy.hardlink_to(path)
        decoders: tuple[Any, ...] = ("pyav", "torchcodec")
        for decoder, size in itertools.product(decoders, (112,) if part.smoke else (112, 224)):
            if decoder == "torchcodec":
                try:
                    check_torchcodec()
                except ConfigError as error:
                    report.notes.append(f"Skipped: {error}.")
                    break
            with part.row(report, decoder, size, "bf16"):
                part.check_time()
                weights = "demo" if part.smoke else "random:0"
                by = FeatureExtractor(
                    weights, device=part.device, size=size, precision="bf16", decoder=decoder
                )
                run(by, paths[:1])
                took, waited, clips = run(by, paths)
                waiting = f"{100 * waited / took:.0f} %"
                report.add(decoder, size, "bf16", copies, clips, f"{clips / took:.0f}", waiting)
    part.save()


# --- all parts ---------------------------------------------------------------------------------------------------

PARTS: dict[str, tuple[Callable[[Part], None], float]] = {
    "machine": (the_machine, 30),
    "tests": (tests, 120),
    "step": (step, 90),
    "largest": (largest, 110),
    "extraction": (extraction, 50),
    "features": (features, 30),
    "files": (files, 80),
    "compiled": (compiled, 120),
}
"""The function of each part, and its time limit in seconds."""

GRACE = 5.0
"""Seconds that a part may take to end after its time limit."""


def run_parts(command: Sequence[str], path: Path, seconds: float) -> tuple[list[Report], str | None]:
    """Run a command that writes reports to ``path``. Return the reports, and the reason if it failed."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stderr=output, start_new_session=True)
        try:
            code = process.wait(seconds)
            failed = None if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers and pytest, too
            process.wait()
            failed = f"not ready in {seconds:.0f} s"
        output.seek(0)
        lines = output.read().strip().splitlines()
    if failed:
        print(*lines[-30:], sep="\n", file=sys.stderr)
        failed += f" ({lines[-1].strip()[:200]})" if lines and "exit code" in failed else ""
    found = json.loads(path.read_text("utf-8")) if path.exists() else []
    return [Report.from_json(values) for values in found], failed


def everything(options: argparse.Namespace) -> int:
    began, date = time.monotonic(), dt.datetime.now(tz=dt.UTC).date().isoformat()
    results: dict[str, Any] = {}
    failures = []
    # With tiny sizes, imports take most of the time, so all parts run in one process.
    groups = [options.parts] if options.smoke else [[name] for name in options.parts]
    options.out.mkdir(parents=True, exist_ok=True)
    for names in groups:
        seconds = sum(PARTS[name][1] for name in names)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "found.json"
            command = [
                sys.executable,
                __file__,
                "--out",
                str(path),
                "--seconds",
                str(seconds),
                "--parts",
                *names,
            ]
            command += ["--smoke"] if options.smoke else []
            reports, failed = run_parts(command, path, seconds + GRACE)
        part = "+".join(names)
        if failed:
            reports.append(Report(f"{part}: ended early", ("part", "reason"), failures=[f"{part}: {failed}"]))
            reports[-1].add(part, failed)
        failures += [failure for report in reports for failure in report.failures]
        for report in reports:
            print(report.markdown(), flush=True)
        results[part] = {
            "command": f"gpu.py --parts {' '.join(names)}{' --smoke' if options.smoke else ''}", "date": date,
            "machine": machine(), "versions": versions(), "reports": [r.to_json() for r in reports],
        }  # fmt: skip
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        text = page(results, "benchmarks/gpu.py")
        (options.out / "gpu.md").write_text(text, encoding="utf-8")
        if failed and names == ["machine"]:
            break
    print(f"{time.monotonic() - began:.0f} s; results: {options.out / 'gpu.md'}")
    if failures:
        print("failed:", *failures, sep="\n  ")
    return 1 if failures else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of gpu.json and gpu.md"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument(
        "--smoke", action="store_true", help="on a CPU, with tiny sizes: the results mean nothing"
    )
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # a part's own process
    options = parser.parse_args(argv)
    if options.seconds is None:
        return everything(options)
    if not options.smoke and not torch.cuda.is_available():
        sys.exit("gpu: torch finds no NVIDIA GPU; pass --smoke to check that everything runs")
    part = Part(options.out, smoke=options.smoke, seconds=options.seconds)
    for name in options.parts:
        PARTS[name][0](part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
