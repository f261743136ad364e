import csv
import json
from pathlib import Path

import numpy as np
import pytest

from crisscross_zoo import Features
from crisscross_zoo.errors import OutputError, UnreadableMediaError
from crisscross_zoo.outputs import failure, finished, index_row, mirror, write_failures, write_index

IDENTITY = {
    "source": {"path": "in/a.mp4", "bytes": 10},
    "settings": {"fps": 16.0},
    "weights": {"video": {"id": "x"}},
}


def save(path, **changes):
    rest = {
        "shapes": {"video": [1, 2]},
        "duration": 0.5,
        "missing": ["audio"],
        "warnings": ["says 9 s", "bad"],
    }
    metadata = {**IDENTITY, **rest, **changes}
    Features(video=np.zeros((1, 2), np.float32), video_windows=np.array([[0, 0.5]]), metadata=metadata).save(
        path
    )
    return metadata


def test_outputs_mirror_the_tree(tmp_path):
    paths = [str(tmp_path / p) for p in ("a.mp4", "sub/b.wav", "sub/deep/c.x.mkv")]
    outputs = mirror(paths, tmp_path, Path("out"), ".npz")
    assert [o.as_posix() for o in outputs.values()] == ["out/a.npz", "out/sub/b.npz", "out/sub/deep/c.x.npz"]


def test_names_that_would_collide_keep_their_suffix(tmp_path):
    paths = [str(tmp_path / p) for p in ("a.mp4", "A.avi", "b.mp4")]
    outputs = mirror(paths, tmp_path, Path("out"), ".npz")
    assert [o.as_posix() for o in outputs.values()] == ["out/a.mp4.npz", "out/A.avi.npz", "out/b.npz"]


def test_inputs_outside_the_root_are_refused(tmp_path):
    with pytest.raises(OutputError, match="not under the root"):
        mirror(["/elsewhere/a.mp4"], tmp_path, Path("out"), ".npz")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
def test_finished_means_same_file_settings_and_weights(tmp_path, suffix):
    output = tmp_path / f"a{suffix}"
    assert finished(output, IDENTITY) is None
    metadata = save(output)
    assert finished(output, IDENTITY) == metadata
    for change in (
        {"settings": {"fps": 8.0}},
        {"weights": {"video": {"id": "y"}}},
        {"source": {"path": "in/a.mp4", "bytes": 11}},
    ):
        assert finished(output, {**IDENTITY, **change}) is None
    moved = {**IDENTITY, "source": {"path": "elsewhere/a.mp4", "bytes": 10}}
    assert finished(output, moved) == metadata


def test_features_of_another_file_and_other_files_are_not_replaced(tmp_path):
    save(tmp_path / "a.npz")
    with pytest.raises(OutputError, match=r"holds the features of in/a\.mp4"):
        finished(tmp_path / "a.npz", {**IDENTITY, "source": {"path": "other/a.mp4", "bytes": 99}})
    np.savez(tmp_path / "mine.npz", precious=np.arange(3))
    with pytest.raises(OutputError, match="does not hold features made here"):
        finished(tmp_path / "mine.npz", IDENTITY)
    np.save(tmp_path / "mine.npy", np.arange(3))
    with pytest.raises(OutputError, match="does not hold features made here"):
        finished(tmp_path / "mine.npy", IDENTITY)


def test_index_and_failures_are_tables_a_machine_reads(tmp_path):
    metadata = save(tmp_path / "sub" / "a.npz")
    write_index(tmp_path, [index_row('in/"a", b.mp4', tmp_path / "sub" / "a.npz", tmp_path, metadata)])
    (row,) = csv.DictReader((tmp_path / "index.csv").open())
    assert row == {
        "input": 'in/"a", b.mp4', "output": "sub/a.npz", "duration": "0.5", "video_rows": "1", "video_dim": "2",
        "audio_rows": "", "audio_dim": "", "missing": "audio", "warnings": "says 9 s; bad",
    }  # fmt: skip
    error = UnreadableMediaError("is empty", remedy="fetch it again", path="b.mp4")
    write_failures(tmp_path, [failure("b.mp4", "both", error)])
    (line,) = (tmp_path / "failed.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "path": "b.mp4", "modality": "both", "error": "UnreadableMediaError", "reason": "is empty",
        "remedy": "fetch it again",
    }  # fmt: skip
    write_failures(tmp_path, [])
    assert not (tmp_path / "failed.jsonl").exists()
