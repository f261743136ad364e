"""The paper's evaluation settings in one table: the clips of each file, and the classifier that is trained on them.

Where the paper (appendix E) gives no value, the value is that of the released code, or, if no code was released, that
of the work that the paper follows; each row's ``source`` names the origin. Where the released code differs from the
paper, ``released=True`` follows the code (docs/fidelity.md has the list). Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from crisscross_zoo.config import MODALITIES, Pooling
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import (
    FIXED,
    Count,
    NotNegative,
    OneOf,
    Range,
    Ratio,
    Settings,
    Whole,
    check_choice,
    suggest,
)

Normalize = Literal["none", "l2", "l2-time"]
Select = Literal["train", "test"]

COSTS: tuple[float, ...] = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 1.0)
"""Candidate costs of the SVM, as in section E.1, which also omits 0.1."""

_NotTiny = Annotated[float, Range(1e-12)]

Costs = tuple[Annotated[float, Range(1e-12, 1e12)], ...]
"""C of an SVM, one value or several to choose from."""

Tolerance = Annotated[float, Range(1e-9, 1)]
"""Norm of an SVM's gradient, relative to that at zero weights, at which it has converged."""
_Dropout = Annotated[float, Range(0, 0.99)]
_BatchSize = Annotated[int, Range(2)]  # batch norm needs two samples


@dataclass(frozen=True, kw_only=True)
class ClipsConfig(Settings):
    """Which clips are taken from each file, and how they become features.

    Attributes:
        train: Clips of each training file, with random windows.
        test: Uniform clips of each test file.
        epochs: Draws of training clips through which a linear layer cycles, one per epoch; their features are cached. 0: a new draw in every epoch, not cached.
        augment: Whether training clips are augmented (Tables S3, S4); test clips never are.
        frames: Frames of a video clip.
        fps: Frames per second.
        size: Side of the square crop in pixels.
        seconds: Length of an audio clip in seconds.
        pooling: How the last feature map becomes a feature vector.
        normalize: Normalisation of each feature vector: none, l2 (to length 1), l2-time (each channel and frequency to length 1 over time).
    """  # noqa: E501

    train: Count = 10
    test: Count = 10
    epochs: Whole = 1
    augment: bool = True
    frames: Count = 8
    fps: Annotated[float, Range(1e-3)] = 16.0
    size: Count = 224
    seconds: Annotated[float, Range(1e-3)] = 2.0
    pooling: Pooling = "linear"
    normalize: Normalize = "none"


@dataclass(frozen=True, kw_only=True)
class SvmConfig(Settings):
    """The linear SVM: one against all, squared hinge, as scikit-learn's LinearSVC.

    Attributes:
        costs: Candidate costs; the best is chosen.
        n_splits: Held-out splits, of five, on which the cost is chosen: 5 is five-fold cross-validation, 1 one split.
        tolerance: Relative tolerance at which the SVM has converged, see :func:`crisscross_zoo.evaluate.svm.fit_svm`.
    """

    costs: Costs = COSTS
    n_splits: Annotated[int, Range(1, 5)] = 5
    tolerance: Tolerance = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.costs:
            raise ConfigError("svm.costs is empty", remedy="pass one number or more")


