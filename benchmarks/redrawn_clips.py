"""Does a linear layer gain from new random clips in every epoch? Compare one draw, several draws, a draw per epoch.

    crisscross-pretrain demo --out demo/                                 makes demo/data
    python benchmarks/redrawn_clips.py demo/data --out redrawn/          three seeds, and a table

The protocol is that of Kinetics400 (one clip per file and epoch, a linear layer) with the ``demo`` weights, with a crop
size and a learning rate for little data. Finished results are kept and not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from crisscross_zoo.evaluate import Compute, evaluate
from crisscross_zoo.evaluate.datasets import Fold, LabelledData, read_dataset
from crisscross_zoo.evaluate.protocols import make_protocol

CHANGES = {"clips.size": 112, "clips.test": 3, "layer.lr": 0.01, "layer.batch_size": 32}


def first_files(data: LabelledData, train: int, test: int) -> LabelledData:
    """Return the data with at most ``train`` training files and ``test`` test files of each class."""
    (number, fold), *_ = data.folds.items()
    sides = []
    for samples, most in ((fold.train, train), (fold.test, test)):
        seen: Counter[int] = Counter()
        kept = []
        for sample in samples:
            seen[sample.label] += 1
            kept += [sample] * (seen[sample.label] <= most)
        sides.append(tuple(kept))
    return LabelledData(data.name, data.root, data.classes, {number: Fold(*sides)})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 4, 0], help="values of --clips.epochs")
    parser.add_argument("--files", type=int, default=40, help="training files of each class")
    parser.add_argument("--test-files", type=int, default=20, help="test files of each class")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    data = first_files(read_dataset("kinetics400", options.data), options.files, options.test_files)
    compute = Compute(device="cpu", cache=options.out / "cache", workers=options.workers)
    names = {0: "redrawn in every epoch", 1: "frozen: one draw"}
    print("| training clips | seeds | top-1, % | each |\n| --- | --- | --- | --- |")
    for draws in options.draws:
        found = []
        for seed in range(options.seeds):
            changes = {**CHANGES, "clips.epochs": draws, "seed": seed}
            out = options.out / f"{options.files}-{options.test_files}-{draws}-{seed}"
            if (out / "result.json").exists():
                result = json.loads((out / "result.json").read_text())
            else:
                result = evaluate(
                    make_protocol("linear", "kinetics400", overrides=changes), data, "demo", out=out,
                    compute=compute,
                )  # fmt: skip
            found.append(100 * result["top1"]["mean"])
            print(f"{out.name}: {found[-1]:.1f}", file=sys.stderr, flush=True)
        each = ", ".join(f"{value:.1f}" for value in found)
        name = names.get(draws, f"{draws} draws, cycled")
        print(f"| {name} | {len(found)} | {np.mean(found):.1f} ± {np.std(found):.1f} | {each} |", flush=True)
    fold = next(iter(data.folds.values()))
    print(f"\n{len(fold.train)} training files, {len(fold.test)} test files, {len(data.classes)} classes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
