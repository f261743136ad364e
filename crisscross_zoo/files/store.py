"""Output folders: one protocol, :class:`Folder`, for a local folder and for one at a URL.

The name of a file is its path relative to the folder, with slashes. Errors of a store become an :class:`OutputError`;
those of a local disk are raised as they are.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from crisscross_zoo.errors import ConfigError, CrissCrossError, OutputError
from crisscross_zoo.files import remote
from crisscross_zoo.files.atomic import atomic_path, temporary_folder, writing


class Folder(Protocol):
    """A folder that outputs are written to; it need not exist yet."""

    @property
    def local(self) -> Path | None:
        """The folder's path on this machine; None for a folder at a URL."""

    def locate(self, name: str = "") -> str:
        """Return the path or URL of a file in the folder, or of the folder itself."""

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""

    def existing(self, names: Collection[str]) -> list[str]:
        """Return which of the files exist, as the folder is now."""

    def oldest_first(self, pattern: str) -> list[str]:
        """Return the names that match a pattern such as ``"*/index.csv"``, oldest file first."""

    def refresh(self) -> None:
        """Drop cached listings of the folder: others may have written to it."""

    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local file with the content of ``name``; raises like :func:`remote.local_copy`."""

    def save(self, name: str, write: Callable[[Path], Sequence[Path]]) -> None:
        """Call ``write`` with a local path, and put the files that it returns at ``name``.

        The files are at the path or beside it; they appear in the order in which they are returned.
        """

    def replacing(self, name: str, data: bytes, *, by: str = "") -> AbstractContextManager[None]:
        """Write a file that replaces ``name`` when the block ends; a full local disk raises before the block.

        Args:
            name: The file.
            data: Its content.
            by: A name of the writer, if several processes may write the file at once.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def remove_folder(self, name: str) -> None:
        """Remove a folder and its content, if it exists."""