@dataclass(frozen=True, kw_only=True)
class LayerConfig(Settings):
    """The linear layer, trained by Adam with cross entropy on the features of a frozen backbone.

    Attributes:
        lr: Learning rate.
        weight_decay: Weight decay.
        batch_size: Clips per step.
        epochs: Passes over all training clips.
        milestones: Epochs after which the learning rate is multiplied by gamma.
        gamma: Factor of the learning rate at each milestone.
        dropout: Dropout probability of the features.
        batch_norm: Whether a batch norm precedes the layer.
    """

    lr: _NotTiny = 1e-4
    weight_decay: NotNegative = 0.0
    batch_size: _BatchSize = 128
    epochs: Count = 12
    milestones: tuple[Count, ...] = (6, 9)
    gamma: Ratio = 0.1
    dropout: _Dropout = 0.0
    batch_norm: bool = True


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Settings):
    """Full finetuning by SGD with a multi-step rate (Table S11).

    Attributes:
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay.
        batch_size: Clips per step.
        epochs: Number of epochs; each has clips.train new clips of every file.
        milestones: Epochs after which the learning rate is multiplied by gamma.
        gamma: Factor of the learning rate at each milestone.
        dropout: Dropout probability before the linear layer.
    """

    lr: _NotTiny = 5e-4
    momentum: Annotated[float, Range(0, 0.9999)] = 0.9
    weight_decay: NotNegative = 0.0
    batch_size: _BatchSize = 64
    epochs: Count = 20
    milestones: tuple[Count, ...] = (6, 10, 14)
    gamma: Ratio = 0.3
    dropout: _Dropout = 0.0


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(Settings):
    """Nearest neighbours among the training files, by cosine (section E.3).

    Attributes:
        ks: Values of k in R@k, the fraction of queries with a file of their class among the k nearest.
    """

    ks: tuple[Count, ...] = (1, 5, 20)


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig(Settings):
    """Everything that decides an evaluation's result, except the weights and the files.

    Attributes:
        protocol: linear, fusion, finetune or retrieval.
        dataset: Name of the data set.
        setup: Which of the paper's setups, such as 8-frame.
        modality: video, audio or both.
        source: Where the settings come from.
        seed: Seed of clips, augmentation, new layers and the order of training.
        select: Files on which cost and epoch are chosen: train (held-out training files), or test as in the paper.
        released: Follow the released code where it differs from the paper.
        clips: Clips and features.
        svm: The SVM, if the protocol trains one.
        layer: The linear layer, if the protocol trains one.
        finetune: Finetuning, if the protocol finetunes.
        retrieval: Retrieval, if the protocol retrieves.
    """

    protocol: Annotated[str, FIXED]
    dataset: Annotated[str, FIXED]
    setup: Annotated[str, FIXED]
    modality: Annotated[str, FIXED, OneOf((*MODALITIES, "both"))]
    source: Annotated[str, FIXED]
    seed: Whole = 0
    select: Select = "train"
    released: Annotated[bool, FIXED] = False
    clips: Annotated[ClipsConfig, FIXED]
    svm: Annotated[SvmConfig | None, FIXED] = None
    layer: Annotated[LayerConfig | None, FIXED] = None
    finetune: Annotated[FinetuneConfig | None, FIXED] = None
    retrieval: Annotated[RetrievalConfig | None, FIXED] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clips.epochs != 1 and self.layer is None:
            raise ConfigError(
                f"clips.epochs={self.clips.epochs} is for linear layers", remedy="leave it out, or pass 1"
            )
        if self.clips.normalize == "l2-time" and (
            self.modality != "audio" or not self.clips.pooling.startswith("linear")
        ):
            raise ConfigError(
                "clips.normalize='l2-time' is for audio with the pooling 'linear'",
                remedy="pass 'none' or 'l2'",
            )

    @property
    def title(self) -> str:
        """Protocol, data set and setup, as text."""
        return f"{self.protocol} on {self.dataset} ({self.setup})"


PROTOCOLS: tuple[str, ...] = ("linear", "fusion", "finetune", "retrieval")

_AUDIO_5S = ClipsConfig(train=10, test=1, seconds=5.0)
_VIDEO_2S = ClipsConfig(frames=32)
_E1, _E2, _E3 = "section E.1", "section E.2 and Table S11", "section E.3"
_RELEASED_LAYER = LayerConfig(
    lr=7e-3,
    weight_decay=1e-5,
    batch_size=512,
    epochs=200,
    milestones=(),
    dropout=0.1,
    batch_norm=False,
)


