"""The demo: a generated data set, narrow encoders pretrained on it without labels, and their scores.

It shows on a CPU, in minutes, that the training loop learns. Its folder::

    data/train/CLASS/*.mp4, data/test/CLASS/*.mp4   generated clips
    train.parquet                                   index of the training clips
    seed0/, seed1/, ...                             runs, with scores.json beside their encoders
    seed0/evaluations/pretrained/, random/          results of :mod:`crisscross_zoo.evaluate`, by protocol
    features/                                       the features that were evaluated
    report.json, report.md                          accuracies of pretrained and random encoders, over all seeds

A demo that was killed or stopped resumes when it is run again.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crisscross_zoo import __version__
from crisscross_zoo.config import MODALITIES
from crisscross_zoo.demo.data import make_demo_data
from crisscross_zoo.encoders import Encoder, build_encoder
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.evaluate.datasets import read_dataset
from crisscross_zoo.evaluate.plan import Compute
from crisscross_zoo.evaluate.protocols import make_protocol
from crisscross_zoo.evaluate.run import check_packages, evaluate
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.pretrain.index import build_index, read_index
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.metrics import read_log
from crisscross_zoo.pretrain.presets import PretrainConfig
from crisscross_zoo.text import counted

TRAIN_CLIPS = 80
"""Training clips per class."""

TEST_CLIPS = 30
"""Test clips per class."""

CLIPS = 3
"""Clips per file in an evaluation."""

DATA_SEED = 0
RANDOM_SEED = 1000
"""Added to a run's seed for the random encoders it is compared with, so that they differ from its initial weights."""

SCORES_FILE = "scores.json"
REPORT_FILE = "report.json"

Progress = Callable[[int, int, dict[str, float]], None]


