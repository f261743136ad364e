"""Shards: every byte of every file, in the index's order, and the errors."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import pytest
from make_media import make_media

from crisscross_zoo.errors import ConfigError, UnreadableMediaError
from crisscross_zoo.pretrain import shards
from crisscross_zoo.pretrain.index import Index, build_index, read_index
from crisscross_zoo.pretrain.shards import ShardReader, pack


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Nine files, each of its own length."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "data").mkdir()
    clip = make_media(folder / "clip.mp4", seconds=2).read_bytes()
    for k in range(9):
        (folder / "data" / f"{k}.mp4").write_bytes(clip + b"\0" * 1000 * (9 - k))
    (folder / "data" / "bad.mp4").write_bytes(b"no video")
    build_index([str(folder / "data")], folder / "i.parquet", workers=0)
    return read_index(folder / "i.parquet")


def test_every_file_comes_back_byte_for_byte_in_any_order(index: Index, tmp_path: Path) -> None:
    pytest.importorskip("litdata")
    pack(index, tmp_path / "shards", workers=1, shard_bytes=100_000)
    chunks = sorted((tmp_path / "shards").glob("*.bin"))
    assert len(chunks) > 2
    reader = ShardReader(tmp_path / "shards")
    assert len(reader) == len(index) == 9
    for place in (8, 0, 5, -1, 1, 2, 3, 4, 6, 7):
        assert reader.info(place) == index[place]
        assert reader.bytes_of(place) == Path(index[place].path).read_bytes()
    assert sorted((tmp_path / "shards").glob("*.bin")) == chunks
    again = pickle.loads(pickle.dumps(reader))
    assert again.bytes_of(3) == reader.bytes_of(3)
    with pytest.raises(IndexError):
        reader.bytes_of(9)
    reader.index._values["size"] = reader.index._values["size"].take(list(range(8, -1, -1)))
    with pytest.raises(UnreadableMediaError, match="not that of the index"):
        reader.bytes_of(0)
    with pytest.raises(ConfigError, match="is not an empty folder"):
        pack(index, tmp_path / "shards")


def test_a_folder_without_an_index_was_not_finished(tmp_path: Path) -> None:
    pytest.importorskip("litdata")
    with pytest.raises(ConfigError, match="cannot be read"):
        ShardReader(tmp_path)


def test_a_changed_file_is_named_before_anything_is_written(index: Index, tmp_path: Path) -> None:
    pytest.importorskip("litdata")
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
    pytest.importorskip("litdata")
    with pytest.raises(ConfigError, match=f"{next(iter(bad))}=.* is not allowed"):
        pack(index, tmp_path / "out", **bad)


def test_without_litdata_the_extra_is_named(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litdata", None)
    for use in (lambda: pack(index, tmp_path), lambda: ShardReader(tmp_path), shards._litdata):
        with pytest.raises(ConfigError, match=r'pip install "crisscross-zoo\[shards\]"'):
            use()
