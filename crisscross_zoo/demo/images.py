"""The images of a generated clip: things that move with their sounds, before a background, seen by a camera.

Textures, outlines, colours, light, depth and cameras are drawn out of many families, with the statistics of natural
images: amplitudes that fall with frequency, things that hide others at all sizes, more variation of lightness than
of hue. The families are chosen for variety, not for realism.

What a clip looks like depends on its knobs, how it moves on its cues and on a generator of random numbers, and
neither on anything else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import fft, ndimage, spatial

from crisscross_zoo.demo.knobs import Knobs

FPS = 16
"""Frames per second: the rate at which the encoders sample them."""

SECONDS = 2.5
"""Length of a shot."""

FRAMES = round(SECONDS * FPS)
"""Frames in a shot."""

HEIGHT, WIDTH = 80, 112
"""Size of a frame, in pixels."""

_TALL, _WIDE = 120, 168
"""Size of the canvas, of which the camera shows a part, in pixels."""

Singles = npt.NDArray[np.float32]
Rng = np.random.Generator


@dataclass(frozen=True)
class Cue:
    """What a sound source does over time, for the image of the thing that makes it. Arrays are (FRAMES,).

    Attributes:
        loudness: In [0, 1].
        pitch: In [0, 1], low to high; 0.5 where it is not known.
        onsets: Strength in (0, 1] of a beginning (strike, syllable, bark) that falls in that frame, else 0.
    """

    loudness: npt.NDArray[np.floating]
    pitch: npt.NDArray[np.floating]
    onsets: npt.NDArray[np.floating]


def paint(look: Knobs, place: Knobs, heard: Sequence[tuple[Knobs, Cue]], rng: Rng) -> npt.NDArray[np.uint8]:
    """Return RGB frames, (FRAMES, HEIGHT, WIDTH, 3), of things that are heard and of some that make no sound.

    Args:
        look: Camera, light, what makes no sound, and what stands in front.
        place: The background.
        heard: For each thing that is heard, its look and motions, and its cue.
        rng: Of motions that no cue drives, and of the sensor's grain.
    """
    camera, light = _camera(look.child("camera"), rng), look.uniform("light", 0, 2 * math.pi)
    cues = [cue for _, cue in heard]
    frames = _behind(place, cues, camera)
    unrelated = look.chance("unrelated", 0.15)
    things = [
        _thing(thing, _idle(rng) if unrelated else cue, light, rng)
        for n, (thing, cue) in enumerate(heard)
        if not (unrelated and look.chance(f"unseen {n}", 0.4))
    ]
    for n in range(look.integer("silent", 0, 3)):
        things += [_thing(look.child(f"silent {n}"), _idle(rng), light, rng)]
    for thing in sorted(things, key=lambda thing: thing.depth):
        _show(frames, thing, camera)
    if look.chance("foreground", 0.2):
        _hide(frames, look.child("foreground"), camera)
    if cues and look.chance("weather", 0.12):
        _rain(frames, look.child("weather"), cues[look.integer("of", 0, 99) % len(cues)], rng)
    return _expose(frames, look.child("sensor"), rng)


# --- helpers -----------------------------------------------------------------------------------------------------


def _single(array: npt.NDArray[np.floating]) -> Singles:
    return array.astype(np.float32)


def _standard(field: Singles) -> Singles:
    """Bring a field to mean 0 and deviation 1."""
    return _single((field - field.mean()) / (field.std() + 1e-6))


def _unit(field: Singles) -> Singles:
    """Bring a field into [0, 1], most of it well inside."""
    return _single((0.5 + 0.25 * _standard(field)).clip(0, 1))


def _noise(h: int, w: int, slope: float, rng: Rng, way: float = 0.0, stretch: float = 1.0) -> Singles:
    """Return noise (h, w) whose amplitude falls as frequency ** -slope, drawn out along ``way``; deviation 1."""
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    along, across = math.cos(way) * fx + math.sin(way) * fy, math.cos(way) * fy - math.sin(way) * fx
    frequency = np.hypot(along * stretch, across / stretch).clip(1 / max(h, w))
    parts = rng.standard_normal((2, *frequency.shape), dtype=np.float32)
    spectrum = (parts[0] + 1j * parts[1]) * _single(frequency**-slope)
    spectrum[0, 0] = 0
    return _standard(_single(fft.irfft2(spectrum, (h, w))))


def _walk(rng: Rng, frames: float) -> Singles:
    """Return a smooth random path (FRAMES,) in [-1, 1] that changes within about this many frames."""
    path = ndimage.gaussian_filter1d(rng.standard_normal(FRAMES), frames, mode="reflect")
    path = path - path.mean()
    return _single(path / (np.abs(path).max() + 1e-6))


def _seconds() -> Singles:
    return _single(np.arange(FRAMES) / FPS)


def _spring(onsets: npt.NDArray[np.floating], hertz: float, decay: float) -> Singles:
    """Return what a damped spring does that is struck at onsets (FRAMES,), about -1 to 1."""
    t = _seconds()
    return _single(
        np.convolve(onsets, np.sin(2 * np.pi * hertz * (t + 1 / FPS)) * np.exp(-t / decay))[:FRAMES]
    )


def _fading(onsets: npt.NDArray[np.floating], decay: float) -> Singles:
    """Return a jump at each onset and its exponential decay (FRAMES,), in [0, 1]."""
    return _single(np.convolve(onsets, np.exp(-_seconds() / decay))[:FRAMES].clip(0, 1))


def _lerp(a: Singles, b: Singles | float, share: Singles | float) -> Singles:
    return _single(a + (b - a) * share)


# --- colours -----------------------------------------------------------------------------------------------------


def _rgb(hue: Singles | float, saturation: Singles | float, lightness: Singles | float) -> Singles:
    """Return RGB (..., 3) in [0, 1]; saturated colours keep their lightness."""
    hue, saturation, lightness = np.asarray(hue), np.asarray(saturation), np.asarray(lightness)
    turn = 2 * np.pi * (hue[..., None] - np.array([0, 1 / 3, 2 / 3], np.float32))
    vivid = 0.5 + 0.5 * np.cos(turn)
    vivid = vivid - vivid @ np.array([[0.3], [0.59], [0.11]], np.float32)
    room = 2 * np.minimum(lightness, 1 - lightness)[..., None] ** 0.7
    return _single((lightness[..., None] + saturation[..., None] * room * vivid).clip(0, 1))


_HUES = ((0.02, 0.14), (0.02, 0.14), (0.18, 0.4), (0.52, 0.66), (0.0, 1.0), (0.0, 1.0))
"""Of palettes, in turns from red: earth and skin, leaves, sky and water, any."""


def _palette(k: Knobs) -> Singles:
    """Return five colours (5, 3), RGB, mostly from dark to light: of few hues or many, pale or vivid."""
    rng = k.seed("palette")
    lowest, highest = k.choice("family", _HUES)
    hue = k.uniform("hue", lowest, highest) + k.choice("hues", (0.02, 0.05, 0.1, 0.2, 0.5)) * rng.uniform(
        -1, 1, size=5
    )
    if k.chance("complement", 0.2):
        hue[rng.permutation(5)[:2]] += 0.5
    lowest, highest = k.choice("paleness", ((0.0, 0.1), (0.1, 0.4), (0.1, 0.4), (0.3, 0.7), (0.6, 1.2)))
    saturation = k.uniform("saturation", lowest, highest) * rng.uniform(0.5, 1.2, size=5)
    span = k.uniform("contrast", 0.12, 0.48)
    lightness = k.uniform("lightness", 0.3, 0.7) + span * np.linspace(-1, 1, 5) + rng.normal(0, 0.05, size=5)
    if k.chance("shuffled", 0.25):
        lightness = rng.permutation(lightness)
    return _rgb(_single(hue), _single(saturation), _single(lightness.clip(0.03, 0.97)))


def _ink(field: Singles, palette: Singles) -> Singles:
    """Return colours (3, h, w) of a field in [0, 1], in between those of the palette."""
    knots = np.linspace(0, 1, len(palette))
    table = np.stack([np.interp(np.linspace(0, 1, 256), knots, channel) for channel in palette.T])
    return _single(table)[:, (field * 255).clip(0, 255).astype(np.uint8)]


def _relief(height: Singles, light: float, strength: float) -> Singles:
    """Return the brightness (h, w) about 1 of a surface that is lit from ``light``, radians."""
    dy, dx = np.gradient(height)
    slope = math.cos(light) * dx + math.sin(light) * dy
    return _single((1 + strength * slope / np.sqrt(0.3 + slope**2)).clip(0.2, 2))


# --- fields: textures of one channel, in [0, 1] ------------------------------------------------------------------

Field = Callable[[Knobs, int, int], Singles]
"""Takes the height and the width in pixels; scales are in heights."""


def _plane(k: Knobs, h: int, w: int) -> tuple[Singles, Singles]:
    """Return turned coordinates, in periods of the texture, and often bent."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    period = max(h * k.log("period", 0.06, 0.6), 3.0)
    way = k.choice("turned", (0.0, math.pi / 2, k.uniform("way", 0, math.pi), k.uniform("way", 0, math.pi)))
    u, v = (x * math.cos(way) + y * math.sin(way)) / period, (y * math.cos(way) - x * math.sin(way)) / period
    if k.chance("bent", 0.5):
        rng, bend = k.seed("bend"), k.log("bend", 0.05, 1.0)
        u, v = u + bend * _noise(h, w, 2.0, rng), v + bend * _noise(h, w, 2.0, rng)
    return u + 50, v + 50


