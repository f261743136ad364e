"""A data set packed into litdata's chunks: few large files, for storage that is slow with many small ones.

A folder of shards holds the usable files of an index, byte for byte and in its order, and the index. The index is
written last: a folder without an index is not finished.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crisscross_zoo.errors import ConfigError, UnreadableMediaError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.index import INDEX_NAME, Index, read_index
from crisscross_zoo.pretrain.prepare import SETTINGS_NAME
from crisscross_zoo.settings import StrPath

SHARD_BYTES = 256 << 20
"""Default size of a shard in bytes."""

_LARGEST = (1 << 32) - (1 << 20)  # litdata counts the bytes of a chunk in 32 bits


def pack(index: Index, out_dir: StrPath, *, workers: int = 1, shard_bytes: int = SHARD_BYTES) -> int:
    """Copy an index's usable files into shards.

    Args:
        index: An index from :func:`crisscross_zoo.pretrain.index.read_index`.
        out_dir: Folder to write to: new, or empty.
        workers: Number of copying workers, 1 or more.
        shard_bytes: Size of a shard in bytes; a larger file has a shard of its own.

    Returns:
        The number of shards.

    Raises:
        ConfigError: litdata is missing, an option is out of range, or ``out_dir`` is not empty.
        UnreadableMediaError: a file was changed or removed since it was indexed, or has 4 GiB or more.
    """
    litdata = import_litdata()
    folder = Path(os.path.abspath(out_dir))
    for name, value, most in (("workers", workers, 1 << 10), ("shard_bytes", shard_bytes, _LARGEST)):
        if not 1 <= value <= most:
            raise ConfigError(f"{name}={value!r} is not allowed", remedy=f"give 1 to {most}")
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not an empty folder", remedy="empty it, or name another")
    for info in index:
        _check(info)
    start_method = multiprocessing.get_start_method(allow_none=True)
    try:
        litdata.optimize(
            fn=functools.partial(_item, index),
            inputs=list(range(len(index))),
            output_dir=str(folder),
            chunk_bytes=shard_bytes,
            num_workers=min(workers, len(index)),
            keep_data_ordered=True,
            verbose=False,
        )
    finally:
        multiprocessing.set_start_method(start_method, force=True)  # litdata sets its own
    write_atomically(folder / INDEX_NAME, Path(index.path).read_bytes())
    return len(list(folder.glob("*.bin")))


def open_data(path: StrPath, *, root: StrPath | None = None) -> tuple[Sequence[Media], str]:
    """Return the files to pretrain on, and an identifier of the data set.

    Args:
        path: An index, a folder of shards, or a folder of copies (:mod:`crisscross_zoo.pretrain.prepare`).
        root: The folder that the index's files are in now, if they were moved.

    Returns:
        ``(files, data_id)``: an Index or a ShardReader; and the sha256 of the index, hexadecimal. Shards have the same
        ``data_id`` as their index, so that a run that was started with the index can be resumed with its shards.

    Raises:
        ConfigError: pyarrow or litdata is missing, or ``path`` does not exist or is none of these.
    """
    folder = Path(path)
    if (folder / SETTINGS_NAME).is_file():
        path, root = folder / INDEX_NAME, folder if root is None else root
    elif folder.is_dir():
        return ShardReader(folder), file_sha256(folder / INDEX_NAME)
    return read_index(path, root=root), file_sha256(path)


class ShardReader(Sequence[Media]):
    """The files of a folder of shards, in the order of the index. It can be passed to other processes.

    ``reader[i]`` is the index's Media of file i; no shard is opened for it. Its ``path`` is that of the original.

    Args:
        folder: A folder that :func:`pack` wrote, or a URL of a copy of it that litdata reads (``s3://...``).
        index: The index of the shards, if the folder is not on this machine.

    Raises:
        ConfigError: litdata or pyarrow is missing, or the folder has no index.
    """

    def __init__(self, folder: StrPath, *, index: Index | None = None) -> None:
        self.folder = os.fspath(folder)
        if index is None and not Path(folder, INDEX_NAME).is_file():
            raise ConfigError(
                f"{self.folder}: has no {INDEX_NAME}, so it is not a finished folder of shards",
                remedy="pass an index: crisscross-pretrain index writes the index of a folder of videos",
            )
        import_litdata()
        self.files = read_index(Path(folder) / INDEX_NAME) if index is None else index
        self._data: Any = None
        self._process = 0

    def __len__(self) -> int:
        return len(self.files)

    @typing.overload
    def __getitem__(self, position: int) -> Media: ...

    @typing.overload
    def __getitem__(self, position: slice) -> list[Media]: ...

    def __getitem__(self, position: int | slice) -> Media | list[Media]:
        return self.files[position]

    def open(self, position: int) -> io.BytesIO:
        """Return the bytes of the file at a position, as an open file.

        Raises:
            IndexError: the position is out of range.
            UnreadableMediaError: the shard cannot be read, or the shards are of another index.
        """
        litdata, position = import_litdata(), range(len(self))[position]
        try:
            if self._process != os.getpid():  # litdata's readers have threads, which do not survive a fork
                self._data = litdata.StreamingDataset(self.folder, shuffle=False)
                self._process = os.getpid()
            item = self._data[position]
        except Exception as error:  # litdata has no error of its own
            raise UnreadableMediaError(
                f"file {position} cannot be read from its shard ({type(error).__name__}: {error})",
                remedy="check the folder, or pack it again",
                path=self.folder,
            ) from None
        if item["place"] != position or len(item["data"]) != self.files[position].size:
            raise UnreadableMediaError(
                f"file {position} of the shards is not that of the index",
                remedy="pack it again",
                path=self.folder,
            )
        return io.BytesIO(item["data"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None, "_process": 0}


def _item(index: Index, position: int) -> dict[str, Any]:
    info = index[position]
    _check(info)
    return {"place": position, "data": Path(info.path).read_bytes()}


def _check(info: Media) -> None:
    size = Path(info.path).stat().st_size if os.path.exists(info.path) else None
    if size != info.size:
        now = "gone" if size is None else f"{size} bytes"
        raise UnreadableMediaError(
            f"has changed since it was indexed ({info.size} bytes then, now {now})",
            remedy="build the index again",
            path=info.path,
        )
    if size > _LARGEST:
        raise UnreadableMediaError("is too large for a shard", remedy="split it", path=info.path)


def import_litdata() -> Any:
    """Return the module litdata.

    Raises:
        ConfigError: litdata is not installed.
    """
    try:
        import litdata
    except ImportError:
        raise ConfigError(
            "shards need litdata, which is not installed", remedy='pip install "crisscross-zoo[shards]"'
        ) from None
    return litdata
