"""The results of an evaluation: summary, tables, confusion matrix, and the paper's number for comparison."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import OutputError, UnknownWeightsError
from crisscross_zoo.evaluate.datasets import Fold, LabelledFile
from crisscross_zoo.evaluate.gallery import Query
from crisscross_zoo.evaluate.metrics import confusion, file_scores, mean_and_deviation, per_class, top_k
from crisscross_zoo.evaluate.plan import Plan
from crisscross_zoo.evaluate.protocols import ProtocolConfig
from crisscross_zoo.evaluate.releases import describe_missing
from crisscross_zoo.files.atomic import atomic_path
from crisscross_zoo.text import counted, percent
from crisscross_zoo.weights.loaded import Weights
from crisscross_zoo.weights.manifest import find_weights

Ints = npt.NDArray[np.int64]

RESULT_FILE = "result.json"

BENCHMARKS = {
    "ucf101": "UCF101",
    "hmdb51": "HMDB51",
    "esc50": "ESC-50",
    "dcase": "DCASE",
    "kinetics400": "Kinetics400",
    "kinetics-sound": "Kinetics-Sound",
}
"""The manifest's names of the data sets."""

_PUBLISHED = {
    "linear": "linear",
    "finetune": "full finetuning",
    "retrieval": "retrieval",
    "fusion": "fusion of video and audio, linear",
}
_SMALL_SETUPS = ("8-frame", "2s")
"""Setups that the paper uses for exploration (section E.1). If a data set has others, the published are of those."""


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """The result of a fold.

    Attributes:
        train: Number of training files that were used.
        test: The test files that were used.
        failed: A row for each file that failed, see :func:`crisscross_zoo.files.failures.failure_row`.
        damaged: A row for each file that was only partly read and used: path and reason.
    """

    train: int
    test: list[LabelledFile]
    failed: list[dict[str, str]]
    damaged: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Classified(FoldResult):
    """The result of a fold in classification.

    Attributes:
        clip_scores: Scores of each test clip, (n, K): decision values of an SVM, or probabilities of a linear layer.
        owners: Index in ``test`` of each clip's file, (n,).
        chosen: The chosen hyperparameters, and the scores by which they were chosen.
    """

    clip_scores: npt.NDArray[np.floating[Any]]
    owners: Ints
    chosen: dict[str, Any]

    @functools.cached_property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores of each test file, (files, K)."""
        return file_scores(self.clip_scores, self.owners)

    @property
    def top1(self) -> float:
        """The fraction of test files whose own class has the highest score."""
        return top_k(self.scores, labels_of(self.test), 1)


@dataclass(frozen=True, kw_only=True)
class Retrieved(FoldResult):
    """The result of a fold in retrieval.

    Attributes:
        recall: R@k by direction; empty without classes.
        chance: Expected R@k of random neighbours; empty without classes.
        queries: The test files with their nearest neighbours, by direction.
    """

    recall: dict[str, dict[int, float]]
    chance: dict[int, float]
    queries: dict[str, list[Query]]


def published(config: ProtocolConfig, weights: Mapping[str, Weights]) -> dict[str, Any] | None:
    """Return the paper's published result for these weights, from the manifest; None if there is none."""
    several = config.dataset in ("ucf101", "hmdb51", "esc50") and config.protocol in ("linear", "finetune")
    if several and config.setup in _SMALL_SETUPS:
        return None
    modality, name = next(iter(weights.items()))
    if not isinstance(name, str) or config.dataset not in BENCHMARKS:
        return None
    try:
        entry = find_weights(name, cast(Any, modality))
    except UnknownWeightsError:
        return None
    wanted = BENCHMARKS[config.dataset], _PUBLISHED[config.protocol]
    for result in entry.results:
        if (result.benchmark, result.protocol) == wanted and result.value is not None:
            return {"value": result.value, "metric": result.metric, "note": result.note}
    return None


def labels_of(samples: Sequence[LabelledFile]) -> Ints:
    """Return the labels of samples, int64."""
    return np.array([s.label for s in samples], np.int64)


