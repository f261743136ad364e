"""The code of docs/evaluation.md runs, and its table of protocols is the package's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from readme_blocks import read_blocks

from crisscross_zoo.evaluate.protocols import TABLE

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evaluation.md").read_text()


def test_python_blocks_run() -> None:
    block, _ = [b for b in read_blocks(TEXT) if b.language == "python"]
    done = subprocess.run(
        [sys.executable, "-c", block.code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0.8 <= float(done.stdout.split()[1]) <= 1


def test_every_setup_is_in_the_table() -> None:
    section = TEXT.split("## Protocols")[1].split("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("|")][2:]
    found, protocol, datasets = set(), "", ""
    for first, second, setups in rows:
        protocol, datasets = first.strip() or protocol, second.strip() or datasets
        for setup in re.findall("`(.*?)`", setups):
            found |= {(protocol.strip("`"), name, setup) for name in re.findall("`(.*?)`", datasets)}
    assert found == {(c.protocol, c.dataset, c.setup) for c in TABLE if c.dataset != "folder"}
