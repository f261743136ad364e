"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, by: str = "") -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``, made if need be; what is written there becomes ``path``.

    The temporary name is always the same, so that what a killed process left is taken up by the next. If the block
    raises, nothing is left of it.

    Args:
        path: The file.
        by: Who writes, where several processes may write ``path`` at once: it goes into the temporary name.

    Raises:
        OSError: the folder or file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path.name, by))
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _temporary_name(name: str, by: str) -> str:
    temporary = f".{name}{by and f'.{by}'}.tmp"
    if len(os.fsencode(name)) <= _LONGEST_NAME < len(os.fsencode(temporary)):
        return _temporary_name(hashlib.sha256(os.fsencode(name)).hexdigest(), by)
    return temporary


def write_atomically(path: str | os.PathLike[str], data: bytes, *, by: str = "") -> None:
    """Write ``data`` to a temporary name in the same folder, then rename it to ``path``: see :func:`atomic_path`.

    Raises:
        OSError: the folder or file cannot be written.
    """
    with atomic_path(path, by=by) as temporary:
        temporary.write_bytes(data)
