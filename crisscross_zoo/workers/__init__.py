"""Worker processes that decode files, samples that data workers load, and their errors.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.workers.pool import usable_cores as usable_cores
    from crisscross_zoo.workers.pool import work_on_files as work_on_files
    from crisscross_zoo.workers.samples import SampleDataset as SampleDataset
    from crisscross_zoo.workers.samples import SampleKey as SampleKey

_HOMES = {
    "SampleDataset": "crisscross_zoo.workers.samples",
    "SampleKey": "crisscross_zoo.workers.samples",
    "usable_cores": "crisscross_zoo.workers.pool",
    "work_on_files": "crisscross_zoo.workers.pool",
}

__all__ = [
    "SampleDataset",
    "SampleKey",
    "usable_cores",
    "work_on_files",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