def _spectral(k: Knobs, h: int, w: int) -> Singles:
    return _unit(_noise(h, w, k.uniform("slope", 0.6, 2.0), k.seed("noise")))


def _fibres(k: Knobs, h: int, w: int) -> Singles:
    way, stretch = k.uniform("way", 0, math.pi), k.uniform("stretch", 1.5, 4)
    return _unit(_noise(h, w, k.uniform("slope", 0.8, 1.6), k.seed("noise"), way, stretch))


def _warped(k: Knobs, h: int, w: int) -> Singles:
    rng, reach = k.seed("warp"), h * k.log("reach", 0.05, 0.4)
    base = _noise(h, w, k.uniform("slope", 1.0, 1.8), rng)
    places = np.mgrid[:h, :w].astype(np.float32)
    places += reach * np.stack([_noise(h, w, 1.8, rng), _noise(h, w, 1.8, rng)])
    return _unit(ndimage.map_coordinates(base, places, order=1, mode="grid-wrap"))


def _ridges(k: Knobs, h: int, w: int) -> Singles:
    field = -np.abs(_noise(h, w, k.uniform("slope", 1.0, 2.0), k.seed("noise")))
    return _unit(-field if k.chance("valleys", 0.5) else field)


def _bursts(k: Knobs, h: int, w: int) -> Singles:
    """Return noise with the heavy tails of wavelet coefficients: busy here, calm there."""
    rng = k.seed("bursts")
    busy = np.exp(k.uniform("tails", 0.4, 1.2) * _noise(h, w, 1.5, rng))
    fine = sum((_band(h, w, h / 2**n, rng) * 0.6**n for n in range(2, 6)), np.zeros((h, w), np.float32))
    return _unit(_single(busy * fine))


def _band(h: int, w: int, period: float, rng: Rng) -> Singles:
    """Return noise of about one period, in pixels."""
    white = rng.standard_normal((h, w), dtype=np.float32)
    sigma = max(period / 6, 0.4)
    fine: Singles = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=2.5)
    return _standard(fine - ndimage.gaussian_filter(fine, sigma * 1.3, mode="wrap", truncate=2.5))


def _camouflage(k: Knobs, h: int, w: int) -> Singles:
    levels = k.integer("levels", 2, 6)
    field = _unit(_noise(h, w, k.uniform("slope", 1.2, 2.2), k.seed("noise")))
    return _single(np.floor(field * levels * 0.999) / max(levels - 1, 1))


def _contours(k: Knobs, h: int, w: int) -> Singles:
    field = _noise(h, w, k.uniform("slope", 1.6, 2.4), k.seed("noise")) * k.uniform("count", 1.5, 5)
    return _single(0.5 + 0.5 * np.sin(2 * np.pi * field))


def _stripes(k: Knobs, h: int, w: int) -> Singles:
    u, _ = _plane(k, h, w)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * u)
    sharp = k.choice("sharpness", (0.0, 4.0, 12.0))
    if sharp:
        wave = 1 / (1 + np.exp(-sharp * (wave - k.uniform("duty", 0.2, 0.8))))
    tones = k.seed("tones").random(997, dtype=np.float32)[np.floor(u).astype(int) % 997]
    return _single(_lerp(_single(wave), tones, k.choice("tones", (0.0, 0.3, 0.8))))


def _rings(k: Knobs, h: int, w: int) -> Singles:
    u, v = _plane(k, h, w)
    centre = k.seed("centre").uniform(-0.3, 1.3, size=2)
    radius = np.hypot(u - _at(u, centre[0]), (v - _at(v, centre[1])) * k.log("flat", 1, 4))
    return _single(0.5 + 0.5 * np.sin(2 * np.pi * radius))


def _at(field: Singles, share: float) -> float:
    return float(field.min() + share * np.ptp(field))


def _tiles(k: Knobs, h: int, w: int) -> Singles:
    """Return bricks, tiles, planks or a checkerboard."""
    u, v = _plane(k, h, w)
    rng = k.seed("tiles")
    row = np.floor(v).astype(int)
    shift = np.where(row % 2, 0.5, rng.random(997)[row % 997])
    u = _single(u / k.log("aspect", 1, 4) + k.choice("bond", (0.0, 0.5, 1.0)) * shift)
    column = np.floor(u).astype(int)
    tone = rng.random((97, 89), dtype=np.float32)[row % 97, column % 89]
    checks = ((row + column) % 2).astype(np.float32)
    field = _lerp(tone, checks, k.choice("checks", (0.0, 0.2, 0.5, 0.9)))
    joint = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) < k.uniform("joint", 0.0, 0.12)
    return _single(np.where(joint, k.choice("grout", (0.0, 1.0, 0.5)), 0.15 + 0.7 * field))


def _cells(k: Knobs, h: int, w: int) -> Singles:
    """Return Voronoi cells, their borders, or spots."""
    u, v = _plane(k, h, w)
    rng, jitter = k.seed("cells"), k.uniform("jitter", 0.15, 0.6)
    rows, columns = (
        np.arange(int(v.min()) - 1, int(v.max()) + 3),
        np.arange(int(u.min()) - 1, int(u.max()) + 3),
    )
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    seeds = grid + rng.uniform(-jitter, jitter, size=grid.shape)
    away, nearest = spatial.cKDTree(seeds).query(np.stack([v, u], axis=-1), k=2)
    kind = k.choice("kind", ("flat", "borders", "domes", "spots"))
    tone = rng.random(len(seeds))[nearest[..., 0]]
    gap = (away[..., 1] - away[..., 0]).clip(0, 1)
    if kind == "flat":
        return _single(0.1 + 0.8 * tone)
    if kind == "borders":
        return _single(np.where(gap < 0.15, 0.0, 0.5 + 0.4 * tone))
    if kind == "domes":
        return _single((1 - away[..., 0]).clip(0, 1))
    size = k.uniform("size", 0.15, 0.4) * (0.6 + 0.8 * tone)
    return _single((0.5 + (size - away[..., 0]) * 8).clip(0, 1))


def _marble(k: Knobs, h: int, w: int) -> Singles:
    u, _ = _plane(k, h, w)
    return _single(0.5 + 0.5 * np.sin(2 * u + k.uniform("veins", 1, 5) * _noise(h, w, 1.5, k.seed("veins"))))


def _weave(k: Knobs, h: int, w: int) -> Singles:
    u, v = _plane(k, h, w)
    over = (np.floor(u) + np.floor(v)) % 2
    thread = np.where(over > 0, np.sin(np.pi * (u % 1)), np.sin(np.pi * (v % 1)))
    return _single(thread * (0.7 + 0.3 * over))


def _slope(k: Knobs, h: int, w: int) -> Singles:
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    way = k.uniform("way", 0, 2 * math.pi)
    ramp = x * math.cos(way) + y * math.sin(way)
    if k.chance("round", 0.4):
        ramp = np.hypot(x - 0.6 * math.cos(way), y - 0.6 * math.sin(way)) - 1
    return _single((0.5 + 0.4 * ramp).clip(0, 1))


_NOISES: tuple[Field, ...] = (_spectral, _spectral, _fibres, _warped, _ridges, _bursts, _marble)
_PATTERNS: tuple[Field, ...] = (
    _camouflage,
    _contours,
    _stripes,
    _rings,
    _tiles,
    _tiles,
    _cells,
    _cells,
    _weave,
    _slope,
)
_FIELDS: tuple[Field, ...] = _NOISES + _PATTERNS


# --- canvases: images (3, h, w) in [0, 1] ----------------------------------------------------------------------

Canvas = Callable[[Knobs, int, int], Singles]
"""Takes the height and the width in pixels."""


def _textured(k: Knobs, h: int, w: int) -> Singles:
    field = k.choice("field", _FIELDS)(k.child("field"), h, w)
    rough = _noise(h, w, k.uniform("slope", 0.7, 1.5), k.seed("rough"))
    field = field + k.choice("rough", (0.02, 0.06, 0.15)) * rough
    image = _ink(_single(field.clip(0, 1)), _palette(k))
    if k.chance("relief", 0.4):
        height = ndimage.gaussian_filter(field, 0.7) * k.uniform("height", 2, 8)
        image = image * _relief(height, k.uniform("light", 0, 2 * math.pi), 0.4)
    tints = k.choice("tints", (0.0, 0.02, 0.06))
    if tints:  # hues vary apart from lightness, and more slowly
        tint, way = _noise(h, w, 1.6, k.seed("tint")), k.normal("tint", 3)
        image = image + tints * _single(way - way.mean())[:, None, None] * tint
    return _single(image.clip(0, 1))


