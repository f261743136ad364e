"""Every number of a pretraining run in frozen dataclasses, and the paper's settings as presets (Table S10).

A preset is a :class:`PretrainConfig`. The command line overrides any field by its dotted name, such as
``--optim.batch-size``, and writes what was used to ``config.json`` in the run's folder.
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
"""Numbers in an embedding (Table S7)."""

PREDICTION_HIDDEN = 512
"""Numbers between the two layers of a predictor (Table S8)."""

_Beta = Annotated[float, Range(least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """What a training sample is.

    Attributes:
        epoch_size: Samples in an epoch ("es" in Table S10); 0: one of each file.
        relaxation: How far apart in time the two views of a modality are: none, mild, medium, extreme or mixed.
        crop: Side of the square video views in pixels (112 in section F); the checkpoint's own size is the one for
            evaluation.
        loose_sync: Draw the video window anywhere in the audio window, as the released code does, instead of
            centring it.
    """

    epoch_size: Whole = 0
    relaxation: Annotated[str, OneOf(RELAXATIONS)] = "mild"
    crop: Count = 112
    loose_sync: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loose_sync and self.relaxation != "mild":
            raise ConfigError(
                f"data.loose_sync is known for relaxation 'mild' alone, not for {self.relaxation!r}",
                remedy="pass --no-data.loose-sync, or relaxation mild",
            )


@dataclass(frozen=True, kw_only=True)
class HeadsConfig(Settings):
    """The heads, and how views go through the network.

    Attributes:
        projection: Numbers in an embedding (Table S7).
        prediction_hidden: Numbers between a predictor's layers (Table S8).
        joint_views: Send both views of a modality through in one batch: faster, but batch norms see them as one.
    """

    projection: Count = PROJECTION
    prediction_hidden: Count = PREDICTION_HIDDEN
    joint_views: bool = False


@dataclass(frozen=True, kw_only=True)
class LossConfig(Settings):
    """Weights of the loss's terms, see :mod:`crisscross_zoo.pretrain.loss`.

    Attributes:
        intra_weight: Within modalities; 1 is Algorithm 1, 0.5 the released code's mean of six pairs.
        sync_weight: Across modalities, at the same time.
        async_weight: Across modalities, at another time.
        video_weight: Of the video pair inside the intra-modal term.
        audio_weight: Of the audio pair inside the intra-modal term.
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
        batch_size: Samples a step, over all processes and accumulated parts.
        accumulate: Parts that each process's share of a batch is split into. Batch norms see one part at a time.
        epochs: Epochs in all.
        warmup_epochs: Epochs of linear warm-up; the released config has 2.
        video_lr: Highest rate of the video backbone and projector.
        video_final_lr: The rate it falls to.
        audio_lr: Highest rate of the audio backbone and projector.
        audio_final_lr: The rate it falls to.
        video_predictor_lr: Constant rate of the video predictor.
        audio_predictor_lr: Constant rate of the audio predictor.
        weight_decay: Of Adam, on every parameter.
        betas: Of Adam.
        larc: Clip rates by layer (LARC), as the paper does at a batch size of 2048.
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
    """How to run: nothing here changes what is computed, and all of it may change between a run and its resumption.

    Attributes:
        device: auto, cpu or cuda.
        workers: Processes that load data, for each training process; 0 loads in the training process, -1 takes one for
            each core that a training process has, 16 at most.
        data_bytes: Bytes of samples that one machine holds before they are trained on, over all its processes.
        read_seconds: Seconds that one file may take to be read; then its data process is started again, and the file
            is left out from then on.
        channels_last: Keep activations channels-last, which is faster.
        compile: Use torch.compile.
        checkpoint_activations: Recompute activations in the backward pass: less memory, more time.
        save_steps: Steps between checkpoints; one is also written at the end and when the run is told to stop.
        keep: Checkpoints to keep.
        max_failed: Largest share of samples whose file may fail; above it the run stops, from its 200th sample on.
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
    """A whole pretraining run.

    Attributes:
        preset: The preset it comes from.
        objective: The row of :data:`OBJECTIVES` it comes from.
        seed: Decides the initial weights and every sample.
        video: Video encoder, and the preprocessing written into its checkpoint.
        audio: Audio encoder and its front end.
        heads: Projectors and predictors.
        data: Samples.
        video_augment: Video augmentation (Table S1).
        audio_augment: Audio augmentation (Table S2).
        loss: Weights of the terms.
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
        """The video config of the training views: the encoder's, at the training crop."""
        return self.video.replace(size=self.data.crop)

    def decisive(self) -> dict[str, Any]:
        """Return the part of :meth:`to_dict` that decides the numbers: all but ``run``."""
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
}
"""Table S10. Warm-up, LARC's constants and mixed precision are the released config's; the table omits them.
The demo's are this package's own: few steps of small networks, so higher rates and milder augmentation."""

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
"""The paper's ablations: loss weights, and the rates that section G.1 gives for single modalities."""

RELEASED: dict[str, Any] = {
    "loss.intra_weight": 0.5,
    "data.loose_sync": True,
    "video_augment.released": True,
    "audio_augment.released": True,
}
"""What the released code does where it differs from the paper, for reproducing its weights."""


def make_config(
    preset: str,
    *,
    objective: str = "crisscross",
    released: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    """Return a preset with an objective, the released behaviour and single fields laid over it, in this order.

    Args:
        preset: A key of :data:`PRESETS`.
        objective: A key of :data:`OBJECTIVES`.
        released: Follow the released code where it differs from the paper (:data:`RELEASED`).
        overrides: Fields by dotted name.

    Raises:
        ConfigError: an unknown name, or a value out of range.
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
