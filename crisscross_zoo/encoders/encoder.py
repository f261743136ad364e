"""What both encoders have in common: stages, pooling, input checks, and the Hub's habits.

Saving and loading go through :mod:`crisscross_zoo.encoders.checkpoint`: strict, safetensors only, and with
an error of this package for whatever can go wrong, instead of the mixin's non-strict loading and its
fall-back to pickles.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self

import huggingface_hub
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from crisscross_zoo.atomic import write_atomically
from crisscross_zoo.config import STAGES, EncoderConfig, config_from_dict
from crisscross_zoo.encoders.checkpoint import (
    CHECKPOINT_OF,
    CONFIG_FILE,
    MODEL_FILE,
    apply_state_dict,
    file_sha256,
    read_checkpoint,
    write_checkpoint,
)
from crisscross_zoo.encoders.classifier import Classifier
from crisscross_zoo.encoders.hub import Access, hub_file
from crisscross_zoo.encoders.inference import InferenceEncoder
from crisscross_zoo.encoders.pooling import pool
from crisscross_zoo.errors import CheckpointError, ConfigError, InputError, UnknownWeightsError

_MODEL_CARD = """---
{{ card_data }}
---

# CrissCross {{ modality }} encoder

{{ architecture }} of depth {{ depth }} and width {{ width }}, as in
[Self-Supervised Audio-Visual Representation Learning with Relaxed Cross-Modal Synchronicity](
{{ paper_url }}), saved by CrissCross Zoo.

```python
from crisscross_zoo import load_encoder

encoder = load_encoder("{{ modality }}", weights="org/name")   # this repository's id
features = encoder(encoder.preprocess({{ argument }})[None])
```

`config.json` and the header of `model.safetensors` hold the architecture and the preprocessing. Say here what
it was trained on, its license, its results and its limits.
"""


class Encoder(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="crisscross-zoo",
    tags=["self-supervised", "feature-extraction"],
    paper_url="https://arxiv.org/abs/2111.05329",
    model_card_template=_MODEL_CARD,
):
    """Base of :class:`VideoEncoder` and :class:`AudioEncoder`: a backbone and a pooling.

    The state dict is the released backbone's, name by name; the pooling has no parameters.

    Attributes:
        config: Architecture and preprocessing, frozen.
        weights_id: Which weights these are: a name, ``org/name@commit`` or path; ``"unseeded"`` for a fresh
            encoder.
        weights_sha256: Of the file they were read from; None for a fresh encoder.
    """

    architecture: ClassVar[str]
    config_type: ClassVar[type[EncoderConfig]]
    input_form: ClassVar[str]
    input_channels: ClassVar[int]

    config: EncoderConfig
    weights_id: str
    weights_sha256: str | None

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
        self.weights_id = "unseeded"
        self.weights_sha256 = None

    @abc.abstractmethod
    def stages(self) -> tuple[nn.Module, ...]:
        """Return the five stages in order, one for each of :data:`crisscross_zoo.config.STAGES`."""

    @property
    def num_features(self) -> int:
        """Channels of conv5x: 8 times the width; 512 for the released networks."""
        return 8 * self.config.width

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features (N, D) of a batch of clips; D depends on ``config.pooling`` and the clip.

        Raises:
            InputError: ``x`` has not the form of a batch, or is too small for the pooling.
        """
        return pool(self.forward_features(x), self.config.pooling)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, conv5x: (N, C, T', H', W') of video, (N, C, F', T') of audio.

        Raises:
            InputError: ``x`` has not the form of a batch.
        """
        self._check_input(x)
        for stage in self.stages():
            x = stage(x)
        return x

    def forward_intermediates(self, x: Tensor) -> dict[str, Tensor]:
        """Return all five feature maps by name, conv1 (after its max pool) to conv5x.

        Raises:
            InputError: ``x`` has not the form of a batch.
        """
        self._check_input(x)
        maps = {}
        for name, stage in zip(STAGES, self.stages(), strict=True):
            x = maps[name] = stage(x)
        return maps

    def optimize_for_inference(self, dtype: torch.dtype = torch.float32) -> InferenceEncoder:
        """Return a module that gives the same numbers sooner; this encoder and its state dict stay as they are.

        Batch norms are folded and 3-D convolutions run as 2-D ones, see :mod:`crisscross_zoo.encoders.inference`. It
        has the weights of now: what is trained or loaded later does not reach it.

        Args:
            dtype: Of the weights, and of what is computed: float32, bfloat16 or float16. Clips may have any.
        """
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

    def _check_input(self, x: Tensor) -> None:
        dims = self.input_form.count(",") + 1
        if x.ndim != dims or x.shape[1] != self.input_channels:
            raise InputError(
                f"the {self.config.modality} encoder takes a batch {self.input_form}, not {tuple(x.shape)}",
                remedy="add the batch axis: x[None]" if x.ndim == dims - 1 else "make it with preprocess",
            )
        if not x.is_floating_point():
            raise InputError(
                f"the {self.config.modality} encoder takes floating point, not {x.dtype}",
                remedy="pass what preprocess returns",
            )

    def generate_model_card(self, *args: Any, **kwargs: Any) -> huggingface_hub.ModelCard:
        """Return the card that ``save_pretrained`` writes where the folder has none."""
        facts = {
            "modality": self.config.modality,
            "architecture": self.architecture,
            "depth": self.config.depth,
            "width": self.config.width,
            "argument": {"video": "frames", "audio": "wave"}[self.config.modality],
        }
        return super().generate_model_card(*args, **{**facts, **kwargs})

    def _save_pretrained(self, save_directory: Path) -> None:
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
        """
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
        with torch.random.fork_rng(devices=()):
            encoder = cls(config, **fields).to(map_location)
        apply_state_dict(encoder, state_dict, source=model_id)
        encoder.weights_id = weights_id
        encoder.weights_sha256 = file_sha256(path / MODEL_FILE if path.is_dir() else path)
        return encoder.eval()


def _download(repo: str, *, revision: str | None, again: bool, access: Access) -> Path:
    """Fetch a checkpoint into the Hub's cache and return its folder there, named by the commit."""
    folder = hub_file(repo, MODEL_FILE, revision=revision, again=again, access=access).parent
    # Both files come from the same commit. The header of the weights may hold the config too; if neither
    # does, the caller says so.
    with contextlib.suppress(UnknownWeightsError):
        hub_file(repo, CONFIG_FILE, revision=folder.name, again=again, access=access)
    return folder