def run_demo(
    out: Path,
    config: PretrainConfig,
    *,
    seeds: int = 1,
    train_clips: int | None = None,
    test_clips: int | None = None,
    data: Path | None = None,
    on_message: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Generate the data, pretrain with each seed, and evaluate the encoders.

    Args:
        out: The demo's folder, created if missing.
        config: Settings of a run; its seed is replaced.
        seeds: Number of runs.
        train_clips: Training clips per class; default: :data:`TRAIN_CLIPS`.
        test_clips: Test clips per class; default: :data:`TEST_CLIPS`.
        data: Folder of the clips, generated if missing; default: in ``out``.
        on_message: Called with one line at the start of each step.
        on_progress: As for :func:`~crisscross_zoo.pretrain.loop.pretrain`.

    Returns:
        The report, which is also in ``report.json``; None if a run was interrupted.

    Raises:
        ConfigError: settings that do not fit together, or a missing optional package.
        TrainingError: see :func:`~crisscross_zoo.pretrain.loop.pretrain`.
        OSError: the folder cannot be written.
    """

    def report_line(line: str) -> None:
        if on_message is not None:
            on_message(line)

    # Missing packages raise here, before minutes of work.
    check_packages()
    if config.run.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("tensorboard is not installed", remedy='run pip install "crisscross-zoo[pretrain]"')
    data = data or out / "data"
    report_line(f"generating clips in {data}")
    make_demo_data(
        data,
        train_clips=TRAIN_CLIPS if train_clips is None else train_clips,
        test_clips=TEST_CLIPS if test_clips is None else test_clips,
        seed=DATA_SEED,
    )
    index = out / "train.parquet"
    build_index([str(data / "train")], index)
    files = read_index(index)
    clips = {"train": len(files), "test": len(list((data / "test").rglob("*.mp4")))}
    scores: list[dict[str, Any]] = []
    for seed in range(seeds):
        run = out / f"seed{seed}"
        seeded = config.override({"seed": seed})
        report_line(f"pretraining on {counted(len(files), 'clip')} without labels, seed {seed}")
        if not pretrain(seeded, files, run, data_id=file_sha256(index), on_progress=on_progress).finished:
            return None
        scored = run / SCORES_FILE
        saved = json.loads(scored.read_text(encoding="utf-8")) if scored.is_file() else {}
        if saved.get("clips") == clips:
            scores.append(saved)
            continue
        report_line(f"evaluating on held-out clips, seed {seed}")
        modalities = [m for m in MODALITIES if (run / m).is_dir()]
        weights: dict[str, Mapping[str, Path | Encoder]] = {
            "pretrained": {m: run / m for m in modalities},
            "random": _random_encoders(seeded, modalities),
        }
        found: dict[str, Any] = {
            kind: _evaluate(
                seeded, encoders, modalities, data, run / "evaluations" / kind, cache=out / "features"
            )
            for kind, encoders in weights.items()
        }
        found |= {
            "log": _first_and_last(run),
            "minutes": _minutes(run, config.optim.batch_size),
            "clips": clips,
        }
        write_atomically(run / SCORES_FILE, json.dumps(found, indent=2).encode())
        scores.append(found)
    report = {
        "config": config.to_dict(),
        "clips": clips,
        "versions": {"crisscross_zoo": __version__, "torch": torch.__version__},
        "seeds": seeds,
        "minutes": [s["minutes"] for s in scores],
        "log": [s["log"] for s in scores],
        "pretrained": _summary([s["pretrained"] for s in scores]),
        "random": _summary([s["random"] for s in scores]),
    }
    write_atomically(out / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())
    write_atomically(out / "report.md", ("\n".join(report_lines(report)) + "\n").encode())
    return report


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report as Markdown: accuracies in %, mean and standard deviation over the seeds."""
    first, last = report["log"][0]["first"], report["log"][0]["last"]
    even = {m: _evenness(report, last, m) for m in MODALITIES}
    lines = [
        (
            f"{report['clips']['train']} clips to train on, {report['clips']['test']} held out;"
            f" {counted(report['seeds'], 'seed')}, {np.mean(report['minutes']):.1f} minutes of pretraining each."
        ),
        (
            f"Seed 0: loss {first['total']:.3f} at step {first['step']:.0f}, {last['total']:.3f} at step"
            f" {last['step']:.0f}; embedding std times sqrt(d): video {even['video']}, audio {even['audio']}"
            " (1 is even, 0 collapsed)."
        ),
        "",
        "| accuracy on held-out clips, % | pretrained | random initialisation |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {_cell(value)} | {_cell(report['random'][name])} |"
        for name, value in report["pretrained"].items()
    ]
    return lines


def _evaluate(
    config: PretrainConfig,
    weights: Mapping[str, Path | Encoder],
    modalities: Sequence[str],
    data: Path,
    out: Path,
    *,
    cache: Path,
) -> dict[str, float]:
    """Return the accuracy of encoders on the test clips, in [0, 1], by modality and protocol."""
    video, audio = config.video, config.audio
    changes = {
        "seed": config.seed, "clips.train": CLIPS, "clips.test": CLIPS, "clips.size": video.size,
        "clips.frames": video.frames, "clips.fps": video.fps, "clips.seconds": audio.window_seconds,
    }  # fmt: skip
    files = read_dataset("folder", data)
    compute = Compute(device=config.run.device, cache=cache)

    def result(protocol: str, setup: str) -> dict[str, Any]:
        settings = make_protocol(protocol, "folder", setup=setup, overrides=changes)
        return evaluate(
            settings, files, weights, out=out / f"{protocol}-{setup}", compute=compute, overwrite=True
        )

    both = len(modalities) == 2
    recall = result("retrieval", "both" if both else modalities[0])["recall"]
    accuracies: dict[str, float] = {}
    for m in modalities:
        accuracies[f"{m}/linear"] = result("linear", m)["top1"]["mean"]
        accuracies[f"{m}/retrieval"] = recall[f"{m}-to-{m}"]["1"]["mean"]
    if both:
        accuracies["both/fusion"] = result("fusion", "2s")["top1"]["mean"]
    return accuracies


def _random_encoders(config: PretrainConfig, modalities: Sequence[str]) -> dict[str, Encoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED + config.seed)
        return {m: build_encoder(getattr(config, m)).eval() for m in modalities}


def _first_and_last(run: Path) -> dict[str, dict[str, float]]:
    rows = read_log(run)
    return {
        which: {name: value for name, value in row.items() if not np.isnan(value)}
        for which, row in (("first", rows[0]), ("last", rows[-1]))
    }


def _minutes(run: Path, batch_size: int) -> float:
    """Return the minutes of training from the log, which is right also for a run that was interrupted."""
    rows = read_log(run)
    steps = np.diff([0, *(row["step"] for row in rows)])
    return float(
        sum(n * batch_size / row["samples_per_second"] for n, row in zip(steps, rows, strict=True)) / 60
    )


def _evenness(report: Mapping[str, Any], row: Mapping[str, float], modality: str) -> str:
    std = row.get(f"{modality}_std")
    return "none" if std is None else f"{std * report['config']['heads']['projection'] ** 0.5:.2f}"


def _summary(scores: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    values = {name: [s[name] for s in scores] for name in scores[0]}
    return {n: {"mean": float(np.mean(v)), "std": float(np.std(v)), "values": v} for n, v in values.items()}


def _cell(value: Mapping[str, Any]) -> str:
    spread = f" ± {100 * value['std']:.1f}" if len(value["values"]) > 1 else ""
    return f"{100 * value['mean']:.1f}{spread}"
