"""The loop: what a run writes, that it resumes bit for bit wherever it was stopped, and what stops it."""

from __future__ import annotations

import copy
import csv
import dataclasses
import gc
import json
import math
import os
import shutil
import signal
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_case import final_model, start_process, tiny_config, train

from crisscross_zoo import load_encoder
from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint
from crisscross_zoo.errors import ConfigError, TrainingError
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain import data, loader, loop
from crisscross_zoo.pretrain.loop import RunStatus, pretrain
from crisscross_zoo.pretrain.metrics import COLUMNS, read_log
from crisscross_zoo.pretrain.schedule import cosine_schedule

pytestmark = pytest.mark.integration

Clips = list[Media]


@pytest.fixture(scope="module")
def whole(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 9 steps that nothing interrupted."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain(tiny_config(), clips, run) == RunStatus(run, 9, 9, finished=True)
    return run


def assert_same_bits(run: Path, other: Path) -> None:
    mine, theirs = final_model(run), final_model(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def at_step(wanted: int, act: Callable[[], None]) -> Callable[[int, int, dict[str, float]], None]:
    """Return a callback that acts at a step."""
    return lambda step, total, row: act() if step == wanted else None


def fail() -> None:
    raise ZeroDivisionError  # an unexpected exception


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# --- what a run writes -------------------------------------------------------------------------------------------


def test_the_folder_of_a_run(whole: Path) -> None:
    assert {p.name for p in whole.iterdir()} == {"config.json", "log.csv", "checkpoints", "video", "audio"}
    assert [p.name for p in list_checkpoints(whole)] == ["step_000000008.pt", "step_000000009.pt"]
    assert json.loads((whole / "config.json").read_text()) == tiny_config().to_dict()


def test_every_row_of_the_log(whole: Path) -> None:
    rows = read_log(whole)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 9]
    assert list(rows[0]) == list(COLUMNS)
    table = cosine_schedule(2e-4, 0.0, warmup_steps=3, total_steps=9)
    for row in rows:
        assert row["video_base_lr"] == pytest.approx(table[int(row["step"]) - 1], rel=1e-6)
        assert row["audio_predictor_lr"] == 2e-3
        assert row["total"] == pytest.approx((row["intra"] + row["sync"] + row["async_"]) / 3, abs=1e-5)
        assert row["intra"] == pytest.approx(row["v1v2"] + row["a1a2"], abs=1e-5)
        assert row["grad_norm"] > 0
        assert 0.05 / 4 < row["video_std"] < 1.01 / 4
        assert 0 < row["data_wait_fraction"] < 1
        assert row["samples_per_second"] > 0
        assert row["failed_files"] == 0


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_the_encoders_load(whole: Path, modality: Any) -> None:
    encoder = load_encoder(modality, whole / modality)
    assert encoder.config == getattr(tiny_config(), modality)
    prefix, model = f"{modality}_backbone.", final_model(whole)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, model[prefix + name])
    card = (whole / modality / "README.md").read_text()
    assert "preset `kinetics-sound`" in card
    assert "9 steps of 4 samples" in card


def test_training_moves_every_parameter(whole: Path, clips: Clips, tmp_path: Path) -> None:
    first = tmp_path / "first"
    pretrain(tiny_config(**{"optim.epochs": 1, "run.save_steps": 1, "run.keep": 9}), clips, first)
    assert len(list_checkpoints(first)) == 3
    before, after = load_checkpoint(list_checkpoints(first)[0])["model"], final_model(whole)
    # a bias before a batch norm has no gradient
    still = {n for n in before if torch.equal(before[n], after[n])}
    assert {n for n in still if not n.endswith("0.bias")} == set()


# --- resuming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_crash_in_mid_epoch_changes_no_bit(whole: Path, clips: Clips, tmp_path: Path, workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        pretrain(tiny_config(**{"run.workers": workers}), clips, tmp_path, on_progress=at_step(6, fail))
    assert [p.name for p in list_checkpoints(tmp_path)] == [
        "step_000000004.pt"
    ]  # in mid-epoch: an epoch has 3 steps
    assert pretrain(tiny_config(**{"run.workers": 2 - workers}), clips, tmp_path).finished
    assert_same_bits(tmp_path, whole)


