"""Errors of data processes and of training, told as this package's own; imports torch only where it has raised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from crisscross_zoo.errors import CrissCrossError, TrainingError, UnreadableMediaError, first_line
from crisscross_zoo.settings import StrPath


def file_error(error: Exception, path: StrPath, *, doing: str = "reading") -> CrissCrossError:
    """Return the error of one file, whatever was raised over it: a decoder's own trouble must not end other files.

    Args:
        error: What was raised; one of this package's is returned as it is.
        path: The file.
        doing: What was done with it.
    """
    if isinstance(error, CrissCrossError):
        return error
    return UnreadableMediaError(
        f"{doing} it failed ({type(error).__name__}: {error})",
        remedy="check it in a player",
        path=path,
    )


@contextlib.contextmanager
def training_errors(*, memory: str) -> Iterator[None]:
    """Say in a line what torch raises where there is no memory, and where a data process has died.

    Args:
        memory: What to do where there is no memory.

    Raises:
        TrainingError: in place of what torch raised.
    """
    try:
        yield
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise TrainingError(first_line(error)[:200], remedy=memory) from None
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            " ".join(str(error).split())[:300],
            remedy="run it again with fewer --workers; it goes on from there",
        ) from None
