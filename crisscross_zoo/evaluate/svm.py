"""Linear support vector machines on more rows than fit in memory: one against all, squared hinge, in blocks.

For each class k, with y = 1 where a row is of the class and -1 where not, the bias being the weight of a 1 that every
row is given,

    min over w of  |w|^2 / 2 + C sum_i max(0, 1 - y_i w.x_i)^2,

which is what scikit-learn's ``LinearSVC`` minimises with its defaults. All classes are solved at once by the modified
finite Newton method (Keerthi and DeCoste, JMLR 2005): a step, and an exact line search along it. Pooled activations are
badly scaled: the largest eigenvalue of X'X is 10^7 times the smallest. So the conjugate gradients that find a step are
preconditioned with the leading eigenvectors of X'X, found once for all costs and classes. Where few rows are active
(cost something), as with a high C, the step is found from the products of these rows with each other instead (Chapelle,
Neural Computation 2007), if that is less work. Where rounding in float32 would count, float64 is used.

Every product with the rows is a matrix product over blocks of them, on the CPU or a GPU. Memory holds at most 1 GiB of
the rows (:data:`HELD_NUMBERS`; all of them where they are fewer), 1 GiB of products of rows with each other
(:data:`GRAM_NUMBERS`; 2 in float64), as much again to solve one class exactly, and rows x classes numbers a few times
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

from crisscross_zoo.evaluate.rows import Rows, block_rows
from crisscross_zoo.numerics import exact_float32, one_thread

NEWTON_STEPS = 50
CG_STEPS = 200
"""Most steps of each kind."""

HELD_NUMBERS = 1 << 28
"""Most numbers of rows in memory (1 GiB): of more rows, so many, evenly spaced, give the eigenvectors."""

GRAM_NUMBERS = 1 << 28
"""Most products of rows with each other in memory (of 16,384 rows: 1 GiB, in float64 2); of more rows, only those of
active ones."""

LEADING = 256
"""Eigenvectors of X'X that precondition conjugate gradients."""

_ROUNDING = 2.0
"""Float64 is used where a rounding error in float32, times the largest eigenvalue of the Hessian, may be above this."""

_COLUMNS = 4096
"""Columns of rows that are at once in float64."""

_SINGLE_STEPS = 25
"""Newton steps in float32, after which float64 is used in any case."""

SMALL_PROBLEM = 1 << 28
"""Rows x numbers x classes below which threads wait for each other longer than they work."""

_SUBSPACE_STEPS = 3
_LINE_STEPS = 20
_CG_SHARE = 0.3
"""The residual, relative to the gradient, at which conjugate gradients stop (in the preconditioner's norm)."""

_WORTH_STEPS = 30
"""An exact step is taken where that is less work than so many conjugate gradient steps."""

_FEW_CLASSES = 16
"""Products with fewer vectors take as long as with so many: reading the rows takes that long."""

_FACTOR_WORK = 1.5
"""Time of a Cholesky factor in float64 over m^3, in that of an operation of a product in float32."""

_GRAM_STEPS = 10
"""How many steps the products of all rows with each other are expected to serve."""


