"""The networks: :class:`VideoEncoder` (R(2+1)D) and :class:`AudioEncoder` (ResNet on log-mel)."""

from __future__ import annotations

from crisscross_zoo.config import EncoderConfig, VideoConfig
from crisscross_zoo.encoders.audio import AudioEncoder as AudioEncoder
from crisscross_zoo.encoders.encoder import Encoder as Encoder
from crisscross_zoo.encoders.video import VideoEncoder as VideoEncoder

__all__ = ["AudioEncoder", "Encoder", "VideoEncoder", "build_encoder"]


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return a randomly initialised encoder of the modality that ``config`` is of, in train mode."""
    return (VideoEncoder if isinstance(config, VideoConfig) else AudioEncoder)(config)
