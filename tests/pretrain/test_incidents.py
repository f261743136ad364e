"""Files that raise, crash or hang while they are read: they are listed and skipped, and the run finishes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_case import Trap, final_model, start_ranks, tiny_config

from crisscross_zoo.errors import TrainingError
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain import loader
from crisscross_zoo.pretrain.data import BatchSampler
from crisscross_zoo.pretrain.incidents import NOTHING, Incidents, Record
from crisscross_zoo.pretrain.loader import make_loader
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.metrics import read_log

pytestmark = pytest.mark.integration

Clips = list[Media]

BAD = 2


@pytest.fixture(scope="module")
def raising(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which a file raises an unexpected exception."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("raising") / "run"
    assert pretrain(tiny_config(), Trap(clips, BAD, "raise"), run).finished
    return run


def listed(run: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted(run.glob("skipped*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def assert_same_bits(run: Path, other: Path) -> None:
    mine, theirs = final_model(run), final_model(other)
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def start_again(
    size: int, files: Sequence[Media], overrides: dict[str, Any], folder: Path, *, most: int
) -> int:
    """Start a run, as a scheduler's script does, until it is done; return the number of starts."""
    printed = ""
    for start in range(1, most + 1):
        ended = start_ranks(size, files, overrides, folder)
        printed = "\n".join(text for _, text in ended)
        if all(code == 0 for code, _ in ended):
            return start
        assert all(code != 0 for code, _ in ended), printed
    raise AssertionError(printed)


def test_any_exception_is_the_files_failure(raising: Path, clips: Clips) -> None:
    failed = [json.loads(line) for line in (raising / "failed.jsonl").read_text().splitlines()]
    assert {f["path"] for f in failed} == {clips[BAD].path}
    assert {f["error"] for f in failed} == {"UnreadableMediaError"}
    assert {f["reason"] for f in failed} == {"reading it failed (IndexError: list index out of range)"}
    assert read_log(raising)[-1]["failed_files"] == len(failed) >= 3
    assert not list(raising.glob("skipped*"))


@pytest.mark.parametrize(("act", "reason"), [
    ("fault", "signal 11"), ("exit", "exit code 3"), ("kill", "signal 9"), ("hang", "was silent for 3 s"),
])  # fmt: skip
def test_a_file_that_ends_its_worker_fails_alone(
    raising: Path, clips: Clips, tmp_path: Path, act: str, reason: str
) -> None:
    # long enough for the other files on a busy machine
    config = tiny_config(**{"run.workers": 2, "run.read_seconds": 3.0 if act == "hang" else 60.0})
    assert pretrain(config, Trap(clips, BAD, act), tmp_path).finished
    incidents = listed(tmp_path)
    assert {(i["place"], i["path"], i["certain"]) for i in incidents} == {
        (BAD, clips[BAD].path, act != "kill")
    }
    assert len(incidents) >= (2 if act == "kill" else 1)
    assert all(reason in i["reason"] for i in incidents)
    assert_same_bits(tmp_path, raising)
    failed = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert {f["reason"] for f in failed} == {"is not read any more, see skipped.jsonl"}
    # the file stays listed: no worker dies again
    assert pretrain(config, Trap(clips, BAD, act), tmp_path).finished
    assert listed(tmp_path) == incidents


@pytest.mark.parametrize("act", ["fault", "hang"])
def test_without_workers_the_run_finishes_at_the_third_start(
    raising: Path, clips: Clips, tmp_path: Path, act: str
) -> None:
    overrides = {"run.read_seconds": 3.0 if act == "hang" else 60.0, "run.save_steps": 1}
    assert start_again(1, Trap(clips, BAD, act), overrides, tmp_path, most=3) == 3
    assert [(i["place"], i["certain"]) for i in listed(tmp_path / "run")] == [(BAD, False)] * 2
    assert_same_bits(tmp_path / "run", raising)
    assert not list((tmp_path / "run").glob("reading*"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("act", ["fault", "hang"])
def test_in_a_middle_rank(clips: Clips, tmp_path: Path, act: str, workers: int) -> None:
    files = Trap(clips, BAD, act, rank=1)
    overrides = {
        "optim.batch_size": 6, "optim.epochs": 1, "data.epoch_size": 24, "run.workers": workers,
        "run.read_seconds": 8.0 if act == "hang" else 60.0, "run.save_steps": 1,
    }  # fmt: skip
    assert start_again(3, files, overrides, tmp_path, most=3) == (1 if workers else 3)
    assert {i["place"] for i in listed(tmp_path / "run")} == {BAD}
    rows = read_log(tmp_path / "run")
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[-1]["failed_files"] >= 1


def test_a_killed_run_does_not_list_its_file_at_once(clips: Clips, tmp_path: Path) -> None:
    with Record(tmp_path, rank=0, limit=60.0).kept() as record:
        record.note(3)
        left = (tmp_path / "reading.0").read_bytes()
        record.note(NOTHING)
    assert not list(tmp_path.iterdir())
    for already in (0, 1):
        (tmp_path / "reading.0").write_bytes(left)
        incidents = Incidents(tmp_path, clips, data_id="x")
        incidents.take_left_behind()
        assert incidents.skipped == ({3} if already else set())
        assert not (tmp_path / "reading.0").exists()
    assert Incidents(tmp_path, clips, data_id="x", rank=1).skipped == {3}
    assert Incidents(tmp_path, clips, data_id="another").skipped == set()


def test_a_process_that_hangs_ends_after_the_limit(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from crisscross_zoo.pretrain.incidents import Record\n"
        "with Record(Path(sys.argv[1]), rank=4, limit=0.5).kept() as record: record.note(7); time.sleep(60)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=False, timeout=50
    )
    assert ended.returncode == 1
    assert (tmp_path / "reading.4").read_bytes() == (7).to_bytes(8, "little")


def batches(files: Sequence[Media], workers: int, **overrides: Any) -> list[Any]:
    sampler = BatchSampler(seed=0, files=len(files), epoch_size=14, batch_size=4, steps=range(3))
    return list(make_loader(files, tiny_config(**overrides), sampler, workers=workers, pin_memory=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_reader_that_leaves_is_the_files_failure(clips: Clips, workers: int) -> None:
    found = batches(Trap(clips, BAD, "leave"), workers)
    assert [len(batch.paths) for batch in found] == [4, 4, 4]
    failures = [failure for batch in found for failure in batch.failures]
    assert {f["path"] for f in failures} == {clips[BAD].path}
    assert {f["reason"] for f in failures} == {"reading it failed (SystemExit: 0)"}


class Silent(Trap):
    """All files hang."""

    def open(self, position: int) -> Any:
        self.position = position
        return super().open(position)


def test_storage_that_does_not_respond_is_not_attributed_to_a_file(
    clips: Clips, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TrainingError, match=r"none of 4 workers has read its file within 2 s; check that"):
        batches(Silent(clips, 0, "hang"), 4, **{"run.read_seconds": 2.0})
    assert "its worker" not in caplog.text


def test_workers_that_do_not_start_end_the_run(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.torch, "set_num_threads", lambda _: sys.exit(5))
    with pytest.raises(TrainingError, match=r"die before they read anything \(exit code 5\)"):
        batches(clips, 2)
