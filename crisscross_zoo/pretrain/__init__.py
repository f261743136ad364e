"""Pretraining: model, loss, data and loop (section 3 of the paper, appendices D, F, G).

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crisscross_zoo.pretrain.optim import LARC as LARC
    from crisscross_zoo.pretrain.schedule import cosine_schedule as cosine_schedule

_HOMES = {"LARC": "crisscross_zoo.pretrain.optim", "cosine_schedule": "crisscross_zoo.pretrain.schedule"}

__all__ = ["LARC", "cosine_schedule"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
