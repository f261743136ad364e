"""Files that are whole or not there, and the error for a disk that takes no more."""

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

_NAME_BYTES = 255  # that nearly every file system takes

_LONG_BYTES = 128
"""The temporary name of a longer name is a digest, so that it is no longer than the name."""

_PROBE_BYTES = 1 << 16

_NO_ROOM = {
    errno.ENOSPC: ("the disk is full", "make room there"),
    errno.EDQUOT: ("the disk quota is used up", "make room there, or ask for more"),
    errno.EROFS: ("the file system is read-only", "mount it for writing, or choose another folder"),
}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, by: str = "") -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``, made if need be; what is written there becomes ``path``.

    The temporary name is always the same, so that what a killed process left is taken up by the next. If the block
    raises, nothing is left of it.

    Args:
        path: The file.
        by: Who writes, where several processes may write ``path`` at once: it goes into the temporary name.

    Raises:
        StorageError: the disk is full, over quota or read-only; what was at ``path`` is still there.
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
                _ask_disk(temporary, error)
                raise
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_atomically(path: str | os.PathLike[str], data: bytes, *, by: str = "") -> None:
    """Write ``data`` to a temporary name in the same folder, then rename it to ``path``: see :func:`atomic_path`.

    Raises:
        StorageError: the disk is full, over quota or read-only; what was at ``path`` is still there.
        OSError: the folder or file cannot be written.
    """
    with atomic_path(path, by=by) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def writing(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what says that a disk takes no more into a :class:`StorageError`; all else is raised as it is.

    Args:
        folder: What is written to, where the system's error does not name it.
    """
    try:
        yield
    except OSError as error:
        if (full := storage_error(error, folder)) is None:
            raise
        raise full from None


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for temporary files (``TMPDIR``), which goes when the block that it is used in ends.

    Raises:
        StorageError: there is none that can be written to.
    """
    try:
        with writing(tempfile.gettempdir()):
            return tempfile.TemporaryDirectory(prefix="crisscross-", ignore_cleanup_errors=True)
    except (
        FileNotFoundError
    ) as error:  # where each candidate is full, gettempdir says this in place of ENOSPC
        raise StorageError(
            f"no folder for temporary files can be written to ({error.strerror})",
            remedy="make room there, or set TMPDIR to a folder that can be written to",
            path=os.environ.get("TMPDIR", ""),
        ) from None


def storage_error(error: OSError, folder: str | os.PathLike[str] | None = None) -> StorageError | None:
    """Return the error for a disk that is full, over quota or read-only, None where ``error`` is another.

    Args:
        error: The system's.
        folder: What was written to, where the error does not name it.
    """
    if error.errno not in _NO_ROOM:
        return None
    what, remedy = _NO_ROOM[error.errno]
    named = error.filename if isinstance(error.filename, str) else None
    place = os.fspath(folder) if folder is not None else named
    where = "" if place is None else f" ({_disk_of(place)})"
    return StorageError(
        f"cannot be written: {what}{where}",
        remedy=f"{remedy}, then run the same again: what is done stays",
        path=place,
    )


def longest_name(folder: str | os.PathLike[str]) -> int:
    """Return how many bytes a file's name in ``folder``, which need not be there yet, may have."""
    if sys.platform == "win32":
        return _NAME_BYTES
    there = next(p for p in (Path(folder), *Path(folder).absolute().parents) if os.path.exists(p))
    try:
        return os.pathconf(there, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # a file system that does not say
        return _NAME_BYTES


def _disk_of(place: str) -> str:
    """Say which disk a file or folder is on, and how much of it is free."""
    disk = os.path.realpath(place)
    while not os.path.ismount(disk) and disk != os.path.dirname(disk):
        disk = os.path.dirname(disk)
    try:
        free = shutil.disk_usage(disk).free
    except OSError:
        return disk
    return f"{disk}, {free / 1e6:.0f} MB free"


def _ask_disk(temporary: Path, error: Exception) -> None:
    """Raise the disk's own error where a writer failed for one and has not said so, as torch's does."""
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
