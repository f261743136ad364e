"""Named settings of a synthesiser, drawn at random when they are first asked for.

Two sounds (or two images) of one kind come from one set of knobs: a set gives the same values each time, and a
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
    """Settings by name. A setting depends on the key and its name alone.

    Two methods that are called with one name share one draw, so each setting needs a name of its own.

    Args:
        key: Numbers from which all settings are drawn.
        nudges: Displacements, one after another: the key of each, and its standard deviation as a share of each
            setting's range.
    """

    def __init__(self, key: Sequence[int], nudges: Sequence[tuple[int, float]] = ()) -> None:
        self._key = tuple(key)
        self._nudges = tuple(nudges)

    def nudged(self, nudge: int, amount: float) -> Knobs:
        """Return a copy whose continuous settings are displaced. Choices and counts stay as they are."""
        return Knobs(self._key, (*self._nudges, (nudge, amount)))

    def child(self, name: str) -> Knobs:
        """Return the settings of a part; they are nudged with the whole."""
        return Knobs((*self._key, _number(name)), self._nudges)

    def seed(self, name: str) -> np.random.Generator:
        """Return a random generator that is the same for each call."""
        return np.random.default_rng((*self._key, _number(name)))

    def uniform(self, name: str, low: float, high: float) -> float:
        """Return a setting between ``low`` and ``high``."""
        place = float(self.seed(name).random())
        for nudge, amount in self._nudges:
            place += amount * float(self._shift(name, nudge, None))
        place = abs(place) % 2  # reflected at the ends of the range
        place = 2 - place if place > 1 else place
        return low + (high - low) * place

    def log(self, name: str, low: float, high: float) -> float:
        """Return a setting between ``low`` and ``high`` whose logarithm is uniform."""
        return math.exp(self.uniform(name, math.log(low), math.log(high)))

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return int(self.seed(name).integers(low, high + 1))

    def chance(self, name: str, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.seed(name).random() < probability)

    def choice(self, name: str, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.seed(name).integers(len(options)))]

    def normal(self, name: str, size: Any) -> Floats:
        """Return standard normal numbers of a shape, displaced in a nudged copy."""
        values: Floats = self.seed(name).standard_normal(size)
        for nudge, amount in self._nudges:
            # Twice: a range is about four standard deviations wide. Rescaled: the spread stays 1.
            values = (values + 2 * amount * self._shift(name, nudge, size)) / math.sqrt(1 + 4 * amount**2)
        return values

    def _shift(self, name: str, nudge: int, size: Any) -> Any:
        return np.random.default_rng((*self._key, _number(name), nudge)).standard_normal(size)


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
