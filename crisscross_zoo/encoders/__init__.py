"""The networks: :class:`VideoEncoder` (R(2+1)D) and :class:`AudioEncoder` (ResNet on log-mel).

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.encoders.audio import AudioEncoder as AudioEncoder
    from crisscross_zoo.encoders.build import build_encoder as build_encoder
    from crisscross_zoo.encoders.classifier import Classifier as Classifier
    from crisscross_zoo.encoders.encoder import Encoder as Encoder
    from crisscross_zoo.encoders.head import clip_features as clip_features
    from crisscross_zoo.encoders.head import linear_head as linear_head
    from crisscross_zoo.encoders.inference import InferenceEncoder as InferenceEncoder
    from crisscross_zoo.encoders.pooling import pool as pool
    from crisscross_zoo.encoders.pooling import pooled_size as pooled_size
    from crisscross_zoo.encoders.video import VideoEncoder as VideoEncoder

_HOMES = {
    "AudioEncoder": "crisscross_zoo.encoders.audio",
    "Classifier": "crisscross_zoo.encoders.classifier",
    "Encoder": "crisscross_zoo.encoders.encoder",
    "InferenceEncoder": "crisscross_zoo.encoders.inference",
    "VideoEncoder": "crisscross_zoo.encoders.video",
    "build_encoder": "crisscross_zoo.encoders.build",
    "clip_features": "crisscross_zoo.encoders.head",
    "linear_head": "crisscross_zoo.encoders.head",
    "pool": "crisscross_zoo.encoders.pooling",
    "pooled_size": "crisscross_zoo.encoders.pooling",
}

__all__ = [
    "AudioEncoder",
    "Classifier",
    "Encoder",
    "InferenceEncoder",
    "VideoEncoder",
    "build_encoder",
    "clip_features",
    "linear_head",
    "pool",
    "pooled_size",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
