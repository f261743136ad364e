"""Pretraining: model, loss, data and loop (section 3 of the paper, appendices D, F, G).

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.pretrain.optim import LARC as LARC
    from crisscross_zoo.pretrain.schedule import cosine_schedule as cosine_schedule

_HOMES = {"LARC": "crisscross_zoo.pretrain.optim", "cosine_schedule": "crisscross_zoo.pretrain.schedule"}

__all__ = ["LARC", "cosine_schedule"]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
