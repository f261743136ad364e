"""The base class of both encoders: stages, pooling, classifier and input checks."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import torch
import torch.fx
import torch.utils.data
from torch import Tensor, nn

from crisscross_zoo.checkpoints.mixin import EncoderMixin
from crisscross_zoo.config import STAGES, AudioConfig, EncoderConfig, Pooling, config_from_dict
from crisscross_zoo.encoders.head import clip_features, linear_head
from crisscross_zoo.encoders.inference import InferenceEncoder
from crisscross_zoo.encoders.inputs import check_batch
from crisscross_zoo.encoders.pooling import pool
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.numerics import plain_torch
from crisscross_zoo.settings import check_choice, check_count

if TYPE_CHECKING:
    from crisscross_zoo.encoders.classifier import Classifier

# Input pixels, or mel bands and columns, per position of each stage's feature map.
_REDUCTIONS = (4, 4, 8, 16, 32)


class Encoder(EncoderMixin):
    """Base of :class:`VideoEncoder` and :class:`AudioEncoder`: a backbone and a pooling.

    The state dict is the released backbone's, name by name; the pooling has no parameters. ``torch.fx`` can trace the
    encoder: ``create_feature_extractor`` of torchvision finds the feature maps by the names of
    :data:`crisscross_zoo.config.STAGES`.

    Attributes:
        config: Architecture and preprocessing, frozen.
        fc: The classifier of :meth:`reset_classifier`; an identity if there is none.
    """

    def __init__(self, config: EncoderConfig | None = None, **fields: Any) -> None:
        super().__init__()
        if config is None:
            config = self.config_type()
        if fields:
            config = config_from_dict({**config.to_dict(), **fields})
        if not isinstance(config, self.config_type):
            raise ConfigError(
                f"{type(self).__name__} cannot be made from {type(config).__name__}",
                remedy=f"pass {self.config_type.__name__}(...)",
            )
        self.config = config
        self.fc: nn.Module = nn.Identity()

    @abc.abstractmethod
    def stages(self) -> tuple[nn.Module, ...]:
        """Return the five stages in order, one for each of :data:`crisscross_zoo.config.STAGES`."""

    @property
    def num_features(self) -> int:
        """Channels of conv5x: 8 times the width; 512 for the released networks."""
        return 8 * self.config.width

    @property
    def num_classes(self) -> int:
        """Number of logits of :meth:`forward`; 0 if it returns features."""
        return self.fc.out_features if isinstance(self.fc, nn.Linear) else 0

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels, reduction and module of each stage's feature map, in the form of timm."""
        channels = [self.config.width * factor for factor in (1, 1, 2, 4, 8)]
        return [
            {"num_chs": n, "reduction": r, "module": name}
            for n, r, name in zip(channels, _REDUCTIONS, STAGES, strict=True)
        ]

    @property
    def feature_size(self) -> int:
        """D, the dimension of the feature vector of a clip of the config, with the config's pooling.

        For other clips see :attr:`crisscross_zoo.FeatureExtractor.sizes`.

        Raises:
            InputError: such a clip is too small for the pooling.
        """
        return clip_features(self.config, self.config.pooling)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def _preprocessing_device(self) -> torch.device:
        """The device for the output of ``preprocess``: the CPU in a DataLoader's worker, which may not use a GPU."""
        return self.device if torch.utils.data.get_worker_info() is None else torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features (N, D) of a batch of clips; D depends on ``config.pooling`` and the clip.

        With a classifier (:meth:`reset_classifier`): logits (N, num_classes).

        Raises:
            InputError: ``x`` is not a batch of clips, has another dtype than the weights, has NaN or infinities
                (checked in eval mode alone), or is too small for the pooling.
        """
        return self.forward_head(self.forward_features(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the output of :meth:`forward` for conv5x; with ``pre_logits`` the features, also with a classifier."""
        x = pool(x, self.config.pooling)
        if not pre_logits:
            x = self.fc(x)
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, conv5x: (N, C, T', H', W') of video, (N, C, F', T') of audio.

        Raises:
            InputError: ``x`` does not have the form of a batch.
        """
        x = self._checked(x)
        for name, stage in zip(STAGES, self.stages(), strict=True):
            x = self._named(name, stage, stage(x))
        return x

    def _checked(self, x: Tensor) -> Tensor:
        mels = self.config.n_mels if isinstance(self.config, AudioConfig) else None
        return check_batch(x, next(self.parameters()), mels=mels, values=not self.training)

    def _named(self, name: str, stage: nn.Module, x: Tensor) -> Tensor:
        """Pass a feature map through the identity with the stage's name, if the stage itself has another name."""
        named = getattr(self, name)
        return x if named is stage else named(x)

    @overload
    def forward_intermediates(self, x: Tensor) -> dict[str, Tensor]: ...

    @overload
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | str | Sequence[int | str],
        norm: bool = ...,
        stop_early: bool = ...,
        output_fmt: str = ...,
        intermediates_only: Literal[False] = ...,
    ) -> tuple[Tensor, list[Tensor]]: ...

    @overload
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | str | Sequence[int | str] | None = ...,
        norm: bool = ...,
        stop_early: bool = ...,
        output_fmt: str = ...,
        *,
        intermediates_only: Literal[True],
    ) -> list[Tensor]: ...

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | str | Sequence[int | str] | None = None,
        norm: bool = False,  # noqa: ARG002 - timm's, for networks with a norm behind the last stage
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> dict[str, Tensor] | tuple[Tensor, list[Tensor]] | list[Tensor]:
        """Return feature maps: all five by name or, with ``indices`` as in timm, those of some stages.

        Args:
            x: A batch of clips.
            indices: None: all five. Otherwise as in timm, with stage names too: a sequence of numbers (negative ones
                count from the end) and names, one name, or a number n for the last n.
            norm: Not used.
            stop_early: Stop after the last requested stage; its map then takes the place of conv5x in the result.
            output_fmt: Only "NCHW": channels come second, also for video.
            intermediates_only: Return only the list.

        Returns:
            Without ``indices``: ``{"conv1": ..., ..., "conv5x": ...}``, conv1 after its max pool. With ``indices``:
            conv5x and the list of maps, in the network's order. With ``intermediates_only``: the list.

        Raises:
            InputError: ``x`` does not have the form of a batch.
            ConfigError: there is no such stage or format.
        """
        check_choice("output_fmt", output_fmt, ("NCHW",))
        wanted = _wanted_stages(indices)
        x = self._checked(x)
        maps = {}
        for number, (name, stage) in enumerate(zip(STAGES, self.stages(), strict=True)):
            if stop_early and number > max(wanted):
                break
            x = self._named(name, stage, stage(x))
            if number in wanted:
                maps[name] = x
        if intermediates_only:
            return list(maps.values())
        return maps if indices is None else (x, list(maps.values()))

    def with_pooling(self, pooling: Pooling | None) -> Self:
        """Return the encoder with another pooling and the same parameters, not copied; itself if nothing changes.

        Both encoders share their stages, including the stages' train or eval mode.

        Args:
            pooling: A name of :mod:`crisscross_zoo.encoders.pooling`; None: the current one.

        Raises:
            ConfigError: no pooling has this name.
        """
        if pooling in (None, self.config.pooling):
            return self
        other = copy.copy(self)
        # A classifier or hook that is registered later belongs to only one of the two.
        other.__dict__.update({k: v.copy() for k, v in vars(self).items() if isinstance(v, dict | set)})
        other.config = self.config.replace(pooling=pooling)
        return other

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """Return the classifier, a linear layer, or an identity if there is none; with ``name_only`` its name."""
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new linear layer after the pooled features, in place, or remove it.

        :meth:`classifier` has the paper's settings: its pooling, dropout, batch norm, a frozen encoder.

        Args:
            num_classes: Number of logits; 0: no classifier, :meth:`forward` returns features again.
            global_pool: The new pooling, as in :mod:`crisscross_zoo.encoders.pooling`; None: ``config.pooling``.
                With a pooling whose dimension depends on the clip, clips must have the size of ``config``.

        Raises:
            ConfigError: a value out of range.
            InputError: the config's clip is too small for the pooling.
        """
        check_count("num_classes", num_classes, least=0)
        config = self.config if global_pool is None else self.config.replace(pooling=global_pool)
        fc: nn.Module = nn.Identity()
        if num_classes:
            fc = linear_head(clip_features(config, config.pooling), num_classes)[-1]
            fc.to(self.device, next(self.parameters()).dtype)
        self.config = config
        del self.fc  # so that it is always registered last
        self.fc = fc.train(self.training)

    def optimize_for_inference(self, dtype: torch.dtype = torch.float32) -> InferenceEncoder:
        """Return a faster module with the same output; this encoder and its state dict are not changed.

        Batch norms are folded and 3-D convolutions run as 2-D ones, see :mod:`crisscross_zoo.encoders.inference`. The
        module has the current weights: later training or loading does not change it.

        Args:
            dtype: Dtype of the weights and of the computation: float32, bfloat16 or float16. Clips may have any of
                these three.
        """
        with plain_torch():
            return self._inference_module().to(self.device, dtype).eval()

    @abc.abstractmethod
    def _inference_module(self) -> InferenceEncoder:
        """Return the encoder for inference, in float32."""

    def classifier(
        self,
        num_classes: int,
        *,
        pooling: Pooling = "max",
        dropout: float = 0.0,
        batch_norm: bool = False,
        frozen: bool = False,
    ) -> Classifier:
        """Return this encoder followed by a linear layer, to finetune both or to train the layer alone.

        Args:
            num_classes: Number of logits.
            pooling: "max" as in full finetuning (section E.2), or any other of
                :mod:`crisscross_zoo.encoders.pooling`; for those whose dimension depends on the clip, clips must
                have the size of ``config``.
            dropout: Fraction of the features that are dropped in training.
            batch_norm: Whether a batch norm precedes the linear layer.
            frozen: Train only the linear layer.

        Raises:
            ConfigError: a value out of range.
            InputError: the config's clip is too small for the pooling.
        """
        from crisscross_zoo.encoders.classifier import Classifier

        return Classifier(
            self, num_classes, pooling=pooling, dropout=dropout, batch_norm=batch_norm, frozen=frozen
        )


# Functions that branch on shapes are one call in a traced graph.
torch.fx.wrap("check_batch")
torch.fx.wrap("pool")


def _wanted_stages(indices: int | str | Sequence[int | str] | None) -> set[int]:
    """Return the numbers of the stages for ``indices`` of :meth:`Encoder.forward_intermediates`."""
    last = len(STAGES)
    if indices is None:
        return set(range(last))
    if isinstance(indices, int):
        check_count("indices", indices, least=1)
        if indices > last:
            raise ConfigError(f"indices={indices} is out of range", remedy=f"pass at most {last}")
        return set(range(last - indices, last))
    wanted = set()
    for index in [indices] if isinstance(indices, str) else indices:
        if isinstance(index, str):
            check_choice("indices", index, STAGES)
            index = STAGES.index(index)
        if not -last <= index < last:
            raise ConfigError(
                f"indices has {index}, and there are {last} stages", remedy=f"pass 0 to {last - 1}, or names"
            )
        wanted.add(index % last)
    if not wanted:
        raise ConfigError("indices is empty", remedy="name a stage, or omit it for all")
    return wanted