def _table() -> tuple[ProtocolConfig, ...]:
    rows: list[ProtocolConfig] = []

    def add(protocol: str, dataset: str, setup: str, modality: str, source: str, **sections: Any) -> None:
        rows.append(
            ProtocolConfig(
                protocol=protocol, dataset=dataset, setup=setup, modality=modality, source=source, **sections
            )
        )

    layer_source = (
        f"{_E1}; the layer's numbers, which the paper does not give, from AVID (Morgado et al. 2021)"
    )
    for name in ("ucf101", "hmdb51"):
        add("linear", name, "8-frame", "video", _E1, clips=ClipsConfig(train=25), svm=SvmConfig(n_splits=1))
        add(
            "linear",
            name,
            "32-frame",
            "video",
            layer_source,
            clips=ClipsConfig(train=10, epochs=0, frames=32),
            layer=LayerConfig(),
        )
    add(
        "linear",
        "kinetics400",
        "8-frame",
        "video",
        layer_source,
        clips=ClipsConfig(train=1, epochs=0),
        layer=LayerConfig(),
    )
    add("linear", "esc50", "2s", "audio", _E1, clips=ClipsConfig(train=10, test=10), svm=SvmConfig())
    add("linear", "esc50", "5s", "audio", _E1, clips=_AUDIO_5S, svm=SvmConfig())
    add(
        "linear",
        "dcase",
        "2s",
        "audio",
        f"{_E1}; l2 and the layer's numbers, which the paper does not give, from the released code",
        clips=ClipsConfig(train=60, test=60, normalize="l2"),
        layer=_RELEASED_LAYER,
    )
    add(
        "fusion",
        "kinetics-sound",
        "2s",
        "both",
        _E1,
        clips=ClipsConfig(train=10, frames=32, pooling="fusion"),
        svm=SvmConfig(),
    )
    for name, frames, changes in (
        ("ucf101", 8, {}),
        ("ucf101", 32, {"batch_size": 32, "lr": 7e-5, "milestones": (8, 12, 16)}),
        ("hmdb51", 8, {"gamma": 0.1}),
        ("hmdb51", 32, {"batch_size": 32, "lr": 1e-4, "milestones": (8, 12, 16)}),
    ):
        clips = ClipsConfig(frames=frames, pooling="max")
        add(
            "finetune",
            name,
            f"{frames}-frame",
            "video",
            _E2,
            clips=clips,
            finetune=FinetuneConfig(**changes),
        )
    for name in ("ucf101", "hmdb51"):
        add("retrieval", name, "2s", "video", _E3, clips=_VIDEO_2S, retrieval=RetrievalConfig())
    add("retrieval", "esc50", "2s", "audio", _E3, clips=ClipsConfig(), retrieval=RetrievalConfig())
    figures = "appendix B: validation clips query training clips, as in Figures S1 and S2"
    for modality in ("video", "audio", "both"):
        clips = _VIDEO_2S if modality != "audio" else ClipsConfig()
        add(
            "retrieval",
            "kinetics400",
            modality,
            modality,
            f"{_E3}; {figures}",
            clips=clips,
            retrieval=RetrievalConfig(),
        )
    # Any folder of labelled files: as on the most similar data set.
    folder = "no setup of the paper; settings as in"
    add("linear", "folder", "video", "video", f"{folder} {_E1}", clips=ClipsConfig(), svm=SvmConfig())
    add("linear", "folder", "audio", "audio", f"{folder} {_E1}", clips=ClipsConfig(), svm=SvmConfig())
    add(
        "fusion",
        "folder",
        "2s",
        "both",
        f"{folder} {_E1}",
        clips=ClipsConfig(frames=32, pooling="fusion"),
        svm=SvmConfig(),
    )
    add(
        "finetune",
        "folder",
        "8-frame",
        "video",
        f"{folder} {_E2}",
        clips=ClipsConfig(pooling="max"),
        finetune=FinetuneConfig(),
    )
    for modality in ("video", "audio", "both"):
        clips = _VIDEO_2S if modality != "audio" else ClipsConfig()
        add(
            "retrieval",
            "folder",
            modality,
            modality,
            f"{folder} {_E3}",
            clips=clips,
            retrieval=RetrievalConfig(),
        )
    return tuple(rows)


