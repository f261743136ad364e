"""Each example runs as its docstring says, in its own process and folder, and makes what it promises."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crisscross_zoo import Features
from crisscross_zoo.media.decode import read_frames, read_sound, scan
from crisscross_zoo.media.encode import write_clip

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLIP = EXAMPLES / "clip.mp4"


def run(name: str, *arguments: str, folder: Path, code: int = 0) -> str:
    """Run an example in ``folder`` and return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


def damage(phrase: str) -> None:
    pytest.fail(phrase)


def test_the_clip_is_what_its_script_makes(tmp_path: Path) -> None:
    run("make_clip.py", "made.mp4", folder=tmp_path)
    shipped, made = scan(CLIP), scan(tmp_path / "made.mp4")
    assert shipped.size < 200_000
    for media in (shipped, made):
        assert media.video is not None
        assert media.audio is not None
        assert (media.video.codec, media.audio.codec) == ("h264", "aac")
        assert media.video.span == pytest.approx((0, 6), abs=0.001)
        assert media.audio.span == pytest.approx((0, 6), abs=0.03)  # a frame of AAC
    times = np.arange(0.02, 6, 0.5)
    for (n, ours), (m, theirs) in zip(
        read_frames(made, times, on_damage=damage), read_frames(shipped, times, on_damage=damage), strict=True
    ):
        assert n == m
        assert ours.shape == (240, 320, 3)
        assert np.abs(ours.astype(float) - theirs).mean() < 3  # grey levels; the encoder's version may differ
    first, second = (
        np.concatenate([s for _, s in read_sound(m, 16_000, on_damage=damage)]) for m in (made, shipped)
    )
    length = min(len(first), len(second))
    assert np.corrcoef(first[:length], second[:length])[0, 1] > 0.99


def test_the_clip_changes_in_picture_and_sound() -> None:
    pictures = [p.astype(float) for _, p in read_frames(scan(CLIP), np.arange(0.0, 6, 0.5), on_damage=damage)]
    assert min(np.abs(a - b).mean() for a, b in itertools.pairwise(pictures)) > 1
    sound = np.concatenate([s for _, s in read_sound(scan(CLIP), 16_000, on_damage=damage)])
    spectra = [np.abs(np.fft.rfft(s)) for s in np.split(sound[: 6 * 16_000].astype(float), 6)]  # one a second
    similar = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(spectra)]
    assert max(similar) < 0.95


def test_folder_features(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a.mp4").write_bytes(CLIP.read_bytes())
    (tmp_path / "in" / "b.mp4").write_text("not a video")
    printed = run("folder_features.py", "in", "--out", "out", "--size", "112", folder=tmp_path, code=1)
    features = Features.load(tmp_path / "out" / "deep" / "a.npz")
    assert features.video is not None
    assert features.audio is not None
    assert (features.video.shape, features.audio.shape) == ((12, 64), (12, 576))
    assert len(np.unique(features.video, axis=0)) == 12
    assert not (tmp_path / "out" / "b.npz").exists()
    assert re.search(r"^failed: in.b\.mp4: .*FFmpeg", printed, re.M)


def test_training_script(tmp_path: Path) -> None:
    printed = run("training_script.py", "--steps", "3", folder=tmp_path)
    steps = re.findall(r"^step \d: loss (\S+), parameters without a gradient: (\d+)$", printed, re.M)
    assert len(steps) == 3
    assert float(steps[-1][0]) < 0.8 * float(steps[0][0])
    assert {without for _, without in steps} == {"0"}


def test_plot_features(tmp_path: Path) -> None:
    printed = run("plot_features.py", str(CLIP), "--out", "plot.png", folder=tmp_path)
    assert "video: float32 (12, 64)" in printed
    assert "audio: float32 (12, 192)" in printed
    from matplotlib.image import imread

    image = imread(tmp_path / "plot.png")
    assert image.shape == (600, 960, 4)
    drawn = (image[..., :3].max(axis=-1) - image[..., :3].min(axis=-1)) > 0.3  # the two coloured lines
    assert drawn.sum() > 1000


def test_every_example_is_short_and_run_here() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert {
        s.name: len(s.read_text().splitlines()) for s in scripts if len(s.read_text().splitlines()) >= 60
    } == {}
    assert {s.name for s in scripts} == set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text()))


def test_linear_probe_tells_classes_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, level in (("loud noise", 0.3), ("a tone", 0.0)):
        for number in range(8):
            wave = level * rng.standard_normal(24_000) + 0.2 * np.sin(
                2 * np.pi * 300 * np.arange(24_000) / 16_000
            )
            frames = np.full((12, 32, 32, 3), 90, np.uint8)
            path = tmp_path / label / f"{number}.mp4"
            write_clip(path, frames, wave.clip(-1, 1).astype(np.float32), fps=8, sample_rate=16_000)
    (tmp_path / "a tone" / "broken.mp4").write_bytes(b"no media")
    lines = run("linear_probe.py", str(tmp_path), "--modality", "audio", "--clips", "2", folder=tmp_path)
    assert "left out: " in lines
    assert "4 files held out, 4 right" in lines
    assert "  loud noise: 2 of 2" in lines