@dataclass(frozen=True)
class LocalFolder:
    """A :class:`Folder` on this machine.

    Attributes:
        path: The folder.
        scratch: A folder on the same file system for unfinished files, for processes that may write the same file
            without knowing of each other.
    """

    path: Path
    scratch: Path | None = None

    @property
    def local(self) -> Path:
        """The folder's path."""
        return self.path

    def locate(self, name: str = "") -> str:
        """As in the protocol, like all that follow."""
        return str(self.path / name)

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""
        return (self.path / name).exists()

    def existing(self, names: Collection[str]) -> list[str]:
        """Return which of the files exist."""
        return [name for name in names if self.exists(name)]

    def oldest_first(self, pattern: str) -> list[str]:
        """Return the names that match, sorted by modification time."""
        found = sorted(self.path.glob(pattern), key=lambda p: (p.stat().st_mtime, p.parent.name))
        return [p.relative_to(self.path).as_posix() for p in found]

    def refresh(self) -> None:
        """Do nothing: nothing is cached."""

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return (self.path / name).read_bytes()

    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """Yield the file itself."""
        return contextlib.nullcontext(self.path / name)

    def save(self, name: str, write: Callable[[Path], Sequence[Path]]) -> None:
        """Have the file written in place, or in the scratch folder and moved."""
        target = self.path / name
        if self.scratch is None:
            write(target)
            return
        files = write(self.scratch / target.name)
        with writing(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            for file in files:
                file.replace(target.with_name(file.name))

    @contextlib.contextmanager
    def replacing(self, name: str, data: bytes, *, by: str = "") -> Iterator[None]:
        """Write to a temporary name, and rename that at the end."""
        with atomic_path(self.path / name, by=by) as temporary:
            temporary.write_bytes(data)
            yield

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with writing(self.path):
            (self.path / name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        """Remove a folder, if it exists."""
        if (self.path / name).exists():
            shutil.rmtree(self.path / name)


@dataclass(frozen=True)
class RemoteFolder:
    """A :class:`Folder` at a URL that fsspec opens.

    In a bucket (s3://, gs://) an object appears whole or not at all. Where the store is a file system (sftp://), a
    process killed in mid-write leaves half a file.

    Attributes:
        url: The folder.
    """

    url: str

    @property
    def local(self) -> None:
        """None."""
        return

    def locate(self, name: str = "") -> str:
        """As in the protocol, like all that follow."""
        return f"{self.url.rstrip('/')}/{name}".rstrip("/")

    def exists(self, name: str) -> bool:
        """Return whether an object exists."""
        with self._asking("read", name) as (fs, path):
            return bool(fs.exists(path))

    def existing(self, names: Collection[str]) -> list[str]:
        """Return which of the files exist, by one listing."""
        existing = self._names()
        return [name for name in names if name in existing]

    def oldest_first(self, pattern: str) -> list[str]:
        """Return the names that match, sorted by modification time, if the store reports one."""
        below = pattern.split("*")[0].rpartition("/")[0]  # a folder may hold a million files
        names = (f"{below}/{name}".lstrip("/") for name in self._names(below))
        found = [name for name in names if PurePosixPath("/", name).match(f"/{pattern}")]

        def age(name: str) -> tuple[float, str]:
            with self._asking("read", name) as (fs, path):
                try:
                    return float(fs.modified(path).timestamp()), name
                except (NotImplementedError, KeyError):
                    return 0.0, name

        return sorted(found, key=age)

    def refresh(self) -> None:
        """Drop cached listings."""
        with self._asking("read") as (fs, _):
            fs.invalidate_cache()

    def read(self, name: str) -> bytes:
        """Return the content of an object."""
        with self._asking("read", name) as (fs, path):
            return bytes(fs.cat_file(path))

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        """Download an object to a temporary file."""
        with remote.local_copy(self.locate(name)) as local:
            yield Path(local)

    def save(self, name: str, write: Callable[[Path], Sequence[Path]]) -> None:
        """Have the file written to a temporary path, and upload it."""
        with temporary_folder() as folder:
            # A store allows longer names than a disk.
            (file,) = write(Path(folder) / f"features{PurePosixPath(name).suffix}")
            self.write(name, file.read_bytes())

    def write(self, name: str, data: bytes) -> None:
        """Upload an object in one piece."""
        with self._asking("written", name) as (fs, path):
            # A bucket has no folders; s3fs would check for the bucket each time, and create it if it seems missing.
            if not remote.in_bucket(self.url):
                fs.makedirs(fs._parent(path), exist_ok=True)
            fs.pipe_file(path, data)  # mv would take [, * and ? in a name for a pattern

    @contextlib.contextmanager
    def replacing(self, name: str, data: bytes, *, by: str = "") -> Iterator[None]:  # noqa: ARG002
        """Upload an object when the block ends."""
        yield
        self.write(name, data)

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with self._asking("removed", name) as (fs, path):
            fs.invalidate_cache(path)
            if fs.exists(path):
                fs.rm_file(path)

    def remove_folder(self, name: str) -> None:
        """Remove all objects below a name."""
        with self._asking("removed", name) as (fs, path):
            if self._names(name):
                fs.rm(path, recursive=True)
                if self._names(name):  # s3fs ignores refusals
                    raise PermissionError("files in it remain")

    def check_bucket(self) -> None:
        """Raise a ConfigError if the bucket does not exist: some stores would create one of any name that is free."""
        if not remote.in_bucket(self.url):
            return
        with self._asking("written") as (fs, path):
            bucket = path.split("/")[0]
            try:
                # exists() of s3fs is also False on a refusal or without a connection; info() raises the reason.
                if not fs.exists(bucket):
                    fs.info(bucket)
            except FileNotFoundError:
                raise ConfigError(
                    f"{self.url}: there is no bucket {bucket!r}", remedy="create it, or check the URL"
                ) from None

    def _names(self, below: str = "") -> set[str]:
        """Return the names of all files in and below a folder, relative to it, as the store has them now."""
        with self._asking("listed", below) as (fs, root):
            fs.invalidate_cache()
            return {name[len(root) :].lstrip("/") for name in remote.files_below(fs, root)}

    @contextlib.contextmanager
    def _asking(self, done: str, name: str = "") -> Iterator[tuple[Any, str]]:
        """Yield the file system and the path of ``name`` in it; an error is an OutputError, "cannot be ``done``"."""
        try:
            fs, root = remote.open_store(self.url)
            yield fs, f"{root.rstrip('/')}/{name}" if name else root
        except CrissCrossError:
            raise
        except Exception as error:  # each store has errors of its own
            raise OutputError(
                f"cannot be {done} ({remote.reason_of(error)})",
                remedy=remote.remedy_of(error),
                path=self.locate(name),
            ) from None


def open_folder(out: str) -> Folder:
    """Return the folder at a local path or URL; it need not exist.

    Raises:
        ConfigError: nothing installed opens such URLs, the bucket does not exist, or the URL is not for outputs.
        OutputError: the store cannot be reached, or refuses.
    """
    if not remote.is_url(out):
        return LocalFolder(Path(out))
    _check_writable_url(out)
    folder = RemoteFolder(out)
    folder.check_bucket()
    folder.refresh()  # raises if a dependency is missing to open it
    return folder


def open_file(out: str) -> tuple[Folder, str]:
    """Return the folder of a file at a local path or URL, and the file's name; raises like :func:`open_folder`."""
    if remote.is_url(out):
        _check_writable_url(out)
        parent, _, name = out.rpartition("/")
        return open_folder(parent), name
    return LocalFolder(Path(out).parent), Path(out).name


def _check_writable_url(out: str) -> None:
    if out.startswith("hf://"):
        raise ConfigError(
            f"{out}: every file would be a commit",
            remedy="write to a folder, then run `hf upload-large-folder`",
        )
    if remote.is_http(out):
        raise ConfigError(f"{out}: a web server takes no files", remedy="write to a folder or a bucket")
    if has_magic(out):
        raise ConfigError(f"{out}: stores take [, * and ? for a pattern", remedy="choose another --out")
