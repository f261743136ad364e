import json
import signal
import subprocess
import sys
import time

import pytest
from make_media import make_media
from make_trees import contents

from crisscross_zoo.cli.extract import main
from crisscross_zoo.extract.lists import Lists
from crisscross_zoo.extract.shard import Shard, started_shard
from crisscross_zoo.files.store import LocalFolder

pytestmark = pytest.mark.integration

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}


def test_shards_are_all_the_files_once():
    paths = [f"{k}.mp4" for k in range(10)]
    shards = [Shard(k, 3).of(paths[::-1]) for k in range(3)]
    assert shards[1] == ["1.mp4", "4.mp4", "7.mp4"]
    assert sorted(path for shard in shards for path in shard) == paths


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, Shard()),
        (TORCHRUN, Shard(5, 8, 1, "torchrun")),
        (SLURM, Shard(2, 4, 0, "Slurm")),
        ({**SLURM, **TORCHRUN}, Shard(5, 8, 1, "torchrun")),
        ({**SLURM, "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, Shard(2, 4, 0, "Slurm")),
        ({**SLURM, "SLURM_JOB_ID": "7"}, Shard()),  # the batch script itself, which runs once
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, Shard()),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Shard()),
    ],
)
def test_the_shard_is_read_from_the_launchers_variables(environment, shard):
    assert started_shard(environment) == shard


def test_each_local_process_has_its_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [Shard(9, 16, local).own_device("auto") for local in range(5)] == [
        "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0",
    ]  # fmt: skip
    assert Shard(1, 2, 1).own_device("cuda") == "cuda:1"
    assert Shard(1, 2, 1).own_device("cpu") == "cpu"
    assert Shard(1, 2).own_device("auto") == "auto"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Shard(1, 2, 1).own_device("auto") == "auto"


@pytest.mark.parametrize("shard", ["3", "3/3", "1/0", "-1/3", "a/b"])
def test_shards_count_from_zero(shard, tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), f"--shard={shard}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--shard" in line


def test_a_shard_is_written_to_a_folder(tmp_path, capsys):
    (tmp_path / "a.mp4").touch()
    assert main([str(tmp_path / "a.mp4"), "--out", str(tmp_path / "x.npz"), "--shard", "0/2"]) == 2
    assert "name a folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for k in range(8):
        path = folder / f"{'sub/' if k % 2 else ''}{k}.mp4"
        path.parent.mkdir(exist_ok=True)
        make_media(path, seconds=2, size=(96, 64), audio=None)
    (folder / "sub/bad.mp4").write_text("no video")
    return folder


def command(tree, out, *more):
    return [
        sys.executable, "-m", "crisscross_zoo.cli.extract", str(tree), "--out", str(out), "--weights", "demo",
        "--device", "cpu", "--stride", "0.25", "--workers", "0", *more,
    ]  # fmt: skip


def start(arguments):
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(arguments):
    """Run the command in this process, and return its exit code."""
    return main(arguments[3:])


def lists_and_features(folder):
    return {name: data for name, data in contents(folder).items() if not name.startswith(".parts/")}


