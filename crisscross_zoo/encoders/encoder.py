"""What both encoders have in common: stages, pooling, input checks, and the Hub's habits.

Saving and loading go through :mod:`crisscross_zoo.checkpoints.files`: strict, safetensors only, and with
an error of this package for whatever can go wrong, instead of the mixin's non-strict loading and its
fall-back to pickles.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import huggingface_hub
import torch
import torch.fx
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from crisscross_zoo.checkpoints.files import (
    CHECKPOINT_OF,
    CONFIG_FILE,
    MODEL_FILE,
    apply_state_dict,
    file_sha256,
    read_checkpoint,
    state_sha256,
    write_checkpoint,
)
from crisscross_zoo.checkpoints.hub import Access, hub_file
from crisscross_zoo.config import STAGES, AudioConfig, EncoderConfig, Pooling, config_from_dict
from crisscross_zoo.encoders.classifier import Classifier, clip_features, linear_head
from crisscross_zoo.encoders.inference import InferenceEncoder
from crisscross_zoo.encoders.pooling import pool
from crisscross_zoo.errors import CheckpointError, ConfigError, InputError, UnknownWeightsError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.numerics import plain_torch
from crisscross_zoo.settings import check_choice, check_count, check_path

_REDUCTIONS = (4, 4, 8, 16, 32)  # input pixels, or mel bands and columns, for one cell of each stage's map

_MODEL_CARD = """---
{{ card_data }}
---

# CrissCross {{ modality }} encoder

{{ architecture }} of depth {{ depth }} and width {{ width }}, as in
[Self-Supervised Audio-Visual Representation Learning with Relaxed Cross-Modal Synchronicity](
{{ paper_url }}), saved by CrissCross Zoo.

```python
from crisscross_zoo import load_encoder

encoder = load_encoder("{{ modality }}", weights="{{ repo_id }}")
features = encoder(encoder.preprocess({{ argument }})[None])
```

`config.json` and the header of `model.safetensors` hold the architecture and the preprocessing.

## Weights

