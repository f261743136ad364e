"""Rows picked out of matrices that may be larger than memory, read a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BLOCK_BYTES = 64 << 20
"""Of rows that are in memory at a time."""

_ITEM_BYTES = 4


def block_rows(numbers: int) -> int:
    """Return how many rows of so many numbers are :data:`BLOCK_BYTES`."""
    return max(64, BLOCK_BYTES // (_ITEM_BYTES * max(1, numbers)))


@dataclass
class Rows:
    """Rows of one matrix or of several side by side, in an order of their own, read a block at a time.

    Attributes:
        parts: Matrices (float32) and which of their rows, as many from each.
        change: What is done to a block of each part before they are put side by side.
    """

    parts: Sequence[tuple[Floats, Ints]]
    change: Callable[[Floats], Floats] | None = None
    shape: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.shape = len(self.parts[0][1]), sum(matrix.shape[1] for matrix, _ in self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | Ints) -> Floats:
        """Return some rows, float32 (n, D), as a copy in memory."""
        blocks = [np.asarray(matrix[index[places]], np.float32) for matrix, index in self.parts]
        blocks = blocks if self.change is None else [self.change(block) for block in blocks]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def take(self, places: Ints) -> Rows:
        """Return fewer rows, or others, without reading any."""
        return Rows([(matrix, index[places]) for matrix, index in self.parts], self.change)

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, Floats]]:
        """Yield all rows in order, ``size`` at a time (default: :data:`BLOCK_BYTES` of them), with where they stand."""
        size = size or block_rows(self.shape[1])
        for first in range(0, len(self), size):
            where = slice(first, min(first + size, len(self)))
            yield where, self[where]

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Rows:
        """Make rows of an array (n, D)."""
        matrix = np.asarray(array, np.float32)
        return cls([(matrix, np.arange(len(matrix)))])
