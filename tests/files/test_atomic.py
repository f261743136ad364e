"""Atomic writes: the temporary name, the state after an error, and the disk's own errors."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from crisscross_zoo.errors import InputError, StorageError
from crisscross_zoo.files.atomic import (
    atomic_path,
    longest_name,
    storage_error,
    temporary_folder,
    write_atomically,
    writing,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fail_in(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


# --- the temporary name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "by", "temporary"),
    [
        ("a.npz", "", ".a.npz.tmp"),
        ("a.npz", "0-of-2", ".a.npz.0-of-2.tmp"),
        ("n" * 128, "", f".{'n' * 128}.tmp"),
    ],
)
def test_the_temporary_name_is_hidden_and_names_its_writer(
    tmp_path: Path, name: str, by: str, temporary: str
) -> None:
    with atomic_path(tmp_path / name, by=by) as path:
        assert path == tmp_path / temporary
        path.touch()
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["n" * 129, "é" * 65])
def test_a_long_name_is_a_digest_while_it_is_written(tmp_path: Path, name: str) -> None:
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    with atomic_path(tmp_path / name, by="w") as path:
        assert path == tmp_path / f".{digest}.w.tmp"
        path.touch()
    assert names(tmp_path) == [name]


# --- atomicity -----------------------------------------------------------------------------------------------------


def test_the_temporary_file_becomes_the_file_and_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "x"
    for data in (b"one", b"two"):  # the second time everything exists already
        write_atomically(target, data)
        assert target.read_bytes() == data
    assert names(target.parent) == ["x"]


def test_the_file_does_not_exist_before_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with atomic_path(target) as path:
        assert path == tmp_path / ".x.tmp"
        path.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"


def test_each_writer_has_a_temporary_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write(path: Path, data: bytes) -> None:
        written.append(path.name)
        path.touch()

    monkeypatch.setattr(Path, "write_bytes", write)
    write_atomically(tmp_path / "x", b"", by="0-of-2")
    write_atomically(tmp_path / "x", b"")
    assert written == [".x.0-of-2.tmp", ".x.tmp"]


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), PermissionError(errno.EACCES, "no")]
)
def test_after_an_error_all_is_as_before(tmp_path: Path, error: BaseException) -> None:
    write_atomically(tmp_path / "x", b"old")
    with pytest.raises(type(error)) as caught:
        fail_in(tmp_path / "x", error)
    assert caught.value is error
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_an_error_before_anything_was_written_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), atomic_path(tmp_path / "x"):
        raise ValueError("bad")
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_renamed_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    with pytest.raises(OSError, match="x"):  # there is a folder of this name
        write_atomically(tmp_path / "x", b"new")
    assert names(tmp_path) == ["x"]


# --- a full disk -------------------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_the_disk_is_probed_if_a_writer_gives_no_reason_for_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[int] = []

    def fsync(file: BinaryIO) -> None:
        probed.append(os.fstat(file.fileno()).st_size)
        full()

    monkeypatch.setattr(os, "fsync", fsync)
    for error in (RuntimeError("unexpected pos 64 vs 0"), OSError("without a number")):
        with pytest.raises(StorageError, match="the disk is full") as caught:
            fail_in(tmp_path / "x", error)
        assert caught.value.path == str(tmp_path)
        assert names(tmp_path) == []
    assert probed == [4 + (1 << 16)] * 2, "some zeros are appended to the file and flushed to the disk"


@pytest.mark.parametrize("error", [InputError("no rows"), PermissionError(errno.EACCES, "no")])
def test_it_is_not_probed_if_the_reason_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(type(error)):
        fail_in(tmp_path / "x", error)


def test_the_error_names_the_folder_or_else_the_systems_file(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "full", str(tmp_path / "x"))
    for folder, path in ((tmp_path, tmp_path), (None, tmp_path / "x")):
        found = storage_error(error, folder)
        assert found is not None
        assert found.path == str(path)
        assert "MB free)" in str(found)
    found = storage_error(OSError(errno.ENOSPC, "full"))
    assert found is not None
    assert (found.path, found.reason) == (None, "cannot be written: the disk is full")
    assert storage_error(OSError(errno.ENOSPC, "full", 3)).path is None  # type: ignore[union-attr]
    with pytest.raises(StorageError) as caught, writing(tmp_path):
        raise error
    assert caught.value.path == str(tmp_path)
    assert caught.value.__suppress_context__


def test_the_free_space_is_that_of_the_disk_in_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path))

    def usage(disk: str) -> SimpleNamespace:
        probed.append(disk)
        return SimpleNamespace(free=10**12)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    error = storage_error(OSError(errno.EDQUOT, "quota"), tmp_path / "not" / "there")
    assert error is not None
    assert f"({tmp_path}, 1000000 MB free)" in str(error)
    assert probed == [str(tmp_path)]
    monkeypatch.setattr(shutil, "disk_usage", full)
    assert f"({tmp_path})" in str(storage_error(OSError(errno.EDQUOT, "quota"), tmp_path))


def test_a_temporary_folder_is_removed_with_its_block_and_its_error_names_the_full_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as name:
        assert Path(name).parent == tmp_path
        assert Path(name).name.startswith("crisscross-")
        Path(name, "x").touch()
    assert names(tmp_path) == []
    with monkeypatch.context() as patch, temporary_folder() as name:
        patch.setattr(os, "rmdir", full)  # a folder that cannot be removed stays
    assert names(tmp_path) == [Path(name).name]

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        temporary_folder()
    assert caught.value.path == str(tmp_path)

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    for set_to in (str(tmp_path), None):
        if set_to:
            monkeypatch.setenv("TMPDIR", set_to)
        else:
            monkeypatch.delenv("TMPDIR")
        with pytest.raises(StorageError, match=r"No usable temporary directory found.*set TMPDIR") as caught:
            temporary_folder()
        assert caught.value.path == (set_to or "")


def test_the_longest_name_is_that_of_the_nearest_existing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[tuple[Path, str]] = []

    def pathconf(path: Path, what: str) -> int:
        probed.append((path, what))
        return 143

    monkeypatch.setattr(os, "pathconf", pathconf, raising=False)
    assert longest_name(tmp_path / "not" / "there") == longest_name(tmp_path) == 143
    assert probed == [(tmp_path, "PC_NAME_MAX")] * 2
    monkeypatch.setattr(os, "pathconf", full)
    assert longest_name(tmp_path) == 255
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "pathconf", pathconf, raising=False)
    assert longest_name(tmp_path) == 255
