"""Augmented views of video for training (section D.1, Table S1).

One draw serves all frames of a clip. Order: random resized crop, flip, colour jitter, grey, blur, normalise,
cutout. The crop is cut out before it is resized (uint8, bilinear with antialias, as in
:mod:`crisscross_zoo.transforms.frames`); from there on pixels are float32, grey levels in [0, 255], planar
(C, T, H, W), and nothing is rounded to integer levels, unlike in Pillow, which rounds after every step.

Drawing and applying are separate: :func:`draw_choices` turns a NumPy generator into :class:`VideoChoices` without
access to pixels, and :func:`apply_choices` is a pure function of frames and choices. Its result does not depend on
the number of threads: the resize is in integers; the steps are elementwise products, sums and quotients, each
rounded once, whichever thread makes them; the means sum single rows in float32 (no row is shared between threads)
and the few row sums in float64 in NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.transforms.augment import VideoAugment
from crisscross_zoo.transforms.frames import _as_frames

CROP_TRIES = 10
"""Draws of a crop before the central crop is taken, as in torchvision's ``RandomResizedCrop``."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey level (ITU-R BT.601)."""

LEAST_TAP = 2.0**-18
"""Taps of the blur below this fraction of the sum are dropped: 0.01 grey levels in total."""

BLOCK_PIXELS = 2**17
"""Pixels processed at a time, so that they stay in the processor's cache; results do not depend on it."""


@dataclass(frozen=True, kw_only=True)
class VideoChoices:
    """One draw: what happens to every frame of a clip.

    Attributes:
        crop: Top, left, height and width of the crop in pixels of the frame.
        flip: Whether left and right are swapped.
        jitter: Brightness, contrast, saturation (factors) and hue (fraction of a turn) in the order of application.
        grey: Whether the clip becomes grey.
        blur: Horizontal and vertical sigma in pixels, or None.
        cutout: Top, bottom, left and right of the cutout in pixels of the view, half-open; may be empty.
    """

    crop: tuple[int, int, int, int]
    flip: bool
    jitter: tuple[tuple[str, float], ...]
    grey: bool
    blur: tuple[float, float] | None
    cutout: tuple[int, int, int, int]


def augment_video(
    frames: np.ndarray, augment: VideoAugment, *, config: VideoConfig, rng: np.random.Generator
) -> Tensor:
    """Return one augmented view of a clip (section D.1, Table S1).

    Args:
        frames: RGB, uint8, (T, H, W, 3), of any T, H and W.
        augment: What to do, see :data:`VIDEO_AUGMENTS`.
        config: Provides ``size``, ``mean`` and ``std``; the paper pretrains at size 112.
        rng: The only source of randomness; the same state gives the same view.

    Returns:
        (3, T, size, size), float32, normalised by ``mean`` and ``std``, contiguous.

    Raises:
        InputError: ``frames`` is not a uint8 array of this form.
    """
    images = _as_frames(frames, "(T, H, W, 3)", least_dims=4, most_dims=4)
    height, width = images.shape[1:3]
    choices = draw_choices(augment, height=height, width=width, size=config.size, rng=rng)
    return _apply(images, choices, config, released=augment.released)


def apply_choices(
    frames: np.ndarray, choices: VideoChoices, *, config: VideoConfig, released: bool = False
) -> Tensor:
    """Return the view that ``choices`` describe, in the form of :func:`augment_video`.

    Args:
        frames: RGB, uint8, (T, H, W, 3).
        choices: From :func:`draw_choices` for this height, width and ``config.size``.
        config: Provides ``size``, ``mean`` and ``std``.
        released: Blur and cutout as in the released code, see :class:`VideoAugment`.

    Raises:
        InputError: ``frames`` is not a uint8 array of this form.
    """
    images = _as_frames(frames, "(T, H, W, 3)", least_dims=4, most_dims=4)
    return _apply(images, choices, config, released=released)


# --- drawing -----------------------------------------------------------------------------------------------------


def draw_choices(
    augment: VideoAugment, *, height: int, width: int, size: int, rng: np.random.Generator
) -> VideoChoices:
    """Draw the choices of one view, ``size`` pixels wide and high, of frames of ``height`` x ``width`` pixels.

    A step that is off draws its random numbers all the same, so that switching it off does not change the others.
    """
    crop = draw_crop(augment, height=height, width=width, rng=rng)
    flip = bool(rng.random() < augment.flip)
    jitter = draw_jitter(augment, rng=rng)
    grey = bool(rng.random() < augment.grey)
    blur = draw_blur(augment, rng=rng)
    cutout = draw_cutout(augment, size=size, rng=rng)
    return VideoChoices(crop=crop, flip=flip, jitter=jitter, grey=grey, blur=blur, cutout=cutout)


