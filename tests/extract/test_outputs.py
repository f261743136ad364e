import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from crisscross_zoo import Features
from crisscross_zoo.errors import ConfigError, OutputError, UnreadableMediaError
from crisscross_zoo.extract.lists import Lists
from crisscross_zoo.extract.outputs import finished, known_result, mirror
from crisscross_zoo.files import remote
from crisscross_zoo.files.failures import failure_row
from crisscross_zoo.files.find import common_folder
from crisscross_zoo.files.store import LocalFolder

OUT = LocalFolder(Path("out"))
SOURCE = {"path": "in/a.mp4", "bytes": 10, "modified_ns": 5}
IDENTITY = {
    "source": SOURCE,
    "settings": {"fps": 16.0},
    "weights": {"video": {"id": "x"}},
}


def save(path, **changes):
    rest = {
        "shapes": {"video": [1, 2]},
        "duration": 0.5,
        "missing": ["audio"],
        "warnings": ["says 9 s", "bad"],
        "notes": ["a gap"],
    }
    metadata = {**IDENTITY, **rest, **changes}
    Features(video=np.zeros((1, 2), np.float32), video_windows=np.array([[0, 0.5]]), metadata=metadata).save(
        path
    )
    return metadata


def test_outputs_mirror_the_tree(tmp_path):
    paths = [str(tmp_path / p) for p in ("a.mp4", "sub/b.wav", "sub/deep/c.x.mkv")]
    outputs = mirror(paths, tmp_path, OUT, ".npz")
    assert list(outputs.values()) == ["a.npz", "sub/b.npz", "sub/deep/c.x.npz"]


def test_names_that_would_collide_keep_their_suffix(tmp_path):
    paths = [str(tmp_path / p) for p in ("a.mp4", "A.avi", "b.mp4")]
    outputs = mirror(paths, tmp_path, OUT, ".npz")
    assert list(outputs.values()) == ["a.mp4.npz", "A.avi.npz", "b.npz"]


def test_outputs_stay_in_the_folder_and_links_stand_where_they_are(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "y.mp4").touch()
    (tmp_path / "sub" / "link.mp4").symlink_to(tmp_path / "other" / "y.mp4")
    (tmp_path / "sub" / "again.mp4").symlink_to(tmp_path / "other" / "y.mp4")
    monkeypatch.chdir(tmp_path / "sub")
    paths = ["link.mp4", "again.mp4", "../other/y.mp4"]
    outputs = mirror(paths, common_folder(paths), OUT, ".npz")
    assert list(outputs.values()) == ["sub/link.npz", "sub/again.npz", "other/y.npz"]


@pytest.mark.parametrize("metadata", [{"source": "film.mp4"}, {"source": {"path": "a"}}, {}, []])
def test_other_metadata_is_not_ours(tmp_path, metadata):
    Features(metadata=metadata).save(tmp_path / "a.npz")
    with pytest.raises(OutputError, match="does not hold features made here"):
        finished(LocalFolder(tmp_path), "a.npz", IDENTITY)


def test_names_that_are_no_text_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xe9.mp4")
    metadata = save(tmp_path / "a.npz")
    lists = Lists(LocalFolder(tmp_path))
    lists.add(name, "a.npz", metadata)
    lists.add_failure(name + "2", "b.npz", {"path": name + "2"})
    lists.write()
    (tmp_path / (name + "2")).touch()
    assert b"\xe9.mp4" in (tmp_path / "index.csv").read_bytes()
    before = [(tmp_path / n).read_bytes() for n in ("index.csv", "failed.jsonl")]
    Lists(LocalFolder(tmp_path)).write()
    assert [(tmp_path / n).read_bytes() for n in ("index.csv", "failed.jsonl")] == before


def test_inputs_outside_the_root_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not under the root"):
        mirror(["/elsewhere/a.mp4"], tmp_path, OUT, ".npz")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
def test_finished_means_same_file_settings_and_weights(tmp_path, suffix):
    output = tmp_path / f"a{suffix}"
    metadata = save(output)
    assert finished(LocalFolder(tmp_path), output.name, IDENTITY) == metadata
    for change in (
        {"settings": {"fps": 8.0}},
        {"weights": {"video": {"id": "y"}}},
        {"source": {**SOURCE, "bytes": 11}},
        {"source": {**SOURCE, "modified_ns": 6}},
    ):
        assert finished(LocalFolder(tmp_path), output.name, {**IDENTITY, **change}) is None
    for path in ("elsewhere/a.mp4", r"C:\elsewhere\a.mp4"):
        moved = {**IDENTITY, "source": {**SOURCE, "path": path}}
        assert finished(LocalFolder(tmp_path), output.name, moved) == metadata
    unknown = {**IDENTITY, "source": {**SOURCE, "bytes": 0}}  # a web server need not report the length
    save(output, **unknown)
    assert finished(LocalFolder(tmp_path), output.name, unknown) is None


