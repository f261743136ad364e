"""Named settings of a synthesiser, drawn at random when they are first asked for.

Two sounds (or two pictures) of one kind come from one set of knobs: a set gives the same values each time, and a
nudged copy gives similar ones. Pairs of this sort are what encoders learn from in Cherep and Singh, *Contrastive
Learning from Synthetic Audio Doppelgängers*, ICLR 2025.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


class Knobs:
    """Settings by name. Each depends on the key and its name, not on the order in which settings are asked for.

    Args:
        key: Numbers from which all settings are drawn.
        nudge: Key of the displacement of a nudged copy; None: none.
        amount: Standard deviation of the displacement, as a share of each setting's range.
    """

    def __init__(self, key: Sequence[int], *, nudge: int | None = None, amount: float = 0.0) -> None:
        self._key = tuple(key)
        self._nudge = nudge
        self._amount = amount

    def nudged(self, nudge: int, amount: float) -> Knobs:
        """Return a copy whose continuous settings are displaced. Choices and counts stay as they are."""
        return Knobs(self._key, nudge=nudge, amount=amount)

    def child(self, name: str) -> Knobs:
        """Return another set, of a part of the whole; it is nudged with it."""
        return Knobs((*self._key, _number(name)), nudge=self._nudge, amount=self._amount)

    def seed(self, name: str) -> np.random.Generator:
        """Return a generator that is the same each time."""
        return np.random.default_rng((*self._key, _number(name)))

    def uniform(self, name: str, low: float, high: float) -> float:
        """Return a setting between ``low`` and ``high``."""
        place = float(self.seed(name).random())
        if self._nudge is not None:
            shift = np.random.default_rng((*self._key, _number(name), self._nudge)).standard_normal()
            place += self._amount * float(shift)
            place = abs(place) % 2  # reflected at the ends of the range
            place = 2 - place if place > 1 else place
        return low + (high - low) * place

    def log(self, name: str, low: float, high: float) -> float:
        """Return a setting between ``low`` and ``high`` whose logarithm is uniform."""
        return math.exp(self.uniform(name, math.log(low), math.log(high)))

    def integer(self, name: str, low: int, high: int) -> int:
        """Return a whole number, ``high`` included."""
        return int(self.seed(name).integers(low, high + 1))

    def chance(self, name: str, probability: float) -> bool:
        """Return whether something is so."""
        return bool(self.seed(name).random() < probability)

    def choice(self, name: str, options: Sequence[T]) -> T:
        """Return one of some options."""
        return options[int(self.seed(name).integers(len(options)))]

    def normal(self, name: str, size: Any) -> Floats:
        """Return standard normal numbers of a shape, displaced in a nudged copy."""
        values: Floats = self.seed(name).standard_normal(size)
        if self._nudge is not None:
            shift = np.random.default_rng((*self._key, _number(name), self._nudge)).standard_normal(size)
            # Twice: a range is about four standard deviations wide. Rescaled: the spread stays 1.
            values = (values + 2 * self._amount * shift) / math.sqrt(1 + 4 * self._amount**2)
        return values


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
