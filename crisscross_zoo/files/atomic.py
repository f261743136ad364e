"""Atomic writes, and the error for a disk that is full, over quota or read-only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crisscross_zoo.errors import CrissCrossError, StorageError

_NAME_BYTES = 255  # which nearly every file system allows

_LONG_BYTES = 128
"""A name longer than this gets a digest as its temporary name, which is then no longer than the name itself."""

_PROBE_BYTES = 1 << 16

_NO_ROOM = {
    errno.ENOSPC: ("the disk is full", "make room there"),
    errno.EDQUOT: ("the disk quota is used up", "make room there, or ask for more"),
    errno.EROFS: ("the file system is read-only", "mount it for writing, or choose another folder"),
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, by: str = "") -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; the file written there is renamed to ``path`` at the end.

    The folder is created if it is missing. The temporary name is always the same, so that the next process overwrites
    what a killed one left. If the block raises, the temporary file is removed.

    Args:
        path: The file.
        by: A name of the writer, part of the temporary name, if several processes may write ``path`` at once.

    Raises:
        StorageError: the disk is full, over quota or read-only; the old file at ``path`` is still there.
        OSError: the folder or file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(_temporary_name(path.name, by))
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                yield temporary
            except Exception as error:
                _probe_disk(temporary, error)
                raise
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_atomically(path: str | os.PathLike[str], data: bytes, *, by: str = "") -> None:
    """Write ``data`` to a temporary name in the same folder, then rename it to ``path``: see :func:`atomic_path`.

    Raises:
        StorageError: the disk is full, over quota or read-only; the old file at ``path`` is still there.
        OSError: the folder or file cannot be written.
    """
    with atomic_path(path, by=by) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def writing(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the OSError of a full, over-quota or read-only disk into a :class:`StorageError`; raise others as they are.

    Args:
        folder: The folder that is written to, which the error names.
    """
    try:
        yield
    except OSError as error:
        if (full := storage_error(error, folder)) is None:
            raise
        raise full from None


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder (in ``TMPDIR``), which is removed at the end of a ``with`` block.

    Raises:
        StorageError: no folder for temporary files can be written to.
    """
    try:
        with writing(tempfile.gettempdir()):
            return tempfile.TemporaryDirectory(prefix="crisscross-", ignore_cleanup_errors=True)
    except FileNotFoundError as error:  # gettempdir raises it, not ENOSPC, if each candidate is full
        raise StorageError(
            f"no folder for temporary files can be written to ({error.strerror})",
            remedy="make room there, or set TMPDIR to a folder that can be written to",
            path=os.environ.get("TMPDIR", ""),
        ) from None


def storage_error(error: OSError, folder: str | os.PathLike[str] | None = None) -> StorageError | None:
    """Return the error for a disk that is full, over quota or read-only; None if ``error`` is another.

    Args:
        error: The system's error.
        folder: The folder that was written to; None: the file that ``error`` names.
    """
    if error.errno not in _NO_ROOM:
        return None
    what, remedy = _NO_ROOM[error.errno]
    named = error.filename if isinstance(error.filename, str) else None
    path = os.fspath(folder) if folder is not None else named
    where = "" if path is None else f" ({_disk_of(path)})"
    return StorageError(
        f"cannot be written: {what}{where}",
        remedy=f"{remedy}, then try again: finished work is kept",
        path=path,
    )


def longest_name(folder: str | os.PathLike[str]) -> int:
    """Return the largest number of bytes in a file name in ``folder``, which need not exist yet."""
    if sys.platform == "win32":
        return _NAME_BYTES
    existing = next(p for p in (Path(folder), *Path(folder).absolute().parents) if os.path.exists(p))
    try:
        return os.pathconf(existing, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # a file system that does not report it
        return _NAME_BYTES


def _disk_of(path: str) -> str:
    """Describe the disk of a file or folder: its mount point and its free space."""
    disk = os.path.realpath(path)
    while not os.path.ismount(disk) and disk != os.path.dirname(disk):
        disk = os.path.dirname(disk)
    try:
        free = shutil.disk_usage(disk).free
    except OSError:
        return disk
    return f"{disk}, {free / 1e6:.0f} MB free"


def _probe_disk(temporary: Path, error: Exception) -> None:
    """Raise the disk's own error if a writer failed because of it without naming it, as torch's does."""
    if isinstance(error, CrissCrossError) or (isinstance(error, OSError) and error.errno is not None):
        return
    if temporary.exists():
        with temporary.open("ab") as file:
            file.write(b"\0" * _PROBE_BYTES)
            file.flush()
            os.fsync(file)


def _temporary_name(name: str, by: str) -> str:
    if len(os.fsencode(name)) > _LONG_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}{by and f'.{by}'}.tmp"
