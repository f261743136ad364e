"""The SVM on real features: seconds for each cost C, of ours and of scikit-learn's LinearSVC.

    python benchmarks/svm.py                                    audio of the demo's generated clips
    python benchmarks/svm.py recordings/                        a folder for each class, with audio or video files
    python benchmarks/svm.py features.npz                       X (n, D), y, and o, the number of each row's file
    python benchmarks/svm.py features.npz --rows 16000 --dims 10752 --classes 50 --linear-svc 240    ESC-50's size
    python benchmarks/svm.py features.npz --rows 16000 --dims 10752 --classes 50 --fold              all of a fold

Features of recordings are extracted with the demo's audio encoder, from several augmented clips of each. `--save` keeps
the features. For more `--rows`, rows are repeated, each mixed with another clip of its file and perturbed by 5 %. For
more `--dims`, features of clips of one file are concatenated. For more `--classes`, the files of each class are
distributed over several classes. The features are in a memory-mapped file.

LinearSVC has default parameters and solves each cost from zero, in a process of its own that is killed after
`--linear-svc` seconds. Ours starts each cost at the solution of the previous one. The objectives are computed in
float64. `--fold` chooses the cost on held-out files and fits the final SVM, as `crisscross-evaluate` does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from crisscross_zoo.demo.data import make_demo_data
from crisscross_zoo.evaluate.probe import FOLDS, FileClips, best, held_out_accuracies
from crisscross_zoo.evaluate.protocols import COSTS
from crisscross_zoo.evaluate.rows import Rows
from crisscross_zoo.evaluate.svm import fit_svm
from crisscross_zoo.media.clips import Clip, Sampling, Views, read_clips
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS
from crisscross_zoo.weights.load import load_encoder

DEMO_CLIPS = 5
BLOCK_ROWS = 1024


def extract(folder: Path, clips: int) -> dict[str, np.ndarray]:
    """Return X, y and o of the recordings in a folder for each class."""
    encoder = load_encoder("audio", "demo")
    sampling = Sampling(
        video=None, audio=encoder.config, clips=clips, views=Views(audio=AUDIO_AUGMENTS["linear"])
    )
    rows, labels, owners = [], [], []
    for label, kind in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for file in sorted(p for p in kind.rglob("*") if p.is_file()):
            spectra = [event.values for event in read_clips(file, sampling) if isinstance(event, Clip)]
            if not spectra:
                print(f"{file}: no clips", file=sys.stderr)
                continue
            with torch.inference_mode():
                rows.append(encoder(torch.from_numpy(np.stack(spectra))).numpy())
            owners += [len(rows) - 1] * len(spectra)
            labels += [label] * len(spectra)
    return {"X": np.concatenate(rows), "y": np.array(labels), "o": np.array(owners)}


def of_size(
    found: dict[str, np.ndarray], options: argparse.Namespace, path: Path
) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Write features of the requested size; return them, the rows' labels, and their files' numbers, ascending."""
    x, labels = found["X"], found["y"]
    order = np.argsort(found["o"], kind="stable")
    x, labels, owners = x[order], labels[order], np.unique(found["o"][order], return_inverse=True)[1]
    first, count = np.unique(owners, return_index=True, return_counts=True)[1:]
    rows, dims, own = options.rows or len(x), options.dims or x.shape[1], int(labels.max()) + 1
    rng = np.random.default_rng(0)
    base = np.sort(np.concatenate([rng.permutation(len(x)) for _ in range(-(-rows // len(x)))])[:rows])
    matrix = np.memmap(path, np.float32, "w+", shape=(rows, dims))
    for start in range(0, rows, BLOCK_ROWS):
        some = base[start : start + BLOCK_ROWS]
        again = np.r_[False, some[1:] == some[:-1]]
        for left in range(0, dims, x.shape[1]):
            begin = first[owners[some]]
            a, b = (begin + (some - begin + left // x.shape[1] + rng.integers(0, most, len(some))) % count[owners[some]]
                    for most in (1, 1 << 16))  # fmt: skip
            block = np.where(again[:, None], 0.7 * x[a] + 0.3 * x[b], x[a])
            block *= np.where(again[:, None], 1 + 0.05 * rng.standard_normal(block.shape, np.float32), 1)
            matrix[start : start + len(some), left : left + x.shape[1]] = block[:, : dims - left]
    matrix.flush()
    rank = np.array([np.flatnonzero(first[labels[first] == labels[f]] == f)[0] for f in first])
    split = -(-(options.classes or own) // own)
    dealt = (labels + own * (rank[owners] % split)) % (options.classes or own)
    mapped = np.memmap(path, np.float32, "r", shape=(rows, dims))
    return Rows([(mapped, np.arange(rows))]), dealt[base], np.unique(owners[base], return_inverse=True)[1]


class Memory(threading.Thread):
    """Record the peak of this process's anonymous memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        while True:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.most = max(self.most, int(lines["RssAnon"].split()[0]))
            time.sleep(0.05)


def objective(rows: Rows, labels: np.ndarray, weights: np.ndarray, bias: np.ndarray, cost: float) -> float:
    """Return the SVM's objective, summed over all classes."""
    weights, bias = weights.astype(np.float64), bias.astype(np.float64)
    total = ((weights**2).sum() + (bias**2).sum()) / 2
    for where, block in rows.blocks():
        y = np.where(labels[where, None] == np.arange(len(bias)), 1, -1)
        total += cost * (np.maximum(0, 1 - y * (block.astype(np.float64) @ weights + bias)) ** 2).sum()
    return float(total)


def linear_svc(path: Path, shape: tuple[int, int], cost: float) -> None:
    """Fit scikit-learn's LinearSVC, and print its seconds and objective."""
    from sklearn.svm import LinearSVC

    warnings.simplefilter("ignore")
    x, labels = np.fromfile(path, np.float32).reshape(shape), np.load(path.with_suffix(".npy"))
    start = time.perf_counter()
    machine = LinearSVC(C=cost).fit(x, labels)
    seconds = time.perf_counter() - start
    weights, bias = machine.coef_.T, machine.intercept_
    if len(bias) == 1:  # only the weights of the second class
        weights, bias = np.c_[-weights, weights], np.r_[-bias, bias]
    print(json.dumps([seconds, objective(Rows.of(x), labels, weights, bias, cost)]))


def compare(rows: Rows, labels: np.ndarray, path: Path, options: argparse.Namespace) -> None:
    np.save(path.with_suffix(".npy"), labels)
    classes = int(labels.max()) + 1
    print(f"{rows.shape[0]} x {rows.shape[1]}, {classes} classes\n")
    print(
        "| C | ours | passes | solved | LinearSVC | LinearSVC's objective / ours |\n|" + " --- |" * 6,
        flush=True,
    )
    start, passes, times = time.perf_counter(), 0, []
    for machine in fit_svm(rows, labels, classes, options.costs, tolerance=options.tolerance):
        seconds = time.perf_counter() - start
        theirs = ["", ""]
        if options.linear_svc:
            words = [sys.executable, __file__, "--only", str(path), "--dims", str(rows.shape[1])]
            words += ["--rows", str(rows.shape[0]), "--costs", str(machine.cost)]
            try:
                run = subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=options.linear_svc)
                taken, value = json.loads(run.stdout)
                ours = objective(rows, labels, machine.weights, machine.bias, machine.cost)
                theirs = [f"{taken:.1f} s", f"1 {value / ours - 1:+.1e}"]
            except subprocess.TimeoutExpired:
                theirs[0] = f"more than {options.linear_svc:.0f} s"
        print(
            f"| {machine.cost:g} | {seconds:.1f} s | {machine.passes - passes} | {'yes' if machine.solved else 'no'} |"
            f" {theirs[0]} | {theirs[1]} |",
            flush=True,
        )
        times.append(seconds)
        passes, start = machine.passes, time.perf_counter()
    print(f"\nours, all costs: {sum(times):.1f} s")


def fold(rows: Rows, labels: np.ndarray, owners: np.ndarray, options: argparse.Namespace) -> None:
    """Choose the cost and fit the SVM, as the evaluation does."""
    clips = FileClips(rows, owners)
    files = labels[np.unique(owners, return_index=True)[1]]
    classes = int(labels.max()) + 1
    start = time.perf_counter()

    def report(fitted: int, total: int) -> None:
        if fitted:
            print(f"{fitted} of {total} fitted after {time.perf_counter() - start:.0f} s", flush=True)

    accuracies = held_out_accuracies(
        clips, files, classes, options.costs, folds=options.splits, on_fit=report
    )
    chosen = time.perf_counter()
    (machine,) = fit_svm(rows, labels, classes, [best(accuracies)], tolerance=options.tolerance)
    end = time.perf_counter()
    print(
        f"{rows.shape[0]} x {rows.shape[1]}, {classes} classes, {clips.files} files: {chosen - start:.0f} s to choose"
        f" C = {machine.cost:g} of {len(options.costs)} with {options.splits} splits,"
        f" {end - chosen:.0f} s to fit ({'solved' if machine.solved else 'not solved'})"
    )
    print({cost: round(accuracy, 4) for cost, accuracy in accuracies.items()})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", nargs="?", type=Path, help="folder of recordings, or .npz (default: the demo's)"
    )
    parser.add_argument("--clips", type=int, default=8, help="augmented clips of each recording")
    parser.add_argument("--save", type=Path, help="save the features to this .npz file")
    parser.add_argument("--rows", type=int, help="default: as many as the features have")
    parser.add_argument("--dims", type=int, help="default: as many as the features have")
    parser.add_argument("--classes", type=int, help="default: as many as the features have")
    parser.add_argument("--costs", type=float, nargs="+", default=list(COSTS))
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument(
        "--linear-svc",
        type=float,
        default=300,
        metavar="SECONDS",
        help="time limit of LinearSVC for a cost; 0: do not run it",
    )
    parser.add_argument(
        "--fold", action="store_true", help="choose the cost and fit, instead of printing the table"
    )
    parser.add_argument("--splits", type=int, default=FOLDS, help="held-out splits, with --fold")
    parser.add_argument("--folder", help="folder for the temporary features (default: the system's)")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        linear_svc(options.only, (options.rows, options.dims), options.costs[0])
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.source is None:
            make_demo_data(Path(folder) / "demo", train_clips=DEMO_CLIPS, test_clips=0)
        if options.source is not None and options.source.is_file():
            found = dict(np.load(options.source))
            found.setdefault("o", np.arange(len(found["X"])))
        else:
            found = extract(options.source or Path(folder) / "demo" / "train", options.clips)
        if options.save:
            np.savez(options.save, **found)
        path = Path(folder) / "features.f32"
        rows, labels, owners = of_size(found, options, path)
        memory = Memory()
        memory.start()
        if options.fold:
            fold(rows, labels, owners, options)
        else:
            compare(rows, labels, path, options)
        print(f"peak memory, without mapped pages: {memory.most / 1e6:.1f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
