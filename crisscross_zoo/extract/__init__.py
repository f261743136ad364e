"""From media files to features: one file, or folders of any size.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.extract.extractor import FeatureExtractor as FeatureExtractor
    from crisscross_zoo.extract.options import ExtractOptions as ExtractOptions
    from crisscross_zoo.extract.report import Summary as Summary
    from crisscross_zoo.extract.run import extract_files as extract_files

_HOMES = {
    "ExtractOptions": "crisscross_zoo.extract.options",
    "FeatureExtractor": "crisscross_zoo.extract.extractor",
    "Summary": "crisscross_zoo.extract.report",
    "extract_files": "crisscross_zoo.extract.run",
}

__all__ = ["ExtractOptions", "FeatureExtractor", "Summary", "extract_files"]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
