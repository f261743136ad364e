"""The SVM in blocks has the same minimum as scikit-learn's LinearSVC, computed block by block."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from crisscross_zoo.errors import InputError
from crisscross_zoo.evaluate import svm
from crisscross_zoo.evaluate.protocols import COSTS
from crisscross_zoo.evaluate.rows import Rows
from crisscross_zoo.evaluate.svm import Hyperplanes, fit_svm

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


def make_problem(n: int, dims: int, classes: int, *, seed: int = 0) -> tuple[npt.NDArray[np.float32], Ints]:
    """Features like those of a pooled ReLU, non-negative and not centred, of overlapping classes; labels in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = rng.standard_normal((classes, dims))
    features = np.maximum(centres[labels] + 2 * rng.standard_normal((n, dims)) + 1, 0)
    return features.astype(np.float32), labels


def fit_one(
    features: Floats, labels: Ints, classes: int, cost: float, tolerance: float = 1e-4
) -> Hyperplanes:
    (machine,) = fit_svm(Rows.of(features), labels, classes, [cost], tolerance=tolerance)
    return machine


def sklearn_svm(features: Floats, labels: Ints, cost: float) -> LinearSVC:
    """Return scikit-learn's minimum, with a smaller tolerance than any here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it stops at rounding, above its tolerance
        return LinearSVC(C=cost, dual=False, tol=1e-8, max_iter=100_000).fit(features.astype(float), labels)


def distance(ours: Floats, theirs: Floats) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def gradients(features: Floats, labels: Ints, machine: Hyperplanes) -> tuple[Floats, Floats]:
    """Norms of each class's gradient, and of that at zero weights, from the definition in float64."""
    found, at_zero, _ = definition(features, labels, machine)
    return found, at_zero


def definition(features: Floats, labels: Ints, machine: Hyperplanes) -> tuple[Floats, Floats, Floats]:
    """The gradients' norms, those at zero weights, and the objectives of the classes, in float64."""
    x = np.column_stack([features.astype(np.float64), np.ones(len(features))])
    w = np.vstack([machine.weights, machine.bias]).astype(np.float64)
    y = np.where(labels[:, None] == np.arange(w.shape[1]), 1.0, -1.0)
    hinge = np.maximum(0, 1 - y * (x @ w))
    found = w - 2 * machine.cost * x.T @ (hinge * y)
    at_zero = 2 * machine.cost * x.T @ y
    objectives = (w**2).sum(0) / 2 + machine.cost * (hinge**2).sum(0)
    return np.linalg.norm(found, axis=0), np.linalg.norm(at_zero, axis=0), objectives


@pytest.mark.parametrize(
    ("n", "dims", "costs"),
    [(300, 20, COSTS), (120, 200, COSTS[:-1])],  # more rows than dimensions, and fewer
    ids=["tall", "wide"],
)
def test_weights_bias_and_decision_values_are_those_of_linear_svc(
    n: int, dims: int, costs: tuple[float, ...]
) -> None:
    features, labels = make_problem(n, dims, 5)
    machines = list(fit_svm(Rows.of(features), labels, 5, costs, tolerance=1e-6))
    assert [m.cost for m in machines] == list(costs)
    for machine in machines:
        theirs = sklearn_svm(features, labels, machine.cost)
        values = machine.scores(Rows.of(features))
        assert (machine.weights.dtype, machine.bias.dtype, values.dtype) == (np.float32,) * 3
        assert distance(values, theirs.decision_function(features.astype(float))) < 1e-4
        assert distance(machine.weights.T, theirs.coef_) < 3e-4
        assert distance(machine.bias, theirs.intercept_) < 3e-4


def test_the_default_tolerance_predicts_as_linear_svc_does() -> None:
    features, labels = make_problem(300, 20, 5)
    test, _ = make_problem(200, 20, 5, seed=1)
    for machine in fit_svm(Rows.of(features), labels, 5, COSTS):
        theirs = sklearn_svm(features, labels, machine.cost).decision_function(test.astype(float))
        ours = machine.scores(Rows.of(test))
        assert distance(ours, theirs) < 3e-3
        clear = np.diff(np.sort(theirs, axis=1)[:, -2:], axis=1)[:, 0] > 3e-3 * np.abs(theirs).max()
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(ours.argmax(axis=1)[clear], theirs.argmax(axis=1)[clear])


