"""The smallest possible run, for the tests of the loop and their child processes."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import sys
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, BinaryIO

import needs
import pytest
import torch

from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.presets import PretrainConfig, make_config


def tiny_config(**overrides: Any) -> PretrainConfig:
    """Return the config of a run of 9 steps in 3 epochs with tiny networks."""
    small: dict[str, Any] = {
        "video": VideoConfig(depth=10, width=8, frames=4, size=32),
        "audio": AudioConfig(depth=10, width=8, seconds=0.64),
        "heads.projection": 16,
        "heads.prediction_hidden": 8,
        "data.crop": 32,
        "data.epoch_size": 14,
        "optim.batch_size": 4,
        "optim.epochs": 3,
        "optim.warmup_epochs": 1.0,
        "optim.precision": "fp32",
        "run.device": "cpu",
        "run.workers": 0,
        "run.save_steps": 4,
        "run.log_steps": 2,
        "run.tensorboard": False,
    }
    return make_config("kinetics-sound", overrides={**small, **overrides})


def final_model(run: Path) -> dict[str, torch.Tensor]:
    """Return the model's state in a run's newest checkpoint."""
    state: dict[str, torch.Tensor] = load_checkpoint(list_checkpoints(run)[-1])["model"]
    return state


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def train(files: Sequence[Media], overrides: dict[str, Any], run: Path, *, stop_at: int = 0) -> None:
    """Train as one rank, and exit with 130 if the run is stopped. At the step ``stop_at`` rank 0 gets a SIGTERM."""

    def on_progress(step: int, total: int, row: dict[str, float]) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    torch.set_num_threads(1)
    status = pretrain(tiny_config(**overrides), files, run, on_progress=on_progress)
    print(status)
    sys.exit(0 if status.finished else 130)


def start_process(target: Callable[..., None], *arguments: object, **options: object) -> BaseProcess:
    """Call a function of this module in a new process, forked if possible from one that has imported torch."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    if forks:
        multiprocessing.set_forkserver_preload(
            ["crisscross_zoo.pretrain.loop"]
        )  # takes seconds, but only once
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    process: BaseProcess = context.Process(target=target, args=arguments, kwargs=options)
    process.start()
    return process


def start_ranks(
    size: int, files: Sequence[Media], overrides: dict[str, Any], folder: Path, *, stop_at: int = 0
) -> list[tuple[int | None, str]]:
    """Run :func:`train` into ``folder / "run"`` in several ranks; return the exit code and the output of each."""
    shared = {
        **os.environ,  # of this test, not of the test that started the fork server
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    processes = [
        start_process(
            _rank,
            {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            folder / f"printed.{rank}",
            files,
            overrides,
            folder / "run",
            stop_at=stop_at,
        )
        for rank in range(size)
    ]
    for process in processes:
        process.join(300)
        process.kill()  # if it is still running
        process.join()
    printed = [(folder / f"printed.{rank}").read_text() for rank in range(size)]
    return [(process.exitcode, text) for process, text in zip(processes, printed, strict=True)]


def _rank(environment: dict[str, str], printed: Path, *arguments: Any, **options: Any) -> None:
    os.environ.update(environment)
    with printed.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    train(*arguments, **options)


@contextlib.contextmanager
def forked_packing() -> Iterator[None]:
    """Make litdata fork its processes. By default it spawns them, and each imports torch."""
    litdata = needs.package("litdata", extra="shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litdata, "optimize", functools.partial(litdata.optimize, start_method="fork"))
        yield


class Trap(Sequence[Media]):
    """Files, one of which fails when it is read, in one rank or in all.

    Args:
        files: All files.
        position: Position of the failing file.
        act: How it fails: "raise", "leave", "exit", "kill", "fault" or "hang".
        rank: The rank in which it fails; None: every rank.
    """

    def __init__(self, files: Sequence[Media], position: int, act: str, *, rank: int | None = None) -> None:
        self.files, self.position, self.act, self.rank = files, position, act, rank

    def __len__(self) -> int:
        return len(self.files)

    @typing.overload
    def __getitem__(self, position: int) -> Media: ...

    @typing.overload
    def __getitem__(self, position: slice) -> Sequence[Media]: ...

    def __getitem__(self, position: int | slice) -> Media | Sequence[Media]:
        return self.files[position]

    def open(self, position: int) -> BinaryIO:
        if position == self.position and self.rank in (None, int(os.environ.get("RANK", "0"))):
            if self.act == "raise":
                raise IndexError("list index out of range")
            if self.act == "leave":
                sys.exit(0)
            if self.act == "exit":
                os._exit(3)
            if self.act == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL if self.act == "kill" else signal.SIGSEGV)
        return Path(self.files[position].path).open("rb")
