"""The probe as a scikit-learn estimator: trained on clips, it predicts files; held-out files choose its cost."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn_checks import own_checks

from crisscross_zoo import Features
from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.evaluate.probe import (
    FileClips,
    LinearProbe,
    best,
    held_out_accuracies,
    held_out_folds,
    unit_length,
)
from crisscross_zoo.evaluate.protocols import COSTS

Floats = npt.NDArray[np.floating]

CLASSES = ("cat", "dog", "owl")
SHARP = 1e-6
"""Tolerance at which the SVM agrees with LinearSVC to 1e-4 of the largest value."""


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


def windows(rows: int) -> npt.NDArray[np.float64]:
    return np.arange(2.0 * rows).reshape(rows, 2)


def make_files(
    files: int, *, dims: int = 6, clips: int | None = None, seed: int = 0, noise: float = 1.0
) -> tuple[list[Features], list[str]]:
    """Files of both modalities with 1 to 4 clips, of three classes in turn that are hard to tell apart."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, dims + 2))
    made, labels = [], []
    for file in range(files):
        rows = clips or int(rng.integers(1, 5))
        own = centres[file % 3] + noise * rng.standard_normal(dims + 2)  # clips of a file are alike
        values = np.maximum(own + noise * rng.standard_normal((rows, dims + 2)) + 1, 0).astype(np.float32)
        video, audio = values[:, :dims], values[:, dims:]
        made.append(
            Features(video=video, video_windows=windows(rows), audio=audio, audio_windows=windows(rows))
        )
        labels.append(CLASSES[file % 3])
    return made, labels


def side_by_side(file: Features) -> Floats:
    assert file.video is not None
    assert file.audio is not None
    return np.concatenate([file.video, file.audio], axis=1)


def sklearn_svm(features: Floats, labels: npt.NDArray[Any], cost: float) -> LinearSVC:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it stops at rounding, above its tolerance
        return LinearSVC(C=cost, dual=False, tol=1e-8, max_iter=100_000).fit(features.astype(float), labels)


def sklearn_answers(svm: LinearSVC, files: list[Floats]) -> Floats:
    """Decision values of each file: the mean over its clips."""
    return np.array([svm.decision_function(clips.astype(float)).mean(axis=0) for clips in files])


# --- an estimator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("probe", "check"), own_checks(LinearProbe()))
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(probe: LinearProbe, check: Any) -> None:
    check(probe)


def test_it_is_cloned_and_shows_its_parameters() -> None:
    probe = LinearProbe(costs=(0.1, 1.0), tolerance=1e-3, normalize="l2", seed=3)
    given = {"costs": (0.1, 1.0), "tolerance": 1e-3, "normalize": "l2", "seed": 3, "device": "cpu"}
    assert given.items() <= probe.get_params().items()
    files, labels = make_files(30)
    twin = clone(probe.fit(files, labels))
    assert twin.get_params() == probe.get_params()
    assert not hasattr(twin, "coef_")
    assert twin.set_params(seed=4).get_params()["seed"] == 4
    assert LinearProbe().costs == COSTS


def test_what_it_has_learned_is_named_as_in_scikit_learn() -> None:
    files, labels = make_files(30)
    probe = LinearProbe(costs=(0.01,), tolerance=SHARP)
    assert probe.fit(files, labels) is probe
    assert list(probe.classes_) == list(CLASSES)
    assert (probe.coef_.shape, probe.intercept_.shape) == ((3, 8), (3,))
    assert (probe.coef_.dtype, probe.intercept_.dtype) == (np.float32, np.float32)
    assert (probe.cost_, probe.accuracies_) == (0.01, {})
    clips = np.concatenate([side_by_side(f) for f in files])
    np.testing.assert_allclose(
        probe.clip_scores(files), clips @ probe.coef_.T + probe.intercept_, rtol=1e-5, atol=1e-5
    )


def test_cross_validation_over_lists_of_features() -> None:
    files, labels = make_files(30, noise=0.5)
    scores = cross_val_score(LinearProbe(costs=(0.01,)), files, labels, cv=5)
    assert scores.shape == (5,)
    assert scores.mean() > 0.8
    wrong = np.roll(labels, 1)[np.random.default_rng(0).permutation(30)]
    assert cross_val_score(LinearProbe(costs=(0.01,)), files, wrong, cv=5).mean() < 0.6


