"""The fingerprint of a file, its size and modification time, which shows whether it has changed."""

from __future__ import annotations

import os
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """Size and modification time of a file; files with equal fingerprints are taken to have the same content.

    Attributes:
        bytes: Size.
        modified_ns: Modification time, nanoseconds since 1970.
    """

    bytes: int
    modified_ns: int


def fingerprint_of(path: str | os.PathLike[str]) -> Fingerprint:
    """Return the fingerprint of a local file.

    Raises:
        OSError: there is no such file, or its status cannot be read.
        ValueError: no file can have this name.
    """
    status = os.stat(path)
    return Fingerprint(status.st_size, status.st_mtime_ns)
