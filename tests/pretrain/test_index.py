"""The index of a data set: its rows, which files are skipped and why, and that it is always the same bytes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from jobs import crashing
from make_media import make_media

from crisscross_zoo.errors import ConfigError, CrissCrossError, OutputError, UnreadableMediaError
from crisscross_zoo.files.trees import KINETICS_SOUND_CLASSES
from crisscross_zoo.media.scan import scan_file
from crisscross_zoo.pretrain import index as index_module
from crisscross_zoo.pretrain.index import build_index, read_index
from crisscross_zoo.workers import pool
from crisscross_zoo.workers.pool import WorkerStartError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with 2 s of video and of audio."""
    return make_media(tmp_path_factory.mktemp("index") / "clip.mp4", seconds=2)


def put(clip: Path, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(clip, path)


@pytest.fixture
def tree(clip: Path, tmp_path: Path) -> Path:
    """Good and bad files."""
    root = tmp_path / "data"
    put(clip, root / "b.mp4", root / "sub" / "a.mp4", root / "c.mp4")
    make_media(root / "silent.mp4", audio=None)
    make_media(root / "black.mp4", video=None)
    make_media(root / "short.mp4", seconds=1)
    make_media(root / "short_audio.mp4", audio_seconds=0.5)
    make_media(root / "apart.mp4", seconds=2, audio_start=1.5)
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_bytes(b"no video\n" * 99)
    (root / "notes.txt").write_text("not indexed")
    return root


def statuses(path: Path) -> dict[str, str]:
    table = pq.read_table(path)
    return dict(zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True))


# --- its rows ----------------------------------------------------------------------------------------------------


