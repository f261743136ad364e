"""A disk that is full, over quota or read-only ends a run with one line; nothing is lost, and a later run resumes."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_media import make_media
from pretrain_case import tiny_config

from crisscross_zoo import FeatureExtractor, Features
from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint, save_checkpoint
from crisscross_zoo.cli.extract import main
from crisscross_zoo.errors import StorageError
from crisscross_zoo.evaluate.store import FeatureStore
from crisscross_zoo.extract.lists import Lists
from crisscross_zoo.files import remote
from crisscross_zoo.files.atomic import atomic_path, storage_error, write_atomically, writing
from crisscross_zoo.files.store import LocalFolder
from crisscross_zoo.pretrain.index import build_index, read_index
from crisscross_zoo.pretrain.loop import pretrain

pytestmark = pytest.mark.integration

REASONS = {errno.ENOSPC: "disk is full", errno.EDQUOT: "quota is used up", errno.EROFS: "is read-only"}
DEMO = ["--weights", "demo", "--clips", "1", "--device", "cpu", "--workers", "0"]


class Disk:
    """A file system of a few kilobytes."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        self.folder = folder
        self._mount(f"size={kilobytes}k")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        if os.name == "nt" or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a small file system")

    def grow(self, kilobytes: int) -> None:
        self._mount(f"remount,size={kilobytes}k")

    def fill(self) -> None:
        with (self.folder / "filling").open("ab", buffering=0) as file, writing(self.folder):
            while True:
                file.write(b"\0" * 4096)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    folder = tmp_path / "disk"
    folder.mkdir()
    yield lambda kilobytes: Disk(folder, kilobytes)
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    first = make_media(folder / "00.mp4", seconds=0.6, size=(64, 48), audio=None)
    for number in range(1, 12):
        shutil.copy(first, folder / f"{number:02}.mp4")
    return folder


