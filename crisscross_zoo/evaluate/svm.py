"""Linear support vector machines on more rows than fit in memory: one against all, squared hinge, in blocks.

For each class k, with y = 1 for rows of the class and -1 for other rows, and with a constant 1 appended to every row,
whose weight is the bias,

    min over w of  |w|^2 / 2 + C sum_i max(0, 1 - y_i w.x_i)^2,

which is what scikit-learn's ``LinearSVC`` minimises with its defaults. All classes are solved at once by the modified
finite Newton method (Keerthi and DeCoste, JMLR 2005): a step, and an exact line search along it. Pooled activations are
badly scaled: the largest eigenvalue of X'X is 10^7 times the smallest. The conjugate gradients that compute a step are
therefore preconditioned with the leading eigenvectors of X'X, which are computed once for all costs and classes. If few
rows are active (have a nonzero loss), as with a high C, or few classes are left, the step is computed exactly, if that
is less work: from the products of a class's active rows with each other (Chapelle, Neural Computation 2007), or, if
there are more of them than columns, from the products of their columns. If rounding in float32 would matter, float64 is
used.

Every product with the rows is a matrix product over blocks of them, on the CPU or a GPU. If the rows do not fit in
memory, the first cost starts at the solution of an evenly spaced subset that does. Memory holds at most 1 GiB of
the rows (:data:`HELD_VALUES`; all rows if they are fewer), 1 GiB of products of rows with each other
(:data:`GRAM_VALUES`; 2 in float64), as much again to solve one class exactly, and rows x classes values a few times
over.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crisscross_zoo.errors import InputError
from crisscross_zoo.evaluate.rows import Rows, block_rows
from crisscross_zoo.numerics import exact_float32, one_thread

NEWTON_STEPS = 50
CG_STEPS = 200
"""Maximum number of Newton steps, and of conjugate gradient steps in each."""

HELD_VALUES = 1 << 28
"""Maximum number of row values in memory (1 GiB). If there are more, a subset of evenly spaced rows is held, from which
the eigenvectors are computed."""

GRAM_VALUES = 1 << 28
"""Maximum number of products of rows with each other in memory (those of 16,384 rows: 1 GiB, in float64 2). With more
rows, only the products of active rows are computed. Products of columns are computed for at most 8,192 columns."""

LEADING = 256
"""Eigenvectors of X'X that precondition conjugate gradients."""

_ROUNDING = 2.0
"""Float64 is used if a rounding error in float32, times the largest eigenvalue of the Hessian, may be above this."""

_COLUMNS = 4096
"""Number of columns that are converted to float64 at once."""

_SINGLE_STEPS = 25
"""Newton steps in float32, after which float64 is used in any case."""

SMALL_PROBLEM = 1 << 28
"""Rows x columns x classes below which one thread is faster than several, which would mostly wait for each other."""

_SUBSPACE_STEPS = 3
_LINE_STEPS = 20
_CG_TOLERANCE = 0.3
"""The residual, relative to the gradient, at which conjugate gradients stop (in the preconditioner's norm)."""

_START_TOLERANCE = 1e-2
"""Tolerance of the SVM of the rows in memory at which the first cost starts, if they are not all rows."""

_MARGIN = 4.0
"""A class may be as far above the minimum as this number of the decreases that its last step predicted."""

_WORTH_STEPS = 30
"""An exact step is taken if it is less work than this number of conjugate gradient steps, or than as many as a Newton
step of this cost has taken, if they are more."""

_FEW_CLASSES, _FEW_CLASSES_READ = 16, 64
"""Products with fewer vectors take as long as products with this number, because reading the rows dominates: rows in
memory, and in a file."""

_FACTOR_WORK = 1.5
"""Time of a Cholesky factorisation in float64 per m^3, in units of one operation of a float32 matrix product."""

_GRAM_STEPS = 10
"""Number of steps for which the products of all rows with each other are expected to be used."""


