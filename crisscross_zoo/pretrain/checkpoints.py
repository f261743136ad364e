"""Checkpoints of a run: everything that going on needs, written by rename, the last few kept."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from crisscross_zoo.errors import CheckpointError, ConfigError
from crisscross_zoo.files.atomic import atomic_path

FOLDER = "checkpoints"
FORMAT = 1

_NAME = re.compile(r"step_(\d{9})\.pt")


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


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that it neither counts nor is gone on from."""
    path.replace(path.with_name(f"{path.name}.damaged"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing but tensors and plain values is unpickled.

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
