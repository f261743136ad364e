"""Retrieval on one fold: its test files are the queries, its training files the gallery, in every direction."""

from __future__ import annotations

from crisscross_zoo.errors import OutputError
from crisscross_zoo.evaluate.datasets import LabelledFile
from crisscross_zoo.evaluate.extracted import ClipFeatures
from crisscross_zoo.evaluate.gallery import Hit, Item, Query
from crisscross_zoo.evaluate.metrics import chance_at, recall_at
from crisscross_zoo.evaluate.plan import Plan
from crisscross_zoo.evaluate.probe import FileClips
from crisscross_zoo.evaluate.results import Retrieved, labels_of
from crisscross_zoo.evaluate.retrieval import file_means, nearest
from crisscross_zoo.evaluate.rows import Floats, Ints, Rows
from crisscross_zoo.evaluate.store import FeatureStore

SHOWN_NEIGHBOURS = 5
"""Neighbours shown on a gallery page, as in Figures S1 and S2."""


def retrieve(plan: Plan, features: ClipFeatures, number: int, *, shown: int = SHOWN_NEIGHBOURS) -> Retrieved:
    """Search a fold's training files (the gallery) with its test files (the queries), in every direction.

    Recall needs classes; it is empty without them.

    Args:
        plan: The evaluation.
        features: The features of its clips.
        number: The fold's number.
        shown: Number of neighbours of each query that are returned.

    Raises:
        OutputError: no query, or no gallery file, can be used.
    """
    fold, store = plan.folds[number], features.store()
    used, failed = features.extract(store, fold.train + fold.test, "files")
    spaces = {f"{modality}-to-{modality}": store for modality in plan.weights}
    if plan.heads and len(plan.weights) == 2:
        projected = features.store(pooling="avg")
        used, more = features.extract(projected, used, "files, average-pooled")
        failed += more
        spaces |= {"video-to-audio": projected, "audio-to-video": projected}
    usable = {s.path for s in used}
    gallery, queries = ([s for s in files if s.path in usable] for files in (fold.train, fold.test))
    for files, what in ((gallery, "gallery file"), (queries, "query")):
        if not files:
            raise OutputError(f"no {what} can be used: {failed[0]['reason']}", path=failed[0]["path"])
    gallery_labels, query_labels = labels_of(gallery), labels_of(queries)
    ks = plan.config.retrieval.ks if plan.config.retrieval else ()
    recall: dict[str, dict[int, float]] = {}
    results: dict[str, list[Query]] = {}
    for direction, space in spaces.items():
        indices, cosines = _neighbours(plan, space, direction, gallery, queries, max(shown, *ks))
        if plan.data.classes:
            recall[direction] = recall_at(gallery_labels[indices], query_labels, ks)
        results[direction] = [
            Query(
                _item(plan, sample),
                tuple(Hit(_item(plan, gallery[i]), float(c)) for i, c in zip(near, close, strict=True)),
            )
            for sample, near, close in zip(queries, indices[:, :shown], cosines[:, :shown], strict=True)
        ]
    return Retrieved(
        train=len(gallery),
        test=queries,
        failed=failed,
        damaged=store.damage([s.path for s in used]),
        recall=recall,
        chance=chance_at(gallery_labels, query_labels, ks) if plan.data.classes else {},
        queries=results,
    )


def _neighbours(
    plan: Plan,
    store: FeatureStore,
    direction: str,
    gallery: list[LabelledFile],
    queries: list[LabelledFile],
    k: int,
) -> tuple[Ints, Floats]:
    """Return indices and cosines of the ``k`` gallery files nearest to each query, see :func:`nearest`."""
    query_modality, gallery_modality = direction.split("-to-")
    heads = plan.heads if query_modality != gallery_modality else {}
    return nearest(
        file_means(
            _clips(store, gallery_modality, gallery), heads[gallery_modality].projector if heads else None
        ),
        file_means(_clips(store, query_modality, queries), heads.get(query_modality)),
        k,
    )


def _clips(store: FeatureStore, modality: str, samples: list[LabelledFile]) -> FileClips:
    matrix, owners = store.rows(modality, [s.path for s in samples])
    return FileClips(Rows([matrix]), owners)


def _item(plan: Plan, sample: LabelledFile) -> Item:
    return Item(sample.path, plan.data.classes[sample.label] if plan.data.classes else None)
