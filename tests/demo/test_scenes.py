"""The world made by code: clips are repeatable, different, seen and heard; the image follows the sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crisscross_zoo.demo import scenes
from crisscross_zoo.demo.forms import AS_THEY_SOUND, FORMS
from crisscross_zoo.demo.images import paint
from crisscross_zoo.demo.knobs import Knobs
from crisscross_zoo.demo.motions import FPS, FRAMES, HEIGHT, SECONDS, WIDTH, Cue
from crisscross_zoo.demo.scenes import SAMPLES, SHOTS, make_world, world_clip
from crisscross_zoo.demo.signals import SAMPLE_RATE, buzz, decay, noise, ring, shaped
from crisscross_zoo.demo.sounds import EVENTS, TEXTURES, name_of, sound
from crisscross_zoo.errors import ConfigError, OutputError, StorageError
from crisscross_zoo.media.scan import scan

# --- settings ----------------------------------------------------------------------------------------------------


def test_settings_depend_on_their_names_alone() -> None:
    one, other = Knobs((3, 1)), Knobs((3, 1))
    assert other.uniform("b", 0, 1) == one.uniform("b", 0, 1)
    assert (one.uniform("a", 0, 1), one.uniform("b", 0, 1)) == (
        other.uniform("a", 0, 1),
        other.uniform("b", 0, 1),
    )
    assert one.uniform("a", 0, 1) != one.uniform("b", 0, 1)
    assert one.uniform("a", 0, 1) != Knobs((3, 2)).uniform("a", 0, 1) != one.child("c").uniform("a", 0, 1)


def test_a_nudged_copy_is_near() -> None:
    def settings(nudge: int, amount: float) -> np.ndarray:
        sets = [Knobs((n,)).nudged(nudge, amount) for n in range(400)]
        return np.array(
            [[k.log("pitch", 100, 1000), k.normal("levels", 3)[0], k.integer("count", 0, 9)] for k in sets]
        )

    plain, near, far = settings(0, 0.0), settings(1, 0.05), settings(1, 0.5)
    assert ((plain[:, 0] >= 100) & (far[:, 0] <= 1000)).all()
    for column in (0, 1):
        assert np.corrcoef(plain[:, column], near[:, column])[0, 1] > 0.95
        assert np.corrcoef(plain[:, column], far[:, column])[0, 1] < 0.8
        assert not np.array_equal(plain[:, column], near[:, column])
    assert 0.85 < far[:, 1].std() < 1.15
    assert np.array_equal(plain[:, 2], far[:, 2])
    twice = Knobs((0,)).nudged(1, 0.05).nudged(2, 0.05)
    assert (
        len({k.uniform("a", 0, 1) for k in (Knobs((0,)).nudged(1, 0.05), Knobs((0,)).nudged(2, 0.05), twice)})
        == 3
    )


# --- sound -------------------------------------------------------------------------------------------------------


def test_pulses_have_the_pitch() -> None:
    spectrum = np.abs(np.fft.rfft(buzz(np.full(SAMPLE_RATE, 250.0))))  # 1 Hz a bin
    assert sorted(np.argsort(spectrum)[-30:]) == [250 * n for n in range(1, 31)]


def test_resonators_ring_at_their_frequency_and_decay_in_time() -> None:
    hit = np.zeros(SAMPLE_RATE)
    hit[0] = 1
    wave = ring(hit, np.array([440.0]), np.array([0.5]), np.array([1.0]))
    assert np.abs(np.fft.rfft(wave)).argmax() == 440
    early, late = (np.abs(wave[n : n + 400]).max() for n in (800, 8000 + 800))
    assert 20 * np.log10(late / early) == pytest.approx(-60, abs=1)
    assert 20 * np.log10(decay(SAMPLE_RATE, 0.5)[8000]) == pytest.approx(-60, abs=0.5)


def test_a_flat_filter_changes_nothing_and_a_changing_one_changes_in_time() -> None:
    wave = noise(SAMPLE_RATE, np.random.default_rng(0))
    assert np.allclose(shaped(wave, np.ones((1, 257))), wave, atol=1e-9)
    faded = shaped(wave, np.array([[1.0], [0.0]]) * np.ones(257))
    rms = np.sqrt(np.square(faded).reshape(4, -1).mean(axis=1))
    assert (np.diff(rms) < -0.2).all()


@pytest.mark.parametrize("kind", [*EVENTS, *TEXTURES])
def test_each_kind_sounds(kind: object) -> None:
    for n in range(6):
        knobs, rng = Knobs((n,)), np.random.default_rng(n)
        if kind in EVENTS:
            wave, height = kind(knobs, rng)  # type: ignore[operator]
            assert 0 <= height <= 1
            assert np.abs(wave).max() == pytest.approx(1)
            assert 16 <= len(wave) <= 5 * SAMPLE_RATE
        else:
            wave = kind(knobs, SAMPLES, rng)  # type: ignore[operator]
            assert len(wave) == SAMPLES
        assert np.isfinite(wave).all()
        assert wave.std() > 0


def test_each_kind_has_outlines() -> None:
    assert {name_of(kind) for kind in (*EVENTS, *TEXTURES)} == set(AS_THEY_SOUND)
    assert {form for forms in AS_THEY_SOUND.values() for form in forms} == set(FORMS)


def test_a_sound_names_its_kind() -> None:
    for n in range(12):
        knobs = Knobs((n,))
        kind = sound(knobs, SAMPLES, np.random.default_rng(n)).kind
        again = sound(knobs.nudged(1, 0.1), SAMPLES, np.random.default_rng(n + 1)).kind
        assert kind == again in AS_THEY_SOUND


# --- images ----------------------------------------------------------------------------------------------------


def test_what_is_seen_follows_what_is_heard() -> None:
    """Where the sound begins, more moves than elsewhere, over many looks."""
    onsets = np.zeros(FRAMES)
    onsets[[8, 24]] = 1
    after = np.zeros(FRAMES)
    for start in (8, 24):
        after[start : start + 12] = np.exp(-np.arange(12) / 3)
    loud = Cue(kind="", loudness=after, pitch=np.full(FRAMES, 0.5), onsets=onsets)
    changes = []
    for n in range(24):
        frames = paint(Knobs((n, 0)), Knobs((n, 1)), [(Knobs((n, 2)), loud)], np.random.default_rng(n))
        change = np.abs(np.diff(frames.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))
        changes.append(change / change.mean())
    mean = np.mean(changes, axis=0)
    assert mean[[7, 8, 9, 23, 24, 25]].mean() > 1.1 * mean[[2, 4, 18, 20, 22, 34, 36, 38]].mean()


# --- clips -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips() -> list[tuple[np.ndarray, np.ndarray]]:
    return [world_clip(n, seed=4) for n in range(6)]


def test_clips_are_seen_and_heard(clips: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for frames, wave in clips:
        assert frames.shape == (SHOTS * FRAMES, HEIGHT, WIDTH, 3)
        assert frames.dtype == np.uint8
        assert frames.std() > 5
        assert wave.shape == (round(SHOTS * SECONDS * SAMPLE_RATE),)
        assert wave.dtype == np.float32
        assert 0.01 < np.abs(wave).max() <= 1


def test_clips_depend_on_seed_and_number_alone(clips: list[tuple[np.ndarray, np.ndarray]]) -> None:
    again = world_clip(2, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(again, clips[2], strict=True))
    for other in (clips[3], world_clip(2, seed=5)):
        assert not any(np.array_equal(a, b) for a, b in zip(again, other, strict=True))


@pytest.mark.parametrize("key", [{"number": -1}, {"number": 0, "seed": -1}])
def test_numbers_below_zero_are_refused(key: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        world_clip(**key)


@pytest.mark.integration
def test_a_folder_of_clips_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[int, int]] = []
    make_world(tmp_path, 3, seed=4, workers=2)
    bytes_of = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(bytes_of) == ["000000.mp4", "000001.mp4", "000002.mp4"]
    (tmp_path / "000001.mp4").unlink()
    make_world(tmp_path, 4, seed=4, workers=0, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(3, 4), (4, 4)]
    assert bytes_of == {name: (tmp_path / name).read_bytes() for name in bytes_of}
    assert not caplog.messages
    make_world(tmp_path, 2, seed=4, workers=0)
    assert caplog.messages == [f"{tmp_path}: has 2 clips more, which an index of it would list"]
    media = scan(tmp_path / "000003.mp4")
    assert media.video is not None
    assert media.audio is not None
    assert (media.video.rate, media.video.width, media.video.height) == (FPS, WIDTH, HEIGHT)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        make_world(tmp_path / "file", 1, workers=0)
    for bad in ({"clips": 0}, {"clips": 1, "seed": -1}, {"clips": 1, "workers": -1}):
        with pytest.raises(ConfigError):
            make_world(tmp_path, **bad)


def test_a_full_disk_is_an_error_of_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = StorageError("the disk is full", remedy="free some space")

    def write_clip(*_: object, **__: object) -> None:
        raise full

    monkeypatch.setattr(scenes, "write_clip", write_clip)
    with pytest.raises(StorageError, match="the disk is full"):
        make_world(tmp_path, 1, workers=0)
    assert list(scenes._write(tmp_path / "000000.mp4", seed=0)) == [full]
