"""What a checkpoint is: its architecture and the preprocessing that belongs to it.

Frozen dataclasses, standard library only. Every number of the pipeline is a field here, once; what
follows from it is a property.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.settings import check_choice, suggest

Modality = Literal["video", "audio"]
Pooling = Literal["linear", "linear-adaptive", "linear-strided", "fusion", "avg", "max"]


MODALITIES: tuple[str, ...] = ("video", "audio")
POOLINGS: tuple[str, ...] = ("linear", "linear-adaptive", "linear-strided", "fusion", "avg", "max")

BLOCKS_PER_STAGE: dict[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
}
"""Residual blocks in conv2x, conv3x, conv4x and conv5x, by depth."""

STAGES: tuple[str, ...] = ("conv1", "conv2x", "conv3x", "conv4x", "conv5x")
"""Names of the feature maps, first to last (Tables S5 and S6)."""

_MAY_BE_ZERO_OR_LESS = frozenset({"fmin", "mean"})

_C = TypeVar("_C", bound="EncoderConfig")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What video and audio encoders have in common; use :class:`VideoConfig` or :class:`AudioConfig`.

    Attributes:
        depth: 10, 18 or 34 layers. The released checkpoints have 18 (Tables S5 and S6).
        width: Channels of the first stage; the four stages have 1, 2, 4 and 8 times as many. Released: 64.
        pooling: How the last feature map becomes a vector, see :mod:`crisscross_zoo.encoders.pooling`.
    """

    modality: ClassVar[Modality]

    depth: int = 18
    width: int = 64
    pooling: Pooling = "linear"

    def __post_init__(self) -> None:
        check_choice("depth", self.depth, BLOCKS_PER_STAGE)
        check_choice("pooling", self.pooling, POOLINGS)
        for field in dataclasses.fields(self):
            if field.type not in ("int", "float"):
                continue
            value = getattr(self, field.name)
            wanted = "a whole number" if field.type == "int" else "a number"
            if isinstance(value, bool) or not isinstance(value, int if field.type == "int" else (int, float)):
                raise ConfigError(f"{field.name}={value!r} is not {wanted}", remedy=f"pass {wanted}")
            if not math.isfinite(value) or (value <= 0 and field.name not in _MAY_BE_ZERO_OR_LESS):
                raise ConfigError(f"{field.name}={value!r} is out of range", remedy=f"pass {wanted} above 0")

    def replace(self: _C, **changes: Any) -> _C:
        """Return a copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, ``modality`` first; :func:`config_from_dict` reads it back."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        return {"modality": self.modality, **plain}


@dataclass(frozen=True, kw_only=True)
class VideoConfig(EncoderConfig):
    """R(2+1)D video encoder (Table S5) and its evaluation transform (section E).

    Attributes:
        frames: Frames in a clip. The paper evaluates with 8 and 32.
        fps: Frames a second at which clips are sampled.
        size: Side of the square crop in pixels. The paper pretrains at 112 and evaluates at 224.
        crop_ratio: The shorter side is first resized to ``int(size / crop_ratio)``; at most 1.
        mean: Per-channel mean (RGB, of values in [0, 1]) taken off.
        std: Per-channel standard deviation divided by.
    """

    modality: ClassVar[Modality] = "video"

    frames: int = 8
    fps: float = 16.0
    size: int = 224
    crop_ratio: float = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_ratio > 1:
            raise ConfigError(
                f"crop_ratio={self.crop_ratio!r} is out of range", remedy="pass a number up to 1"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not _are_three_numbers(values):
                raise ConfigError(
                    f"{name}={values!r:.60} is not three finite numbers",
                    remedy="pass one for each of R, G, B",
                )
        if min(self.std) <= 0:
            raise ConfigError(f"std={self.std!r} is out of range", remedy="pass three numbers above 0")

    @property
    def window_seconds(self) -> float:
        """Seconds that a clip spans: ``frames / fps``."""
        return self.frames / self.fps


@dataclass(frozen=True, kw_only=True)
class AudioConfig(EncoderConfig):
    """ResNet audio encoder (Table S6) and its log-mel front end.

    Attributes:
        seconds: Length of a clip in seconds. The paper evaluates with 2 and 5.
        sample_rate: Samples a second of the mono waveform, Hz.
        n_fft: STFT window and transform length in samples (periodic Hann).
        hop_length: Samples between spectrogram columns.
        n_mels: Mel bands (Slaney scale and area normalisation).
        fmin: Lowest mel edge, Hz.
        fmax: Highest mel edge, Hz.
        log_offset: Added to the mel power before the natural logarithm; float32 epsilon.
        mean: Taken off the log-mel.
        std: Divided by.
    """

    modality: ClassVar[Modality] = "audio"

    seconds: float = 2.0
    sample_rate: int = 16_000
    n_fft: int = 1024
    hop_length: int = 160
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    log_offset: float = 2.0**-23
    mean: float = -5.3688107
    std: float = 4.410007

    @property
    def window_seconds(self) -> float:
        """Seconds that a clip spans."""
        return self.seconds

    @property
    def clip_samples(self) -> int:
        """Samples of a clip's waveform."""
        return int(self.seconds * self.sample_rate)

    @property
    def columns_per_second(self) -> float:
        """Spectrogram columns a second."""
        return self.sample_rate / self.hop_length


def _are_three_numbers(values: object) -> bool:
    return (
        isinstance(values, tuple | list)
        and len(values) == 3
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    )


CONFIG_TYPES: dict[str, type[EncoderConfig]] = {"video": VideoConfig, "audio": AudioConfig}


def config_from_dict(fields: Mapping[str, Any]) -> EncoderConfig:
    """Make a :class:`VideoConfig` or :class:`AudioConfig` from what ``to_dict`` gives (``config.json``).

    Raises:
        ConfigError: an unknown modality or field, or a value of the wrong kind.
    """
    values = dict(fields)
    modality = values.pop("modality", None)
    check_choice("modality", modality, MODALITIES)
    cls = CONFIG_TYPES[modality]
    known = {f.name for f in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise ConfigError(
                f"the {modality} config has no field {name!r}", remedy=suggest(name, sorted(known))
            )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**values)
