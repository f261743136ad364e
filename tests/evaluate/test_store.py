"""Selected rows of matrices, and features on disk: extracted once, and intact after a killed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_media import make_media

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import CrissCrossError, OutputError
from crisscross_zoo.evaluate.rows import BLOCK_BYTES, Rows
from crisscross_zoo.evaluate.store import FeatureStore

CLIPS = 2


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


# --- rows --------------------------------------------------------------------------------------------------------


def make_rows() -> tuple[Rows, np.ndarray]:
    """Rows of two matrices, each in its own order, and the same as an array."""
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((20, d)).astype(np.float32) for d in (3, 5))
    first, second = rng.permutation(20)[:12], rng.integers(0, 20, 12)
    return Rows([(one, first), (other, second)]), np.concatenate([one[first], other[second]], axis=1)


def test_matrices_are_concatenated() -> None:
    rows, expected = make_rows()
    assert rows.shape == (12, 8)
    assert len(rows) == 12
    np.testing.assert_array_equal(rows[:], expected)
    np.testing.assert_array_equal(rows[3:7], expected[3:7])
    np.testing.assert_array_equal(rows[np.array([5, 0, 5])], expected[[5, 0, 5]])


def test_take_selects_rows_by_index_and_reads_none() -> None:
    rows, expected = make_rows()
    some = rows.take(np.array([7, 2, 2, 11]))
    assert some.shape == (4, 8)
    np.testing.assert_array_equal(some[:], expected[[7, 2, 2, 11]])
    np.testing.assert_array_equal(some.take(np.array([3, 1]))[:], expected[[11, 2]])
    assert some.matrices[0][0] is rows.matrices[0][0]


@given(st.integers(1, 40), st.integers(1, 50))
@settings(max_examples=50)
def test_blocks_are_all_rows_in_order(n: int, size: int) -> None:
    matrix = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
    found = list(Rows.of(matrix).blocks(size))
    assert [w.stop - w.start for w, _ in found] == [size] * (n // size) + [n % size] * (n % size > 0)
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), matrix)
    for where, block in found:
        np.testing.assert_array_equal(block, matrix[where])


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 2), st.booleans())
@settings(max_examples=50)
def test_blocks_in_reused_memory_hold_until_the_next(n: int, size: int, matrices: int, changed: bool) -> None:
    matrix = np.arange(3.0 * n, dtype=np.float32).reshape(n, 3)
    index = np.random.default_rng(n).permutation(n)
    rows = Rows([(matrix, index)] * matrices, np.negative if changed else None)
    wanted, found = np.hstack([matrix[index]] * matrices) * (-1 if changed else 1), 0
    for where, block in rows.blocks(size, reuse=True):
        np.testing.assert_array_equal(block, wanted[where])
        block[:] = 0  # the caller's to change, and of no other block
        found += len(block)
    assert found == n
    np.testing.assert_array_equal(rows[:], wanted)


def test_a_block_that_cannot_be_read_ends_the_loop() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        if block[0, 0] == 4:
            raise OSError("unplugged")
        return block

    rows, seen = Rows([(np.arange(8, dtype=np.float32)[:, None], np.arange(8))], fail), []
    with pytest.raises(OSError, match="unplugged"):
        seen += [where.start for where, _ in rows.blocks(2)]
    assert seen == []
    for where, _ in rows.blocks(2):
        seen.append(where.start)
        if where.start == 2:
            break
    assert seen == [0, 2]


def test_a_block_is_not_larger_than_block_bytes() -> None:
    rows = BLOCK_BYTES // (4 * 40_000)
    matrix = np.broadcast_to(np.float32(1), (rows + 3, 40_000))
    sizes = [block.nbytes for _, block in Rows([(matrix, np.arange(rows + 3))]).blocks()]
    assert sizes == [rows * 160_000, 3 * 160_000]


def test_each_matrix_is_changed_separately() -> None:
    rows, expected = make_rows()
    lengths: list[int] = []

    def change(block: np.ndarray) -> np.ndarray:
        lengths.append(block.shape[1])
        return block / np.linalg.norm(block, axis=1, keepdims=True)

    changed = Rows(rows.matrices, change).take(np.arange(4))
    found = changed[:]
    assert lengths == [3, 5]
    for columns in (slice(0, 3), slice(3, 8)):
        wanted = expected[:4, columns] / np.linalg.norm(expected[:4, columns], axis=1, keepdims=True)
        np.testing.assert_allclose(found[:, columns], wanted, rtol=1e-6)


def test_rows_are_a_copy_of_single_precision() -> None:
    matrix = np.ones((4, 2))
    rows = Rows.of(matrix)
    block = rows[:]
    assert block.dtype == np.float32
    block[:] = 7
    np.testing.assert_array_equal(rows[:], matrix)


# --- the store ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        video = build_encoder(VideoConfig(width=8, depth=10, size=112))
        audio = build_encoder(AudioConfig(width=8, depth=10))
    return {"video": video.eval(), "audio": audio.eval()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("made")
    return [make_media(folder / f"{k}.mp4", seconds=0.8 + k / 5, fps=8, size=(96, 64)) for k in range(3)]


@pytest.fixture
def files(made: list[Path], tmp_path: Path) -> list[str]:
    """Copies of the three files, for one test."""
    paths = []
    for path in made:
        copy = tmp_path / "media" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        os.utime(copy, ns=(10**18, 10**18))
        paths.append(str(copy))
    return paths


def make_extractor(encoders: dict[str, Any], modality: str = "both", **options: Any) -> FeatureExtractor:
    options = {"clips": CLIPS, "workers": 0, "batch_size": 2, "device": "cpu", **options}
    return FeatureExtractor(encoders, modality, **options)  # type: ignore[arg-type]


@pytest.fixture
def extractor(encoders: dict[str, Any]) -> FeatureExtractor:
    return make_extractor(encoders)


class Count:
    """Records the paths that are passed to ``FeatureExtractor.stream``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        stream = FeatureExtractor.stream

        def counted(extractor: FeatureExtractor, paths: Any, **options: Any) -> Iterator[Any]:
            self.paths += list(paths)
            return stream(extractor, paths, **options)

        monkeypatch.setattr(FeatureExtractor, "stream", counted)

    def names(self) -> list[str]:
        found, self.paths = [Path(p).name for p in self.paths], []
        return found


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    return Count(monkeypatch)


