"""Samples of training files: a seed, an epoch and a position decide each, and a file that fails is replaced by another.

It does not matter which process draws a sample or what was drawn before, so a run that is interrupted goes on with the
same samples, with any number of workers.
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
    """Which sample: the file is ``file`` unless that fails."""

    epoch: int
    position: int
    file: int


class SampleDataset(Dataset[tuple[_Content, str, Failures]], Generic[_Content]):
    """Samples by :class:`SampleKey`. A subclass says what a sample of a file is: :meth:`path`, :meth:`draw`.

    Args:
        files: The files, of any kind; how many they are counts here.
        seed: Another one gives other samples.
        remedy: What to do where file after file fails, for the error.

    Attributes:
        skipped: Places of files that are not read: each is a failure at once.
        note: Called with the place of a file before it is read.
    """

    def __init__(self, files: Sequence[Any], *, seed: int, remedy: str) -> None:
        self.seed, self.remedy = seed, remedy
        self.skipped: Collection[int] = ()
        self.note: Callable[[int], None] = _no_note
        self._count = len(files)

    def __len__(self) -> int:
        return self._count

    @abstractmethod
    def path(self, place: int) -> str:
        """Return the path of a file."""

    @abstractmethod
    def draw(self, place: int, random: np.random.Generator) -> _Content:
        """Draw a sample of a file; whatever this raises is that file's failure."""

    def __getitem__(self, key: SampleKey) -> tuple[_Content, str, Failures]:
        """Return a sample, the file it is from, and the files that failed before it.

        Whatever is raised while a file is read is that file's failure: samples are the same each time, so a run that
        ended there would end there for ever.

        Raises:
            MediaError: :data:`TRIES` files in turn failed.
        """
        failures: Failures = []
        for attempt in range(TRIES):
            random = np.random.default_rng([self.seed, key.epoch, key.position, attempt])
            place = key.file if attempt == 0 else int(random.integers(len(self)))
            path = self.path(place)
            try:
                if place in self.skipped:
                    raise DecoderCrashError(_SKIPPED, path=path)
                self.note(place)
                with one_thread():
                    return self.draw(place, random), path, failures
            except Exception as error:
                failures.append(failure_row(path, file_error(error, path)))
        raise MediaError(
            f"{TRIES} files in turn cannot be used: {failures[-1]['reason']}",
            remedy=self.remedy,
            path=failures[-1]["path"],
        )

    def __getitems__(
        self, keys: Sequence[SampleKey]
    ) -> list[tuple[_Content, str, Failures]] | list[CrissCrossError]:
        """Return several samples, or what went wrong: an error that a data process raises would lose its fields."""
        try:
            return [self[key] for key in keys]
        except CrissCrossError as error:
            return [error]


def first_error(items: Sequence[_Item | CrissCrossError]) -> tuple[list[_Item], CrissCrossError | None]:
    """Part what :meth:`SampleDataset.__getitems__` gives into samples and the first error, None where there is none."""
    good = [item for item in items if not isinstance(item, CrissCrossError)]
    return good, next((item for item in items if isinstance(item, CrissCrossError)), None)


def _no_note(_: int) -> None:
    """Tell nobody."""