def test_an_input_is_not_looked_at_where_no_output_is(tmp_path):
    assert known_result("https://host/a.mp4", LocalFolder(tmp_path), "a.npz", identity=None) is None


def test_a_name_too_long_is_the_result_of_its_file_alone(tmp_path):
    result = known_result("https://host/a.mp4", LocalFolder(tmp_path), f"{'a' * 300}.npz", identity=None)
    assert isinstance(result.error, OutputError)
    assert "a file name of 304 bytes, where 255 are allowed" in str(result.error)


def test_features_of_another_file_and_other_files_are_not_replaced(tmp_path):
    save(tmp_path / "a.npz")
    with pytest.raises(OutputError, match=r"holds the features of in/a\.mp4"):
        finished(
            LocalFolder(tmp_path),
            "a.npz",
            {**IDENTITY, "source": {**SOURCE, "path": "other/a.mp4", "modified_ns": 6}},
        )
    np.savez(tmp_path / "mine.npz", precious=np.arange(3))
    with pytest.raises(OutputError, match="does not hold features made here"):
        finished(LocalFolder(tmp_path), "mine.npz", IDENTITY)
    np.save(tmp_path / "mine.npy", np.arange(3))
    with pytest.raises(OutputError, match="does not hold features made here"):
        finished(LocalFolder(tmp_path), "mine.npy", IDENTITY)


def test_index_and_failures_are_tables_a_machine_reads(tmp_path):
    metadata = save(tmp_path / "sub" / "a.npz")
    error = UnreadableMediaError("is empty", remedy="fetch it again", path="b.mp4")
    lists = Lists(LocalFolder(tmp_path))
    lists.add('in/"a", b.mp4', "sub/a.npz", metadata)
    lists.add_failure("b.mp4", "b.npz", failure_row("b.mp4", error, modality="both"))
    lists.write()
    (row,) = csv.DictReader((tmp_path / "index.csv").open())
    assert row == {
        "input": 'in/"a", b.mp4', "output": "sub/a.npz", "duration": "0.5", "video_rows": "1", "video_dim": "2",
        "audio_rows": "", "audio_dim": "", "missing": "audio", "warnings": "says 9 s; bad", "notes": "a gap",
    }  # fmt: skip
    (line,) = (tmp_path / "failed.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "path": "b.mp4", "modality": "both", "error": "UnreadableMediaError", "reason": "is empty",
        "remedy": "fetch it again",
    }  # fmt: skip


def test_lists_keep_what_other_runs_put_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "x", "y"):
        (tmp_path / f"{name}.mp4").touch()
    first = Lists(LocalFolder(tmp_path))
    for name in ("b", "a", "gone"):
        first.add(f"{name}.mp4", f"{name}.npz", save(tmp_path / f"{name}.npz"))
    for name in ("x", "y", "vanished"):
        first.add_failure(f"{name}.mp4", f"{name}.npz", {"path": f"{name}.mp4"})
    first.write()
    (tmp_path / "gone.npz").unlink()
    second = Lists(LocalFolder(tmp_path))
    second.add("x.mp4", "x.npz", save(tmp_path / "x.npz"))
    second.add_failure("a.mp4", "a.npz", {"path": "a.mp4"})
    second.write()
    assert [r["input"] for r in csv.DictReader((tmp_path / "index.csv").open())] == ["b.mp4", "x.mp4"]
    failed = (tmp_path / "failed.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in failed] == ["a.mp4", "y.mp4"]


def test_a_signed_url_is_one_input_whatever_its_signature(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "exists", lambda path, **_: True)
    url, output = "https://host/a.mp4", "a.npz"
    for signature in (1, 2):
        lists = Lists(LocalFolder(tmp_path))
        lists.add_failure(f"{url}?sig={signature}", output, {"path": f"{url}?sig={signature}"})
        lists.write()
    assert json.loads((tmp_path / "failed.jsonl").read_text())["path"] == f"{url}?sig=2"  # one line
    lists = Lists(LocalFolder(tmp_path))
    lists.add(f"{url}?sig=3", output, save(tmp_path / output))
    lists.write()
    assert [r["input"] for r in csv.DictReader((tmp_path / "index.csv").open())] == [url]
    assert not (tmp_path / "failed.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("index.csv", "my,own,table\n1,2,3\n"), ("failed.jsonl", "[1]\n")]
)
def test_a_users_own_lists_are_not_replaced(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(OutputError, match="was not written by this command"):
        Lists(LocalFolder(tmp_path))