def rows_of(store: FeatureStore, modality: str, paths: list[str]) -> np.ndarray:
    matrix, _ = store.rows(modality, paths)
    return Rows([matrix])[:]


def bytes_of(store: FeatureStore) -> dict[str, bytes]:
    names = ("files.jsonl", "video.f32", "audio.f32")
    return {name: (store.folder / name).read_bytes() for name in names}


def test_rows_are_what_the_extractor_gives(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "cache", extractor)
    assert store.extract(files) == {}
    assert store.folder.parent == tmp_path / "cache"
    for modality in ("video", "audio"):
        order = [files[2], files[0]]
        (matrix, index), owners = store.rows(modality, order)
        assert isinstance(matrix, np.memmap)
        assert (matrix.dtype, len(matrix)) == (np.float32, 3 * CLIPS)
        np.testing.assert_array_equal(owners, [0, 0, 1, 1])
        expected = np.concatenate([getattr(extractor(path), modality) for path in order])
        np.testing.assert_array_equal(matrix[index], expected)


def test_a_second_extraction_decodes_nothing(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path, count: Count
) -> None:
    calls: list[tuple[int, int]] = []
    store = FeatureStore(tmp_path / "cache", extractor)
    store.extract(files[:2], on_file=lambda *numbers: calls.append(numbers))
    assert calls == [(0, 2), (1, 2), (2, 2)]
    before = bytes_of(store)
    assert count.names() == ["0.mp4", "1.mp4"]
    calls.clear()
    assert store.extract(files[:2], on_file=lambda *numbers: calls.append(numbers)) == {}
    assert FeatureStore(tmp_path / "cache", extractor).extract([files[1]]) == {}
    assert count.names() == []
    assert calls == [(2, 2)]
    assert bytes_of(store) == before
    store.extract([*files, files[0]])  # one is new, and one is named twice
    assert count.names() == ["2.mp4"]
    assert all(whole.startswith(before[name]) for name, whole in bytes_of(store).items())


