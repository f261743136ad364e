"""The images of a generated clip: things that move with their sounds, before a background, seen by a camera.

A thing is an outline (:mod:`.forms`) with textures (:mod:`.textures`) that moves (:mod:`.motions`).

What a clip looks like depends on its knobs, how it moves on its cues and on a generator of random numbers, and
neither on anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage

from crisscross_zoo.demo.forms import AS_THEY_SOUND, FORMS, Form, box, oval
from crisscross_zoo.demo.knobs import Knobs
from crisscross_zoo.demo.motions import (
    FPS,
    FRAMES,
    HEIGHT,
    MOTIONS,
    WIDTH,
    Cue,
    Pose,
    come_and_go,
    frame_seconds,
    idle_cue,
    random_walk,
    roam,
)
from crisscross_zoo.demo.signals import Rng
from crisscross_zoo.demo.textures import (
    TALL,
    WIDE,
    Singles,
    draw_canvas,
    draw_palette,
    lerp,
    relief,
    single,
    sloped_noise,
    textured,
    to_rgb,
)


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
        _thing(thing, idle_cue(rng) if unrelated else cue, light, rng)
        for n, (thing, cue) in enumerate(heard)
        if not (unrelated and look.chance(f"unseen {n}", 0.4))
    ]
    for n in range(look.choice("silent", (0, 0, 1, 1, 2, 3))):
        things += [_thing(look.child(f"silent {n}"), idle_cue(rng), light, rng)]
    for thing in sorted(things, key=lambda thing: thing.depth):
        _show(frames, thing, camera)
    if look.chance("foreground", 0.2):
        _hide(frames, look.child("foreground"), camera)
    if cues and look.chance("weather", 0.12):
        _rain(frames, look.child("weather"), cues[look.integer("of", 0, 99) % len(cues)], rng)
    return _expose(frames, look.child("sensor"), rng)


# --- sprites: images of things, RGB times cover, and cover (4, side, side) -------------------------------------

_MARGIN = 1.25
"""Half a sprite's side, in radii of its thing."""


def _sprite(k: Knobs, forms: Sequence[Form], radius: float, light: float) -> Singles:
    """Return a thing of one of the forms, of this radius in pixels."""
    side = 2 * math.ceil(radius * _MARGIN) + 2
    y, x = np.mgrid[-_MARGIN : _MARGIN : side * 1j, -_MARGIN : _MARGIN : side * 1j].astype(np.float32)
    flip, lean, bend = k.choice("flip", (-1, 1)), k.uniform("lean", -0.25, 0.25), k.uniform("bend", -0.3, 0.3)
    x, y = flip * (x + lean * y + bend * y * y), y * k.log("tall", 0.8, 1.25)
    if k.chance("crooked", 0.4):
        rng, reach = k.seed("crooked"), k.log("crookedness", 0.02, 0.12)
        x, y = x + reach * sloped_noise(side, side, 2, rng), y + reach * sloped_noise(side, side, 2, rng)
    parts = k.choice("form", forms)(k.child("form"), x, y)
    sharp = radius / k.log("soft edge", 0.7, 2.0)
    colour, cover = np.zeros((3, side, side), np.float32), np.zeros((side, side), np.float32)
    height = np.zeros((side, side), np.float32)
    one_skin, palette = k.chance("one skin", 0.35), draw_palette(k.child("plain"))
    skin = textured(k.child("skin"), side, side)
    for n, edge in enumerate(parts):
        over = single((0.5 - edge * sharp).clip(0, 1))
        drawn = one_skin or k.chance(f"skin {n}", 0.4)
        ink = skin if drawn and n < 3 else palette[k.integer(f"ink {n}", 0, 4)][:, None, None]
        colour = lerp(colour, ink, over)
        height = lerp(height, 0.1 * n + np.sqrt((-edge).clip(0, 0.5)), over)
        cover = np.maximum(cover, over)
    line = k.choice("line", (0.0, 0.0, 0.0, 0.05, 0.1))
    if line:
        colour = colour * np.minimum.reduce([(np.abs(edge) / line).clip(0.15, 1) for edge in parts])
    roundness = k.choice("roundness", (0.0, 0.3, 0.6, 0.8))
    if roundness:
        height = ndimage.gaussian_filter(height, max(radius * 0.06, 0.6)) * radius * 0.5
        lit = relief(height, light, roundness)
        gloss = k.choice("gloss", (0.0, 0.0, 0.4)) * ((lit - 1) / roundness).clip(0, 1) ** 8
        colour = single(colour * lit + gloss)
    blur = k.choice("blur", (0.0, 0.0, 0.0, k.uniform("near", 0.4, 1.5)))
    opaque = k.choice("opaque", (1.0, 1.0, 1.0, k.uniform("clear", 0.5, 1)))
    rgba = np.concatenate([colour.clip(0, 1) * cover, cover[None]]) * opaque
    return single(ndimage.gaussian_filter(rgba, (0, blur, blur)) if blur else rgba)


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
    pose: Pose
    depth: float
    spray: _Spray | None


