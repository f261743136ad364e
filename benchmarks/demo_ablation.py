"""Ablation of the loss's terms on the demo's data: runs of each objective and seed, and a table of their accuracies.

    python benchmarks/demo_ablation.py --out ablation/ --seeds 3                      all runs, one after another
    python benchmarks/demo_ablation.py --out ablation/ --seeds 3 --objectives sync    one objective, in parallel
    python benchmarks/demo_ablation.py --out ablation/ --report                       the table of the finished runs

The runs are those of ``crisscross-pretrain demo --objective NAME``, on the same clips. An interrupted run is resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from crisscross_zoo.demo.run import REPORT_FILE, run_demo
from crisscross_zoo.pretrain.presets import make_config

OBJECTIVES = ("intra", "sync", "async", "intra+sync", "crisscross")


def table(out: Path) -> list[str]:
    """Return a Markdown table with the mean and standard deviation of each accuracy over the seeds, in %."""
    reports = {
        name: json.loads((out / name / REPORT_FILE).read_text())
        for name in OBJECTIVES
        if (out / name / REPORT_FILE).is_file()
    }
    names = list(next(iter(reports.values()))["pretrained"])
    lines = [f"| objective | seeds | {' | '.join(names)} |", "| --- |" + " --- |" * (len(names) + 1)]

    def row(label: str, seeds: int, scores: dict[str, dict[str, list[float]]]) -> str:
        cells = [
            f"{100 * np.mean(scores[n]['values']):.1f} ± {100 * np.std(scores[n]['values']):.1f}"
            for n in names
        ]
        return f"| {label} | {seeds} | {' | '.join(cells)} |"

    lines += [row(name, r["seeds"], r["pretrained"]) for name, r in reports.items()]
    some = next(iter(reports.values()))
    return [*lines, row("random initialisation", some["seeds"], some["random"])]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--workers", type=int, default=0, help="data-loading workers")
    parser.add_argument("--report", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for objective in () if options.report else options.objectives:
        config = make_config(
            "demo", objective=objective, overrides={"run.workers": options.workers, "run.tensorboard": False}
        )
        with tqdm(desc=objective, disable=not os.isatty(2)) as bar:

            def show(step: int, total: int, row: dict[str, float], bar: tqdm = bar) -> None:
                bar.total = total
                bar.set_postfix_str(f"loss {row['total']:.3f}", refresh=False)
                bar.update(step - bar.n)

            done = run_demo(
                options.out / objective,
                config,
                seeds=options.seeds,
                data=options.out / "data",
                on_message=lambda line, o=objective: print(f"{o}: {line}", file=sys.stderr, flush=True),
                on_progress=show,
            )
        if done is None:
            return 130
    print("\n".join(table(options.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