def test_grid_search_over_costs_finds_what_a_loop_finds() -> None:
    files, labels = make_files(45, noise=2.0)
    grid = {"costs": [(1e-5,), (1e-3,), (1e-1,)]}
    search = GridSearchCV(LinearProbe(), grid, cv=3).fit(files, labels)
    means = [cross_val_score(LinearProbe(costs=c), files, labels, cv=3).mean() for c in grid["costs"]]
    assert list(search.cv_results_["mean_test_score"]) == pytest.approx(means, abs=1e-12)
    assert search.best_params_["costs"] == grid["costs"][int(np.argmax(means))]
    assert search.best_estimator_.cost_ == search.best_params_["costs"][0]


def test_in_a_pipeline_rows_of_an_array_are_files_of_one_clip() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5)) * [1, 10, 100, 1, 1] + 3
    y = (x[:, 0] + x[:, 1] / 10 > 3.3).astype(int)
    ours = make_pipeline(StandardScaler(), LinearProbe(costs=(0.1,), tolerance=SHARP)).fit(x, y)
    theirs = make_pipeline(StandardScaler(), LinearSVC(C=0.1, dual=False, tol=1e-8)).fit(x, y)
    np.testing.assert_allclose(
        ours.decision_function(x),
        theirs.decision_function(x),
        atol=1e-4 * np.abs(theirs.decision_function(x)).max(),
    )
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert ours.score(x, y) == theirs.score(x, y) > 0.9


@pytest.mark.parametrize("labels", [np.array([3, 1, 2] * 8), np.array(["x", "y"] * 12), [True, False] * 12])
def test_labels_of_any_kind_come_back(labels: Any) -> None:
    x = np.eye(3, dtype=np.float32)[np.unique(labels, return_inverse=True)[1]]
    probe = LinearProbe(costs=(1.0,)).fit(x, labels)
    np.testing.assert_array_equal(probe.classes_, np.unique(labels))
    np.testing.assert_array_equal(probe.predict(x), labels)


def test_of_two_classes_there_is_one_decision_value_a_file() -> None:
    files, labels = make_files(30, noise=0.5)
    two = [(f, y) for f, y in zip(files, labels, strict=True) if y != "owl"]
    probe = LinearProbe(costs=(0.01,)).fit([f for f, _ in two], [y for _, y in two])
    found = probe.decision_function([f for f, _ in two])
    assert (found.shape, found.dtype) == ((20,), np.float64)
    np.testing.assert_array_equal(probe.predict([f for f, _ in two]), np.where(found > 0, "dog", "cat"))
    assert probe.clip_scores([two[0][0]]).shape[1] == 2


def test_columns_are_the_same_in_every_form_of_the_files() -> None:
    files, labels = make_files(12, clips=1)
    array = np.concatenate([side_by_side(f) for f in files])
    forms = (files, array, array.tolist(), list(array), [a[None] for a in array], array[:, None])
    for form in forms:
        probe = LinearProbe(costs=(0.01,)).fit(form, labels)
        assert probe.n_features_in_ == 8
        np.testing.assert_allclose(probe.decision_function(files), probe.decision_function(array), rtol=1e-6)
    for wrong in (array[:, :7], list(array[:, :7])):
        with pytest.raises(
            InputError, match=r"X has 7 features, but|clips of 7 dimensions, but the probe was trained on 8"
        ):
            probe.predict(wrong)


# --- clips and files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["video", "audio", "both"])
def test_predictions_are_the_mean_over_clips_of_a_plain_svm_on_clips(modality: str) -> None:
    files, labels = make_files(30)
    test, truth = make_files(21, seed=1)

    def arrays(found: list[Features]) -> list[Floats]:
        return [side_by_side(f) if modality == "both" else getattr(f, modality) for f in found]

    def features(found: list[Features]) -> list[Features]:
        if modality == "both":
            return found
        names = (modality, f"{modality}_windows")
        return [Features(**{n: getattr(f, n) for n in names}) for f in found]

    clips = np.concatenate(arrays(files))
    theirs = sklearn_svm(clips, np.repeat(labels, [len(a) for a in arrays(files)]), 0.01)
    expected = sklearn_answers(theirs, arrays(test))
    probe = LinearProbe(costs=(0.01,), tolerance=SHARP).fit(features(files), labels)
    found = probe.decision_function(features(test))
    assert (found.shape, found.dtype) == ((21, 3), np.float64)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    predicted = probe.predict(features(test))
    np.testing.assert_array_equal(predicted, np.array(CLASSES)[expected.argmax(axis=1)])
    assert probe.score(features(test), truth) == np.mean(predicted == truth) > 0.6
    # arrays of clips give the same as Features; with both modalities, video comes first
    np.testing.assert_array_equal(probe.decision_function(arrays(test)), found)


