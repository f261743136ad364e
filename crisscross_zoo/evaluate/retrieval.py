"""Nearest neighbours by cosine similarity, on features averaged over the clips of each file (section E.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from crisscross_zoo.checkpoints.training import list_checkpoints, load_checkpoint
from crisscross_zoo.errors import CheckpointError, ConfigError
from crisscross_zoo.evaluate.probe import FileClips
from crisscross_zoo.pretrain.model import Predictor, Projector

try:
    from sklearn.neighbors import NearestNeighbors
except ImportError:
    raise ConfigError(
        "scikit-learn is not installed", remedy='run pip install "crisscross-zoo[evaluate]"'
    ) from None

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def file_means(clips: FileClips, head: nn.Module | None = None) -> Floats:
    """Average the features of the clips of each file.

    Args:
        clips: Clips of files.
        head: Module that is applied to each clip's features before averaging.

    Returns:
        float32, (files, D).
    """
    total: npt.NDArray[np.float64] | None = None
    for where, block in clips.rows.blocks():
        if head is not None:
            device = next(head.parameters()).device
            with torch.inference_mode():
                block = head(torch.from_numpy(block).to(device)).cpu().numpy()
        if total is None:
            total = np.zeros((clips.files, block.shape[1]))
        owners = clips.owners[where]
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        total[owners[firsts]] += np.add.reduceat(block.astype(np.float64), firsts, axis=0)
    assert total is not None
    means: Floats = (total / np.bincount(clips.owners)[:, None]).astype(np.float32)
    return means


def nearest(gallery: Floats, queries: Floats, k: int) -> tuple[Ints, Floats]:
    """Find the ``k`` gallery rows nearest to each query row, by cosine.

    Args:
        gallery: (n, D).
        queries: (m, D).
        k: Number of neighbours; at most n are found.

    Returns:
        Their row indices in the gallery, int64, nearest first, and their cosine similarities, float32: both
        (m, min(k, n)).
    """
    search = NearestNeighbors(n_neighbors=min(k, len(gallery)), metric="cosine", algorithm="brute")
    distances, indices = search.fit(gallery).kneighbors(queries)
    return indices.astype(np.int64), (1 - distances).astype(np.float32)


class Heads(nn.Module):
    """Projector and predictor of one modality.

    The loss (Eqn. 1) pulls the *prediction* of one modality to the *embedding* of the other. In retrieval across
    modalities the query therefore goes through projector and predictor, and the gallery only through the projector.
    The loss does not pull the two embeddings themselves together.

    Attributes:
        projector: Average-pooled features (n, D) to embeddings (n, 2048).
        predictor: Embeddings to predictions (n, 2048).
    """

    def __init__(self, projector: Projector, predictor: Predictor) -> None:
        super().__init__()
        self.projector, self.predictor = projector, predictor

    @property
    def num_features(self) -> int:
        """D: the channels of the encoder that the heads were trained with."""
        return _matrices(self.projector.state_dict())[0].shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions (n, 2048) of average-pooled features (n, D)."""
        predictions: Tensor = self.predictor(self.projector(x))
        return predictions


def load_heads(run: str | Path) -> dict[str, Heads]:
    """Read the heads of a pretraining run's newest checkpoint, by modality, in eval mode.

    Args:
        run: The run's folder.

    Raises:
        CheckpointError: the run has no checkpoint, or its newest one is damaged.
    """
    checkpoints = list_checkpoints(Path(run))
    if not checkpoints:
        raise CheckpointError("has no checkpoints", remedy="name the folder of a pretraining run", path=run)
    model: dict[str, Any] = load_checkpoint(checkpoints[-1])["model"]
    heads: dict[str, Heads] = {}
    for modality in ("video", "audio"):
        states: dict[str, dict[str, Tensor]] = {}
        for head in ("projector", "predictor"):
            prefix = f"{modality}_{head}."
            states[head] = {
                n.removeprefix(prefix): v.float() if v.is_floating_point() else v
                for n, v in model.items()
                if n.startswith(prefix)
            }
        projector, predictor = (_matrices(state) for state in states.values())
        made = Heads(
            Projector(projector[0].shape[1], projector[-1].shape[0]),
            Predictor(predictor[0].shape[1], predictor[0].shape[0]),
        )
        made.projector.load_state_dict(states["projector"])
        made.predictor.load_state_dict(states["predictor"])
        heads[modality] = made.eval()
    return heads


def _matrices(state: dict[str, Tensor]) -> list[Tensor]:
    return [v for v in state.values() if v.ndim == 2]