def test_two_classes_are_two_opposite_planes() -> None:
    features, labels = make_problem(150, 12, 2)
    machine = fit_one(features, labels, 2, 0.01, tolerance=1e-6)
    np.testing.assert_allclose(machine.weights[:, 0], -machine.weights[:, 1], atol=1e-6)
    theirs = sklearn_svm(features, labels, 0.01)  # one plane, of the second class
    assert distance(machine.weights[:, 1], theirs.coef_[0]) < 1e-4
    assert distance(machine.bias[1:], theirs.intercept_) < 1e-4


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("held", [0, 1 << 28], ids=["read", "held"])
def test_the_size_of_a_block_changes_nothing_but_rounding(
    size: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm, "HELD_VALUES", held)
    features, labels = make_problem(150, 15, 3)
    whole = fit_one(features, labels, 3, 0.005, tolerance=1e-6)
    monkeypatch.setattr(Rows.blocks, "__defaults__", (size,))
    monkeypatch.setattr(svm, "block_rows", lambda _: size)
    assert [len(block) for _, block in Rows.of(features).blocks()][:2] == [size, size]
    small_blocks = fit_one(features, labels, 3, 0.005, tolerance=1e-6)
    assert distance(small_blocks.weights, whole.weights) < 1e-4
    assert distance(small_blocks.scores(Rows.of(features)), whole.scores(Rows.of(features))) < 1e-5


def test_costs_come_in_ascending_order_and_a_warm_start_ends_where_a_cold_one_does() -> None:
    features, labels = make_problem(200, 30, 4)
    passes: list[int] = []
    warm = list(
        fit_svm(Rows.of(features), labels, 4, (1.0, 1e-4, 1e-2), tolerance=1e-6, on_pass=passes.append)
    )
    assert [m.cost for m in warm] == [1e-4, 1e-2, 1.0]
    assert passes == list(range(1, warm[-1].passes + 1))
    for machine in warm:
        cold = fit_one(features, labels, 4, machine.cost, tolerance=1e-6)
        assert distance(machine.scores(Rows.of(features)), cold.scores(Rows.of(features))) < 1e-4


def test_a_cost_is_solved_when_the_iterator_reaches_it() -> None:
    features, labels = make_problem(60, 5, 3)
    machines = fit_svm(Rows.of(features), labels, 3, (1e-3, 1.0))
    first = next(machines)
    weights = first.weights.copy()
    second = next(machines)
    assert second.passes > first.passes
    np.testing.assert_array_equal(first.weights, weights)  # the earlier SVM is unchanged
    assert distance(second.weights, weights) > 0.1


def test_float64_solves_what_float32_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = make_problem(150, 15, 3)
    features += 1000  # rounding errors of the products exceed the differences between classes
    monkeypatch.setattr(svm, "_ROUNDING", np.inf)
    assert fit_one(features, labels, 3, 1.0, tolerance=1e-9).solved
    monkeypatch.setattr(svm, "_SINGLE_STEPS", svm.NEWTON_STEPS)
    assert not fit_one(features, labels, 3, 1.0, tolerance=1e-9).solved


def test_a_class_without_rows_is_never_predicted_and_does_not_change_the_others() -> None:
    features, labels = make_problem(120, 10, 4)
    four = fit_one(features, labels, 4, 0.01, tolerance=1e-6)
    five = fit_one(features, labels, 5, 0.01, tolerance=1e-6)
    assert distance(five.weights[:, :4], four.weights) < 1e-5
    values = five.scores(Rows.of(features))
    assert set(values.argmax(axis=1)) == {0, 1, 2, 3}
    assert values[:, 4].max() < 0
    found, at_zero = gradients(features, labels, five)
    assert found[4] < 2e-6 * at_zero[4]


def test_constant_columns_have_the_weights_of_linear_svc() -> None:
    features, labels = make_problem(120, 10, 3)
    features[:, 2], features[:, 7] = 0, 3
    machine = fit_one(features, labels, 3, 0.01, tolerance=1e-6)
    theirs = sklearn_svm(features, labels, 0.01)
    assert np.abs(machine.weights[2]).max() < 1e-7 * np.abs(machine.weights).max()
    assert distance(machine.weights.T, theirs.coef_) < 1e-4
    assert distance(machine.weights[7], 3 * theirs.intercept_) < 1e-4  # three times a column of ones


def test_rows_that_are_all_the_same_give_the_closed_form() -> None:
    """With n rows x, m of the class, |w|^2/2 + C (m (1 - s)^2 + (n - m) (1 + s)^2) is minimal at w = a (x, 1)."""
    x, n, m, cost = np.array([2.0, 1.0], np.float32), 10, 3, 0.05
    labels = np.array([0] * m + [1] * (n - m))
    machine = fit_one(np.tile(x, (n, 1)), labels, 2, cost, tolerance=1e-7)
    square = float(x @ x) + 1
    a = 2 * cost * (m - (n - m)) / (1 + 2 * cost * n * square)
    np.testing.assert_allclose(machine.weights[:, 0], a * x, rtol=1e-5)
    np.testing.assert_allclose(machine.bias, [a, -a], rtol=1e-5)