def test_unit_length_divides_each_clip_by_its_length() -> None:
    block = np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]], np.float32)
    found = unit_length(block)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
    files, labels = make_files(30)
    clips = np.concatenate([side_by_side(f) for f in files]).astype(float)
    clips /= np.sqrt((clips**2).sum(axis=1, keepdims=True))
    theirs = sklearn_svm(clips, np.repeat(labels, [len(f.video) for f in files if f.video is not None]), 1.0)
    probe = LinearProbe(costs=(1.0,), tolerance=SHARP, normalize="l2").fit(files, labels)
    np.testing.assert_allclose(probe.coef_, theirs.coef_, atol=1e-4 * np.abs(theirs.coef_).max())
    loud = [Features(video=7 * f.video, video_windows=f.video_windows, audio=7 * f.audio, audio_windows=f.audio_windows)
            for f in files if f.video is not None and f.audio is not None]  # fmt: skip
    np.testing.assert_allclose(probe.clip_scores(loud), probe.clip_scores(files), rtol=1e-4, atol=1e-5)


def test_taking_files_takes_their_clips_and_renumbers_them() -> None:
    files, _ = make_files(7)
    clips = FileClips.of(files)
    counts = [len(side_by_side(f)) for f in files]
    assert clips.files == 7
    np.testing.assert_array_equal(clips.owners, np.repeat(np.arange(7), counts))
    some = clips.take(np.array([1, 2, 5]))
    assert some.files == 3
    np.testing.assert_array_equal(some.owners, np.repeat([0, 1, 2], [counts[k] for k in (1, 2, 5)]))
    expected = np.concatenate([side_by_side(files[k]) for k in (1, 2, 5)])
    np.testing.assert_array_equal(some.rows[:], expected)
    again = some.take(np.array([2]))
    np.testing.assert_array_equal(again.rows[:], side_by_side(files[5]))
    assert FileClips.of(clips) is clips
    single = FileClips.of([np.arange(4.0), np.arange(4.0) + 1])  # vectors are files of one clip
    np.testing.assert_array_equal(single.owners, [0, 1])
    np.testing.assert_array_equal(single.rows[:], [[0, 1, 2, 3], [1, 2, 3, 4]])


# --- the cost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "folds"), [(0, 5), (1, 5), (0, 2)])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_cost_is_chosen_as_a_plain_loop_over_held_out_files_would(
    seed: int, folds: int, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, labels = make_files(40, noise=2.0)
    arrays, y = [side_by_side(f) for f in files], np.array(labels)
    right = dict.fromkeys((1e-5, 1e-3, 1e-1), 0)
    groups = np.arange(40) // 2 if grouped else None
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(5, shuffle=True, random_state=seed)
    splits = list(splitter.split(y, y, groups))[:folds]
    for train, held_out in splits:
        clips = np.concatenate([arrays[k] for k in train])
        truth = np.repeat(y[train], [len(arrays[k]) for k in train])
        for cost in right:
            svm = sklearn_svm(clips, truth, cost)
            answers = sklearn_answers(svm, [arrays[k] for k in held_out])
            right[cost] += int((svm.classes_[answers.argmax(axis=1)] == y[held_out]).sum())
    expected = {cost: count / sum(len(held_out) for _, held_out in splits) for cost, count in right.items()}
    assert len(set(expected.values())) > 1
    monkeypatch.setattr("crisscross_zoo.evaluate.probe.SELECTION_TOLERANCE", SHARP)
    probe = LinearProbe(costs=(1e-1, 1e-5, 1e-3), tolerance=SHARP, n_splits=folds, seed=seed)
    probe.fit(files, labels, groups)
    assert probe.accuracies_ == pytest.approx(expected, abs=1e-12)
    assert probe.cost_ == max(expected, key=expected.__getitem__)
    # and the SVM is then trained on all files
    again = LinearProbe(costs=(probe.cost_,), tolerance=SHARP).fit(files, labels)
    np.testing.assert_array_equal(again.coef_, probe.coef_)


def test_of_equally_good_costs_the_lowest_is_taken() -> None:
    assert best({1.0: 0.5, 0.01: 0.75, 0.1: 0.75}) == 0.01
    files, labels = make_files(30, noise=0.01)
    probe = LinearProbe(costs=(1.0, 0.1)).fit(files, labels)
    assert probe.accuracies_ == {0.1: 1.0, 1.0: 1.0}
    assert probe.cost_ == 0.1


