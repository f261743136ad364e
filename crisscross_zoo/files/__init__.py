"""Files: finding media, folder layouts of data sets, atomic writes, fingerprints, failures, local and remote folders.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.files.atomic import atomic_path as atomic_path
    from crisscross_zoo.files.atomic import write_atomically as write_atomically
    from crisscross_zoo.files.digest import file_sha256 as file_sha256
    from crisscross_zoo.files.failures import failure_row as failure_row
    from crisscross_zoo.files.find import find_media as find_media
    from crisscross_zoo.files.store import Folder as Folder
    from crisscross_zoo.files.store import open_folder as open_folder

_HOMES = {
    "Folder": "crisscross_zoo.files.store",
    "atomic_path": "crisscross_zoo.files.atomic",
    "failure_row": "crisscross_zoo.files.failures",
    "file_sha256": "crisscross_zoo.files.digest",
    "find_media": "crisscross_zoo.files.find",
    "open_folder": "crisscross_zoo.files.store",
    "write_atomically": "crisscross_zoo.files.atomic",
}

__all__ = [
    "Folder",
    "atomic_path",
    "failure_row",
    "file_sha256",
    "find_media",
    "open_folder",
    "write_atomically",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
