"""The evaluation transform of video (section E): resize, centre crop, normalise.

The shorter side becomes ``int(size / crop_ratio)`` pixels, bilinear with antialias, the other side in
proportion, truncated; a frame that already has that size is not resized. The crop's offsets are rounded half
to even. Up to normalisation everything stays uint8, which is fastest and, on the CPU, within 1 grey level of
Pillow.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.errors import InputError


def resize_crop(frames: np.ndarray | Tensor, *, size: int, crop_ratio: float) -> Tensor:
    """Resize the shorter side and crop the centre.

    Args:
        frames: RGB, uint8, (..., T, H, W, 3); a NumPy array or a tensor on any device.
        size: Side of the crop in pixels.
        crop_ratio: The shorter side is resized to ``int(size / crop_ratio)``; at most 1, as ``VideoConfig`` checks.

    Returns:
        (..., 3, T, size, size), uint8, on the device of ``frames``; channels are last in memory.

    Raises:
        InputError: ``frames`` is not a uint8 array of this form.
    """
    frames = _as_frames(frames, "(..., T, H, W, 3)", least_dims=4)
    cropped = _resize_crop_images(frames.flatten(0, -4), size, crop_ratio)
    return cropped.reshape(*frames.shape[:-3], size, size, 3).movedim(-1, -4)


def resize_crop_frame(frame: np.ndarray | Tensor, *, size: int, crop_ratio: float) -> Tensor:
    """Resize and crop one frame, (H, W, 3) to (3, size, size), with the values of :func:`resize_crop`."""
    frame = _as_frames(frame, "(H, W, 3)", least_dims=3, most_dims=3)
    return _resize_crop_images(frame[None], size, crop_ratio)[0].movedim(-1, 0)


def normalize(clips: Tensor, config: VideoConfig) -> Tensor:
    """Scale to [0, 1], subtract the config's mean and divide by its std.

    Args:
        clips: (..., 3, T, H, W), uint8.
        config: Provides ``mean`` and ``std``, one value for each of red, green and blue.

    Returns:
        float32, with the shape, strides and device of ``clips``.
    """
    mean = torch.tensor(config.mean, dtype=torch.float32, device=clips.device).view(3, 1, 1, 1)
    std = torch.tensor(config.std, dtype=torch.float32, device=clips.device).view(3, 1, 1, 1)
    return clips.to(torch.float32).div_(255).sub_(mean).div_(std)


def _resize_crop_images(images: Tensor, size: int, crop_ratio: float) -> Tensor:
    """Turn (B, H, W, 3) into a contiguous (B, size, size, 3)."""
    height, width = images.shape[1:3]
    short, target = min(height, width), int(size / crop_ratio)
    images = images.permute(0, 3, 1, 2)  # channels last in memory: torchvision's fast path for uint8
    if short != target:
        height, width = (target if side == short else int(target * side / short) for side in (height, width))
        images = _resize(images, (height, width))
    top, left = round((height - size) / 2), round((width - size) / 2)  # round() is half to even
    return images[:, :, top : top + size, left : left + size].permute(0, 2, 3, 1).contiguous()


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize, bilinear with antialias; on the CPU in uint8, by the same function that torchvision calls."""
    if images.device.type == "cpu":
        return F.interpolate(images, size, mode="bilinear", antialias=True)
    # Imported late: this takes as long as importing torch.
    from torchvision.transforms.v2 import functional as tvf

    resized: Tensor = tvf.resize(images, list(size), antialias=True)
    return resized


def _as_frames(
    frames: np.ndarray | Tensor, form: str, *, least_dims: int, most_dims: int | None = None
) -> Tensor:
    if not isinstance(frames, np.ndarray | Tensor):
        raise InputError(f"frames are a {type(frames).__name__}", remedy="pass a NumPy array or a tensor")
    shape = tuple(frames.shape)
    if str(frames.dtype).removeprefix("torch.") != "uint8":
        raise InputError(f"frames have dtype {frames.dtype}", remedy="pass RGB as uint8, 0 to 255")
    if len(shape) < least_dims or (most_dims is not None and len(shape) > most_dims):
        raise InputError(f"frames have the shape {shape}", remedy=f"pass {form}")
    if shape[-1] != 3:
        channels_first = 3 in shape[-4:-1]
        raise InputError(
            f"frames have the shape {shape}, with {shape[-1]} in the last axis instead of 3 colours",
            remedy=f"move the colours last: {form}" if channels_first else f"pass RGB as {form}",
        )
    if 0 in shape:
        raise InputError(f"frames have the shape {shape}, which is empty", remedy="pass at least one pixel")
    if isinstance(frames, np.ndarray):
        # copies only what torch cannot wrap: read-only or not in C order
        frames = torch.from_numpy(np.require(frames, requirements=["C", "W"]))
    return frames