@dataclass(frozen=True)
class Hyperplanes:
    """One hyperplane for each class.

    Attributes:
        weights: float32, (D, K).
        bias: float32, (K,).
        cost: C.
        gradient: Largest norm of a class's gradient, relative to that at zero weights.
        solved: Whether every class converged to the tolerance.
        passes: Number of passes over all rows, without those over a subset at the start.
    """

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    cost: float
    gradient: float
    solved: bool
    passes: int

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return decision values, float32 (n, K), computed in float64 so that they hardly depend on the other rows."""
        scores = np.empty((len(rows), len(self.bias)), np.float32)
        weights = self.weights.astype(np.float64)
        for where, block in rows.blocks(reuse=True):
            scores[where] = block.astype(np.float64) @ weights + self.bias
        return scores


def fit_svm(
    rows: Rows,
    labels: npt.NDArray[np.int64],
    classes: int,
    costs: Sequence[float],
    *,
    tolerance: float = 1e-4,
    device: torch.device | str = "cpu",
    on_pass: Callable[[int], None] | None = None,
) -> Iterator[Hyperplanes]:
    """Fit one SVM for each cost, in ascending order; each starts from the solution of the one before.

    The first starts at zero, or, if the rows do not fit in memory, at the solution of a subset that does.

    Args:
        rows: (n, D), finite.
        labels: (n,), from 0 to ``classes - 1``.
        classes: K, at least 2.
        costs: Values of C, above 0.
        tolerance: A class has converged when two values are at most this: the norm of its gradient g relative to that
            at zero weights, and its distance above the minimum relative to the objective. The distance is estimated by
            four times the decrease that the last Newton step predicted (the step is not exact), and bounded by
            |g|^2 / 2; the smaller value counts. On badly scaled features whose steps are all by conjugate gradients
            the true distance was up to six times as large as the tolerance.
        device: Where the products are computed; on MPS, which lacks float64, the CPU is used.
        on_pass: Called after each pass over all rows with the number of passes.

    Yields:
        The SVM of each cost.

    Raises:
        InputError: the products of the features overflow float32.
    """
    device = torch.device("cpu" if torch.device(device).type == "mps" else device)
    start = torch.zeros((rows.shape[1] + 1, classes), dtype=torch.float32, device=device)
    held, ordered = _held_rows(rows), sorted(set(costs))
    if len(held) < len(rows) and ordered:
        cost = ordered[0] * len(rows) / len(held)
        subset = rows.take(held)
        (few,) = fit_svm(subset, labels[held], classes, [cost], tolerance=_START_TOLERANCE, device=device)
        start = torch.from_numpy(np.vstack([few.weights, few.bias])).to(device)
    problem = _Problem(rows, labels, classes, device, on_pass)
    scores = torch.zeros((len(rows), classes), dtype=torch.float32)
    small = len(rows) * rows.shape[1] * classes < SMALL_PROBLEM and problem.device.type == "cpu"
    for cost in ordered:
        with exact_float32(), one_thread() if small else contextlib.nullcontext():
            start, scores, gradient, solved = _minimise(problem, cost, start, scores, tolerance)
        values = start.float().cpu().numpy()
        yield Hyperplanes(values[:-1], values[-1], cost, gradient, solved, problem.passes)


def _held_rows(rows: Rows) -> npt.NDArray[np.int64]:
    """Return the indices of the rows that are held in memory, evenly spaced."""
    count = min(len(rows), max(1, HELD_VALUES // max(1, rows.shape[1])))
    return np.linspace(0, len(rows) - 1, count).round().astype(np.int64)


class _Problem:
    """The rows, with a 1 appended to each, and their products with vectors.

    Attributes:
        held: The rows in memory, evenly spaced, as many as :data:`HELD_VALUES` allows, (m, D).
        dtype: Dtype of the products.
    """

    def __init__(
        self,
        rows: Rows,
        labels: npt.NDArray[np.int64],
        classes: int,
        device: torch.device,
        on_pass: Callable[[int], None] | None,
    ) -> None:
        self.rows, self.classes, self.device, self.on_pass = rows, classes, device, on_pass
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, np.int64))
        self.passes, self.dtype = 0, torch.float32
        self._gram: Tensor | None = None
        indices = _held_rows(rows)
        self.held = torch.empty((len(indices), rows.shape[1]), dtype=torch.float32, device=device)
        for first in range(0, len(indices), size := block_rows(rows.shape[1])):
            some = slice(first, first + size)
            self.held[some] = torch.from_numpy(rows[indices[some]])

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for where, block in self._held_blocks() if self.all_held else self._read_blocks():
            yield where, block.to(self.dtype)
        self.passes += 1
        if self.on_pass is not None:
            self.on_pass(self.passes)

    @property
    def factor(self) -> int:
        """Time of a product, in units of one in float32."""
        return 2 if self.dtype == torch.float64 else 1

    @property
    def all_held(self) -> bool:
        return len(self.held) == len(self.rows)

    def _read_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for where, block in self.rows.blocks(reuse=True):
            yield where, torch.from_numpy(block).to(self.device)

    def _held_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        size = block_rows(self.rows.shape[1])
        for first in range(0, len(self.held), size):
            where = slice(first, first + size)
            yield where, self.held[where]

    @functools.cached_property
    def at_zero(self) -> Tensor:
        """Norm of each class's gradient at zero weights for C = 1/2, |X'y|, (K,); for another C, multiply by 2C."""
        gradient = torch.zeros(
            (self.rows.shape[1] + 1, self.classes), dtype=torch.float32, device=self.device
        )
        for where, block in self.blocks():
            _add_back(gradient, block, self.signs(where, block.new_empty(len(block), self.classes)), 1.0)
        norm: Tensor = gradient.norm(dim=0)
        _check_overflow(norm)
        return norm

    @functools.cached_property
    def leading(self) -> tuple[Tensor, Tensor]:
        """The leading eigenvectors of X'X, (D + 1, r), and its eigenvalues, ascending, by subspace iteration."""
        size = self.rows.shape[1] + 1
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn((size, min(LEADING, size, len(self.held))), generator=generator).to(self.device)
        for _ in range(_SUBSPACE_STEPS):
            basis = torch.linalg.qr(basis.double())[0].float()
            products = torch.zeros_like(basis)
            for _, block in self._held_blocks():
                _add_back(products, block, _times(block, basis), len(self.rows) / len(self.held))
            projected, rotated, basis = basis.T @ products, basis, products
        _check_overflow(projected)
        values, vectors = torch.linalg.eigh((projected + projected.T).double() / 2)
        return torch.linalg.qr(rotated.double() @ vectors)[0], values.clamp_min(0)

    def gram(self) -> Tensor:
        """Return the products of the rows with each other, (n, n), computed once in each dtype."""
        if not self.has_gram:
            self._gram = None  # of the other dtype
            gram = self.held.new_ones((len(self.held), len(self.held)), dtype=self.dtype)
            for where, block in self._held_blocks():
                for first in range(0, block.shape[1], _COLUMNS):
                    columns = slice(first, first + _COLUMNS)
                    others = self.held[: where.stop, columns].to(self.dtype)
                    gram[where, : where.stop].addmm_(block[:, columns].to(self.dtype), others.T)
                gram[: where.start, where] = gram[where, : where.start].T
            self._gram = gram
        assert self._gram is not None
        return self._gram

    @property
    def has_gram(self) -> bool:
        return self._gram is not None and self._gram.dtype == self.dtype

    def take(self, indices: Tensor) -> Tensor:
        """Return some rows, float32 (m, D)."""
        if self.all_held:
            return self.held[indices]
        return torch.from_numpy(self.rows[indices.cpu().numpy()]).to(self.device)

    def kernel(self, indices: Tensor, rows: Tensor) -> Tensor:
        """Return the products of the rows at ``indices`` with each other, float64 (m, m), computed in ``dtype``."""
        if self.gram_fits:
            return self.gram()[indices[:, None], indices].double()
        kernel = rows.new_ones((len(rows), len(rows)), dtype=self.dtype)
        for columns in self.columns():
            some = rows[:, columns].to(self.dtype)
            kernel.addmm_(some, some.T)
        return kernel.double()

    def column_products(self, indices: Tensor) -> Tensor:
        """Return the products of the columns of some rows with each other, float64, on and below the diagonal."""
        size = self.rows.shape[1] + 1
        products = torch.zeros((size, size), dtype=self.dtype, device=self.device)
        for first in range(0, len(indices), count := block_rows(size)):
            rows = self.take(indices[first : first + count])
            block = torch.cat([rows, rows.new_ones((len(rows), 1))], dim=1).to(self.dtype)
            for columns in self.columns(size):
                products[columns, : columns.stop].addmm_(block[:, columns].T, block[:, : columns.stop])
        return products.double()

    def columns(self, size: int | None = None) -> Iterator[slice]:
        """Yield slices of :data:`_COLUMNS` columns (default: of all but the appended one)."""
        size = size or self.rows.shape[1]
        for first in range(0, size, _COLUMNS):
            yield slice(first, min(first + _COLUMNS, size))

    @property
    def gram_fits(self) -> bool:
        return self.all_held and len(self.rows) ** 2 <= GRAM_VALUES

    def signs(self, where: slice, like: Tensor) -> Tensor:
        """Return y of a block, (n, K): 1 and -1."""
        signs = torch.full_like(like, -1.0)
        return signs.scatter_(1, self.labels[where].to(like.device)[:, None], 1.0)


