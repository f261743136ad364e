"""Ablation of the loss's terms and of the relaxations on generated clips, scored on real recordings and images.

    crisscross-pretrain generate --out clips/ --clips 1500
    crisscross-pretrain index clips/ --out clips.parquet
    python benchmarks/world_ablation.py clips.parquet packages/ --out ablation/      every variant with five seeds
    python benchmarks/world_ablation.py clips.parquet packages/ --out ablation/ --variants intra sync --seeds 2
    python benchmarks/world_ablation.py clips.parquet packages/ --out ablation/ --report        the finished runs

A variant is an objective with the relaxation of the preset `world`, or a relaxation with all terms. Scores are those of
Tux Paint's stamps by ``evaluations.py``, and the table has their means with 95 % confidence intervals of Student's t
over the seeds. Interrupted runs are resumed, and finished ones kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from evaluations import run_real
from scipy import stats
from tqdm import tqdm

from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.pretrain.index import read_index
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.presets import PRESETS, PretrainConfig, make_config
from crisscross_zoo.pretrain.relaxation import RELAXATIONS

OBJECTIVES = ("intra", "sync", "async", "intra+sync", "intra+async", "sync+async", "crisscross")
OWN = PRESETS["world"].data.relaxation
VARIANTS = (*OBJECTIVES, *(name for name in RELAXATIONS if name != OWN))
SETS = "stamps"


def config_of(variant: str, seed: int, epochs: int) -> PretrainConfig:
    """Return the settings of a run."""
    changes = {"seed": seed, "optim.epochs": epochs, "run.tensorboard": False, "run.keep": 1}
    if variant in RELAXATIONS:
        return make_config("world", overrides={**changes, "data.relaxation": variant})
    return make_config("world", objective=variant, overrides=changes)


def scores(run: Path) -> dict[str, float]:
    """Return a run's scores in %, by set and measure."""
    return {
        f"{file.parents[1].name}, {measure}": 100 * value
        for file in sorted(run.glob("scores/*/*-pretrained-0/numbers.json"))
        for measure, value in json.loads(file.read_text()).items()
    }


def table(out: Path) -> list[str]:
    """Return a Markdown table of the finished runs."""
    found = {
        name: [s for run in sorted((out / name).glob("seed*")) if (s := scores(run))] for name in VARIANTS
    }
    found = {name: runs for name, runs in found.items() if runs}
    names = list(next(iter(found.values()))[0])
    lines = [f"| variant | seeds | {' | '.join(names)} |", "| --- |" + " --- |" * (len(names) + 1)]
    for variant, runs in found.items():
        label = f"all terms, {variant}" if variant in RELAXATIONS else f"{variant}, {OWN}"
        cells = []
        for name in names:
            values = [run[name] for run in runs]
            half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else np.nan
            cells.append(f"{np.mean(values):.1f} ± {half:.1f}")
        lines.append(f"| {label} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path, help="index of the clips")
    parser.add_argument("packages", type=Path, help="folder of the unpacked package, see evaluations.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--report", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    files = read_index(options.index)
    for seed in () if options.report else range(options.seeds):
        for variant in options.variants:
            run = options.out / variant / f"seed{seed}"
            with tqdm(desc=run.as_posix(), disable=not os.isatty(2)) as bar:

                def show(step: int, total: int, _: dict[str, float], bar: tqdm = bar) -> None:
                    bar.total = total
                    bar.update(step - bar.n)

                config = config_of(variant, seed, options.epochs)
                if not pretrain(
                    config, files, run, data_id=file_sha256(options.index), on_progress=show
                ).finished:
                    return 130
            run_real(options.packages, run / "scores", 0, str(run), SETS, laid_out=options.out / "real")
            shutil.rmtree(run / "scores" / "cache", ignore_errors=True)
    print("\n".join(table(options.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
