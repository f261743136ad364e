"""Options of extraction, each once: its name, type, default, what it does, and what goes together. No torch.

:class:`crisscross_zoo.FeatureExtractor` and :func:`crisscross_zoo.extract_files` take them as keywords; the command
makes its options of them: the first sentence of what is said of each here is the option's help, as it stands.
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
"""Seconds: a decoding process from which nothing comes for so long hangs."""


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
"""What options may be, but for those that weights are loaded with, which their loading checks."""


class ExtractKeywords(TypedDict, total=False):
    """The options of :class:`ExtractOptions` but for the modality, as keywords."""

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
        modality: (default: video). Also "audio", or "both".
        device: auto, cpu, cuda, cuda:1, mps (default: auto). Auto is CUDA, then MPS, then the CPU; a torch device will
            do, too.
        pooling: (default: the checkpoint's own; linear, as in the paper, for those listed). See
            :mod:`crisscross_zoo.encoders.pooling`.
        precision: (default: fp32). Of the network; features are float32 in any case. On a CPU without bfloat16
            instructions bf16 is slower than fp32.
        window: length of a clip of either modality. Seconds; sets ``frames`` and ``audio_seconds``.
        stride: between clips (default: end to end). Seconds; with both modalities the video's clips are end to end.
        clips: N uniformly spread clips in place of dense ones. Section E.1.
        views: with ``clips``: random, augmented clips in place of spread ones.
        frames: frames in a video clip (default: the weights', 8).
        fps: frames a second (default: the weights', 16).
        size: side of the square crop (default: the weights', 224; demo: 112). Pixels.
        audio_seconds: length of a sound clip (default: the weights', 2). Seconds.
        edges: with ``modality="both"``, of rows at the ends of a file whose two windows are not centred on the same
            instant (default: keep). There windows are moved inside; "drop" leaves out the rows whose windows are not
            centred within half a frame of each other.
        batch_size: clips a batch (default: by device). A CPU works on several at once. See
            :data:`crisscross_zoo.extract.extractor.DEFAULT_BATCH`.
        workers: decoding processes, 0 for none (default: by device). With 0, files are decoded in a thread of this
            process. The default also goes by cores; for one file or a GPU that decodes it is 0, or with ``timeout`` 1.
        timeout: end a decoding process from which nothing comes for so long, also while it fetches a file or looks
            through it; its file fails (default: 600). Seconds; decoding in a thread cannot be ended.
        decoder: of pictures; torchcodec decodes on a CUDA device (default: pyav). Where the device is another, it
            decodes with the system's FFmpeg. Sound is PyAV's in any case.
        strict: truncated or damaged inputs fail. Otherwise they give what can be read, and a warning.
        revision: Hub revision of the weights.
        cache_dir: where downloaded weights are kept (default: the Hub's cache).
        local_files_only: download nothing.
        token: for private or gated repositories. Default: the stored one.

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
                f"timeout {self.timeout:g} with no decoding process", remedy="take workers above 0"
            )
        if self.decoder == "torchcodec" and self.modality == "audio":
            raise ConfigError("decoder='torchcodec' is for pictures", remedy="leave it out for sound")

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
            raise ConfigError("views without clips", remedy="say how many: clips=10")

    @classmethod
    def of(cls, modality: Modalities, options: ExtractKeywords) -> Self:
        """Return the options that keywords give.

        Raises:
            ConfigError: there is no option of that name, or as for the class.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name != "modality"]
        for name in options:
            if name not in names:
                raise ConfigError(f"there is no option {name!r}", remedy=suggest(name, names))
        return cls(modality, **options)

    def keywords(self) -> ExtractKeywords:
        """Return the options but for the modality, as :class:`crisscross_zoo.FeatureExtractor` takes them."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "modality")
        return cast(ExtractKeywords, {name: getattr(self, name) for name in names})
