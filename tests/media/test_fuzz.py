import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz_media.py"


@pytest.mark.parametrize("rounds", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_broken_files_neither_crash_nor_hang_nor_raise_unexpected_errors(rounds):
    done = subprocess.run(
        [sys.executable, FUZZ, "--rounds", str(rounds), "--workers", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{rounds} broken files" in done.stdout
