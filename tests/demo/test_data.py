"""The generated data set: repeatable, balanced, resumable, and its class is in no mean."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.demo.data import (
    CLASSES,
    FPS,
    FRAMES,
    HEIGHT,
    SAMPLE_RATE,
    SECONDS,
    SPLITS,
    WIDTH,
    demo_clip,
    make_demo_data,
)
from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.media.clips import Clip, FileRead, Sampling, read_clips
from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.encode import KEY_FRAME_EVERY, write_clip
from crisscross_zoo.media.scan import scan

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of each class to train on, and one held out."""
    folder = tmp_path_factory.mktemp("demo")
    make_demo_data(folder, train_clips=1, test_clips=1, seed=3)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_a_clip_has_pictures_and_sound_in_range(name: str) -> None:
    frames, wave = demo_clip("train", name, 0)
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    assert wave.shape == (round(SECONDS * SAMPLE_RATE),)
    assert wave.dtype == np.float32
    assert np.abs(wave).max() <= 1
    assert -35 < 20 * np.log10((wave**2).mean() ** 0.5) < -15
    moved = np.abs(np.diff(frames[:, ::2, ::2].astype(int), axis=0)).mean()
    assert moved > 1


def test_arrays_depend_on_their_key_alone() -> None:
    first = demo_clip("train", "rising-ring", 2, seed=5)
    demo_clip("train", "spinning-bar", 0)
    again = demo_clip("train", "rising-ring", 2, seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (
        demo_clip("test", "rising-ring", 2, seed=5),
        demo_clip("train", "rising-ring", 3, seed=5),
        demo_clip("train", "falling-triangle", 2, seed=5),
        demo_clip("train", "rising-ring", 2, seed=6),
    ):
        assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_colour_and_loudness_do_not_tell_the_class() -> None:
    clips = {name: [demo_clip("train", name, n) for n in range(8)] for name in CLASSES}
    colours = np.array([[frames[::8].mean(axis=(0, 1, 2)) for frames, _ in c] for c in clips.values()])
    levels = np.array([[20 * np.log10(np.sqrt((w**2).mean())) for _, w in c] for c in clips.values()])
    # Differences between classes are what chance gives: the F statistic of 8 classes of 8 is below 2.8 in 99 of 100.
    for values in (*np.moveaxis(colours, -1, 0), levels):
        between = 8 * values.mean(axis=1).var(ddof=1)
        within = values.var(axis=1, ddof=1).mean()
        assert between / within < 2.8


@pytest.mark.parametrize(
    ("split", "name", "number"),
    [("val", "rising-ring", 0), ("train", "rising", 0), ("train", "rising-ring", -1)],
)
def test_a_clip_that_is_not_there_is_refused(split: str, name: str, number: int) -> None:
    with pytest.raises(ConfigError):
        demo_clip(split, name, number)


# --- files -------------------------------------------------------------------------------------------------------


def test_the_data_set_is_balanced(small: Path) -> None:
    assert sorted(digests(small)) == sorted(f"{s}/{name}/000.mp4" for s in SPLITS for name in CLASSES)


def test_files_decode_with_sound(small: Path) -> None:
    sampling = Sampling(video=VideoConfig(size=96, crop_ratio=1.0), audio=AudioConfig(), clips=2)
    for name in CLASSES:
        path = small / "train" / name / "000.mp4"
        news = list(read_clips(path, sampling))
        clips = [n for n in news if isinstance(n, Clip)]
        assert [(c.modality, c.values.shape) for c in clips] == [
            *[("video", (8, 96, 96, 3))] * 2,
            *[("audio", (32_000,))] * 2,
        ]
        assert news[-1] == FileRead(())
        assert all(np.abs(c.values.astype(float)).max() > 0 for c in clips)
        media = scan(path)
        assert media.video is not None
        assert media.audio is not None
        assert media.video.rate == FPS
        assert media.duration == pytest.approx(SECONDS, abs=0.1)


def test_pictures_and_sound_survive_the_file(small: Path) -> None:
    frames, wave = demo_clip("test", "pulsing-disc", 0, seed=3)
    path = small / "test" / "pulsing-disc" / "000.mp4"
    times = np.arange(FRAMES) / FPS + 0.5 / FPS
    seen = np.concatenate(
        [[p] * n for n, p in read_frames(scan(path), times, on_damage=lambda phrase: pytest.fail(phrase))]
    )
    assert seen.shape == frames.shape
    assert np.abs(seen.astype(float) - frames).mean() < 12  # grain and the edges of colours go
    heard = np.zeros(len(wave) + 1024)  # AAC has whole frames
    for first, samples in read_audio(scan(path), SAMPLE_RATE, on_damage=lambda phrase: pytest.fail(phrase)):
        heard[first : first + len(samples)] = samples[: len(heard) - first] / 2**15
    assert np.corrcoef(heard[: len(wave)], wave)[0, 1] > 0.95  # and not a sample early or late


def test_the_same_seed_gives_the_same_files(small: Path, tmp_path: Path) -> None:
    make_demo_data(tmp_path, train_clips=1, test_clips=0, seed=3)
    assert digests(tmp_path).items() <= digests(small).items()


def test_what_is_there_is_kept_and_the_rest_is_made(small: Path, tmp_path: Path) -> None:
    kept = tmp_path / "train" / CLASSES[0] / "000.mp4"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    told: list[tuple[int, int]] = []
    make_demo_data(tmp_path, train_clips=1, test_clips=0, seed=3, on_progress=lambda *news: told.append(news))
    assert kept.read_bytes() == b"mine"
    assert told == [(n, len(CLASSES)) for n in range(1, len(CLASSES) + 1)]
    made = digests(tmp_path)
    assert {k: v for k, v in made.items() if CLASSES[0] not in k}.items() <= digests(small).items()
    assert len(made) == len(CLASSES)


def test_a_killed_run_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        make_demo_data(tmp_path, train_clips=1, test_clips=0)
    assert list(tmp_path.rglob("*.mp4")) == []


@pytest.mark.parametrize("numbers", [{"train_clips": -1}, {"test_clips": 1.5}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"out of range|not a whole number"):
        make_demo_data(tmp_path, **{"train_clips": 1, "test_clips": 1, **numbers})
    assert list(tmp_path.iterdir()) == []


# --- encoding ----------------------------------------------------------------------------------------------------


def test_key_frames_are_near(tmp_path: Path) -> None:
    frames = np.zeros((20, 32, 32, 3), np.uint8)
    write_clip(tmp_path / "a.mp4", frames, np.zeros(20_000, np.float32), fps=16, sample_rate=16_000)
    track = scan(tmp_path / "a.mp4").video
    assert track is not None
    assert track.packets is not None
    assert track.frames == 20
    assert np.diff(np.flatnonzero(track.packets.keys)).max() <= KEY_FRAME_EVERY


@pytest.mark.parametrize(
    ("frames", "wave"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), np.zeros(2000, np.float32)),
        (np.zeros((0, 32, 32, 3), np.uint8), np.zeros(2000, np.float32)),
        (np.zeros((2, 31, 32, 3), np.uint8), np.zeros(2000, np.float32)),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros((1, 2000), np.float32)),
        (np.zeros((2, 32, 32, 3), np.uint8), np.full(2000, np.nan, np.float32)),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, frames: np.ndarray, wave: np.ndarray) -> None:
    with pytest.raises(InputError):
        write_clip(tmp_path / "a.mp4", frames, wave, fps=16, sample_rate=16_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rates", [{"fps": 0}, {"sample_rate": 16_001}])
def test_rates_that_cannot_be_are_refused(tmp_path: Path, rates: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="not possible"):
        write_clip(
            tmp_path / "a.mp4",
            np.zeros((2, 32, 32, 3), np.uint8),
            np.zeros(2000, np.float32),
            **{"fps": 16, "sample_rate": 16_000, **rates},
        )
