"""From media files to features: one file, or folders of any size.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.extract.extractor import FeatureExtractor as FeatureExtractor

_HOMES = {"FeatureExtractor": "crisscross_zoo.extract.extractor"}

__all__ = ["FeatureExtractor"]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
