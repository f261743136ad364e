"""The shard of the inputs that this process takes: from ``--shard``, or from the variables of ``torchrun`` or Slurm."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crisscross_zoo.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Shard:
    """Shard ``index`` of ``count``, counted from 0.

    Attributes:
        index: Number of the shard, from 0.
        count: Number of shards, one per process; with 1, this process takes all inputs.
        local: Number of the process on its machine, from 0, which picks its GPU; None if unknown.
        origin: Where the shard comes from, for messages: "--shard", "torchrun" or "Slurm".
    """

    index: int = 0
    count: int = 1
    local: int | None = None
    origin: str = ""

    def of(self, paths: Sequence[str]) -> list[str]:
        """Return every ``count``-th of the sorted paths, starting at number ``index``."""
        return sorted(paths)[self.index :: self.count]

    def name(self, index: int | None = None) -> str:
        """Return the name of this shard's fragment of the lists, or of shard ``index``'s."""
        return f"{self.index if index is None else index}-of-{self.count}"

    def own_device(self, device: str | torch.device) -> str | torch.device:
        """Return ``device``; if it is ``"auto"`` or ``"cuda"`` and there are GPUs, the GPU of this local process."""
        if self.local is None or device not in ("auto", "cuda"):
            return device
        import torch

        # Slurm may show each process only its own GPU, hence the modulo.
        return f"cuda:{self.local % torch.cuda.device_count()}" if torch.cuda.is_available() else device


def numbered_shard(index: int, count: int) -> Shard:
    """Return shard ``index`` of ``count``, counted from 0, as given by ``--shard``.

    Raises:
        ConfigError: there is no such shard.
    """
    if not 0 <= index < count:
        raise ConfigError(
            f"there is no shard {index}/{count}",
            remedy=f"shards are counted from 0, so the last is {max(count, 1) - 1}/{count}",
        )
    return Shard(index, count, origin="--shard")


def started_shard(environment: Mapping[str, str] = os.environ) -> Shard:
    """Return the shard of a process that ``torchrun`` or Slurm's ``srun`` started; otherwise one shard of all inputs.

    A Slurm batch script itself is not a task of a step (it has no SLURM_STEP_ID): a command in it without ``srun`` runs
    once, whatever the value of SLURM_NTASKS.
    """
    for origin, names in (
        ("torchrun", ("RANK", "WORLD_SIZE", "LOCAL_RANK")),
        ("Slurm", ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")),
    ):
        if origin == "Slurm" and "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment:
            continue
        values = [environment.get(name, "") for name in names]
        if all(v.isdecimal() for v in values) and int(values[1]) > 1:
            index, count, local = map(int, values)
            return Shard(index, count, local, origin)
    return Shard()
