"""The pretraining loop: from an index of files to two encoders.

A run is a folder::

    config.json            every setting, as resolved
    log.csv, tensorboard/  the log, a row every few steps
    failed.jsonl           files that were replaced by others
    skipped.jsonl          files that crashed or hung the process that read them, and are not read any more
    checkpoints/           the last few checkpoints, to resume from
    video/, audio/         the finished encoders, for ``load_encoder``

Calling :func:`pretrain` again resumes a run that was killed, stopped by a signal, or failed. On a CPU the resumed run
ends in the same bits as one that was never stopped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from crisscross_zoo import __version__
from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint, save_checkpoint, set_aside
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.errors import CheckpointError, ConfigError, CrissCrossError, TrainingError, first_line
from crisscross_zoo.files.atomic import write_atomically, writing
from crisscross_zoo.media.scan import decoder_versions
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.numerics import fixed_shapes
from crisscross_zoo.pretrain.data import Batch, BatchSampler, steps_per_epoch, used_views
from crisscross_zoo.pretrain.distributed import World, synchronize_batch_norms
from crisscross_zoo.pretrain.export import export_encoders
from crisscross_zoo.pretrain.incidents import Incidents, Record
from crisscross_zoo.pretrain.loader import (
    STOP_SIGNALS,
    Flight,
    available_bytes,
    check_memory,
    make_loader,
    plan_flight,
)
from crisscross_zoo.pretrain.metrics import Log, Meter, mean_of_processes, peak_memory_mb
from crisscross_zoo.pretrain.model import CrissCross
from crisscross_zoo.pretrain.optim import LARC
from crisscross_zoo.pretrain.presets import PretrainConfig
from crisscross_zoo.pretrain.schedule import cosine_schedule
from crisscross_zoo.settings import check_training_precision
from crisscross_zoo.text import counted
from crisscross_zoo.workers.errors import training_errors
from crisscross_zoo.workers.samples import Failures

_log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
FAILED_FILE = "failed.jsonl"

COLLAPSE_FRACTION = 0.1
"""A run warns if the std of embeddings falls below this fraction of 1 / sqrt(d), the std of an even spread."""

FAILURES_COUNT_FROM = 200
"""Samples after which failed files can stop a run."""

LEAST_CHANNELS_LAST_WIDTH = 8
"""Narrower networks stay contiguous: in their channels-last backward pass on a CPU, torch 2.14 writes out of bounds."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

_RESUME = "the same command resumes from the last checkpoint"

_GO, _STOP, _FAIL = 0, 1, 2  # the largest value of all ranks decides


@dataclass(frozen=True)
class RunStatus:
    """How a call of :func:`pretrain` ended.

    Attributes:
        run: The run's folder.
        step: Steps done, by this call and earlier ones.
        total_steps: Steps of the whole run.
        finished: Whether all steps are done and the encoders are written. Otherwise a signal stopped the run.
    """

    run: Path
    step: int
    total_steps: int
    finished: bool


