"""Selected rows of matrices that may be larger than memory, read a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BLOCK_BYTES = 64 << 20
"""Size of a block of rows in memory."""

_ITEM_BYTES = 4


def block_rows(dims: int) -> int:
    """Return how many rows of ``dims`` values fit into :data:`BLOCK_BYTES`, at least 64."""
    return max(64, BLOCK_BYTES // (_ITEM_BYTES * max(1, dims)))


@dataclass
class Rows:
    """Rows of one matrix, or concatenated rows of several, in any order, read a block at a time.

    Attributes:
        matrices: Each matrix (float32) with the indices of its rows; all have as many indices.
        change: Function that is applied to a block of each matrix before the blocks are concatenated.
        shape: Number of rows, and number of columns of all matrices together.
    """

    matrices: Sequence[tuple[Floats, Ints]]
    change: Callable[[Floats], Floats] | None = None
    shape: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.shape = len(self.matrices[0][1]), sum(matrix.shape[1] for matrix, _ in self.matrices)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Ints) -> Floats:
        """Return some rows, float32 (n, D), as a copy in memory."""
        blocks = [np.asarray(matrix[index[rows]], np.float32) for matrix, index in self.matrices]
        blocks = blocks if self.change is None else [self.change(block) for block in blocks]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def take(self, rows: Ints) -> Rows:
        """Select rows by index, without reading them."""
        return Rows([(matrix, index[rows]) for matrix, index in self.matrices], self.change)

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, Floats]]:
        """Yield the slice and the values of each block of ``size`` rows, in order (default: :data:`BLOCK_BYTES`)."""
        size = size or block_rows(self.shape[1])
        for first in range(0, len(self), size):
            where = slice(first, min(first + size, len(self)))
            yield where, self[where]

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Rows:
        """Make rows of an array (n, D)."""
        matrix = np.asarray(array, np.float32)
        return cls([(matrix, np.arange(len(matrix)))])
