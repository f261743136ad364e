"""Generated clips to pretrain on: things that move as they sound.

A world has species and places. A species has a sound (:mod:`.sounds`), a look, and motions that follow the sound
(:mod:`.images`). A shot shows one or two individuals in a place, which has a background and a background
sound. A clip has two shots of the same species, mostly in different places, so that only the species stays. Events,
camera, light, silent things, loudness and recording device are drawn for each shot. There are no labels and no
recordings. A clip's arrays depend only on the seed and its number.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crisscross_zoo.demo.images import paint
from crisscross_zoo.demo.knobs import Floats, Knobs
from crisscross_zoo.demo.motions import FPS, FRAMES, SECONDS, Cue
from crisscross_zoo.demo.signals import (
    SAMPLE_RATE,
    Rng,
    band,
    crush,
    curve,
    fade,
    gain,
    level,
    noise,
    peak,
    room,
    shaped,
)
from crisscross_zoo.demo.sounds import TEXTURES, Sound, sound
from crisscross_zoo.errors import CrissCrossError, OutputError
from crisscross_zoo.media.encode import write_clip
from crisscross_zoo.numerics import one_thread
from crisscross_zoo.settings import StrPath, check_count
from crisscross_zoo.text import counted
from crisscross_zoo.workers.pool import usable_cores, work_on_files

_log = logging.getLogger(__name__)

SHOTS = 2
"""Shots in a clip."""

SAMPLES = round(SECONDS * SAMPLE_RATE)
"""Samples in a shot."""

SPECIES, PLACES = 1500, 400
"""Numbers of species and of places in a world."""

_INDIVIDUAL = 0.1
"""Standard deviation between individuals of a species, and views of a place, as a share of each setting's range."""


