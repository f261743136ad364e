"""The public names of ``crisscross_zoo.evaluate``: they resolve, and are loaded on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import crisscross_zoo.evaluate as package

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", package.__all__)
def test_a_public_name_is_that_of_its_module(name: str) -> None:
    value = getattr(package, name)
    assert value.__name__ == name
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert name in dir(package)


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match=r"'crisscross_zoo\.evaluate' has no attribute 'make_plan'"):
        _ = package.make_plan


def test_names_are_loaded_on_first_use() -> None:
    """Settings can be read without torch."""
    script = (
        "from crisscross_zoo.evaluate import make_protocol; import sys;"
        "print(make_protocol('linear', 'esc50').setup, 'torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2s False False\n"
