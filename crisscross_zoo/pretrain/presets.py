"""Every setting of a pretraining run in frozen dataclasses, and the paper's settings as presets (Table S10).

A preset is a :class:`PretrainConfig`. The command line overrides any field by its dotted name, such as
``--optim.batch-size``, and writes the resolved settings to ``config.json`` in the run's folder.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.pretrain.relaxation import RELAXATIONS
from crisscross_zoo.settings import (
    FIXED,
    PRECISIONS,
    Count,
    NotNegative,
    OneOf,
    Range,
    Ratio,
    Settings,
    Whole,
    check_choice,
)
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS, AudioAugment, VideoAugment

PROJECTION = 2048
"""Dimensions of an embedding (Table S7)."""

PREDICTION_HIDDEN = 512
"""Dimensions between the two layers of a predictor (Table S8)."""

_Beta = Annotated[float, Range(least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Training samples: how many, and their views.

    Attributes:
        epoch_size: Samples in an epoch ("es" in Table S10); 0: one of each file.
        relaxation: How far apart in time the two views of a modality are: none, mild, medium, extreme or mixed.
        crop: Side of the square video views in pixels (112 in section F). It does not change the size in the
            checkpoint, which is for evaluation.
        frames: Frames of a video view; 0: ``video.frames``, which otherwise decides the checkpoint's clips alone.
        fps: Frames per second of the video views; 0: ``video.fps``, which otherwise decides the checkpoint's alone.
        loose_sync: Draw the video window anywhere in the audio window, as the released code does, instead of
            centring it.
    """

    epoch_size: Whole = 0
    relaxation: Annotated[str, OneOf(RELAXATIONS)] = "mild"
    crop: Count = 112
    frames: Whole = 0
    fps: NotNegative = 0.0
    loose_sync: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loose_sync and self.relaxation != "mild":
            raise ConfigError(
                f"data.loose_sync is defined for relaxation 'mild' alone, not for {self.relaxation!r}",
                remedy="pass --no-data.loose-sync, or relaxation mild",
            )


@dataclass(frozen=True, kw_only=True)
class HeadsConfig(Settings):
    """The projectors and predictors, and how views pass through the network.

    Attributes:
        projection: Dimensions of an embedding (Table S7).
        prediction_hidden: Dimensions between a predictor's layers (Table S8).
        joint_views: Send both views of a modality through the network in one batch: faster, but batch norms see both
            as one batch.
    """

    projection: Count = PROJECTION
    prediction_hidden: Count = PREDICTION_HIDDEN
    joint_views: bool = False