def test_a_signal_writes_a_checkpoint_and_returns(whole: Path, clips: Clips, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped = pretrain(tiny_config(), clips, tmp_path, on_progress=at_step(2, terminate))
    assert stopped == RunStatus(tmp_path, 2, 9, finished=False)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000000002.pt"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert pretrain(tiny_config(), clips, tmp_path).finished
    assert_same_bits(tmp_path, whole)
    steps = [row["step"] for row in read_log(tmp_path)]
    assert steps == [2, 4, 6, 8, 9]


def test_a_killed_process_resumes_to_the_same_bits(whole: Path, clips: Clips, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_process(train, clips, {"run.workers": 2, "run.save_steps": 1}, run)
    while not any(p.name >= "step_000000004.pt" for p in list_checkpoints(run)):
        assert process.is_alive()
        time.sleep(0.02)
    time.sleep(0.05)  # so that it is killed in mid-step
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert pretrain(tiny_config(**{"run.save_steps": 1}), clips, run).finished
    assert_same_bits(run, whole)


def test_a_damaged_checkpoint_is_passed_over(
    whole: Path, clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert pretrain(tiny_config(), clips, tmp_path / "run").finished
    assert "damaged" in caplog.text
    assert newest.with_name(f"{newest.name}.damaged").exists()
    assert_same_bits(tmp_path / "run", whole)


def test_a_checkpoint_of_another_version_is_not_passed_over(
    whole: Path, clips: Clips, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run")[-1]
    torch.save({**load_checkpoint(newest), "format": 99}, newest)
    with pytest.raises(ConfigError, match="has format 99, this version reads 1"):
        pretrain(tiny_config(), clips, tmp_path / "run")


def test_a_finished_run_writes_its_encoders_again_and_changes_nothing_else(
    whole: Path, clips: Clips, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "video" / "README.md").write_text("what its owner wrote")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    shutil.rmtree(run / "audio")
    assert pretrain(tiny_config(), clips, run).finished
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_another_run_is_not_resumed(whole: Path, clips: Clips, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"started with optim.video_lr 0.0002, not 0.5;"):
        pretrain(tiny_config(**{"optim.video_lr": 0.5}), clips, whole)
    other = tiny_config(**{"loss.audio_weight": 0.0}).replace(objective="v1v2")
    with pytest.raises(ConfigError, match=r"started with objective 'crisscross', not 'v1v2' and 1 more;"):
        pretrain(other, clips, whole)
    with pytest.raises(ConfigError, match="another index"):
        pretrain(tiny_config(), clips, whole, data_id="other")
    (tmp_path / "precious.txt").touch()
    with pytest.raises(ConfigError, match="not empty and not a run"):
        pretrain(tiny_config(), clips, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_the_state_of_a_checkpoint_is_dropped_once_it_is_loaded(
    whole: Path, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    list_checkpoints(tmp_path / "run")[-1].unlink()
    kept: list[weakref.ref[torch.Tensor]] = []

    def load(path: Path) -> dict[str, Any]:
        state = load_checkpoint(path)
        kept.extend(map(weakref.ref, state["model"].values()))
        kept.extend(weakref.ref(moments["exp_avg"]) for moments in state["optimizer"]["state"].values())
        return state

    def look(_: str) -> None:
        gc.collect()
        seen.append([ref() is None for ref in kept])

    seen: list[list[bool]] = []
    monkeypatch.setattr(loop, "load_checkpoint", load)
    assert pretrain(tiny_config(), clips, tmp_path / "run", on_start=look).finished
    assert len(seen[0]) > 100
    assert all(seen[0])
    assert_same_bits(tmp_path / "run", whole)


@pytest.mark.parametrize("fused", [False, True])
def test_adams_state_is_moved_to_where_the_next_step_needs_it(fused: bool) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.float64, device="meta"))
    state = {"step": torch.tensor(5.0), "exp_avg": torch.ones(2, 3), "exp_avg_sq": torch.ones(2, 3)}
    loop.place_state(state, parameter, fused=fused)
    assert state["step"].device.type == ("meta" if fused else "cpu")
    assert fused or state["step"] == 5
    for name in ("exp_avg", "exp_avg_sq"):
        assert (state[name].device.type, state[name].dtype) == ("meta", torch.float64)


@pytest.mark.parametrize("fused", [False, True])
def test_adam_resumes_alike_whatever_wrote_its_state(fused: bool) -> None:
    """Fused Adam runs on a CPU too: resumed from a checkpoint of the other kind, it has the same result."""
    start = torch.randn(4, 3)

    def steps(optimizer: torch.optim.Adam, number: int) -> None:
        for k in range(number):
            parameter = optimizer.param_groups[0]["params"][0]
            parameter.grad = torch.full_like(parameter, 0.1 * (k + 1))
            optimizer.step()

    def adam(fused: bool) -> torch.optim.Adam:
        return torch.optim.Adam([torch.nn.Parameter(start.clone())], lr=0.1, fused=fused)

    before, other = adam(fused), adam(not fused)
    steps(before, 3)
    other.load_state_dict(copy.deepcopy(before.state_dict()))
    for group in other.param_groups:
        group["fused"] = not fused
    (theirs,) = other.param_groups[0]["params"]
    theirs.data.copy_(before.param_groups[0]["params"][0].data)
    loop.place_state(other.state[theirs], theirs, fused=not fused)
    steps(before, 3)
    steps(other, 3)
    torch.testing.assert_close(theirs, before.param_groups[0]["params"][0], rtol=1e-6, atol=1e-7)


def test_cudnn_chooses_by_trying_while_a_run_lasts(clips: Clips, tmp_path: Path) -> None:
    seen = []
    look = at_step(2, lambda: seen.append(torch.backends.cudnn.benchmark))
    pretrain(tiny_config(**{"optim.epochs": 1}), clips, tmp_path, on_progress=look)
    assert seen == [True]
    assert not torch.backends.cudnn.benchmark


# --- options -----------------------------------------------------------------------------------------------------


def test_accumulation_over_micro_batches_uses_every_sample(clips: Clips, tmp_path: Path) -> None:
    options = {"optim.epochs": 1, "run.log_steps": 1, "optim.precision": "fp64"}
    pretrain(tiny_config(**options), clips, tmp_path / "whole")
    pretrain(tiny_config(**options, **{"optim.accumulate": 2}), clips, tmp_path / "accumulated")
    whole, accumulated = read_log(tmp_path / "whole")[0], read_log(tmp_path / "accumulated")[0]
    assert accumulated["total"] != whole["total"], "batch norms see half of the batch"
    assert accumulated["total"] == pytest.approx(whole["total"], abs=0.5)
    assert accumulated["grad_norm"] > 0


@pytest.mark.parametrize("objective", ["v1v2", "a1a2"])
def test_one_modality_alone(clips: Clips, tmp_path: Path, objective: str) -> None:
    from crisscross_zoo.pretrain.presets import make_config

    base = tiny_config()
    overrides = {
        f"{group}.{name}": value
        for group in ("heads", "data", "optim", "run")
        for name, value in vars(getattr(base, group)).items()
        if "_lr" not in name
    }
    config = make_config(
        "kinetics-sound",
        objective=objective,
        overrides={**overrides, "video": base.video, "audio": base.audio, "optim.epochs": 1},
    )
    pretrain(config, clips, tmp_path)
    modality, other = ("video", "audio") if objective == "v1v2" else ("audio", "video")
    assert (tmp_path / modality).is_dir()
    assert not (tmp_path / other).exists()
    row = read_log(tmp_path)[-1]
    assert row["total"] == pytest.approx(row[objective])
    assert math.isnan(row["sync"])
    assert math.isnan(row[f"{other}_std"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_on_a_cpu_are_refused(clips: Clips, tmp_path: Path, precision: str) -> None:
    with pytest.raises(ConfigError, match=f"training in {precision} on a CPU gives wrong gradients"):
        pretrain(tiny_config(**{"optim.precision": precision}), clips, tmp_path)
    assert not list(tmp_path.iterdir())


def test_checkpointing_and_tensorboard_run(clips: Clips, tmp_path: Path) -> None:
    options = {
        "optim.epochs": 1, "optim.larc": True, "run.tensorboard": True,
        "run.checkpoint_activations": True, "heads.joint_views": True,
    }  # fmt: skip
    assert pretrain(tiny_config(**options), clips, tmp_path).finished
    assert all(math.isfinite(row["total"]) for row in read_log(tmp_path))
    events = list((tmp_path / "tensorboard").iterdir())
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(events) == 1
    seen = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"total", "video_std", "samples_per_second"} <= set(seen.Tags()["scalars"])
    assert [e.step for e in seen.Scalars("total")] == [2, 3]


def test_a_missing_tensorboard_is_one_line(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r'crisscross-zoo\[pretrain\]"'):
        pretrain(tiny_config(**{"run.tensorboard": True}), clips, tmp_path)


# --- what stops a run --------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_the_files(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._Trainer.step

    def poisoned(self: Any, batch: Any, rates: Any, *, norm: bool) -> Any:
        terms, grad_norm = real(self, batch, rates, norm=norm)
        steps = self.optimizer.state_dict()["state"][0]["step"]
        if steps == 6:
            terms = [term * float("nan") for term in terms]
            self.poison = batch.paths
            bad.append(batch.paths)
        return terms, grad_norm

    bad: list[list[str]] = []
    monkeypatch.setattr(loop._Trainer, "step", poisoned)
    with pytest.raises(TrainingError, match=r"loss of step 5 is not finite; its files: ") as caught:
        pretrain(tiny_config(), clips, tmp_path)
    assert all(path in str(caught.value) for path in bad[0])
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000000004.pt"]


def test_broken_files_are_replaced_listed_and_counted(clips: Clips, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no media" * 100)
    files = [*clips[:5], dataclasses.replace(clips[5], path=str(broken), size=800)]
    assert pretrain(tiny_config(), files, tmp_path / "run").finished
    failed = [json.loads(line) for line in (tmp_path / "run" / "failed.jsonl").read_text().splitlines()]
    assert len(failed) >= 3
    assert {f["path"] for f in failed} == {str(broken)}
    assert {f["error"] for f in failed} == {"UnreadableMediaError"}
    assert read_log(tmp_path / "run")[-1]["failed_files"] == len(failed)


def test_files_of_repeated_steps_are_listed_once(clips: Clips, tmp_path: Path) -> None:
    gone = dataclasses.replace(clips[5], path=str(tmp_path / "gone.mp4"))
    files = [*clips[:5], gone]
    pretrain(tiny_config(), files, tmp_path / "whole")
    with pytest.raises(ZeroDivisionError):
        pretrain(tiny_config(), files, tmp_path / "run", on_progress=at_step(6, fail))
    pretrain(tiny_config(), files, tmp_path / "run")
    lists = [(tmp_path / name / "failed.jsonl").read_text() for name in ("whole", "run")]
    assert lists[0] == lists[1] != ""
    counts = [read_log(tmp_path / name)[-1]["failed_files"] for name in ("whole", "run")]
    assert counts[0] == counts[1] == lists[0].count("\n")


def test_a_stop_after_a_bad_loss_saves_nothing(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._Trainer.step

    def poisoned(self: Any, batch: Any, rates: Any, *, norm: bool) -> Any:
        terms, grad_norm = real(self, batch, rates, norm=norm)
        os.kill(os.getpid(), signal.SIGTERM)
        return [term * float("nan") for term in terms], grad_norm

    monkeypatch.setattr(loop._Trainer, "step", poisoned)
    with pytest.raises(TrainingError, match="loss of step 0 is not finite"):
        pretrain(tiny_config(), clips, tmp_path)
    assert not list_checkpoints(tmp_path)


def test_too_many_broken_files_stop_the_run(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FAILURES_COUNT_FROM", 8)
    files = [*clips[:3], *(dataclasses.replace(c, path=str(tmp_path / "gone.mp4")) for c in clips[3:])]
    with pytest.raises(TrainingError, match=r"failed in 8 samples, more than --run.max-failed"):
        pretrain(tiny_config(), files, tmp_path / "run")


def test_a_killed_worker_is_restarted(whole: Path, clips: Clips, tmp_path: Path) -> None:
    import multiprocessing

    def kill_one() -> None:
        child = multiprocessing.active_children()[0]
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    options = {"run.workers": 2}
    assert pretrain(tiny_config(**options), clips, tmp_path, on_progress=at_step(2, kill_one)).finished
    assert_same_bits(tmp_path, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_whatever_fails_in_loading_leaves_a_checkpoint(
    whole: Path, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    calls = []

    def break_off(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyError("unexpected")
        return real(*arguments, **options)

    real = loader.Batch
    monkeypatch.setattr(loader if workers else data, "Batch", break_off)
    with pytest.raises(TrainingError, match=r"KeyError: .* the same command resumes from"):
        pretrain(tiny_config(**{"run.workers": workers}), clips, tmp_path)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_000000004.pt", "step_000000005.pt"]
    monkeypatch.undo()
    assert pretrain(tiny_config(), clips, tmp_path).finished
    assert_same_bits(tmp_path, whole)


def test_a_collapse_is_logged(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "COLLAPSE_FRACTION", 2.0)
    pretrain(tiny_config(**{"optim.epochs": 1}), clips, tmp_path)
    assert "the video embeddings collapse: their std is" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"optim.batch_size": 15}, "an epoch of 14 samples has no batch of 15"),
        ({"optim.accumulate": 3}, "does not divide"),
        ({"optim.accumulate": 4}, "at least 2 samples"),
        ({"optim.warmup_epochs": 4.0}, "12 steps of warm-up in 9"),
        ({"run.device": "cuda:7"}, "cannot be used"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    clips: Clips, tmp_path: Path, overrides: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        pretrain(tiny_config(**overrides), clips, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_log_is_plain_csv(whole: Path) -> None:
    with (whole / "log.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 6
