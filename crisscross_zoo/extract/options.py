"""Options of extraction, and what goes together."""

from __future__ import annotations

import math
from typing import Literal

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.media.windows import EDGES, Edges
from crisscross_zoo.settings import check_choice, check_count

Decoder = Literal["pyav", "torchcodec"]

DECODERS: tuple[str, ...] = ("pyav", "torchcodec")


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
