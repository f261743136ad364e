"""An encoder followed by a linear layer, for linear evaluation and full finetuning (section E)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from torch import Tensor

from crisscross_zoo.checkpoints.mixin import ClassifierMixin
from crisscross_zoo.config import EncoderConfig, Pooling, config_from_dict
from crisscross_zoo.encoders.build import build_encoder
from crisscross_zoo.encoders.encoder import Encoder
from crisscross_zoo.encoders.head import clip_features, linear_head
from crisscross_zoo.encoders.pooling import pool
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import Count, Range, Settings


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Settings):
    """The config of a classifier; the fields after ``encoder`` are the arguments of :class:`Classifier`.

    Attributes:
        encoder: The encoder's config.
        num_classes: K.
        pooling: See :mod:`crisscross_zoo.encoders.pooling`.
        dropout: Fraction of the features that are dropped in training.
        batch_norm: Whether a batch norm precedes the linear layer.
        frozen: Whether only the linear layer is trained.
    """

    encoder: EncoderConfig
    num_classes: Count
    pooling: Pooling
    dropout: Annotated[float, Range(least=0, below=1)]
    batch_norm: bool
    frozen: bool

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the config that :meth:`to_dict` wrote.

        Raises:
            ConfigError: a field is missing, unknown or out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if wrong := sorted(fields.keys() ^ set(names)):
            raise ConfigError(
                f"a classifier's config has the fields {', '.join(names)}",
                remedy=f"missing or unknown: {', '.join(wrong)}",
            )
        if not isinstance(fields["encoder"], Mapping):
            raise ConfigError("encoder is not a config", remedy="pass the output of EncoderConfig.to_dict")
        return super().from_dict({**fields, "encoder": config_from_dict(fields["encoder"])})


class Classifier(ClassifierMixin):
    """A backbone, a pooling and a linear layer, from clips to logits; see :meth:`Encoder.classifier`.

    :meth:`save_pretrained` and :meth:`from_pretrained` keep the whole module in a folder.

    Args:
        encoder: Becomes part of the module, without a copy.
        num_classes: K.
        pooling: See :mod:`crisscross_zoo.encoders.pooling`; "max" is that of full finetuning (section E.2).
        dropout: Fraction of the features that are dropped in training.
        batch_norm: Whether a batch norm precedes the linear layer.
        frozen: Train only the linear layer: the encoder gets no gradient and stays in eval mode.

    Attributes:
        config: The classifier's config, frozen.
        encoder: The encoder.
        head: The layers after the pooling.

    Raises:
        ConfigError: a value out of range, or the encoder has a classifier of its own.
    """

    config_type = ClassifierConfig

    config: ClassifierConfig

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        *,
        pooling: Pooling = "max",
        dropout: float = 0.0,
        batch_norm: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.config = ClassifierConfig(
            encoder=encoder.config,
            num_classes=num_classes,
            pooling=pooling,
            dropout=dropout,
            batch_norm=batch_norm,
            frozen=frozen,
        )
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

    @classmethod
    def from_config(cls, config: ClassifierConfig) -> Self:
        """Return a classifier with fresh weights, in train mode."""
        options = {name: value for name, value in vars(config).items() if name != "encoder"}
        return cls(build_encoder(config.encoder), **options)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of a batch of clips, as the encoder takes them.

        Raises:
            InputError: ``x`` does not have the form of a batch.
        """
        logits: Tensor = self.head(pool(self.encoder.forward_features(x), self.config.pooling))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.config.frozen:
            self.encoder.eval()
        return self
