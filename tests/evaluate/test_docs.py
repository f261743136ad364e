"""The code of docs/evaluation.md runs, and its table of protocols is the package's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from readme_blocks import read_blocks

from crisscross_zoo.evaluate.protocols import TABLE

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evaluation.md").read_text()


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    block, _ = [b for b in read_blocks(TEXT) if b.language == "python"]
    monkeypatch.chdir(ROOT)
    exec(compile(block.code, f"docs/evaluation.md, line {block.line}", "exec"), {})
    assert 0.8 <= float(capsys.readouterr().out.split()[1]) <= 1


def test_every_setup_is_in_the_table() -> None:
    section = TEXT.split("## Protocols")[1].split("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("|")][2:]
    found, protocol, datasets = set(), "", ""
    for first, second, setups in rows:
        protocol, datasets = first.strip() or protocol, second.strip() or datasets
        for setup in re.findall("`(.*?)`", setups):
            found |= {(protocol.strip("`"), name, setup) for name in re.findall("`(.*?)`", datasets)}
    assert found == {(c.protocol, c.dataset, c.setup) for c in TABLE if c.dataset != "folder"}
