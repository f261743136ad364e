"""Outlines of things in a generated clip's images: their parts, the last on top."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy import ndimage

from crisscross_zoo.demo.knobs import Knobs
from crisscross_zoo.demo.textures import Singles, single

Form = Callable[[Knobs, Singles, Singles], list[Singles]]
"""Takes coordinates in radii of a thing, y down; gives each part's distance to its edge, below 0 inside."""


def oval(x: Singles, y: Singles, cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Singles:
    """Return the distance to an ellipse around (cx, cy), turned by this many radians."""
    c, s = math.cos(turn), math.sin(turn)
    x, y = x - cx, y - cy
    return single((np.hypot((c * x + s * y) / rx, (c * y - s * x) / ry) - 1) * min(rx, ry))


def _limb(x: Singles, y: Singles, x0: float, y0: float, x1: float, y1: float, radius: float) -> Singles:
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-6)).clip(0, 1)
    return single(np.hypot(x - x0 - along * dx, y - y0 - along * dy) - radius)


def box(x: Singles, y: Singles, cx: float, cy: float, rx: float, ry: float, soft: float = 0.05) -> Singles:
    """Return the distance to a rectangle around (cx, cy) with rounded corners."""
    dx, dy = np.abs(x - cx) - rx + soft, np.abs(y - cy) - ry + soft
    return single(np.hypot(dx.clip(0), dy.clip(0)) + np.minimum(np.maximum(dx, dy), 0) - soft)


def _joined(*parts: Singles) -> Singles:
    return single(np.minimum.reduce(parts))


