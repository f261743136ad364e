"""Numbers out of scores: by clip, by file, by class. Plain NumPy, held to scikit-learn's in the tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]


def file_scores(clip_scores: Scores, owners: Ints) -> npt.NDArray[np.float64]:
    """Average the scores of the clips of each file (section E.1: "averaging clip-level predictions").

    Args:
        clip_scores: (n, K).
        owners: Number of the file of each clip, ascending, none left out: (n,).

    Returns:
        float64, (files, K).
    """
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    sums = np.add.reduceat(np.asarray(clip_scores, np.float64), firsts, axis=0)
    means: npt.NDArray[np.float64] = sums / np.diff(np.append(firsts, len(owners)))[:, None]
    return means


def softmax(scores: Scores) -> npt.NDArray[np.float64]:
    """Return the probabilities of logits (n, K)."""
    powers = np.exp(np.asarray(scores, np.float64) - scores.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def top_k(scores: Scores, labels: Ints, k: int) -> float:
    """Return the share of rows whose label is among their ``k`` highest scores; of equal ones the first counts."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(predicted: Ints, labels: Ints, classes: int) -> Ints:
    """Return how many rows of each class (first axis) were taken for each (second axis): (K, K)."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(matrix: Ints, classes: Sequence[str]) -> dict[str, float | None]:
    """Return the share of each class that was taken for what it is; None of one without rows."""
    totals = matrix.sum(axis=1)
    return {name: float(matrix[i, i] / totals[i]) if totals[i] else None for i, name in enumerate(classes)}


def recall_at(neighbours: Ints, labels: Ints, ks: Sequence[int]) -> dict[int, float]:
    """Return R@k: the share of queries with one of their own class among their ``k`` nearest neighbours.

    Args:
        neighbours: Labels of the neighbours of each query, nearest first: (queries, at least the largest k).
        labels: Of the queries: (queries,).
        ks: Each k.
    """
    right = neighbours == labels[:, None]
    return {k: float(right[:, :k].any(axis=1).mean()) for k in ks}


def chance_at(known: Ints, labels: Ints, ks: Sequence[int]) -> dict[int, float]:
    """Return the R@k to be expected of neighbours drawn at random, without putting any back.

    Args:
        known: Labels of what is searched.
        labels: Of the queries: (queries,).
        ks: Each k.
    """
    counts = dict(zip(*np.unique(known, return_counts=True), strict=True))

    def missed(own: int, k: int) -> float:
        """How likely none of k drawn is among ``own`` of them."""
        return math.comb(len(known) - own, k) / math.comb(len(known), k)

    return {
        k: float(np.mean([1 - missed(int(counts.get(label, 0)), min(k, len(known))) for label in labels]))
        for k in ks
    }


def mean_and_deviation(values: Sequence[float]) -> Mapping[str, float]:
    """Return "mean" and "std" (over the values themselves: 0 of one)."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}
