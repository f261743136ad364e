"""The layers from pooled features to logits, and the dimension of a clip's features."""

from __future__ import annotations

from torch import nn

from crisscross_zoo.config import AudioConfig, EncoderConfig, VideoConfig
from crisscross_zoo.encoders.pooling import pooled_size


def linear_head(
    features: int, classes: int, *, dropout: float = 0.0, batch_norm: bool = False
) -> nn.Sequential:
    """Return the layers from features to logits: optional batch norm, dropout and the linear layer.

    Args:
        features: D.
        classes: K.
        dropout: Fraction of the features that are dropped in training.
        batch_norm: Whether a batch norm comes first.

    Returns:
        Layers from (n, D) to (n, K). The weights of the linear layer are orthogonal and its biases 0, as in the
        released code.
    """
    linear = nn.Linear(features, classes)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    norm = [nn.BatchNorm1d(features)] if batch_norm else []
    return nn.Sequential(*norm, nn.Dropout(dropout), linear)


def clip_features(config: EncoderConfig, pooling: str) -> int:
    """Return D, the dimension of the features of a clip of the config.

    Raises:
        ConfigError: no pooling has this name.
        InputError: the clip is too small for the pooling.
    """
    size: tuple[int, ...]
    if isinstance(config, VideoConfig):
        size = (config.frames, config.size, config.size)
    else:
        assert isinstance(config, AudioConfig)
        size = (config.n_mels, config.clip_samples // config.hop_length)
    return pooled_size(pooling, size, 8 * config.width)
