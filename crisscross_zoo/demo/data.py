"""A small audio-visual data set, generated: clips of moving shapes that each have their own kind of sound.

A clip's class is the one cause that its video and its audio share. It decides the shape of the things that are
seen, how they move, and how the tone that is heard moves. All else is drawn anew for each clip, in video and audio
apart: colours, places, sizes and number of the shapes; a patterned background that drifts, things of other shapes and
motions, grain; the tone's pitch and timbre, a hum beside it, coloured noise, loudness. So neither a mean colour nor a
mean spectrum gives the class away, and what a network without training responds to most is not the class.

A clip's arrays depend on the seed, the split, the class and its number, and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.media.encode import write_clip
from crisscross_zoo.settings import check_choice, check_count

FPS = 16
"""Frames per second: the rate at which the encoders sample them."""

SECONDS = 4.5
"""Length of a clip."""

FRAMES = round(SECONDS * FPS)
"""Frames in a clip."""

HEIGHT, WIDTH = 96, 128
"""Of a frame, in pixels."""

SAMPLE_RATE = 16_000
"""Of the sound, Hz: the rate at which the encoders hear it."""

SPLITS = ("train", "test")
"""The folders of a data set; no clip of one is in the other."""

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Grid = npt.NDArray[np.floating[Any]]
Rng = np.random.Generator


# --- what is seen ------------------------------------------------------------------------------------------------


def _disc(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.hypot(x, y) - 0.85
    return edge


def _ring(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.abs(np.hypot(x, y) - 0.75) - 0.2
    return edge


def _square(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.maximum(np.abs(x), np.abs(y)) - 0.72
    return edge


def _triangle(x: Grid, y: Grid) -> Grid:
    side = math.sqrt(3) / 2
    edge: Grid = np.maximum(y, np.maximum(-y / 2 + side * x, -y / 2 - side * x)) - 0.5
    return edge


def _cross(x: Grid, y: Grid) -> Grid:
    x, y = np.abs(x), np.abs(y)
    edge: Grid = np.minimum(np.maximum(x - 0.24, y - 0.95), np.maximum(y - 0.24, x - 0.95))
    return edge


def _star(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.hypot(x, y) - 0.62 - 0.36 * np.cos(5 * np.arctan2(y, x))
    return edge


def _bar(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.maximum(np.abs(x) - 1.0, np.abs(y) - 0.24)
    return edge


def _crescent(x: Grid, y: Grid) -> Grid:
    edge: Grid = np.maximum(np.hypot(x, y) - 0.9, 0.8 - np.hypot(x - 0.5, y))
    return edge


Outline = Callable[[Grid, Grid], Grid]
"""Takes coordinates in radii of a shape; below 0 inside, and about the distance to the edge near it."""


@dataclass(frozen=True)
class _Pose:
    """Where a thing is in each frame: arrays (FRAMES,); places in pixels off its anchor, turns in radians."""

    dx: Floats
    dy: Floats
    scale: Floats
    turn: Floats
    opacity: Floats


def _pose(t: Floats, **parts: Floats) -> _Pose:
    still = {"dx": 0.0, "dy": 0.0, "scale": 1.0, "turn": 0.0, "opacity": 1.0}
    return _Pose(**{name: parts.get(name, np.full_like(t, value)) for name, value in still.items()})


def _cycle(t: Floats, rng: Rng, slowest: float, fastest: float) -> Floats:
    """Angle of something that goes round ``slowest`` to ``fastest`` times a second, from a random start."""
    return 2 * np.pi * (t * rng.uniform(slowest, fastest) + rng.random())


def _spin(t: Floats, rng: Rng) -> _Pose:
    return _pose(t, turn=rng.choice([-1, 1]) * _cycle(t, rng, 0.8, 1.6))


def _pulse(t: Floats, rng: Rng) -> _Pose:
    return _pose(t, scale=0.95 + 0.35 * np.sin(_cycle(t, rng, 2.5, 3.5)))


def _shake(t: Floats, rng: Rng) -> _Pose:
    reach, way = rng.uniform(5, 8) * np.sin(_cycle(t, rng, 4.0, 5.5)), rng.uniform(0, 2 * np.pi)
    return _pose(t, dx=reach * np.cos(way), dy=reach * np.sin(way))


def _fall(t: Floats, rng: Rng) -> _Pose:
    return _pose(t, dy=rng.uniform(40, 80) * t)


def _rise(t: Floats, rng: Rng) -> _Pose:
    return _pose(t, dy=-rng.uniform(40, 80) * t)


def _drift(t: Floats, rng: Rng) -> _Pose:
    return _pose(t, dx=rng.choice([-1, 1]) * rng.uniform(40, 80) * t)


def _blink(t: Floats, rng: Rng) -> _Pose:
    return _pose(t, opacity=(np.sin(_cycle(t, rng, 3.0, 4.0)) > -0.3).astype(np.float64))


def _orbit(t: Floats, rng: Rng) -> _Pose:
    angle, radius = rng.choice([-1, 1]) * _cycle(t, rng, 1.8, 2.6), rng.uniform(7, 11)
    return _pose(t, dx=radius * np.cos(angle), dy=radius * np.sin(angle))


Motion = Callable[[Floats, Rng], _Pose]

_MOTIONS: tuple[Motion, ...] = (_spin, _pulse, _shake, _fall, _rise, _drift, _blink, _orbit)


# --- what is heard -----------------------------------------------------------------------------------------------

Tone = Callable[[Floats, Rng], tuple[Floats, Floats]]
"""Takes times in seconds; gives the pitch in octaves off the tone's own, and the loudness, 0 to 1."""