def test_rows_of_several_matrices_are_solved_like_one_matrix() -> None:
    features, labels = make_problem(90, 12, 3)
    index = np.random.default_rng(0).permutation(90)
    rows = Rows([(features[:, :5], index), (features[:, 5:], index)], lambda block: block / 2)
    (machine,) = fit_svm(rows, labels[index], 3, [0.04], tolerance=1e-6)
    theirs = sklearn_svm(features / 2, labels, 0.04)
    assert distance(machine.weights.T, theirs.coef_) < 1e-4
    assert distance(machine.bias, theirs.intercept_) < 1e-4


@settings(max_examples=60)
@given(
    n=st.integers(2, 80),
    dims=st.integers(1, 40),
    classes=st.integers(2, 6),
    cost=st.floats(-5, 0).map(lambda power: 10**power),
    offset=st.floats(0, 3),
    scale=st.floats(-1, 1).map(lambda power: 10**power),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_gradient_is_within_the_tolerance(
    n: int, dims: int, classes: int, cost: float, offset: float, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = (scale * np.maximum(rng.standard_normal((n, dims)) + offset, 0)).astype(np.float32)
    labels = rng.integers(0, classes, n)
    machine = fit_one(features, labels, classes, cost)
    assert machine.gradient <= 1e-4
    found, at_zero = gradients(features, labels, machine)
    assert (found <= 1.1e-4 * at_zero + 1e-9).all()  # a tenth for rounding to float32


@pytest.mark.parametrize("take", [svm._cg_step, svm._exact_step])
def test_a_class_takes_the_same_step_alone_and_with_others(take: Callable[..., Any]) -> None:
    features, labels = make_problem(300, 12, 4)
    problem = svm._Problem(Rows.of(features), labels, 4, torch.device("cpu"), None)
    problem.dtype = torch.float64
    w, active = torch.zeros(13, 4, dtype=torch.float64), torch.empty(300, 4, dtype=torch.bool)
    w[-1] = torch.tensor([-1, -0.5, 0.5, 1])  # each class is done in another step
    gradient, _ = svm._gradient(problem, 0.1, w, torch.zeros(300, 4, dtype=torch.float64), active)
    together, scores = take(problem, 0.1, active, gradient, torch.arange(4))
    for k in range(4):
        step, step_scores = take(problem, 0.1, active, gradient, torch.tensor([k]))
        torch.testing.assert_close(step[:, k], together[:, k], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(step_scores[:, k], scores[:, k], rtol=1e-8, atol=1e-10)
        others = [other for other in range(4) if other != k]
        assert not step[:, others].any()
        assert not step_scores[:, others].any()


@pytest.mark.parametrize("held", [0, 1 << 28])
@pytest.mark.parametrize(
    ("gram", "taken", "other"),
    [
        (0, "_kernel_step", "_column_work"),
        (1 << 28, "_kernel_step", "_column_work"),
        (1 << 28, "_column_step", "_kernel_work"),
    ],
)
def test_the_exact_step_is_the_hessians(
    monkeypatch: pytest.MonkeyPatch, gram: int, taken: str, other: str, held: int
) -> None:
    counted = mock.Mock(wraps=getattr(svm, taken))
    monkeypatch.setattr(svm, taken, counted)
    monkeypatch.setattr(svm, "GRAM_VALUES", gram)
    monkeypatch.setattr(svm, "HELD_VALUES", held)
    monkeypatch.setattr(svm, other, lambda problem, m: float("inf"))
    monkeypatch.setattr(svm, "_COLUMNS", 7)
    monkeypatch.setattr(svm, "block_rows", lambda dims: 16)
    features, labels = make_problem(80, 30, 3)
    problem = svm._Problem(Rows.of(features), labels, 3, torch.device("cpu"), None)
    problem.dtype = torch.float64
    active = torch.from_numpy(np.random.default_rng(0).random((80, 3)) < 0.5)
    gradient = torch.from_numpy(np.random.default_rng(1).standard_normal((31, 3)))
    step, scores = svm._exact_step(problem, 0.1, active, gradient, torch.arange(3))
    assert counted.call_count == 3
    x = np.column_stack([features.astype(float), np.ones(80)])
    for k in range(3):
        a = x[active[:, k].numpy()]
        expected = -np.linalg.solve(np.eye(31) + 0.2 * a.T @ a, gradient[:, k].numpy())
        assert distance(step[:, k].numpy(), expected) < 1e-10
        assert distance(scores[:, k].numpy(), x @ step[:, k].numpy()) < 1e-10


@pytest.mark.parametrize("held", [0, 200, 1 << 28])
def test_how_much_is_held_in_memory_changes_nothing_but_rounding(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    features, labels = make_problem(150, 15, 3)
    monkeypatch.setattr(svm, "HELD_VALUES", held)
    for machine in fit_svm(Rows.of(features), labels, 3, (1e-3, 1.0), tolerance=1e-6):
        assert machine.solved
        theirs = sklearn_svm(features, labels, machine.cost)
        assert distance(machine.weights.T, theirs.coef_) < 3e-4


@pytest.mark.parametrize("mean", [6, 30])
@pytest.mark.parametrize(
    ("gram", "steps", "leading"),
    [(0, 200, 256), (0, 10, 256), (0, 200, 8), (1 << 28, 200, 256), (1 << 16, 200, 256)],
    ids=["steps", "few steps", "few eigenvectors", "exact", "columns"],
)
def test_features_as_badly_scaled_as_real_ones_are_solved_for_any_cost(
    monkeypatch: pytest.MonkeyPatch, gram: int, steps: int, leading: int, mean: float
) -> None:
    """A mean far from zero and a decaying spectrum: the largest eigenvalue is 10^7 times the smallest."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 6
    latent = rng.standard_normal((6, 60))[labels] / 2 + rng.standard_normal((600, 60))
    features = (latent * np.arange(1, 61) ** -1.5) @ rng.standard_normal((60, 120)) + mean
    features += 0.01 * rng.standard_normal(features.shape)
    features = features.astype(np.float32)
    costs = (*COSTS, 100.0)
    nearest = list(fit_svm(Rows.of(features), labels, 6, costs, tolerance=1e-8))
    monkeypatch.setattr(svm, "GRAM_VALUES", gram)
    monkeypatch.setattr(svm, "CG_STEPS", steps)
    monkeypatch.setattr(svm, "LEADING", leading)
    for machine, nearer in zip(fit_svm(Rows.of(features), labels, 6, costs), nearest, strict=True):
        assert machine.solved
        found, at_zero, objectives = definition(features, labels, machine)
        assert (found <= 1.1e-4 * at_zero).all()
        assert (objectives <= (1 + 1e-4) * definition(features, labels, nearer)[2]).all()


def test_rows_that_do_not_fit_start_at_the_solution_of_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = make_problem(4000, 20, 4)
    monkeypatch.setattr(svm, "GRAM_VALUES", 0)
    passes = {}
    for held in (1 << 28, 2000 * 20):
        monkeypatch.setattr(svm, "HELD_VALUES", held)
        passes[held] = fit_one(features, labels, 4, 1e-4).passes
    assert passes[2000 * 20] < passes[1 << 28]


def test_a_class_whose_minimum_is_zero_is_solved_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = make_problem(40, 10, 2)
    monkeypatch.setattr(svm, "HELD_VALUES", 60)
    labels = np.repeat([0, 1], 40)  # every row has both labels
    assert fit_one(np.concatenate([features, features]), labels, 2, 1.0).solved


def test_a_solved_class_costs_no_products(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = make_problem(400, 10, 3)
    columns: list[int] = []
    times = svm._times

    def counted(block: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        columns.append(w.shape[1])
        return times(block, w)

    monkeypatch.setattr(svm, "_times", counted)
    monkeypatch.setattr(svm, "GRAM_VALUES", 0)
    fit_one(features, labels, 3, 1.0, tolerance=1e-6)
    assert {1, 2, 3} == set(columns) - {11}  # 11: the eigenvectors


def test_a_step_that_float32_cannot_compute_is_computed_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = make_problem(60, 8, 3)
    expected = fit_one(x, labels, 3, 0.1)
    original, dtypes = svm._newton_step, []

    def overflows(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        step, scores = original(*args)
        dtypes.append(step.dtype)
        if step.dtype == torch.float32:
            step[0, 1] = torch.nan
        return step, scores

    monkeypatch.setattr(svm, "_newton_step", overflows)
    found = fit_one(x, labels, 3, 0.1)
    assert dtypes[0] == torch.float32
    assert set(dtypes[1:]) == {torch.float64}
    assert found.solved
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("scale", [1e18, 1e19, 1e30])
def test_features_whose_products_overflow_are_an_error(scale: float) -> None:
    x, labels = make_problem(60, 8, 3)
    with pytest.raises(InputError, match="too large: their products overflow; scale them down"):
        fit_one(x * np.float32(scale), labels, 3, 0.1)


def test_a_cost_near_zero_gives_finite_gradients() -> None:
    features = np.ones((4, 2), np.float32)
    machine = fit_one(features, np.array([0, 1, 0, 1]), 2, 1e-9)
    assert machine.solved
    assert np.isfinite(machine.gradient)