def test_every_file_has_a_status_and_a_reason_if_it_is_not_usable(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "index.parquet"
    report = build_index([str(tree)], out, workers=0)
    assert statuses(out) == {
        "apart.mp4": "too short",
        "b.mp4": "ok",
        "black.mp4": "no video",
        "c.mp4": "ok",
        "empty.mp4": "unreadable",
        "short.mp4": "too short",
        "short_audio.mp4": "too short",
        "silent.mp4": "no audio",
        "sub/a.mp4": "ok",
        "text.mp4": "unreadable",
    }
    assert list(statuses(out)) == sorted(statuses(out))
    rows = {row["path"]: row for row in pq.read_table(out).to_pylist()}
    assert rows["empty.mp4"]["reason"] == "UnreadableMediaError: is empty (0 bytes)"
    assert rows["text.mp4"]["reason"].startswith("UnreadableMediaError: is not media")
    assert "its video lasts 1.00 s, not more than 1.1 s" in rows["short.mp4"]["reason"]
    assert "its audio lasts 0.5" in rows["short_audio.mp4"]["reason"]
    assert "its video and audio overlap for 0.5" in rows["apart.mp4"]["reason"]
    assert rows["b.mp4"]["reason"] is None
    assert rows["b.mp4"]["size"] == (tree / "b.mp4").stat().st_size
    assert (report.total, report.usable, report.scanned, report.classes) == (10, 3, 10, None)
    assert report.skipped == {"no audio": 1, "no video": 1, "too short": 3, "unreadable": 2}
    assert report.hours == pytest.approx(3 * 2 / 3600, rel=0.05)
    lines = report.summary_lines()
    assert lines[0] == f"{out}: 3 of 10 files usable, 6 s (10 scanned, 0 unchanged)"
    assert "skipped, no audio: 1 (silent.mp4: has no audio stream)" in lines
    assert not list(tmp_path.glob(".*"))


def test_a_stream_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = make_media(tmp_path / "a.mkv", seconds=2, audio="libopus", sample_rate=48_000)
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_XPUS"))
    build_index([str(path)], tmp_path / "i.parquet", workers=0)
    (row,) = pq.read_table(tmp_path / "i.parquet").to_pylist()
    assert row["status"] == "no audio"
    assert row["reason"] == "its audio stream cannot be decoded (its codec 'A_XPUS' has no decoder)"


def test_what_is_read_back_is_the_result_of_a_scan(tree: Path, tmp_path: Path) -> None:
    build_index([str(tree)], tmp_path / "i.parquet", workers=0)
    index = read_index(tmp_path / "i.parquet")
    paths = [str(tree / n) for n in ("b.mp4", "c.mp4", "sub/a.mp4")]
    assert list(index) == [next(iter(scan_file(p))) for p in paths]
    assert [info.path for info in index[1:]] == paths[1:]
    assert index[-1] == index[2]
    with pytest.raises(IndexError):
        index[3]
    assert index.labels is None
    assert index.class_names is None
    np.testing.assert_allclose(index.seconds, [i.duration for i in index])
    assert list(pickle.loads(pickle.dumps(index))) == list(index)
    assert "3 files" in repr(index)


def test_a_moved_data_set_is_read_from_its_new_root(tree: Path, tmp_path: Path) -> None:
    build_index([str(tree)], tmp_path / "i.parquet", workers=0)
    tree.rename(tmp_path / "moved")
    index = read_index(tmp_path / "i.parquet", root=tmp_path / "moved")
    assert [Path(i.path).is_file() for i in index] == [True] * 3


def test_the_shortest_length_can_be_chosen_without_a_new_scan(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.parquet"
    build_index([str(tree)], out, workers=0)
    report = build_index([str(tree)], out, workers=0, min_seconds=0.9)
    assert report.usable == 4  # and short.mp4
    assert report.scanned == 2  # files that could not be read are retried


def test_inputs_may_be_files_patterns_and_a_list(clip: Path, tmp_path: Path) -> None:
    put(clip, *(tmp_path / "data" / n for n in ("a.mp4", "b.mkv.x", "c/d.mp4", "e.mp4")))
    names = tmp_path / "list.txt"
    missing = tmp_path / "data" / "missing.mp4"
    names.write_text(f"# a list\n{tmp_path}/data/a.mp4\n{missing}\n", encoding="utf-8")
    out = tmp_path / "i.parquet"
    build_index([f"{tmp_path}/data/*.x", f"{tmp_path}/data/c"], out, list_file=str(names), workers=0)
    found = statuses(out)
    assert found == {"a.mp4": "ok", "b.mkv.x": "ok", "c/d.mp4": "ok", "missing.mp4": "unreadable"}
    reasons = pq.read_table(out)["reason"].to_pylist()
    assert reasons[-1] == "MediaNotFoundError: no such file"


def test_a_file_that_is_given_twice_is_indexed_once(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(clip, tmp_path / "a.mp4")
    monkeypatch.chdir(tmp_path)
    assert build_index(["a.mp4", "./a.mp4", str(tmp_path)], "i.parquet", workers=0).total == 1


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_names_need_not_be_text(clip: Path, tmp_path: Path) -> None:
    odd = [b"caf\xe9.mp4", "naïve \n [1] 100%.mp4".encode(), b"-x.mp4"]
    (tmp_path / "data").mkdir()
    paths = sorted(os.fsencode(tmp_path / "data") + b"/" + name for name in odd)
    for path in paths:
        shutil.copy2(os.fsencode(clip), path)
    bad = os.fsdecode(os.fsencode(tmp_path / "data") + b"/b\xffad.mp4")
    Path(bad).write_bytes(b"no video")
    out = tmp_path / "i.parquet"
    build_index([str(tmp_path / "data")], out, workers=1)
    assert [os.fsencode(i.path) for i in read_index(out)] == paths
    assert list(statuses(out)) == ["-x.mp4", r"b\udcffad.mp4", r"caf\udce9.mp4", "naïve \n [1] 100%.mp4"]
    assert build_index([str(tmp_path / "data")], out, workers=0).scanned == 1  # the bad one


# --- layouts -----------------------------------------------------------------------------------------------------


def test_there_are_32_classes_of_kinetics_sound() -> None:
    assert len(set(KINETICS_SOUND_CLASSES)) == 32
    assert list(KINETICS_SOUND_CLASSES) == sorted(KINETICS_SOUND_CLASSES)
    assert {"tapping pen", "playing bass guitar", "blowing out candles"} < {*KINETICS_SOUND_CLASSES}


def test_kinetics400_has_its_folders_as_labels(clip: Path, tmp_path: Path) -> None:
    root = tmp_path / "k400"
    put(clip, root / "train/zumba/1.mp4", root / "train/air drumming/2.mp4", root / "train/zumba/0.mp4")
    put(clip, root / "val/archery/3.mp4", root / "train/stray.mp4")
    (root / "train" / "silent_class").mkdir()
    make_media(root / "train" / "silent_class" / "4.mp4", audio=None)
    report = build_index([str(root)], tmp_path / "i.parquet", layout="kinetics400", workers=0)
    index = read_index(tmp_path / "i.parquet")
    assert [os.path.relpath(i.path, root) for i in index] == [
        "train/air drumming/2.mp4",
        "train/zumba/0.mp4",
        "train/zumba/1.mp4",
    ]
    assert index.class_names == ("air drumming", "silent class", "zumba")
    assert index.labels is not None
    assert index.labels.tolist() == [0, 2, 2]
    assert (index.layout, index.split, index.root) == ("kinetics400", "train", str(root))
    assert (report.classes, report.outside) == (3, 1)
    assert "not in the index, outside the folders of its classes: 1" in report.summary_lines()
    build_index([str(root)], tmp_path / "v.parquet", layout="kinetics400", split="val", workers=0)
    assert list(statuses(tmp_path / "v.parquet")) == ["val/archery/3.mp4"]


def kinetics_sound(clip: Path, root: Path) -> Path:
    for k, name in enumerate(KINETICS_SOUND_CLASSES):
        put(clip, root / "train" / (name if k % 2 else name.replace(" ", "_")) / f"{k}.mp4")
    put(clip, root / "train" / "zumba" / "x.mp4")
    return root


def test_kinetics_sound_is_32_classes_of_the_same_tree(clip: Path, tmp_path: Path) -> None:
    root = kinetics_sound(clip, tmp_path / "k")
    report = build_index([str(root)], tmp_path / "i.parquet", layout="kinetics-sound", workers=0)
    index = read_index(tmp_path / "i.parquet")
    assert index.class_names == KINETICS_SOUND_CLASSES
    assert index.labels is not None
    assert {Path(i.path).stem: k for i, k in zip(index, index.labels, strict=True)} == {
        str(k): k for k in range(32)
    }
    assert (report.usable, report.classes, report.outside) == (32, 32, 1)


def test_missing_classes_of_kinetics_sound_are_named(clip: Path, tmp_path: Path) -> None:
    root = kinetics_sound(clip, tmp_path / "k")
    shutil.rmtree(root / "train" / "tickling")
    (root / "train" / "singing" / f"{KINETICS_SOUND_CLASSES.index('singing')}.mp4").unlink()
    with pytest.raises(
        ConfigError, match=r"no videos of 2 of the 32 classes.*: singing, tickling; arrange them as"
    ):
        build_index([str(root)], tmp_path / "i.parquet", layout="kinetics-sound", workers=0)


def test_audioset_is_any_tree_with_or_without_a_split(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "as/train/00/x.mp4", tmp_path / "as/eval/y.mp4")
    for split, names in ((None, ["eval/y.mp4", "train/00/x.mp4"]), ("train", ["train/00/x.mp4"])):
        out = tmp_path / f"{split}.parquet"
        build_index([str(tmp_path / "as")], out, layout="audioset", split=split, workers=0)
        assert list(statuses(out)) == names
        assert read_index(out).labels is None


@pytest.mark.parametrize(
    ("layout", "split", "given", "message"),
    [
        ("kinetics400", None, "nowhere", "no such folder; name the data set's root"),
        ("kinetics400", None, "empty", r"has no folder 'train'; .*empty/train/CLASS/VIDEO$"),
        ("kinetics400", "trian", "k", r"has no folder 'trian'; .*did you mean 'train'\?"),
        (
            "kinetics400",
            None,
            "k/train",
            "has no folder 'train'; it looks like a split itself: name its parent",
        ),
        ("kinetics400", "val", "k", r"val: has no media files"),
        (
            "kinetics400",
            "test",
            "k",
            r"test: has videos, but no class folders; arrange them as .*CLASS/VIDEO$",
        ),
        ("kinetics-sound", None, "k", "no videos of 32 of the 32 classes of Kinetics-Sound: blowing nose, "),
        ("audioset", "eval", "k", "has no folder 'eval'"),
        ("audioset", None, "empty", "has no media files"),
        ("files", "train", "k", "layout 'files' has no splits"),
        ("files", None, "empty", "has no media files"),
        ("kinetics", None, "k", "layout='kinetics' is not known; did you mean 'kinetics400'"),
    ],
)
def test_a_wrong_tree_gives_one_line_with_the_right_layout(
    clip: Path, tmp_path: Path, layout: str, split: str | None, given: str, message: str
) -> None:
    put(clip, tmp_path / "k/train/zumba/1.mp4", tmp_path / "k/test/2.mp4")
    (tmp_path / "k" / "val").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=message) as caught:
        build_index([str(tmp_path / given)], tmp_path / "i.parquet", layout=layout, split=split, workers=0)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "i.parquet").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_tree_is_one_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes one folder"):
        build_index([str(tmp_path)] * 2, tmp_path / "i.parquet", layout="kinetics400")
    with pytest.raises(ConfigError, match="takes one folder"):
        build_index([str(tmp_path)], tmp_path / "i.parquet", layout="audioset", list_file="list.txt")


# --- the same bytes, whatever happens ----------------------------------------------------------------------------


def test_the_number_of_workers_does_not_change_the_bytes(tree: Path, tmp_path: Path) -> None:
    for workers in (0, 1, 2):
        build_index([str(tree)], tmp_path / f"{workers}.parquet", workers=workers)
    one, *others = ((tmp_path / f"{workers}.parquet").read_bytes() for workers in (0, 1, 2))
    assert all(other == one for other in others)


def test_an_unchanged_file_is_not_opened_again_and_a_changed_one_is(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.parquet"
    build_index([str(tree)], out, workers=0)
    before = out.read_bytes()
    seen: list[tuple[int, int]] = []
    report = build_index([str(tree)], out, workers=0, on_progress=lambda *n: seen.append(n))
    assert report.scanned == 2  # files that could not be read are retried
    assert seen == [(9, 10), (10, 10)]
    assert out.read_bytes() == before
    make_media(tree / "silent.mp4")
    (tree / "c.mp4").unlink()
    report = build_index([str(tree)], out, workers=0)
    assert (report.scanned, report.total) == (3, 9)
    assert statuses(out)["silent.mp4"] == "ok"
    stat = (tree / "b.mp4").stat()
    os.utime(tree / "b.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert build_index([str(tree)], out, workers=0).scanned == 3
    assert build_index([str(tree)], out, workers=0, rescan=True).scanned == 9


def test_a_killed_run_resumes_and_ends_in_the_same_bytes(clip: Path, tmp_path: Path) -> None:
    root, out, whole = tmp_path / "data", tmp_path / "i.parquet", tmp_path / "whole.parquet"
    put(clip, *(root / f"{k:03}.mp4" for k in range(40)))
    build_index([str(root)], whole, workers=0)
    slow = (
        "import sys, time\nfrom crisscross_zoo.pretrain.index import build_index\n"
        "build_index([sys.argv[1]], sys.argv[2], workers=1, on_progress=lambda *_: time.sleep(0.1))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-c", slow, str(root), str(out)], env=environment)
    partial = tmp_path / ".i.parquet.part.jsonl"
    deadline = time.monotonic() + 60
    while not partial.exists() or partial.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = partial.read_bytes().count(b"\n") - 1
    assert 3 <= done < 40
    with partial.open("ab") as file:
        file.write(b'["half a li')
    report = build_index([str(root)], out, workers=2)
    assert report.scanned == 40 - done
    assert out.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_a_partial_index_is_resumed_after_its_last_whole_line(clip: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "i.parquet"
    put(clip, *(root / f"{k}.mp4" for k in range(4)))

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index([str(root)], out, workers=0, on_progress=stop)
    partial = tmp_path / ".i.parquet.part.jsonl"
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    partial.write_bytes(b"".join(lines)[:-5])
    with pytest.raises(KeyboardInterrupt):
        build_index([str(root)], out, workers=0, on_progress=stop)
    assert partial.read_bytes() == b"".join(lines)
    partial.write_bytes(b"".join([b'[0, "other", "columns"]\n', *lines[1:]]))  # of another version
    assert build_index([str(root)], out, workers=0).scanned == 4


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_file_that_kills_its_worker_fails_alone(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "scan_file", crashing)
    root, out = tmp_path / "data", tmp_path / "i.parquet"
    put(clip, *(root / n for n in ("a.mp4", "boom1.mp4", "boom2.mp4", "z.mp4")))
    report = build_index([str(root)], out, workers=1)
    assert list(statuses(out).values()) == ["ok", "unreadable", "unreadable", "ok"]
    assert report.examples["unreadable"][0] == (
        "boom1.mp4: DecoderCrashError: crashed the decoder (signal 11)"
    )


def test_workers_that_do_not_start_end_the_run(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(clip, tmp_path / "a.mp4")
    monkeypatch.setattr(pool.sys, "executable", "false")
    with pytest.raises(WorkerStartError, match="the decoding process does not start"):
        build_index([str(tmp_path)], tmp_path / "i.parquet", workers=1)
    assert not (tmp_path / "i.parquet").exists()


def test_a_scan_that_goes_wrong_in_any_way_is_that_files_error(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> object:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("crisscross_zoo.media.scan.scan", broken)
    (error,) = scan_file(clip)
    assert isinstance(error, UnreadableMediaError)
    assert error.reason == "reading it failed (ZeroDivisionError: by zero)"


def test_scanning_does_not_import_torch(clip: Path) -> None:
    script = (
        "import sys; from crisscross_zoo.media.scan import scan_file\n"
        f"list(scan_file({str(clip)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "False\n"


# --- errors ------------------------------------------------------------------------------------------------------


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r'pip install "crisscross-zoo\[pretrain\]"'):
        build_index([str(tmp_path)], tmp_path / "i.parquet")
    with pytest.raises(ConfigError, match=r'pip install "crisscross-zoo\[pretrain\]"'):
        read_index(tmp_path / "i.parquet")


def test_another_file_is_neither_read_nor_overwritten(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "data" / "a.mp4")
    other, foreign = tmp_path / "other.parquet", tmp_path / "foreign.parquet"
    other.write_bytes(b"PAR1 or not")
    pq.write_table(index_module._pyarrow().table({"x": [1]}), foreign)
    for path, rescan in ((other, False), (other, True), (foreign, False)):
        before = path.read_bytes()
        with pytest.raises(ConfigError, match="is not an index of this package"):
            build_index([str(tmp_path / "data")], path, workers=0, rescan=rescan)
        with pytest.raises(ConfigError, match="is not an index of this package"):
            read_index(path)
        assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="is a folder"):
        build_index([str(tmp_path / "data")], tmp_path, workers=0)
    with pytest.raises(ConfigError, match=r"an index is a Parquet file; name it .*x\.parquet"):
        build_index([str(tmp_path / "data")], tmp_path / "x.csv", workers=0)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_index(tmp_path / "missing.parquet")


def test_an_index_of_another_version_is_built_again(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(clip, tmp_path / "data" / "a.mp4")
    out = tmp_path / "i.parquet"
    build_index([str(tmp_path / "data")], out, workers=0)
    monkeypatch.setattr(index_module, "INDEX_VERSION", index_module.INDEX_VERSION + 1)
    with pytest.raises(ConfigError, match="another version"):
        read_index(out)
    assert build_index([str(tmp_path / "data")], out, workers=0).scanned == 1
    assert len(read_index(out)) == 1


def test_an_index_without_usable_files_is_written_but_not_read(tmp_path: Path) -> None:
    make_media(tmp_path / "silent.mp4", audio=None)
    assert build_index([str(tmp_path)], tmp_path / "i.parquet", workers=0).usable == 0
    assert statuses(tmp_path / "i.parquet") == {"silent.mp4": "no audio"}
    with pytest.raises(ConfigError, match="none of its files is usable"):
        read_index(tmp_path / "i.parquet")


@pytest.mark.parametrize("bad", [{"workers": -1}, {"min_seconds": -1.0}, {"min_seconds": float("nan")}])
def test_options_out_of_range(tmp_path: Path, bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(bad))}=.* is not allowed"):
        build_index([str(tmp_path)], tmp_path / "i.parquet", **bad)


def test_an_output_that_cannot_be_written_is_an_error_before_the_scan(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(clip, tmp_path / "data" / "a.mp4")
    (tmp_path / "file").touch()
    monkeypatch.setattr(index_module, "work_on_files", None)
    with pytest.raises(OutputError, match="cannot be written") as caught:
        build_index([str(tmp_path / "data")], tmp_path / "file" / "i.parquet")
    assert isinstance(caught.value, CrissCrossError)


def test_the_partial_index_is_plain_json(clip: Path, tmp_path: Path) -> None:
    put(clip, tmp_path / "data" / "a.mp4", tmp_path / "data" / "b.mp4")
    partial = tmp_path / ".i.parquet.part.jsonl"
    seen: list[list[object]] = []
    build_index(
        [str(tmp_path / "data")],
        tmp_path / "i.parquet",
        workers=0,
        on_progress=lambda *_: seen.append([json.loads(line) for line in partial.read_text().splitlines()]),
    )
    assert [len(lines) for lines in seen] == [2, 3]


def test_a_large_index_is_mapped_and_not_copied(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index([str(tree)], tmp_path / "i.parquet", workers=0)
    small = read_index(tmp_path / "i.parquet")
    monkeypatch.setattr(index_module, "SHARED_ROWS", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    large = read_index(tmp_path / "i.parquet")
    (folder,) = (tmp_path / "temporary").iterdir()
    (mapped,) = folder.iterdir()
    assert mapped.suffix == ".arrow"
    if os.name == "posix":
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(large) == list(small)
    assert large.seconds.tolist() == small.seconds.tolist()
    assert (large.labels, large.class_names) == (small.labels, small.class_names) == (None, None)
    modified = mapped.stat().st_mtime_ns
    other = pickle.loads(pickle.dumps(large))
    assert len(pickle.dumps(large)) < 2000
    assert list(other) == list(pickle.loads(pickle.dumps(small))) == list(small)
    assert mapped.stat().st_mtime_ns == modified, "it is written once"
    sent = pickle.dumps(large)
    mapped.unlink()  # as programs do that clean up temporary files
    assert list(pickle.loads(sent)) == list(small)
    mapped.write_bytes(b"not whole")
    assert list(read_index(tmp_path / "i.parquet")) == list(small)
    mapped.unlink()
    (tree / "b.mp4").unlink()
    build_index([str(tree)], tmp_path / "i.parquet", workers=0)
    with pytest.raises(ConfigError, match="has changed since it was opened"):
        pickle.loads(sent)


@pytest.mark.skipif(os.name != "posix", reason="modes of folders")
def test_a_folder_that_others_can_write_to_is_not_trusted(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index([str(tree)], tmp_path / "i.parquet", workers=0)
    monkeypatch.setattr(index_module, "SHARED_ROWS", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"crisscross-zoo-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="others can write to it; set TMPDIR"):
        read_index(tmp_path / "i.parquet")
