"""Weights: the manifest, finding and downloading checkpoints, and loading them into encoders.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.weights.convert import convert_checkpoint as convert_checkpoint
    from crisscross_zoo.weights.convert import read_pth as read_pth
    from crisscross_zoo.weights.load import FoundCheckpoint as FoundCheckpoint
    from crisscross_zoo.weights.load import find_checkpoint as find_checkpoint
    from crisscross_zoo.weights.load import load_encoder as load_encoder
    from crisscross_zoo.weights.load import open_checkpoint as open_checkpoint
    from crisscross_zoo.weights.loaded import LoadedWeights as LoadedWeights
    from crisscross_zoo.weights.loaded import load_weights as load_weights
    from crisscross_zoo.weights.manifest import WeightsEntry as WeightsEntry
    from crisscross_zoo.weights.manifest import find_weights as find_weights
    from crisscross_zoo.weights.manifest import list_weights as list_weights

_HOMES = {
    "FoundCheckpoint": "crisscross_zoo.weights.load",
    "LoadedWeights": "crisscross_zoo.weights.loaded",
    "WeightsEntry": "crisscross_zoo.weights.manifest",
    "convert_checkpoint": "crisscross_zoo.weights.convert",
    "find_checkpoint": "crisscross_zoo.weights.load",
    "find_weights": "crisscross_zoo.weights.manifest",
    "list_weights": "crisscross_zoo.weights.manifest",
    "load_encoder": "crisscross_zoo.weights.load",
    "load_weights": "crisscross_zoo.weights.loaded",
    "open_checkpoint": "crisscross_zoo.weights.load",
    "read_pth": "crisscross_zoo.weights.convert",
}

__all__ = [
    "FoundCheckpoint",
    "LoadedWeights",
    "WeightsEntry",
    "convert_checkpoint",
    "find_checkpoint",
    "find_weights",
    "list_weights",
    "load_encoder",
    "load_weights",
    "open_checkpoint",
    "read_pth",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