@dataclass(frozen=True)
class Hyperplanes:
    """One hyperplane for each class.

    Attributes:
        weights: float32, (D, K).
        bias: float32, (K,).
        cost: C.
        gradient: Largest norm of a class's gradient, relative to that of zero weights.
        solved: Whether every class was solved to the tolerance.
        passes: How often all rows were multiplied.
    """

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    cost: float
    gradient: float
    solved: bool
    passes: int

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return decision values, float32 (n, K), computed in float64, so that the rows beside them hardly count."""
        scores = np.empty((len(rows), len(self.bias)), np.float32)
        weights = self.weights.astype(np.float64)
        for where, block in rows.blocks():
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
    """Fit one machine for each cost, in ascending order; each starts where the one before it ended.

    Args:
        rows: (n, D), finite.
        labels: (n,), from 0 to ``classes - 1``.
        classes: K, at least 2.
        costs: Values of C, above 0.
        tolerance: A class is solved when the norm of its gradient g is at most this, relative to that of zero
            weights, and so is |g|^2 / 2, relative to the objective: as the objective is strongly convex, it is then
            that near to its minimum, or nearer.
        device: Where the products are computed; not on MPS, which lacks float64.
        on_pass: Told how often all rows have been multiplied.

    Yields:
        The machine of each cost.
    """
    device = torch.device("cpu" if torch.device(device).type == "mps" else device)
    problem = _Problem(rows, labels, classes, device, on_pass)
    start = torch.zeros((rows.shape[1] + 1, classes), dtype=torch.float32, device=problem.device)
    scores = torch.zeros((len(rows), classes), dtype=torch.float32)
    small = len(rows) * rows.shape[1] * classes < SMALL_PROBLEM and problem.device.type == "cpu"
    for cost in sorted(set(costs)):
        with exact_float32(), one_thread() if small else contextlib.nullcontext():
            start, scores, gradient, solved = _solve(problem, cost, start, scores, tolerance)
        values = start.float().cpu().numpy()
        yield Hyperplanes(values[:-1], values[-1], cost, gradient, solved, problem.passes)


class _Problem:
    """The rows, with a 1 behind each, times vectors.

    Attributes:
        held: So many of the rows as memory may hold, evenly spaced, (m, D).
        dtype: Of the products.
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
        count = min(len(rows), max(1, HELD_NUMBERS // max(1, rows.shape[1])))
        places = np.linspace(0, len(rows) - 1, count).round().astype(np.int64)
        self.held = torch.empty((count, rows.shape[1]), dtype=torch.float32, device=device)
        for first in range(0, count, size := block_rows(rows.shape[1])):
            some = slice(first, first + size)
            self.held[some] = torch.from_numpy(rows[places[some]])

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for where, block in self._held_blocks() if self.all_held else self._read_blocks():
            yield where, block.to(self.dtype)
        self.passes += 1
        if self.on_pass is not None:
            self.on_pass(self.passes)

    @property
    def all_held(self) -> bool:
        return len(self.held) == len(self.rows)

    def _read_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for where, block in self.rows.blocks():
            yield where, torch.from_numpy(block).to(self.device)

    def _held_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        size = block_rows(self.rows.shape[1])
        for first in range(0, len(self.held), size):
            where = slice(first, first + size)
            yield where, self.held[where]

    @functools.cached_property
    def at_zero(self) -> Tensor:
        """Norm of each class's gradient at zero weights for C = 1/2, |X'y|, (K,); times 2C for another."""
        gradient = torch.zeros(
            (self.rows.shape[1] + 1, self.classes), dtype=torch.float32, device=self.device
        )
        for where, block in self.blocks():
            _add_back(gradient, block, self.signs(where, block.new_empty(len(block), self.classes)), 1.0)
        norm: Tensor = gradient.norm(dim=0)
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

    def kernel(self, places: Tensor) -> Tensor:
        """Return the products of some rows with each other, float64 (m, m), computed in ``dtype``."""
        if self.gram_fits:
            return self.gram()[places[:, None], places].double()
        rows = self.held[places] if self.all_held else self._read(places)
        kernel = rows.new_ones((len(rows), len(rows)), dtype=self.dtype)
        for first in range(0, rows.shape[1], _COLUMNS):
            part = rows[:, first : first + _COLUMNS].to(self.dtype)
            kernel.addmm_(part, part.T)
        return kernel.double()

    def _read(self, places: Tensor) -> Tensor:
        return torch.from_numpy(self.rows[places.cpu().numpy()]).to(self.device)

    @property
    def gram_fits(self) -> bool:
        return self.all_held and len(self.rows) ** 2 <= GRAM_NUMBERS

    def signs(self, where: slice, like: Tensor) -> Tensor:
        """Return y of a block, (n, K): 1 and -1."""
        signs = torch.full_like(like, -1.0)
        return signs.scatter_(1, self.labels[where].to(like.device)[:, None], 1.0)


def _times(block: Tensor, w: Tensor) -> Tensor:
    """Return the block, with a 1 behind each row, times w; the transposes' product is up to 15 times as fast in MKL."""
    return torch.addmm(w[-1, :, None], w[:-1].T, block.T).T


def _add_back(to: Tensor, block: Tensor, s: Tensor, factor: float) -> None:
    """Add ``factor`` times the rows, transposed, times ``s``."""
    to[:-1].add_((s.T @ block).T, alpha=factor)
    to[-1].add_(s.sum(0), alpha=factor)


def _solve(
    problem: _Problem, cost: float, w: Tensor, scores: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float, bool]:
    """Minimise from ``w``, whose scores are ``scores``.

    Returns:
        The same of the minimum, the largest relative gradient, and whether every class is solved.
    """
    largest = float(problem.at_zero.max()) ** 2 / len(scores)  # of X'X: at least |X'y|^2 / |y|^2
    rounding = 2 * cost * largest * torch.finfo(torch.float32).eps
    if rounding > _ROUNDING:  # once it is needed, higher costs need it too
        problem.dtype = torch.float64
    w, scores = w.to(problem.dtype, copy=True), scores.to(problem.dtype, copy=True)
    relative = float("inf")
    for number in range(NEWTON_STEPS):
        if number == _SINGLE_STEPS:
            problem.dtype = torch.float64
            w, scores = w.double(), scores.double()
        active = torch.empty(scores.shape, dtype=torch.bool)
        gradient, objective = _gradient(problem, cost, w, scores, active)
        norm = gradient.norm(dim=0)
        at_zero = (2 * cost * problem.at_zero).clamp_min(torch.finfo(torch.float32).tiny)
        relative = float((norm / at_zero).max())
        solved = (norm <= tolerance * at_zero) & (norm.square() / 2 <= tolerance * objective)
        if bool(solved.all()):
            return w, scores, relative, True
        classes = solved.logical_not().nonzero()[:, 0]
        step, step_scores = _newton_step(problem, cost, active, gradient, classes)
        length = _line_search(problem, cost, w, step, scores, step_scores)
        w += length * step
        scores += length.cpu() * step_scores
    return w, scores, relative, False


def _gradient(
    problem: _Problem, cost: float, w: Tensor, scores: Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    """Return gradient and objective.

    ``scores`` are set anew, since rounding adds up in them from step to step, and ``active`` to where a row costs
    something, y s < 1: (n, K) both.
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
    problem: _Problem, cost: float, active: Tensor, gradient: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve Hessian x step = -gradient for some classes, by what is less work.

    Returns:
        The step, 0 for other classes, and its scores.
    """
    n, size = problem.rows.shape
    some = active.sum(0, dtype=torch.float64)[classes.cpu()]
    exact = _FACTOR_WORK * float(some.pow(3).sum())
    twice = 2 if problem.dtype == torch.float64 else 1
    if not problem.gram_fits:
        exact += twice * 2 * size * float(some.square().sum())
    elif not problem.has_gram:
        exact += twice * n * n * size / _GRAM_STEPS
    steps = twice * _WORTH_STEPS * 4 * n * size * max(len(classes), _FEW_CLASSES)
    if exact < steps and 8 * float(some.max()) ** 2 <= GRAM_NUMBERS:  # in float64, and what comes of it
        return _exact_step(problem, cost, active, gradient, classes)
    return _cg_step(problem, cost, active, gradient, classes)


def _exact_step(
    problem: _Problem, cost: float, active: Tensor, gradient: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve from the products of each class's active rows A with each other.

    (I + 2C A'A)^-1 = I - A' (I / 2C + A A')^-1 A. Where rounding leaves no factor, conjugate gradients take over.
    """
    columns, asked = classes.cpu(), gradient[:, classes]
    scores = torch.empty((len(active), len(columns)), dtype=gradient.dtype)
    for where, block in problem.blocks():
        scores[where] = _times(block, asked).cpu()
    for number, column in enumerate(columns):
        places = active[:, column].nonzero()[:, 0]
        solved = _solve_kernel(problem, cost, places.to(problem.device), scores[places, number])
        if solved is None:
            return _cg_step(problem, cost, active, gradient, classes)
        scores[:, number] = 0
        scores[places, number] = solved.to(scores)
    found = -asked
    for where, block in problem.blocks():
        _add_back(found, block, scores[where].to(problem.device), 1.0)
    for where, block in problem.blocks():
        scores[where] = _times(block, found).cpu()
    step, step_scores = torch.zeros_like(gradient), torch.zeros(active.shape, dtype=gradient.dtype)
    return step.index_copy_(1, classes, found), step_scores.index_copy_(1, columns, scores)


def _solve_kernel(problem: _Problem, cost: float, places: Tensor, along: Tensor) -> Tensor | None:
    """Return (I / 2C + A A')^-1 times ``along``, of the rows A at ``places``; None where rounding leaves no factor."""
    kernel = problem.kernel(places)
    kernel.diagonal().add_(1 / (2 * cost))
    factor, wrong = torch.linalg.cholesky_ex(kernel)
    if wrong.item():
        return None
    return torch.cholesky_solve(along.to(factor)[:, None], factor)[:, 0]


def _cg_step(
    problem: _Problem, cost: float, active: Tensor, gradient: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve by conjugate gradients, until each class's residual is small in the norm of the preconditioner.

    The time is that of the products, and some classes take five times as many steps as others: what is kept besides
    the step is of the classes that are not done.
    """
    step, step_scores = torch.zeros_like(gradient), torch.zeros(active.shape, dtype=gradient.dtype)
    residual = -gradient[:, classes]
    factor = 2 * cost * active[:, classes.cpu()].to(gradient.dtype).mean(0).to(problem.device)
    direction = _precondition(problem, residual, factor)
    product = (residual * direction).sum(0)
    wanted = _CG_SHARE**2 * product
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
    """Return the inverse of I + ``factor`` X'X, times a multiple, times ``vectors``: (D + 1, k); one factor for each.

    The eigenvalues that are not known are taken for the least known one.
    """
    leading, values = (t.to(problem.dtype) for t in problem.leading)
    grown = 1 + values[:, None] * factor
    return vectors + leading @ ((grown[0] / grown - 1) * (leading.T @ vectors))


def _line_search(
    problem: _Problem, cost: float, w: Tensor, step: Tensor, scores: Tensor, step_scores: Tensor
) -> Tensor:
    """Return for each class the t at which the objective along ``w + t step`` is least.

    It is convex and piecewise quadratic; its derivative is raised to 0 by Newton's method, kept between bounds.
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
