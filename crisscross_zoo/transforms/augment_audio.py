"""Audio augmentation: from one waveform to one randomly changed log-mel spectrogram.

The order is: volume jitter (on the waveform), the log-mel front end of :mod:`crisscross_zoo.transforms.mel`,
time warp, frequency masks, time masks (Park et al. 2019), random resize crop (Niizumi et al. 2021). The numbers
are those of Table S2. The table captioned S4 lists the operations of each training: the captions of S3 and S4 are
swapped.

The functions ``draw_*`` draw all random values, from one NumPy generator; the others only apply them. A generator
state and a wave determine the spectrogram, and no step depends on the number of torch's threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.errors import InputError
from crisscross_zoo.transforms.augment import AudioAugment
from crisscross_zoo.transforms.mel import log_mel, mono_at_rate


class Crop(NamedTuple):
    """A rectangle of the canvas: rows ``top`` to ``top + height``, columns ``left`` to ``left + width``."""

    top: int
    left: int
    height: int
    width: int


def augment_audio(
    wave: np.ndarray | Tensor, augment: AudioAugment, *, config: AudioConfig, rng: np.random.Generator
) -> Tensor:
    """Return one view of a wave: change its volume, compute the spectrogram, warp, mask and crop it.

    Args:
        wave: (samples,), floating point, mono, in [-1, 1], at ``config.sample_rate``. It is not changed.
        augment: How much may change (Table S2), see :data:`AUDIO_AUGMENTS`.
        config: Every number of the log-mel front end.
        rng: The only source of randomness.

    Returns:
        (1, n_mels, T), float32, normalised log-mel on the CPU, without gradient; T = samples // hop_length.

    Raises:
        InputError: ``wave`` is not (samples,), holds integers, values that are not finite or far beyond
            [-1, 1], or is too short for one STFT window.
    """
    if isinstance(wave, np.ndarray | Tensor) and wave.ndim != 1:
        raise InputError(
            f"the wave has the shape {tuple(wave.shape)}", remedy="pass (samples,): one wave, mono"
        )
    with torch.no_grad():
        mono = mono_at_rate(wave, config, device="cpu")
        spectrogram = log_mel(mono * draw_volume(augment, rng), config)
        bands, columns = spectrogram.shape[-2:]
        warp = draw_warp(columns, augment, rng)
        if warp is not None:
            spectrogram = warp_time(spectrogram, *warp)
        # The mean that fills the time masks is taken with the frequency masks already in.
        spectrogram = fill_masks(
            spectrogram, draw_masks(bands, augment.frequency_mask, augment, rng), axis=-2
        )
        spectrogram = fill_masks(spectrogram, draw_masks(columns, augment.time_mask, augment, rng), axis=-1)
        if augment.crops:
            crop = draw_crop(bands, columns, augment, rng)
            spectrogram = resize_crop(spectrogram, crop, canvas=canvas_size(bands, columns, augment))
    return spectrogram


# --- drawing ---------------------------------------------------------------------------------------------


def draw_volume(augment: AudioAugment, rng: np.random.Generator) -> float:
    """Draw the volume jitter's factor, uniform in [1 - volume, 1 + volume); 1, with nothing drawn, if it is off."""
    return float(rng.uniform(1 - augment.volume, 1 + augment.volume)) if augment.volume else 1.0


def draw_warp(columns: int, augment: AudioAugment, rng: np.random.Generator) -> tuple[int, int] | None:
    """Draw a time warp, which moves the column ``centre`` to ``position``.

    With w = ``augment.time_warp``, the centre is uniform over the columns more than w from either end (Park
    et al. 2019: in the open interval (w, T - w)) and the shift is uniform in -w ... w, so the position is in
    1 ... T - 1. As released: the centre is in w ... T - w - 1, the shift in 1 - w ... w.

    Returns:
        (centre, position); None if the warp is off or the spectrogram too short for it: of no more
        than 2 w + 1 columns; as released, 2 w.
    """
    window = augment.time_warp
    first_centre, first_shift = (window, 1 - window) if augment.released else (window + 1, -window)
    if not window or first_centre >= columns - window:
        return None
    centre = int(rng.integers(first_centre, columns - window))
    return centre, centre + int(rng.integers(first_shift, window, endpoint=True))


