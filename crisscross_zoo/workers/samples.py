"""Samples of training files, each determined by a seed, an epoch and a position; a failed file is replaced by another.

It does not matter which process draws a sample or what was drawn before, so an interrupted run resumes with the same
samples, with any number of workers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from torch.utils.data import Dataset

from crisscross_zoo.errors import CrissCrossError, DecoderCrashError, MediaError
from crisscross_zoo.files.failures import failure_row
from crisscross_zoo.numerics import one_thread
from crisscross_zoo.workers.errors import file_error

TRIES = 10
"""Files tried for one sample before the run gives up."""

_SKIPPED = "is not read any more, see skipped.jsonl"

_Content = TypeVar("_Content")
_Item = TypeVar("_Item")

Failures = list[dict[str, str]]
"""Files that were replaced by others, see :func:`~crisscross_zoo.files.failures.failure_row`."""


class SampleKey(NamedTuple):
    """Identifies a sample; ``file`` is the index of its file, unless that fails."""

    epoch: int
    position: int
    file: int


class SampleDataset(Dataset[tuple[_Content, str, Failures]], Generic[_Content]):
    """Samples by :class:`SampleKey`. A subclass defines the sample of a file: :meth:`path`, :meth:`draw`.

    Args:
        files: The files, of any kind; only their number is used here.
        seed: Another seed gives other samples.
        remedy: What to do if file after file fails, for the error.

    Attributes:
        skipped: Indices of files that are not read: each fails at once.
        note: Called with the index of a file before it is read.
    """

    def __init__(self, files: Sequence[Any], *, seed: int, remedy: str) -> None:
        self.seed, self.remedy = seed, remedy
        self.skipped: Collection[int] = ()
        self.note: Callable[[int], None] = _no_note
        self._count = len(files)

    def __len__(self) -> int:
        return self._count

    @abstractmethod
    def path(self, index: int) -> str:
        """Return the path of a file."""

    @abstractmethod
    def draw(self, index: int, random: np.random.Generator) -> _Content:
        """Draw a sample of a file; any exception, but not a KeyboardInterrupt, is a failure of that file."""

    def __getitem__(self, key: SampleKey) -> tuple[_Content, str, Failures]:
        """Return a sample, the path of its file, and the files that failed before it.

        Any exception while a file is read is a failure of that file: samples are the same each time, so a run that
        ended there would end there again and again.

        Raises:
            MediaError: :data:`TRIES` files in turn failed.
        """
        failures: Failures = []
        for attempt in range(TRIES):
            random = np.random.default_rng([self.seed, key.epoch, key.position, attempt])
            index = key.file if attempt == 0 else int(random.integers(len(self)))
            path = self.path(index)
            try:
                if index in self.skipped:
                    raise DecoderCrashError(_SKIPPED, path=path)
                self.note(index)
                with one_thread():
                    return self.draw(index, random), path, failures
            except (Exception, SystemExit) as error:  # a decoder that exits must not end the run with code 0
                failures.append(failure_row(path, file_error(error, path)))
        raise MediaError(
            f"{TRIES} files in turn cannot be used: {failures[-1]['reason']}",
            remedy=self.remedy,
            path=failures[-1]["path"],
        )

    def __getitems__(
        self, keys: Sequence[SampleKey]
    ) -> list[tuple[_Content, str, Failures]] | list[CrissCrossError]:
        """Return several samples, or an error in a list: one that a data worker raises would lose its fields."""
        try:
            return [self[key] for key in keys]
        except CrissCrossError as error:
            return [error]


def first_error(items: Sequence[_Item | CrissCrossError]) -> tuple[list[_Item], CrissCrossError | None]:
    """Split the result of :meth:`SampleDataset.__getitems__` into samples and the first error, or None."""
    good = [item for item in items if not isinstance(item, CrissCrossError)]
    return good, next((item for item in items if isinstance(item, CrissCrossError)), None)


def _no_note(_: int) -> None:
    """Do nothing."""
