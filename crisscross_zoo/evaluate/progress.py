"""What a training of several epochs goes on from: one file, written after each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from crisscross_zoo.errors import CheckpointError, TrainingError
from crisscross_zoo.files.atomic import atomic_path
from crisscross_zoo.pretrain.checkpoints import read_state, set_aside


def save_progress(path: Path, identity: str, state: Mapping[str, Any]) -> None:
    """Write ``state``, tensors and plain values, as the progress of the training that ``identity`` names.

    Raises:
        OSError: it cannot be written; the one before is still there.
    """
    with atomic_path(path) as temporary:
        torch.save({**state, "identity": identity}, temporary)


def load_progress(
    path: Path,
    identity: str,
    keys: Collection[str],
    *,
    restart: bool = False,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any] | None:
    """Read what :func:`save_progress` wrote; a damaged file is set aside, as pretraining does with its own.

    Args:
        path: The file.
        identity: Of the training that would go on.
        keys: What the state must have.
        restart: Begin anew where the file is of another training.
        say: Told of a damaged file, in a line.

    Returns:
        The state, on the CPU; None where there is none to go on from.

    Raises:
        TrainingError: it is of another training.
    """
    if not path.exists():
        return None
    try:
        state = read_state(
            path, {*keys, "identity"}, remedy=f"it is kept as {path.name}.damaged, training begins anew"
        )
    except CheckpointError as error:
        set_aside(path)
        if say is not None:
            say(str(error))
        return None
    if state["identity"] == identity:
        return state
    if restart:
        return None
    raise TrainingError(
        "is the checkpoint of a run with other files, weights or settings",
        remedy="use another --out, or pass --overwrite",
        path=path,
    )
