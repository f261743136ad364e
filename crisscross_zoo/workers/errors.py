"""Errors of data workers and of training as this package's own; torch is imported only after it has raised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from crisscross_zoo.errors import CrissCrossError, TrainingError, UnreadableMediaError, first_line
from crisscross_zoo.settings import StrPath


def file_error(error: Exception | SystemExit, path: StrPath, *, doing: str = "reading") -> CrissCrossError:
    """Return any exception as the error of one file: a failure of the decoder must not end the other files.

    Args:
        error: The exception; one of this package is returned as it is.
        path: The file.
        doing: What was done with the file.
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
    """Turn torch's errors for lack of memory and for a dead data worker into one line.

    Args:
        memory: The remedy for lack of memory.

    Raises:
        TrainingError: in place of torch's error.
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
            remedy="run it again with fewer --workers; it resumes from there",
        ) from None