# --- the error ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", REASONS)
def test_the_error_has_what_where_and_what_to_do(tmp_path: Path, number: int) -> None:
    target = tmp_path / "new" / "x"
    write_atomically(target, b"old")
    with pytest.raises(StorageError, match=REASONS[number]) as caught:
        _fail(target, OSError(number, os.strerror(number)))
    assert caught.value.path == str(target.parent)
    assert "MB free" in caught.value.reason
    assert caught.value.remedy.endswith("then try again: finished work is kept")
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def _fail(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    assert storage_error(PermissionError(errno.EACCES, "no")) is None
    for error in (PermissionError(errno.EACCES, "no"), ValueError("bad"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            _fail(tmp_path / "x", error)
    assert list(tmp_path.iterdir()) == []


def _features(rows: int = 8000) -> Features:
    windows = np.zeros((rows, 2))
    return Features(video=np.zeros((rows, 64), np.float32), video_windows=windows, metadata={})


@pytest.mark.parametrize("what", ["npz", "npy", "safetensors", "checkpoint", "bytes"])
def test_the_errors_of_each_writer_become_that_of_a_full_disk(
    small_disk: Callable[[int], Disk], what: str
) -> None:
    """torch, safetensors and NumPy each have errors of their own, without the system's number."""
    disk = small_disk(512)
    folder = disk.folder / "checkpoints" if what == "checkpoint" else disk.folder

    def write(size: int) -> None:
        if what == "checkpoint":
            save_checkpoint(disk.folder, size, {"x": torch.zeros(size * 64)}, keep=1)
        elif what == "bytes":
            write_atomically(disk.folder / "old", bytes(size * 64 * 4))
        else:
            _features(size).save(disk.folder / f"old.{what}")

    write(8)
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with pytest.raises(StorageError, match="the disk is full"):
        write(8000)
    assert {p: p.read_bytes() for p in before} == before
    assert [p for p in folder.iterdir() if p.suffix == ".tmp"] == []


# --- extraction --------------------------------------------------------------------------------------------------


def tables(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".csv", ".jsonl")}


@pytest.mark.parametrize("number", REASONS)
@pytest.mark.parametrize("shared", [[], ["--shard", "1/2"]])
def test_the_first_one_ends_an_extraction(
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    shared: list[str],
) -> None:
    out = tmp_path / "out"
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no media")
    assert main([str(clips / "00.mp4"), str(broken), "--root", "/", "--out", str(out), *DEMO]) == 1
    before = tables(out)
    assert set(before) == {"index.csv", "failed.jsonl"}
    capsys.readouterr()

    write, calls = np.savez, []

    def savez(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(number, os.strerror(number))
        write(*args, **kwargs)

    monkeypatch.setattr("numpy.savez", savez)
    monkeypatch.setattr(Lists, "write", lambda self: _raise(number))
    command = [str(clips), "--root", "/", "--out", str(out), *DEMO, *shared]
    assert main([*command, "--quiet"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith(f"crisscross-extract: error: {out}")
    assert REASONS[number] in line
    assert len(calls) == 3
    assert tables(out) == before
    assert not [p for p in out.rglob("*") if p.suffix == ".tmp"]

    monkeypatch.undo()
    assert main(command) == 0
    done = 5 if shared else 11
    assert (
        f"{done - 2 + bool(shared)} files done, {3 - bool(shared)} already there" in capsys.readouterr().out
    )


def _raise(number: int) -> None:
    raise OSError(number, os.strerror(number))


def test_an_extraction_onto_a_small_disk_resumes_once_it_is_larger(
    clips: Path, small_disk: Callable[[int], Disk], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(52)
    out = disk.folder / "out"
    command = [str(clips), "--out", str(out), *DEMO]
    assert main([*command[1:], str(clips / "00.mp4"), "--root", str(clips)]) == 0
    capsys.readouterr()
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the disk is full" in line
    assert str(disk.folder) in line
    assert (out / "index.csv").read_text().startswith("input,output,")
    assert 1 < len(list(out.glob("*.npz"))) < 12
    assert not list(out.glob(".*.tmp"))
    disk.grow(1024)
    assert main(command) == 0
    assert main([str(clips), "--out", str(tmp_path / "whole"), *DEMO]) == 0
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_old_lists_stay_if_one_of_the_new_does_not_fit(
    small_disk: Callable[[int], Disk],
) -> None:
    disk = small_disk(256)
    out = disk.folder / "out"
    out.mkdir()
    lists = Lists(LocalFolder(out))
    (out / "a.npz").touch()
    metadata = {"shapes": {}, "duration": 1.0, "missing": [], "warnings": [], "notes": []}
    lists.add("a.mp4", "a.npz", metadata)
    lists.write()
    before = tables(out)
    other = Lists(LocalFolder(out))
    for number in range(3000):
        other.add_failure(__file__, f"{number}.npz", {"path": __file__, "reason": "x" * 100})
        other._failures[str(number)] = other._failures.pop(__file__)
    with pytest.raises(StorageError):
        other.write()
    assert tables(out) == before
    assert sorted(p.name for p in out.iterdir()) == ["a.npz", "index.csv"]


def test_json_has_what_was_done_before(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("numpy.savez", lambda *_, **__: _raise(errno.ENOSPC))
    assert main([str(clips), "--out", str(tmp_path / "out"), "--json", *DEMO]) == 1
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary["interrupted"]
    assert summary["done"] == summary["failed"] == 0
    assert "the disk is full" in shown.err


def test_a_full_temporary_folder_ends_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    extract = FeatureExtractor("demo", clips=1, device="cpu", workers=0)
    monkeypatch.setattr(remote, "source_of", lambda url: {"path": url, "bytes": 1, "modified_ns": 0})
    monkeypatch.setattr(remote, "open_store", lambda _: _raise(errno.ENOSPC))
    with pytest.raises(StorageError, match="the disk is full"):
        list(extract.stream(["s3://b/a.mp4", "s3://b/b.mp4"]))


def test_a_decoding_process_passes_the_error_on_as_it_is(tmp_path: Path) -> None:
    error = storage_error(OSError(errno.ENOSPC, "full"), tmp_path)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (StorageError, str(error))


def test_fetching_onto_a_full_disk_is_no_failure_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "open_store", lambda _: _raise(errno.ENOSPC))
    with pytest.raises(StorageError, match="the disk is full"), remote.local_copy("s3://b/a.mp4"):
        pass


# --- evaluation and pretraining ----------------------------------------------------------------------------------


def test_a_cache_keeps_what_was_written_and_resumes(clips: Path, small_disk: Callable[[int], Disk]) -> None:
    disk = small_disk(64)
    extract = FeatureExtractor("demo", clips=40, device="cpu", workers=0)
    paths = [str(p) for p in sorted(clips.iterdir())]
    store = FeatureStore(disk.folder / "cache", extract)
    with pytest.raises(StorageError, match="the disk is full"):
        store.extract(paths)
    disk.grow(4096)
    again = FeatureStore(disk.folder / "cache", extract)
    assert 0 < len(again) < len(paths)
    assert again.extract(paths) == {}
    (matrix, rows), owners = again.rows("video", paths)
    assert len(owners) == 40 * len(paths)
    features = extract(paths[0]).video
    for first in range(0, len(rows), 40):  # copies of one clip
        np.testing.assert_array_equal(matrix[rows[first : first + 40]], features)


def test_a_run_keeps_its_last_checkpoint_and_resumes(
    small_disk: Callable[[int], Disk], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(4):
        make_media(videos / f"{number}.mp4", seconds=2.2, size=(64, 48))
    build_index([str(videos)], tmp_path / "i.parquet", workers=0)
    index = read_index(tmp_path / "i.parquet")
    config = tiny_config(**{"run.save_steps": 1, "run.keep": 1})
    pretrain(config, index, tmp_path / "whole", data_id="x")
    (whole,) = list_checkpoints(tmp_path / "whole")

    disk = small_disk(round(whole.stat().st_size / 1024 * 1.5))  # of two, which exist for a short time
    run = disk.folder / "run"
    with pytest.raises(StorageError, match="the disk is full"):
        pretrain(config, index, run, data_id="x")
    (kept,) = list_checkpoints(run)
    assert load_checkpoint(kept)["step"] == 1
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]
    disk.grow(1 << 16)
    assert pretrain(config, index, run, data_id="x").finished
    one, other = (load_checkpoint(list_checkpoints(r)[-1])["model"] for r in (tmp_path / "whole", run))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)