def _warble(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    return rng.uniform(0.12, 0.25) * np.sin(_cycle(t, rng, 5.0, 8.0)), np.ones_like(t)


def _throb(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    return np.zeros_like(t), (0.5 + 0.5 * np.sin(_cycle(t, rng, 3.0, 5.0))) ** 1.5


def _rattle(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    return np.zeros_like(t), np.exp(-6 * (_cycle(t, rng, 10.0, 14.0) / (2 * np.pi) % 1))


def _swoop_down(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    part = _cycle(t, rng, 1.5, 3.0) / (2 * np.pi) % 1
    return rng.uniform(0.8, 1.4) * (0.5 - part), np.sin(np.pi * part) ** 0.5


def _swoop_up(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    part = _cycle(t, rng, 1.5, 3.0) / (2 * np.pi) % 1
    return rng.uniform(0.8, 1.4) * (part - 0.5), np.sin(np.pi * part) ** 0.5


def _wail(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    return rng.uniform(0.4, 0.7) * np.sin(_cycle(t, rng, 0.6, 1.0)), np.ones_like(t)


def _melody(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    beat = _cycle(t, rng, 5.0, 7.0) / (2 * np.pi)
    note = np.floor(beat).astype(int)
    notes = rng.integers(-3, 4, size=note.max() + 1) / 6
    return notes[note], (beat % 1 < 0.8).astype(np.float64)


def _bell(t: Floats, rng: Rng) -> tuple[Floats, Floats]:
    return np.zeros_like(t), np.exp(-4 * (_cycle(t, rng, 1.5, 2.4) / (2 * np.pi) % 1))


@dataclass(frozen=True)
class _Kind:
    outline: Outline
    motion: Motion
    tone: Tone


_KINDS: dict[str, _Kind] = {
    "blinking-cross": _Kind(_cross, _blink, _melody),
    "drifting-crescent": _Kind(_crescent, _drift, _wail),
    "falling-triangle": _Kind(_triangle, _fall, _swoop_down),
    "orbiting-star": _Kind(_star, _orbit, _bell),
    "pulsing-disc": _Kind(_disc, _pulse, _throb),
    "rising-ring": _Kind(_ring, _rise, _swoop_up),
    "shaking-square": _Kind(_square, _shake, _rattle),
    "spinning-bar": _Kind(_bar, _spin, _warble),
}

CLASSES: tuple[str, ...] = tuple(_KINDS)
"""Names of the classes; folders are named so."""


# --- a data set --------------------------------------------------------------------------------------------------


def make_demo_data(
    folder: str | Path,
    *,
    train_clips: int,
    test_clips: int,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``folder/train/CLASS/NNN.mp4`` and ``folder/test/CLASS/NNN.mp4``: H.264 and AAC, 4.5 s each.

    Files that are there already are kept, whatever is in them, and each is written under another name and then
    renamed: a run that was killed and started again goes on where it was.

    Args:
        folder: Made if need be.
        train_clips: Clips of each class to train on.
        test_clips: Clips of each class held out.
        seed: Another one gives other clips.
        on_progress: Told how many files there are, and how many there will be.

    Raises:
        ConfigError: a number is out of range.
        OSError: a file cannot be written.
    """
    counts = {"train": train_clips, "test": test_clips}
    for name, count in counts.items():
        check_count(f"{name}_clips", count, least=0)
    check_count("seed", seed, least=0)
    # Classes take turns, so that what there is when a run is killed is balanced.
    wanted = [(split, name, n) for split in SPLITS for n in range(counts[split]) for name in CLASSES]
    for done, (split, name, number) in enumerate(wanted):
        path = Path(folder) / split / name / f"{number:03d}.mp4"
        if not path.exists():
            frames, wave = demo_clip(split, name, number, seed=seed)
            write_clip(path, frames, wave, fps=FPS, sample_rate=SAMPLE_RATE)
        if on_progress is not None:
            on_progress(done + 1, len(wanted))


def demo_clip(
    split: str, name: str, number: int, *, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return one clip's frames and audio; both depend on the arguments alone.

    Args:
        split: "train" or "test".
        name: One of :data:`CLASSES`.
        number: Which clip of the class, from 0.
        seed: Of the data set.

    Returns:
        RGB frames, uint8, (72, 96, 128, 3), 16 a second; and the audio, float32, (72000,), in [-1, 1], 16 kHz.

    Raises:
        ConfigError: ``split`` or ``name`` is not known, or a number is below 0.
    """
    check_choice("split", split, SPLITS)
    check_choice("class", name, CLASSES)
    if min(number, seed) < 0:
        raise ConfigError(f"number={number!r}, seed={seed!r}: out of range", remedy="pass 0 or above")
    key = (seed, SPLITS.index(split), CLASSES.index(name), number)
    seen, heard = (np.random.default_rng([*key, modality]) for modality in range(2))
    kind = _KINDS[name]
    return _frames(kind, seen), _audio(kind, heard)


# --- painting ----------------------------------------------------------------------------------------------------


def _frames(kind: _Kind, rng: Rng) -> npt.NDArray[np.uint8]:
    base = rng.uniform(20, 60, size=3)
    frames = _background(base, rng)
    things = [(kind.outline, kind.motion)] * rng.integers(7, 10)
    for _ in range(rng.integers(0, 3)):
        things.insert(rng.integers(len(things) + 1), (_blob(rng), _MOTIONS[rng.integers(len(_MOTIONS))]))
    places = _places(len(things), rng)
    for (outline, motion), place in zip(things, places, strict=True):
        _paint(frames, outline, motion, place, _colour(rng), rng)
    grain = rng.standard_normal((FRAMES, 1, HEIGHT, WIDTH), dtype=np.float32)
    frames += grain * np.float32(rng.uniform(1, 5))
    frames.round(out=frames).clip(0, 255, out=frames)
    return np.ascontiguousarray(frames.astype(np.uint8).transpose(0, 2, 3, 1))


def _background(base: Floats, rng: Rng) -> Singles:
    """Return gratings of any direction, width, colour and speed around ``base``: (FRAMES, 3, HEIGHT, WIDTH)."""
    t = np.arange(FRAMES) / FPS
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    knots = np.linspace(0, SECONDS, 7)
    walk = np.stack([np.interp(t, knots, rng.uniform(-15, 15, size=7)) for _ in range(3)], axis=-1)
    total = np.repeat((base + walk).astype(np.float32)[..., None], HEIGHT * WIDTH, axis=-1)
    for _ in range(rng.integers(2, 4)):
        way, pixels = rng.uniform(0, 2 * np.pi), math.exp(rng.uniform(math.log(30), math.log(120)))
        place = 2 * np.pi * (x * math.cos(way) + y * math.sin(way)) / pixels
        time = 2 * np.pi * (rng.uniform(-1.5, 1.5) * t + rng.random())
        colour = rng.standard_normal(3)
        colour *= rng.uniform(3, 10) / np.linalg.norm(colour)
        # sin(place + time) by the addition theorem: two still gratings, mixed anew in each frame
        for still, mix in ((np.sin(place), np.cos(time)), (np.cos(place), np.sin(time))):
            amount = (mix[:, None, None] * colour[:, None]).astype(np.float32)
            total += amount * still.ravel().astype(np.float32)
    return total.reshape(FRAMES, 3, HEIGHT, WIDTH)


def _blob(rng: Rng) -> Outline:
    """Return the outline of a thing of no class: round, with random dents."""
    dents = list(
        zip(range(2, 5), rng.uniform(0, 0.16, size=3), rng.uniform(0, 2 * np.pi, size=3), strict=True)
    )

    def outline(x: Grid, y: Grid) -> Grid:
        angle, edge = np.arctan2(y, x), np.hypot(x, y) - np.float32(0.62)
        for order, size, phase in dents:
            edge -= np.float32(size) * np.cos(order * angle + np.float32(phase))
        return edge

    return outline


def _places(count: int, rng: Rng) -> Floats:
    """Return anchors (count, 2), x and y in pixels, each the farthest of a few from those before it."""
    size = np.array([WIDTH, HEIGHT])
    places = [rng.random(2) * size]
    for _ in range(count - 1):
        tries = rng.random((8, 2)) * size
        apart = np.abs(tries[:, None] - np.array(places))
        apart = np.minimum(apart, size - apart)  # things that leave on one side come back on the other
        places.append(tries[np.linalg.norm(apart, axis=-1).min(axis=1).argmax()])
    return np.array(places)


def _colour(rng: Rng) -> Floats:
    """Return a light colour, RGB: things stand out from a background that is dark, whatever the two colours."""
    return rng.uniform(180, 230) + rng.uniform(-30, 30, size=3)


def _area(outline: Outline) -> float:
    """Return the area of a thing of radius 1."""
    y, x = np.mgrid[-1.5:1.5:0.02, -1.5:1.5:0.02]
    return float((outline(x, y) < 0).sum()) * 0.02**2


def _paint(
    frames: Singles, outline: Outline, motion: Motion, place: Floats, colour: Floats, rng: Rng
) -> None:
    """Paint one thing into all frames. What leaves on one side comes back on the other."""
    pose = motion(np.arange(FRAMES) / FPS, rng)
    # Things of all shapes cover as much, over time, so that it is not seen from afar what they are.
    covered, turned = rng.uniform(150, 330), rng.uniform(0, 2 * np.pi)
    radius = math.sqrt(covered / (_area(outline) * pose.opacity.mean()))
    size = radius * pose.scale
    reach = math.ceil(size.max()) + 2
    offsets = np.arange(-reach, reach + 1)
    centres = place + np.stack([pose.dx, pose.dy], axis=-1)
    corners = np.floor(centres).astype(int)
    away = (offsets + (corners - centres)[..., None]) / size[:, None, None]
    dx, dy = away[:, 0, None, :].astype(np.float32), away[:, 1, :, None].astype(np.float32)
    angle = (turned + pose.turn).astype(np.float32)[:, None, None]
    edge = outline(np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx)
    cover = (np.float32(0.5) - edge * size.astype(np.float32)[:, None, None]).clip(0, 1)
    ink = colour.astype(np.float32)[:, None, None]
    rows, columns = (corners[:, 1:] + offsets) % HEIGHT, (corners[:, :1] + offsets) % WIDTH
    for n in np.flatnonzero(pose.opacity):
        at = (slice(None), rows[n][:, None], columns[n])
        under = frames[n][at]
        frames[n][at] = under + cover[n] * (ink - under)


# --- sounding ----------------------------------------------------------------------------------------------------

_SAMPLES = round(SECONDS * SAMPLE_RATE)
_HIGHEST = 7500.0
"""Hz, above which no partial goes."""


def _audio(kind: _Kind, rng: Rng) -> npt.NDArray[np.float32]:
    t = np.arange(_SAMPLES) / SAMPLE_RATE
    octaves, loudness = kind.tone(t, rng)
    smooth = np.hanning(SAMPLE_RATE // 200)  # 5 ms: no clicks
    loudness = np.convolve(loudness, smooth / smooth.sum(), mode="same")
    tone = (
        _level(_changing(lambda part: _carrier(_pitch(300, 900, rng) * 2 ** octaves[part], rng), rng))
        * loudness
    )
    hum = _level(_changing(lambda part: _carrier(np.full(len(t[part]), _pitch(100, 2000, rng)), rng), rng))
    noise = _level(_changing(lambda part: _noise(len(t[part]), rng), rng))
    mixed = _level(tone) + hum * _decibels(rng.uniform(-36, -20)) + noise * _decibels(rng.uniform(-30, -20))
    wave = _level(mixed) * _decibels(rng.uniform(-28, -18))
    return wave.clip(-1, 1).astype(np.float32)


def _changing(make: Callable[[slice], Floats], rng: Rng) -> Floats:
    """Return sound (samples,) of parts of 0.3 to 0.7 s, each made anew at the same level, with soft joints."""
    total, first, joint = np.zeros(_SAMPLES), 0, SAMPLE_RATE // 50
    while first < _SAMPLES:
        last = first + round(rng.uniform(0.3, 0.7) * SAMPLE_RATE)
        part = slice(first, min(last + joint, _SAMPLES))
        sound = _level(make(part))
        ramp = np.arange(1, joint + 1) / joint
        sound[:joint] *= ramp[: len(sound)]
        if part.stop > last:
            over = part.stop - last
            sound[-over:] *= 1 - ramp[:over]
        total[part] += sound
        first = last
    return total


def _pitch(lowest: float, highest: float, rng: Rng) -> float:
    return math.exp(rng.uniform(math.log(lowest), math.log(highest)))


def _level(wave: Floats) -> Floats:
    """Bring the root mean square to 1."""
    return wave / math.sqrt(np.square(wave).mean())


def _decibels(level: float) -> float:
    return 10 ** float(level / 20)


def _carrier(hertz: Floats, rng: Rng) -> Floats:
    """Return a tone of this pitch (samples,) and of a random timbre: some partials, sharp or breathy."""
    partials = np.arange(1, rng.integers(3, 7)) * np.ones(1)
    if rng.random() < 0.3:
        partials = 2 * partials - 1  # hollow, as of a clarinet
    if rng.random() < 0.3:
        partials = partials * np.sqrt(
            1 + rng.uniform(0, 0.03) * partials**2
        )  # stiff, as of a string or a bar
    levels = partials ** -rng.uniform(0.5, 1.5) * rng.uniform(0.3, 1, size=len(partials))
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    if rng.random() < 0.3:
        phase = phase + _breath(len(hertz), rng)
    total = np.zeros_like(hertz)
    for n, (partial, level) in enumerate(zip(partials, levels, strict=True)):
        if n == 0 or partial * hertz.max() < _HIGHEST:
            total += level * np.sin(partial * phase + rng.uniform(0, 2 * np.pi))
    return total


def _breath(samples: int, rng: Rng) -> Floats:
    """Return a wandering phase (samples,) in radians that makes a tone a narrow band of noise."""
    return np.cumsum(rng.standard_normal(samples) * rng.uniform(0.02, 0.1))


def _noise(samples: int, rng: Rng) -> Floats:
    """Return noise of a random colour (samples,)."""
    hertz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE).clip(50)
    levels = np.interp(np.log(hertz), np.log(np.geomspace(50, 8000, 6)), rng.uniform(-6, 6, size=6))
    shape = 10 ** (levels / 20) / np.sqrt(hertz) ** rng.uniform(0.5, 1.5)
    noise: Floats = np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * shape, samples)
    return noise
