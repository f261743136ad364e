"""Linear support vector machines on more rows than fit in memory: one against all, squared hinge, in blocks.

For each class k, with y = 1 where a row is of the class and -1 where not, the bias being the weight of a 1 that every
row is given,

    min over w of  |w|^2 / 2 + C sum_i max(0, 1 - y_i w.x_i)^2,

which is what scikit-learn's ``LinearSVC`` minimises with its defaults. All classes are solved at once by the modified
finite Newton method (Keerthi and DeCoste, JMLR 2005): conjugate gradients for the step, an exact line search along
it. Where few rows are active (cost something), as with a high C, the Hessian is less work than many products with it:
it is formed, and preconditions the conjugate gradients, which then need one or two steps. Every product with the rows
is a matrix product over blocks of them, on the CPU or a GPU; besides a block, memory holds rows x classes numbers a few
times over, and never rows x features.
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

from crisscross_zoo.evaluate.rows import Rows

NEWTON_STEPS = 50
CG_STEPS = 200
"""Most steps of each kind; with scaled features both end earlier."""

HESSIAN_NUMBERS = 1 << 27
"""Most numbers of all classes' Hessians together (half a GB); larger ones are not formed."""

_WORTH_PASSES = 15
"""A Hessian is formed where that is less work than this many conjugate gradient steps."""

SMALL_PROBLEM = 1 << 28
"""Rows x numbers x classes below which threads wait for each other longer than they work."""

_LINE_STEPS = 20
_CG_SHARE = 0.3
"""The residual, relative to the gradient, at which conjugate gradients stop."""


@dataclass(frozen=True)
class Hyperplanes:
    """One hyperplane for each class.

    Attributes:
        weights: float32, (D, K).
        bias: float32, (K,).
        cost: C.
        gradient: Largest norm of a class's gradient, relative to that of zero weights.
        solved: Whether every class was solved to the tolerance.
        passes: How often all rows were read.
    """

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    cost: float
    gradient: float
    solved: bool
    passes: int

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return decision values, float32 (n, K)."""
        scores = np.empty((len(rows), len(self.bias)), np.float32)
        for where, block in rows.blocks():
            scores[where] = block @ self.weights + self.bias
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
        on_pass: Told how often all rows have been read.

    Yields:
        The machine of each cost.
    """
    device = torch.device("cpu" if torch.device(device).type == "mps" else device)
    problem = _Problem(rows, labels, classes, device, on_pass)
    start = torch.zeros((rows.shape[1] + 1, classes), dtype=torch.float32, device=problem.device)
    scores = torch.zeros((len(rows), classes), dtype=torch.float32)
    small = len(rows) * rows.shape[1] * classes < SMALL_PROBLEM and problem.device.type == "cpu"
    for cost in sorted(set(costs)):
        with _one_thread() if small else contextlib.nullcontext():
            start, scores, gradient, solved = _solve(problem, cost, start, scores, tolerance)
        values = start.cpu().numpy()
        yield Hyperplanes(values[:-1], values[-1], cost, gradient, solved, problem.passes)


class _Problem:
    """The rows, with a 1 behind each, times vectors."""

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
        self.passes = 0

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for where, block in self.rows.blocks():
            yield where, torch.from_numpy(block).to(self.device)
        self.passes += 1
        if self.on_pass is not None:
            self.on_pass(self.passes)

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

    def signs(self, where: slice, like: Tensor) -> Tensor:
        """Return y of a block, (n, K): 1 and -1."""
        signs = torch.full_like(like, -1.0)
        return signs.scatter_(1, self.labels[where].to(like.device)[:, None], 1.0)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _times(block: Tensor, w: Tensor) -> Tensor:
    return torch.addmm(w[-1], block, w[:-1])


def _add_back(to: Tensor, block: Tensor, s: Tensor, factor: float) -> None:
    """Add ``factor`` times the rows, transposed, times ``s``."""
    to[:-1].addmm_(block.T, s, alpha=factor)
    to[-1].add_(s.sum(0), alpha=factor)


def _solve(
    problem: _Problem, cost: float, w: Tensor, scores: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float, bool]:
    """Minimise from ``w``, whose scores are ``scores``.

    Returns:
        The same of the minimum, the largest relative gradient, and whether every class is solved.
    """
    w, scores = w.clone(), scores.clone()
    relative = float("inf")
    for _ in range(NEWTON_STEPS):
        active = torch.empty(scores.shape, dtype=torch.bool)
        gradient, squares, objective = _gradient(problem, cost, w, scores, active)
        norm = gradient.norm(dim=0)
        at_zero = (2 * cost * problem.at_zero).clamp_min(torch.finfo(w.dtype).tiny)
        relative = float((norm / at_zero).max())
        solved = (norm <= tolerance * at_zero) & (norm.square() / 2 <= tolerance * objective)
        if bool(solved.all()):
            return w, scores, relative, True
        wanted = torch.where(solved, torch.inf, _CG_SHARE * norm)
        step, step_scores = _newton_step(problem, cost, active, gradient, squares, wanted)
        length = _line_search(problem, cost, w, step, scores, step_scores)
        w += length * step
        scores += length.cpu() * step_scores
    return w, scores, relative, False


