"""Files of encoders and classifiers: ``from_pretrained``, ``save_pretrained``, ``push_to_hub``.

Saving and loading use :mod:`crisscross_zoo.checkpoints.files`: strict, safetensors only, and with errors of this
package. The Hub's mixin, in contrast, loads non-strictly and falls back to pickles.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from torch import nn

from crisscross_zoo.checkpoints.card import LIBRARY, PIPELINE, TAGS, UNKNOWN_HISTORY, model_card
from crisscross_zoo.checkpoints.files import (
    CHECKPOINT_OF,
    CONFIG_FILE,
    MODEL_FILE,
    Fields,
    build_strictly,
    read_checkpoint,
    read_tensors,
    state_sha256,
    weights_file,
    write_folder,
)
from crisscross_zoo.checkpoints.hub import Access, hub_error, hub_file, is_of_hub
from crisscross_zoo.config import EncoderConfig
from crisscross_zoo.errors import (
    CheckpointError,
    ConfigError,
    CrissCrossError,
    OtherModalityError,
    UnknownWeightsError,
)
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.numerics import plain_torch
from crisscross_zoo.settings import check_path


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Weights as they were loaded.

    Attributes:
        sha256: Their sha256, see :meth:`EncoderMixin.values_sha256`; another than that of their file.
        card_data: The manifest's facts for the model card; None for weights that it does not list.
    """

    sha256: str
    card_data: ModelCardData | None = None


