"""Pool the last feature map, conv5x, into one vector per clip.

===================  ===============================  ===============================
name                 video (N, C, T, H, W)            audio (N, C, F, T)
===================  ===============================  ===============================
``linear``           max, kernel (1, 4, 4), stride 1  max, kernel (1, 3), stride
                                                      (1, 2)
``linear-adaptive``  adaptive max to (1, 4, 4)        as ``linear``
``linear-strided``   max, kernel (1, 4, 4), stride    as ``linear``
                     = kernel
``fusion``           adaptive max to (1, 2, 2)        adaptive max to (1, 4)
``avg``              global average                   global average
``max``              global max                       global max
===================  ===============================  ===============================

and D, the dimension of the vector, for a network of width 64:

===================  ========  ========  =========  =========  ====  ====  =====
name                 8x112²    8x224²    32x112²    32x224²    1 s   2 s   5 s
===================  ========  ========  =========  =========  ====  ====  =====
``linear``           512       8192      2048       32768      1536  4608  10752
``linear-adaptive``  8192      8192      8192       8192       1536  4608  10752
``linear-strided``   512       512       2048       2048       1536  4608  10752
``fusion``           2048      2048      2048       2048       2048  2048  2048
``avg``, ``max``     512       512       512        512        512   512   512
===================  ========  ========  =========  =========  ====  ====  =====

``avg`` ends the pretraining networks (Tables S5 and S6) and ``max`` the fully finetuned ones (section E.2). For linear
evaluation of video (section E.1) the paper names only the kernel (1, 4, 4). Stride 1 follows this literally, reads the
whole 7x7 map of 224² pixels, and fits the paper's remark that the vectors of 32 frames do not fit in memory.
``linear-adaptive`` is the pooling in the code of AVID (Morgado et al., CVPR 2021), whose protocol the paper cites.
``linear-strided`` reads 16 of the 49 positions of a 7x7 map, those in the top left corner: it exists for comparison
only. The other poolings read every position, except the audio side of the three ``linear`` poolings: kernel 3 and
stride 2 (section E.1) never reach the last column of a map with an even number of columns, such as the fourth of 1 s
and the sixteenth of 5 s. Of an odd number, such as the 7 of 2 s, all are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from crisscross_zoo.errors import InputError
from crisscross_zoo.settings import check_choice

_VIDEO_KERNEL = (1, 4, 4)
_AUDIO_KERNEL = (1, 3)
_AUDIO_STRIDE = (1, 2)

# The span of one position of conv5x in the input: pixels of height and width, or mel bands and columns.
_REDUCTION = 32


def pool(features: Tensor, pooling: str) -> Tensor:
    """Pool a conv5x map and flatten it.

    Args:
        features: (N, C, T', H', W') of a video encoder or (N, C, F', T') of an audio encoder.
        pooling: A name of the table above.

    Returns:
        (N, D), of the dtype of ``features``.

    Raises:
        ConfigError: no pooling has this name.
        InputError: the map is smaller than the kernel.
    """
    check_choice("pooling", pooling, _POOLINGS)
    return _POOLINGS[pooling][features.ndim](features).flatten(1)


def pooled_size(pooling: str, size: Sequence[int], channels: int) -> int:
    """Return D, the dimension of the vector of a clip of this size.

    Args:
        pooling: A name of the table above.
        size: (T, H, W) of a video clip or (F, T) of a spectrogram.
        channels: Channels of conv5x, 8 times the encoder's width.

    Raises:
        ConfigError: no pooling has this name.
        InputError: the conv5x map is smaller than the kernel.
    """
    reductions = (8, _REDUCTION, _REDUCTION) if len(size) == 3 else (_REDUCTION, _REDUCTION)
    map_size = (-(-n // r) for n, r in zip(size, reductions, strict=True))
    return pool(torch.empty(1, channels, *map_size, dtype=torch.float32, device="cpu"), pooling).shape[1]


def _max_video(features: Tensor, *, stride: tuple[int, int, int]) -> Tensor:
    _check_fits(features, _VIDEO_KERNEL, "frames of at least {0}x{0} pixels")
    return F.max_pool3d(features, _VIDEO_KERNEL, stride)


def _max_audio(features: Tensor) -> Tensor:
    _check_fits(features, _AUDIO_KERNEL, "at least {0} spectrogram columns")
    return F.max_pool2d(features, _AUDIO_KERNEL, _AUDIO_STRIDE)


def _check_fits(features: Tensor, kernel: Sequence[int], wanted: str) -> None:
    map_size = features.shape[2:]
    if any(size < k for size, k in zip(map_size, kernel, strict=True)):
        # ceil(input / 32) positions, so one input more than k - 1 whole positions gives the k-th.
        enough = wanted.format((kernel[-1] - 1) * _REDUCTION + 1)
        raise InputError(
            f"the conv5x map {tuple(map_size)} is smaller than the pooling kernel {tuple(kernel)}",
            remedy=f"pass {enough}, or use pooling 'avg', 'max' or 'fusion'",
        )


def _adaptive_max(features: Tensor, *, size: tuple[int, ...]) -> Tensor:
    if features.device.type == "mps":  # MPS has no 3-D kernel, and a 2-D one only for sizes that divide
        return _adaptive_max(features.cpu(), size=size).to(features.device)
    pooled: Tensor = (F.adaptive_max_pool3d if len(size) == 3 else F.adaptive_max_pool2d)(features, size)
    return pooled


def _mean(features: Tensor) -> Tensor:
    return features.flatten(2).mean(2)


def _max(features: Tensor) -> Tensor:
    return features.flatten(2).amax(2)


_POOLINGS: dict[str, dict[int, Callable[[Tensor], Tensor]]] = {
    # name: {5: of a video map, 4: of an audio map}
    "linear": {5: partial(_max_video, stride=(1, 1, 1)), 4: _max_audio},
    "linear-adaptive": {5: partial(_adaptive_max, size=_VIDEO_KERNEL), 4: _max_audio},
    "linear-strided": {5: partial(_max_video, stride=_VIDEO_KERNEL), 4: _max_audio},
    "fusion": {5: partial(_adaptive_max, size=(1, 2, 2)), 4: partial(_adaptive_max, size=(1, 4))},
    "avg": {5: _mean, 4: _mean},
    "max": {5: _max, 4: _max},
}
