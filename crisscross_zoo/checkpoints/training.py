"""Checkpoints from which a training resumes: they are written atomically, and damaged ones are set aside.

Pretraining keeps the last few in a folder, by step (:func:`save_checkpoint`). The trainings of evaluation, which have
few epochs, keep one file (:func:`save_progress`).
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
"""Name of the folder of checkpoints in a pretraining run."""

FORMAT = 1
"""Version of the format of pretraining's checkpoints."""

_NAME = re.compile(r"step_(\d{9})\.pt")


def read_state(path: Path, keys: Collection[str], *, remedy: str) -> dict[str, Any]:
    """Read a dict of tensors and plain values onto the CPU; nothing else is unpickled.

    Args:
        path: A file that ``torch.save`` wrote.
        keys: Keys that the dict must have.
        remedy: What happens if the file is damaged, for the error.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
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
    """Rename a damaged checkpoint, so that it is neither counted nor resumed from."""
    path.replace(path.with_name(f"{path.name}.damaged"))


# --- one every few steps -----------------------------------------------------------------------------------------


def save_checkpoint(run: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write the state after ``step`` steps, then remove all but the newest ``keep``.

    Raises:
        OSError: the file cannot be written; the older ones are kept.
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
        CheckpointError: the file is damaged.
        ConfigError: another version of this package wrote it.
    """
    state = read_state(path, {"format"}, remedy="the run resumes from the one before")
    if state["format"] != FORMAT:
        raise ConfigError(
            f"has format {state['format']!r}, this version reads {FORMAT}",
            remedy="use the version that wrote it",
            path=path,
        )
    return state


# --- one file, written after each epoch --------------------------------------------------------------------------


def save_progress(path: Path, identity: str, state: Mapping[str, Any]) -> None:
    """Write ``state``, tensors and plain values, as the progress of the training with this ``identity``.

    Raises:
        OSError: the file cannot be written; the one before is kept.
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
    """Read the state that :func:`save_progress` wrote; a damaged file is set aside.

    Args:
        path: The file.
        identity: The identity of the training that would resume.
        keys: Keys that the state must have.
        restart: Restart if the file belongs to another training.
        on_message: Called with a line about a damaged file.

    Returns:
        The state, on the CPU; None if there is none to resume from.

    Raises:
        TrainingError: the file belongs to another training.
    """
    if not path.exists():
        return None
    try:
        state = read_state(
            path, {*keys, "identity"}, remedy=f"it is kept as {path.name}.damaged, training is restarted"
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
