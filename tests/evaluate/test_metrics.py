"""Metrics, compared with scikit-learn's, SciPy's and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score, top_k_accuracy_score

from crisscross_zoo.evaluate.metrics import (
    chance_at,
    confusion,
    file_scores,
    mean_and_deviation,
    per_class,
    recall_at,
    softmax,
    top_k,
)


def make_scores(n: int = 200, classes: int = 7, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are right about half of the time, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return rng.standard_normal((n, classes)) + 1.5 * np.eye(classes)[labels], labels


def test_a_files_scores_are_the_mean_over_its_clips() -> None:
    scores, _ = make_scores(23)
    counts = [1, 4, 10, 2, 6]
    owners = np.repeat(np.arange(5), counts)
    found = file_scores(scores.astype(np.float32), owners)
    assert found.dtype == np.float64
    for file in range(5):
        clips = [row for row, owner in zip(scores.astype(np.float32), owners, strict=True) if owner == file]
        np.testing.assert_allclose(found[file], sum(c.astype(float) for c in clips) / len(clips), rtol=1e-12)


def test_one_clip_a_file_changes_nothing() -> None:
    scores, _ = make_scores(6)
    np.testing.assert_array_equal(file_scores(scores, np.arange(6)), scores)


def test_means_are_not_summed_in_single_precision() -> None:
    clips = np.array([[2.0**24], [1.0], [1.0]], np.float32)  # 2^24 + 1 is 2^24 in float32
    assert file_scores(clips, np.zeros(3, np.int64)) == pytest.approx((2.0**24 + 2) / 3, rel=1e-15)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_scikit_learns(k: int) -> None:
    scores, labels = make_scores()
    assert top_k(scores, labels, k) == top_k_accuracy_score(labels, scores, k=k)
    if k == 1:
        assert top_k(scores, labels, k) == accuracy_score(labels, scores.argmax(axis=1))


def test_a_k_above_the_number_of_classes_is_always_right() -> None:
    scores, labels = make_scores(classes=3)
    assert top_k(scores, labels, 5) == 1


def test_of_equal_scores_the_first_counts() -> None:
    scores = np.array([[1.0, 1.0, 0.0]] * 3)
    assert top_k(scores, np.array([0, 1, 2]), 1) == pytest.approx(1 / 3)
    assert top_k(scores, np.array([0, 1, 2]), 2) == pytest.approx(2 / 3)
    nothing = np.zeros((4, 8))
    assert top_k(nothing, np.array([0, 4, 5, 7]), 5) == 0.5
    # top-1 and the confusion matrix agree on the predicted class
    assert top_k(scores, np.array([1, 1, 1]), 1) == np.mean(scores.argmax(axis=1) == 1) == 0


def test_confusion_and_the_recall_of_each_class_are_scikit_learns() -> None:
    scores, labels = make_scores()
    guessed = scores.argmax(axis=1)
    matrix = confusion(guessed, labels, 7)
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, guessed, labels=range(7)))
    names = [f"class {k}" for k in range(7)]
    recall = per_class(matrix, names)
    assert list(recall) == names
    assert list(recall.values()) == pytest.approx(recall_score(labels, guessed, average=None), abs=1e-12)


def test_rows_of_the_matrix_are_the_truth() -> None:
    np.testing.assert_array_equal(
        confusion(np.array([1, 1, 0]), np.array([0, 0, 0]), 3), [[1, 2, 0], [0, 0, 0], [0, 0, 0]]
    )


def test_a_class_without_rows_has_no_recall() -> None:
    matrix = confusion(np.array([0, 2, 2]), np.array([0, 0, 2]), 4)
    assert per_class(matrix, "abcd") == {"a": 0.5, "b": None, "c": 1.0, "d": None}


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_softmax_is_scipys_also_far_from_zero(scale: float) -> None:
    scores = scale * make_scores()[0]
    found = softmax(scores)
    np.testing.assert_allclose(found, scipy_softmax(scores, axis=1), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    single = softmax(scores.astype(np.float32))
    assert single.dtype == np.float64
    np.testing.assert_allclose(
        single, scipy_softmax(scores.astype(np.float32).astype(float), axis=1), rtol=1e-12
    )


@settings(max_examples=50)
@given(st.integers(1, 30), st.integers(1, 25), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_recall_is_that_of_a_plain_loop(queries: int, gallery: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    neighbours, labels = rng.integers(0, classes, (queries, gallery)), rng.integers(0, classes, queries)
    found = recall_at(neighbours, labels, (1, 5, 20))
    for k in (1, 5, 20):
        right = 0
        for near, label in zip(neighbours, labels, strict=True):
            right += any(other == label for other in near[:k])  # all of them, if there are fewer than k
        assert found[k] == pytest.approx(right / queries, abs=1e-12)
    assert found[1] <= found[5] <= found[20]


def test_mean_and_deviation_are_over_the_folds_themselves() -> None:
    assert mean_and_deviation([0.5, 0.7, 0.9]) == pytest.approx({"mean": 0.7, "std": np.sqrt(0.08 / 3)})
    assert mean_and_deviation([0.25]) == {"mean": 0.25, "std": 0.0}


def test_chance_is_what_neighbours_drawn_at_random_give() -> None:
    gallery, queries = np.array([0] * 6 + [1] * 3 + [2]), np.array([0, 1, 2, 3])
    found = chance_at(gallery, queries, (1, 5, 20))
    assert found[1] == pytest.approx((0.6 + 0.3 + 0.1 + 0) / 4)
    assert found[20] == pytest.approx(3 / 4)  # all are drawn; nothing is of class 3
    rng = np.random.default_rng(0)
    drawn = [
        recall_at(np.stack([rng.permutation(gallery)[:5] for _ in queries]), queries, [5])[5]
        for _ in range(4000)
    ]
    assert found[5] == pytest.approx(np.mean(drawn), abs=0.015)