def _thing(k: Knobs, cue: Cue, light: float, rng: Rng) -> _Thing:
    """Return a thing that looks, mostly, like what makes its sound, and is the larger the lower it sounds."""
    forms = AS_THEY_SOUND.get(cue.kind, FORMS) if k.chance("as it sounds", 0.85) else FORMS
    radius = HEIGHT * k.uniform("size", *k.choice("sizes", ((0.3, 0.6), (0.4, 0.9), (0.5, 1.0)))) / 2
    radius *= 1.3 - 0.6 * float(np.median(cue.pitch))
    x, y = roam(k.child("roam"), rng)
    ones = np.ones(FRAMES, np.float32)
    pose = Pose(
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
        k.choice(f"motion {n}", MOTIONS)(pose, k.child(f"motion {n}"), cue, rng)
    if k.chance("comes and goes", 0.06):
        come_and_go(pose, k, cue, rng)
    shadow = None
    if k.chance("shaded", 0.35):
        far = radius * k.uniform("shadow far", 0.1, 0.5)
        shadow = (far * math.cos(light + math.pi), abs(far * math.sin(light)), k.uniform("shadow", 0.2, 0.6))
    mouth = _mouth(k.child("mouth"), radius * k.uniform("mouth", 0.2, 0.45)) if pose.gape.any() else None
    return _Thing(
        body=_sprite(k.child("body"), forms, radius, light),
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
        "shape", (oval(x, y, 0, 0, 1, 0.9), box(x, y, 0, 0, 0.9, 0.8, 0.3), np.abs(x) + np.abs(y) - 1)
    )
    palette = draw_palette(k) * k.choice("dark", (0.3, 0.3, 1.0))
    inner = single((0.5 - (edge + 0.3) * radius).clip(0, 1))
    cover = single((0.5 - edge * radius).clip(0, 1))
    colour = lerp(
        palette[0][:, None, None], palette[3][:, None, None], inner * k.choice("tongue", (0.0, 1.0))
    )
    return np.concatenate([colour * cover, cover[None]])


def _spray(k: Knobs, pose: Pose, cue: Cue, rng: Rng) -> _Spray:
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
    colour = draw_palette(k)[4]
    return _Spray(
        frame[seen], single(x[seen]), single(y[seen]), single(radius[seen]), single(cover[seen]), colour
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
        return single(WIDTH / 2 + c * x + s * y), single(HEIGHT / 2 + c * y - s * x)

    def theta(self, depth: float) -> torch.Tensor:
        """Return what :func:`affine_grid` takes for a canvas: (FRAMES, 2, 3)."""
        c, s = np.cos(self.turn) / self.zoom, np.sin(self.turn) / self.zoom
        across = np.stack([c * WIDTH / WIDE, -s * HEIGHT / WIDE, 2 * depth * self.x / WIDE], axis=-1)
        down = np.stack([s * WIDTH / TALL, c * HEIGHT / TALL, 2 * depth * self.y / TALL], axis=-1)
        return torch.from_numpy(single(np.stack([across, down], axis=1)))


def _camera(k: Knobs, rng: Rng) -> _Camera:
    """Return a camera that is still, or one that pans, zooms and turns, and trembles in a hand."""
    zero = np.zeros(FRAMES, np.float32)
    base_zoom, base_turn = k.log("zoom", 0.85, 1.4), k.normal("tilt", 1)[0] * 0.06
    if k.chance("still", 0.3):
        return _Camera(zero, zero, zero + base_zoom, zero + base_turn)
    t = single(np.linspace(-1, 1, FRAMES))
    paths = [
        rng.choice([-1, 1]) * t if k.chance(f"{name} is linear", 0.5) else random_walk(rng, 14)
        for name in ("x", "y", "zoom", "turn")
    ]
    pan, hand = k.choice("pan", (0.0, 4.0, 10.0, 20.0)), k.choice("hand", (0.0, 0.4, 1.0, 2.0))
    shake = [hand * random_walk(rng, 1.5) for _ in range(2)]
    return _Camera(
        x=single(pan * paths[0] + shake[0]),
        y=single(0.5 * pan * paths[1] + shake[1]),
        zoom=single(base_zoom * np.exp(k.choice("zooming", (0.0, 0.0, 0.1, 0.25)) * paths[2])),
        turn=single(base_turn + k.choice("turning", (0.0, 0.0, 0.05, 0.2)) * paths[3]),
    )


# --- painting ----------------------------------------------------------------------------------------------------


def _behind(k: Knobs, cues: Sequence[Cue], camera: _Camera) -> torch.Tensor:
    """Return the background in all frames, (FRAMES, 3, HEIGHT, WIDTH); a few ripple with the first cue."""
    grid = F.affine_grid(camera.theta(1.0), [FRAMES, 3, HEIGHT, WIDTH], align_corners=False)
    if cues and k.chance("rippling", 0.1):
        way, period = k.uniform("ripple way", 0, 2 * math.pi), k.log("ripple period", 0.15, 0.8)
        wave = (grid[0, ..., 0] * math.cos(way) + grid[0, ..., 1] * math.sin(way)) * 2 * math.pi / period
        time = torch.from_numpy(frame_seconds() * 2 * math.pi * k.uniform("ripple hertz", 0.5, 3))
        reach = torch.from_numpy(single(cues[0].loudness)) * k.uniform("ripple", 0.01, 0.05)
        grid = grid + (reach[:, None, None] * torch.sin(wave - time[:, None, None]))[..., None]
    still = torch.from_numpy(draw_canvas(k)).expand(FRAMES, -1, -1, -1)
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
    theta = torch.from_numpy(single(np.stack([across, down], axis=1)))
    seen = np.flatnonzero(
        (opacity > 0) & (left < WIDTH) & (top < HEIGHT) & (left + patch > 0) & (top + patch > 0)
    )
    if not len(seen):
        return
    grid = F.affine_grid(theta[seen], [len(seen), 4, patch, patch], align_corners=False)
    still = torch.from_numpy(sprite).expand(len(seen), -1, -1, -1)
    drawn = F.grid_sample(still, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    drawn *= torch.from_numpy(single(opacity[seen]))[:, None, None, None]
    drawn[:, :3] *= torch.from_numpy(single(gain[seen]))[:, None, None, None]
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
    np.maximum.at(total, (frame, at_y[inside].astype(int), at_x[inside].astype(int)), single(cover[inside]))
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
    colour = to_rgb(0.6, 0.1, k.uniform("light", 0.6, 1))
    cover = np.full(len(frame), k.uniform("cover", 0.3, 0.9))
    spray = _Spray(frame, single(x), single(y), single(size), single(cover), colour)
    _stamp(frames, spray, tail=k.integer("tail", 2, 7) if speed > 50 else 2)


def _hide(frames: torch.Tensor, k: Knobs, camera: _Camera) -> None:
    """Paint what is nearer than all things: a fence, leaves, a hedge or a frame, often out of focus."""
    y, x = np.mgrid[:TALL, :WIDE].astype(np.float32)
    rng, low = k.seed("near"), k.uniform("low", 0.6, 0.85)
    rough = sloped_noise(TALL, WIDE, 1.4, rng)
    kind = k.choice("near", ("hedge", "fence", "leaves", "sides"))
    if kind == "hedge":
        edge = y - TALL * low + 6 * rough
    elif kind == "fence":
        edge = k.uniform("bar", 1, 4) - np.abs((x + rough) % k.uniform("gap", 18, 50) - 9)
    elif kind == "leaves":
        edge = 6 * (rough - k.uniform("sparse", 1.1, 1.8))
    else:
        edge = np.abs(x - WIDE / 2) - WIDE * k.uniform("open", 0.26, 0.33) + 2 * rough
    cover = single((edge + 0.5).clip(0, 1))
    colour = textured(k.child("skin"), TALL, WIDE) * k.uniform("shade", 0.2, 1)
    blur = k.choice("blur", (0.0, 1.0, 2.5))
    rgba = ndimage.gaussian_filter(single(np.concatenate([colour * cover, cover[None]])), (0, blur, blur))
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
        spots = sloped_noise(HEIGHT, WIDTH, k.uniform("dapple", 1.2, 2.2), k.seed("dapples"))
        vignette = vignette * (
            1 - k.uniform("shade", 0.2, 0.6) / (1 + np.exp(k.uniform("sharp", 2, 12) * spots))
        )
    flicker = np.exp(
        k.choice("flicker", (0.0, 0.0, 0.0, 0.02, 0.12)) * random_walk(rng, k.log("flicker pace", 1, 10))
    )
    frames.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 1)
    if k.chance("curved", 0.4):
        frames.pow_(k.log("gamma", 0.7, 1.5))
    frames *= torch.from_numpy(single(255 * gain[:, None, None] * vignette))
    frames *= torch.from_numpy(single(flicker))[:, None, None, None]
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
