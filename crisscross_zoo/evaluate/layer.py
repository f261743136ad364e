"""A linear layer on frozen features, trained by Adam with cross entropy (section E.1, 32 frames and Kinetics400)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from crisscross_zoo.encoders.classifier import linear_head
from crisscross_zoo.errors import TrainingError
from crisscross_zoo.evaluate.protocols import LayerConfig
from crisscross_zoo.evaluate.store import Rows


@dataclass(frozen=True)
class TrainedLayer:
    """The layer after an epoch.

    Attributes:
        module: Features (n, D) to logits (n, K), in eval mode; later epochs go on changing it.
        epoch: From 1.
        loss: Mean over the epoch.
    """

    module: nn.Module
    epoch: int
    loss: float

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return logits, float32 (n, K)."""
        found: list[npt.NDArray[np.float32]] = []
        device = next(self.module.parameters()).device
        with torch.inference_mode():
            for _, block in rows.blocks():
                found.append(self.module(torch.from_numpy(block).to(device)).cpu().numpy())
        return np.concatenate(found)


def train_layer(
    rows: Rows,
    labels: npt.NDArray[np.int64],
    classes: int,
    config: LayerConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    after_epoch: Callable[[TrainedLayer], None] | None = None,
) -> TrainedLayer:
    """Train a layer, and give it to ``after_epoch`` as it is after each epoch.

    Args:
        rows: (n, D), finite.
        labels: (n,), from 0 to ``classes - 1``.
        classes: K.
        config: Rate, epochs and the like.
        seed: Of the layer, of dropout and of the order of the clips.
        device: Where it is trained.
        after_epoch: Called after each epoch.

    Returns:
        The layer after the last epoch.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    random = np.random.default_rng(seed)
    targets = torch.from_numpy(np.asarray(labels, np.int64))
    size = min(config.batch_size, len(rows))
    with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed)
        head = linear_head(rows.shape[1], classes, dropout=config.dropout, batch_norm=config.batch_norm)
        head.to(device)
        optimizer = torch.optim.Adam(head.parameters(), config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(config.milestones), config.gamma)
        for epoch in range(1, config.epochs + 1):
            head.train()
            order = random.permutation(len(rows))
            losses = []
            for first in range(0, len(order) - size + 1, size):
                places = np.sort(order[first : first + size])  # in the order in which they lie on the disk
                logits = head(torch.from_numpy(rows[places]).to(device))
                loss = F.cross_entropy(logits, targets[places].to(device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.detach())
            schedule.step()
            layer = TrainedLayer(head.eval(), epoch, float(torch.stack(losses).mean()))
            if not np.isfinite(layer.loss):
                raise TrainingError(f"the loss is {layer.loss} in epoch {epoch}", remedy="lower layer.lr")
            if after_epoch is not None:
                after_epoch(layer)
    return layer
