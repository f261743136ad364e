"""Decode frames with torchcodec, on the CPU with the system's FFmpeg or on an NVIDIA GPU, instead of PyAV.

:func:`crisscross_zoo.media.scan.scan` has read the file's timestamps before, so it is known which frame is shown when.
torchcodec is queried for these frames by index in presentation order, and its own timestamps must agree. What it cannot
decode (formats without usable timestamps or exact seeking, damaged packets) is an error, never another frame.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from crisscross_zoo.errors import ConfigError, UnreadableMediaError, first_line
from crisscross_zoo.media.decode import with_packets
from crisscross_zoo.media.frames import Orientation, orientation_of
from crisscross_zoo.media.tracks import Media

FRAMES_AT_ONCE = 8
"""Frames decoded per call, each in the file's size in memory."""

_REMEDY = "decode it with 'pyav'"

_SOURCE_LINE = re.compile(r"^\w+, \S+:\d+, ")
"""The line of torchcodec's own source that raised an error."""


def check_torchcodec() -> dict[str, str]:
    """Return the versions of torchcodec and of the FFmpeg it found.

    Raises:
        ConfigError: one of them is not installed, or they are not compatible with each other or with torch.
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
    """Decode the frames shown at ``times``: those of :func:`crisscross_zoo.media.decode.read_frames`.

    Args:
        media: From :func:`crisscross_zoo.media.scan.scan`, with a video track.
        times: Seconds, shape (n,), ascending.
        device: "cpu", or a CUDA device, whose decoder (NVDEC) is used; what NVDEC cannot decode falls back to the CPU.

    Yields:
        ``(count, frame)``: the frame serves the next ``count`` of ``times``; uint8 RGB, shape (H, W, 3), upright,
        on ``device``.

    Raises:
        UnreadableMediaError: torchcodec cannot decode the file, or returns other frames than the scan expects.
    """
    from torchcodec.decoders import VideoDecoder

    track = with_packets(media)
    if not track.regular:
        what = "frames with orientations of their own" if track.turns else "timestamps"
        raise UnreadableMediaError(f"has {what} that torchcodec cannot use", remedy=_REMEDY, path=media.path)
    assert track.packets is not None
    order = track.display_order()
    ranks = np.empty(len(track.packets.stamps), np.int64)
    ranks[order] = np.arange(len(order))
    indices, counts = np.unique(ranks[track.numbers_at(times)], return_counts=True)
    stamps = track.packets.stamps[order]
    orientation = orientation_of(track.matrix)
    try:
        decoder = VideoDecoder(
            os.path.abspath(media.path),
            stream_index=track.index,
            dimension_order="NHWC",
            device=device,
        )
        if (round((decoder.metadata.rotation or 0) / 90) - _quarter_turns(orientation)) % 4:
            raise UnreadableMediaError(
                "torchcodec does not find its display matrix", remedy=_REMEDY, path=media.path
            )
        for first in range(0, len(indices), FRAMES_AT_ONCE):
            chunk = slice(first, first + FRAMES_AT_ONCE)
            batch = decoder.get_frames_at(indices[chunk].tolist())
            apart = np.abs(batch.pts_seconds.cpu().numpy() - stamps[indices[chunk]] * track.tick)
            if apart.max() > track.tick / 2:
                raise UnreadableMediaError(
                    "torchcodec returns other frames than the file's timestamps promise",
                    remedy=_REMEDY,
                    path=media.path,
                )
            yield from zip(
                counts[chunk].tolist(), (_upright(f, orientation) for f in batch.data), strict=True
            )
    except (RuntimeError, IndexError, ValueError) as error:  # all that torchcodec raises
        reason = _SOURCE_LINE.sub("", first_line(error))
        raise UnreadableMediaError(
            f"torchcodec cannot decode it ({reason})", remedy=_REMEDY, path=media.path
        ) from None


def _quarter_turns(orientation: Orientation) -> int:
    """Return the number of turns by 90 degrees, anticlockwise, that FFmpeg's only angle for a display matrix has."""
    if orientation.transpose:
        return 1 if orientation.flip_rows else -1
    return 2 if orientation.flip_columns else 0


def _upright(frame: Tensor, orientation: Orientation) -> Tensor:
    """Mirror a frame that torchcodec has rotated: torchcodec ignores the mirroring of a display matrix."""
    if orientation.transpose ^ orientation.flip_rows ^ orientation.flip_columns:
        return frame.flip(1 if orientation.transpose else 0)
    return frame