class EncoderMixin(
    nn.Module,
    PyTorchModelHubMixin,
    library_name=LIBRARY,
    pipeline_tag=PIPELINE,
    tags=list(TAGS),
    paper_url="https://arxiv.org/abs/2111.05329",
):
    """Files and the Hub for an encoder, which has a ``config`` and is made by ``cls(config, **fields)``.

    Attributes:
        weights_id: The name of the weights, ``org/name@commit`` or a path; ``"unseeded"`` for a fresh encoder.
        weights_sha256: sha256 of the weights' file; None for a fresh encoder.
        loaded: The weights as they were loaded; None for a fresh encoder.
    """

    architecture: ClassVar[str]
    config_type: ClassVar[type[EncoderConfig]]

    config: EncoderConfig
    weights_id: str = "unseeded"
    weights_sha256: str | None = None
    loaded: Loaded | None = None

    @property
    @abc.abstractmethod
    def num_classes(self) -> int:
        """Number of logits of the encoder's classifier; 0 without one."""

    def values_sha256(self) -> str:
        """Return the sha256 of the values in float32, whatever the dtype and the config."""
        values = {k: v.float() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        return state_sha256(values, self.config_type())

    def is_changed(self) -> bool:
        """Return whether a value is another than when the weights were loaded; False if they were not loaded."""
        return self.loaded is not None and self.values_sha256() != self.loaded.sha256

    def generate_model_card(self, **kwargs: Any) -> ModelCard:
        """Return the card that ``save_pretrained`` writes if the folder has none.

        For weights of the manifest the card has their license, data set and results; for changed weights no results.
        """
        info = self._hub_mixin_info
        listed = None if self.loaded is None else self.loaded.card_data
        data = copy.deepcopy(info.model_card_data if listed is None else listed)
        data.tags = list(dict.fromkeys([*(data.tags or []), self.config.modality]))
        history = UNKNOWN_HISTORY
        if listed is not None:
            name = f"`{self.weights_id}` of CrissCross Zoo"
            if not self.is_changed():
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
        origin = (
            "as in [Self-Supervised Audio-Visual Representation Learning with Relaxed Cross-Modal Synchronicity](\n"
            f"{info.paper_url}), saved by CrissCross Zoo."
        )
        texts = {"origin": origin, "history": history, **kwargs}
        return model_card(data, self.architecture, self.config, **texts)

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> str:
        """Upload weights, config and card to a repository, in one commit, as the mixin does.

        Args:
            repo_id: ``org/name``; created if missing.
            model_card_kwargs: Values for the card's template.
            **kwargs: Arguments of the mixin: ``commit_message``, ``private``, ``token``, ``branch``, ``create_pr``, ...

        Returns:
            The commit's URL.

        Raises:
            ConfigError: the encoder has a classifier.
            WeightsNotAvailableError: no access: no token, or one that may not write there.
            DownloadError: the Hub cannot be reached.
        """
        card = {"repo_id": repo_id, **(model_card_kwargs or {})}
        try:
            return super().push_to_hub(repo_id, model_card_kwargs=card, **kwargs)
        except Exception as error:  # the client's transport, hence its errors, changes with its version
            if isinstance(error, CrissCrossError) or not is_of_hub(error):
                raise
            raise hub_error(error, repo_id, file=MODEL_FILE, doing="push to") from error

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.num_classes:
            raise ConfigError(
                "a checkpoint holds a backbone, and this encoder has a classifier",
                remedy="keep get_classifier().state_dict() yourself, and save after reset_classifier(0)",
            )
        write_folder(save_directory, self.state_dict(), self.config)

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
        """Return the encoder of a folder, a safetensors file or a Hub repository, in eval mode.

        Args:
            pretrained_model_name_or_path: A path that exists on disk; anything else is a repository id.
            force_download: Download files again that are cached.
            token: For private or gated repositories; default: the token that ``hf auth login`` stored.
            cache_dir: Cache, instead of the Hub's own.
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
            InputError: the folder, file or repository is not a str or path, such as bytes or an open file.
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
    def _from_pretrained(  # type: ignore[override]  # the mixin has `strict`, which is no option here
        cls,
        *,
        model_id: str,
        revision: str | None,
        again: bool,
        access: Access,
        map_location: str | torch.device,
        **fields: Any,
    ) -> Self:
        if os.path.exists(model_id):  # Path.exists raises where the name is too long
            path, weights_id = Path(model_id), model_id
        else:
            path = _download(model_id, revision=revision, again=again, access=access)
            weights_id = f"{model_id}@{path.name}"  # as load_encoder has it
        state_dict, config = read_checkpoint(path)
        if config is None:
            raise _no_config("encoder", model_id)
        if not isinstance(config, cls.config_type):
            raise OtherModalityError(
                f"this is {CHECKPOINT_OF[config.modality]}, and {cls.__name__} cannot hold it",
                remedy=f"use {config.modality.capitalize()}Encoder",
                path=model_id,
            )
        build = functools.partial(cls, **fields)
        encoder = build_strictly(build, config, state_dict, source=model_id)
        encoder.weights_id = weights_id
        encoder.weights_sha256 = file_sha256(weights_file(path))
        encoder.loaded = Loaded(sha256=encoder.values_sha256())
        with plain_torch():
            return encoder.to(map_location).eval()


class ClassifierFields(Fields, Protocol):
    """The config of a classifier that is stored in a file."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Return the config that ``to_dict`` wrote.

        Raises:
            ConfigError: a field is missing, unknown or out of range.
        """
        ...


class ClassifierMixin(nn.Module):
    """Files for a classifier, which has a ``config`` and is made from it by ``cls.from_config``."""

    config_type: ClassVar[type[ClassifierFields]]

    config: ClassifierFields

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: Any) -> Self:
        """Return a classifier with fresh weights."""

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Save encoder, head and config to a folder: ``model.safetensors`` and ``config.json``.

        Args:
            save_directory: Made if missing; files of these names are replaced.

        Raises:
            ConfigError: the encoder has a classifier of its own, of
                :meth:`~crisscross_zoo.encoders.encoder.Encoder.reset_classifier`.
            InputError: the folder is not a str or path.
            OSError: the files cannot be written.
        """
        check_path("save_directory", save_directory)
        if any(name.startswith("encoder.fc.") for name in self.state_dict()):
            raise ConfigError(
                "the classifier's encoder has a classifier of its own",
                remedy="remove it: classifier.encoder.reset_classifier(0)",
            )
        write_folder(Path(save_directory), self.state_dict(), self.config)

    @classmethod
    def from_pretrained(
        cls, pretrained_path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu"
    ) -> Self:
        """Return the classifier that :meth:`save_pretrained` saved, in eval mode.

        Args:
            pretrained_path: The folder, or the safetensors file in it; nothing is downloaded.
            map_location: Device of the classifier.

        Raises:
            UnknownWeightsError: there is no such file or folder.
            CheckpointError: the file is broken, of an encoder alone, or its keys, shapes or values do not fit.
            InputError: the folder is not a str or path.
        """
        check_path("pretrained_path", pretrained_path)
        path = Path(pretrained_path)

        def parse(fields: dict[str, Any]) -> ClassifierFields:
            if "modality" in fields:
                raise CheckpointError(
                    "this is the checkpoint of an encoder alone",
                    remedy="use load_encoder and classifier()",
                    path=path,
                )
            return cls.config_type.from_dict(fields)

        state_dict, config = read_tensors(path, parse)
        if config is None:
            raise _no_config("classifier", os.fspath(path))
        classifier = build_strictly(cls.from_config, config, state_dict, source=os.fspath(path))
        with plain_torch():
            return classifier.to(map_location).eval()


def _no_config(kind: str, source: str) -> CheckpointError:
    return CheckpointError(
        "there is no config, neither in the header nor in a file beside it",
        remedy=f"put the {kind}'s {CONFIG_FILE} beside {MODEL_FILE}",
        path=source,
    )


def _download(repo: str, *, revision: str | None, again: bool, access: Access) -> Path:
    """Download a checkpoint to the Hub's cache and return its folder there, which has the name of the commit."""
    folder = hub_file(repo, MODEL_FILE, revision=revision, again=again, access=access).parent
    # Both files come from the same commit. The config may also be in the header of the weights; if it is in neither,
    # the caller raises.
    with contextlib.suppress(UnknownWeightsError):
        hub_file(repo, CONFIG_FILE, revision=folder.name, again=again, access=access)
    return folder