def draw_crop(
    augment: VideoAugment, *, height: int, width: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a crop: top, left, height and width in pixels.

    Area is uniform and width / height log-uniform; a crop that does not fit is drawn again, up to 10 times in total.
    After that the crop is the largest central one with an aspect in range.
    """
    low, high = augment.aspect
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*augment.area)
        aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    h, w = height, width
    if width < low * height:
        h = min(height, max(1, round(width / low)))
    elif width > high * height:
        w = min(width, max(1, round(height * high)))
    return (height - h) // 2, (width - w) // 2, h, w


def draw_jitter(augment: VideoAugment, *, rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
    """Draw the three factors and the turn of the hue, in random order."""
    drawn = [
        (name, rng.uniform(max(0.0, 1 - reach), 1 + reach))
        for name, reach in (
            ("brightness", augment.brightness),
            ("contrast", augment.contrast),
            ("saturation", augment.saturation),
        )
    ]
    drawn.append(("hue", rng.uniform(-augment.hue, augment.hue)))
    return tuple(drawn[n] for n in rng.permutation(len(drawn)))


def draw_blur(augment: VideoAugment, *, rng: np.random.Generator) -> tuple[float, float] | None:
    """Draw whether to blur, and the horizontal and vertical sigma in pixels; they differ in the released code only."""
    chosen, sigma = rng.random() < augment.blur, rng.uniform(*augment.blur_sigma)
    if not chosen:
        return None
    return augment.blur_sigma if augment.released else (sigma, sigma)


def draw_cutout(augment: VideoAugment, *, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw the cutout: top, bottom, left and right in pixels, half-open.

    A nominal side of n in 1 ... ``cutout`` makes a square of 2 (n // 2) pixels, so 1 makes none. Its centre is
    anywhere in the view, and the part beyond the border is cut off.
    """
    half = int(rng.integers(1, augment.cutout + 1)) // 2 if augment.cutout else 0
    y, x = (int(c) for c in rng.integers(size, size=2))
    return max(0, y - half), min(size, y + half), max(0, x - half), min(size, x + half)


# --- applying ----------------------------------------------------------------------------------------------------


def _apply(images: Tensor, choices: VideoChoices, config: VideoConfig, *, released: bool) -> Tensor:
    """Turn (T, H, W, 3) uint8 into (3, T, size, size) float32."""
    size = config.size
    mean, std = (
        torch.tensor(v, dtype=torch.float32).mul_(255)[:, None, None, None] for v in (config.mean, config.std)
    )
    view = torch.empty(3, len(images), size, size, dtype=torch.float32)
    frames = max(1, BLOCK_PIXELS // size**2)
    for block, target in zip(torch.split(images, frames), torch.split(view, frames, dim=1), strict=True):
        clip = _crop(block, choices.crop, size)
        if choices.flip:
            clip = clip.flip(-1)
        # one copy: uint8 to float32, channels last to planar
        clip = clip.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        for name, amount in choices.jitter:
            _JITTER[name](clip, amount)
        if choices.grey:
            clip = _luma(clip)  # (1, T, size, size): three equal channels need not be blurred thrice
        if choices.blur is not None:
            clip = _blur(clip, *choices.blur, radius=size // 20, whole_levels=released)
        torch.sub(clip, mean, out=target).div_(std)
    _cutout(view, choices.cutout, multiply=released)
    return view


def _crop(images: Tensor, crop: tuple[int, int, int, int], size: int) -> Tensor:
    """Turn (T, H, W, 3) into (T, 3, size, size), uint8, channels last in memory."""
    top, left, height, width = crop
    cut = images[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    return F.interpolate(cut, (size, size), mode="bilinear", antialias=True)


def _brightness(clip: Tensor, factor: float) -> None:
    if factor != 1:
        clip.mul_(factor).clamp_(0, 255)


def _contrast(clip: Tensor, factor: float) -> None:
    """Move pixels away from the mean grey level of each frame, or towards it."""
    if factor != 1:
        red, green, blue = _row_means(clip).mean(axis=-1)
        greys = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        offsets = torch.from_numpy(((1 - factor) * greys).astype(np.float32))
        clip.mul_(factor).add_(offsets[:, None, None]).clamp_(0, 255)


def _saturation(clip: Tensor, factor: float) -> None:
    """Move channels away from the grey level of each pixel, or towards it."""
    if factor != 1:
        grey = _luma(clip).mul_(1 - factor)
        clip.mul_(factor).add_(grey).clamp_(0, 255)


def _hue(clip: Tensor, turn: float) -> None:
    """Turn the hue of HSV; the largest and the smallest of the three channels keep their values.

    With the hue counted in sixths of a turn, a channel is ``least + chroma * ramp``. The ramp is 1 within one sixth
    of the channel's own hue (red 0 and 6, green 2, blue 4), 0 from two sixths on, and straight between.
    """
    if turn == 0:
        return
    red, green, blue = clip
    # The hue without branches: sort green and blue, then red and the larger of them, and record the swaps.
    large, small = torch.maximum(green, blue), torch.minimum(green, blue)
    start = green.lt_(blue).mul_(-6)
    swapped = torch.lt(red, large, out=blue)
    start.sub_((start + 1).mul_(2).mul_(swapped))
    middle = torch.minimum(red, large, out=swapped)
    most = torch.maximum(red, large, out=large)
    rise = middle - small
    least = torch.minimum(middle, small, out=small)
    chroma = most.sub_(least)
    hue = rise.div_(chroma.clamp_min(1e-6)).add_(start).abs_()
    hue.add_((turn % 1) * 6)
    hue.sub_(hue.div(6).floor_().mul_(6))
    torch.sub(hue, 3, out=red).abs_().sub_(1)
    torch.sub(hue, 2, out=green).abs_().neg_().add_(2)
    torch.sub(hue, 4, out=blue).abs_().neg_().add_(2)
    clip.clamp_(0, 1).mul_(chroma).add_(least)


_JITTER = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}


def _luma(clip: Tensor) -> Tensor:
    """Return the grey levels of (3, T, H, W) as (1, T, H, W)."""
    grey = clip[0] * LUMA[0]
    for channel, weight in zip(clip[1:], LUMA[1:], strict=True):
        grey.add_(channel * weight)
    return grey[None]


def _blur(clip: Tensor, horizontal: float, vertical: float, *, radius: int, whole_levels: bool) -> Tensor:
    """Blur with a Gaussian kernel of ``2 * radius + 1`` pixels and mirrored borders, edge pixel not repeated."""
    if whole_levels:
        clip = clip.round()
    for sigma, dim in ((vertical, -2), (horizontal, -1)):
        clip = _blur_along(clip, _taps(sigma, radius), dim)
    return clip.floor_() if whole_levels else clip


def _taps(sigma: float, radius: int) -> list[float]:
    """Return one half of a Gaussian kernel of sum 1, middle first, without taps below :data:`LEAST_TAP`."""
    half = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    half /= half[0] + 2 * half[1:].sum()
    half = half[half >= LEAST_TAP]
    return [float(tap) for tap in half / (half[0] + 2 * half[1:].sum())]


def _blur_along(clip: Tensor, taps: list[float], dim: int) -> Tensor:
    """Sum shifted slices; a convolution of torch takes many times as long."""
    radius, length = len(taps) - 1, clip.shape[dim]
    if radius == 0:
        return clip
    padded = F.pad(clip, (0, 0, radius, radius) if dim == -2 else (radius, radius, 0, 0), mode="reflect")
    blurred = padded.narrow(dim, radius, length) * taps[0]
    pair = torch.empty_like(blurred)
    for shift, tap in enumerate(taps[1:], start=1):
        left, right = (padded.narrow(dim, radius + s, length) for s in (-shift, shift))
        blurred.add_(torch.add(left, right, out=pair).mul_(tap))
    return blurred


def _cutout(clip: Tensor, cutout: tuple[int, int, int, int], *, multiply: bool) -> None:
    """Set a square to the mean of the first frame, or multiply it by that mean as the released code does."""
    top, bottom, left, right = cutout
    if top == bottom or left == right:
        return
    mean = float(_row_means(clip[:, 0]).mean())
    square = clip[:, :, top:bottom, left:right]
    if multiply:
        square.mul_(mean)
    else:
        square.fill_(mean)


def _row_means(clip: Tensor) -> np.ndarray:
    """Return means over the last axis, float64."""
    sums: np.ndarray = clip.sum(dim=-1).numpy().astype(np.float64)
    return sums / clip.shape[-1]