def pretrain(
    config: PretrainConfig,
    files: Sequence[Media],
    run: str | os.PathLike[str],
    *,
    data_id: str = "",
    on_start: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> RunStatus:
    """Pretrain, from the beginning or from the newest checkpoint in ``run``.

    Started by ``torchrun``, it trains on all ranks, each with an equal part of every batch. On SIGTERM, SIGUSR1
    (Slurm's warning) or SIGINT it writes a checkpoint and returns.

    Args:
        config: Every setting.
        files: The data set: an :class:`~crisscross_zoo.pretrain.index.Index`, or files with a video and an audio
            stream.
        run: The run's folder; it is created if it does not exist.
        data_id: Identifies the data set (a hash of its index). A run can only be resumed with the same one.
        on_start: Called once at the start with a one-line description of the run.
        on_progress: Called with ``(step, total steps, row of the log)`` after each row.

    Raises:
        ConfigError: settings contradict each other, settings or data differ from those of the run in the folder, or an
            optional dependency is missing.
        TrainingError: the loss is not finite, too many files fail, or the workers do not start. The run's folder has an
            earlier checkpoint.
        OSError: the folder cannot be written.
    """
    run = Path(run)
    epoch_size = config.data.epoch_size or len(files)
    per_epoch = steps_per_epoch(epoch_size, config.optim.batch_size)
    total = per_epoch * config.optim.epochs
    rates = _rates(config, per_epoch, total)
    world = World(config.run.device)
    try:
        check_training_precision(world.device.type, config.optim.precision)
        _check_division(config, world)
        workers = world.workers(config.run.workers)
        flight = _plan_flight(config, world, workers)
        state = _open_run(config, run, data_id, world)
        trainer = _Trainer(config, world)
        first = 0 if state is None else trainer.load(state)
        del state
        sampler = BatchSampler(
            seed=config.seed,
            files=len(files),
            epoch_size=epoch_size,
            batch_size=config.optim.batch_size,
            steps=range(first, total),
            rank=world.rank,
            world=world.size,
        )
        loader = make_loader(
            files,
            config,
            sampler,
            workers=workers,
            pin_memory=flight.pinned,
            flight=flight,
            incidents=_open_incidents(run, files, data_id, world),
            record=Record(run, rank=world.rank, limit=config.run.read_seconds),
        )
        if on_start is not None and world.rank == 0:
            on_start(
                f"{counted(len(files), 'file')}; steps {first:,} to {total:,} of {config.optim.batch_size:,} samples,"
                f" {per_epoch:,} per epoch; on {world.size} x {world.device.type} in {config.optim.precision}"
            )
        meter = Meter(world.device)
        reporter = _Reporter(config, run, world, first=first, per_epoch=per_epoch)
        with (
            contextlib.closing(reporter),
            training_errors(
                memory="pass --run.checkpoint-activations, or --optim.accumulate with a new --out"
            ),
            fixed_shapes(),
            _stop_signals() as stop_requested,
            contextlib.closing(iter(loader)) as batches,
        ):
            for step in range(first, total):
                began = time.perf_counter()
                batch, failure = _fetch(batches)
                waited = time.perf_counter() - began
                # A stop signal may end the workers too: then a failed batch is no failure of the run.
                decision = world.worst(_STOP if stop_requested() else _FAIL if failure is not None else _GO)
                if decision != _GO:
                    if step > first:
                        reporter.check(meter)
                        trainer.save(run, step, data_id)
                    if decision == _FAIL:
                        raise _loading_failed(world.gather(failure))
                    world.close()
                    return RunStatus(run, step, total, finished=False)
                assert batch is not None

                due = (step + 1) % config.run.log_steps == 0 or step + 1 == total
                save = (step + 1) % config.run.save_steps == 0 or step + 1 == total
                terms, grad_norm = trainer.step(
                    batch, {name: table[step] for name, table in rates.items()}, norm=due
                )
                meter.add(step, terms, batch.paths, waited=waited)
                reporter.note(step, batch.failures)
                if due or save:
                    reporter.check(meter)
                if due:
                    row = reporter.row(step + 1, meter, trainer, grad_norm)
                    if on_progress is not None and world.rank == 0:
                        on_progress(step + 1, total, row)
                    meter.clear()
                if save:
                    trainer.save(run, step + 1, data_id)
        if world.rank == 0:
            export_encoders(run, run)
        world.barrier()
    except BaseException:
        world.close(failed=True)
        raise
    world.close()
    return RunStatus(run, total, total, finished=True)


class _Trainer:
    """Model, optimizer and scaler: they make a step, and are saved and loaded."""

    def __init__(self, config: PretrainConfig, world: World) -> None:
        self.config, self.world = config, world
        width = min(config.video.width, config.audio.width)
        self.channels_last = config.run.channels_last and width >= LEAST_CHANNELS_LAST_WIDTH
        if config.run.compile and world.device.type == "cuda":
            self.channels_last = False  # torch.compile stops at gradients of channels-last weights
        torch.manual_seed(config.seed)
        model = CrissCross(
            VideoEncoder(config.video),
            AudioEncoder(config.audio),
            projection=config.heads.projection,
            prediction_hidden=config.heads.prediction_hidden,
            joint_views=config.heads.joint_views,
            checkpoint_activations=config.run.checkpoint_activations,
            **vars(config.loss),
        )
        if world.size > 1:
            model = synchronize_batch_norms(model, world.device)  # type: ignore[assignment]
        self.dtype = torch.float64 if config.optim.precision == "fp64" else torch.float32
        model.to(world.device, self.dtype)
        if self.channels_last:
            model.video_backbone.to(memory_format=torch.channels_last_3d)
            model.audio_backbone.to(memory_format=torch.channels_last)
        self.model = model
        self.fused = on_gpu = world.device.type == "cuda"
        optim = config.optim
        adam = torch.optim.Adam(
            model.parameter_groups(
                video_lr=0.0, audio_lr=0.0, video_predictor_lr=0.0, audio_predictor_lr=0.0
            ),
            betas=optim.betas,
            weight_decay=optim.weight_decay,
            fused=on_gpu,
        )
        self.optimizer = LARC(adam, optim.larc_trust, eps=optim.larc_eps) if optim.larc else adam
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=optim.precision == "fp16")
        self.replica: DistributedDataParallel | None = None
        if world.size > 1:
            self.replica = DistributedDataParallel(
                model,
                device_ids=[world.device] if on_gpu else None,
                broadcast_buffers=False,  # synchronised batch norms have the same statistics in all ranks
                gradient_as_bucket_view=True,
            )
        self.forward: Any = self.replica or model
        if config.run.compile:
            self.forward = torch.compile(self.forward)

    def step(self, batch: Batch, rates: dict[str, float], *, norm: bool) -> tuple[Any, Tensor | None]:
        """Make one step. Return the loss terms (means over micro-batches) and, with ``norm``, the gradients' norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(rates[group["name"]])
        self.optimizer.zero_grad()
        count = self.config.optim.accumulate
        terms = None
        for number, views in enumerate(self._micro_batches(batch, count)):
            last = number == count - 1
            # the gradients of all ranks are summed once, with the last micro-batch
            later = contextlib.nullcontext() if last or self.replica is None else self.replica.no_sync()
            dtype = _AUTOCAST.get(self.config.optim.precision)
            with later:
                with torch.autocast(self.world.device.type, dtype=dtype, enabled=dtype is not None):
                    loss = self.forward(**views)
                self.scaler.scale(loss.total / count).backward()
            loss = [value.detach() / count for value in loss]
            terms = loss if terms is None else [a + b for a, b in zip(terms, loss, strict=True)]
        self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]  # LARC has all that it uses
        grad_norm = None
        if norm:
            grads = [p.grad for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
            grad_norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]
        self.scaler.update()
        return terms, grad_norm

    def _micro_batches(self, batch: Batch, count: int) -> Iterator[dict[str, Tensor]]:
        moved = {}
        for name in used_views(self.config):
            x = batch.views[name].to(self.world.device, non_blocking=True).to(self.dtype)
            if self.channels_last:
                x = x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)
            moved[name] = x.chunk(count)
        return (dict(zip(moved, views, strict=True)) for views in zip(*moved.values(), strict=True))

    def save(self, run: Path, step: int, data_id: str) -> None:
        """Write a checkpoint. Only rank 0 does."""
        if self.world.rank == 0:
            state = {
                "data_id": data_id,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": torch.get_rng_state(),
                "config": json.dumps(self.config.to_dict()),
                "versions": json.dumps(
                    {
                        "crisscross_zoo": __version__,
                        "torch": torch.__version__,
                        "python": platform.python_version(),
                    }
                    | decoder_versions()
                ),
            }
            save_checkpoint(run, step, state, keep=self.config.run.keep)

    def load(self, state: dict[str, Any]) -> int:
        """Load a checkpoint's state and return the step to resume at. Large entries are removed from ``state``."""
        self.model.load_state_dict(state.pop("model"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        # Device and strides may differ from those of the run that saved the checkpoint.
        for group in self.optimizer.param_groups:
            group["fused"] = self.fused
            for p in group["params"]:
                place_state(self.optimizer.state[p], p, fused=self.fused)
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        return int(state["step"])


def place_state(state: dict[str, Any], parameter: Tensor, *, fused: bool) -> None:
    """Move an optimizer's state of a parameter to the device, dtype and layout that the next step needs.

    Moments get the parameter's device, dtype and strides. Adam's ``step`` is on the parameter's device if Adam is
    fused, and on the CPU otherwise. Torch itself would follow the checkpoint's ``fused``, not this run's.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if name == "step":
            state[name] = value.to(parameter.device if fused else "cpu", torch.float32, copy=True)
        elif value.shape == parameter.shape:
            state[name] = torch.empty_like(parameter).copy_(value)


class _Reporter:
    """Write the log and the list of failed files, and stop a run if too many fail or a loss is not finite."""

    def __init__(
        self, config: PretrainConfig, run: Path, world: World, *, first: int, per_epoch: int
    ) -> None:
        self.config, self.world = config, world
        self.per_epoch = per_epoch
        self._batch_size = config.optim.batch_size // world.size
        self._samples = first * self._batch_size
        name = FAILED_FILE if world.rank == 0 else FAILED_FILE.replace(".", f".{world.rank}.")
        self._failed_path = run / name
        self._failures = _keep_failures_before(self._failed_path, first)
        self._warned: set[str] = set()
        self.log: Log | None = None
        error: CrissCrossError | None = None
        if world.rank == 0:
            try:
                self.log = Log(
                    run,
                    step=first,
                    tensorboard=config.run.tensorboard,
                    wandb=config.run.wandb,
                    config=config.to_dict(),
                )
            except CrissCrossError as raised:
                error = raised
        if (error := world.gather(error)[0]) is not None:
            raise error  # in every rank, so that none waits for another

    def close(self) -> None:
        """Close the log."""
        if self.log is not None:
            self.log.close()

    def note(self, step: int, failures: Failures) -> None:
        """List the files that failed in a step."""
        self._samples += self._batch_size
        self._failures += len(failures)
        if failures:
            with (
                writing(self._failed_path.parent),
                self._failed_path.open("a", encoding="utf-8", newline="\n") as file,
            ):
                for failure in failures:
                    file.write(json.dumps({"step": step, **failure}) + "\n")
                    _log.warning("%s: %s; another file replaces it", failure["path"], failure["reason"])

    def check(self, meter: Meter) -> None:
        """Raise in all ranks if a loss is not finite or too many files failed."""
        bad = meter.bad_step()
        found = self.world.gather(
            (bad, None if bad is None else meter.paths[bad], self._failures, self._samples)
        )
        steps = [step for step, *_ in found if step is not None]
        if steps:
            paths = [path for step, names, *_ in found if step == min(steps) for path in names]
            shown = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
            raise TrainingError(
                f"the loss of step {min(steps)} is not finite; its files: {shown}",
                remedy=f"lower the learning rates or use another precision; {_RESUME}",
            )
        failures, samples = sum(f for *_, f, _ in found), sum(s for *_, s in found)
        if samples >= FAILURES_COUNT_FROM and failures > self.config.run.max_failed * samples:
            raise TrainingError(
                f"{counted(failures, 'file')} failed in {counted(samples, 'sample')}, more than --run.max-failed allows"
                f" ({self.config.run.max_failed:g})",
                remedy=f"see {self._failed_path}, and index the files again",
            )

    def row(self, step: int, meter: Meter, trainer: _Trainer, grad_norm: Tensor | None) -> dict[str, float]:
        """Write and return the row of the steps since the last row, and warn of collapse."""
        means = mean_of_processes(self.world.gather(meter.means()))
        waits = self.world.gather(meter.waited)
        seconds = meter.seconds()
        row = {
            "step": step,
            "epoch": step / self.per_epoch,
            **means,
            "grad_norm": math.nan if grad_norm is None else float(grad_norm),
            **{f"{g['name']}_lr": g["lr"] for g in trainer.optimizer.param_groups},
            "samples_per_second": meter.steps * self.config.optim.batch_size / seconds,
            "data_wait_fraction": max(waits) / seconds,
            "peak_memory_mb": peak_memory_mb(self.world.device),
            "failed_files": sum(self.world.gather(self._failures)),
            "loss_scale": trainer.scaler.get_scale() if trainer.scaler.is_enabled() else math.nan,
        }
        even = 1 / math.sqrt(self.config.heads.projection)
        for modality in ("video", "audio"):
            std = row[f"{modality}_std"]
            if std < COLLAPSE_FRACTION * even and modality not in self._warned and self.world.rank == 0:
                self._warned.add(modality)
                _log.warning(
                    "step %d: the %s embeddings collapse: their std is %.2g, an even spread has %.2g",
                    step, modality, std, even,
                )  # fmt: skip
        if self.log is not None:
            self.log.write(row)
        return row


def _rates(config: PretrainConfig, per_epoch: int, total: int) -> dict[str, Any]:
    """Return the learning rate of every step, by parameter group; that of the predictors is constant."""
    optim = config.optim
    warmup = round(optim.warmup_epochs * per_epoch)
    return {
        "video_base": cosine_schedule(
            optim.video_lr, optim.video_final_lr, warmup_steps=warmup, total_steps=total
        ),
        "audio_base": cosine_schedule(
            optim.audio_lr, optim.audio_final_lr, warmup_steps=warmup, total_steps=total
        ),
        "video_predictor": [optim.video_predictor_lr] * total,
        "audio_predictor": [optim.audio_predictor_lr] * total,
    }


def _check_division(config: PretrainConfig, world: World) -> None:
    count = world.size * config.optim.accumulate
    if config.optim.batch_size % count or config.optim.batch_size // count < 2:
        raise ConfigError(
            f"a batch of {config.optim.batch_size} does not divide into {counted(world.size, 'rank')} of"
            f" {config.optim.accumulate} micro-batches of at least 2 samples",
            remedy="change --optim.batch-size or --optim.accumulate",
        )


def _plan_flight(config: PretrainConfig, world: World, workers: int) -> Flight:
    """Return the sizes of chunks and batches. Raise in all ranks if they do not fit the machine of one of them."""
    flight, error = None, None
    try:
        flight = plan_flight(
            config,
            batch_size=config.optim.batch_size // world.size,
            workers=workers,
            processes=world.local_size,
            pinned=world.device.type == "cuda",
        )
        check_memory(flight, processes=world.local_size, workers=workers, available=available_bytes())
    except ConfigError as raised:
        error = raised
    if (first := next((e for e in world.gather(error) if e is not None), None)) is not None:
        raise first
    assert flight is not None
    if world.device.type == "cuda" and not flight.pinned and world.rank == 0:
        _log.warning(
            "batches are copied to the GPU from memory that is not pinned, which is slower:"
            " --run.data-bytes is too small"
        )
    return flight


def _open_incidents(run: Path, files: Sequence[Media], data_id: str, world: World) -> Incidents:
    """Return the run's list of incidents, with the files that the last start was reading when it died."""
    if world.rank == 0:
        Incidents(run, files, data_id=data_id).take_left_behind()
    world.barrier()
    return Incidents(run, files, data_id=data_id, rank=world.rank)


def _open_run(config: PretrainConfig, run: Path, data_id: str, world: World) -> dict[str, Any] | None:
    """Return the newest checkpoint's state, or create the folder and return None if there is no checkpoint.

    The checkpoint must be of this config and data. A damaged one (a full disk, a bad copy) is set aside with a warning,
    and the previous one is used. Rank 0 does that; the other ranks then read the folder, and all must see the same.
    """
    state, error = None, None
    if world.rank == 0:
        try:
            state = _newest_state(config, run, data_id, mend=True)
            if state is None:
                settings = json.dumps(config.to_dict(), indent=2) + "\n"
                write_atomically(run / CONFIG_FILE, settings.encode())
        except CrissCrossError as raised:
            error = raised
    if (error := world.gather(error)[0]) is not None:
        raise error
    if world.rank > 0:
        state = _newest_state(config, run, data_id, mend=False)
    if len(set(world.gather(None if state is None else state["step"]))) > 1:
        raise ConfigError(
            f"{run}: the ranks see different checkpoints in it",
            remedy="put it on storage that all nodes share",
        )
    return state


def _newest_state(config: PretrainConfig, run: Path, data_id: str, *, mend: bool) -> dict[str, Any] | None:
    names = [p.name for p in run.iterdir()] if run.is_dir() else []
    if mend and CONFIG_FILE not in names and any(not name.endswith(".tmp") for name in names):
        raise ConfigError(f"{run}: is not empty and not a run", remedy="name another folder with --out")
    for path in reversed(list_checkpoints(run)):
        try:
            state = load_checkpoint(path)
        except CheckpointError as error:
            _log.warning("%s", error)
            if mend:
                set_aside(path)
            continue
        _check_same(config, json.loads(state["config"]), run)
        if data_id != state["data_id"]:
            raise ConfigError(
                f"{run}: was started with another index of files", remedy="pass that one, or another --out"
            )
        return state
    return None


def _check_same(config: PretrainConfig, other: dict[str, Any], run: Path) -> None:
    """Raise if settings that decide the result differ from those of the checkpoint."""
    mine, theirs = _flat(config.decisive()), _flat({k: v for k, v in other.items() if k != "run"})
    different = [k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)]
    if different:
        name = min(different, key=lambda k: (k.count("."), k))  # the objective sets others
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        raise ConfigError(
            f"{run}: was started with {name} {theirs.get(name)!r}, not {mine.get(name)!r}{more}",
            remedy="pass the same settings, or another --out",
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _fetch(batches: Iterator[Batch]) -> tuple[Batch | None, str | None]:
    """Return the next batch, or the reason why it could not be loaded."""
    try:
        batch = next(batches)
    except Exception as error:  # whatever it is, all ranks save and end together
        what = (
            str(error)
            if isinstance(error, CrissCrossError)
            else f"{type(error).__name__}: {first_line(error)}"
        )
        return None, what[:300]
    return (batch, None) if batch.error is None else (None, str(batch.error))


def _loading_failed(failures: list[str | None]) -> TrainingError:
    reason = next(f for f in failures if f is not None)
    return TrainingError(f"data cannot be loaded: {reason}", remedy=_RESUME)


def _keep_failures_before(path: Path, step: int) -> int:
    """Remove the failed files of steps that are repeated from their list; return how many remain."""
    if not path.is_file():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
    write_atomically(path, "".join(kept).encode())
    return len(kept)


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a stop signal was received. A second SIGINT interrupts at once."""
    received: list[int] = []

    def receive(number: int, _: Any) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)

    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
        before = {s: signal.signal(getattr(signal, s), receive) for s in STOP_SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
