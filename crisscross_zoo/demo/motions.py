"""Motions of things in a generated clip's images, which follow what is heard."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from crisscross_zoo.demo.knobs import Knobs
from crisscross_zoo.demo.signals import Rng
from crisscross_zoo.demo.textures import Singles, single

FPS = 16
"""Frames per second: the rate at which the encoders sample them."""

SECONDS = 2.5
"""Length of a shot."""

FRAMES = round(SECONDS * FPS)
"""Frames in a shot."""

HEIGHT, WIDTH = 80, 112
"""Size of a frame, in pixels."""


@dataclass(frozen=True)
class Cue:
    """What a sound source does over time, for the image of the thing that makes it. Arrays are (FRAMES,).

    Attributes:
        kind: Name of the kind of sound, as in :class:`~crisscross_zoo.demo.sounds.Sound`; "" for no sound.
        loudness: In [0, 1].
        pitch: In [0, 1], low to high; 0.5 where it is not known.
        onsets: Strength in (0, 1] of a beginning (strike, syllable, bark) that falls in that frame, else 0.
    """

    kind: str
    loudness: npt.NDArray[np.floating]
    pitch: npt.NDArray[np.floating]
    onsets: npt.NDArray[np.floating]


@dataclass
class Pose:
    """Where a thing is in each frame: arrays (FRAMES,); places in pixels off the frame's middle, turns in radians."""

    x: Singles
    y: Singles
    wide: Singles
    tall: Singles
    turn: Singles
    gain: Singles
    opacity: Singles
    gape: Singles


Motion = Callable[[Pose, Knobs, Cue, Rng], None]
"""Moves a thing with its cue."""