TABLE: tuple[ProtocolConfig, ...] = _table()
"""Every protocol, data set and setup; the first of several setups is the default."""

FINETUNE_AUDIOSET: dict[tuple[str, str], dict[str, Any]] = {
    ("ucf101", "8-frame"): {"lr": 7e-5, "milestones": (8, 12, 16), "gamma": 0.1, "dropout": 0.1},
    ("ucf101", "32-frame"): {},
    ("hmdb51", "8-frame"): {"lr": 1e-4, "milestones": (8, 12, 16), "gamma": 0.1, "dropout": 0.5},
    ("hmdb51", "32-frame"): {"milestones": (6, 10, 14), "gamma": 0.1, "dropout": 0.5},
}
"""Changes of the released configs for backbones pretrained on AudioSet; Table S11 is for Kinetics400."""


def make_protocol(
    protocol: str,
    dataset: str,
    *,
    setup: str | None = None,
    pretrained_on: str | None = None,
    released: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> ProtocolConfig:
    """Look up the settings of a protocol on a data set.

    Args:
        protocol: One of :data:`PROTOCOLS`.
        dataset: Name of the data set, "folder" for any other.
        setup: One of its setups; default: the first.
        pretrained_on: The data set on which the backbone was pretrained, as in the manifest; "AudioSet" has its own
            finetuning settings.
        released: Follow the released code where it differs from the paper, see docs/fidelity.md.
        overrides: Changed values by dotted name, see :meth:`ProtocolConfig.override`.

    Raises:
        ConfigError: there is no such protocol, data set, setup or setting, or a value is out of range.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    rows = [c for c in TABLE if c.protocol == protocol]
    names = list(dict.fromkeys(c.dataset for c in rows))
    if dataset not in names:
        raise ConfigError(f"the paper has no {protocol} on {dataset!r}", remedy=suggest(dataset, names))
    setups = {c.setup: c for c in rows if c.dataset == dataset}
    if setup is not None and setup not in setups:
        remedy = suggest(setup, setups)
        if setup == "both" and any(c.protocol == "fusion" and c.dataset == dataset for c in TABLE):
            remedy += "; for both, use 'fusion'"
        raise ConfigError(f"{protocol} on {dataset} has no setup {setup!r}", remedy=remedy)
    config = setups[setup] if setup is not None else next(iter(setups.values()))
    changes = FINETUNE_AUDIOSET.get((dataset, config.setup))
    if config.finetune is not None and pretrained_on == "AudioSet" and changes is not None:
        config = config.override({f"finetune.{name}": value for name, value in changes.items()})
        config = config.replace(source=f"{_E2}; for AudioSet's backbones, the released configs")
    if released:
        config = config.replace(released=True, select="test")
        config = config.override(_RELEASED.get((protocol, dataset, config.setup), {}))
    return config.override(overrides or {})


def changed_settings(config: ProtocolConfig) -> dict[str, Any]:
    """Return the settings that differ from :data:`TABLE`, by dotted name; seed and select are not compared."""
    same = make_protocol(config.protocol, config.dataset, setup=config.setup, released=config.released)
    finetuned = FINETUNE_AUDIOSET.get((config.dataset, config.setup))
    changed = {}
    for name in config.names():
        section, dotted, field = name.partition(".")
        if not dotted:
            continue
        value, usual = (getattr(getattr(c, section), field) for c in (config, same))
        allowed = [usual] if finetuned is None else [usual, finetuned.get(field, usual)]
        if value not in allowed:
            changed[name] = list(value) if isinstance(value, tuple) else value
    return changed


_RELEASED: dict[tuple[str, str, str], dict[str, Any]] = {
    # The code trims to 2 s before it takes ten uniform clips, so these are one clip, except for 10 ms of the last.
    ("linear", "esc50", "2s"): {"clips.train": 100, "clips.test": 1, "clips.normalize": "l2-time"},
    ("linear", "esc50", "5s"): {"clips.train": 100, "clips.normalize": "l2-time"},
    ("linear", "dcase", "2s"): {"clips.seconds": 1.0},
}
