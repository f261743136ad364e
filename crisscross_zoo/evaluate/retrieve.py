"""The step of a fold in retrieval: its test files query its training files, in every direction."""

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
"""Neighbours in a gallery, as in Figures S1 and S2."""


def retrieve(plan: Plan, features: ClipFeatures, number: int, *, shown: int = SHOWN_NEIGHBOURS) -> Retrieved:
    """Query the training files of a fold with its test files, in every direction.

    Without classes there is nothing to be right or wrong: no recall.

    Args:
        plan: The evaluation.
        features: Of its clips.
        number: Of the fold.
        shown: Neighbours of a query that are returned.

    Raises:
        OutputError: no query, or nothing that is searched, can be used.
    """
    fold, store = plan.folds[number], features.store()
    used, failed = features.extract(store, fold.train + fold.test, "files")
    spaces = {f"{modality}-to-{modality}": store for modality in plan.weights}
    if plan.heads and len(plan.weights) == 2:
        projected = features.store(pooling="avg")
        used, more = features.extract(projected, used, "files, average-pooled")
        failed += more
        spaces |= {"video-to-audio": projected, "audio-to-video": projected}
    there = {s.path for s in used}
    known, asked = ([s for s in part if s.path in there] for part in (fold.train, fold.test))
    for part, what in ((known, "file to search"), (asked, "query")):
        if not part:
            raise OutputError(f"no {what} can be used: {failed[0]['reason']}", path=failed[0]["path"])
    labels, truth = labels_of(known), labels_of(asked)
    ks = plan.config.retrieval.ks if plan.config.retrieval else ()
    recall: dict[str, dict[int, float]] = {}
    queries: dict[str, list[Query]] = {}
    for direction, space in spaces.items():
        places, cosines = _neighbours(plan, space, direction, known, asked, max(shown, *ks))
        if plan.data.classes:
            recall[direction] = recall_at(labels[places], truth, ks)
        queries[direction] = [
            Query(
                _item(plan, sample),
                tuple(Hit(_item(plan, known[p]), float(c)) for p, c in zip(near, close, strict=True)),
            )
            for sample, near, close in zip(asked, places[:, :shown], cosines[:, :shown], strict=True)
        ]
    return Retrieved(
        train=len(known),
        test=asked,
        failed=failed,
        damaged=store.damage([s.path for s in used]),
        recall=recall,
        chance=chance_at(labels, truth, ks) if plan.data.classes else {},
        queries=queries,
    )


def _neighbours(
    plan: Plan,
    store: FeatureStore,
    direction: str,
    known: list[LabelledFile],
    asked: list[LabelledFile],
    k: int,
) -> tuple[Ints, Floats]:
    """Return places in ``known`` and cosines of the ``k`` nearest to each of ``asked``, see :func:`nearest`."""
    asker, sought = direction.split("-to-")
    heads = plan.heads if asker != sought else {}
    return nearest(
        file_means(_clips(store, sought, known), heads[sought].projector if heads else None),
        file_means(_clips(store, asker, asked), heads.get(asker)),
        k,
    )


def _clips(store: FeatureStore, modality: str, samples: list[LabelledFile]) -> FileClips:
    part, owners = store.rows(modality, [s.path for s in samples])
    return FileClips(Rows([part]), owners)


def _item(plan: Plan, sample: LabelledFile) -> Item:
    return Item(sample.path, plan.data.classes[sample.label] if plan.data.classes else None)