def test_a_file_that_has_changed_is_extracted_again(
    extractor: FeatureExtractor, files: list[str], made: list[Path], tmp_path: Path, count: Count
) -> None:
    store = FeatureStore(tmp_path / "cache", extractor)
    store.extract(files[:2])
    count.names()
    os.utime(files[0], ns=(2 * 10**18, 2 * 10**18))
    store.extract(files[:2])
    assert count.names() == ["0.mp4"]
    Path(files[0]).write_bytes(made[2].read_bytes())  # other bytes, the same time
    os.utime(files[0], ns=(2 * 10**18, 2 * 10**18))
    reopened = FeatureStore(tmp_path / "cache", extractor)
    reopened.extract(files[:2])
    assert count.names() == ["0.mp4"]
    np.testing.assert_array_equal(rows_of(reopened, "video", [files[0]]), extractor(files[0]).video)
    assert not np.array_equal(rows_of(reopened, "video", [files[1]]), rows_of(reopened, "video", [files[0]]))


def test_other_settings_and_other_weights_have_folders_of_their_own(
    encoders: dict[str, Any], tmp_path: Path
) -> None:
    def folder(**options: Any) -> Path:
        return FeatureStore(tmp_path, make_extractor(**{"encoders": encoders, **options})).folder

    with torch.random.fork_rng():
        torch.manual_seed(1)
        trained = build_encoder(VideoConfig(width=8, depth=10, size=112)).eval()
    found = [
        folder(), folder(clips=3), folder(modality="video"), folder(precision="bf16"), folder(size=128),
        folder(encoders={**encoders, "video": trained}), folder(modality="video", encoders={"video": trained}),
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert folder() == folder(batch_size=4) == found[0]
    identity = json.loads((found[0] / "identity.json").read_text())
    assert identity["settings"]["clips"] == CLIPS
    assert set(identity["weights"]) == {"video", "audio"}


def test_weights_without_a_name_are_identified_by_their_values(tmp_path: Path) -> None:
    made = [FeatureExtractor(None, "audio", clips=1, device="cpu", workers=0) for _ in range(2)]
    assert FeatureStore(tmp_path, made[0]).folder != FeatureStore(tmp_path, made[1]).folder
    assert FeatureStore(tmp_path, made[0]).folder == FeatureStore(tmp_path, made[0]).folder


@pytest.mark.parametrize("seen", [1, 2])
def test_incomplete_rows_of_a_killed_run_are_truncated(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path, count: Count, seen: int
) -> None:
    whole = FeatureStore(tmp_path / "whole", extractor)
    whole.extract(files)
    killed = FeatureStore(tmp_path / "killed", extractor)
    killed.extract(files[:seen])
    last = bytes_of(killed)["files.jsonl"].splitlines()[-1]
    with (killed.folder / "video.f32").open("ab") as file:
        file.write(b"half of a row")
    with (killed.folder / "files.jsonl").open("ab") as file:
        file.write(last[: len(last) // 2])
    count.names()
    reopened = FeatureStore(tmp_path / "killed", extractor)
    np.testing.assert_array_equal(
        rows_of(reopened, "video", files[:seen]), rows_of(whole, "video", files[:seen])
    )
    assert reopened.extract(files) == {}
    assert count.names() == ["1.mp4", "2.mp4"][seen - 1 :]
    assert bytes_of(reopened) == bytes_of(whole)


def test_an_interrupted_run_resumes(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FeatureStore(tmp_path / "whole", extractor)
    whole.extract(files)
    store = FeatureStore(tmp_path / "killed", extractor)

    def die(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.extract(files, on_file=die)
    again = FeatureStore(tmp_path / "killed", extractor)
    calls: list[int] = []
    assert again.extract(files, on_file=lambda done, _: calls.append(done)) == {}
    assert calls == [2, 3]
    assert bytes_of(again) == bytes_of(whole)


def test_two_stores_of_one_folder_take_turns(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path, count: Count
) -> None:
    one, other = (FeatureStore(tmp_path / "cache", extractor) for _ in range(2))
    one.extract(files[:2])
    assert other.extract(files) == {}  # it reads the rows that the first one has added since
    assert count.names() == ["0.mp4", "1.mp4", "2.mp4"]
    assert one.extract(files) == {}
    assert count.names() == []
    for modality in ("video", "audio"):
        np.testing.assert_array_equal(rows_of(one, modality, files), rows_of(other, modality, files))


def test_a_matrix_that_is_too_short_is_an_error(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "cache", extractor)
    store.extract(files[:2])
    matrix = store.folder / "audio.f32"
    os.truncate(matrix, matrix.stat().st_size - 4)
    with pytest.raises(OutputError, match=r"audio\.f32: is shorter than files\.jsonl states; delete its"):
        FeatureStore(tmp_path / "cache", extractor)


@pytest.mark.parametrize(
    "line", [b"no json\n", b'{"path": "x"}\n', b"[1, 2]\n", b'{"path": 1, "bytes": 2}\n']
)
def test_a_damaged_list_is_an_error(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path, line: bytes
) -> None:
    store = FeatureStore(tmp_path / "cache", extractor)
    with (store.folder / "files.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(OutputError, match=r"files\.jsonl: is damaged .*; delete its folder"):
        FeatureStore(tmp_path / "cache", extractor)


def test_a_file_that_fails_is_reported_and_tried_again(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path, count: Count
) -> None:
    good = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(b"not media")
    mute = str(make_media(tmp_path / "mute.mp4", audio=None, fps=8, seconds=0.8, size=(96, 64)))
    gone = str(tmp_path / "gone.mp4")
    paths = [files[0], files[1], mute, gone]
    store = FeatureStore(tmp_path / "cache", extractor)
    calls: list[tuple[int, int]] = []
    failures = store.extract(paths, on_file=lambda *numbers: calls.append(numbers))
    assert set(failures) == {files[1], mute, gone}
    assert all(isinstance(error, CrissCrossError) for error in failures.values())
    assert "is not media" in str(failures[files[1]])
    assert str(failures[mute]) == f"{mute}: has no audio"
    assert str(failures[gone]) == f"{gone}: No such file or directory"
    assert calls[-1][1] == 4
    for modality in ("video", "audio"):  # nothing of the failed files is stored
        (matrix, _), _ = store.rows(modality, [files[0]])
        assert len(matrix) == CLIPS
    count.names()
    Path(files[1]).write_bytes(good)
    assert set(FeatureStore(tmp_path / "cache", extractor).extract(paths)) == {mute, gone}
    assert count.names() == ["1.mp4", "mute.mp4"]


HOLD = """
import sys
from huggingface_hub.utils import WeakFileLock
with WeakFileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_run_that_is_writing_is_waited_for(
    extractor: FeatureExtractor, files: list[str], tmp_path: Path
) -> None:
    store = FeatureStore(tmp_path / "cache", extractor)
    store.extract(files[:1])
    command = [sys.executable, "-c", HOLD, str(store.folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        assert store.extract(files[:1]) == {}  # files in the store can be read meanwhile
        assert len(rows_of(store, "video", files[:1])) == CLIPS
        messages: list[str] = []

        def on_wait(line: str) -> None:
            messages.append(line)
            assert len(store) == 1
            other.stdin.close()

        assert store.extract(files, on_wait=on_wait) == {}
        assert [line.split(" into ")[0] for line in messages] == [
            "waiting for another run that extracts the same features"
        ]
        other.wait(timeout=10)
    assert len(store) == len(files)
