"""Data sets whose folders are their labels: a folder per split, in it a folder per class, in that the files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import suggest

TEST_SPLITS = ("val", "validate", "validation", "test")
"""Names of the folder of Kinetics' test files; the first that exists is used."""

SPLITS = ("train", *TEST_SPLITS)
"""Names of a split's folder; a root with such a name is taken for a split."""

KINETICS_SOUND_CLASSES: tuple[str, ...] = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "strumming guitar",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
"""The classes of Kinetics400 that make up Kinetics-Sound; folders may have underscores for spaces."""


def folder_names(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones.

    Raises:
        ConfigError: the folder cannot be read.
    """
    try:
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from None


def split_folder(root: str, splits: Sequence[str], *, below: str, others: bool = False) -> str:
    """Return the folder of the first of ``splits`` that exists.

    Args:
        root: The data set's folder, absolute.
        splits: Names of one split, such as "val" and "validation".
        below: The path of a file in a split, such as "CLASS/VIDEO", for the error.
        others: Whether the error names the folders that exist.

    Raises:
        ConfigError: no split exists, or the root cannot be read.
    """
    for split in splits:
        folder = os.path.join(root, split)
        # os.path returns False where pathlib raises: names too long, folders that may not be entered.
        if os.path.isdir(folder):
            return folder
    existing = folder_names(root)
    here = Path(root)
    if here.name in {*splits, *SPLITS}:
        remedy = f"it looks like a split itself: name its parent, {here.parent}"
    else:
        remedy = f"the videos are looked for as {here / splits[0] / below}"
        if others and existing:
            remedy += f"; for another split, {suggest(splits[0], existing[:10])}"
    raise ConfigError(f"has no folder {' or '.join(map(repr, splits))}", remedy=remedy, path=root)


def class_folders(
    folder: str, classes: Collection[str] | None = None, *, spaced: bool = False
) -> dict[str, str]:
    """Return the class of each folder in ``folder``, by the folder's name.

    Args:
        folder: The folder of the class folders.
        classes: The classes to return; None: all.
        spaced: Whether an underscore in a folder's name stands for a space in the class's, as in Kinetics.

    Raises:
        ConfigError: the folder cannot be read.
    """
    labels = {name: name.replace("_", " ") if spaced else name for name in folder_names(folder)}
    return {name: label for name, label in labels.items() if classes is None or label in classes}


def unreadable(path: str, error: OSError) -> ConfigError:
    """Return the error for a folder or list that cannot be read."""
    return ConfigError(
        f"cannot be read ({error.strerror})",
        remedy="check that it is there, and its access rights",
        path=path,
    )
