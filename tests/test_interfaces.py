"""docs/interfaces.md: its blocks run in one folder, in their order, each on its own; FiftyOne is a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from readme_blocks import read_blocks

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = read_blocks((ROOT / "docs" / "interfaces.md").read_text(encoding="utf-8"))


class Sample(dict[str, Any]):
    """The part of FiftyOne's samples that the page uses: fields by name; vectors are one-dimensional, of floats."""

    def __init__(self, filepath: str, **fields: Any) -> None:
        super().__init__(filepath=filepath, **fields)

    def __setitem__(self, name: str, value: np.ndarray) -> None:
        assert isinstance(value, np.ndarray)
        assert value.ndim == 1
        assert np.issubdtype(value.dtype, np.floating)
        super().__setitem__(name, value)


class FiftyOne:
    """The module."""

    Sample = Sample

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def Dataset(self, name: str) -> FiftyOne:  # noqa: N802
        return self

    def add_sample(self, sample: Sample) -> None:
        self.samples.append(sample)


def test_every_block_has_a_marker() -> None:
    assert {(block.language, block.action) for block in BLOCKS} == {
        (language, action) for language in ("bash", "python") for action in ("run", "skip")
    }


@pytest.mark.skipif(sys.platform == "win32", reason="makes a link and runs bash")
def test_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs.package("onnxruntime", extra="onnx")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    command = tmp_path / "bin" / "crisscross-extract"  # of this clone, whatever is installed
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom crisscross_zoo.cli.extract import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    fiftyone = FiftyOne()
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    paths = {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for block in BLOCKS:
        if block.action == "run" and block.language == "bash":
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code], env={**os.environ, **paths}, check=True
            )
        elif block.action == "run":
            exec(compile(block.code, f"docs/interfaces.md, line {block.line}", "exec"), {})
    printed = capsys.readouterr().out
    assert "torch.Size([2, 10])" in printed
    assert "{'conv3x': (2, 48, 10, 25), 'conv5x': (2, 192, 3, 7)}" in printed
    (sample,) = fiftyone.samples
    assert (sample["filepath"], sample["duration"]) == ("examples/clip.mp4", 6)
    assert (sample["crisscross_video"].shape, sample["crisscross_audio"].shape) == ((128,), (1728,))
    assert sample["crisscross_video"].dtype == np.float32
