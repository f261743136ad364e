"""Entry points of ``torch.hub``: the encoders without installing the package.

From a clone: ``torch.hub.load("path/to/clone", "video_encoder", weights="audioset", source="local")``.
"""

# Names are imported with an underscore: torch.hub offers every other callable of this file as an entry point.

from __future__ import annotations

from os import PathLike as _PathLike
from typing import Any as _Any

from crisscross_zoo import load_encoder as _load_encoder
from crisscross_zoo.encoders import Encoder as _Encoder

dependencies = ["huggingface_hub", "numpy", "safetensors", "torch", "torchvision"]
"""Packages that torch.hub requires before it loads an encoder. The encoders alone do not need PyAV and librosa."""


def video_encoder(weights: str | _PathLike[str] | None = "audioset", **options: _Any) -> _Encoder:
    """Return the R(2+1)D video encoder in eval mode.

    Args:
        weights: A name (``"audioset"``, ``"kinetics400"``, ``"kinetics-sound"``), Hub id, file,
            ``"random:SEED"`` or None.
        **options: Of :func:`crisscross_zoo.load_encoder`: ``pooling``, ``device``, ``revision``,
            ``cache_dir``, ``local_files_only``, ``token``.
    """
    return _load_encoder("video", weights, **options)


def audio_encoder(weights: str | _PathLike[str] | None = "audioset", **options: _Any) -> _Encoder:
    """Return the ResNet audio encoder in eval mode.

    Args:
        weights: As in :func:`video_encoder`.
        **options: As in :func:`video_encoder`.
    """
    return _load_encoder("audio", weights, **options)