def _check_overflow(products: Tensor) -> None:
    if not bool(products.isfinite().all()):
        raise InputError("the features are too large: their products overflow", remedy="scale them down")


def _times(block: Tensor, w: Tensor) -> Tensor:
    """Return the block, with a 1 appended to each row, times w.

    The product of the transposes is up to 15 times as fast in MKL.
    """
    return torch.addmm(w[-1, :, None], w[:-1].T, block.T).T


def _add_back(to: Tensor, block: Tensor, s: Tensor, factor: float) -> None:
    """Add ``factor`` times the rows, transposed, times ``s``."""
    to[:-1].add_((s.T @ block).T, alpha=factor)
    to[-1].add_(s.sum(0), alpha=factor)


def _minimise(
    problem: _Problem, cost: float, w: Tensor, scores: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float, bool]:
    """Minimise the objective, starting from ``w`` with its scores ``scores``.

    Returns:
        The weights and the scores of the minimum, the largest relative gradient, and whether every class converged.
    """
    largest = float(problem.at_zero.max()) ** 2 / len(scores)  # of X'X: at least |X'y|^2 / |y|^2
    rounding = 2 * cost * largest * torch.finfo(torch.float32).eps
    if rounding > _ROUNDING:  # once it is needed, higher costs need it too
        problem.dtype = torch.float64
    w, scores = w.to(problem.dtype, copy=True), scores.to(problem.dtype, copy=True)
    w[:, problem.at_zero == 0] = 0  # the minimum
    relative, cg_steps = float("inf"), _WORTH_STEPS
    above = torch.full((problem.classes,), torch.inf, dtype=torch.float64, device=problem.device)
    for number in range(NEWTON_STEPS):
        if number == _SINGLE_STEPS:
            problem.dtype = torch.float64
            w, scores = w.double(), scores.double()
        active = torch.empty(scores.shape, dtype=torch.bool)
        gradient, objective = _gradient(problem, cost, w, scores, active)
        norm = gradient.norm(dim=0)
        at_zero = (2 * cost * problem.at_zero).clamp_min(torch.finfo(torch.float32).tiny)
        relative = float((norm / at_zero).max())
        above = torch.minimum(above, norm.double().square() / 2)
        solved = (norm <= tolerance * at_zero) & (above <= tolerance * objective)
        if bool(solved.all()):
            return w, scores, relative, True
        classes = solved.logical_not().nonzero()[:, 0]
        passes = problem.passes
        step, step_scores = _newton_step(problem, cost, active, gradient, classes, cg_steps)
        cg_steps = max(cg_steps, problem.passes - passes)
        finite = step.isfinite().all(0) & step_scores.isfinite().all(0).to(step.device)
        if not bool(finite.all()):
            # float32 does not suffice: no step for these classes, and float64 from now on
            step[:, ~finite], step_scores[:, ~finite.cpu()] = 0, 0
            problem.dtype = torch.float64
            w, scores = w.double(), scores.double()
        predicted = -(gradient * step).sum(0).double() / 2
        above = torch.where(solved | ~finite, above, _MARGIN * predicted)
        length = _line_search(problem, cost, w, step, scores, step_scores)
        w += length * step
        scores += length.cpu() * step_scores
    return w, scores, relative, False


