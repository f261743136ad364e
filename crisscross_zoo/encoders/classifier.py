"""An encoder with a linear layer behind it: what linear evaluation and full finetuning train (section E)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import Tensor, nn

from crisscross_zoo.config import AudioConfig, EncoderConfig, VideoConfig
from crisscross_zoo.encoders.pooling import pool, pooled_size
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import check_count

if TYPE_CHECKING:
    from crisscross_zoo.encoders.encoder import Encoder


def linear_head(
    features: int, classes: int, *, dropout: float = 0.0, batch_norm: bool = False
) -> nn.Sequential:
    """Return the layers from features to logits: batch norm and dropout where wanted, and the linear layer.

    Args:
        features: D.
        classes: K.
        dropout: Share of the features that are dropped in training.
        batch_norm: Whether a batch norm comes first.

    Returns:
        (n, D) to (n, K). The weights of the layer are orthogonal and its biases 0, as in the released code.
    """
    linear = nn.Linear(features, classes)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    norm = [nn.BatchNorm1d(features)] if batch_norm else []
    return nn.Sequential(*norm, nn.Dropout(dropout), linear)


def clip_features(config: EncoderConfig, pooling: str) -> int:
    """Return D of a clip as the config has it.

    Raises:
        ConfigError: no pooling goes by this name.
        InputError: the clip is too small for the pooling.
    """
    size: tuple[int, ...]
    if isinstance(config, VideoConfig):
        size = (config.frames, config.size, config.size)
    else:
        assert isinstance(config, AudioConfig)
        size = (config.n_mels, config.clip_samples // config.hop_length)
    return pooled_size(pooling, size, 8 * config.width)


class Classifier(nn.Module):
    """A backbone, a pooling and a linear layer: clips in, logits out. Made by :meth:`Encoder.classifier`.

    Args:
        encoder: Is part of the module, not copied.
        num_classes: K.
        pooling: See :mod:`crisscross_zoo.encoders.pooling`; "max" is that of full finetuning (section E.2).
        dropout: Share of the features that are dropped in training.
        batch_norm: Whether a batch norm comes before the layer.
        frozen: Train the layer alone: the encoder gets no gradient and stays in eval mode.

    Attributes:
        encoder: The encoder.
        head: The layers behind it.

    Raises:
        ConfigError: a value out of range, or the encoder has a classifier of its own.
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        *,
        pooling: str = "max",
        dropout: float = 0.0,
        batch_norm: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes or 0, least=1)
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout={dropout!r} is out of range", remedy="pass 0 to below 1")
        self.pooling = pooling
        self.frozen = frozen
        if encoder.num_classes:
            raise ConfigError(
                "the encoder has a classifier already", remedy="call encoder.reset_classifier(0) first"
            )
        size = clip_features(encoder.config, pooling)
        self.encoder = encoder
        self.head = linear_head(size, num_classes, dropout=dropout, batch_norm=batch_norm)
        self.head.to(encoder.device, next(encoder.parameters()).dtype)
        if frozen:
            encoder.requires_grad_(False)
        self.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of a batch of clips, as the encoder takes them.

        Raises:
            InputError: ``x`` has not the form of a batch.
        """
        logits: Tensor = self.head(pool(self.encoder.forward_features(x), self.pooling))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self
