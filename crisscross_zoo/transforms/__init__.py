"""Preprocessing: the evaluation transforms of frames and audio, and augmentation.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS as AUDIO_AUGMENTS
    from crisscross_zoo.transforms.augment import VIDEO_AUGMENTS as VIDEO_AUGMENTS
    from crisscross_zoo.transforms.augment import AudioAugment as AudioAugment
    from crisscross_zoo.transforms.augment import VideoAugment as VideoAugment
    from crisscross_zoo.transforms.frames import normalize as normalize
    from crisscross_zoo.transforms.frames import resize_crop as resize_crop
    from crisscross_zoo.transforms.mel import log_mel as log_mel
    from crisscross_zoo.transforms.mel import mel_filters as mel_filters
    from crisscross_zoo.transforms.mel import mono_at_rate as mono_at_rate

_HOMES = {
    "AUDIO_AUGMENTS": "crisscross_zoo.transforms.augment",
    "AudioAugment": "crisscross_zoo.transforms.augment",
    "VIDEO_AUGMENTS": "crisscross_zoo.transforms.augment",
    "VideoAugment": "crisscross_zoo.transforms.augment",
    "log_mel": "crisscross_zoo.transforms.mel",
    "mel_filters": "crisscross_zoo.transforms.mel",
    "mono_at_rate": "crisscross_zoo.transforms.mel",
    "normalize": "crisscross_zoo.transforms.frames",
    "resize_crop": "crisscross_zoo.transforms.frames",
}

__all__ = [
    "AUDIO_AUGMENTS",
    "VIDEO_AUGMENTS",
    "AudioAugment",
    "VideoAugment",
    "log_mel",
    "mel_filters",
    "mono_at_rate",
    "normalize",
    "resize_crop",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
