"""Time and peak memory of the UCF101 linear protocol's SVM, on made-up features of its size; and next to LinearSVC.

    python benchmarks/svm.py --dims 512                      238,425 clips of 9,537 files, 101 classes, 8 costs
    python benchmarks/svm.py --dims 8192 --costs 1e-5        one cost alone, 20 minutes
    python benchmarks/svm.py --files 400 --classes 20        small, in seconds

Each size runs in a process of its own: the cost is chosen on a fifth of the files, then the SVM is fitted on all. The
features lie in a mapped file; what the system holds of that file in memory it can drop at any time, and it is counted
apart. The limit is the time that the products with all classes' vectors, as many as were computed, take by themselves
at the rate measured in the same run; forming Hessians is not in it.

First, on a part of the first size that scikit-learn's LinearSVC can take: both times, and how far apart the decision
values are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crisscross_zoo.evaluate import svm
from crisscross_zoo.evaluate.probe import FileClips, best, held_out_accuracies
from crisscross_zoo.evaluate.protocols import COSTS
from crisscross_zoo.evaluate.rows import Rows
from crisscross_zoo.evaluate.svm import fit_svm

LATENT = 96
BLOCK_ROWS = 8192


def make_features(path: Path, files: int, clips: int, dims: int, classes: int) -> np.ndarray:
    """Write non-negative features with a spectrum that falls off, like pooled activations; return the files' labels."""
    rng = np.random.default_rng(0)
    mixing = (rng.standard_normal((LATENT, dims)) * (np.arange(1, LATENT + 1) ** -0.5)[:, None]).astype(
        np.float32
    )
    centres = rng.standard_normal((classes, LATENT)).astype(np.float32)
    labels = np.arange(files) % classes
    matrix = np.memmap(path, np.float32, "w+", shape=(files * clips, dims))
    for first in range(0, files, 256):
        some = labels[first : first + 256]
        video = centres[some] * 0.6 + rng.standard_normal((len(some), LATENT)).astype(np.float32)
        clip = np.repeat(video, clips, axis=0)
        clip += 0.7 * rng.standard_normal(clip.shape).astype(np.float32)
        rows = np.maximum(clip @ mixing + 0.3, 0)
        matrix[first * clips : first * clips + len(rows)] = rows
    matrix.flush()
    return labels


class Memory(threading.Thread):
    """The most anonymous memory, and the most in all, seen in this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.all = 0

    def run(self) -> None:
        while True:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.anonymous = max(self.anonymous, int(lines["RssAnon"].split()[0]))
            self.all = max(self.all, int(lines["VmRSS"].split()[0]))
            time.sleep(0.05)


def matrix_rate() -> float:
    """Floating-point operations a second of a large float32 product."""
    a, b = torch.rand(BLOCK_ROWS, 2048), torch.rand(2048, 101)
    a @ b
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 1:
        a @ b
        count += 1
    return count * 2 * BLOCK_ROWS * 2048 * 101 / (time.perf_counter() - start)


def measure(options: argparse.Namespace, path: Path, dims: int) -> dict[str, float]:
    files, clips, classes = options.files, options.clips, options.classes
    labels = np.arange(files) % classes
    matrix = np.memmap(path, np.float32, "r", shape=(files * clips, dims))
    owners = np.repeat(np.arange(files), clips)
    data = FileClips(Rows([(matrix, np.arange(len(matrix)))]), owners)
    rate = matrix_rate()
    memory = Memory()
    memory.start()
    passes, work = [0], [0]

    def counted(product: Callable[..., Any], places: tuple[int, int]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            block, vectors = (args[place] for place in places)
            work[0] += 2 * block.numel() * vectors.shape[1]
            return product(*args)

        return call

    svm._times = counted(svm._times, (0, 1))
    svm._add_back = counted(svm._add_back, (1, 2))

    def on_pass(_: int) -> None:
        passes[0] += 1

    start = time.perf_counter()
    accuracies = {options.costs[0]: float("nan")}
    if len(options.costs) > 1:
        accuracies = held_out_accuracies(data, labels, classes, options.costs, parts=1, on_pass=on_pass)
    chosen = time.perf_counter()
    cost = best(accuracies)
    (machine,) = fit_svm(data.rows, labels[owners], classes, [cost], on_pass=on_pass)
    end = time.perf_counter()
    return {
        "rows": len(matrix),
        "dims": dims,
        "GB": matrix.nbytes / 1e9,
        "cost": cost,
        "accuracy": accuracies[cost],
        "choose_s": chosen - start,
        "fit_s": end - chosen,
        "passes": passes[0],
        "gradient": machine.gradient,
        "limit_s": work[0] / rate,
        "anonymous_MB": memory.anonymous / 1e3,
        "with_mapped_MB": memory.all / 1e3,
    }


def next_to_linear_svc(path: Path, dims: int, options: argparse.Namespace) -> str:
    from sklearn.svm import LinearSVC

    files = min(options.files, 1200)
    matrix = np.memmap(path, np.float32, "r", shape=(options.files * options.clips, dims))
    rows = np.array(matrix[: files * options.clips : 4])
    labels = np.repeat(np.arange(files) % options.classes, options.clips)[::4]
    worst, ours, theirs = 0.0, 0.0, 0.0
    for cost in (1e-4, 1e-2):
        start = time.perf_counter()
        (machine,) = fit_svm(Rows.of(rows), labels, options.classes, [cost])
        ours += time.perf_counter() - start
        start = time.perf_counter()
        other = LinearSVC(C=cost, dual=False, tol=1e-4).fit(rows, labels)
        theirs += time.perf_counter() - start
        expected = other.decision_function(rows)
        worst = max(
            worst, float(np.abs(machine.scores(Rows.of(rows)) - expected).max() / np.abs(expected).max())
        )
    return (
        f"{len(rows)} x {dims}, {options.classes} classes, C 1e-4 and 1e-2: ours {ours:.1f} s, LinearSVC (primal)"
        f" {theirs:.1f} s, {theirs / ours:.1f} times; decision values differ by {worst:.1e} of the largest"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", type=int, nargs="+", default=[512])
    parser.add_argument("--files", type=int, default=9537)
    parser.add_argument("--clips", type=int, default=25)
    parser.add_argument("--classes", type=int, default=101)
    parser.add_argument("--costs", type=float, nargs="+", default=list(COSTS))
    parser.add_argument("--folder", help="where the features are written (default: the system's)")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options, options.only, options.dims[0])))
        return 0
    for number, dims in enumerate(options.dims):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder) / "features.f32"
            make_features(path, options.files, options.clips, dims, options.classes)
            if number == 0:
                print(next_to_linear_svc(path, dims, options), flush=True)
                print(
                    "\n| rows x numbers | file | choose C | fit | passes | over the limit | memory | with mapped |"
                )
                print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
            words = [sys.executable, __file__, "--only", str(path), "--dims", str(dims)]
            words += [
                "--files",
                str(options.files),
                "--clips",
                str(options.clips),
                "--classes",
                str(options.classes),
            ]
            words += ["--costs", *map(str, options.costs)]
            found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
            print(
                f"| {found['rows']} x {dims} | {found['GB']:.2f} GB | {found['choose_s']:.0f} s (C {found['cost']:g},"
                f" {100 * found['accuracy']:.1f} %) | {found['fit_s']:.1f} s | {found['passes']} |"
                f" {(found['choose_s'] + found['fit_s']) / found['limit_s']:.1f} x | {found['anonymous_MB']:.0f} MB |"
                f" {found['with_mapped_MB']:.0f} MB |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
