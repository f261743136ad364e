"""Evaluation by any protocol in one call: features, classifier, scores, and everything needed to verify the result.

The folder of a result has::

    result.json           accuracies by fold, settings, weights, chosen hyperparameters, failed files
    predictions.parquet   every test file: label, prediction, score of each class
    clips.parquet         every test clip: score of each class
    confusion.png         the confusion matrix over all folds
    fold1/finetune.pt     only finetuning: the checkpoint from which it resumes
    fold1/layer.pt        the same for a linear layer with new clips in every epoch
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crisscross_zoo import __version__
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.evaluate.classify import classify_by_layer, classify_by_svm
from crisscross_zoo.evaluate.classify_finetuned import classify_by_finetuning
from crisscross_zoo.evaluate.datasets import Fold, LabelledData, LabelledFile, check_no_leak, shared_content
from crisscross_zoo.evaluate.extracted import ClipFeatures
from crisscross_zoo.evaluate.gallery import Query
from crisscross_zoo.evaluate.plan import Compute, Plan, make_plan, setup_of
from crisscross_zoo.evaluate.protocols import ProtocolConfig
from crisscross_zoo.evaluate.releases import describe_missing, find_missing
from crisscross_zoo.evaluate.reporter import Progress, Reporter
from crisscross_zoo.evaluate.results import (
    RESULT_FILE,
    Classified,
    FoldResult,
    Retrieved,
    check_out,
    published,
    summary,
    write_tables,
)
from crisscross_zoo.evaluate.retrieval import Heads
from crisscross_zoo.evaluate.retrieve import retrieve
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.find import MEDIA_SUFFIXES, VIDEO_SUFFIXES, find_media
from crisscross_zoo.text import counted
from crisscross_zoo.weights.loaded import Weights


def check_packages() -> None:
    """Raise a ConfigError unless the packages of the extra "evaluate" are installed."""
    for package, name in (("sklearn", "scikit-learn"), ("pyarrow", "pyarrow"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{name} is not installed", remedy='run pip install "crisscross-zoo[evaluate]"')


def evaluate(
    config: ProtocolConfig,
    data: LabelledData,
    weights: Weights | Mapping[str, Weights],
    *,
    out: str | os.PathLike[str],
    folds: Sequence[int] | None = None,
    compute: Compute | None = None,
    heads: Mapping[str, Heads] | None = None,
    overwrite: bool = False,
    on_message: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
    on_queries: Callable[[Mapping[str, Sequence[Query]]], None] | None = None,
) -> dict[str, Any]:
    """Evaluate weights by a protocol, and write the result.

    Args:
        config: The protocol's settings.
        data: Files, labels and folds.
        weights: As in :func:`crisscross_zoo.load_encoder`, or an encoder; or one for each modality.
        out: The result's folder, created if needed.
        folds: Numbers of the folds to evaluate; default: all.
        compute: Device, precision and the like.
        heads: By modality, for retrieval across modalities, see :func:`~crisscross_zoo.evaluate.retrieval.load_heads`.
        overwrite: Replace another evaluation's result in ``out``.
        on_message: Called with a line of text about anything that may make the result less reliable.
        on_progress: Called with a stage's name, the number of items done and their total number.
        on_queries: Only in retrieval: called with the first fold's queries and their neighbours, by direction.

    Returns:
        The contents of ``result.json``.

    Raises:
        ConfigError: a file is in both training and test, a fold does not exist, or the settings do not fit.
        WeightsError: the weights cannot be loaded.
        OutputError: the folder has another evaluation's result, or no file could be used.
        OSError: the result cannot be written.
    """
    check_packages()
    chosen = _chosen_folds(data, folds)
    _check_not_audio_only(config, data.root, (s.path for f in chosen.values() for s in (*f.train, *f.test)))
    reporter = Reporter(on_message, on_progress)
    plan = make_plan(
        config, data, chosen, weights, out=Path(out), compute=compute, heads=heads, overwrite=overwrite
    )
    step = _step(plan, reporter)
    identity = plan.identity()
    check_out(plan.out / RESULT_FILE, identity, overwrite=overwrite)
    incomplete = find_missing(data, chosen)
    if lines := describe_missing(data.name, incomplete):
        more = f" (and {len(lines) - 1} more, listed with the result)" if len(lines) > 1 else ""
        reporter.message(
            f"{data.root} is an incomplete data set, so the paper's number is not shown with the result:"
            f" {lines[0]}{more}"
        )
    shared = _check_leaks(plan, reporter)
    done: dict[int, FoldResult] = {}
    for number in chosen:
        done[number] = found = step(number)
        if isinstance(found, Retrieved) and on_queries is not None and len(done) == 1:
            on_queries(found.queries)
    sources = {name: loaded.source for name, loaded in plan.weights.items()}
    result = {
        **identity,
        "published": None if incomplete else published(config, sources),
        "device": plan.device.type,
        "versions": {"crisscross_zoo": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "incomplete": incomplete,
        "shared_content": shared,
        "absent": list(data.absent),
        **summary(plan, done),
    }
    if classified := {n: found for n, found in done.items() if isinstance(found, Classified)}:
        write_tables(plan.out, data.classes, classified)
    plan.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    write_atomically(plan.out / RESULT_FILE, text.encode())
    return result


def search(
    config: ProtocolConfig,
    folder: str | os.PathLike[str],
    queries: Sequence[str],
    weights: Weights | Mapping[str, Weights],
    *,
    top: int = 5,
    compute: Compute | None = None,
    heads: Mapping[str, Heads] | None = None,
    on_message: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
) -> tuple[dict[str, list[Query]], list[dict[str, str]]]:
    """Find the files of a folder that are nearest to some query files; labels are not needed.

    Args:
        config: A retrieval protocol's settings.
        folder: The gallery: the media files in this folder and its subfolders.
        queries: Query files. A query that is in the folder is removed from the gallery.
        weights: As for :func:`evaluate`.
        top: Number of neighbours of each query.
        compute: Device, precision and the like.
        heads: As for :func:`evaluate`.
        on_message: Called with a line of text about failed files.
        on_progress: As for :func:`evaluate`.

    Returns:
        The queries with their neighbours, by direction; and a row for each file that failed.

    Raises:
        ConfigError: a query does not exist, or the folder has no media.
        WeightsError: the weights cannot be loaded.
        OutputError: no query, or no file of the folder, can be used.
    """
    check_packages()
    for query in queries:
        if not Path(query).is_file():
            raise ConfigError(f"{query}: there is no such file", remedy="check --query")
    query_paths = {os.path.realpath(query) for query in queries}
    media = find_media([os.fspath(folder)])
    _check_not_audio_only(config, folder, media)
    if config.modality != "audio":
        media = [path for path in media if not _is_audio_file(path)]
    gallery = [path for path in media if os.path.realpath(path) not in query_paths]
    if not gallery:
        raise ConfigError(
            f"{folder}: has no media besides the queries", remedy="name a folder with files to search"
        )
    train, test = (tuple(LabelledFile(str(p), 0, str(p)) for p in paths) for paths in (gallery, queries))
    data = LabelledData("folder", os.fspath(folder), (), {1: Fold(train, test)})
    plan = make_plan(config, data, data.folds, weights, out=Path(), compute=compute, heads=heads)
    reporter = Reporter(on_message, on_progress)
    done = retrieve(plan, ClipFeatures(plan, reporter), 1, shown=top)
    return done.queries, done.failed


def _chosen_folds(data: LabelledData, folds: Sequence[int] | None) -> dict[int, Fold]:
    for number in folds or ():
        if number not in data.folds:
            raise ConfigError(
                f"{data.name} has no fold {number}", remedy=f"choose from {', '.join(map(str, data.folds))}"
            )
    if len(data.classes) < 2:
        raise ConfigError(
            f"{data.root}: has one class, {data.classes[0]!r}; an evaluation needs two or more",
            remedy="check that the files are at FOLDER/CLASS/FILE, without another folder level",
        )
    return {number: data.folds[number] for number in folds or data.folds}


def _check_not_audio_only(
    config: ProtocolConfig, folder: str | os.PathLike[str], paths: Iterable[str]
) -> None:
    """Raise a ConfigError that names another setup if the protocol needs video and all files are audio files."""
    if config.modality != "audio" and all(_is_audio_file(path) for path in paths):
        setup = setup_of(config, "audio")
        remedy = "name a folder of videos"
        raise ConfigError(
            "has audio files only",
            remedy=remedy if setup is None else f"pass --setup {setup}, or {remedy}",
            path=folder,
        )


def _is_audio_file(path: str) -> bool:
    return Path(path).suffix.lower() in MEDIA_SUFFIXES - VIDEO_SUFFIXES


def _check_leaks(plan: Plan, reporter: Reporter) -> dict[int, int]:
    """Count the test files that have the same bytes as a training file, and report them.

    Returns:
        The number by fold, of folds that have any.

    Raises:
        ConfigError: a test file is a training file.
    """
    for fold in plan.folds.values():
        check_no_leak(fold)
    shared: dict[int, int] = {}
    digests: dict[str, str] = {}
    example: tuple[str, str] | None = None
    for number, fold in plan.folds.items():
        if same := shared_content(fold, digests):
            shared[number] = len(same)
            example = example or next(iter(same.items()))
    if example is not None:
        folds = ", ".join(f"fold {number}: {found}" for number, found in shared.items())
        reporter.message(
            f"{counted(sum(shared.values()), 'test file')} with the same bytes as a training file ({folds}), such as"
            f" {' and '.join(example)}"
        )
    return shared


def _step(plan: Plan, reporter: Reporter) -> Callable[[int], FoldResult]:
    """Return the function that evaluates a fold by its number; settings that do not fit raise here."""
    if plan.config.finetune is not None:
        return lambda number: classify_by_finetuning(plan, number, reporter)
    features = ClipFeatures(plan, reporter)
    if plan.config.retrieval is not None:
        return lambda number: retrieve(plan, features, number)
    classify = classify_by_svm if plan.config.layer is None else classify_by_layer
    return lambda number: classify(plan, features, number, reporter)