{{ history }}
"""


class Encoder(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="crisscross-zoo",
    pipeline_tag="feature-extraction",
    tags=["crisscross", "self-supervised", "audio-visual", "feature-extraction"],
    paper_url="https://arxiv.org/abs/2111.05329",
):
    """Base of :class:`VideoEncoder` and :class:`AudioEncoder`: a backbone and a pooling.

    The state dict is the released backbone's, name by name; the pooling has no parameters. ``torch.fx`` traces it:
    torchvision's ``create_feature_extractor`` finds the maps by the names of :data:`crisscross_zoo.config.STAGES`.

    Attributes:
        config: Architecture and preprocessing, frozen.
        fc: The classifier, of :meth:`reset_classifier`; without one an identity.
        weights_id: Which weights these are: a name, ``org/name@commit`` or path; ``"unseeded"`` for a fresh
            encoder.
        weights_sha256: Of the file they were read from; None for a fresh encoder.
        card_data: What the manifest says of these weights, for the model card; None where they are not of it.
        checkpoint_config: The config in the file they were read from, where it is of the manifest.
    """

    architecture: ClassVar[str]
    config_type: ClassVar[type[EncoderConfig]]
    input_form: ClassVar[str]

    config: EncoderConfig
    weights_id: str
    weights_sha256: str | None
    card_data: huggingface_hub.ModelCardData | None
    checkpoint_config: EncoderConfig | None

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
        self.weights_id = "unseeded"
        self.weights_sha256 = None
        self.card_data = None
        self.checkpoint_config = None

    @abc.abstractmethod
    def stages(self) -> tuple[nn.Module, ...]:
        """Return the five stages in order, one for each of :data:`crisscross_zoo.config.STAGES`."""

    @property
    def num_features(self) -> int:
        """Channels of conv5x: 8 times the width; 512 for the released networks."""
        return 8 * self.config.width

    @property
    def num_classes(self) -> int:
        """How many logits :meth:`forward` gives; 0: it gives features."""
        return self.fc.out_features if isinstance(self.fc, nn.Linear) else 0

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels, reduction and module of each stage's map, as timm's wrappers ask for them."""
        channels = [self.config.width * factor for factor in (1, 1, 2, 4, 8)]
        return [
            {"num_chs": n, "reduction": r, "module": name}
            for n, r, name in zip(channels, _REDUCTIONS, STAGES, strict=True)
        ]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features (N, D) of a batch of clips; D depends on ``config.pooling`` and the clip.

        With a classifier (:meth:`reset_classifier`): logits (N, num_classes).

        Raises:
            InputError: ``x`` is no batch of clips, has another dtype than the weights, in eval mode also NaN or
                infinities; or it is too small for the pooling.
        """
        return self.forward_head(self.forward_features(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return what :meth:`forward` does, of conv5x; ``pre_logits``: the features, whatever is behind them."""
        x = pool(x, self.config.pooling)
        if not pre_logits:
            x = self.fc(x)
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, conv5x: (N, C, T', H', W') of video, (N, C, F', T') of audio.

        Raises:
            InputError: ``x`` has not the form of a batch.
        """
        x = self._checked(x)
        for name, stage in zip(STAGES, self.stages(), strict=True):
            x = self._named(name, stage, stage(x))
        return x

    def _checked(self, x: Tensor) -> Tensor:
        channels: tuple[int, ...] = (3,)
        form = self.input_form
        if isinstance(self.config, AudioConfig):
            form, channels = form.replace("F", str(self.config.n_mels)), (1, self.config.n_mels)
        weight = next(self.parameters())
        return _batch_of(x, form, channels, self.config.modality, weight, self.training)

    def _named(self, name: str, stage: nn.Module, x: Tensor) -> Tensor:
        """Pass a map through the identity that has the stage's name, where the stage itself has another."""
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
        """Return feature maps: all five by name or, asked in timm's way, those of some stages.

        Args:
            x: A batch of clips.
            indices: None: all five. Else as timm has it, and stages by name too: a sequence of numbers (negative
                ones from the end) and names, one name, or a number n for the last n.
            norm: Has no meaning here.
            stop_early: Go no further than the last stage wanted; its map is then the first of what is returned.
            output_fmt: "NCHW" alone: channels come second, for video too.
            intermediates_only: Return the list alone.

        Returns:
            Without ``indices``: ``{"conv1": ..., ..., "conv5x": ...}``, conv1 after its max pool. With them: conv5x
            and the list of maps, in the network's order. With ``intermediates_only``: the list.

        Raises:
            InputError: ``x`` has not the form of a batch.
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
        """Return the encoder with another pooling and the same parameters, not copied; itself, if nothing changes.

        Args:
            pooling: A name of :mod:`crisscross_zoo.encoders.pooling`; None: the present one.

        Raises:
            ConfigError: no pooling goes by this name.
        """
        if pooling in (None, self.config.pooling):
            return self
        other = copy.copy(self)
        other.config = self.config.replace(pooling=pooling)
        return other

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """Return the classifier: a linear layer, or an identity where there is none; ``name_only``: its name."""
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new linear layer behind the pooled features, in place, or take it away.

        :meth:`classifier` has the paper's settings: its pooling, dropout, batch norm, a frozen encoder.

        Args:
            num_classes: How many logits; 0: no classifier, :meth:`forward` gives features again.
            global_pool: Pooling from now on, as in :mod:`crisscross_zoo.encoders.pooling`; None: ``config.pooling``.
                With one whose length depends on the clip, clips must be as ``config`` has them.

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
        del self.fc  # so that it comes last, whatever was there
        self.fc = fc.train(self.training)

    def optimize_for_inference(self, dtype: torch.dtype = torch.float32) -> InferenceEncoder:
        """Return a module that gives the same numbers sooner; this encoder and its state dict stay as they are.

        Batch norms are folded and 3-D convolutions run as 2-D ones, see :mod:`crisscross_zoo.encoders.inference`. It
        has the weights of now: what is trained or loaded later does not reach it.

        Args:
            dtype: Of the weights, and of what is computed: float32, bfloat16 or float16. Clips may have any.
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
        pooling: str = "max",
        dropout: float = 0.0,
        batch_norm: bool = False,
        frozen: bool = False,
    ) -> Classifier:
        """Return this encoder with a linear layer behind it, to finetune or to train alone.

        Args:
            num_classes: How many logits.
            pooling: "max" as in full finetuning (section E.2), or any other of
                :mod:`crisscross_zoo.encoders.pooling`; for those whose length depends on the clip, clips must be as
                ``config`` has them.
            dropout: Share of the features that are dropped in training.
            batch_norm: Whether a batch norm comes before the layer.
            frozen: Train the layer alone.

        Raises:
            ConfigError: a value out of range.
            InputError: the config's clip is too small for the pooling.
        """
        return Classifier(
            self, num_classes, pooling=pooling, dropout=dropout, batch_norm=batch_norm, frozen=frozen
        )

    def generate_model_card(self, **kwargs: Any) -> huggingface_hub.ModelCard:
        """Return the card that ``save_pretrained`` writes where the folder has none.

        Weights of the manifest bring their license, data set and results; once they are changed, no results.
        """
        data = copy.deepcopy(self.card_data or self._hub_mixin_info.model_card_data)
        data.tags = list(dict.fromkeys([*(data.tags or []), self.config.modality]))
        history = "Say here what it was trained on, its license, its results and its limits."
        if self.card_data is not None:
            name = f"`{self.weights_id}` of CrissCross Zoo"
            if self._is_unchanged():
                history = (
                    f"{name}; no value was changed. The head of this file has their license, what they were"
                    " pretrained on, without labels, and the manifest's results, not measured again."
                )
            else:
                data.eval_results = data.metrics = data.model_name = None
                history = (
                    f"Trained further from {name}, whose license and data set are in the head of this file."
                    f" {history}"
                )
        facts = {
            "modality": self.config.modality,
            "architecture": self.architecture,
            "depth": self.config.depth,
            "width": self.config.width,
            "argument": {"video": "frames", "audio": "wave"}[self.config.modality],
            "paper_url": self._hub_mixin_info.paper_url,
            "repo_id": "org/name",
            "history": history,
        }
        card: huggingface_hub.ModelCard = huggingface_hub.ModelCard.from_template(
            data, template_str=_MODEL_CARD, **{**facts, **kwargs}
        )
        return card

    def _is_unchanged(self) -> bool:
        """Whether the weights are those of the manifest's file."""
        return (
            self.checkpoint_config is not None
            and state_sha256(self.state_dict(), self.checkpoint_config) == self.weights_sha256
        )

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> str:
        """Upload weights, config and card to a repository, in one commit, as the mixin does.

        Args:
            repo_id: ``org/name``; created if missing.
            model_card_kwargs: What the card's template takes.
            **kwargs: The mixin's: ``commit_message``, ``private``, ``token``, ``branch``, ``create_pr``, ...

        Returns:
            The commit's URL.
        """
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=card, **kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.num_classes:
            raise ConfigError(
                "a checkpoint holds a backbone, and this encoder has a classifier",
                remedy="keep get_classifier().state_dict() yourself, and save after reset_classifier(0)",
            )
        write_checkpoint(save_directory / MODEL_FILE, self.state_dict(), self.config)
        config = json.dumps(self.config.to_dict(), indent=2) + "\n"
        write_atomically(save_directory / CONFIG_FILE, config.encode())

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str | torch.device = "cpu",
        **fields: Any,
    ) -> Self:
        """Load an encoder from a folder, a safetensors file or a Hub repository; it is in eval mode.

        Args:
            pretrained_model_name_or_path: What exists on disk is read there; else it is a repository id.
            force_download: Download again what is cached.
            token: For private or gated repositories; default: the one that ``hf auth login`` stored.
            cache_dir: Instead of the Hub's own cache.
            local_files_only: Use the cache alone, never the network.
            revision: Branch, tag or commit of the repository; default: its main branch.
            map_location: Device of the encoder.
            **fields: Fields of the config to change, as in ``pooling="fusion"``.

        Raises:
            CheckpointError: the file is broken, of the other modality, or its keys, shapes or values do not
                fit.
            UnknownWeightsError: there is no such path, repository or revision.
            WeightsNotAvailableError: no access, or not in the cache while offline.
            DownloadError: the download failed.
            ConfigError: a field is unknown or out of range.
            InputError: the folder, file or repository is no text or path: bytes, an open file.
        """
        check_path("pretrained_model_name_or_path", pretrained_model_name_or_path)
        return cls._from_pretrained(
            model_id=os.fspath(pretrained_model_name_or_path),
            revision=revision,
            again=force_download,
            access=Access(
                cache_dir=None if cache_dir is None else Path(cache_dir),
                local_files_only=local_files_only,
                token=token,
            ),
            map_location=map_location,
            **fields,
        )

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # the mixin's says `strict`, which is not a choice here
        cls,
        *,
        model_id: str,
        revision: str | None,
        again: bool,
        access: Access,
        map_location: str | torch.device,
        **fields: Any,
    ) -> Self:
        if os.path.exists(model_id):  # noqa: PTH110  # Path.exists raises where the name is too long
            path, weights_id = Path(model_id), model_id
        else:
            path = _download(model_id, revision=revision, again=again, access=access)
            weights_id = f"{model_id}@{path.name}"  # as load_encoder has it
        state_dict, config = read_checkpoint(path)
        if config is None:
            raise CheckpointError(
                "there is no config, neither in the header nor in a file beside it",
                remedy=f"put the encoder's {CONFIG_FILE} beside {MODEL_FILE}",
                path=model_id,
            )
        if not isinstance(config, cls.config_type):
            raise CheckpointError(
                f"this is {CHECKPOINT_OF[config.modality]}, and {cls.__name__} cannot hold it",
                remedy=f"use {config.modality.capitalize()}Encoder",
                path=model_id,
            )
        with plain_torch(), torch.random.fork_rng(devices=()):
            encoder = cls(config, **fields).to(map_location)
            apply_state_dict(encoder, state_dict, source=model_id)
        encoder.weights_id = weights_id
        encoder.weights_sha256 = file_sha256(path / MODEL_FILE if path.is_dir() else path)
        return encoder.eval()


