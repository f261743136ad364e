"""Programs and packages that only some tests need: without them these skip, and with ``CI=true`` they fail.

A CI job without some extras names them in ``CRISSCROSS_TESTS_WITHOUT``, separated by spaces. The tests that it skips
are appended to the file ``$CRISSCROSS_TESTS_SKIPPED``, to be run with all extras (``conftest.py``).
"""

from __future__ import annotations

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def package(name: str, *, extra: str) -> ModuleType:
    """Import and return a package that is installed with an ``extra`` of this one."""
    try:
        return importlib.import_module(name)
    except ImportError:
        absent(f'{name}: pip install "crisscross-zoo[{extra}]"', extra=extra)


def chromium() -> str:
    """Return the browser's path: ``$CHROMIUM``, or the first of the usual names on the PATH."""
    names = (os.environ.get("CHROMIUM"), *CHROMIUM)
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    return found or absent("Chromium: install it, or name it in $CHROMIUM")


def absent(what: str, *, extra: str = "") -> NoReturn:
    """Skip, or fail in CI, unless the job is without ``extra``."""
    __tracebackhide__ = True
    omitted = os.environ.get("CRISSCROSS_TESTS_WITHOUT", "").split()
    if os.environ.get("CI") == "true" and extra not in omitted:
        pytest.fail(f"needs {what}", pytrace=False)
    pytest.skip(f"needs {what}", allow_module_level=True)
