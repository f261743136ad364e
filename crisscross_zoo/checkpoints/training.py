"""Checkpoints of a training that goes on where it was stopped: whole or not there, damaged ones set aside.

Pretraining keeps the last few in a folder, by step (:func:`save_checkpoint`). A training of evaluation, which has a few
epochs, keeps one file (:func:`save_progress`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from crisscross_zoo.errors import CheckpointError, ConfigError, TrainingError
from crisscross_zoo.files.atomic import atomic_path

FOLDER = "checkpoints"
"""Of a pretraining run: where its checkpoints are."""

FORMAT = 1
"""Of pretraining's checkpoints."""

_NAME = re.compile(r"step_(\d{9})\.pt")


def read_state(path: Path, keys: Collection[str], *, remedy: str) -> dict[str, Any]:
    """Read a dict of tensors and plain values onto the CPU; nothing else is unpickled.

    Args:
        path: What ``torch.save`` wrote.
        keys: What it must have.
        remedy: What happens where it is damaged, for the error.

    Raises:
        CheckpointError: it is damaged, or something else.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for key in keys:
            state[key]
    except Exception as error:  # torch raises anything for a damaged file
        raise CheckpointError(
            f"is no checkpoint of a run, or damaged ({type(error).__name__})", remedy=remedy, path=path
        ) from None
    return state


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that it neither counts nor is gone on from."""
    path.replace(path.with_name(f"{path.name}.damaged"))


# --- one a number of steps ---------------------------------------------------------------------------------------


def save_checkpoint(run: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write the state after ``step`` steps, then remove all but the newest ``keep``.

    Raises:
        OSError: it cannot be written; the older ones are still there.
    """
    path = run / FOLDER / f"step_{step:09d}.pt"
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, "step": step, **state}, temporary)
    for old in list_checkpoints(run)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(run: Path) -> list[Path]:
    """Return a run's checkpoints, oldest first."""
    folder = run / FOLDER
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name)) if folder.is_dir() else []


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one of a run's checkpoints onto the CPU; nothing but tensors and plain values is unpickled.

    Raises:
        CheckpointError: it is damaged.
        ConfigError: another version of this package wrote it.
    """
    state = read_state(path, {"format"}, remedy="the run goes on from the one before")
    if state["format"] != FORMAT:
        raise ConfigError(
            f"has format {state['format']!r}, this version reads {FORMAT}",
            remedy="use the version that wrote it",
            path=path,
        )
    return state


# --- one file, written after each epoch --------------------------------------------------------------------------


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
    on_message: Callable[[str], None] | None = None,
) -> dict[str, Any] | None:
    """Read what :func:`save_progress` wrote; a damaged file is set aside.

    Args:
        path: The file.
        identity: Of the training that would go on.
        keys: What the state must have.
        restart: Begin anew where the file is of another training.
        on_message: Told of a damaged file, in a line.

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
        if on_message is not None:
            on_message(str(error))
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