def _blob(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a closed curve of Fourier descriptors, smooth to spiky."""
    angle, orders = np.arctan2(y, x), np.arange(1, 10)
    waves = k.normal("waves", 18).reshape(2, 9) * orders ** -k.uniform("smooth", 0.3, 2.2) * 0.13
    edge = np.hypot(x, y) - 0.65
    for order, a, b in zip(orders, *waves, strict=True):
        edge = edge - (a * np.cos(order * angle) + b * np.sin(order * angle)).clip(-0.25, 0.25)
    return [single(edge)]


def _polygon(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    corners = k.integer("corners", 3, 8)
    ways = (
        (np.arange(corners) + k.uniform("uneven", 0, 0.3) * k.normal("ways", corners)) * 2 * np.pi / corners
    )
    sides = [x * math.cos(way) + y * math.sin(way) - k.uniform("side", 0.45, 0.65) for way in ways]
    whole = single(np.maximum.reduce(sides))
    return [whole, single(whole + 0.2)] if k.chance("inner", 0.3) else [whole]


def _star(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a star, a flower or a gear, with or without a hub."""
    points, deep = k.integer("points", 4, 14), k.uniform("deep", 0.08, 0.3)
    wave = np.cos(points * np.arctan2(y, x))
    if k.chance("teeth", 0.4):
        wave = np.tanh(4 * wave)
    petals = single((np.hypot(x, y) - 0.65 - deep * wave) * 0.6)
    hub = oval(x, y, 0, 0, k.uniform("hub", 0.15, 0.4), 0.25)
    return [petals, hub] if k.chance("hubbed", 0.7) else [petals]


def _boxed(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a rounded box with buttons, panes or a dial on it."""
    rx, ry = k.uniform("wide", 0.3, 0.85), k.uniform("tall", 0.3, 0.75)
    parts, rng = [box(x, y, 0, 0, rx, ry, k.uniform("soft", 0.02, 0.3))], k.seed("marks")
    if k.chance("screen", 0.5):
        parts.append(box(x, y, rng.uniform(-0.2, 0.2) * rx, -0.1 * ry, rx * 0.65, ry * 0.6))
    places = rng.uniform(-0.7, 0.7, size=(k.integer("marks", 0, 4), 2)) * (rx, ry)
    return parts + [oval(x, y, *place, *rng.uniform(0.06, 0.25, size=2)) for place in places]


def _beast(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    long, leg, neck = k.uniform("long", 0.35, 0.6), k.uniform("leg", 0.2, 0.6), k.uniform("neck", 0.0, 0.5)
    thick, hx, hy = k.uniform("thick", 0.04, 0.1), long + 0.12, -0.25 - neck
    legs = [_limb(x, y, at * long, 0.1, at * long + lean, 0.15 + leg, thick) for at, lean in _STANCE]
    body = _joined(
        oval(x, y, 0, 0, long, k.uniform("fat", 0.2, 0.34)), _limb(x, y, long * 0.7, -0.1, hx, hy, 0.12)
    )
    tail = _limb(x, y, -long, -0.1, -long - 0.25, k.uniform("tail", -0.6, 0.2), thick * 0.8)
    head = _joined(
        oval(x, y, hx, hy, 0.2, 0.17), oval(x, y, hx + 0.15, hy + 0.05, k.uniform("snout", 0.05, 0.2), 0.09)
    )
    ear = oval(x, y, hx - 0.1, hy - 0.18, 0.07, k.uniform("ear", 0.06, 0.25), k.uniform("droop", -0.6, 0.9))
    return [_joined(*legs), tail, body, head, ear, oval(x, y, hx + 0.06, hy - 0.04, 0.035, 0.04)]


_STANCE = ((-0.8, -0.08), (-0.55, 0.05), (0.55, -0.05), (0.8, 0.08))
"""Of a beast's legs: where, in halves of its length, and how far the foot is off."""


def _bird(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    tilt, hx, hy = (
        k.uniform("tilt", -0.6, 0.2),
        k.uniform("head x", 0.3, 0.5),
        k.uniform("head y", -0.6, -0.25),
    )
    body = oval(x, y, 0, 0, 0.5, k.uniform("fat", 0.22, 0.36), tilt)
    tail = oval(x, y, -0.55, -0.3 * tilt, 0.35, 0.1, tilt)
    wing = oval(x, y, -0.1, -0.05, k.uniform("wing", 0.25, 0.45), 0.16, tilt + k.uniform("lift", -0.9, 0.5))
    legs = _joined(*(_limb(x, y, at, 0.2, at + 0.04, 0.65, 0.025) for at in (-0.08, 0.1)))
    beak = _limb(x, y, hx + 0.1, hy, hx + k.uniform("beak", 0.22, 0.45), hy + 0.06, 0.05)
    eye = oval(x, y, hx + 0.06, hy - 0.04, 0.035, 0.035)
    return [legs, tail, body, beak, oval(x, y, hx, hy, 0.2, 0.19), wing, eye]


def _fish(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    fat = k.uniform("fat", 0.2, 0.45)
    body = single(np.maximum(oval(x, y, 0.1, 0.4, 0.8, 0.4 + fat), oval(x, y, 0.1, -0.4, 0.8, 0.4 + fat)))
    tail = single(np.maximum(np.abs(y) + 0.9 * (x + 0.4), -(x + k.uniform("tail", 0.75, 0.95))))
    fin = oval(x, y, 0, -fat, 0.3, k.uniform("fin", 0.08, 0.25), 0.3)
    return [tail, fin, body, oval(x, y, 0.5, -0.06, 0.06, 0.06)]


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
    torso = box(x, y, 0, -0.08, k.uniform("wide", 0.14, 0.28), 0.34, 0.12)
    size = k.uniform("head", 0.13, 0.24)
    head = oval(x, y, 0, -0.45 - size, size * 0.85, size)
    hair = single(np.maximum(head - 0.02, y + 0.5 + size * k.uniform("hair", 0.6, 1.4)))
    return [legs, left, torso, right, head, hair]


def _vehicle(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    long, wheel = k.uniform("long", 0.5, 0.85), k.uniform("wheel", 0.12, 0.24)
    cabin, cx = k.uniform("cabin", 0.2, 0.5), k.uniform("cabin x", -0.3, 0.3)
    body = box(x, y, 0, 0.15, long, k.uniform("tall", 0.14, 0.28), 0.08)
    roof = box(x, y, cx, -0.12, cabin, k.uniform("roof", 0.15, 0.35), k.uniform("soft", 0.02, 0.2))
    panes = _joined(*(box(x, y, cx + way * cabin * 0.45, -0.15, cabin * 0.35, 0.12) for way in (-1, 1)))
    at = np.linspace(-0.65, 0.65, k.integer("wheels", 2, 4)) * long
    tyres = _joined(*(oval(x, y, float(place), 0.38, wheel, wheel) for place in at))
    return [roof, panes, body, tyres, single(tyres + wheel * 0.5)]


def _insect(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    side, spread = np.abs(x), k.uniform("spread", 0.2, 0.9)
    upper = oval(
        side, y, 0.4, -0.25, k.uniform("upper", 0.25, 0.45), k.uniform("upper wide", 0.1, 0.28), -spread
    )
    lower = oval(
        side, y, 0.35, 0.25, k.uniform("lower", 0.2, 0.35), k.uniform("lower wide", 0.1, 0.22), spread
    )
    spots = oval(side, y, 0.45, -0.25, k.uniform("spot", 0.06, 0.14), 0.09)
    feelers = _limb(side, y, 0.03, -0.5, k.uniform("feeler", 0.1, 0.4), -0.9, 0.02)
    body = _joined(oval(x, y, 0, 0.1, 0.09, 0.45), oval(x, y, 0, -0.42, 0.12, 0.12))
    legs = _joined(*(_limb(side, y, 0.0, at, 0.6, at * 2, 0.02) for at in (-0.15, 0.1, 0.3)))
    return [feelers, legs, body] if k.chance("wingless", 0.3) else [feelers, lower, upper, spots, body]


def _face(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    side, apart, eye = np.abs(x), k.uniform("apart", 0.18, 0.4), k.uniform("eye", 0.06, 0.17)
    head = oval(x, y, 0, 0, k.uniform("wide", 0.5, 0.8), k.uniform("tall", 0.55, 0.8))
    ears = oval(
        side,
        y,
        k.uniform("ear x", 0.3, 0.7),
        k.uniform("ear y", -0.7, 0.1),
        0.16,
        k.uniform("ear", 0.12, 0.3),
        0.4,
    )
    whites, pupils = (
        oval(side, y, apart, -0.15, eye, eye * 0.9),
        oval(side, y, apart, -0.14, eye * 0.5, eye * 0.5),
    )
    nose = oval(x, y, 0, 0.08, k.uniform("nose", 0.04, 0.15), k.uniform("long nose", 0.05, 0.16))
    mouth = oval(x, y, 0, 0.36, k.uniform("mouth", 0.1, 0.32), k.uniform("lips", 0.03, 0.12))
    hair = single(np.maximum(head - 0.03, y + k.uniform("hair", 0.2, 0.7)))
    return [ears, head, whites, pupils, nose, mouth] + ([hair] if k.chance("hairy", 0.5) else [])


def _leaf(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    bow = k.uniform("bow", 0.3, 1.2)
    blade = np.maximum(np.hypot(x, y + bow), np.hypot(x, y - bow)) - math.hypot(bow, 0.85)
    ribs = np.abs((x - np.abs(y) * 0.8) * k.integer("ribs", 3, 8) % 1 - 0.5) * 0.15 - 0.012
    vein = _joined(_limb(x, y, -0.95, 0, 0.8, 0, 0.025), single(np.maximum(ribs, blade + 0.06)))
    return [single(blade), vein]


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
    crown = [oval(x, y, tip[0], tip[1], *rng.uniform(0.12, 0.3, size=2)) for tip in tips[::2]]
    return [_joined(*limbs), _joined(*crown)] if k.chance("crown", 0.6) else [_joined(*limbs)]


def _holed(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return a lump with holes, or a ring."""
    if k.chance("ring", 0.4):
        return [
            single(np.abs(oval(x, y, 0, 0, 0.68, k.uniform("flat", 0.4, 0.68))) - k.uniform("rim", 0.06, 0.2))
        ]
    edge, rng = _blob(k, x, y)[0], k.seed("holes")
    holes = [
        oval(x, y, *rng.uniform(-0.45, 0.45, size=2), *rng.uniform(0.08, 0.25, size=2)) for _ in range(4)
    ]
    return [single(np.maximum(edge, -_joined(*holes)))]


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
    return [single(whole), single(band)]


def _strings(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return an instrument with a body, a neck and a hole, upright or aslant."""
    way = k.uniform("way", -1, 1)
    x, y = x * math.cos(way) + y * math.sin(way), y * math.cos(way) - x * math.sin(way)
    low, waist = k.uniform("low", 0.25, 0.42), k.uniform("high", 0.15, 0.32)
    body = _joined(oval(x, y, 0, 0.42, low, low), oval(x, y, 0, 0.05, waist, waist))
    neck, pegs = box(x, y, 0, -0.4, 0.05, 0.45), box(x, y, 0, -0.85, k.uniform("pegs", 0.06, 0.12), 0.1)
    return [body, oval(x, y, 0, 0.25, k.uniform("hole", 0.05, 0.13), 0.1), _joined(neck, pegs)]


def _heap(k: Knobs, x: Singles, y: Singles) -> list[Singles]:
    """Return balls in a heap or a row."""
    rng, flat = k.seed("heap"), k.uniform("flat", 0.3, 1)
    places = rng.uniform(-0.55, 0.55, size=(k.integer("count", 3, 8), 2)) * (1, flat)
    return [
        oval(x, y, *place, *(rng.uniform(0.15, 0.35) * rng.uniform(0.8, 1.2, size=2))) for place in places
    ]


FORMS: tuple[Form, ...] = (
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
"""Every kind of outline; some are drawn more often."""

AS_THEY_SOUND: Mapping[str, tuple[Form, ...]] = {
    "struck": (_holed, _boxed, _turned, _star),
    "plucked": (_strings, _strings, _turned),
    "drum": (_boxed, _turned, _heap),
    "burst": (_star, _boxed, _heap),
    "blown": (_turned, _strings, _holed),
    "chord": (_strings, _boxed),
    "modulated": (_glyph, _star, _polygon),
    "call": (_beast,),
    "syllable": (_figure, _face),
    "chirp": (_bird,),
    "laugh": (_face, _figure),
    "whoosh": (_fish, _leaf, _polygon),
    "squeak": (_beast, _blob),
    "crumple": (_heap, _leaf),
    "beep": (_boxed, _glyph),
    "engine": (_vehicle,),
    "hum": (_boxed, _vehicle, _holed),
    "ticking": (_holed, _turned),
    "wind": (_tree, _leaf),
    "grains": (_tree, _heap, _leaf),
    "bubbles": (_fish, _blob),
    "insects": (_insect,),
    "crowd": (_figure, _face),
}
"""Outlines of what mostly makes a kind of sound: birds chirp, vehicles hum."""
