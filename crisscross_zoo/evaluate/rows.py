"""Selected rows of matrices that may be larger than memory, read a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

    def blocks(self, size: int | None = None, *, reuse: bool = False) -> Iterator[tuple[slice, Floats]]:
        """Yield the slice and the values of each block of ``size`` rows, in order (default: :data:`BLOCK_BYTES`).

        A thread reads the next block meanwhile. With ``reuse``, two arrays hold the blocks in turn, since new memory
        takes as long as reading: a block is overwritten as soon as the next one is requested.
        """
        size = size or block_rows(self.shape[1])
        places = [slice(first, min(first + size, len(self))) for first in range(0, len(self), size)]
        if len(places) < 2:
            yield from ((where, self[where]) for where in places)
            return
        arrays: list[Floats | None] = [None, None]
        if reuse:
            arrays = [np.empty((size, self.shape[1]), np.float32) for _ in range(2)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            reading = reader.submit(self._read, places[0], arrays[0])
            for number, where in enumerate(places):
                block = reading.result()
                if number + 1 < len(places):
                    reading = reader.submit(self._read, places[number + 1], arrays[(number + 1) % 2])
                yield where, block

    def _read(self, where: slice, into: Floats | None) -> Floats:
        """Return a block, in the array ``into`` if it can be read without another copy."""
        (matrix, index), *others = self.matrices
        if into is None or others or self.change is not None or matrix.dtype != np.float32:
            return self[where]
        into = into[: where.stop - where.start]
        # mode "clip": np.take copies twice otherwise, and no index is out of range
        return np.take(matrix, index[where], axis=0, out=into, mode="clip")

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Rows:
        """Make rows of an array (n, D)."""
        matrix = np.asarray(array, np.float32)
        return cls([(matrix, np.arange(len(matrix)))])
