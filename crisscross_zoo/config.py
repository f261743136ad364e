"""Configs: the architecture of a checkpoint and the preprocessing that belongs to it.

Frozen dataclasses, standard library only. Each number of the pipeline is one field here; values that follow from
fields are properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from crisscross_zoo.settings import Count, OneOf, Positive, Range, Settings, check_choice

Modality = Literal["video", "audio"]
Pooling = Literal["linear", "linear-adaptive", "linear-strided", "fusion", "avg", "max"]


MODALITIES: tuple[str, ...] = get_args(Modality)
POOLINGS: tuple[str, ...] = get_args(Pooling)

BLOCKS_PER_STAGE: dict[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
}
"""Residual blocks in conv2x, conv3x, conv4x and conv5x, by depth."""

STAGES: tuple[str, ...] = ("conv1", "conv2x", "conv3x", "conv4x", "conv5x")
"""Names of the feature maps, first to last (Tables S5 and S6)."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Settings):
    """What video and audio encoders have in common; use :class:`VideoConfig` or :class:`AudioConfig`.

    Attributes:
        depth: 10, 18 or 34 layers. The released checkpoints have 18 (Tables S5 and S6).
        width: Channels of the first stage; the four stages have 1, 2, 4 and 8 times as many. Released: 64.
        pooling: How the last feature map becomes a vector, see :mod:`crisscross_zoo.encoders.pooling`.
    """

    modality: ClassVar[Modality]

    depth: Annotated[int, OneOf(BLOCKS_PER_STAGE)] = 18
    width: Count = 64
    pooling: Pooling = "linear"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, ``modality`` first; :func:`config_from_dict` reads it back."""
        return {"modality": self.modality, **super().to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the config that :meth:`to_dict` wrote, which must be of this modality."""
        values = dict(fields)
        check_choice("modality", values.pop("modality", None), [cls.modality])
        return super().from_dict(values)


@dataclass(frozen=True, kw_only=True)
class VideoConfig(EncoderConfig):
    """R(2+1)D video encoder (Table S5) and its evaluation transform (section E).

    Attributes:
        frames: Frames in a clip. The paper evaluates with 8 and 32.
        fps: Frames per second at which clips are sampled.
        size: Side of the square crop in pixels. The paper pretrains at 112 and evaluates at 224.
        crop_ratio: The shorter side is first resized to ``int(size / crop_ratio)``; at most 1.
        mean: Per-channel mean (RGB, of values in [0, 1]) that is subtracted.
        std: Per-channel standard deviation that values are divided by.
    """

    modality: ClassVar[Modality] = "video"

    frames: Count = 8
    fps: Positive = 16.0
    size: Count = 224
    crop_ratio: Annotated[float, Range(above=0, most=1)] = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)

    @property
    def window_seconds(self) -> float:
        """Length of a clip in seconds: ``frames / fps``."""
        return self.frames / self.fps


@dataclass(frozen=True, kw_only=True)
class AudioConfig(EncoderConfig):
    """ResNet audio encoder (Table S6) and its log-mel front end.

    Attributes:
        seconds: Length of a clip in seconds. The paper evaluates with 2 and 5.
        sample_rate: Samples per second of the mono waveform, Hz.
        n_fft: STFT window and transform length in samples (periodic Hann).
        hop_length: Samples between spectrogram columns.
        n_mels: Mel bands (Slaney scale and area normalisation).
        fmin: Lowest mel edge, Hz.
        fmax: Highest mel edge, Hz.
        log_offset: Added to the mel power before the natural logarithm; float32 epsilon.
        mean: Mean that is subtracted from the log-mel spectrogram.
        std: Standard deviation that the log-mel spectrogram is divided by.
    """

    modality: ClassVar[Modality] = "audio"

    seconds: Positive = 2.0
    sample_rate: Count = 16_000
    n_fft: Count = 1024
    hop_length: Count = 160
    n_mels: Count = 80
    fmin: float = 0.0
    fmax: Positive = 8000.0
    log_offset: Positive = 2.0**-23
    mean: float = -5.3688107
    std: Positive = 4.410007

    @property
    def window_seconds(self) -> float:
        """Length of a clip in seconds."""
        return self.seconds

    @property
    def clip_samples(self) -> int:
        """Length of a clip's waveform in samples."""
        return int(self.seconds * self.sample_rate)

    @property
    def columns_per_second(self) -> float:
        """Spectrogram columns per second."""
        return self.sample_rate / self.hop_length


CONFIG_TYPES: dict[str, type[EncoderConfig]] = {"video": VideoConfig, "audio": AudioConfig}


def config_from_dict(fields: Mapping[str, Any]) -> EncoderConfig:
    """Make a :class:`VideoConfig` or :class:`AudioConfig` from the output of ``to_dict`` (``config.json``).

    Raises:
        ConfigError: an unknown modality or field, or a value of the wrong kind.
    """
    modality = fields.get("modality")
    check_choice("modality", modality, MODALITIES)
    return CONFIG_TYPES[str(modality)].from_dict(fields)