def _hop(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    swing = _spring(cue.onsets, k.uniform("hertz", 1.5, 4), k.uniform("decay", 0.1, 0.5))
    way = k.choice("way", (-1.0, -1.0, 1.0))
    pose.y += way * k.uniform("hop", 4, 16) * np.abs(swing)
    squash = k.uniform("squash", 0, 0.25) * swing
    pose.wide *= 1 - squash
    pose.tall *= 1 + squash


def _bounce(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    """Fall so that what is heard begins as the thing hits the ground."""
    hits = np.flatnonzero(cue.onsets > 0.05)
    if len(hits) < 2:
        return _hop(pose, k, cue, _)
    part = np.interp(np.arange(FRAMES), hits, np.arange(len(hits))) % 1
    gap = np.interp(np.arange(FRAMES), hits, np.gradient(hits)).clip(2, 16) / 16
    pose.y -= single(k.uniform("bounce", 15, 45) * 4 * part * (1 - part) * gap)
    pose.tall *= 1 - 0.25 * _fading(cue.onsets, 0.08)
    return None


def _strike(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    """Swing back before each onset, and hit at it."""
    ahead = np.convolve(cue.onsets[::-1], np.exp(-(((np.arange(9) - 3) / 2) ** 2)))[:FRAMES][::-1]
    pose.turn += k.choice("way", (-1, 1)) * k.uniform("swing", 0.3, 1.0) * single(ahead.clip(0, 1))
    pose.turn -= k.choice("way", (-1, 1)) * 0.3 * _fading(cue.onsets, 0.1)


def _quiver(pose: Pose, k: Knobs, cue: Cue, rng: Rng) -> None:
    reach = k.log("reach", 1, 5) * cue.loudness
    pose.x += single(reach * rng.uniform(-1, 1, size=FRAMES))
    pose.y += single(reach * rng.uniform(-1, 1, size=FRAMES) * k.uniform("upright", 0, 1))


def _swell(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    size = 1 + k.choice("way", (1.0, 1.0, -0.6)) * k.uniform("swell", 0.15, 0.6) * cue.loudness
    pose.wide *= single(size)
    pose.tall *= single(size)


def _stretch(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    much = single(k.choice("way", (-1, 1)) * k.uniform("stretch", 0.15, 0.45) * cue.loudness)
    pose.wide *= 1 + much
    pose.tall *= 1 - much


def _climb(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    high = ndimage.gaussian_filter1d(cue.pitch.astype(np.float32), 1.0)
    pose.y += k.uniform("climb", 20, 50) * (0.5 - high)


def _spin(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    speed = k.choice("way", (-1, 1)) * k.uniform("turns", 0.3, 1.5) * 2 * math.pi / FPS
    pose.turn += single(speed * np.cumsum(cue.loudness))


def _nod(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.turn += k.uniform("nod", 0.2, 0.7) * _spring(
        cue.onsets, k.uniform("hertz", 1, 3), k.uniform("decay", 0.2, 0.6)
    )


def _speak(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.gape += single(k.uniform("gape", 0.7, 1.2) * cue.loudness)


def _flash(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.gain *= 1 + k.uniform("flash", 0.4, 1.5) * _fading(cue.onsets, k.uniform("decay", 0.08, 0.3))


def _glow(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.gain *= single(k.uniform("dark", 0.4, 0.8) + k.uniform("glow", 0.3, 1.0) * cue.loudness)


def _travel(pose: Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    gone, way = np.cumsum(cue.loudness) * k.uniform("speed", 15, 60) / FPS, k.uniform("way", 0, 2 * math.pi)
    pose.x += single(_folded(gone * math.cos(way), WIDTH * 0.4))
    pose.y += single(_folded(gone * math.sin(way) * 0.5, HEIGHT * 0.3))


def _folded(place: npt.NDArray[np.floating], reach: float) -> npt.NDArray[np.floating]:
    """Turn a path back wherever it is ``reach`` away."""
    folded: npt.NDArray[np.floating] = np.abs((place + reach) % (4 * reach) - 2 * reach) - reach
    return -folded


def come_and_go(pose: Pose, _: Knobs, cue: Cue, __: Rng) -> None:
    """Show a thing only from the first to the last frame in which it is heard."""
    heard = np.flatnonzero(cue.loudness > 0.05)
    if len(heard):
        t = np.arange(FRAMES)
        pose.opacity *= single(np.minimum((t - heard[0] + 2) / 2, (heard[-1] + 4 - t) / 2).clip(0, 1))


MOTIONS: tuple[Motion, ...] = (
    *(_hop, _hop, _bounce, _strike, _quiver, _swell, _swell, _stretch, _climb, _climb, _spin, _nod),
    *(_speak, _speak, _flash, _glow, _travel),
)


def idle_cue(rng: Rng) -> Cue:
    """Return a cue of no sound: beats, bursts or a swell that comes and goes."""
    t, rate = np.arange(FRAMES), rng.uniform(0.4, 3)
    onsets = np.zeros(FRAMES)
    if rng.random() < 0.5:
        onsets[(np.arange(rng.uniform(0, 10), FRAMES, FPS / rate)).astype(int)] = rng.uniform(0.4, 1)
    else:
        onsets[rng.random(FRAMES) < rate / FPS] = rng.uniform(0.4, 1)
    slow = (0.5 + 0.7 * random_walk(rng, rng.uniform(2, 10))).clip(0, 1)
    loudness = slow if rng.random() < 0.5 else _fading(onsets, rng.uniform(0.1, 0.6))
    if rng.random() < 0.3:
        loudness = loudness * ((t // rng.integers(8, 40)) % 2)
    return Cue("", single(loudness), 0.5 + 0.4 * random_walk(rng, rng.uniform(2, 10)), onsets)


def roam(k: Knobs, rng: Rng) -> tuple[Singles, Singles]:
    """Return a path (x, y) in pixels that no sound drives: still, a drift, a wander, a swing or an orbit."""
    t, still = frame_seconds(), np.zeros(FRAMES, np.float32)
    kind, reach = (
        k.choice("roam", ("still", "still", "drift", "wander", "swing", "orbit")),
        k.uniform("reach", 3, 25),
    )
    way, turn = rng.uniform(0, 2 * np.pi), 2 * np.pi * (t * k.log("hertz", 0.1, 1) + rng.random())
    if kind == "drift":
        return reach * np.cos(way) * (t / 2.5 - 1), reach * np.sin(way) * (t / 2.5 - 1) * 0.6
    if kind == "wander":
        return reach * random_walk(rng, 12), 0.7 * reach * random_walk(rng, 12)
    if kind == "swing":
        return reach * single(np.sin(turn)) * math.cos(way), reach * single(np.sin(turn)) * math.sin(way)
    return (reach * single(np.cos(turn)), reach * single(np.sin(turn))) if kind == "orbit" else (still, still)


# --- paths over time ---------------------------------------------------------------------------------------------


def random_walk(rng: Rng, frames: float) -> Singles:
    """Return a smooth random path (FRAMES,) in [-1, 1] that changes within about this many frames."""
    path = ndimage.gaussian_filter1d(rng.standard_normal(FRAMES), frames, mode="reflect")
    path = path - path.mean()
    return single(path / (np.abs(path).max() + 1e-6))


def frame_seconds() -> Singles:
    """Return the seconds of a shot's frames (FRAMES,)."""
    return single(np.arange(FRAMES) / FPS)


def _spring(onsets: npt.NDArray[np.floating], hertz: float, decay: float) -> Singles:
    """Return what a damped spring does that is struck at onsets (FRAMES,), about -1 to 1."""
    t = frame_seconds()
    return single(
        np.convolve(onsets, np.sin(2 * np.pi * hertz * (t + 1 / FPS)) * np.exp(-t / decay))[:FRAMES]
    )


def _fading(onsets: npt.NDArray[np.floating], decay: float) -> Singles:
    """Return a jump at each onset and its exponential decay (FRAMES,), in [0, 1]."""
    return single(np.convolve(onsets, np.exp(-frame_seconds() / decay))[:FRAMES].clip(0, 1))
