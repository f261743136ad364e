"""What a checkpoint is: its architecture and the preprocessing that belongs to it.

Frozen dataclasses, standard library only. Every number of the pipeline is a field here, once; what
follows from it is a property.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from crisscross_zoo.errors import ConfigError, InputError

Modality = Literal["video", "audio"]
Decoder = Literal["pyav", "torchcodec"]
Pooling = Literal["linear", "linear-adaptive", "linear-strided", "fusion", "avg", "max"]

Edges = Literal["keep", "drop"]

MODALITIES: tuple[str, ...] = ("video", "audio")
EDGES: tuple[str, ...] = ("keep", "drop")
DECODERS: tuple[str, ...] = ("pyav", "torchcodec")
POOLINGS: tuple[str, ...] = ("linear", "linear-adaptive", "linear-strided", "fusion", "avg", "max")

_VIDEO_SUFFIXES = """
.3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2ts .m2v .m4v .mj2 .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogv .qt .rm
.rmvb .ts .vob .webm .wmv .y4m
"""
_SOUND_SUFFIXES = """
.aac .ac3 .aif .aifc .aiff .amr .ape .au .caf .flac .m4a .mka .mp2 .mp3 .oga .ogg .opus .ra .snd .tta .wav .weba .wma
.wv
"""
VIDEO_SUFFIXES: frozenset[str] = frozenset(_VIDEO_SUFFIXES.split())
"""Suffixes of files that usually hold pictures, with or without sound."""

MEDIA_SUFFIXES: frozenset[str] = VIDEO_SUFFIXES | frozenset(_SOUND_SUFFIXES.split())
"""Suffixes that are taken from folders. Files named one by one are tried whatever their suffix."""

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


def suggest(value: object, allowed: Collection[object]) -> str:
    """Say what is allowed, and which of it was probably meant: ``"did you mean 'audio'? (audio, video)"``."""
    names = {str(a).lstrip("-"): str(a) for a in allowed}  # the dashes of two options are no likeness
    near = difflib.get_close_matches(str(value).lstrip("-"), names, n=1)
    listing = "choose from " + ", ".join(names.values())
    return f"did you mean {names[near[0]]!r}? ({listing})" if near else listing


def check_training_precision(device: str, precision: str) -> None:
    """Raise a ConfigError for 16-bit training on a CPU.

    There oneDNN's gradients of 3-D convolutions in bfloat16 hold uninitialised memory (torch 2.14, kernels (3, 1, 1)
    over 2 frames and others): NaN now and then, wrong numbers without a sign otherwise. Inference is not concerned.
    """
    if device == "cpu" and precision in ("bf16", "fp16"):
        raise ConfigError(
            f"training in {precision} on a CPU gives wrong gradients (an error of its convolutions)",
            remedy="use fp32 (--optim.precision fp32), or a GPU",
        )


def check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    """Raise a ConfigError that proposes the nearest allowed value unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} is not known", remedy=suggest(value, allowed))


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


def check_clip_options(
    modality: str,
    *,
    window: float | None = None,
    stride: float | None = None,
    clips: int | None = None,
    frames: int | None = None,
    fps: float | None = None,
    size: int | None = None,
    audio_seconds: float | None = None,
    edges: Edges = "keep",
) -> None:
    """Check the options that say which clips to take, see :class:`crisscross_zoo.FeatureExtractor`.

    Raises:
        ConfigError: a value out of range, options that exclude each other, or one for another modality.
    """
    given = {
        "stride": stride,
        "clips": clips,
        "window": window,
        "frames": frames,
        "audio_seconds": audio_seconds,
    }
    for one, other in (("stride", "clips"), ("window", "frames"), ("window", "audio_seconds")):
        if given[one] is not None and given[other] is not None:
            raise ConfigError(f"{one} and {other} exclude each other", remedy="pass one of them")
    for name, seconds in (("window", window), ("stride", stride)):
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigError(f"{name}={seconds!r} is out of range", remedy="pass a number above 0")
    check_count("clips", clips, least=1)
    for name, value in (("frames", frames), ("fps", fps), ("size", size)):
        if value is not None and modality == "audio":
            raise ConfigError(
                f"{name} is for video", remedy="leave it out, or use modality 'video' or 'both'"
            )
    if audio_seconds is not None and modality == "video":
        raise ConfigError("audio_seconds is for audio", remedy="use modality 'audio' or 'both'")
    check_choice("edges", edges, EDGES)
    if edges == "drop" and modality != "both":
        raise ConfigError("edges='drop' compares two modalities", remedy="use modality 'both'")


def check_count(name: str, value: object, *, least: int) -> None:
    """Raise a ConfigError unless ``value`` is None or a whole number not below ``least``."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigError(
            f"{name}={value!r} is out of range", remedy=f"pass a whole number, at least {least}"
        )


def check_path(name: str, value: object) -> None:
    """Raise an InputError unless ``value`` is a path or URL: text, or an ``os.PathLike`` that gives text."""
    if isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)):
        return
    kind = type(value).__name__
    if isinstance(value, bytes | os.PathLike):
        remedy = "pass os.fsdecode(...) of it"
    elif hasattr(value, "read"):
        kind, remedy = f"{kind}, an open file", "pass the file's path"
    else:
        remedy = "pass a str or a pathlib.Path"
    raise InputError(f"{name} is a {kind}, and not text", remedy=remedy)
