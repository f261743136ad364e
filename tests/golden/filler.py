"""Weights and inputs of the goldens, from formulas: the goldens hold only what comes out.

Every tensor of a network has its own generator, seeded by its released name, so the values do not depend
on the order of anything. See README.md for the table. Needs NumPy; torch only for ``fill_module``.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import nn

_M = TypeVar("_M", bound="nn.Module")

SAMPLE_RATE = 16_000


def fill_array(name: str, shape: Sequence[int], names: Collection[str]) -> np.ndarray:
    """The values of the tensor ``name``; ``names`` are all names of its network."""
    prefix, _, leaf = name.rpartition(".")
    if leaf == "num_batches_tracked":
        return np.full(shape, 7, dtype=np.int64)
    of_norm = f"{prefix}.running_mean" in names
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if leaf == "running_var" or (leaf == "weight" and of_norm):
        values = random.uniform(0.5, 1.5, shape)
    elif leaf == "weight":
        values = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif leaf == "running_mean" or of_norm:
        values = random.standard_normal(shape) * 0.1
    else:
        values = random.standard_normal(shape) * 0.01
    return np.asarray(values, dtype=np.float32)


def fill_arrays(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """The values of every tensor of a network, by name."""
    return {name: fill_array(name, shape, shapes) for name, shape in shapes.items()}


def fill_module(module: _M) -> _M:
    """Fill a module whose state dict has the released names, in place."""
    import torch

    arrays = fill_arrays({name: tuple(value.shape) for name, value in module.state_dict().items()})
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module


def seeded_normal(seed: int, shape: Sequence[int]) -> np.ndarray:
    """float32 normal noise."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def tones(samples: int, seed: int) -> np.ndarray:
    """Three sines and some noise at 16 kHz, (samples,) float64."""
    t = np.arange(samples) / SAMPLE_RATE
    return (
        0.4 * np.sin(2 * np.pi * 440 * t)
        + 0.3 * np.sin(2 * np.pi * 1250 * t + 0.5)
        + 0.2 * np.sin(2 * np.pi * 3700 * t + 1.0)
        + 0.05 * np.random.Generator(np.random.PCG64(seed)).standard_normal(samples)
    )


def ramps(width: int, height: int, *, frames: int, seed: int) -> np.ndarray:
    """Colour ramps that brighten with time, and some noise: (frames, height, width, 3) uint8."""
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    picture = np.stack(
        [
            np.broadcast_to(180 * x // (width - 1), (height, width)),
            np.broadcast_to(180 * y // (height - 1), (height, width)),
            180 * (x + y) // (width + height - 2),
        ],
        axis=-1,
    )
    random = np.random.Generator(np.random.PCG64(seed))
    noise = random.integers(0, 31, size=(frames, height, width, 3))
    return (picture + 5 * np.arange(frames)[:, None, None, None] + noise).astype(np.uint8)
