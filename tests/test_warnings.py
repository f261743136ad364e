"""Nothing is left open: Python's development mode shows no warning, in extraction, evaluation and pretraining."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from make_media import make_media

pytestmark = pytest.mark.integration

STREAM = """
import gc, os, signal, sys
from crisscross_zoo import FeatureExtractor
from crisscross_zoo.workers import pool

extract = FeatureExtractor("demo", clips=1, device="cpu", workers=1)
paths = sys.argv[1:]
print([type(result).__name__ for _, result in extract.stream(paths)])
for _ in extract.stream(iter(paths)):  # left in the middle
    break
start = pool._WorkerProcess._start
def dying(self):
    process = start(self)
    os.kill(process.pid, signal.SIGSEGV)
    return process
pool._WorkerProcess._start = dying
print([type(result).__name__ for _, result in extract.stream(paths)])
gc.collect()
"""

TINY = """
--video.depth 10 --video.width 8 --video.frames 4 --audio.depth 10 --audio.width 8 --audio.seconds 0.64
--heads.projection 16 --heads.prediction-hidden 8 --data.crop 32 --data.epoch-size 8 --optim.batch-size 4
--optim.epochs 1 --optim.warmup-epochs 0.5 --optim.precision fp32 --run.workers 1 --run.device cpu --run.log-steps 1
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(4):
            make_media(folder / name / f"{number}.mp4", seconds=2.2, size=(64, 48))
    return folder


def output_of(*words: object) -> str:
    """Return the output of a process in which every warning is an error, except those of other packages' code."""
    ours = ["-W", "error::ResourceWarning", "-W", "error:::crisscross_zoo"]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", *ours, *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGSEGV to send")
def test_extraction_leaves_nothing_open(tree: Path) -> None:
    paths = [tree / "a" / f"{number}.mp4" for number in range(2)]
    stdout = output_of("-c", STREAM, *paths)
    assert stdout == "['Features', 'Features']\n['DecoderCrashError', 'DecoderCrashError']\n"


def test_evaluation_leaves_nothing_open(tree: Path, tmp_path: Path) -> None:
    stdout = output_of(
        "-m", "crisscross_zoo.cli.evaluate", "linear", tree, "--weights", "demo", "--out", tmp_path / "out",
        "--cache", tmp_path / "cache", "--clips.size", "112", "--clips.train", "1", "--clips.test", "1",
        "--workers", "1", "--quiet", "--device", "cpu", "--fold", "1",
    )  # fmt: skip
    assert "top-1" in stdout


def test_pretraining_leaves_nothing_open(tree: Path, tmp_path: Path) -> None:
    index = tmp_path / "i.parquet"
    command = ("-m", "crisscross_zoo.cli.pretrain")
    output_of(*command, "index", tree, "--out", index, "--workers", "1", "--quiet")
    output_of(*command, "audioset", "--data", index, "--out", tmp_path / "run", *TINY.split(), "--quiet")
