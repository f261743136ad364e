"""Checkpoints: their files, loading and saving, model cards, and the Hub's client.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.checkpoints.files import apply_state_dict as apply_state_dict
    from crisscross_zoo.checkpoints.files import read_checkpoint as read_checkpoint
    from crisscross_zoo.checkpoints.files import state_sha256 as state_sha256
    from crisscross_zoo.checkpoints.files import write_checkpoint as write_checkpoint

_HOMES = {
    "apply_state_dict": "crisscross_zoo.checkpoints.files",
    "read_checkpoint": "crisscross_zoo.checkpoints.files",
    "state_sha256": "crisscross_zoo.checkpoints.files",
    "write_checkpoint": "crisscross_zoo.checkpoints.files",
}

__all__ = [
    "apply_state_dict",
    "read_checkpoint",
    "state_sha256",
    "write_checkpoint",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