def draw_masks(
    size: int, largest: int, augment: AudioAugment, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw ``augment.masks`` masks of an axis of ``size`` rows or columns.

    Each width is uniform in 0 ... ``largest`` ("max size" in Table S2), or 0 ... ``size`` if that is less;
    each start is uniform over the positions that keep its mask inside. As released, a width is below ``largest``,
    and a start below ``size`` minus the larger width of the call.

    Returns:
        (start, width) of each mask, all inside the axis; an empty list if masks are off.
    """
    if not augment.masks or not largest:
        return []
    if augment.released:
        widths = rng.integers(0, largest, size=augment.masks)
        starts = rng.integers(0, max(1, size - int(widths.max())), size=augment.masks)
        widths = np.minimum(widths, size - starts)
    else:
        widths = rng.integers(0, min(largest, size), size=augment.masks, endpoint=True)
        starts = rng.integers(0, size - widths, endpoint=True)
    return [(int(start), int(width)) for start, width in zip(starts, widths, strict=True)]


def canvas_size(bands: int, columns: int, augment: AudioAugment) -> tuple[int, int]:
    """Return the rows and columns of the canvas: ``augment.canvas`` times those of the spectrogram, truncated."""
    return int(augment.canvas[0] * bands), int(augment.canvas[1] * columns)


def draw_crop(bands: int, columns: int, augment: AudioAugment, rng: np.random.Generator) -> Crop:
    """Draw a crop of the canvas of a (bands, columns) spectrogram.

    Height and width are ``augment.crop``'s factors, each uniform, times bands and columns, truncated and
    limited to 1 ... the canvas's size; the position is uniform among those inside the canvas.
    """
    rows, wide = canvas_size(bands, columns, augment)
    height = min(max(int(rng.uniform(*augment.crop) * bands), 1), rows)
    width = min(max(int(rng.uniform(*augment.crop) * columns), 1), wide)
    top = int(rng.integers(0, rows - height, endpoint=True))
    left = int(rng.integers(0, wide - width, endpoint=True))
    return Crop(top, left, height, width)


# --- applying --------------------------------------------------------------------------------------------


def warp_time(spectrogram: Tensor, centre: int, position: int) -> Tensor:
    """Stretch the columns before ``centre`` to ``position`` columns, and the others to the columns that remain.

    Bicubic, ``align_corners`` off: the two sides are resized separately, and neither reads across the seam.

    Args:
        spectrogram: (channels, bands, T), float32.
        centre: In 1 ... T - 1.
        position: In 1 ... T - 1.

    Returns:
        A new tensor of the same shape and dtype.
    """
    columns = spectrogram.shape[-1]
    left = _resize(spectrogram[..., :centre], columns=position, align_corners=False)
    right = _resize(spectrogram[..., centre:], columns=columns - position, align_corners=False)
    return torch.cat([left, right], dim=-1)


def fill_masks(spectrogram: Tensor, masks: list[tuple[int, int]], *, axis: int) -> Tensor:
    """Fill rows (``axis`` -2) or columns (-1) with the mean of the whole input spectrogram.

    Args:
        spectrogram: (channels, bands, T), float32, on the CPU, without gradient.
        masks: (start, width) of each, inside the axis; a width may be 0.
        axis: -2 for frequency masks, -1 for time masks.

    Returns:
        A new tensor of the same shape and dtype.
    """
    # torchaudio's mask_along_axis cannot be used: it draws from torch's global generator, and never the largest
    # width. NumPy computes the mean, since the order in which torch sums depends on its number of threads.
    mean = float(spectrogram.numpy().mean(dtype=np.float64))
    masked = spectrogram.clone()
    for start, width in masks:
        masked.narrow(axis, start, width).fill_(mean)
    return masked


def resize_crop(spectrogram: Tensor, crop: Crop, *, canvas: tuple[int, int]) -> Tensor:
    """Cut ``crop`` out of a canvas of zeros with the spectrogram in its middle, and resize it to the input's shape.

    Bicubic, ``align_corners`` on. Zero stands for a log-mel of ``AudioConfig.mean``.

    Args:
        spectrogram: (channels, bands, T), float32.
        crop: Inside the canvas.
        canvas: Its rows and columns, not less than the spectrogram's. An odd margin has one more at the end.

    Returns:
        A new tensor of the same shape and dtype.
    """
    bands, columns = spectrogram.shape[-2:]
    above, before = (canvas[0] - bands) // 2, (canvas[1] - columns) // 2
    padded = F.pad(spectrogram, (before, canvas[1] - columns - before, above, canvas[0] - bands - above))
    cropped = padded[..., crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return _resize(cropped, bands=bands, columns=columns, align_corners=True)


def _resize(spectrogram: Tensor, *, columns: int, bands: int | None = None, align_corners: bool) -> Tensor:
    size = (spectrogram.shape[-2] if bands is None else bands, columns)
    return F.interpolate(spectrogram[None], size, mode="bicubic", align_corners=align_corners)[0]