def _batch_of(
    x: Tensor, form: str, channels: tuple[int, ...], modality: str, weight: Tensor, training: bool
) -> Tensor:
    """Return ``x`` if it is a batch of clips, ``channels`` behind the first axis, of the dtype of ``weight``."""
    if not isinstance(x, Tensor):
        raise InputError(
            f"the {modality} encoder takes a tensor, not {type(x).__name__}",
            remedy="pass what preprocess returns; torch.from_numpy(x) wraps an array",
        )
    dims = form.count(",") + 1
    if x.ndim != dims or tuple(x.shape[1 : 1 + len(channels)]) != channels:
        raise InputError(
            f"the {modality} encoder takes a batch {form}, not {tuple(x.shape)}",
            remedy=_batch_remedy(tuple(x.shape), dims, channels),
        )
    if not x.is_floating_point():
        raise InputError(
            f"the {modality} encoder takes floating point, not {x.dtype}",
            remedy="pass what preprocess returns",
        )
    if x.dtype != weight.dtype and (x.dtype == torch.float64 or not torch.is_autocast_enabled(x.device.type)):
        raise InputError(
            f"the {modality} encoder's weights are {weight.dtype}, its input is {x.dtype}",
            remedy=f"pass x.to({weight.dtype}), or convert the encoder",
        )
    if not training and not _is_finite(x):
        raise InputError(
            f"the {modality} clips hold values that are not finite", remedy="replace NaN and infinities"
        )
    return x


