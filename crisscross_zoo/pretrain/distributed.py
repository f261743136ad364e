"""Training with several ranks: started by ``torchrun``, one for each GPU, or on CPUs with gloo."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from crisscross_zoo.settings import pick_device
from crisscross_zoo.workers.pool import usable_cores


class World:
    """All ranks of a run, as one of them sees them. A single process is rank 0 of 1, and every call is free.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``. With several ranks, each takes the GPU of its local rank.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of ranks.
        device: The device of this rank.

    Raises:
        ConfigError: the device is not available.
    """

    def __init__(self, device: str = "auto") -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if device in ("auto", "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        self.device = pick_device(device, auto=("cuda",))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self._control: Any = None
        if self.size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            self._control = dist.new_group(backend="gloo") if self.device.type == "cuda" else dist.group.WORLD

    def close(self, *, failed: bool = False) -> None:
        """Leave the process group. On GPUs a rank that failed does not: it would wait for the others."""
        if self._control is not None and not (failed and self.device.type == "cuda"):
            dist.destroy_process_group()
        self._control = None

    @property
    def local_size(self) -> int:
        """Number of ranks on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def workers(self, wanted: int) -> int:
        """Return the number of this rank's workers: ``wanted``, or for -1 its part of the cores, 16 at most."""
        if wanted >= 0:
            return wanted
        return min(16, max(1, usable_cores() // self.local_size))

    def worst(self, signal: int) -> int:
        """Return the largest ``signal`` of all ranks. Each step calls this, over the CPU, so that no GPU waits."""
        if self._control is None:
            return signal
        worst = torch.tensor(signal)
        dist.all_reduce(worst, dist.ReduceOp.MAX, group=self._control)
        return int(worst)

    def gather(self, value: Any) -> list[Any]:
        """Return the values that all ranks passed, in the order of ranks."""
        if self._control is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(None)


def synchronize_batch_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with batch norms whose statistics are those of all ranks' batches together.

    On GPUs these are torch's. Torch has none for the CPU; there, :class:`AllReduceBatchNorm` is used.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            module.__class__ = AllReduceBatchNorm  # type: ignore[assignment]
    return model


class AllReduceBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all ranks, of equal size: mean and variance are summed by all-reduce."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Accept any number of axes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (N, C, ...) by channel."""
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        count = input.numel() // input.shape[1] * dist.get_world_size()
        mean = _sum(input.sum(axes)) / count
        shape = (1, -1, *[1] * (input.ndim - 2))
        centred = input - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                self.running_var.lerp_(variance.to(self.running_var) * (count / (count - 1)), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return centred * scale.view(shape) + self.bias.view(shape)


def _sum(x: Tensor) -> Tensor:
    total: Tensor = dist_nn.all_reduce(x)  # type: ignore[no-untyped-call]
    return total