def test_groups_keep_copies_out_of_the_training_files() -> None:
    """Each file occurs five times; without groups, some of its copies are trained on while others are held out."""
    files, labels = make_files(15, noise=30.0, clips=1)
    copies, groups = [f for f in files for _ in range(5)], np.repeat(np.arange(15), 5)
    truth = np.repeat(labels, 5)
    costs = (1e-3, 1e-2)
    apart = LinearProbe(costs=costs).fit(copies, truth).accuracies_
    together = LinearProbe(costs=costs).fit(copies, truth, groups=groups).accuracies_
    assert max(together.values()) < max(apart.values()) - 0.1


@settings(max_examples=50)
@given(
    files=st.integers(8, 60), classes=st.integers(2, 4), groups=st.integers(4, 30), seed=st.integers(0, 2**31)
)
def test_groups_are_never_split(files: int, classes: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    own = rng.integers(0, groups, files)
    labels = own % classes  # the files of a group are of one class
    counts = [len(set(own[labels == k])) for k in set(labels)]
    if min(counts) < 2:
        with pytest.raises(ConfigError):
            list(held_out_folds(labels, own, seed=seed))
        return
    all_held_out: list[int] = []
    folds = list(held_out_folds(labels, [f"group {g}" for g in own], seed=seed))
    assert len(folds) == min(5, *counts)
    for train, held_out in folds:
        assert not set(own[train]) & set(own[held_out])
        assert sorted([*train, *held_out]) == list(range(files))
        assert list(train) == sorted(train)
        assert list(held_out) == sorted(held_out)
        all_held_out += list(held_out)
    assert sorted(all_held_out) == list(range(files))


def test_other_seeds_hold_out_other_files() -> None:
    labels = np.arange(40) % 2
    first, same, other = (
        [tuple(held_out) for _, held_out in held_out_folds(labels, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == same
    assert first != other
    for held_out in first:
        assert abs(np.sum(labels[list(held_out)]) - 4) <= 1  # similar class proportions


def test_accuracies_count_files_not_clips() -> None:
    files, labels = make_files(20, noise=1.0)
    y = np.unique(labels, return_inverse=True)[1]
    calls: list[tuple[int, int]] = []
    found = held_out_accuracies(FileClips.of(files), y, 3, (0.01,), on_fit=lambda *n: calls.append(n))
    assert calls == [(done, 5) for done in range(6)]
    assert found[0.01] * 20 == pytest.approx(round(found[0.01] * 20), abs=1e-9)
    assert 0.3 < found[0.01] <= 1


def test_parameters_may_be_numpys_as_grid_searches_pass_them() -> None:
    files, labels = make_files(12)
    probe = LinearProbe(
        np.logspace(-3, -2, 2),
        tolerance=np.float64(1e-3),
        n_splits=np.int64(2),
        seed=np.int64(1),  # type: ignore[arg-type]
    )
    expected = LinearProbe([1e-3, 1e-2], tolerance=1e-3, n_splits=2, seed=1).fit(files, labels)
    assert probe.fit(files, labels).accuracies_ == expected.accuracies_
    np.testing.assert_array_equal(probe.coef_, expected.coef_)


# --- errors ------------------------------------------------------------------------------------------------------


def test_files_and_labels_must_fit_together() -> None:
    files, labels = make_files(10)
    with pytest.raises(InputError, match="10 files, 9 labels of 3 classes; pass a label for each file"):
        LinearProbe().fit(files, labels[:9])
    with pytest.raises(InputError, match=r"10 files, 10 labels of 1 class; .*two classes or more"):
        LinearProbe().fit(files, ["cat"] * 10)


def test_files_must_have_features_of_the_same_length() -> None:
    with pytest.raises(InputError, match=r"files with features of lengths \[3, 4\]; pass one file or more"):
        LinearProbe().fit([np.ones((2, 3)), np.ones((2, 4))], [0, 1])
    with pytest.raises(InputError, match=r"lengths \[\]"):
        LinearProbe().fit([], [])
    with pytest.raises(InputError, match="a file has no clips; leave it out"):
        LinearProbe().fit([np.ones((2, 3)), np.ones((0, 3))], [0, 1])
    uneven = Features(
        video=np.ones((2, 3), np.float32), video_windows=windows(2),
        audio=np.ones((3, 3), np.float32), audio_windows=windows(3),
    )  # fmt: skip
    with pytest.raises(
        InputError, match="different numbers of video and audio rows; extract both with clips=N"
    ):
        LinearProbe().fit([uneven, uneven], [0, 1])
    with pytest.raises(InputError, match="different numbers of video and audio rows"):
        LinearProbe().fit([Features(), Features()], [0, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_in_any_form(value: float) -> None:
    files, labels = make_files(6, clips=2)
    arrays = [side_by_side(f) for f in files]
    probe = LinearProbe(costs=(0.01,)).fit(arrays, labels)
    arrays[4][1, 2] = value
    for use in (lambda: LinearProbe().fit(arrays, labels), lambda: probe.predict(arrays)):
        with pytest.raises(InputError, match="file 4 has NaN or infinity in its features; leave it out"):
            use()
    with pytest.raises(InputError, match=r"NaN|infinity"):
        probe.predict(arrays[4])


def test_labels_are_classes() -> None:
    files, _ = make_files(6)
    with pytest.raises(InputError, match="Unknown label type: continuous"):
        LinearProbe().fit(files, np.linspace(0, 1, 6))
    with pytest.raises(InputError, match="requires y to be passed, but the target y is None"):
        LinearProbe().fit(files, None)  # type: ignore[arg-type]


def test_nothing_is_chosen_if_a_class_has_only_one_file() -> None:
    files, labels = make_files(7)
    labels[3:] = ["cat", "dog", "cat", "dog"]
    with pytest.raises(ConfigError, match="a class has only one training file or group; pass one cost"):
        LinearProbe(costs=(0.1, 1.0)).fit(files, labels)
    assert LinearProbe(costs=(0.1,)).fit(files, labels).cost_ == 0.1
    with pytest.raises(ConfigError, match="only one training file or group"):
        LinearProbe(costs=(0.1, 1.0)).fit(files[:6], ["cat", "dog"] * 3, groups=["a", "b"] * 3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"costs": [-1.0]}, "costs=-1.0 is out of range; pass a number, 1e-12 to 1e+12"),
        ({"costs": [1.0, 0]}, "costs=0 is out of range"),
        ({"costs": []}, "costs is empty; pass one value or more"),
        ({"costs": 0.1}, "costs=0.1 is not a list; pass a list"),
        ({"costs": ["0.1"]}, "costs='0.1' is not a number"),
        ({"tolerance": -1}, "tolerance=-1 is out of range; pass a number, 1e-09 to 1"),
        ({"tolerance": float("nan")}, "tolerance=nan is out of range"),
        ({"n_splits": 0}, "n_splits=0 is out of range; pass a whole number, at least 1"),
        ({"n_splits": 2.0}, "n_splits=2.0 is not a whole number"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seed": None}, "seed=None is not a whole number"),
        ({"device": "xyz"}, "device='xyz' cannot be used "),
    ],
)
def test_parameters_are_checked_in_fit(parameters: dict[str, Any], message: str) -> None:
    files, labels = make_files(6)
    probe = LinearProbe(**parameters)  # not here, as in scikit-learn
    with pytest.raises(ConfigError, match=re.escape(message)):
        probe.fit(files, labels)


def test_groups_and_labels_that_do_not_fit_are_refused() -> None:
    files, labels = make_files(6)
    with pytest.raises(InputError, match=r"6 files, groups of shape \(5,\); pass a group for each file"):
        LinearProbe().fit(files, labels, groups=[0, 1, 2, 3, 4])
    with pytest.raises(InputError, match=r"6 files, groups of shape \(1,\); pass a group for each file"):
        LinearProbe(costs=(0.1,)).fit(files, labels, groups=[0])
    with pytest.raises(
        InputError,
        match=r"labels are of several types \(NoneType, str\); pass labels of one type, without None$",
    ):
        LinearProbe().fit(files, [*labels[:5], None])
    array = np.concatenate([side_by_side(file)[:1] for file in files])
    with pytest.raises(
        InputError,
        match=r"labels are of several types \(NoneType, str\); pass labels of one type, without None$",
    ):
        LinearProbe().fit(array, [*labels[:5], None])
    with pytest.raises(InputError, match=r"the groups are of several types \(int, str\)"):
        LinearProbe().fit(files, labels, groups=np.array([0, 1, 2, 3, 4, "a"], object))


def test_an_unknown_normalisation_is_refused() -> None:
    files, labels = make_files(6)
    with pytest.raises(ConfigError, match="normalize='l3' is not known; choose from none, l2"):
        LinearProbe(normalize="l3").fit(files, labels)  # type: ignore[arg-type]


def test_a_fit_that_does_not_converge_warns() -> None:
    rng, labels = np.random.default_rng(0), np.arange(200) % 5
    x = (rng.normal(size=(5, 20))[labels] + rng.normal(size=(200, 20))) * 1e8
    with pytest.warns(ConvergenceWarning, match="cost 1 did not converge to the tolerance 0.0001"):
        LinearProbe((1.0,)).fit(x.astype(np.float32), labels)
