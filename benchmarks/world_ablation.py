"""Ablation of the loss's terms and of the relaxations on generated clips, scored on real recordings, images and shapes.

    crisscross-pretrain generate --out clips/ --clips 1500
    crisscross-pretrain index clips/ --out clips.parquet
    python benchmarks/world_ablation.py clips.parquet packages/ --out ablation/      every variant with five seeds
    python benchmarks/world_ablation.py clips.parquet packages/ --out ablation/ --variants intra sync --seeds 2
    python benchmarks/world_ablation.py clips.parquet packages/ --out ablation/ --report        the finished runs

A variant is an objective with the relaxation of the preset `world`, or a relaxation with all terms. The encoders are
smaller than those of `world`, so that a run takes minutes. Scores are those of `quick_scores.py`, but for Tux Paint's
sounds, too few to tell variants apart; its help also says how to unpack the packages. The table has their means with
95 % confidence intervals of Student's t over the seeds, and the scores without pretraining; a second one has the
differences from all terms, and ``scores.csv`` every run. Interrupted runs are resumed, and finished ones kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from quick_scores import SETS, encoder_of, read, score
from scipy import stats
from tqdm import tqdm

from crisscross_zoo.files.atomic import atomic_path, write_atomically
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.pretrain.index import read_index
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.presets import PRESETS, PretrainConfig, make_config
from crisscross_zoo.pretrain.relaxation import RELAXATIONS

OBJECTIVES = ("intra", "sync", "async", "intra+sync", "intra+async", "sync+async", "crisscross")
OWN = PRESETS["world"].data.relaxation
VARIANTS = (*OBJECTIVES, *(name for name in RELAXATIONS if name != OWN))
FULL, RANDOM = "crisscross", "random"
SCORES = "scores.json"


def config_of(variant: str, seed: int, steps: int) -> PretrainConfig:
    """Return the settings of a run."""
    small = {"video.width": 8, "audio.depth": 10, "audio.width": 12, "data.crop": 40}
    small |= {"heads.projection": 256, "heads.prediction_hidden": 64, "optim.batch_size": 32}
    length = {"data.epoch_size": 32 * steps, "optim.epochs": 1, "optim.warmup_epochs": 0.1}
    changes = {"seed": seed, "run.tensorboard": False, "run.keep": 1, **small, **length}
    if variant in RELAXATIONS:
        return make_config("world", overrides={**changes, "data.relaxation": variant})
    return make_config("world", objective=FULL if variant == RANDOM else variant, overrides=changes)


def finished(out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return the scores of the finished runs, by variant and seed."""
    return {
        name: {f.parent.name: json.loads(f.read_text()) for f in sorted(out.glob(f"{name}/seed*/{SCORES}"))}
        for name in (RANDOM, *VARIANTS)
    }


def table(out: Path, minus: str = "") -> list[str]:
    """Return a Markdown table of the finished runs, or of their differences from ``minus``, paired by seed."""
    found = finished(out)
    base = found[minus] if minus else {seed: {} for runs in found.values() for seed in runs}
    names = next(list(scores) for runs in found.values() for scores in runs.values())
    lines = [
        f"| {f'above {minus}, paired by seed' if minus else 'variant'} | seeds | {' | '.join(names)} |",
        "| --- |" + " --- |" * (len(names) + 1),
    ]
    for variant, runs in found.items():
        seeds = sorted(runs.keys() & base.keys())
        if not seeds or variant == minus:
            continue
        label = f"all terms, {variant}" if variant in RELAXATIONS else f"{variant}, {OWN}"
        cells = []
        for name in names:
            values = [runs[seed][name] - base[seed].get(name, 0) for seed in seeds]
            cell = f"{np.mean(values):{'+' if minus else ''}.1f}"
            if len(values) > 1:
                cell += f" ± {stats.sem(values) * stats.t.ppf(0.975, len(values) - 1):.1f}"
            cells.append(cell)
        lines.append(f"| {RANDOM if variant == RANDOM else label} | {len(seeds)} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path, help="index of the clips")
    parser.add_argument("packages", type=Path, help="folder of the unpacked packages, see quick_scores.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="steps of 32 samples")
    parser.add_argument("--cache", type=Path, default=Path("quick_scores"))
    parser.add_argument("--report", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # logistic regression stops after max_iter
    if not options.report:
        files, data_id = read_index(options.index), file_sha256(options.index)
        sets = {name: read(name, options.packages, options.cache) for name in SETS if name != "kinds"}
    for seed in () if options.report else range(options.seeds):
        for variant in (RANDOM, *options.variants):
            run, config = options.out / variant / f"seed{seed}", config_of(variant, seed, options.steps)
            with tqdm(desc=run.as_posix(), disable=not os.isatty(2)) as bar:

                def show(step: int, total: int, _: dict[str, float], bar: tqdm = bar) -> None:
                    bar.total = total
                    bar.update(step - bar.n)

                if variant != RANDOM:  # a finished run is kept, and must have these settings and this index
                    status = pretrain(config, files, run, data_id=data_id, on_progress=show)
                    if not status.finished:
                        return 130
            found = json.loads((run / SCORES).read_text()) if (run / SCORES).exists() else {}
            if not set(sets) <= {key.split(",")[0] for key in found}:
                name = f"random:{seed}" if variant == RANDOM else str(run)
                run.mkdir(parents=True, exist_ok=True)
                scores = score(partial(encoder_of, name, preset=config), sets)
                write_atomically(run / SCORES, json.dumps(scores).encode())
    found = finished(options.out)
    names = next(list(run) for runs in found.values() for run in runs.values())
    rows = [
        (variant, seed, *(f"{value:.2f}" for value in run.values()))
        for variant, runs in found.items()
        for seed, run in runs.items()
    ]
    with (
        atomic_path(options.out / "scores.csv", by=str(os.getpid())) as path,
        path.open("w", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([("variant", "seed", *names), *rows])
    print("\n".join([*table(options.out), "", *table(options.out, minus=FULL)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