def text_keys(values: Mapping[Any, float]) -> dict[str, float]:
    """Return values by cost or epoch with string keys, as JSON requires."""
    return {f"{key:g}": value for key, value in values.items()}


def check_out(path: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Raise an OutputError if ``path`` is the result of another evaluation, or damaged."""
    if overwrite or not path.exists():
        return
    try:
        existing = json.loads(path.read_text(encoding="utf-8"))
        other = next((k for k, v in json.loads(json.dumps(identity)).items() if existing.get(k) != v), None)
    except ValueError:
        raise OutputError("is damaged", remedy="delete it, or pass --overwrite", path=path) from None
    if other is not None:
        raise OutputError(
            f"is the result of another evaluation (other {other})",
            remedy="use another --out, or pass --overwrite",
            path=path,
        )


def summary(plan: Plan, done: Mapping[int, FoldResult]) -> dict[str, Any]:
    """Return the accuracies or the recall, of each fold and over all folds."""
    rows = {str(number): _row(plan, plan.folds[number], found) for number, found in done.items()}
    several = list(rows.values())
    if retrieved := [found for found in done.values() if isinstance(found, Retrieved)]:
        recall = {
            direction: {k: mean_and_deviation([r["recall"][direction][k] for r in several]) for k in ks}
            for direction, ks in several[0]["recall"].items()
        }
        chance = {str(k): float(np.mean([r.chance[k] for r in retrieved])) for k in retrieved[0].chance}
        return {"recall": recall, "chance": chance, "folds": rows}
    names = ("top1", "top5", "clip_top1")
    chance = {str(k): min(1.0, k / len(plan.data.classes)) for k in (1, 5)}
    numbers = {name: mean_and_deviation([r[name] for r in several]) for name in names}
    return {**numbers, "chance": chance, "folds": rows}


def _row(plan: Plan, fold: Fold, found: FoldResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "train_files": found.train,
        "test_files": len(found.test),
        "of_train_files": len(fold.train),
        "of_test_files": len(fold.test),
        "failed": found.failed,
        "damaged": found.damaged,
    }
    if isinstance(found, Retrieved):
        return row | {"recall": {d: {str(k): v for k, v in r.items()} for d, r in found.recall.items()}}
    assert isinstance(found, Classified)
    labels, classes = labels_of(found.test), plan.data.classes
    choices = any(k.startswith("accuracy_by") and v for k, v in found.chosen.items())
    return row | {
        "top1": found.top1,
        "top5": top_k(found.scores, labels, 5),
        "clip_top1": top_k(found.clip_scores, labels[found.owners], 1),
        "chosen_on": plan.config.select if choices else None,
        **found.chosen,
        "per_class": per_class(confusion(found.scores.argmax(axis=1), labels, len(classes)), classes),
    }


def weights_name(result: Mapping[str, Any]) -> str:
    """Return the name of the weights in tables: their id, or that of their pretraining run."""
    names = dict.fromkeys(str(weights["id"]) for weights in result["weights"].values())
    return str(result["run"] or ", ".join(names))


def recall_lines(result: Mapping[str, Any]) -> dict[str, str]:
    """Return R@k as text, by name, for each direction; empty if nothing was retrieved."""
    chance = result.get("chance", {})
    return {
        f"R@k, {direction}": ", ".join(
            f"R@{k} {percent(**value)} (chance {percent(chance[k])})" for k, value in recall.items()
        )
        for direction, recall in result.get("recall", {}).items()
    }


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a result as lines of text: accuracy or recall, the paper's number, and everything that qualifies them."""
    folds = result["folds"]
    several = (
        f", mean ± std over folds {', '.join(folds)}" if len(folds) > 1 else f", fold {next(iter(folds))}"
    )
    name = result["dataset"] if result["dataset"] != "folder" else Path(result["root"]).name
    lines = [f"{result['protocol']} on {name} ({result['setup']}), weights {weights_name(result)}{several}"]
    if "recall" in result:
        lines += [f"{name}: {numbers}" for name, numbers in recall_lines(result).items()]
    else:
        one, five = (f"(chance {percent(result['chance'][k])})" for k in ("1", "5"))
        lines.append(f"top-1: {percent(**result['top1'])} {one}")
        lines.append(
            f"top-5: {percent(**result['top5'])} {five}; top-1 of single clips: {percent(**result['clip_top1'])} {one}"
        )
    if paper := result["published"]:
        note = f" ({paper['note']})" if paper["note"] else ""
        lines.append(f"paper: {paper['value']:.1f} %, {paper['metric']}{note}")
    lines += [
        f"incomplete data set: {line}" for line in describe_missing(result["dataset"], result["incomplete"])
    ]
    used, all_files = (sum(f[name] for f in folds.values()) for name in ("test_files", "of_test_files"))
    lines.append(f"based on {used:,} of {counted(all_files, 'test file')}")
    if damaged := len({bad["path"] for f in folds.values() for bad in f["damaged"]}):
        lines.append(f"damaged: {counted(damaged, 'file')}, partly read, listed in {RESULT_FILE}")
    if failed := len({bad["path"] for f in folds.values() for bad in f["failed"]}):
        lines.append(f"failed: {counted(failed, 'file')}, listed in {RESULT_FILE}")
    if result["shared_content"]:
        shared = counted(sum(result["shared_content"].values()), "test file")
        lines.append(f"leak: {shared} with the same bytes as a training file")
    chosen_on = next(iter(folds.values())).get("chosen_on")
    choices = ", ".join(f"{k} {f[k]:g}" for f in folds.values() for k in ("cost", "epochs") if k in f)
    if chosen_on is not None:
        files = "the TEST files, as in the paper" if chosen_on == "test" else "held-out training files"
        lines.append(f"chosen on {files}: {choices}")
    elif choices:
        lines.append(f"fixed, not chosen: {choices}")
    lines += [f"differs from the paper: {name} {value}" for name, value in result["changed"].items()]
    lines += [f"missing: {line}" for line in result["absent"]]
    if result["released"]:
        lines.append("follows the released code where it differs from the paper")
    return lines


def write_tables(out: Path, classes: Sequence[str], done: Mapping[int, Classified]) -> None:
    """Write ``predictions.parquet``, ``clips.parquet`` and ``confusion.png`` of the folds into ``out``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files: dict[str, list[Any]] = {
        n: [] for n in ("fold", "path", "label", "prediction", "correct", "scores")
    }
    clips: dict[str, list[Any]] = {n: [] for n in ("fold", "path", "clip", "scores")}
    total = np.zeros((len(classes), len(classes)), np.int64)
    for number, found in done.items():
        predicted, labels = found.scores.argmax(axis=1), labels_of(found.test)
        total += confusion(predicted, labels, len(classes))
        for sample, guess, scores in zip(found.test, predicted, found.scores, strict=True):
            values = (number, sample.path, classes[sample.label], classes[guess])
            for name, value in zip(files, (*values, bool(guess == sample.label), scores), strict=True):
                files[name].append(value)
        firsts = np.searchsorted(found.owners, found.owners)
        for row, (owner, scores) in enumerate(zip(found.owners, found.clip_scores, strict=True)):
            for name, value in zip(
                clips, (number, found.test[owner].path, row - int(firsts[row]), scores), strict=True
            ):
                clips[name].append(value)
    metadata = {"classes": json.dumps(classes)}
    for name, columns in (("predictions", files), ("clips", clips)):
        with atomic_path(out / f"{name}.parquet") as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)
    with atomic_path(out / "confusion.png") as temporary:
        draw_confusion(total, classes, temporary)


def draw_confusion(matrix: Ints, classes: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix, in % of each class's test files, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    percentages = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(40.0, max(5.0, 2.5 + 0.22 * len(classes)))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(percentages, vmin=0, vmax=100, cmap="Blues", aspect="equal")
    size = 8 if len(classes) <= 60 else 4
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=size)
    axes.set_yticks(range(len(classes)), classes, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    if len(classes) <= 20:
        for i, row in enumerate(percentages):
            for j, value in enumerate(row):
                if value:
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7,
                              color="white" if value > 50 else "black")  # fmt: skip
    figure.colorbar(image, label="% of the class's test files", shrink=0.8)
    figure.savefig(path, format="png", dpi=150)
