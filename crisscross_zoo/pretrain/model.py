"""The pretraining model: two backbones, each with a projector and a predictor (section F, Tables S5 to S8).

Module names are those of the released code's full model, without its aliases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crisscross_zoo.encoders import AudioEncoder, Encoder, VideoEncoder
from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.pretrain.loss import LossTerms, crisscross_loss, needed_views
from crisscross_zoo.pretrain.presets import PREDICTION_HIDDEN, PROJECTION


class Projector(nn.Module):
    """Map backbone features (N, in) to embeddings (N, dim): fc-bn-relu, fc-bn-relu, fc-bn (Table S7).

    Args:
        in_features: Dimensions of a feature vector; 512.
        dim: Dimensions of each layer's output; 2048.
    """

    def __init__(self, in_features: int = 512, dim: int = PROJECTION) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Linear(in_features, dim), nn.BatchNorm1d(dim), nn.ReLU(inplace=True))
        self.layer2 = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU(inplace=True))
        self.layer3 = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (N, dim) of features (N, in)."""
        return cast("Tensor", self.layer3(self.layer2(self.layer1(x))))


class Predictor(nn.Module):
    """Map embeddings (N, dim) to predictions of another view's embeddings (N, dim): fc-bn-relu, fc (Table S8).

    Args:
        dim: Dimensions of an embedding; 2048.
        hidden: Dimensions between the layers; 512.
    """

    def __init__(self, dim: int = PROJECTION, hidden: int = PREDICTION_HIDDEN) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
        self.layer2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions (N, dim) of embeddings (N, dim)."""
        return cast("Tensor", self.layer2(self.layer1(x)))


class CrissCross(nn.Module):
    """Backbones, projectors, predictors and loss in one module: views in, :class:`LossTerms` out.

    With the paper's sizes it has 49,662,080 parameters. The backbones are ordinary encoders, ``video_backbone``
    and ``audio_backbone``; in pretraining their last feature map is averaged, whatever their config's pooling.

    Args:
        video: Video encoder; default: R(2+1)D-18.
        audio: Audio encoder; default: ResNet-18.
        projection: Dimensions of an embedding (Table S7).
        prediction_hidden: Dimensions between a predictor's layers (Table S8).
        joint_views: Send both views of a modality through the network in one batch. It is faster, but batch norms
            then see the two views as one batch; the reference sends them one after the other.
        checkpoint_activations: Recompute the backbones' stages in the backward pass instead of keeping their
            activations, which saves memory. The results stay the same.
        **loss_weights: Weights of :func:`~crisscross_zoo.crisscross_loss`: ``intra_weight`` and so on. A modality
            that the loss does not use is not computed.

    Raises:
        ConfigError: a size or weight is out of range.
    """

    def __init__(
        self,
        video: VideoEncoder | None = None,
        audio: AudioEncoder | None = None,
        *,
        projection: int = PROJECTION,
        prediction_hidden: int = PREDICTION_HIDDEN,
        joint_views: bool = False,
        checkpoint_activations: bool = False,
        **loss_weights: float,
    ) -> None:
        super().__init__()
        for name, size in (("projection", projection), ("prediction_hidden", prediction_hidden)):
            if size < 1:
                raise ConfigError(f"{name}={size!r} is out of range", remedy="pass a whole number above 0")
        self._needed = needed_views(**loss_weights)
        self.video_backbone = VideoEncoder() if video is None else video
        self.video_projector = Projector(self.video_backbone.num_features, projection)
        self.video_predictor = Predictor(projection, prediction_hidden)
        self.audio_backbone = AudioEncoder() if audio is None else audio
        self.audio_projector = Projector(self.audio_backbone.num_features, projection)
        self.audio_predictor = Predictor(projection, prediction_hidden)
        for modality, view in (("video", "v1"), ("audio", "a1")):
            if view not in self._needed:
                for module in (
                    self._submodule(modality, kind) for kind in ("backbone", "projector", "predictor")
                ):
                    module.requires_grad_(False)
        self.joint_views = joint_views
        self.checkpoint_activations = checkpoint_activations
        self.loss_weights = loss_weights
        self.train()

    def forward(
        self,
        v1: Tensor | None = None,
        v2: Tensor | None = None,
        a1: Tensor | None = None,
        a2: Tensor | None = None,
    ) -> LossTerms:
        """Compute the loss of a batch. A view that the loss does not use is ignored, and may be None.

        Args:
            v1: First video view, (N, 3, T, H, W).
            v2: Second video view, the same shape.
            a1: First audio view, (N, 1, 80, T).
            a2: Second audio view, the same shape.

        Raises:
            InputError: a view that the loss uses is missing, or does not have the shape that its encoder takes.
        """
        z, p = self.embed(v1, v2, a1, a2)
        return crisscross_loss(p, z, **self.loss_weights)

    def embed(
        self, v1: Tensor | None, v2: Tensor | None, a1: Tensor | None, a2: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return ``(z, p)``: projector and predictor outputs (N, 2048) by view, of the views that the loss uses.

        Raises:
            InputError: as :meth:`forward`.
        """
        z: dict[str, Tensor] = {}
        p: dict[str, Tensor] = {}
        for names, given, modality in (
            (("v1", "v2"), (v1, v2), "video"),
            (("a1", "a2"), (a1, a2), "audio"),
        ):
            if names[0] not in self._needed:
                continue
            views = [view for view in given if view is not None]
            if len(views) < len(names):
                raise InputError(f"the loss needs both {names[0]} and {names[1]}", remedy="pass both views")
            if self.joint_views:
                embedding, prediction = self._project(torch.cat(views), modality)
                z.update(zip(names, embedding.chunk(2), strict=True))
                p.update(zip(names, prediction.chunk(2), strict=True))
            else:
                for name, view in zip(names, views, strict=True):
                    z[name], p[name] = self._project(view, modality)
        return z, p

    def parameter_groups(
        self, *, video_lr: float, audio_lr: float, video_predictor_lr: float, audio_predictor_lr: float
    ) -> list[dict[str, Any]]:
        """Return the four groups for an optimizer: backbone with projector, and predictor, of each modality.

        A modality that the loss does not use has no groups.
        """
        groups: list[dict[str, Any]] = []
        for modality, view, lr, predictor_lr in (
            ("video", "v1", video_lr, video_predictor_lr),
            ("audio", "a1", audio_lr, audio_predictor_lr),
        ):
            if view not in self._needed:
                continue
            base = [
                *self._submodule(modality, "backbone").parameters(),
                *self._submodule(modality, "projector").parameters(),
            ]
            groups.append({"name": f"{modality}_base", "params": base, "lr": lr})
            predictor = list(self._submodule(modality, "predictor").parameters())
            groups.append({"name": f"{modality}_predictor", "params": predictor, "lr": predictor_lr})
        return groups

    def _project(self, x: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        backbone = cast("Encoder", self._submodule(modality, "backbone"))
        if self.checkpoint_activations and torch.is_grad_enabled():
            for stage in backbone.stages():
                x = cast("Tensor", checkpoint(stage, x, use_reentrant=False, context_fn=_contexts(stage)))
        else:
            x = backbone.forward_features(x)
        embedding = self._submodule(modality, "projector")(x.flatten(2).mean(2))
        return embedding, self._submodule(modality, "predictor")(embedding)

    def _submodule(self, modality: str, kind: Literal["backbone", "projector", "predictor"]) -> nn.Module:
        return cast("nn.Module", getattr(self, f"{modality}_{kind}"))


def _contexts(
    stage: nn.Module,
) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    return lambda: (contextlib.nullcontext(), _same_statistics(stage))


@contextlib.contextmanager
def _same_statistics(stage: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are while a stage is recomputed."""
    norms = [m for m in stage.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1
