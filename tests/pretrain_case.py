"""A run as small as it gets, for the tests of the loop and their child processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.presets import PretrainConfig, make_config


def tiny_config(**overrides: Any) -> PretrainConfig:
    """A run of 9 steps in 3 epochs, of networks as small as they get."""
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
    """The model of a run's newest checkpoint."""
    state: dict[str, torch.Tensor] = load_checkpoint(list_checkpoints(run)[-1])["model"]
    return state


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def start_ranks(script: str, size: int, *arguments: object) -> list[tuple[int, str]]:
    """Run a script in several processes that know of each other; return how each ended and what it printed."""
    shared = {
        **os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, printed, strict=True)]


class Trap(Sequence[Media]):
    """Files of which one does something else than to be read, in one rank or in all.

    Args:
        files: All of them.
        place: Which it is.
        act: "raise", "exit", "kill", "fault" or "hang".
        rank: Where it does so; None: everywhere.
    """

    def __init__(self, files: Sequence[Media], place: int, act: str, *, rank: int | None = None) -> None:
        self.files, self.place, self.act, self.rank = files, place, act, rank

    def __len__(self) -> int:
        return len(self.files)

    @typing.overload
    def __getitem__(self, place: int) -> Media: ...

    @typing.overload
    def __getitem__(self, place: slice) -> Sequence[Media]: ...

    def __getitem__(self, place: int | slice) -> Media | Sequence[Media]:
        return self.files[place]

    def open(self, place: int) -> BinaryIO:
        if place == self.place and self.rank in (None, int(os.environ.get("RANK", "0"))):
            if self.act == "raise":
                raise IndexError("list index out of range")
            if self.act == "exit":
                os._exit(3)
            if self.act == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL if self.act == "kill" else signal.SIGSEGV)
        return Path(self.files[place].path).open("rb")
