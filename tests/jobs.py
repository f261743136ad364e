"""Jobs for processes of the pool, which import them by name, and so not from a test module."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from crisscross_zoo.media.scan import scan_file


def crashing(path: str) -> Iterator[object]:
    """Scan a file; a file named "boom" crashes its process."""
    if "boom" in str(path):
        os.kill(os.getpid(), signal.SIGSEGV)
    return scan_file(path)


def hang_at(path: str, name: str) -> Iterator[str]:
    """Hang at the file of that name; yield the names of others."""
    while path == name:
        time.sleep(60)
    yield path
