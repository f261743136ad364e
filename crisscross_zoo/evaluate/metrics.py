"""Metrics by clip, by file and by class, in plain NumPy; the tests compare them with scikit-learn's."""

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
        owners: Index of the file of each clip, ascending and without gaps, (n,).

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
    probabilities: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def top_k(scores: Scores, labels: Ints, k: int) -> float:
    """Return the fraction of rows whose label is among the ``k`` highest scores; ties go to the first class."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion(predicted: Ints, labels: Ints, classes: int) -> Ints:
    """Return the confusion matrix (K, K): the number of rows by true class (first axis) and predicted class."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(matrix: Ints, classes: Sequence[str]) -> dict[str, float | None]:
    """Return the recall of each class by name; None for a class without rows."""
    totals = matrix.sum(axis=1)
    return {name: float(matrix[i, i] / totals[i]) if totals[i] else None for i, name in enumerate(classes)}


def recall_at(neighbours: Ints, labels: Ints, ks: Sequence[int]) -> dict[int, float]:
    """Return R@k: the fraction of queries with a file of their own class among their ``k`` nearest neighbours.

    Args:
        neighbours: Labels of the neighbours of each query, nearest first, (queries, at least the largest k).
        labels: Labels of the queries, (queries,).
        ks: The values of k.
    """
    right = neighbours == labels[:, None]
    return {k: float(right[:, :k].any(axis=1).mean()) for k in ks}


def chance_at(gallery: Ints, labels: Ints, ks: Sequence[int]) -> dict[int, float]:
    """Return the expected R@k of neighbours that are drawn at random without replacement.

    Args:
        gallery: Labels of the gallery, (n,).
        labels: Labels of the queries, (queries,).
        ks: The values of k.
    """
    counts = dict(zip(*np.unique(gallery, return_counts=True), strict=True))

    def missed(own: int, k: int) -> float:
        """Return the probability that none of k files drawn is one of ``own`` files of the query's class."""
        return math.comb(len(gallery) - own, k) / math.comb(len(gallery), k)

    return {
        k: float(np.mean([1 - missed(int(counts.get(label, 0)), min(k, len(gallery))) for label in labels]))
        for k in ks
    }


def mean_and_deviation(values: Sequence[float]) -> Mapping[str, float]:
    """Return "mean" and "std", the population standard deviation (0 for one value)."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}
