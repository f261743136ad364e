"""What the commands that download checkpoints share."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_downloads(quiet: bool) -> Iterator[None]:
    """Hide the progress bars of downloads and the lines about retries, while open and if ``quiet``."""
    if not quiet:
        yield
        return
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # imported late, since it takes a second
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "crisscross_zoo")]
    levels = [logger.level for logger in loggers]
    hidden = are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not hidden:
            enable_progress_bars()