def _batch_remedy(shape: tuple[int, ...], dims: int, channels: tuple[int, ...]) -> str:
    if len(shape) == dims - 1 and shape[: len(channels)] == channels:
        return "add the batch axis: x[None]"
    if len(channels) == 2 and len(shape) == dims - 1 and shape[1] == channels[1]:
        return "add the axis of channels: x[:, None]"
    waves = ", which takes waves (N, channels, samples)" if len(channels) == 2 else ""
    return f"make it with preprocess{waves}"


def _is_finite(x: Tensor) -> bool:
    """Whether there is neither NaN nor infinity in ``x``, as far as its values can be looked at."""
    tracing: Any = torch.jit
    if torch.compiler.is_compiling() or tracing.is_tracing():
        return True
    try:
        return bool(torch.isfinite(x).all())
    except RuntimeError:  # meta and fake tensors, vmap
        return True


# What looks at shapes is one call in a traced graph.
torch.fx.wrap("_batch_of")
torch.fx.wrap("pool")


def _wanted_stages(indices: int | str | Sequence[int | str] | None) -> set[int]:
    """Return the numbers of the stages that ``indices`` of :meth:`Encoder.forward_intermediates` means."""
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
        raise ConfigError("indices is empty", remedy="name a stage, or leave it out for all")
    return wanted


def _download(repo: str, *, revision: str | None, again: bool, access: Access) -> Path:
    """Fetch a checkpoint into the Hub's cache and return its folder there, named by the commit."""
    folder = hub_file(repo, MODEL_FILE, revision=revision, again=again, access=access).parent
    # Both files come from the same commit. The header of the weights may hold the config too; if neither
    # does, the caller says so.
    with contextlib.suppress(UnknownWeightsError):
        hub_file(repo, CONFIG_FILE, revision=folder.name, again=again, access=access)
    return folder
