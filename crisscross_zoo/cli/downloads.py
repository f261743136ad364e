"""What the commands share that download checkpoints."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_downloads(quiet: bool) -> Iterator[None]:
    """Hide, for a while and where ``quiet``, progress bars of downloads and the lines about retries."""
    if not quiet:
        yield
        return
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # late: it takes a second to import
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