def _gradient(
    problem: _Problem, cost: float, w: Tensor, scores: Tensor, active: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradient, diagonal of the Hessian, and objective.

    ``scores`` are set anew, since rounding adds up in them from step to step, and ``active`` to where a row costs
    something, y s < 1: (n, K) both.
    """
    gradient, diagonal = w.clone(), torch.ones_like(w)
    objective = (w * w).sum(0).double() / 2
    for where, block in problem.blocks():
        s = _times(block, w)
        scores[where] = s.cpu()
        y = problem.signs(where, s)
        costly = y * s < 1
        active[where] = costly.cpu()
        objective += cost * (costly * (s - y).square()).sum(0).double()
        _add_back(gradient, block, costly * (s - y), 2 * cost)
        _add_back(diagonal, block.square(), costly.to(s), 2 * cost)
    return gradient, diagonal, objective


def _newton_step(
    problem: _Problem, cost: float, active: Tensor, gradient: Tensor, diagonal: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve Hessian x step = -gradient by conjugate gradients, until each class's residual is at most ``wanted``.

    The time is that of the products, and some classes take five times as many steps as others: what is kept besides
    the step is of the classes that are not done.

    Returns:
        The step, 0 for a class whose ``wanted`` is infinite, and its scores.
    """
    step, step_scores = torch.zeros_like(gradient), torch.zeros(active.shape, dtype=torch.float32)
    classes = wanted.isfinite().nonzero()[:, 0]
    wanted, residual, diagonal = wanted[classes], -gradient[:, classes], diagonal[:, classes]
    factors = _hessian_factors(problem, cost, active[:, classes.cpu()])

    def precondition() -> Tensor:
        if factors is None:
            return residual / diagonal
        solved = [torch.cholesky_solve(r[:, None], f) for r, f in zip(residual.T, factors, strict=True)]
        return torch.cat(solved, dim=1)

    direction = precondition()
    product = (residual * direction).sum(0)
    for _ in range(CG_STEPS):
        columns, curved = classes.cpu(), direction.clone()
        scores = torch.empty((len(active), len(columns)), dtype=torch.float32)
        for where, block in problem.blocks():
            along = _times(block, direction)
            scores[where] = along.cpu()
            _add_back(curved, block, active[where][:, columns].to(problem.device) * along, 2 * cost)
        length = product / (direction * curved).sum(0)
        step.index_add_(1, classes, length * direction)
        step_scores.index_add_(1, columns, scores.mul_(length.cpu()))
        residual = residual - length * curved
        open_ = residual.norm(dim=0) > wanted
        if not bool(open_.any()):
            break
        if not bool(open_.all()):
            classes, wanted, product = classes[open_], wanted[open_], product[open_]
            residual, diagonal, direction = residual[:, open_], diagonal[:, open_], direction[:, open_]
            factors = factors and [f for f, kept in zip(factors, open_.tolist(), strict=True) if kept]
        scaled = precondition()
        before, product = product, (residual * scaled).sum(0)
        direction = scaled + product / before * direction
    return step, step_scores


def _hessian_factors(problem: _Problem, cost: float, active: Tensor) -> list[Tensor] | None:
    """Return the Cholesky factors, (D + 1, D + 1), of I + 2 C X'X over each class's active rows, if worth it."""
    size, classes = problem.rows.shape[1] + 1, active.shape[1]
    work = active.sum(dtype=torch.int64).item() * size * size
    if classes * size * size > HESSIAN_NUMBERS or work > _WORTH_PASSES * 2 * active.numel() * size:
        return None
    hessians = [torch.eye(size, dtype=torch.float32, device=problem.device) for _ in range(classes)]
    for where, block in problem.blocks():
        block = torch.cat([block, torch.ones_like(block[:, :1])], dim=1)
        for hessian, rows in zip(hessians, active[where].T, strict=True):
            some = block[rows.nonzero()[:, 0].to(problem.device)]
            hessian.addmm_(some.T, some, alpha=2 * cost)
    for hessian in hessians:
        factor, wrong = torch.linalg.cholesky_ex(hessian.double())
        if wrong.item():
            return None
        hessian.copy_(factor)
    return hessians


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
            s = s + t.float() * d
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
    return t.float()
