"""By which a file is known to be unchanged: its size and when it was changed last."""

from __future__ import annotations

import os
from typing import NamedTuple


class Stamp(NamedTuple):
    """Size and time of a file; equal ones are taken for the same content.

    Attributes:
        bytes: Size.
        modified_ns: When it was changed last, nanoseconds since 1970.
    """

    bytes: int
    modified_ns: int


def stamp_of(path: str | os.PathLike[str]) -> Stamp:
    """Return the stamp of a local file.

    Raises:
        OSError: there is no such file, or it cannot be asked.
        ValueError: no file can have this name.
    """
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns)
