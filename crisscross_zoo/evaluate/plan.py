"""The plan of an evaluation: settings, files, weights and device, fixed before any media file is read."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from crisscross_zoo.config import POOLINGS, EncoderConfig, Pooling
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.encoders.head import clip_features
from crisscross_zoo.errors import ConfigError, CrissCrossError, InputError, NoStreamError
from crisscross_zoo.evaluate.datasets import Fold, LabelledData
from crisscross_zoo.evaluate.protocols import TABLE, ProtocolConfig, changed_settings
from crisscross_zoo.evaluate.retrieval import Heads
from crisscross_zoo.extract.extractor import FeatureExtractor
from crisscross_zoo.media.clips import Views
from crisscross_zoo.settings import Precision, check, check_training_precision, pick_device
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS, VideoAugment
from crisscross_zoo.weights.load import id_in_run
from crisscross_zoo.weights.loaded import LoadedWeights, Weights, load_weights

_CLIP_LENGTHS = {"video": ("size", 1, 0), "audio": ("seconds", 0.01, 2)}
"""By modality, the setting that makes a clip large enough for the pooling: its name, step and decimals."""


def default_cache() -> Path:
    """Return the folder of cached features: ``$CRISSCROSS_CACHE``, or ``crisscross_zoo`` in the user's cache folder."""
    if named := os.environ.get("CRISSCROSS_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "crisscross_zoo" / "features"


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How an evaluation is computed. Apart from the precision, none of these options should change a result.

    Attributes:
        device: "auto", or a torch device.
        precision: Precision of the encoder: fp32, bf16 or fp16.
        batch_size: Clips per batch in extraction.
        workers: Processes that decode.
        cache: Folder of the cached features.
    """

    device: str = "auto"
    precision: Precision = "fp32"
    batch_size: int | None = None
    workers: int | None = None
    cache: Path = field(default_factory=default_cache)

    def __post_init__(self) -> None:
        check("precision", self.precision, Precision)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One evaluation, as :func:`make_plan` makes it.

    Attributes:
        config: The protocol's settings.
        data: The data set.
        folds: The folds to evaluate, by number.
        weights: The weights by modality: "video", "audio" or both.
        run: Name of the pretraining run that the weights are from; None if they are not from a run.
        compute: How the evaluation is computed.
        device: The device that ``compute`` names.
        heads: Heads by modality, for retrieval across modalities; empty if there are none.
        out: The result's folder.
        overwrite: Whether another evaluation's result in ``out`` is replaced.
    """

    config: ProtocolConfig
    data: LabelledData
    folds: Mapping[int, Fold]
    weights: Mapping[str, LoadedWeights]
    run: str | None
    compute: Compute
    device: torch.device
    heads: Mapping[str, Heads]
    out: Path
    overwrite: bool

    @property
    def sha256(self) -> dict[str, str | None]:
        """The weights' sha256 by modality."""
        return {name: loaded.sha256 for name, loaded in self.weights.items()}

    def identity(self) -> dict[str, Any]:
        """Return everything that the results depend on, besides the contents of the files."""
        config = self.config
        settings = config.to_dict()
        return {
            "protocol": config.protocol,
            "dataset": config.dataset,
            "setup": config.setup,
            "weights": {name: {"id": w.id, "sha256": w.sha256} for name, w in self.weights.items()},
            "run": self.run,
            "select": config.select,
            "released": config.released,
            "source": config.source,
            "root": str(Path(self.data.root).absolute()),
            "folds_evaluated": list(self.folds),
            "settings": {k: v for k, v in settings.items() if isinstance(v, dict)} | {"seed": config.seed},
            "changed": changed_settings(config),
            "precision": self.compute.precision,
        }

    def folder(self, number: int) -> Path:
        """Return the folder of a fold's checkpoint."""
        return self.out / f"fold{number}"

    def clip(self, modality: str) -> EncoderConfig:
        """Return the encoder's config with the clips of the settings: their length, frame rate, size and pooling."""
        return _clip(self.config, self.weights[modality].encoder.config)

    def views(self, draw: int = 0) -> Views:
        """Return the augmentation of training clips: that of Tables S1 and S2 which Tables S3 and S4 tick.

        Args:
            draw: Number of the draw; each draw has other windows and other random augmentations.
        """
        config = self.config
        if not config.clips.augment:
            return Views(video=None, audio=None, seed=config.seed, epoch=draw)
        video = dataclasses.replace(VIDEO_AUGMENTS["linear"], released=config.released)
        audio = dataclasses.replace(AUDIO_AUGMENTS["linear"], released=config.released)
        return Views(video=video, audio=audio, seed=config.seed, epoch=draw)

    def in_settings(self, error: CrissCrossError) -> CrissCrossError:
        """Return a file's error with a remedy in terms of settings: another setup if the file lacks a stream."""
        if not isinstance(error, NoStreamError):
            return error
        others = {"video": "audio", "audio": "video"}
        other = setup_of(self.config, others.get(self.config.modality))
        remedy = "leave it out" if other is None else f"pass --setup {other}"
        return NoStreamError(error.reason, remedy=remedy, path=error.path)

    @property
    def finetuning_augment(self) -> VideoAugment | None:
        """The augmentation of finetuning; None if the settings turn augmentation off."""
        if not self.config.clips.augment:
            return None
        return dataclasses.replace(VIDEO_AUGMENTS["finetuning"], released=self.config.released)

    def extractor(
        self,
        *,
        views: Views | None = None,
        pooling: Pooling | None = None,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> FeatureExtractor:
        """Return an extractor for the clips of the settings.

        Args:
            views: Augmentation of training clips, which have random windows; None: test clips, which are uniform.
            pooling: Pooling of the features; default: that of the settings.
            encoders: Encoders by modality; default: those of the plan.
        """
        clips, modality = self.config.clips, self.config.modality
        options: dict[str, Any] = {}
        if modality != "audio":
            options |= {"frames": clips.frames, "fps": clips.fps, "size": clips.size}
        if modality != "video":
            options |= {"audio_seconds": clips.seconds}
        return FeatureExtractor(
            encoders or {name: loaded.encoder for name, loaded in self.weights.items()},
            cast(Any, modality),
            device=self.device,
            pooling=pooling or clips.pooling,
            precision=self.compute.precision,
            clips=clips.test if views is None else clips.train,
            views=views,
            batch_size=self.compute.batch_size,
            workers=self.compute.workers,
            **options,
        )


def make_plan(
    config: ProtocolConfig,
    data: LabelledData,
    folds: Mapping[int, Fold],
    weights: Weights | Mapping[str, Weights],
    *,
    out: Path,
    compute: Compute | None = None,
    heads: Mapping[str, Heads] | None = None,
    overwrite: bool = False,
) -> Plan:
    """Make the plan of an evaluation and load its weights; no media file is opened.

    Args:
        config: The protocol's settings.
        data: Files, labels and folds.
        folds: The folds of ``data`` to evaluate, by number.
        weights: As for :func:`~crisscross_zoo.evaluate.run.evaluate`.
        out: The result's folder.
        compute: Device, precision and the like.
        heads: Heads by modality, for retrieval across modalities.
        overwrite: Replace another evaluation's result in ``out``.

    Raises:
        ConfigError: the device does not exist or cannot train in this precision, the clips are too small for the
            pooling, or the heads are of other encoders.
        WeightsError: the weights cannot be loaded.
    """
    compute, heads = compute or Compute(), heads or {}
    device = pick_device(compute.device)
    if config.finetune is not None:
        check_training_precision(device.type, compute.precision)
    loaded = load_weights(weights, config.modality)
    for modality_weights in loaded.values():
        _check_fits(_clip(config, modality_weights.encoder.config))
    for name in sorted(set(heads) & set(loaded)):
        wanted, found = heads[name].num_features, loaded[name].encoder.num_features
        if wanted != found:
            raise ConfigError(
                f"the heads take {name} features of {wanted} channels, the encoder has {found}",
                remedy="pass the heads of the run that the weights come from",
            )
    run = None
    if isinstance(weights, str | os.PathLike):
        folder = Path(weights)
        of_run = all(w.id == id_in_run(folder, name) for name, w in loaded.items())
        run = folder.resolve().name if of_run else None
    return Plan(
        config=config,
        data=data,
        folds=folds,
        weights=loaded,
        run=run,
        compute=compute,
        device=device,
        heads=heads,
        out=out,
        overwrite=overwrite,
    )


def setup_of(config: ProtocolConfig, modality: str | None) -> str | None:
    """Return the setup of the same protocol and data set for another modality; None if there is none."""
    same = (config.protocol, config.dataset, modality)
    return next((c.setup for c in TABLE if (c.protocol, c.dataset, c.modality) == same), None)


def _clip(config: ProtocolConfig, own: EncoderConfig) -> EncoderConfig:
    clips = config.clips
    if own.modality == "video":
        return own.replace(frames=clips.frames, fps=clips.fps, size=clips.size, pooling=clips.pooling)
    return own.replace(seconds=clips.seconds, pooling=clips.pooling)


def _check_fits(clip: EncoderConfig) -> None:
    """Raise a ConfigError that names the settings if a clip is too small for the pooling."""
    try:
        clip_features(clip, clip.pooling)
    except InputError as error:
        name, step, decimals = _CLIP_LENGTHS[clip.modality]
        first = math.ceil(getattr(clip, name) / step)
        enough = (n * step for n in range(first, 10_000) if _fits(clip.replace(**{name: n * step})))
        least = next(enough, None)
        longer = "" if least is None else f"--clips.{name} {least:.{decimals}f} or more, or "
        others = ", ".join(other for other in POOLINGS if _fits(clip.replace(pooling=other)))
        raise ConfigError(
            f"the {clip.modality} clip does not fit: {error.reason}",
            remedy=f"pass {longer}another --clips.pooling ({others})",
        ) from None


def _fits(clip: EncoderConfig) -> bool:
    try:
        clip_features(clip, clip.pooling)
    except InputError:
        return False
    return True