def test_shards_at_once_one_killed_and_started_again_end_as_one_process(tree, tmp_path, capsys, monkeypatch):
    one, shards = tmp_path / "one", tmp_path / "shards"
    assert run(command(tree, one)) == 1
    processes = [start(command(tree, shards, "--shard", f"{k}/3")) for k in range(3)]
    while processes[1].poll() is None and not list(shards.rglob("*.npz")):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    codes = [process.wait(120) for process in processes]
    assert codes == [0, -signal.SIGKILL, 1]  # sub/bad.mp4, number 5, is of shard 2
    assert not (shards / "index.csv").exists()
    assert run(command(tree, shards, "--shard", "1/3")) == 0
    assert lists_and_features(shards) == lists_and_features(one)
    # One at a time again, under another name: nothing is redone, and the lists are the same.
    times = {p: p.stat().st_mtime_ns for p in shards.rglob("*.npz")}
    capsys.readouterr()
    with monkeypatch.context() as environment:
        for name, value in {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
            environment.setenv(name, value)
        assert run(command(tree, shards)) == 0  # another would make torchrun end the other shards
    stderr = capsys.readouterr().err
    assert "shard 2 of 3 (torchrun): 3 of 9 files" in stderr
    assert "some inputs failed; exit code 0" in stderr
    assert lists_and_features(shards) == lists_and_features(one)
    # A run without shards merges the fragments.
    assert run(command(tree, shards)) == 1
    assert contents(shards) == contents(one)
    assert {p: p.stat().st_mtime_ns for p in shards.rglob("*.npz")} == times


def test_a_run_without_shards_merges_what_shards_left(tree, tmp_path):
    out = tmp_path / "out"
    for k in (0, 2):
        assert run(command(tree, out, "--shard", f"{k}/3")) in (0, 1)
    assert not (out / "index.csv").exists()
    assert len(list(out.rglob("*.npz"))) == 5
    # With other inputs: what the shards did stays in the lists.
    assert main([str(tree / "2.mp4"), *command(tree, out)[4:], "--root", str(tree)]) == 0
    assert len((out / "index.csv").read_text().splitlines()) == 1 + 6
    assert json.loads((out / "failed.jsonl").read_text())["path"] == str(tree / "sub" / "bad.mp4")
    assert not (out / ".parts").exists()


def test_a_shard_that_was_stopped_is_waited_for(tree, tmp_path):
    out = tmp_path / "out"
    for shard, code in (("0/2", 1), ("1/2", 0)):  # sub/bad.mp4 is of shard 0
        assert run(command(tree, out, "--shard", shard, "--on-error", "stop")) == code
        assert not (out / "index.csv").exists()
    assert run(command(tree, out, "--shard", "0/2")) == 1
    assert len((out / "index.csv").read_text().splitlines()) == 1 + 8


def write_fragment(folder, name, *, done=(), failed=()):
    lists = Lists(LocalFolder(folder), name)
    for path in done:
        output = folder / f"{path.stem}.npz"
        output.touch()
        summary = {"shapes": {"video": [1, 2]}, "duration": 1.0, "missing": [], "warnings": [], "notes": []}
        lists.add(str(path), output.name, summary)
    for path in failed:
        lists.add_failure(str(path), f"{path.stem}.npz", {"path": str(path), "error": "E"})
    lists.write()


def read(folder):
    rows = (folder / "index.csv").read_text().splitlines()[1:]
    failed = folder / "failed.jsonl"
    failures = failed.read_text().splitlines() if failed.exists() else []
    return [r.split(",")[1] for r in rows], [json.loads(line) for line in failures]


def test_merging_waits_for_all_and_may_be_done_again(tmp_path):
    files = [tmp_path / f"{name}.mp4" for name in "abc"]
    for file in files:
        file.touch()
    write_fragment(tmp_path, "0-of-2", done=files[:1], failed=files[1:2])
    fragments = ["0-of-2", "1-of-2"]
    assert not Lists.merge(LocalFolder(tmp_path), fragments, by="0-of-2")
    write_fragment(tmp_path, "1-of-2", done=files[2:])
    expected = ["a.npz", "c.npz"], [{"path": str(files[1]), "error": "E"}]
    for by in (*fragments, fragments[0]):
        assert Lists.merge(LocalFolder(tmp_path), fragments, by=by)
        assert read(tmp_path) == expected
    # Another number of shards, later: what was written last counts, whether done or failed.
    time.sleep(0.02)
    write_fragment(tmp_path, "0-of-1", done=files[1:2], failed=files[2:])
    Lists(LocalFolder(tmp_path)).write()
    assert read(tmp_path) == (["a.npz", "b.npz"], [{"path": str(files[2]), "error": "E"}])
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_fragment_that_is_being_redone_does_not_count(tmp_path):
    (tmp_path / "a.mp4").touch()
    write_fragment(tmp_path, "0-of-1", done=[tmp_path / "a.mp4"])
    Lists(LocalFolder(tmp_path), "0-of-1")
    assert not Lists.merge(LocalFolder(tmp_path), ["0-of-1"], by="0-of-1")
