"""Pictures decoded by torchcodec, on the CPU with the system's FFmpeg or on an NVIDIA GPU, in place of PyAV.

:func:`crisscross_zoo.media.decode.scan` has read the file's time stamps before and says which picture is shown when;
torchcodec is asked for these by their place in the order of time, and its own time stamps must agree. What it cannot
give (formats without usable time stamps or exact seeking, damaged packets) is an error, never another picture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from crisscross_zoo.errors import ConfigError, NoStreamError, UnreadableMediaError, first_line
from crisscross_zoo.media.decode import Media

PICTURES_AT_ONCE = 8
"""Pictures in memory at a time, in the file's size."""

_REMEDY = "decode it with 'pyav'"

_PLACE = re.compile(r"^\w+, \S+:\d+, ")
"""Where in torchcodec's own source an error was raised."""


def check_torchcodec() -> dict[str, str]:
    """Return the versions of torchcodec and of the FFmpeg it found.

    Raises:
        ConfigError: one of them is not installed, or they do not fit each other or torch.
    """
    try:
        import torchcodec
    except ImportError:
        raise ConfigError(
            "torchcodec is not installed", remedy='run pip install "crisscross-zoo[torchcodec]"'
        ) from None
    if torchcodec.ffmpeg_major_version is None:
        raise ConfigError(
            f"torchcodec {torchcodec.__version__} finds no FFmpeg it can load",
            remedy="install FFmpeg 4 to 9 with its shared libraries (apt install ffmpeg, conda install ffmpeg)",
        )
    return {"torchcodec": torchcodec.__version__, "system FFmpeg": str(torchcodec.ffmpeg_major_version)}


def read_frames(
    media: Media, times: npt.NDArray[np.float64], *, device: str = "cpu"
) -> Iterator[tuple[int, Tensor]]:
    """Decode the pictures shown at ``times``: those of :func:`crisscross_zoo.media.decode.read_frames`.

    Args:
        media: From :func:`crisscross_zoo.media.decode.scan`, with a video track.
        times: Seconds, shape (n,), ascending.
        device: "cpu", or a CUDA device, whose decoder (NVDEC) is used; what it cannot decode falls to the CPU.

    Yields:
        ``(count, picture)``: the picture serves the next ``count`` of ``times``; uint8 RGB, shape (H, W, 3), upright,
        on ``device``.

    Raises:
        UnreadableMediaError: torchcodec cannot decode the file, or gives other pictures than its time stamps promise.
    """
    from torchcodec.decoders import VideoDecoder

    track = media.video
    if track is None:
        raise NoStreamError("has no picture stream", remedy="use modality 'audio'", path=media.path)
    if track.counted:
        raise UnreadableMediaError(
            "has no time stamps that torchcodec could go by", remedy=_REMEDY, path=media.path
        )
    shown = np.unique(track.pts)
    stamps, counts = np.unique(track.stamps_at(times), return_counts=True)
    try:
        decoder = VideoDecoder(
            os.path.abspath(media.path),  # noqa: PTH100 - "12:30.mp4" is no protocol
            stream_index=track.index,
            dimension_order="NHWC",
            device=device,
        )
        # Counted from the end: what the file says to discard lies at its beginning, and torchcodec leaves it out.
        places = np.searchsorted(shown, stamps) + len(decoder) - len(shown)
        for first in range(0, len(stamps), PICTURES_AT_ONCE):
            part = slice(first, first + PICTURES_AT_ONCE)
            batch = decoder.get_frames_at(places[part].tolist())
            apart = np.abs(batch.pts_seconds.cpu().numpy() - stamps[part] * track.tick)
            if apart.max() > track.tick / 2:
                raise UnreadableMediaError(
                    "torchcodec gives other pictures than its time stamps promise",
                    remedy=_REMEDY,
                    path=media.path,
                )
            yield from zip(counts[part].tolist(), batch.data, strict=True)
    except (RuntimeError, IndexError, ValueError) as error:  # all that torchcodec raises
        reason = _PLACE.sub("", first_line(error))
        raise UnreadableMediaError(
            f"torchcodec cannot decode it ({reason})", remedy=_REMEDY, path=media.path
        ) from None
