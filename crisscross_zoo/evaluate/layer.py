"""A linear layer on frozen features, trained by Adam with cross entropy (section E.1, 32 frames and Kinetics400)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crisscross_zoo.encoders.head import linear_head
from crisscross_zoo.errors import TrainingError
from crisscross_zoo.evaluate.protocols import LayerConfig
from crisscross_zoo.evaluate.rows import Rows

_STATEFUL = ("module", "optimizer", "schedule")


@dataclass(frozen=True)
class TrainedLayer:
    """The layer after an epoch.

    Attributes:
        module: Maps features (n, D) to logits (n, K), in eval mode. Later epochs change it in place.
        epoch: The epoch, from 1.
        loss: Mean loss over the epoch.
    """

    module: nn.Module
    epoch: int
    loss: float

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return logits, float32 (n, K)."""
        return module_scores(self.module, rows)


def module_scores(module: nn.Module, rows: Rows) -> npt.NDArray[np.float32]:
    """Return the logits, float32 (n, K), of a module in eval mode for rows (n, D), computed block by block."""
    device = next(module.parameters()).device
    with torch.inference_mode():
        found = [
            module(torch.from_numpy(block).to(device)).float().cpu().numpy() for _, block in rows.blocks()
        ]
    return np.concatenate(found)


class LayerTraining:
    """Training of a linear layer, one epoch at a time; each epoch may have other rows.

    Args:
        features: D, the number of dimensions.
        classes: K, the number of classes.
        config: Learning rate, epochs and the like.
        seed: Seed of the initial weights, dropout and the order of the clips.
        device: Where the layer is trained.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        config: LayerConfig,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device, self.epoch = config, torch.device(device), 0
        self._order = np.random.default_rng(seed)
        self._random: dict[str, Tensor] = {}
        with self._own_random():
            torch.manual_seed(seed)
            self.module = linear_head(
                features, classes, dropout=config.dropout, batch_norm=config.batch_norm
            ).to(self.device)
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), config.lr, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, list(config.milestones), config.gamma
        )

    def train_epoch(self, rows: Rows, labels: npt.NDArray[np.int64]) -> TrainedLayer:
        """Train one more epoch.

        Args:
            rows: (n, D), finite.
            labels: (n,), from 0 to K - 1.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        targets = torch.from_numpy(np.asarray(labels, np.int64))
        size = min(self.config.batch_size, len(rows))
        losses = []
        self.module.train()
        with self._own_random():
            order = self._order.permutation(len(rows))
            for first in range(0, len(order) - size + 1, size):
                batch = np.sort(order[first : first + size])  # in the order of the rows on disk
                logits = self.module(torch.from_numpy(rows[batch]).to(self.device))
                loss = F.cross_entropy(logits, targets[batch].to(self.device))
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                losses.append(loss.detach())
        self.schedule.step()
        self.epoch += 1
        layer = TrainedLayer(self.module.eval(), self.epoch, float(torch.stack(losses).mean()))
        if not np.isfinite(layer.loss):
            raise TrainingError(f"the loss is {layer.loss} in epoch {self.epoch}", remedy="lower layer.lr")
        return layer

    def state_dict(self) -> dict[str, Any]:
        """Return the state that is needed to resume, as tensors and plain values."""
        states = {name: getattr(self, name).state_dict() for name in _STATEFUL}
        order = json.dumps(self._order.bit_generator.state)
        return {**states, "epoch": self.epoch, "order": order, "random": self._random}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that :meth:`state_dict` returned."""
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.module.eval()
        self.epoch, self._random = state["epoch"], dict(state["random"])
        self._order.bit_generator.state = json.loads(state["order"])

    @contextlib.contextmanager
    def _own_random(self) -> Iterator[None]:
        """Set torch's random state to that of this training, and restore the caller's afterwards."""
        cuda = self.device.type == "cuda"
        with torch.random.fork_rng([self.device] if cuda else []):
            if "cpu" in self._random:
                torch.set_rng_state(self._random["cpu"])
            if cuda and "cuda" in self._random:
                torch.cuda.set_rng_state(self._random["cuda"], self.device)
            yield
            self._random = {"cpu": torch.get_rng_state()}
            if cuda:
                self._random["cuda"] = torch.cuda.get_rng_state(self.device)
