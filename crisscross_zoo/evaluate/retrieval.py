"""Nearest neighbours by cosine, on features averaged over the clips of each file (section E.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crisscross_zoo.errors import CheckpointError, ConfigError
from crisscross_zoo.evaluate.probe import FileClips
from crisscross_zoo.pretrain.checkpoints import list_checkpoints, load_checkpoint
from crisscross_zoo.pretrain.model import Projector

try:
    from sklearn.neighbors import NearestNeighbors
except ImportError:
    raise ConfigError(
        "scikit-learn is not installed", remedy='run pip install "crisscross-zoo[evaluate]"'
    ) from None

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def file_means(clips: FileClips, projector: nn.Module | None = None) -> Floats:
    """Average the features of the clips of each file.

    Args:
        clips: Clips of files.
        projector: What each clip's features go through first.

    Returns:
        float32, (files, D).
    """
    total: npt.NDArray[np.float64] | None = None
    for where, block in clips.rows.blocks():
        if projector is not None:
            device = next(projector.parameters()).device
            with torch.inference_mode():
                block = projector(torch.from_numpy(block).to(device)).cpu().numpy()
        if total is None:
            total = np.zeros((clips.files, block.shape[1]))
        owners = clips.owners[where]
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        total[owners[firsts]] += np.add.reduceat(block.astype(np.float64), firsts, axis=0)
    assert total is not None
    means: Floats = (total / np.bincount(clips.owners)[:, None]).astype(np.float32)
    return means


def nearest(known: Floats, asked: Floats, k: int) -> tuple[Ints, Floats]:
    """Find the ``k`` known rows nearest to each asked one, by cosine.

    Args:
        known: (n, D).
        asked: (m, D).
        k: At most n are found.

    Returns:
        Their places, nearest first, and their cosine similarities: (m, min(k, n)) each.
    """
    search = NearestNeighbors(n_neighbors=min(k, len(known)), metric="cosine", algorithm="brute").fit(known)
    distances, places = search.kneighbors(asked)
    return places.astype(np.int64), (1 - distances).astype(np.float32)


def load_projectors(run: str | Path) -> dict[str, nn.Module]:
    """Read the projectors of a pretraining run's newest checkpoint, which bring both modalities into one space.

    Args:
        run: The run's folder.

    Returns:
        By modality: average-pooled features (n, D) to embeddings (n, 2048), in eval mode.

    Raises:
        CheckpointError: the run has no checkpoint, or a damaged one.
    """
    checkpoints = list_checkpoints(Path(run))
    if not checkpoints:
        raise CheckpointError("has no checkpoints", remedy="name the folder of a pretraining run", path=run)
    model: dict[str, Any] = load_checkpoint(checkpoints[-1])["model"]
    projectors: dict[str, nn.Module] = {}
    for modality in ("video", "audio"):
        prefix = f"{modality}_projector."
        state = {
            n.removeprefix(prefix): v.float() if v.is_floating_point() else v
            for n, v in model.items()
            if n.startswith(prefix)
        }
        first, last = _linear_sizes(state)
        projector = Projector(first, last)
        projector.load_state_dict(state)
        projectors[modality] = projector.eval()
    return projectors


def _linear_sizes(state: dict[str, torch.Tensor]) -> tuple[int, int]:
    matrices = [v for v in state.values() if v.ndim == 2]
    return matrices[0].shape[1], matrices[-1].shape[0]