def _plain(k: Knobs, h: int, w: int) -> Singles:
    lightness = k.choice("paper", (0.97, 0.9, 0.5, k.uniform("lightness", 0.05, 0.9)))
    colour = _rgb(k.uniform("hue", 0, 1), k.choice("vivid", (0.0, 0.3, 1.0)), lightness)
    uneven = 1 + k.choice("uneven", (0.01, 0.05, 0.15)) * _slope(k, h, w)
    return _single((colour.reshape(3, 1, 1) * uneven).clip(0, 1))


def _leaves(k: Knobs, h: int, w: int) -> Singles:
    """Return dead leaves: shapes of power-law sizes that hide those below."""
    rng, palette = k.seed("leaves"), _palette(k)
    image = _textured(k.child("below"), h, w)
    skin = (
        _textured(k.child("skin"), h, w) - 0.5 if k.chance("skins", 0.6) else np.zeros((3, h, w), np.float32)
    )
    shading, squareness = k.uniform("shading", 0, 0.5), k.choice("squareness", (2.0, 2.0, 1.0, 6.0))
    smallest, thin = k.log("smallest", 0.02, 0.08), k.log("thinnest", 0.15, 1.0)
    count = k.integer("count", 40, 160)
    # sizes r with density r ** -3, as of things seen from all distances
    radii = h * (rng.uniform(0.35**-2, smallest**-2, size=count)) ** -0.5
    if k.chance("far first", 0.3):
        radii = np.sort(radii)[::-1]
    for radius in radii:
        cy, cx, turn = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, np.pi)
        top, left = max(int(cy - radius), 0), max(int(cx - radius), 0)
        here = (slice(top, int(cy + radius) + 2), slice(left, int(cx + radius) + 2))
        part = image[(slice(None), *here)]
        y = np.arange(top, top + part.shape[1], dtype=np.float32)[:, None] - cy
        x = np.arange(left, left + part.shape[2], dtype=np.float32)[None] - cx
        c, s = math.cos(turn), math.sin(turn)
        across = radius * rng.uniform(thin, 1)
        u, v = np.abs(c * x + s * y) / radius, np.abs(c * y - s * x) / across
        edge = (1 - (u**squareness + v**squareness) ** (1 / squareness)) * across
        cover = (edge + 0.5).clip(0, 1)
        colour = _lerp(palette[rng.integers(5)], palette[rng.integers(5)], rng.random())[:, None, None]
        lit = 1 + shading * (rng.uniform(-0.6, 0.6) + (c * y - s * x) / radius)
        part += _single(cover * ((colour + 0.7 * skin[(slice(None), *here)]) * lit - part))
    return image.clip(0, 1)


def _bokeh(k: Knobs, h: int, w: int) -> Singles:
    """Return lights and things far out of focus."""
    rng, palette = k.seed("bokeh"), _palette(k)
    image = ndimage.gaussian_filter(_textured(k.child("below"), h, w), (0, 6, 6)) * k.uniform("dim", 0.3, 1)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    radius = h * k.log("radius", 0.02, 0.12)
    for _ in range(k.integer("count", 8, 40)):
        away = np.hypot(y - rng.uniform(0, h), x - rng.uniform(0, w))
        cover = ((radius * rng.uniform(0.7, 1.2) - away) * 0.7).clip(0, 1) * rng.uniform(0.1, 0.6)
        image = image + _single(cover * palette[rng.integers(1, 5)][:, None, None])
    return _single(image.clip(0, 1))


def _landscape(k: Knobs, h: int, w: int) -> Singles:
    """Return a sky, rows of silhouettes that pale with distance, and ground in perspective."""
    rng, horizon = k.seed("land"), h * k.uniform("horizon", 0.25, 0.7)
    sky = k.choice("sky", (_sky, _sky, _sky, _textured))(k.child("sky"), h, w)
    ground = _textured(k.child("ground"), 128, 128)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    depth = h * k.uniform("camera height", 0.15, 0.5) / (y - horizon).clip(1)
    places = np.stack([128 * depth * 1.5, (x - w / 2) * depth * 128 / h]) * k.uniform("tiling", 0.4, 1.2)
    seen = np.stack(
        [ndimage.map_coordinates(channel, places, order=1, mode="grid-wrap") for channel in ground]
    )
    haze = sky[:, int(horizon)].mean(axis=1)[:, None, None]
    far = (1 / (1 + np.exp(2 - depth))).clip(0, 1)
    seen = _lerp(seen, _lerp(ground.mean(axis=(1, 2))[:, None, None], haze, 0.5), _single(far))
    image = np.where(y < horizon, sky, seen)
    colour = _palette(k)
    for row in range(k.integer("rows", 0, 3)):
        near = (row + 1) / 4
        skyline = horizon + h * (0.02 - k.uniform("tall", 0.02, 0.2) * np.abs(_skyline(k, w, rng)))
        shade = _lerp(haze[:, 0, 0], colour[rng.integers(3)], 0.3 + 0.7 * near)[:, None, None]
        image = _lerp(image, shade, _single(((y - skyline).clip(0, 1)) * (y < horizon + h * 0.04 * row + 1)))
    return _single(image.clip(0, 1))


def _skyline(k: Knobs, w: int, rng: Rng) -> Singles:
    """Return heights (w,) about 1 of hills, roofs or trees."""
    kind = k.choice("skyline", ("hills", "roofs", "trees"))
    if kind == "roofs":
        return _single(np.repeat(rng.uniform(0.2, 1.5, size=w), rng.integers(5, 20, size=w))[:w])
    path = ndimage.gaussian_filter1d(rng.standard_normal(w), 12.0 if kind == "hills" else 1.5, mode="wrap")
    return _standard(_single(path))


def _sky(k: Knobs, h: int, w: int) -> Singles:
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None] * np.ones((1, w), np.float32)
    top, bottom = k.uniform("top", 0.1, 0.7), k.uniform("bottom", 0.5, 0.97)
    hue = k.choice("hue", (0.58, 0.6, 0.55, k.uniform("odd hue", 0, 1)))
    evening = k.choice("evening", (0.0, 0.0, 0.45))
    sky = _rgb(hue + evening * y**2, k.uniform("saturation", 0, 0.8), _lerp(top * np.ones_like(y), bottom, y))
    clouds = (_noise(h, w, 1.4, k.seed("clouds"), 0.0, 1.5) * 0.5 + k.uniform("clouds", -0.8, 0.6)).clip(0, 1)
    return _single(
        _lerp(sky.transpose(2, 0, 1), k.uniform("white", 0.5, 1) * np.ones((1, h, w), np.float32), clouds)
    )


