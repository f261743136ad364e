"""Check that the input of an encoder is a batch of its clips."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crisscross_zoo.errors import InputError


def check_batch(
    x: Tensor, weight: Tensor, *, mels: int | None, converted: bool = False, values: bool = True
) -> Tensor:
    """Return ``x`` if it is a batch of clips.

    Args:
        x: Video (N, 3, T, H, W), or audio (N, 1, F, T).
        weight: One of the encoder's weights. Within autocast ``x`` may have another dtype, but not float64.
        mels: F, the number of mel bands; None for video.
        converted: Whether the encoder converts its input, so that ``x`` may have another dtype, but not float64.
        values: Whether to check that all values are finite.

    Raises:
        InputError: ``x`` is no tensor, or has another form, another dtype, or values that are not finite.
    """
    channels: tuple[int, ...]
    if mels is None:
        modality, form, dims, channels = "video", "(N, 3, T, H, W)", 5, (3,)
    else:
        modality, form, dims, channels = "audio", f"(N, 1, {mels}, T)", 4, (1, mels)
    if not isinstance(x, Tensor):
        raise InputError(
            f"the {modality} encoder takes a tensor, not {type(x).__name__}",
            remedy="pass what preprocess returns; torch.from_numpy(x) wraps an array",
        )
    if x.ndim != dims or tuple(x.shape[1 : 1 + len(channels)]) != channels:
        raise InputError(
            f"the {modality} encoder takes a batch {form}, not {tuple(x.shape)}",
            remedy=_batch_remedy(tuple(x.shape), dims, channels),
        )
    if not x.is_floating_point():
        raise InputError(
            f"the {modality} encoder takes floating point, not {x.dtype}",
            remedy="pass what preprocess returns",
        )
    if x.dtype != weight.dtype and (
        x.dtype == torch.float64 or not (converted or torch.is_autocast_enabled(x.device.type))
    ):
        raise InputError(
            f"the {modality} encoder's weights are {weight.dtype}, its input is {x.dtype}",
            remedy=f"pass x.to({weight.dtype}), or convert the encoder",
        )
    if values and not _is_finite(x):
        raise InputError(
            f"the {modality} clips hold values that are not finite", remedy="replace NaN and infinities"
        )
    return x


def _batch_remedy(shape: tuple[int, ...], dims: int, channels: tuple[int, ...]) -> str:
    if len(shape) == dims - 1 and shape[: len(channels)] == channels:
        return "add the batch axis: x[None]"
    if len(channels) == 2 and len(shape) == dims - 1 and shape[1] == channels[1]:
        return "add the axis of channels: x[:, None]"
    waves = ", which takes waves (N, channels, samples)" if len(channels) == 2 else ""
    return f"make it with preprocess{waves}"


def _is_finite(x: Tensor) -> bool:
    """Return whether ``x`` has neither NaN nor infinity; True if its values cannot be read."""
    tracing: Any = torch.jit
    if torch.compiler.is_compiling() or tracing.is_tracing():
        return True
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return True
    try:
        return bool(torch.isfinite(x).all())
    except RuntimeError:  # meta and fake tensors, vmap
        return True