@dataclass(frozen=True, kw_only=True)
class LossConfig(Settings):
    """Weights of the loss's terms, see :mod:`crisscross_zoo.pretrain.loss`.

    Attributes:
        intra_weight: Weight of the term within modalities; 1 is Algorithm 1, 0.5 the released code's mean of six pairs.
        sync_weight: Weight of the term across modalities at the same time.
        async_weight: Weight of the term across modalities at different times.
        video_weight: Weight of the video pair inside the intra-modal term.
        audio_weight: Weight of the audio pair inside the intra-modal term.
    """

    intra_weight: NotNegative = 1.0
    sync_weight: NotNegative = 1.0
    async_weight: NotNegative = 1.0
    video_weight: NotNegative = 1.0
    audio_weight: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Settings):
    """Optimizer and schedule (Table S10).

    Attributes:
        batch_size: Samples per step, over all ranks and micro-batches.
        accumulate: Micro-batches that each rank's part of a batch is split into; their gradients are accumulated.
            Batch norms see one micro-batch at a time.
        epochs: Number of epochs.
        warmup_epochs: Epochs of linear warm-up; the released config has 2.
        video_lr: Highest learning rate of the video backbone and projector.
        video_final_lr: Final learning rate of the video backbone and projector.
        audio_lr: Highest learning rate of the audio backbone and projector.
        audio_final_lr: Final learning rate of the audio backbone and projector.
        video_predictor_lr: Constant learning rate of the video predictor.
        audio_predictor_lr: Constant learning rate of the audio predictor.
        weight_decay: Adam's weight decay, on every parameter.
        betas: Adam's betas.
        larc: Clip learning rates by layer (LARC), as the paper does at a batch size of 2048.
        larc_trust: LARC's trust coefficient.
        larc_eps: LARC's epsilon.
        precision: fp32, bf16, fp16 (autocast; fp16 with a gradient scaler), or fp64 for checks.
    """

    batch_size: Annotated[int, Range(2)] = 512
    accumulate: Count = 1
    epochs: Count = 100
    warmup_epochs: NotNegative = 2.0
    video_lr: NotNegative = 2e-4
    video_final_lr: NotNegative = 0.0
    audio_lr: NotNegative = 2e-4
    audio_final_lr: NotNegative = 0.0
    video_predictor_lr: NotNegative = 2e-3
    audio_predictor_lr: NotNegative = 2e-3
    weight_decay: NotNegative = 1e-4
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    larc: bool = False
    larc_trust: float = 1e-3
    larc_eps: float = 1e-8
    precision: Annotated[str, OneOf((*PRECISIONS, "fp64"))] = "fp32"


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """How to run. Apart from rounding, these settings do not change the result; they may change when a run is resumed.

    Attributes:
        device: auto, cpu or cuda.
        workers: Data-loading workers of each rank; 0 loads in the training process, -1 starts one for each core of the
            rank, 16 at most.
        data_bytes: Bytes of samples that one machine may hold before they are trained on, over all its ranks and
            workers.
        read_seconds: Seconds that reading one file may take. After that its worker is restarted, and the file is
            skipped from then on.
        channels_last: Keep activations channels-last, which is faster; not where ``compile`` compiles for a GPU.
        compile: Use torch.compile.
        checkpoint_activations: Recompute activations in the backward pass: less memory, more time.
        save_steps: Steps between checkpoints. A checkpoint is also written at the end and when a signal stops the run.
        keep: Number of checkpoints to keep.
        max_failed: Largest fraction of samples whose file may fail. Above it the run stops, from its 200th sample on.
        log_steps: Steps between rows of log.csv.
        tensorboard: Also write TensorBoard files.
        wandb: Weights and Biases project to log to; empty: none.
    """

    device: str = "auto"
    workers: Annotated[int, Range(-1)] = -1
    data_bytes: Count = 16_000_000_000
    read_seconds: Annotated[float, Range(1e-3)] = 300.0
    channels_last: bool = True
    compile: bool = False
    checkpoint_activations: bool = False
    save_steps: Count = 500
    keep: Count = 2
    max_failed: Ratio = 0.05
    log_steps: Count = 10
    tensorboard: bool = True
    wandb: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile and self.checkpoint_activations:
            raise ConfigError(
                "run.compile and run.checkpoint_activations do not go together", remedy="pass one of them"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Settings):
    """All settings of a pretraining run.

    Attributes:
        preset: The preset that the settings start from.
        objective: The row of :data:`OBJECTIVES` that the settings start from.
        seed: Random seed of the initial weights and of every sample.
        video: Video encoder, and the preprocessing written into its checkpoint.
        audio: Audio encoder, and its preprocessing.
        heads: Projectors and predictors.
        data: Training samples.
        video_augment: Video augmentation (Table S1).
        audio_augment: Audio augmentation (Table S2).
        loss: Weights of the loss's terms.
        optim: Optimizer and schedule.
        run: How to run.
    """

    preset: Annotated[str, FIXED]
    objective: Annotated[str, FIXED] = "crisscross"
    seed: Whole = 0
    video: VideoConfig = field(default_factory=VideoConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    video_augment: VideoAugment = VIDEO_AUGMENTS["pretraining"]
    audio_augment: AudioAugment = AUDIO_AUGMENTS["pretraining"]
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @functools.cached_property
    def views(self) -> VideoConfig:
        """The video config of the training views: the encoder's config with the crop, frames and fps of ``data``."""
        video, data = self.video, self.data
        return video.replace(size=data.crop, frames=data.frames or video.frames, fps=data.fps or video.fps)

    def decisive(self) -> dict[str, Any]:
        """Return the settings of :meth:`to_dict` that decide the result: all but ``run``."""
        return {name: value for name, value in self.to_dict().items() if name != "run"}


PRESETS: dict[str, PretrainConfig] = {
    "kinetics-sound": PretrainConfig(
        preset="kinetics-sound",
        data=DataConfig(epoch_size=220_000),
        optim=OptimConfig(batch_size=512, precision="fp16"),
    ),
    "kinetics400": PretrainConfig(
        preset="kinetics400",
        data=DataConfig(epoch_size=1_000_000),
        optim=OptimConfig(
            batch_size=2048, larc=True, video_final_lr=1e-4, audio_final_lr=1e-4, precision="fp16"
        ),
    ),
    "audioset": PretrainConfig(
        preset="audioset",
        data=DataConfig(epoch_size=3_500_000),
        optim=OptimConfig(
            batch_size=2048,
            larc=True,
            video_lr=1e-4,
            audio_lr=1e-4,
            video_predictor_lr=1e-3,
            audio_predictor_lr=1e-3,
            precision="fp16",
        ),
    ),
    "demo": PretrainConfig(
        preset="demo",
        video=VideoConfig(depth=10, width=8, size=112),
        audio=AudioConfig(depth=10, width=8),
        heads=HeadsConfig(projection=256, prediction_hidden=64),
        data=DataConfig(crop=56),
        video_augment=VideoAugment(area=(0.3, 0.8), hue=0.1, blur=0.0, cutout=0),
        loss=LossConfig(intra_weight=0.5),
        optim=OptimConfig(
            batch_size=32,
            epochs=15,
            warmup_epochs=0.5,
            video_lr=2e-3,
            audio_lr=2e-3,
            video_predictor_lr=2e-3,
            audio_predictor_lr=2e-3,
        ),
        run=RunConfig(device="cpu", workers=1, save_steps=100),
    ),
    "world": PretrainConfig(
        preset="world",
        video=VideoConfig(depth=10, width=16, size=112),
        audio=AudioConfig(depth=18, width=24),
        heads=HeadsConfig(projection=512, prediction_hidden=128),
        data=DataConfig(relaxation="mixed", crop=56, frames=4, fps=8.0),
        video_augment=VideoAugment(area=(0.3, 1.0), hue=0.1, blur=0.0, cutout=0),
        loss=LossConfig(intra_weight=3.0),
        optim=OptimConfig(
            batch_size=64,
            epochs=15,
            warmup_epochs=1,
            video_lr=5e-4,
            audio_lr=5e-4,
            video_predictor_lr=5e-3,
            audio_predictor_lr=5e-3,
        ),
        run=RunConfig(device="cpu", workers=2, save_steps=200),
    ),
}
"""Table S10. Warm-up, LARC's constants and mixed precision are the released config's; the table omits them.
The settings of demo and world are this package's own: they make few steps with small networks, so they have higher
learning rates and milder augmentation."""

_ONLY_INTRA = {"loss.sync_weight": 0.0, "loss.async_weight": 0.0}

OBJECTIVES: dict[str, dict[str, float]] = {
    "crisscross": {},
    "intra": _ONLY_INTRA,
    "sync": {"loss.intra_weight": 0.0, "loss.async_weight": 0.0},
    "async": {"loss.intra_weight": 0.0, "loss.sync_weight": 0.0},
    "intra+sync": {"loss.async_weight": 0.0},
    "intra+async": {"loss.sync_weight": 0.0},
    "sync+async": {"loss.intra_weight": 0.0},
    "v1v2": {
        **_ONLY_INTRA, "loss.audio_weight": 0.0, "optim.video_lr": 1e-4, "optim.video_predictor_lr": 1e-3,
    },
    "a1a2": {
        **_ONLY_INTRA, "loss.video_weight": 0.0, "optim.audio_lr": 1e-5, "optim.audio_predictor_lr": 1e-4,
    },
}  # fmt: skip
"""The paper's ablations: loss weights, and the learning rates of section G.1 for single modalities."""

RELEASED: dict[str, Any] = {
    "loss.intra_weight": 0.5,
    "data.loose_sync": True,
    "video_augment.released": True,
    "audio_augment.released": True,
}
"""Settings of the released code where it differs from the paper, for reproducing its weights."""


def make_config(
    preset: str,
    *,
    objective: str = "crisscross",
    released: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    """Return a preset after applying an objective, the released code's settings and overrides, in this order.

    Args:
        preset: A key of :data:`PRESETS`.
        objective: A key of :data:`OBJECTIVES`.
        released: Follow the released code where it differs from the paper (:data:`RELEASED`).
        overrides: Values of single fields, by dotted name.

    Raises:
        ConfigError: a name is unknown, or a value is out of range.
    """
    check_choice("preset", preset, PRESETS)
    check_choice("objective", objective, OBJECTIVES)
    config = PRESETS[preset]
    changes: dict[str, Any] = dict(OBJECTIVES[objective])
    for modality in ("video", "audio"):
        base = changes.get(f"optim.{modality}_lr")
        if base is not None:  # the final rate keeps its ratio to the base
            ratio = getattr(config.optim, f"{modality}_final_lr") / getattr(config.optim, f"{modality}_lr")
            changes[f"optim.{modality}_final_lr"] = base * ratio
    if released:
        released_changes = dict(RELEASED)
        if changes.get("loss.intra_weight") == 0:
            del released_changes["loss.intra_weight"]
        changes |= released_changes
    return config.replace(objective=objective).override({**changes, **(overrides or {})})