def world_clip(number: int, *, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return one clip's frames and audio.

    Args:
        number: The clip's number, from 0.
        seed: Of the world.

    Returns:
        RGB frames, uint8, (80, 80, 112, 3), 16 a second; and the audio, float32, (80000,), in [-1, 1], 16 kHz.

    Raises:
        ConfigError: a number is below 0.
    """
    check_count("number", number, least=0)
    check_count("seed", seed, least=0)
    clip, rng = Knobs((seed, number, 0)), np.random.default_rng((seed, number, 1))
    species = [
        Knobs((seed, int(rng.integers(SPECIES)), 3)) for _ in range(1 if clip.chance("alone", 0.7) else 2)
    ]
    places = [Knobs((seed, int(rng.integers(PLACES)), 2)) for _ in range(SHOTS)]
    if clip.chance("one place", 0.2):
        places = places[:1] * SHOTS
    same = clip.chance("same individuals", 0.5)
    shots = []
    for n in range(SHOTS):
        key = number * SHOTS + (0 if same else n)
        individuals = [one.nudged(2 * key + m, _INDIVIDUAL) for m, one in enumerate(species)]
        place = places[n].nudged(number * SHOTS + n, _INDIVIDUAL)
        shots.append(_shot(individuals, place, clip.child(f"shot {n}"), rng))
    frames, waves = zip(*shots, strict=True)
    return np.concatenate(frames), np.concatenate(waves)


def make_world(
    folder: StrPath,
    clips: int,
    *,
    seed: int = 0,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write clips as ``folder/NNNNNN.mp4``: H.264 and AAC, 5 s each. Existing files are kept, of any seed.

    Args:
        folder: Created if it does not exist.
        clips: How many, from number 0.
        seed: Of the world.
        workers: Number of processes; None: one per core; 0: a thread of this process.
        on_progress: Called after each new clip with the number of existing clips and the total.

    Raises:
        ConfigError: a number is out of range.
        OutputError: a file cannot be written.
        WorkerStartError: the workers do not start.
    """
    check_count("clips", clips, least=1)
    check_count("seed", seed, least=0)
    check_count("workers", workers, least=0)
    paths = [Path(folder) / f"{number:06d}.mp4" for number in range(clips)]
    missing = [path for path in paths if not os.path.exists(path)]  # Path.exists raises in a closed folder
    workers = min(usable_cores() if workers is None else workers, len(missing))
    written = work_on_files(missing, functools.partial(_write, seed=seed), workers=workers)
    with contextlib.closing(written):
        for done, (_, _, item) in enumerate(written, start=clips - len(missing) + 1):
            if isinstance(item, CrissCrossError):
                raise item
            if on_progress is not None:
                on_progress(done, clips)
    if more := len(set(Path(folder).glob("*.mp4")) - set(paths)):
        _log.warning("%s: has %s more, which an index of it would list", folder, counted(more, "clip"))


def _write(path: StrPath, *, seed: int) -> Iterator[StrPath | CrissCrossError]:
    """Write the clip of a file's number, and yield the path or the error."""
    frames, wave = world_clip(int(Path(path).stem), seed=seed)
    try:
        write_clip(Path(path), frames, wave, fps=FPS, sample_rate=SAMPLE_RATE)
    except CrissCrossError as error:  # a full disk; an exception would end the worker
        yield error
    except OSError as error:
        yield OutputError(
            f"cannot be written ({error.strerror})", remedy="name a folder that can be written", path=path
        )
    else:
        yield path


def _shot(
    individuals: list[Knobs], place: Knobs, scene: Knobs, rng: Rng
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return the frames and the audio of individuals in a place."""
    sounds = [sound(one.child("sound"), SAMPLES, rng) for one in individuals]
    for n, other in enumerate(sounds):
        other.wave = peak(other.wave) * gain(-scene.uniform("behind", 0, 12) * n)
    heard = [(one.child("look"), _cue(its)) for one, its in zip(individuals, sounds, strict=True)]
    with one_thread():
        frames = paint(scene.child("look"), place.child("background"), heard, rng)
    return frames, _recorded(sounds, scene, place, rng)


def _cue(heard: Sound) -> Cue:
    """Return what the image of a thing needs to know of its sound."""
    step = SAMPLE_RATE // FPS
    rms = np.sqrt(np.square(heard.wave[: FRAMES * step].reshape(FRAMES, step)).mean(axis=1))
    onsets, pitch = np.zeros(FRAMES), np.full(FRAMES, 0.5)
    for at, strength, height in heard.onsets:
        frame = min(FRAMES - 1, int(at * FPS))
        onsets[frame] = max(onsets[frame], strength)
        pitch[frame:] = height
    loudness = np.sqrt(rms / max(float(rms.max()), 1e-9))
    if not heard.onsets:  # a texture: it begins where it swells
        rise = np.maximum(0, np.diff(loudness, prepend=0))
        onsets = np.where(rise > max(0.05, 0.5 * float(rise.max())), rise.clip(0.3, 1), 0)
    return Cue(kind=heard.kind, loudness=loudness, pitch=pitch, onsets=onsets)


def _recorded(sounds: list[Sound], scene: Knobs, place: Knobs, rng: Rng) -> npt.NDArray[np.float32]:
    """Return the mixed sounds as recorded: room, background, frequency response, distortion, noise and level."""
    wave: Floats = np.sum([s.wave for s in sounds], axis=0)
    if place.chance("in a room", 0.55):
        wave = room(wave, place.child("room"))
    if scene.chance("background", 0.5):
        texture = place.choice("kind", TEXTURES)(place.child("hum"), SAMPLES, rng)
        wave = level(wave) + gain(-scene.uniform("background level", 8, 35)) * level(texture)
    if scene.chance("coloured", 0.6):
        wave = shaped(wave, curve(scene, "colour", 4))
    if scene.chance("narrow", 0.25):
        wave = shaped(wave, band(scene.log("lowest", 50, 500), scene.log("highest", 1500, 7500)))
    if scene.chance("driven", 0.15):
        wave = crush(wave, scene)
    wave = peak(wave) + gain(-scene.uniform("floor", 40, 90)) * noise(
        SAMPLES, rng, scene.uniform("floor tilt", -4, 1)
    )
    wave = peak(wave) * gain(-scene.uniform("level", 1, 26)) * fade(SAMPLES, 0.01, 0.01)
    return wave.astype(np.float32)