def _room(k: Knobs, h: int, w: int) -> Singles:
    """Return a wall and a floor, and boards or windows on the wall."""
    rng, palette = k.seed("room"), _palette(k)
    image = _lerp(_textured(k.child("wall"), h, w), palette[2][:, None, None], k.uniform("calm", 0.3, 0.95))
    board = _textured(k.child("board"), h, w)
    for _ in range(k.integer("boxes", 0, 7)):
        top, left = rng.integers(0, h * 3 // 4), rng.integers(0, w - 8)
        tall, wide = rng.integers(6, h // 2), rng.integers(6, w // 3)
        box = (slice(None), slice(top, top + tall), slice(left, left + wide))
        image[box] = palette[rng.integers(5)][:, None, None] * rng.uniform(0.5, 1)
        inner = (slice(None), slice(top + 2, top + tall - 2), slice(left + 2, left + wide - 2))
        image[inner] = _lerp(image[inner], board[inner], 0.7)
    floor = int(h * k.uniform("floor", 0.55, 0.9))
    boards = k.child("floor")
    image[:, floor:] = _textured(boards, h - floor, w) * k.uniform("floor shade", 0.5, 1)
    image[:, floor : floor + 2] *= 0.6
    return image.clip(0, 1)


def _patchwork(k: Knobs, h: int, w: int) -> Singles:
    """Return two canvases, one where a mask is and the other elsewhere."""
    mask = k.choice("mask", (_camouflage, _spectral, _slope, _stripes, _cells))(k.child("mask"), h, w)
    sharp = k.choice("edge", (3.0, 30.0))
    share = _single(((mask - k.uniform("share", 0.35, 0.65)) * sharp + 0.5).clip(0, 1))
    one, other = (k.choice(name, _SIMPLE)(k.child(name), h, w) for name in ("one", "other"))
    return _lerp(one, other, share)


_SIMPLE: tuple[Canvas, ...] = (_textured, _textured, _leaves, _sky)
_CANVASES: tuple[Canvas, ...] = (
    *(_textured, _textured, _textured, _textured, _plain, _plain),
    *(
        _leaves,
        _leaves,
        _leaves,
        _bokeh,
        _landscape,
        _landscape,
        _landscape,
        _room,
        _room,
        _patchwork,
        _patchwork,
    ),
)


def _canvas(k: Knobs) -> Singles:
    """Return the background's image, under uneven light, and in focus or not."""
    image = k.choice("canvas", _CANVASES)(k.child("canvas"), _TALL, _WIDE)
    uneven = _noise(_TALL, _WIDE, 2.2, k.seed("light"))
    image = image * np.exp(k.choice("uneven", (0.0, 0.1, 0.25)) * uneven)
    blur = k.choice("blur", (0.0, 0.0, 0.5, k.log("far", 0.7, 3.0)))
    return _single(ndimage.gaussian_filter(image, (0, blur, blur)).clip(0, 1) if blur else image.clip(0, 1))


# --- forms: parts of a thing, the last on top --------------------------------------------------------------------

Form = Callable[[Knobs, Singles, Singles], list[Singles]]
"""Takes coordinates in radii of a thing, y down; gives each part's distance to its edge, below 0 inside."""


def _oval(x: Singles, y: Singles, cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Singles:
    c, s = math.cos(turn), math.sin(turn)
    x, y = x - cx, y - cy
    return _single((np.hypot((c * x + s * y) / rx, (c * y - s * x) / ry) - 1) * min(rx, ry))


def _limb(x: Singles, y: Singles, x0: float, y0: float, x1: float, y1: float, radius: float) -> Singles:
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-6)).clip(0, 1)
    return _single(np.hypot(x - x0 - along * dx, y - y0 - along * dy) - radius)


def _box(x: Singles, y: Singles, cx: float, cy: float, rx: float, ry: float, soft: float = 0.05) -> Singles:
    dx, dy = np.abs(x - cx) - rx + soft, np.abs(y - cy) - ry + soft
    return _single(np.hypot(dx.clip(0), dy.clip(0)) + np.minimum(np.maximum(dx, dy), 0) - soft)


def _joined(*parts: Singles) -> Singles:
    return _single(np.minimum.reduce(parts))


def _blob(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a closed curve of Fourier descriptors, smooth to spiky."""
    angle, orders = np.arctan2(y, x), np.arange(1, 10)
    waves = k.normal("waves", 18).reshape(2, 9) * orders ** -k.uniform("smooth", 0.3, 2.2) * 0.13
    edge = np.hypot(x, y) - 0.65
    for order, a, b in zip(orders, *waves, strict=True):
        edge = edge - (a * np.cos(order * angle) + b * np.sin(order * angle)).clip(-0.25, 0.25)
    return [_single(edge)]


def _polygon(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    corners = k.integer("corners", 3, 8)
    ways = (
        (np.arange(corners) + k.uniform("uneven", 0, 0.3) * k.normal("ways", corners)) * 2 * np.pi / corners
    )
    sides = [x * math.cos(way) + y * math.sin(way) - k.uniform("side", 0.45, 0.65) for way in ways]
    whole = _single(np.maximum.reduce(sides))
    return [whole, _single(whole + 0.2)] if k.chance("inner", 0.3) else [whole]


def _star(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a star, a flower or a gear, with or without a hub."""
    points, deep = k.integer("points", 4, 14), k.uniform("deep", 0.08, 0.3)
    wave = np.cos(points * np.arctan2(y, x))
    if k.chance("teeth", 0.4):
        wave = np.tanh(4 * wave)
    petals = _single((np.hypot(x, y) - 0.65 - deep * wave) * 0.6)
    hub = _oval(x, y, 0, 0, k.uniform("hub", 0.15, 0.4), 0.25)
    return [petals, hub] if k.chance("hubbed", 0.7) else [petals]


def _boxed(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a rounded box with buttons, panes or a dial on it."""
    rx, ry = k.uniform("wide", 0.3, 0.85), k.uniform("tall", 0.3, 0.75)
    parts, rng = [_box(x, y, 0, 0, rx, ry, k.uniform("soft", 0.02, 0.3))], k.seed("marks")
    if k.chance("screen", 0.5):
        parts.append(_box(x, y, rng.uniform(-0.2, 0.2) * rx, -0.1 * ry, rx * 0.65, ry * 0.6))
    places = rng.uniform(-0.7, 0.7, size=(k.integer("marks", 0, 4), 2)) * (rx, ry)
    return parts + [_oval(x, y, *place, *rng.uniform(0.06, 0.25, size=2)) for place in places]


def _beast(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    long, leg, neck = k.uniform("long", 0.35, 0.6), k.uniform("leg", 0.2, 0.6), k.uniform("neck", 0.0, 0.5)
    thick, hx, hy = k.uniform("thick", 0.04, 0.1), long + 0.12, -0.25 - neck
    legs = [_limb(x, y, at * long, 0.1, at * long + lean, 0.15 + leg, thick) for at, lean in _STANCE]
    body = _joined(
        _oval(x, y, 0, 0, long, k.uniform("fat", 0.2, 0.34)), _limb(x, y, long * 0.7, -0.1, hx, hy, 0.12)
    )
    tail = _limb(x, y, -long, -0.1, -long - 0.25, k.uniform("tail", -0.6, 0.2), thick * 0.8)
    head = _joined(
        _oval(x, y, hx, hy, 0.2, 0.17), _oval(x, y, hx + 0.15, hy + 0.05, k.uniform("snout", 0.05, 0.2), 0.09)
    )
    ear = _oval(x, y, hx - 0.1, hy - 0.18, 0.07, k.uniform("ear", 0.06, 0.25), k.uniform("droop", -0.6, 0.9))
    return [_joined(*legs), tail, body, head, ear, _oval(x, y, hx + 0.06, hy - 0.04, 0.035, 0.04)]


_STANCE = ((-0.8, -0.08), (-0.55, 0.05), (0.55, -0.05), (0.8, 0.08))
"""Of a beast's legs: where, in halves of its length, and how far the foot is off."""


def _bird(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    tilt, hx, hy = (
        k.uniform("tilt", -0.6, 0.2),
        k.uniform("head x", 0.3, 0.5),
        k.uniform("head y", -0.6, -0.25),
    )
    body = _oval(x, y, 0, 0, 0.5, k.uniform("fat", 0.22, 0.36), tilt)
    tail = _oval(x, y, -0.55, -0.3 * tilt, 0.35, 0.1, tilt)
    wing = _oval(x, y, -0.1, -0.05, k.uniform("wing", 0.25, 0.45), 0.16, tilt + k.uniform("lift", -0.9, 0.5))
    legs = _joined(*(_limb(x, y, at, 0.2, at + 0.04, 0.65, 0.025) for at in (-0.08, 0.1)))
    beak = _limb(x, y, hx + 0.1, hy, hx + k.uniform("beak", 0.22, 0.45), hy + 0.06, 0.05)
    eye = _oval(x, y, hx + 0.06, hy - 0.04, 0.035, 0.035)
    return [legs, tail, body, beak, _oval(x, y, hx, hy, 0.2, 0.19), wing, eye]


def _fish(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    fat = k.uniform("fat", 0.2, 0.45)
    body = _single(np.maximum(_oval(x, y, 0.1, 0.4, 0.8, 0.4 + fat), _oval(x, y, 0.1, -0.4, 0.8, 0.4 + fat)))
    tail = _single(np.maximum(np.abs(y) + 0.9 * (x + 0.4), -(x + k.uniform("tail", 0.75, 0.95))))
    fin = _oval(x, y, 0, -fat, 0.3, k.uniform("fin", 0.08, 0.25), 0.3)
    return [tail, fin, body, _oval(x, y, 0.5, -0.06, 0.06, 0.06)]


def _figure(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    arms, stride, thick = (
        k.normal("arms", 4) * 0.25,
        k.uniform("stride", 0.03, 0.3),
        k.uniform("thick", 0.05, 0.1),
    )
    legs = _joined(*(_limb(x, y, way * 0.1, 0.2, way * stride, 0.85, thick) for way in (-1, 1)))
    left, right = (
        _limb(x, y, way * 0.17, -0.3, way * (0.4 + a), 0.1 + b, thick * 0.8)
        for way, a, b in zip((-1, 1), arms[:2], arms[2:] * 2, strict=True)
    )
    torso = _box(x, y, 0, -0.08, k.uniform("wide", 0.14, 0.28), 0.34, 0.12)
    size = k.uniform("head", 0.13, 0.24)
    head = _oval(x, y, 0, -0.45 - size, size * 0.85, size)
    hair = _single(np.maximum(head - 0.02, y + 0.5 + size * k.uniform("hair", 0.6, 1.4)))
    return [legs, left, torso, right, head, hair]


def _vehicle(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    long, wheel = k.uniform("long", 0.5, 0.85), k.uniform("wheel", 0.12, 0.24)
    cabin, cx = k.uniform("cabin", 0.2, 0.5), k.uniform("cabin x", -0.3, 0.3)
    body = _box(x, y, 0, 0.15, long, k.uniform("tall", 0.14, 0.28), 0.08)
    roof = _box(x, y, cx, -0.12, cabin, k.uniform("roof", 0.15, 0.35), k.uniform("soft", 0.02, 0.2))
    panes = _joined(*(_box(x, y, cx + way * cabin * 0.45, -0.15, cabin * 0.35, 0.12) for way in (-1, 1)))
    at = np.linspace(-0.65, 0.65, k.integer("wheels", 2, 4)) * long
    tyres = _joined(*(_oval(x, y, float(place), 0.38, wheel, wheel) for place in at))
    return [roof, panes, body, tyres, _single(tyres + wheel * 0.5)]


def _insect(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    side, spread = np.abs(x), k.uniform("spread", 0.2, 0.9)
    upper = _oval(
        side, y, 0.4, -0.25, k.uniform("upper", 0.25, 0.45), k.uniform("upper wide", 0.1, 0.28), -spread
    )
    lower = _oval(
        side, y, 0.35, 0.25, k.uniform("lower", 0.2, 0.35), k.uniform("lower wide", 0.1, 0.22), spread
    )
    spots = _oval(side, y, 0.45, -0.25, k.uniform("spot", 0.06, 0.14), 0.09)
    feelers = _limb(side, y, 0.03, -0.5, k.uniform("feeler", 0.1, 0.4), -0.9, 0.02)
    body = _joined(_oval(x, y, 0, 0.1, 0.09, 0.45), _oval(x, y, 0, -0.42, 0.12, 0.12))
    legs = _joined(*(_limb(side, y, 0.0, at, 0.6, at * 2, 0.02) for at in (-0.15, 0.1, 0.3)))
    return [feelers, legs, body] if k.chance("wingless", 0.3) else [feelers, lower, upper, spots, body]


def _face(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    side, apart, eye = np.abs(x), k.uniform("apart", 0.18, 0.4), k.uniform("eye", 0.06, 0.17)
    head = _oval(x, y, 0, 0, k.uniform("wide", 0.5, 0.8), k.uniform("tall", 0.55, 0.8))
    ears = _oval(
        side,
        y,
        k.uniform("ear x", 0.3, 0.7),
        k.uniform("ear y", -0.7, 0.1),
        0.16,
        k.uniform("ear", 0.12, 0.3),
        0.4,
    )
    whites, pupils = (
        _oval(side, y, apart, -0.15, eye, eye * 0.9),
        _oval(side, y, apart, -0.14, eye * 0.5, eye * 0.5),
    )
    nose = _oval(x, y, 0, 0.08, k.uniform("nose", 0.04, 0.15), k.uniform("long nose", 0.05, 0.16))
    mouth = _oval(x, y, 0, 0.36, k.uniform("mouth", 0.1, 0.32), k.uniform("lips", 0.03, 0.12))
    hair = _single(np.maximum(head - 0.03, y + k.uniform("hair", 0.2, 0.7)))
    return [ears, head, whites, pupils, nose, mouth] + ([hair] if k.chance("hairy", 0.5) else [])


def _leaf(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    bow = k.uniform("bow", 0.3, 1.2)
    blade = np.maximum(np.hypot(x, y + bow), np.hypot(x, y - bow)) - math.hypot(bow, 0.85)
    ribs = np.abs((x - np.abs(y) * 0.8) * k.integer("ribs", 3, 8) % 1 - 0.5) * 0.15 - 0.012
    vein = _joined(_limb(x, y, -0.95, 0, 0.8, 0, 0.025), _single(np.maximum(ribs, blade + 0.06)))
    return [_single(blade), vein]


def _tree(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a trunk, branches, and often a crown."""
    rng, spread = k.seed("tree"), k.uniform("spread", 0.3, 0.8)
    tips, limbs = [(0.0, 0.9, -math.pi / 2, 0.5)], []
    for level in range(k.integer("levels", 3, 4)):
        grown = []
        for x0, y0, way, long in tips:
            x1, y1 = x0 + long * math.cos(way), y0 + long * math.sin(way)
            limbs.append(_limb(x, y, x0, y0, x1, y1, 0.06 * 0.65**level))
            grown += [(x1, y1, way + turn * spread * rng.uniform(0.6, 1.3), long * 0.72) for turn in (-1, 1)]
        tips = grown
    crown = [_oval(x, y, tip[0], tip[1], *rng.uniform(0.12, 0.3, size=2)) for tip in tips[::2]]
    return [_joined(*limbs), _joined(*crown)] if k.chance("crown", 0.6) else [_joined(*limbs)]


def _holed(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a lump with holes, or a ring."""
    if k.chance("ring", 0.4):
        return [
            _single(
                np.abs(_oval(x, y, 0, 0, 0.68, k.uniform("flat", 0.4, 0.68))) - k.uniform("rim", 0.06, 0.2)
            )
        ]
    edge, rng = _blob(k, x, y)[0], k.seed("holes")
    holes = [
        _oval(x, y, *rng.uniform(-0.45, 0.45, size=2), *rng.uniform(0.08, 0.25, size=2)) for _ in range(4)
    ]
    return [_single(np.maximum(edge, -_joined(*holes)))]


def _glyph(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return strokes, as of a letter or of sticks."""
    knots = k.seed("strokes").uniform(-0.75, 0.75, size=(k.integer("knots", 3, 6), 2))
    thick = k.uniform("thick", 0.05, 0.16)
    return [
        _joined(*(_limb(x, y, a[0], a[1], b[0], b[1], thick) for a, b in itertools.pairwise(knots.tolist())))
    ]


def _turned(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a vase, bottle, bell or lamp: a profile and its mirror image."""
    radii = np.abs(0.35 + 0.16 * k.normal("profile", 6)).clip(0.08, 0.7)
    if k.chance("smooth", 0.7):
        profile = np.interp(
            y, np.linspace(-0.8, 0.8, 33), ndimage.zoom(radii, 33 / 6, order=3).clip(0.06, 0.75)
        )
    else:
        profile = np.interp(y, np.linspace(-0.8, 0.8, 6), radii)
    whole = np.maximum((np.abs(x) - profile) * 0.8, np.abs(y) - 0.8)
    low = k.uniform("band", -0.5, 0.4)
    band = np.maximum(whole, np.maximum(low - y, y - low - k.uniform("band width", 0.05, 0.4)))
    return [_single(whole), _single(band)]


def _strings(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return an instrument with a body, a neck and a hole, upright or aslant."""
    way = k.uniform("way", -1, 1)
    x, y = x * math.cos(way) + y * math.sin(way), y * math.cos(way) - x * math.sin(way)
    low, waist = k.uniform("low", 0.25, 0.42), k.uniform("high", 0.15, 0.32)
    body = _joined(_oval(x, y, 0, 0.42, low, low), _oval(x, y, 0, 0.05, waist, waist))
    neck, pegs = _box(x, y, 0, -0.4, 0.05, 0.45), _box(x, y, 0, -0.85, k.uniform("pegs", 0.06, 0.12), 0.1)
    return [body, _oval(x, y, 0, 0.25, k.uniform("hole", 0.05, 0.13), 0.1), _joined(neck, pegs)]


def _heap(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return balls in a heap or a row."""
    rng, flat = k.seed("heap"), k.uniform("flat", 0.3, 1)
    places = rng.uniform(-0.55, 0.55, size=(k.integer("count", 3, 8), 2)) * (1, flat)
    return [
        _oval(x, y, *place, *(rng.uniform(0.15, 0.35) * rng.uniform(0.8, 1.2, size=2))) for place in places
    ]


_FORMS: tuple[Form, ...] = (
    *(
        _blob,
        _blob,
        _polygon,
        _star,
        _boxed,
        _boxed,
        _beast,
        _beast,
        _bird,
        _fish,
        _figure,
        _figure,
        _vehicle,
    ),
    *(_insect, _face, _face, _leaf, _tree, _holed, _glyph, _turned, _strings, _heap),
)


# --- sprites: images of things, RGB times cover, and cover (4, side, side) -------------------------------------

_MARGIN = 1.25
"""Half a sprite's side, in radii of its thing."""


def _sprite(k: Knobs, radius: float, light: float) -> Singles:
    """Return a thing of this radius, in pixels."""
    side = 2 * math.ceil(radius * _MARGIN) + 2
    y, x = np.mgrid[-_MARGIN : _MARGIN : side * 1j, -_MARGIN : _MARGIN : side * 1j].astype(np.float32)
    flip, lean, bend = k.choice("flip", (-1, 1)), k.uniform("lean", -0.25, 0.25), k.uniform("bend", -0.3, 0.3)
    x, y = flip * (x + lean * y + bend * y * y), y * k.log("tall", 0.8, 1.25)
    if k.chance("crooked", 0.4):
        rng, reach = k.seed("crooked"), k.log("crookedness", 0.02, 0.12)
        x, y = x + reach * _noise(side, side, 2, rng), y + reach * _noise(side, side, 2, rng)
    parts = k.choice("form", _FORMS)(k.child("form"), x, y)
    sharp = radius / k.log("soft edge", 0.7, 2.0)
    colour, cover = np.zeros((3, side, side), np.float32), np.zeros((side, side), np.float32)
    height = np.zeros((side, side), np.float32)
    one_skin, palette = k.chance("one skin", 0.35), _palette(k.child("plain"))
    skin = _textured(k.child("skin"), side, side)
    for n, edge in enumerate(parts):
        over = _single((0.5 - edge * sharp).clip(0, 1))
        drawn = one_skin or k.chance(f"skin {n}", 0.4)
        ink = skin if drawn and n < 3 else palette[k.integer(f"ink {n}", 0, 4)][:, None, None]
        colour = _lerp(colour, ink, over)
        height = _lerp(height, 0.1 * n + np.sqrt((-edge).clip(0, 0.5)), over)
        cover = np.maximum(cover, over)
    line = k.choice("line", (0.0, 0.0, 0.0, 0.05, 0.1))
    if line:
        colour = colour * np.minimum.reduce([(np.abs(edge) / line).clip(0.15, 1) for edge in parts])
    roundness = k.choice("roundness", (0.0, 0.3, 0.6, 0.8))
    if roundness:
        height = ndimage.gaussian_filter(height, max(radius * 0.06, 0.6)) * radius * 0.5
        lit = _relief(height, light, roundness)
        gloss = k.choice("gloss", (0.0, 0.0, 0.4)) * ((lit - 1) / roundness).clip(0, 1) ** 8
        colour = _single(colour * lit + gloss)
    blur = k.choice("blur", (0.0, 0.0, 0.0, k.uniform("near", 0.4, 1.5)))
    opaque = k.choice("opaque", (1.0, 1.0, 1.0, k.uniform("clear", 0.5, 1)))
    rgba = np.concatenate([colour.clip(0, 1) * cover, cover[None]]) * opaque
    return _single(ndimage.gaussian_filter(rgba, (0, blur, blur)) if blur else rgba)


# --- motions -----------------------------------------------------------------------------------------------------


@dataclass
class _Pose:
    """Where a thing is in each frame: arrays (FRAMES,); places in pixels off the frame's middle, turns in radians."""

    x: Singles
    y: Singles
    wide: Singles
    tall: Singles
    turn: Singles
    gain: Singles
    opacity: Singles
    gape: Singles


Motion = Callable[[_Pose, Knobs, Cue, Rng], None]
"""Moves a thing with its cue."""


def _hop(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    swing = _spring(cue.onsets, k.uniform("hertz", 1.5, 4), k.uniform("decay", 0.1, 0.5))
    way = k.choice("way", (-1.0, -1.0, 1.0))
    pose.y += way * k.uniform("hop", 4, 16) * np.abs(swing)
    squash = k.uniform("squash", 0, 0.25) * swing
    pose.wide *= 1 - squash
    pose.tall *= 1 + squash


def _bounce(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    """Fall so that what is heard begins as the thing hits the ground."""
    hits = np.flatnonzero(cue.onsets > 0.05)
    if len(hits) < 2:
        return _hop(pose, k, cue, _)
    part = np.interp(np.arange(FRAMES), hits, np.arange(len(hits))) % 1
    gap = np.interp(np.arange(FRAMES), hits, np.gradient(hits)).clip(2, 16) / 16
    pose.y -= _single(k.uniform("bounce", 15, 45) * 4 * part * (1 - part) * gap)
    pose.tall *= 1 - 0.25 * _fading(cue.onsets, 0.08)
    return None


def _strike(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    """Swing back before each onset, and hit at it."""
    ahead = np.convolve(cue.onsets[::-1], np.exp(-(((np.arange(9) - 3) / 2) ** 2)))[:FRAMES][::-1]
    pose.turn += k.choice("way", (-1, 1)) * k.uniform("swing", 0.3, 1.0) * _single(ahead.clip(0, 1))
    pose.turn -= k.choice("way", (-1, 1)) * 0.3 * _fading(cue.onsets, 0.1)


def _quiver(pose: _Pose, k: Knobs, cue: Cue, rng: Rng) -> None:
    reach = k.log("reach", 1, 5) * cue.loudness
    pose.x += _single(reach * rng.uniform(-1, 1, size=FRAMES))
    pose.y += _single(reach * rng.uniform(-1, 1, size=FRAMES) * k.uniform("upright", 0, 1))


def _swell(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    size = 1 + k.choice("way", (1.0, 1.0, -0.6)) * k.uniform("swell", 0.15, 0.6) * cue.loudness
    pose.wide *= _single(size)
    pose.tall *= _single(size)


def _stretch(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    much = _single(k.choice("way", (-1, 1)) * k.uniform("stretch", 0.15, 0.45) * cue.loudness)
    pose.wide *= 1 + much
    pose.tall *= 1 - much


def _climb(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    high = ndimage.gaussian_filter1d(cue.pitch.astype(np.float32), 1.0)
    pose.y += k.uniform("climb", 20, 50) * (0.5 - high)


def _spin(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    speed = k.choice("way", (-1, 1)) * k.uniform("turns", 0.3, 1.5) * 2 * math.pi / FPS
    pose.turn += _single(speed * np.cumsum(cue.loudness))


def _nod(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.turn += k.uniform("nod", 0.2, 0.7) * _spring(
        cue.onsets, k.uniform("hertz", 1, 3), k.uniform("decay", 0.2, 0.6)
    )


def _speak(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.gape += _single(k.uniform("gape", 0.7, 1.2) * cue.loudness)


def _flash(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.gain *= 1 + k.uniform("flash", 0.4, 1.5) * _fading(cue.onsets, k.uniform("decay", 0.08, 0.3))


def _glow(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    pose.gain *= _single(k.uniform("dark", 0.4, 0.8) + k.uniform("glow", 0.3, 1.0) * cue.loudness)


def _travel(pose: _Pose, k: Knobs, cue: Cue, _: Rng) -> None:
    gone, way = np.cumsum(cue.loudness) * k.uniform("speed", 15, 60) / FPS, k.uniform("way", 0, 2 * math.pi)
    pose.x += _single(_folded(gone * math.cos(way), WIDTH * 0.4))
    pose.y += _single(_folded(gone * math.sin(way) * 0.5, HEIGHT * 0.3))


def _folded(place: npt.NDArray[np.floating], reach: float) -> npt.NDArray[np.floating]:
    """Turn a path back wherever it is ``reach`` away."""
    folded: npt.NDArray[np.floating] = np.abs((place + reach) % (4 * reach) - 2 * reach) - reach
    return -folded


def _come_and_go(pose: _Pose, _: Knobs, cue: Cue, __: Rng) -> None:
    heard = np.flatnonzero(cue.loudness > 0.05)
    if len(heard):
        t = np.arange(FRAMES)
        pose.opacity *= _single(np.minimum((t - heard[0] + 2) / 2, (heard[-1] + 4 - t) / 2).clip(0, 1))


_MOTIONS: tuple[Motion, ...] = (
    *(_hop, _hop, _bounce, _strike, _quiver, _swell, _swell, _stretch, _climb, _climb, _spin, _nod),
    *(_speak, _speak, _flash, _glow, _travel),
)


def _idle(rng: Rng) -> Cue:
    """Return a cue of no sound: beats, bursts or a swell that comes and goes."""
    t, rate = np.arange(FRAMES), rng.uniform(0.4, 3)
    onsets = np.zeros(FRAMES)
    if rng.random() < 0.5:
        onsets[(np.arange(rng.uniform(0, 10), FRAMES, FPS / rate)).astype(int)] = rng.uniform(0.4, 1)
    else:
        onsets[rng.random(FRAMES) < rate / FPS] = rng.uniform(0.4, 1)
    slow = (0.5 + 0.7 * _walk(rng, rng.uniform(2, 10))).clip(0, 1)
    loudness = slow if rng.random() < 0.5 else _fading(onsets, rng.uniform(0.1, 0.6))
    if rng.random() < 0.3:
        loudness = loudness * ((t // rng.integers(8, 40)) % 2)
    return Cue(_single(loudness), 0.5 + 0.4 * _walk(rng, rng.uniform(2, 10)), onsets)


def _roam(k: Knobs, rng: Rng) -> tuple[Singles, Singles]:
    """Return a path (x, y) in pixels that no sound drives: still, a drift, a wander, a swing or an orbit."""
    t, still = _seconds(), np.zeros(FRAMES, np.float32)
    kind, reach = (
        k.choice("roam", ("still", "still", "drift", "wander", "swing", "orbit")),
        k.uniform("reach", 3, 25),
    )
    way, turn = rng.uniform(0, 2 * np.pi), 2 * np.pi * (t * k.log("hertz", 0.1, 1) + rng.random())
    if kind == "drift":
        return reach * np.cos(way) * (t / 2.5 - 1), reach * np.sin(way) * (t / 2.5 - 1) * 0.6
    if kind == "wander":
        return reach * _walk(rng, 12), 0.7 * reach * _walk(rng, 12)
    if kind == "swing":
        return reach * _single(np.sin(turn)) * math.cos(way), reach * _single(np.sin(turn)) * math.sin(way)
    return (
        (reach * _single(np.cos(turn)), reach * _single(np.sin(turn))) if kind == "orbit" else (still, still)
    )


# --- things ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spray:
    """Small things that fly off: arrays (count,) of frames, places in pixels, radii, and cover."""

    frame: npt.NDArray[np.int64]
    x: Singles
    y: Singles
    radius: Singles
    cover: Singles
    colour: Singles


@dataclass(frozen=True)
class _Thing:
    """What :func:`_show` paints: sprites, and where they are; ``depth`` above 1 is nearer than the background."""

    body: Singles
    mouth: Singles | None
    mouth_at: tuple[float, float]
    shadow: tuple[float, float, float] | None
    pose: _Pose
    depth: float
    spray: _Spray | None


def _thing(k: Knobs, cue: Cue, light: float, rng: Rng) -> _Thing:
    radius = HEIGHT * k.uniform("size", *k.choice("sizes", ((0.2, 0.45), (0.3, 0.8), (0.4, 0.9)))) / 2
    x, y = _roam(k.child("roam"), rng)
    ones = np.ones(FRAMES, np.float32)
    pose = _Pose(
        x=x + WIDTH * rng.uniform(-0.36, 0.36),
        y=y + HEIGHT * rng.uniform(-0.28, 0.32),
        wide=ones.copy(),
        tall=ones.copy(),
        turn=ones
        * k.choice("turned", (0.0, 0.0, k.uniform("turn", -0.5, 0.5), k.uniform("any turn", -3, 3))),
        gain=ones.copy(),
        opacity=ones.copy(),
        gape=0 * ones,
    )
    for n in range(k.integer("motions", 1, 3)):
        k.choice(f"motion {n}", _MOTIONS)(pose, k.child(f"motion {n}"), cue, rng)
    if k.chance("comes and goes", 0.06):
        _come_and_go(pose, k, cue, rng)
    shadow = None
    if k.chance("shaded", 0.35):
        far = radius * k.uniform("shadow far", 0.1, 0.5)
        shadow = (far * math.cos(light + math.pi), abs(far * math.sin(light)), k.uniform("shadow", 0.2, 0.6))
    mouth = _mouth(k.child("mouth"), radius * k.uniform("mouth", 0.2, 0.45)) if pose.gape.any() else None
    return _Thing(
        body=_sprite(k.child("body"), radius, light),
        mouth=mouth,
        mouth_at=(radius * k.uniform("mouth x", -0.3, 0.5), radius * k.uniform("mouth y", -0.3, 0.4)),
        shadow=shadow,
        pose=pose,
        depth=k.uniform("depth", 0.9, 1.6),
        spray=_spray(k.child("spray"), pose, cue, rng) if k.chance("spray", 0.2) else None,
    )


def _mouth(k: Knobs, radius: float) -> Singles:
    """Return a mouth, beak or flap, wide open."""
    side = 2 * math.ceil(radius * _MARGIN) + 2
    y, x = np.mgrid[-_MARGIN : _MARGIN : side * 1j, -_MARGIN : _MARGIN : side * 1j].astype(np.float32)
    edge = k.choice(
        "shape", (_oval(x, y, 0, 0, 1, 0.9), _box(x, y, 0, 0, 0.9, 0.8, 0.3), np.abs(x) + np.abs(y) - 1)
    )
    palette = _palette(k) * k.choice("dark", (0.3, 0.3, 1.0))
    inner = _single((0.5 - (edge + 0.3) * radius).clip(0, 1))
    cover = _single((0.5 - edge * radius).clip(0, 1))
    colour = _lerp(
        palette[0][:, None, None], palette[3][:, None, None], inner * k.choice("tongue", (0.0, 1.0))
    )
    return np.concatenate([colour * cover, cover[None]])


def _spray(k: Knobs, pose: _Pose, cue: Cue, rng: Rng) -> _Spray:
    """Return drops, sparks or dust that leave the thing at onsets."""
    starts = np.flatnonzero(cue.onsets > 0.05)[:40]
    each, life = k.integer("each", 2, 7), k.integer("life", 5, 16)
    first = np.repeat(starts, each)
    way = k.uniform("way", -math.pi, 0) + rng.normal(0, k.uniform("spread", 0.2, 2), size=len(first))
    speed = k.uniform("speed", 20, 70) * rng.uniform(0.4, 1, size=len(first))
    age = np.arange(life)[None] / FPS
    frame = (first[:, None] + np.arange(life)).astype(np.int64)
    x = pose.x[first][:, None] + (speed * np.cos(way))[:, None] * age
    y = (
        pose.y[first][:, None]
        + (speed * np.sin(way))[:, None] * age
        + k.uniform("gravity", -20, 120) * age**2
    )
    seen, cover = frame < FRAMES, np.broadcast_to(1 - age * FPS / life, frame.shape)
    radius = np.broadcast_to(
        k.log("radius", 0.6, 2.2) * rng.uniform(0.6, 1.4, size=(len(first), 1)), frame.shape
    )
    colour = _palette(k)[4]
    return _Spray(
        frame[seen], _single(x[seen]), _single(y[seen]), _single(radius[seen]), _single(cover[seen]), colour
    )


# --- the camera --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Camera:
    """Where the camera looks in each frame: arrays (FRAMES,); pixels, turns in radians."""

    x: Singles
    y: Singles
    zoom: Singles
    turn: Singles

    def place(
        self, x: Singles, y: Singles, depth: float, frame: slice | npt.NDArray[np.int64] = slice(None)
    ) -> tuple[Singles, Singles]:
        """Return where in the frame, in pixels from its corner, something is seen that is at (x, y)."""
        zoom, turn = self.zoom[frame], self.turn[frame]
        x, y = zoom * (x - depth * self.x[frame]), zoom * (y - depth * self.y[frame])
        c, s = np.cos(turn), np.sin(turn)
        return _single(WIDTH / 2 + c * x + s * y), _single(HEIGHT / 2 + c * y - s * x)

    def theta(self, depth: float) -> torch.Tensor:
        """Return what :func:`affine_grid` takes for a canvas: (FRAMES, 2, 3)."""
        c, s = np.cos(self.turn) / self.zoom, np.sin(self.turn) / self.zoom
        across = np.stack([c * WIDTH / _WIDE, -s * HEIGHT / _WIDE, 2 * depth * self.x / _WIDE], axis=-1)
        down = np.stack([s * WIDTH / _TALL, c * HEIGHT / _TALL, 2 * depth * self.y / _TALL], axis=-1)
        return torch.from_numpy(_single(np.stack([across, down], axis=1)))


def _camera(k: Knobs, rng: Rng) -> _Camera:
    """Return a camera that is still, or one that pans, zooms and turns, and trembles in a hand."""
    zero = np.zeros(FRAMES, np.float32)
    base_zoom, base_turn = k.log("zoom", 0.85, 1.4), k.normal("tilt", 1)[0] * 0.06
    if k.chance("still", 0.3):
        return _Camera(zero, zero, zero + base_zoom, zero + base_turn)
    t = _single(np.linspace(-1, 1, FRAMES))
    paths = [
        rng.choice([-1, 1]) * t if k.chance(f"{name} is linear", 0.5) else _walk(rng, 14)
        for name in ("x", "y", "zoom", "turn")
    ]
    pan, hand = k.choice("pan", (0.0, 4.0, 10.0, 20.0)), k.choice("hand", (0.0, 0.4, 1.0, 2.0))
    shake = [hand * _walk(rng, 1.5) for _ in range(2)]
    return _Camera(
        x=_single(pan * paths[0] + shake[0]),
        y=_single(0.5 * pan * paths[1] + shake[1]),
        zoom=_single(base_zoom * np.exp(k.choice("zooming", (0.0, 0.0, 0.1, 0.25)) * paths[2])),
        turn=_single(base_turn + k.choice("turning", (0.0, 0.0, 0.05, 0.2)) * paths[3]),
    )


# --- painting ----------------------------------------------------------------------------------------------------


def _behind(k: Knobs, cues: Sequence[Cue], camera: _Camera) -> torch.Tensor:
    """Return the background in all frames, (FRAMES, 3, HEIGHT, WIDTH); a few ripple with the first cue."""
    grid = F.affine_grid(camera.theta(1.0), [FRAMES, 3, HEIGHT, WIDTH], align_corners=False)
    if cues and k.chance("rippling", 0.1):
        way, period = k.uniform("ripple way", 0, 2 * math.pi), k.log("ripple period", 0.15, 0.8)
        wave = (grid[0, ..., 0] * math.cos(way) + grid[0, ..., 1] * math.sin(way)) * 2 * math.pi / period
        time = torch.from_numpy(_seconds() * 2 * math.pi * k.uniform("ripple hertz", 0.5, 3))
        reach = torch.from_numpy(_single(cues[0].loudness)) * k.uniform("ripple", 0.01, 0.05)
        grid = grid + (reach[:, None, None] * torch.sin(wave - time[:, None, None]))[..., None]
    still = torch.from_numpy(_canvas(k)).expand(FRAMES, -1, -1, -1)
    return F.grid_sample(still, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _show(frames: torch.Tensor, thing: _Thing, camera: _Camera) -> None:
    """Paint a thing, its shadow below it, and what flies off it."""
    pose = thing.pose
    x, y = camera.place(pose.x, pose.y, thing.depth)
    wide, tall = (camera.zoom * part.clip(0.3, 1.9) for part in (pose.wide, pose.tall))
    turn, ones = pose.turn - camera.turn, np.ones(FRAMES, np.float32)
    if thing.shadow is not None:
        dx, dy, dark = thing.shadow
        blur = max(len(thing.body[3]) * 0.04, 0.7)
        cover = ndimage.gaussian_filter(thing.body[3], blur) * dark
        black = np.concatenate([np.zeros_like(thing.body[:3]), cover[None]])
        _stick(frames, black, x + dx, y + dy, wide, tall, turn, ones, pose.opacity)
    _stick(frames, thing.body, x, y, wide, tall, turn, pose.gain, pose.opacity)
    if thing.mouth is not None:
        mx, my = thing.mouth_at[0] * wide, thing.mouth_at[1] * tall
        c, s = np.cos(turn), np.sin(turn)
        gape = (0.1 + pose.gape).clip(0.1, 1.2)
        _stick(
            frames,
            thing.mouth,
            x + c * mx - s * my,
            y + s * mx + c * my,
            wide,
            tall * gape,
            turn,
            ones,
            pose.opacity,
        )
    if thing.spray is not None:
        spray = thing.spray
        x, y = camera.place(spray.x, spray.y, thing.depth, spray.frame)
        _stamp(frames, replace(spray, x=x, y=y))


def _stick(
    frames: torch.Tensor,
    sprite: Singles,
    x: Singles,
    y: Singles,
    wide: Singles,
    tall: Singles,
    turn: Singles,
    gain: Singles,
    opacity: Singles,
) -> None:
    """Paint a sprite into each frame, its middle at (x, y); only the square around it is touched."""
    side = sprite.shape[-1]
    patch = min(math.ceil(side * max(wide.max(), tall.max()) * 1.15), 2 * HEIGHT)
    left, top = np.round(x - patch / 2), np.round(y - patch / 2)
    dx, dy = left + patch / 2 - x, top + patch / 2 - y
    c, s = np.cos(turn), np.sin(turn)
    across = (
        np.stack([c * patch / side, s * patch / side, (c * dx + s * dy) * 2 / side], axis=-1) / wide[:, None]
    )
    down = (
        np.stack([-s * patch / side, c * patch / side, (c * dy - s * dx) * 2 / side], axis=-1) / tall[:, None]
    )
    theta = torch.from_numpy(_single(np.stack([across, down], axis=1)))
    seen = np.flatnonzero(
        (opacity > 0) & (left < WIDTH) & (top < HEIGHT) & (left + patch > 0) & (top + patch > 0)
    )
    if not len(seen):
        return
    grid = F.affine_grid(theta[seen], [len(seen), 4, patch, patch], align_corners=False)
    still = torch.from_numpy(sprite).expand(len(seen), -1, -1, -1)
    drawn = F.grid_sample(still, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    drawn *= torch.from_numpy(_single(opacity[seen]))[:, None, None, None]
    drawn[:, :3] *= torch.from_numpy(_single(gain[seen]))[:, None, None, None]
    for one, n in zip(drawn, seen, strict=True):
        x0, y0 = int(left[n]), int(top[n])
        inside = one[:, max(-y0, 0) : HEIGHT - y0, max(-x0, 0) : WIDTH - x0]
        below = frames[n, :, max(y0, 0) : max(y0 + patch, 0), max(x0, 0) : max(x0 + patch, 0)]
        below.mul_(1 - inside[3]).add_(inside[:3])


def _stamp(frames: torch.Tensor, spray: _Spray, tail: int = 2) -> None:
    """Paint small soft discs; ``tail`` is how many pixels up and down they may reach."""
    x, y = spray.x, spray.y
    rows, columns = np.mgrid[-tail : tail + 1, -2:3].reshape(2, -1)
    at_x, at_y = np.round(x)[:, None] + columns, np.round(y)[:, None] + rows
    away = np.hypot(at_x - x[:, None], (at_y - y[:, None]) * 2 / tail)
    cover = (spray.radius[:, None] + 0.5 - away).clip(0, 1) * spray.cover[:, None]
    inside = (at_x >= 0) & (at_x < WIDTH) & (at_y >= 0) & (at_y < HEIGHT) & (cover > 0)
    total = np.zeros((FRAMES, HEIGHT, WIDTH), np.float32)
    frame = np.broadcast_to(spray.frame[:, None], inside.shape)[inside]
    np.maximum.at(total, (frame, at_y[inside].astype(int), at_x[inside].astype(int)), _single(cover[inside]))
    share = torch.from_numpy(total)[:, None]
    frames += share * (torch.from_numpy(spray.colour)[:, None, None] - frames)


def _rain(frames: torch.Tensor, k: Knobs, cue: Cue, rng: Rng) -> None:
    """Paint rain, snow or dust, as dense as its sound is loud."""
    most, speed = k.integer("most", 15, 60), k.uniform("speed", -10, 150)
    count = rng.poisson(most * cue.loudness.clip(0, 1))
    frame = np.repeat(np.arange(FRAMES), count).astype(np.int64)
    drop = np.concatenate([np.arange(n) for n in count])
    start, aside = rng.random((2, max(most * 4, 1)))[:, drop % (most * 4)]
    drift = k.uniform("wind", -30, 30) * frame / FPS
    x, y = (
        (aside * WIDTH + drift) % WIDTH - WIDTH / 2,
        (start * HEIGHT + speed * frame / FPS) % HEIGHT - HEIGHT / 2,
    )
    size = np.full(len(frame), k.uniform("size", 0.3, 1.2))
    colour = _rgb(0.6, 0.1, k.uniform("light", 0.6, 1))
    cover = np.full(len(frame), k.uniform("cover", 0.3, 0.9))
    spray = _Spray(frame, _single(x), _single(y), _single(size), _single(cover), colour)
    _stamp(frames, spray, tail=k.integer("tail", 2, 7) if speed > 50 else 2)


def _hide(frames: torch.Tensor, k: Knobs, camera: _Camera) -> None:
    """Paint what is nearer than all things: a fence, leaves, a hedge or a frame, often out of focus."""
    y, x = np.mgrid[:_TALL, :_WIDE].astype(np.float32)
    rng, low = k.seed("near"), k.uniform("low", 0.6, 0.85)
    rough = _noise(_TALL, _WIDE, 1.4, rng)
    kind = k.choice("near", ("hedge", "fence", "leaves", "sides"))
    if kind == "hedge":
        edge = y - _TALL * low + 6 * rough
    elif kind == "fence":
        edge = k.uniform("bar", 1, 4) - np.abs((x + rough) % k.uniform("gap", 18, 50) - 9)
    elif kind == "leaves":
        edge = 6 * (rough - k.uniform("sparse", 1.1, 1.8))
    else:
        edge = np.abs(x - _WIDE / 2) - _WIDE * k.uniform("open", 0.26, 0.33) + 2 * rough
    cover = _single((edge + 0.5).clip(0, 1))
    colour = _textured(k.child("skin"), _TALL, _WIDE) * k.uniform("shade", 0.2, 1)
    blur = k.choice("blur", (0.0, 1.0, 2.5))
    rgba = ndimage.gaussian_filter(_single(np.concatenate([colour * cover, cover[None]])), (0, blur, blur))
    grid = F.affine_grid(camera.theta(1.8), [FRAMES, 4, HEIGHT, WIDTH], align_corners=False)
    still = torch.from_numpy(rgba).expand(FRAMES, -1, -1, -1)
    drawn = F.grid_sample(still, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    frames.mul_(1 - drawn[:, 3:]).add_(drawn[:, :3])


def _expose(frames: torch.Tensor, k: Knobs, rng: Rng) -> npt.NDArray[np.uint8]:
    """Return what a sensor makes of the light: blur of motion, exposure, white balance, vignette, grain."""
    if k.chance("slow shutter", 0.15):
        frames[1:] = _mixed(frames[1:], frames[:-1], k.uniform("shutter", 0.25, 0.5))
    mean, deviation = float(frames.mean()), float(frames.std())
    contrast = k.uniform("contrast", 0.75, 1.3) * max(1.0, min(0.1 / (deviation + 1e-3), 3.0))
    gain = np.exp(0.06 * k.normal("white", 3) + k.uniform("gain", -0.3, 0.25))
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    vignette = 1 - k.choice("vignette", (0.0, 0.0, 0.1, 0.3)) * (x * x + y * y) / 2
    if k.chance("dappled", 0.12):  # light that falls through leaves or a window
        spots = _noise(HEIGHT, WIDTH, k.uniform("dapple", 1.2, 2.2), k.seed("dapples"))
        vignette = vignette * (
            1 - k.uniform("shade", 0.2, 0.6) / (1 + np.exp(k.uniform("sharp", 2, 12) * spots))
        )
    flicker = np.exp(
        k.choice("flicker", (0.0, 0.0, 0.0, 0.02, 0.12)) * _walk(rng, k.log("flicker pace", 1, 10))
    )
    frames.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 1)
    if k.chance("curved", 0.4):
        frames.pow_(k.log("gamma", 0.7, 1.5))
    frames *= torch.from_numpy(_single(255 * gain[:, None, None] * vignette))
    frames *= torch.from_numpy(_single(flicker))[:, None, None, None]
    if k.chance("grey", 0.04):
        frames[:] = frames.mean(dim=1, keepdim=True)
    # Each frame has its own part of one sheet of grain.
    sheet = rng.standard_normal((3, HEIGHT + 64, WIDTH + 64), dtype=np.float32) * np.float32(
        k.log("grain", 0.4, 8)
    )
    grain = torch.from_numpy(sheet)
    for frame, (down, across) in zip(frames, rng.integers(0, 64, size=(FRAMES, 2)), strict=True):
        frame += grain[:, down : down + HEIGHT, across : across + WIDTH]
    return np.ascontiguousarray(frames.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _mixed(one: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    return one + (other - one) * share
