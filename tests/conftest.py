"""Fixtures of all tests: random generators with a fixed seed, and the golden values; the list of skipped tests."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

if _processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they would compete for the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(_processes))))

# glibc then returns freed arrays to the system at once, so that the processes of a run of all tests need less memory
# together. It is read when a process starts, so it is set for the workers.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 17))
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "no deadline", deadline=None
)  # other load on the machine must not fail a test
hypothesis.settings.load_profile("no deadline")

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch, and restore their states afterwards."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.random.default_generator.manual_seed(0)
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002


@pytest.fixture(scope="session")
def _threads() -> int:
    import torch

    return torch.get_num_threads()


@pytest.fixture(autouse=True)
def _same_threads(_threads: int) -> None:
    """Give each test torch's default number of threads, whatever the test before it set."""
    import torch

    torch.set_num_threads(_threads)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """``golden("logmel")``: the arrays of golden/logmel.npz by key; ``golden("x.json")``: its content."""

    def load(name: str) -> Any:
        if name.endswith(".json"):
            return json.loads((GOLDEN / name).read_text())
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests marked ``slow`` take the time that they need."""
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.timeout(0))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``cuda`` where there is no GPU."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """List a skipped test."""
    _list_if_skipped(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """List a skipped module."""
    _list_if_skipped(report)


def _list_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Append to the file ``$CRISSCROSS_TESTS_SKIPPED``; xdist's workers send their reports to the main process."""
    listed = os.environ.get("CRISSCROSS_TESTS_SKIPPED")
    if listed and report.skipped and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(listed, "a", encoding="utf-8") as file:
            file.write(f"{report.nodeid}\n")
