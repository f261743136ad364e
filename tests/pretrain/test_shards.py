"""Shards: every byte of every file, in the index's order; samples from shards; errors."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pickle
import shutil
import sys
from pathlib import Path

import needs
import pytest
import torch
from make_media import make_media, sine
from pretrain_case import forked_packing, tiny_config

from crisscross_zoo.cli.pretrain import main
from crisscross_zoo.errors import ConfigError, MediaError, UnreadableMediaError
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.pretrain import shards
from crisscross_zoo.pretrain.data import BatchSampler, PretrainDataset
from crisscross_zoo.pretrain.index import Index, build_index, read_index
from crisscross_zoo.pretrain.loader import make_loader
from crisscross_zoo.pretrain.presets import PretrainConfig
from crisscross_zoo.pretrain.shards import ShardReader, open_data, pack
from crisscross_zoo.workers.samples import SampleKey

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of nine files of different sizes."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "data").mkdir()
    clip = make_media(folder / "clip.mp4", seconds=2).read_bytes()
    for k in range(9):
        (folder / "data" / f"{k}.mp4").write_bytes(clip + b"\0" * 1000 * (9 - k))
    (folder / "data" / "bad.mp4").write_bytes(b"no video")
    build_index([str(folder / "data")], folder / "i.parquet", workers=0)
    return read_index(folder / "i.parquet")


def test_every_file_comes_back_byte_for_byte_in_any_order(index: Index, tmp_path: Path) -> None:
    needs.package("litdata", extra="shards")
    start_method = multiprocessing.get_start_method()
    pack(index, tmp_path / "shards", workers=1, shard_bytes=100_000)
    assert multiprocessing.get_start_method() == start_method
    chunks = sorted((tmp_path / "shards").glob("*.bin"))
    assert len(chunks) > 2
    reader = ShardReader(tmp_path / "shards")
    assert len(reader) == len(index) == 9
    for position in (8, 0, 5, -1, 1, 2, 3, 4, 6, 7):
        assert reader[position] == index[position]
        assert reader.open(position).read() == Path(index[position].path).read_bytes()
    assert list(reader) == reader[:] == index[:]
    assert sorted((tmp_path / "shards").glob("*.bin")) == chunks
    again = pickle.loads(pickle.dumps(reader))
    assert again.open(3).read() == reader.open(3).read()
    with pytest.raises(IndexError):
        reader.open(9)
    table = reader.files._table
    backwards = table["size"].take(list(range(8, -1, -1)))
    reader.files._table = table.set_column(table.schema.get_field_index("size"), "size", backwards)
    with pytest.raises(UnreadableMediaError, match="not that of the index"):
        reader.open(0)
    with pytest.raises(ConfigError, match="is not an empty folder"):
        pack(index, tmp_path / "shards")


def test_a_folder_without_an_index_was_not_finished(tmp_path: Path) -> None:
    needs.package("litdata", extra="shards")
    with pytest.raises(ConfigError, match=r"has no index\.parquet, so it is not a finished folder of shards"):
        open_data(tmp_path)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with four files of four formats, their index ``i.parquet``, and a shard of each in ``shards``."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "data").mkdir()
    for k, (suffix, video) in enumerate(
        {"mp4": "libx264", "mkv": "libx264", "ts": "libx264", "avi": "mpeg4"}.items()
    ):
        make_media(
            folder / "data" / f"{k}.{suffix}", seconds=9, size=(64, 48), video=video,
            audio="libmp3lame" if suffix == "avi" else "aac", samples=sine(9, 44_100, 2, hertz=300.0 * (k + 1)),
        )  # fmt: skip
    build_index([str(folder / "data")], folder / "i.parquet", workers=0)
    with forked_packing():
        assert pack(read_index(folder / "i.parquet"), folder / "shards", shard_bytes=1) == 4
    return folder


def config(relaxation: str) -> PretrainConfig:
    return tiny_config(**{"data.relaxation": relaxation})


@pytest.mark.parametrize("relaxation", ["mild", "extreme"])  # views read together, and separately
def test_samples_from_shards_are_those_from_the_files_bit_for_bit(films: Path, relaxation: str) -> None:
    index, reader = read_index(films / "i.parquet"), ShardReader(films / "shards")
    from_files = PretrainDataset(index, config(relaxation))
    from_shards = pickle.loads(pickle.dumps(PretrainDataset(reader, config(relaxation))))
    assert len(from_shards) == 4
    for position in range(8):
        key = SampleKey(0, position, position % 4)
        views, path, failures = from_files[key]
        again, name, failed = from_shards[key]
        assert path == name == index[key.file].path
        assert failures == failed == []
        assert [v for v in views if not torch.equal(views[v], again[v])] == []


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_shards(films: Path, start: str) -> None:
    reader = ShardReader(films / "shards")
    reader.open(0)  # a reader that is in use can be passed to workers too
    sampler = BatchSampler(seed=0, files=4, epoch_size=8, batch_size=2, steps=range(6))
    loader = make_loader(reader, config("mild"), sampler, workers=2, pin_memory=False)
    loader.start_method = start
    mine = make_loader(read_index(films / "i.parquet"), config("mild"), sampler, workers=0, pin_memory=False)
    for batch, other in zip(loader, mine, strict=True):
        assert (batch.paths, batch.failures) == (other.paths, other.failures)
        assert [v for v in other.views if not torch.equal(batch.views[v], other.views[v])] == []


def test_a_shard_that_fails_is_a_failed_file(films: Path, tmp_path: Path) -> None:
    index = read_index(films / "i.parquet")
    shutil.copytree(films / "shards", tmp_path / "shards")
    (gone, cut, *_) = sorted((tmp_path / "shards").glob("*.bin"))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:1000])
    reader = ShardReader(tmp_path / "shards")
    lost = [dataclasses.replace(f, path="/gone") if k < 2 else f for k, f in enumerate(index)]
    for broken in (0, 1):
        views, path, failures = PretrainDataset(reader, config("mild"))[SampleKey(0, broken, broken)]
        assert (failures[0]["path"], failures[0]["error"]) == (index[broken].path, "UnreadableMediaError")
        assert f"file {broken} cannot be read from its shard" in failures[0]["reason"]
        # The shard of the replacing file is read.
        again, name, failed = PretrainDataset(lost, config("mild"))[SampleKey(0, broken, broken)]
        assert (path, len(failures)) == (name, len(failed))
        assert [v for v in views if not torch.equal(views[v], again[v])] == []
    reader = ShardReader(tmp_path / "shards")
    shutil.rmtree(tmp_path / "shards")
    with pytest.raises(MediaError, match="10 files in turn cannot be used: file"):
        PretrainDataset(reader, config("mild"))[SampleKey(0, 0, 0)]


def test_the_command_packs_and_index_and_shards_have_the_same_id(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "shards")
    options = ["--out", out, "--workers", "2", "--shard-mb", "1", "--json"]
    with forked_packing():
        assert main(["pack", str(films / "i.parquet"), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"out": out, "files": 4, "shards": len([*Path(out).glob("*.bin")])}
    index, index_id = open_data(films / "i.parquet")
    reader, reader_id = open_data(out)
    assert isinstance(index, Index)
    assert isinstance(reader, ShardReader)
    assert index_id == reader_id == file_sha256(films / "i.parquet")
    assert index[:] == reader[:]
    assert [reader.open(k).read() for k in range(4)] == [Path(info.path).read_bytes() for info in index]
    assert main(["pack", str(films / "i.parquet"), "--out", out]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_a_changed_file_is_an_error_before_anything_is_written(index: Index, tmp_path: Path) -> None:
    needs.package("litdata", extra="shards")
    shutil.copytree(index.root, tmp_path / "data")
    moved = read_index(index.path, root=tmp_path / "data")
    (tmp_path / "data" / "3.mp4").write_bytes(b"shorter")
    with pytest.raises(UnreadableMediaError, match=r"3\.mp4: has changed since .* now 7 bytes"):
        pack(moved, tmp_path / "out")
    (tmp_path / "data" / "3.mp4").unlink()
    with pytest.raises(UnreadableMediaError, match="now gone"):
        pack(moved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [{"workers": 0}, {"shard_bytes": 0}, {"shard_bytes": 1 << 32}])
def test_options_out_of_range(index: Index, tmp_path: Path, bad: dict[str, int]) -> None:
    needs.package("litdata", extra="shards")
    with pytest.raises(ConfigError, match=f"{next(iter(bad))}=.* is not allowed"):
        pack(index, tmp_path / "out", **bad)


def test_without_litdata_the_extra_is_named(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "litdata", None)
    assert main(["pack", index.path, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('shards need litdata, which is not installed; pip install "crisscross-zoo[shards]"')
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "index.parquet").write_bytes(Path(index.path).read_bytes())
    for use in (lambda: pack(index, tmp_path), lambda: open_data(tmp_path / "packed"), shards.import_litdata):
        with pytest.raises(ConfigError, match=r'pip install "crisscross-zoo\[shards\]"'):
            use()
