"""Extract features from media files: one file, or folders of any size.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.extract.extractor import FeatureExtractor as FeatureExtractor
    from crisscross_zoo.extract.options import ExtractOptions as ExtractOptions
    from crisscross_zoo.extract.report import Event as Event
    from crisscross_zoo.extract.report import FileDone as FileDone
    from crisscross_zoo.extract.report import FileFailed as FileFailed
    from crisscross_zoo.extract.report import FileNote as FileNote
    from crisscross_zoo.extract.report import FileSkipped as FileSkipped
    from crisscross_zoo.extract.report import FileWarning as FileWarning
    from crisscross_zoo.extract.report import Message as Message
    from crisscross_zoo.extract.report import Progress as Progress
    from crisscross_zoo.extract.report import Summary as Summary
    from crisscross_zoo.extract.run import extract_files as extract_files

_HOMES = {
    "ExtractOptions": "crisscross_zoo.extract.options",
    "FeatureExtractor": "crisscross_zoo.extract.extractor",
    "Event": "crisscross_zoo.extract.report",
    "FileDone": "crisscross_zoo.extract.report",
    "FileFailed": "crisscross_zoo.extract.report",
    "FileNote": "crisscross_zoo.extract.report",
    "FileSkipped": "crisscross_zoo.extract.report",
    "FileWarning": "crisscross_zoo.extract.report",
    "Message": "crisscross_zoo.extract.report",
    "Progress": "crisscross_zoo.extract.report",
    "Summary": "crisscross_zoo.extract.report",
    "extract_files": "crisscross_zoo.extract.run",
}

__all__ = [
    "Event",
    "ExtractOptions",
    "FeatureExtractor",
    "FileDone",
    "FileFailed",
    "FileNote",
    "FileSkipped",
    "FileWarning",
    "Message",
    "Progress",
    "Summary",
    "extract_files",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