def _gradient(
    problem: _Problem, cost: float, w: Tensor, scores: Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    """Return gradient and objective.

    Two arguments, both (n, K), are written to: ``scores`` are recomputed, since rounding errors accumulate in them from
    step to step, and ``active`` is set to the rows with a nonzero loss, y s < 1.
    """
    gradient = w.clone()
    objective = (w * w).sum(0).double() / 2
    for where, block in problem.blocks():
        s = _times(block, w)
        scores[where] = s.cpu()
        y = problem.signs(where, s)
        costly = y * s < 1
        active[where] = costly.cpu()
        missing = costly * (s - y)
        objective += cost * missing.square().sum(0).double()
        _add_back(gradient, block, missing, 2 * cost)
    return gradient, objective


def _newton_step(
    problem: _Problem, cost: float, active: Tensor, gradient: Tensor, classes: Tensor, cg_steps: int
) -> tuple[Tensor, Tensor]:
    """Solve Hessian x step = -gradient for some classes, by the method that is less work.

    ``cg_steps`` is the number of conjugate gradient steps that are expected.

    Returns:
        The step, which is 0 for the other classes, and its scores.
    """
    n, size = problem.rows.shape
    exact = sum(
        min(_kernel_work(problem, m), _column_work(problem, m))
        for m in active[:, classes.cpu()].sum(0, dtype=torch.float64).tolist()
    )
    if problem.gram_fits and not problem.has_gram:
        exact += problem.factor * n * n * size / _GRAM_STEPS
    least = _FEW_CLASSES if problem.all_held else _FEW_CLASSES_READ
    if exact < problem.factor * cg_steps * 4 * n * size * max(len(classes), least):
        return _exact_step(problem, cost, active, gradient, classes)
    return _cg_step(problem, cost, active, gradient, classes)


def _kernel_work(problem: _Problem, m: float) -> float:
    """Return the operations that :func:`_kernel_step` takes with ``m`` active rows; infinity if memory is too small."""
    if 8 * m**2 > GRAM_VALUES:  # the kernel in float64, and the matrices that are computed from it
        return float("inf")
    return _FACTOR_WORK * m**3 + (
        0 if problem.gram_fits else problem.factor * 2 * problem.rows.shape[1] * m**2
    )


def _column_work(problem: _Problem, m: float) -> float:
    """Return the operations that :func:`_column_step` takes with ``m`` active rows; infinity if memory is too small."""
    size = problem.rows.shape[1]
    if 4 * size**2 > GRAM_VALUES:  # the Hessian in float64, and its factor
        return float("inf")
    return _FACTOR_WORK * size**3 + problem.factor * 2 * m * size**2


def _exact_step(
    problem: _Problem, cost: float, active: Tensor, gradient: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve for one class after the other. If rounding prevents a factorisation, use conjugate gradients."""
    step, step_scores = torch.zeros_like(gradient), torch.zeros(active.shape, dtype=gradient.dtype)
    for k in classes.tolist():
        indices = active[:, k].nonzero()[:, 0].to(problem.device)
        kernel = _kernel_work(problem, len(indices)) <= _column_work(problem, len(indices))
        found = (_kernel_step if kernel else _column_step)(problem, cost, indices, gradient[:, k])
        if found is None:
            return _cg_step(problem, cost, active, gradient, classes)
        step[:, k] = found
    columns = classes.cpu()
    for where, block in problem.blocks():
        step_scores[where, columns] = _times(block, step[:, classes]).cpu()
    return step, step_scores


def _kernel_step(problem: _Problem, cost: float, indices: Tensor, gradient: Tensor) -> Tensor | None:
    """Return the step of a class from the products of its active rows A, at ``indices``, with each other.

    (I + 2C A'A)^-1 = I - A' (I / 2C + A A')^-1 A. None if the matrix cannot be factorised.
    """
    rows = problem.take(indices)
    kernel = problem.kernel(indices, rows)
    kernel.diagonal().add_(1 / (2 * cost))
    along = gradient[-1].repeat(len(rows))
    for columns in problem.columns():
        along += rows[:, columns].to(gradient) @ gradient[columns]
    solved = _solve(kernel, along.double())
    if solved is None:
        return None
    solved, step = solved.to(gradient), -gradient
    for columns in problem.columns():
        step[columns] += rows[:, columns].to(gradient).T @ solved
    step[-1] += solved.sum()
    return step


def _column_step(problem: _Problem, cost: float, indices: Tensor, gradient: Tensor) -> Tensor | None:
    """Return the step of a class from the products of its active rows' columns; None if it cannot be factorised."""
    hessian = problem.column_products(indices).mul_(2 * cost)
    hessian.diagonal().add_(1)
    solved = _solve(hessian, -gradient.double())
    return None if solved is None else solved.to(gradient)


def _solve(matrix: Tensor, right: Tensor) -> Tensor | None:
    """Return the inverse of a positive definite matrix times a vector; None if it cannot be factorised."""
    factor, wrong = torch.linalg.cholesky_ex(matrix)
    if wrong.item():
        return None
    half = torch.linalg.solve_triangular(factor, right[:, None], upper=False)
    solved: Tensor = torch.linalg.solve_triangular(
        factor.mT, half, upper=True
    )  # cholesky_solve copies the factor
    return solved[:, 0]


def _cg_step(
    problem: _Problem, cost: float, active: Tensor, gradient: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve by conjugate gradients, until each class's residual is small in the norm of the preconditioner.

    The products take most of the time, and some classes need five times as many steps as others. Classes that are done
    are therefore dropped from everything but the step.
    """
    step, step_scores = torch.zeros_like(gradient), torch.zeros(active.shape, dtype=gradient.dtype)
    residual = -gradient[:, classes]
    factor = 2 * cost * active[:, classes.cpu()].to(gradient.dtype).mean(0).to(problem.device)
    direction = _precondition(problem, residual, factor)
    product = (residual * direction).sum(0)
    wanted = _CG_TOLERANCE**2 * product
    for _ in range(CG_STEPS):
        columns, curved = classes.cpu(), direction.clone()
        scores = torch.empty((len(active), len(columns)), dtype=gradient.dtype)
        for where, block in problem.blocks():
            along = _times(block, direction)
            scores[where] = along.cpu()
            _add_back(curved, block, active[where][:, columns].to(problem.device) * along, 2 * cost)
        length = product / (direction * curved).sum(0)
        step.index_add_(1, classes, length * direction)
        step_scores.index_add_(1, columns, scores.mul_(length.cpu()))
        residual = residual - length * curved
        scaled = _precondition(problem, residual, factor)
        before, product = product, (residual * scaled).sum(0)
        open_ = product > wanted
        if not bool(open_.any()):
            break
        direction = scaled + product / before * direction
        if not bool(open_.all()):
            classes, wanted, product, factor = (t[open_] for t in (classes, wanted, product, factor))
            residual, direction = residual[:, open_], direction[:, open_]
    return step, step_scores


def _precondition(problem: _Problem, vectors: Tensor, factor: Tensor) -> Tensor:
    """Return a multiple of the inverse of I + ``factor`` X'X times ``vectors`` (D + 1, k), with one factor per vector.

    All eigenvalues besides the leading ones are approximated by the smallest leading one.
    """
    leading, values = (t.to(problem.dtype) for t in problem.leading)
    grown = 1 + values[:, None] * factor
    return vectors + leading @ ((grown[0] / grown - 1) * (leading.T @ vectors))


def _line_search(
    problem: _Problem, cost: float, w: Tensor, step: Tensor, scores: Tensor, step_scores: Tensor
) -> Tensor:
    """Return for each class the t that minimises the objective along ``w + t step``.

    The objective is convex and piecewise quadratic; Newton's method, kept between bounds, finds the zero of its
    derivative.
    """
    device = problem.device
    own, cross = (step * step).sum(0).double(), (w * step).sum(0).double()
    t = torch.ones_like(own)
    low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
    for _ in range(_LINE_STEPS):
        slope, curve = cross + t * own, own.clone()
        for first in range(0, len(scores), 65_536):
            where = slice(first, first + 65_536)
            s, d = scores[where].to(device), step_scores[where].to(device)
            y = problem.signs(where, s)
            s = s + t.to(s.dtype) * d
            active = (y * s < 1).to(s)
            slope += 2 * cost * (active * (s - y) * d).sum(0).double()
            curve += 2 * cost * (active * d * d).sum(0).double()
        low = torch.where(slope <= 0, t, low)
        high = torch.where(slope > 0, t, high)
        after = t - slope / curve.clamp_min(1e-300)
        middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
        after = torch.where((after > low) & (after < high), after, middle)
        after = torch.where(slope == 0, t, after)
        if bool(((after - t).abs() <= 1e-4 * t).all()):
            t = after
            break
        t = after
    return t.to(scores.dtype)
