"""Textures and backgrounds of a generated clip's images, drawn out of many families.

They have the statistics of natural images: amplitudes that fall with frequency, things that hide others at all sizes,
more variation of lightness than of hue. The families are chosen for variety, not for realism.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage, spatial

from crisscross_zoo.demo.knobs import Knobs
from crisscross_zoo.demo.signals import Rng

TALL, WIDE = 120, 168
"""Size of the canvas, of which the camera shows a part, in pixels."""

Singles = npt.NDArray[np.float32]


# --- helpers -----------------------------------------------------------------------------------------------------


def single(array: npt.NDArray[np.floating]) -> Singles:
    """Return an array as float32."""
    return array.astype(np.float32)


def _standard(field: Singles) -> Singles:
    """Bring a field to mean 0 and deviation 1."""
    return single((field - field.mean()) / (field.std() + 1e-6))


def _unit(field: Singles) -> Singles:
    """Bring a field into [0, 1], most of it well inside."""
    return single((0.5 + 0.25 * _standard(field)).clip(0, 1))


def sloped_noise(h: int, w: int, slope: float, rng: Rng, way: float = 0.0, stretch: float = 1.0) -> Singles:
    """Return noise (h, w) whose amplitude falls as frequency ** -slope, drawn out along ``way``; deviation 1."""
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    along, across = math.cos(way) * fx + math.sin(way) * fy, math.cos(way) * fy - math.sin(way) * fx
    frequency = np.hypot(along * stretch, across / stretch).clip(1 / max(h, w))
    parts = rng.standard_normal((2, *frequency.shape), dtype=np.float32)
    spectrum = (parts[0] + 1j * parts[1]) * single(frequency**-slope)
    spectrum[0, 0] = 0
    return _standard(single(fft.irfft2(spectrum, (h, w))))


def lerp(a: Singles, b: Singles | float, share: Singles | float) -> Singles:
    """Return a mixture, from ``a`` (share 0) to ``b`` (share 1)."""
    return single(a + (b - a) * share)


# --- colours -----------------------------------------------------------------------------------------------------


def to_rgb(hue: Singles | float, saturation: Singles | float, lightness: Singles | float) -> Singles:
    """Return RGB (..., 3) in [0, 1]; saturated colours keep their lightness."""
    hue, saturation, lightness = np.asarray(hue), np.asarray(saturation), np.asarray(lightness)
    turn = 2 * np.pi * (hue[..., None] - np.array([0, 1 / 3, 2 / 3], np.float32))
    vivid = 0.5 + 0.5 * np.cos(turn)
    vivid = vivid - vivid @ np.array([[0.3], [0.59], [0.11]], np.float32)
    room = 2 * np.minimum(lightness, 1 - lightness)[..., None] ** 0.7
    return single((lightness[..., None] + saturation[..., None] * room * vivid).clip(0, 1))


_HUES = ((0.02, 0.14), (0.02, 0.14), (0.18, 0.4), (0.52, 0.66), (0.0, 1.0), (0.0, 1.0))
"""Of palettes, in turns from red: earth and skin, leaves, sky and water, any."""


def draw_palette(k: Knobs) -> Singles:
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
    return to_rgb(single(hue), single(saturation), single(lightness.clip(0.03, 0.97)))


def _ink(field: Singles, palette: Singles) -> Singles:
    """Return colours (3, h, w) of a field in [0, 1], in between those of the palette."""
    knots = np.linspace(0, 1, len(palette))
    table = np.stack([np.interp(np.linspace(0, 1, 256), knots, channel) for channel in palette.T])
    return single(table)[:, (field * 255).clip(0, 255).astype(np.uint8)]


def relief(height: Singles, light: float, strength: float) -> Singles:
    """Return the brightness (h, w) about 1 of a surface that is lit from ``light``, radians."""
    dy, dx = np.gradient(height)
    slope = math.cos(light) * dx + math.sin(light) * dy
    return single((1 + strength * slope / np.sqrt(0.3 + slope**2)).clip(0.2, 2))


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
        u, v = u + bend * sloped_noise(h, w, 2.0, rng), v + bend * sloped_noise(h, w, 2.0, rng)
    return u + 50, v + 50


def _spectral(k: Knobs, h: int, w: int) -> Singles:
    return _unit(sloped_noise(h, w, k.uniform("slope", 0.6, 2.0), k.seed("noise")))


def _fibres(k: Knobs, h: int, w: int) -> Singles:
    way, stretch = k.uniform("way", 0, math.pi), k.uniform("stretch", 1.5, 4)
    return _unit(sloped_noise(h, w, k.uniform("slope", 0.8, 1.6), k.seed("noise"), way, stretch))


def _warped(k: Knobs, h: int, w: int) -> Singles:
    rng, reach = k.seed("warp"), h * k.log("reach", 0.05, 0.4)
    base = sloped_noise(h, w, k.uniform("slope", 1.0, 1.8), rng)
    places = np.mgrid[:h, :w].astype(np.float32)
    places += reach * np.stack([sloped_noise(h, w, 1.8, rng), sloped_noise(h, w, 1.8, rng)])
    return _unit(ndimage.map_coordinates(base, places, order=1, mode="grid-wrap"))


def _ridges(k: Knobs, h: int, w: int) -> Singles:
    field = -np.abs(sloped_noise(h, w, k.uniform("slope", 1.0, 2.0), k.seed("noise")))
    return _unit(-field if k.chance("valleys", 0.5) else field)


def _bursts(k: Knobs, h: int, w: int) -> Singles:
    """Return noise with the heavy tails of wavelet coefficients: busy here, calm there."""
    rng = k.seed("bursts")
    busy = np.exp(k.uniform("tails", 0.4, 1.2) * sloped_noise(h, w, 1.5, rng))
    fine = sum((_band(h, w, h / 2**n, rng) * 0.6**n for n in range(2, 6)), np.zeros((h, w), np.float32))
    return _unit(single(busy * fine))


def _band(h: int, w: int, period: float, rng: Rng) -> Singles:
    """Return noise of about one period, in pixels."""
    white = rng.standard_normal((h, w), dtype=np.float32)
    sigma = max(period / 6, 0.4)
    fine: Singles = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=2.5)
    return _standard(fine - ndimage.gaussian_filter(fine, sigma * 1.3, mode="wrap", truncate=2.5))


def _camouflage(k: Knobs, h: int, w: int) -> Singles:
    levels = k.integer("levels", 2, 6)
    field = _unit(sloped_noise(h, w, k.uniform("slope", 1.2, 2.2), k.seed("noise")))
    return single(np.floor(field * levels * 0.999) / max(levels - 1, 1))


def _contours(k: Knobs, h: int, w: int) -> Singles:
    field = sloped_noise(h, w, k.uniform("slope", 1.6, 2.4), k.seed("noise")) * k.uniform("count", 1.5, 5)
    return single(0.5 + 0.5 * np.sin(2 * np.pi * field))


def _stripes(k: Knobs, h: int, w: int) -> Singles:
    u, _ = _plane(k, h, w)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * u)
    sharp = k.choice("sharpness", (0.0, 4.0, 12.0))
    if sharp:
        wave = 1 / (1 + np.exp(-sharp * (wave - k.uniform("duty", 0.2, 0.8))))
    tones = k.seed("tones").random(997, dtype=np.float32)[np.floor(u).astype(int) % 997]
    return single(lerp(single(wave), tones, k.choice("tones", (0.0, 0.3, 0.8))))


def _rings(k: Knobs, h: int, w: int) -> Singles:
    u, v = _plane(k, h, w)
    centre = k.seed("centre").uniform(-0.3, 1.3, size=2)
    radius = np.hypot(u - _at(u, centre[0]), (v - _at(v, centre[1])) * k.log("flat", 1, 4))
    return single(0.5 + 0.5 * np.sin(2 * np.pi * radius))


def _at(field: Singles, share: float) -> float:
    return float(field.min() + share * np.ptp(field))


def _tiles(k: Knobs, h: int, w: int) -> Singles:
    """Return bricks, tiles, planks or a checkerboard."""
    u, v = _plane(k, h, w)
    rng = k.seed("tiles")
    row = np.floor(v).astype(int)
    shift = np.where(row % 2, 0.5, rng.random(997)[row % 997])
    u = single(u / k.log("aspect", 1, 4) + k.choice("bond", (0.0, 0.5, 1.0)) * shift)
    column = np.floor(u).astype(int)
    tone = rng.random((97, 89), dtype=np.float32)[row % 97, column % 89]
    checks = ((row + column) % 2).astype(np.float32)
    field = lerp(tone, checks, k.choice("checks", (0.0, 0.2, 0.5, 0.9)))
    joint = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) < k.uniform("joint", 0.0, 0.12)
    return single(np.where(joint, k.choice("grout", (0.0, 1.0, 0.5)), 0.15 + 0.7 * field))


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
        return single(0.1 + 0.8 * tone)
    if kind == "borders":
        return single(np.where(gap < 0.15, 0.0, 0.5 + 0.4 * tone))
    if kind == "domes":
        return single((1 - away[..., 0]).clip(0, 1))
    size = k.uniform("size", 0.15, 0.4) * (0.6 + 0.8 * tone)
    return single((0.5 + (size - away[..., 0]) * 8).clip(0, 1))


def _marble(k: Knobs, h: int, w: int) -> Singles:
    u, _ = _plane(k, h, w)
    return single(
        0.5 + 0.5 * np.sin(2 * u + k.uniform("veins", 1, 5) * sloped_noise(h, w, 1.5, k.seed("veins")))
    )


def _weave(k: Knobs, h: int, w: int) -> Singles:
    u, v = _plane(k, h, w)
    over = (np.floor(u) + np.floor(v)) % 2
    thread = np.where(over > 0, np.sin(np.pi * (u % 1)), np.sin(np.pi * (v % 1)))
    return single(thread * (0.7 + 0.3 * over))


def _slope(k: Knobs, h: int, w: int) -> Singles:
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    way = k.uniform("way", 0, 2 * math.pi)
    ramp = x * math.cos(way) + y * math.sin(way)
    if k.chance("round", 0.4):
        ramp = np.hypot(x - 0.6 * math.cos(way), y - 0.6 * math.sin(way)) - 1
    return single((0.5 + 0.4 * ramp).clip(0, 1))


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


def textured(k: Knobs, h: int, w: int) -> Singles:
    """Return one texture in the colours of a palette."""
    field = k.choice("field", _FIELDS)(k.child("field"), h, w)
    rough = sloped_noise(h, w, k.uniform("slope", 0.7, 1.5), k.seed("rough"))
    field = field + k.choice("rough", (0.02, 0.06, 0.15)) * rough
    image = _ink(single(field.clip(0, 1)), draw_palette(k))
    if k.chance("relief", 0.4):
        height = ndimage.gaussian_filter(field, 0.7) * k.uniform("height", 2, 8)
        image = image * relief(height, k.uniform("light", 0, 2 * math.pi), 0.4)
    tints = k.choice("tints", (0.0, 0.02, 0.06))
    if tints:  # hues vary apart from lightness, and more slowly
        tint, way = sloped_noise(h, w, 1.6, k.seed("tint")), k.normal("tint", 3)
        image = image + tints * single(way - way.mean())[:, None, None] * tint
    return single(image.clip(0, 1))


def _plain(k: Knobs, h: int, w: int) -> Singles:
    lightness = k.choice("paper", (0.97, 0.9, 0.5, k.uniform("lightness", 0.05, 0.9)))
    colour = to_rgb(k.uniform("hue", 0, 1), k.choice("vivid", (0.0, 0.3, 1.0)), lightness)
    uneven = 1 + k.choice("uneven", (0.01, 0.05, 0.15)) * _slope(k, h, w)
    return single((colour.reshape(3, 1, 1) * uneven).clip(0, 1))


def _leaves(k: Knobs, h: int, w: int) -> Singles:
    """Return dead leaves: shapes of power-law sizes that hide those below."""
    rng, palette = k.seed("leaves"), draw_palette(k)
    image = textured(k.child("below"), h, w)
    skin = (
        textured(k.child("skin"), h, w) - 0.5 if k.chance("skins", 0.6) else np.zeros((3, h, w), np.float32)
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
        colour = lerp(palette[rng.integers(5)], palette[rng.integers(5)], rng.random())[:, None, None]
        lit = 1 + shading * (rng.uniform(-0.6, 0.6) + (c * y - s * x) / radius)
        part += single(cover * ((colour + 0.7 * skin[(slice(None), *here)]) * lit - part))
    return image.clip(0, 1)


def _bokeh(k: Knobs, h: int, w: int) -> Singles:
    """Return lights and things far out of focus."""
    rng, palette = k.seed("bokeh"), draw_palette(k)
    image = ndimage.gaussian_filter(textured(k.child("below"), h, w), (0, 6, 6)) * k.uniform("dim", 0.3, 1)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    radius = h * k.log("radius", 0.02, 0.12)
    for _ in range(k.integer("count", 8, 40)):
        away = np.hypot(y - rng.uniform(0, h), x - rng.uniform(0, w))
        cover = ((radius * rng.uniform(0.7, 1.2) - away) * 0.7).clip(0, 1) * rng.uniform(0.1, 0.6)
        image = image + single(cover * palette[rng.integers(1, 5)][:, None, None])
    return single(image.clip(0, 1))


def _landscape(k: Knobs, h: int, w: int) -> Singles:
    """Return a sky, rows of silhouettes that pale with distance, and ground in perspective."""
    rng, horizon = k.seed("land"), h * k.uniform("horizon", 0.25, 0.7)
    sky = k.choice("sky", (_sky, _sky, _sky, textured))(k.child("sky"), h, w)
    ground = textured(k.child("ground"), 128, 128)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    depth = h * k.uniform("camera height", 0.15, 0.5) / (y - horizon).clip(1)
    places = np.stack([128 * depth * 1.5, (x - w / 2) * depth * 128 / h]) * k.uniform("tiling", 0.4, 1.2)
    seen = np.stack(
        [ndimage.map_coordinates(channel, places, order=1, mode="grid-wrap") for channel in ground]
    )
    haze = sky[:, int(horizon)].mean(axis=1)[:, None, None]
    far = (1 / (1 + np.exp(2 - depth))).clip(0, 1)
    seen = lerp(seen, lerp(ground.mean(axis=(1, 2))[:, None, None], haze, 0.5), single(far))
    image = np.where(y < horizon, sky, seen)
    colour = draw_palette(k)
    for row in range(k.integer("rows", 0, 3)):
        near = (row + 1) / 4
        skyline = horizon + h * (0.02 - k.uniform("tall", 0.02, 0.2) * np.abs(_skyline(k, w, rng)))
        shade = lerp(haze[:, 0, 0], colour[rng.integers(3)], 0.3 + 0.7 * near)[:, None, None]
        image = lerp(image, shade, single(((y - skyline).clip(0, 1)) * (y < horizon + h * 0.04 * row + 1)))
    return single(image.clip(0, 1))


def _skyline(k: Knobs, w: int, rng: Rng) -> Singles:
    """Return heights (w,) about 1 of hills, roofs or trees."""
    kind = k.choice("skyline", ("hills", "roofs", "trees"))
    if kind == "roofs":
        return single(np.repeat(rng.uniform(0.2, 1.5, size=w), rng.integers(5, 20, size=w))[:w])
    path = ndimage.gaussian_filter1d(rng.standard_normal(w), 12.0 if kind == "hills" else 1.5, mode="wrap")
    return _standard(single(path))


def _sky(k: Knobs, h: int, w: int) -> Singles:
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None] * np.ones((1, w), np.float32)
    top, bottom = k.uniform("top", 0.1, 0.7), k.uniform("bottom", 0.5, 0.97)
    hue = k.choice("hue", (0.58, 0.6, 0.55, k.uniform("odd hue", 0, 1)))
    evening = k.choice("evening", (0.0, 0.0, 0.45))
    sky = to_rgb(
        hue + evening * y**2, k.uniform("saturation", 0, 0.8), lerp(top * np.ones_like(y), bottom, y)
    )
    clouds = (
        sloped_noise(h, w, 1.4, k.seed("clouds"), 0.0, 1.5) * 0.5 + k.uniform("clouds", -0.8, 0.6)
    ).clip(0, 1)
    return single(
        lerp(sky.transpose(2, 0, 1), k.uniform("white", 0.5, 1) * np.ones((1, h, w), np.float32), clouds)
    )


def _room(k: Knobs, h: int, w: int) -> Singles:
    """Return a wall and a floor, and boards or windows on the wall."""
    rng, palette = k.seed("room"), draw_palette(k)
    image = lerp(textured(k.child("wall"), h, w), palette[2][:, None, None], k.uniform("calm", 0.3, 0.95))
    board = textured(k.child("board"), h, w)
    for _ in range(k.integer("boxes", 0, 7)):
        top, left = rng.integers(0, h * 3 // 4), rng.integers(0, w - 8)
        tall, wide = rng.integers(6, h // 2), rng.integers(6, w // 3)
        box = (slice(None), slice(top, top + tall), slice(left, left + wide))
        image[box] = palette[rng.integers(5)][:, None, None] * rng.uniform(0.5, 1)
        inner = (slice(None), slice(top + 2, top + tall - 2), slice(left + 2, left + wide - 2))
        image[inner] = lerp(image[inner], board[inner], 0.7)
    floor = int(h * k.uniform("floor", 0.55, 0.9))
    boards = k.child("floor")
    image[:, floor:] = textured(boards, h - floor, w) * k.uniform("floor shade", 0.5, 1)
    image[:, floor : floor + 2] *= 0.6
    return image.clip(0, 1)


def _patchwork(k: Knobs, h: int, w: int) -> Singles:
    """Return two canvases, one where a mask is and the other elsewhere."""
    mask = k.choice("mask", (_camouflage, _spectral, _slope, _stripes, _cells))(k.child("mask"), h, w)
    sharp = k.choice("edge", (3.0, 30.0))
    share = single(((mask - k.uniform("share", 0.35, 0.65)) * sharp + 0.5).clip(0, 1))
    one, other = (k.choice(name, _SIMPLE)(k.child(name), h, w) for name in ("one", "other"))
    return lerp(one, other, share)


_SIMPLE: tuple[Canvas, ...] = (textured, textured, _leaves, _sky)
_CANVASES: tuple[Canvas, ...] = (
    *(textured, textured, textured, textured, _plain, _plain),
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


def draw_canvas(k: Knobs) -> Singles:
    """Return the background's image, under uneven light, and in focus or not."""
    image = k.choice("canvas", _CANVASES)(k.child("canvas"), TALL, WIDE)
    uneven = sloped_noise(TALL, WIDE, 2.2, k.seed("light"))
    image = image * np.exp(k.choice("uneven", (0.0, 0.1, 0.25)) * uneven)
    blur = k.choice("blur", (0.0, 0.0, 0.5, k.log("far", 0.7, 3.0)))
    return single(ndimage.gaussian_filter(image, (0, blur, blur)).clip(0, 1) if blur else image.clip(0, 1))
