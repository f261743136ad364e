"""Build an encoder from its config."""

from __future__ import annotations

from crisscross_zoo.config import AudioConfig, EncoderConfig, VideoConfig
from crisscross_zoo.encoders.audio import AudioEncoder
from crisscross_zoo.encoders.encoder import Encoder
from crisscross_zoo.encoders.video import VideoEncoder
from crisscross_zoo.errors import ConfigError


def build_encoder(config: EncoderConfig) -> Encoder:
    """Return a randomly initialised encoder of the modality of ``config``, in train mode."""
    if isinstance(config, VideoConfig):
        return VideoEncoder(config)
    if isinstance(config, AudioConfig):
        return AudioEncoder(config)
    raise ConfigError(
        f"{type(config).__name__} is of no modality", remedy="pass a VideoConfig or an AudioConfig"
    )
