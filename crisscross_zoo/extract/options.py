"""The options of extraction: name, type, default and meaning of each, and which exclude each other. No torch.

:class:`crisscross_zoo.FeatureExtractor` and :func:`crisscross_zoo.extract_files` take them as keywords. The command's
options are made from them: the first sentence of each attribute's text below is the option's help.
"""

# Annotations are read at run time, to make the command's options.
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, cast

from crisscross_zoo.config import Pooling
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.media.windows import Edges
from crisscross_zoo.settings import Count, Positive, Precision, StrPath, Whole, check, suggest

if TYPE_CHECKING:
    import torch

    from crisscross_zoo.media.clips import Views

Modalities = Literal["video", "audio", "both"]
Decoder = Literal["pyav", "torchcodec"]

DEFAULT_TIMEOUT = 600.0
"""Seconds after which a silent decoding worker is killed."""


_CHECKED: dict[str, Any] = {
    "modality": Modalities,
    "pooling": Pooling | None,
    "precision": Precision,
    "edges": Edges,
    "decoder": Decoder,
    "strict": bool,
    **dict.fromkeys(("window", "stride", "fps", "audio_seconds", "timeout"), Positive | None),
    **dict.fromkeys(("clips", "frames", "size", "batch_size"), Count | None),
    "workers": Whole | None,
}
"""Types of the options, except those of loading weights, which are checked there."""


class ExtractKeywords(TypedDict, total=False):
    """The options of :class:`ExtractOptions` as keywords, without the modality."""

    device: "str | torch.device"
    pooling: Pooling | None
    precision: Precision
    window: float | None
    stride: float | None
    clips: int | None
    views: "Views | None"
    frames: int | None
    fps: float | None
    size: int | None
    audio_seconds: float | None
    edges: Edges
    batch_size: int | None
    workers: int | None
    timeout: float | None
    decoder: Decoder
    strict: bool
    revision: str | None
    cache_dir: StrPath | None
    local_files_only: bool
    token: str | bool | None


@dataclass(frozen=True)
class ExtractOptions:
    """What to extract from media files, and how.

    Attributes:
        modality: extract features of video, audio or both (default: video).
        device: auto, cpu, cuda, cuda:1 or mps (default: auto). Auto picks CUDA, then MPS, then the CPU. A
            ``torch.device`` is accepted, too.
        pooling: how the last feature map becomes a feature vector (default: the checkpoint's; linear, as in the paper,
            for the named checkpoints). See :mod:`crisscross_zoo.encoders.pooling`.
        precision: precision of the network (default: fp32). Features are float32 in any case. On a CPU without bfloat16
            instructions, bf16 is slower than fp32.
        window: clip length in seconds, for both modalities. Sets ``frames`` and ``audio_seconds``.
        stride: seconds from the start of a clip to the start of the next (default: the clip length, so that clips lie
            end to end; with ``modality="both"``, the length of a video clip).
        clips: number of clips per file, spread uniformly, instead of dense clips. Section E.1.
        views: with ``clips``: random, augmented clips instead of uniform ones.
        frames: frames per video clip (default: the checkpoint's, 8).
        fps: frame rate at which video is sampled, in frames per second (default: the checkpoint's, 16).
        size: side of the square crop in pixels (default: the checkpoint's, 224; demo: 112).
        audio_seconds: length of an audio clip in seconds (default: the checkpoint's, 2).
        edges: with ``modality="both"``: keep or drop rows at the ends of a file where the video and the audio window
            have different centres (default: keep). Windows there are moved inside the file. "drop" drops rows whose
            two centres are more than half a frame apart.
        batch_size: clips per batch (default: by device). A CPU computes several batches at once. See
            :data:`crisscross_zoo.extract.extractor.DEFAULT_BATCH`.
        workers: number of decoding workers; 0 decodes in a thread of the main process (default: by device and cores).
            For one file, or on a GPU that decodes, the default is 0, or 1 with ``timeout``.
        timeout: kill a decoding worker that has been silent for this many seconds; its file fails (default: 600).
            Downloading and scanning a file count as silence. Decoding in a thread cannot be killed.
        decoder: video decoder; torchcodec decodes on a CUDA device (default: pyav). On other devices torchcodec uses
            the system's FFmpeg. Audio is decoded by PyAV in any case.
        strict: fail truncated or damaged files instead of warning. Otherwise the features of what can be read are
            extracted, with a warning.
        revision: Hub revision of the weights.
        cache_dir: folder for downloaded weights (default: the Hub's cache).
        local_files_only: download nothing.
        token: Hub token for private or gated repositories (default: the stored one).

    Raises:
        ConfigError: a value that is not allowed, values that exclude each other, or one for another modality.
    """

    modality: Modalities = "video"
    device: "str | torch.device" = "auto"
    pooling: Pooling | None = None
    precision: Precision = "fp32"
    window: float | None = None
    stride: float | None = None
    clips: int | None = None
    views: "Views | None" = None
    frames: int | None = None
    fps: float | None = None
    size: int | None = None
    audio_seconds: float | None = None
    edges: Edges = "keep"
    batch_size: int | None = None
    workers: int | None = None
    timeout: float | None = None
    decoder: Decoder = "pyav"
    strict: bool = False
    revision: str | None = None
    cache_dir: StrPath | None = None
    local_files_only: bool = False
    token: str | bool | None = None

    def __post_init__(self) -> None:
        for name, hint in _CHECKED.items():
            check(name, getattr(self, name), hint)
        self._check_clips()
        if self.timeout is not None and self.workers == 0:
            raise ConfigError(
                f"timeout {self.timeout:g} with no decoding worker", remedy="use workers above 0"
            )
        if self.decoder == "torchcodec" and self.modality == "audio":
            raise ConfigError("decoder='torchcodec' is for video", remedy="leave it out for audio")

    def _check_clips(self) -> None:
        for one, other in (("stride", "clips"), ("window", "frames"), ("window", "audio_seconds")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ConfigError(f"{one} and {other} exclude each other", remedy="pass one of them")
        for name, value in (("frames", self.frames), ("fps", self.fps), ("size", self.size)):
            if value is not None and self.modality == "audio":
                raise ConfigError(
                    f"{name} is for video", remedy="leave it out, or use modality 'video' or 'both'"
                )
        if self.audio_seconds is not None and self.modality == "video":
            raise ConfigError("audio_seconds is for audio", remedy="use modality 'audio' or 'both'")
        if self.edges == "drop" and self.modality != "both":
            raise ConfigError("edges='drop' compares two modalities", remedy="use modality 'both'")
        if self.views is not None and self.clips is None:
            raise ConfigError("views without clips", remedy="pass the number of clips: clips=10")

    @classmethod
    def of(cls, modality: Modalities, options: ExtractKeywords) -> Self:
        """Return the options that are given as keywords.

        Raises:
            ConfigError: there is no option of that name, or as for the class.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name != "modality"]
        for name in options:
            if name not in names:
                raise ConfigError(f"there is no option {name!r}", remedy=suggest(name, names))
        return cls(modality, **options)

    def keywords(self) -> ExtractKeywords:
        """Return the options without the modality, as :class:`crisscross_zoo.FeatureExtractor` takes them."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "modality")
        return cast(ExtractKeywords, {name: getattr(self, name) for name in names})
