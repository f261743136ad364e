"""Read clips of media files. The only package that opens media files.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.media.clips import Clip as Clip
    from crisscross_zoo.media.clips import Sampling as Sampling
    from crisscross_zoo.media.clips import Views as Views
    from crisscross_zoo.media.clips import read_clips as read_clips
    from crisscross_zoo.media.clips import read_files as read_files
    from crisscross_zoo.media.seek import read_moment as read_moment
    from crisscross_zoo.media.tracks import Media as Media

_HOMES = {
    "Clip": "crisscross_zoo.media.clips",
    "Media": "crisscross_zoo.media.tracks",
    "Sampling": "crisscross_zoo.media.clips",
    "Views": "crisscross_zoo.media.clips",
    "read_clips": "crisscross_zoo.media.clips",
    "read_files": "crisscross_zoo.media.clips",
    "read_moment": "crisscross_zoo.media.seek",
}

__all__ = [
    "Clip",
    "Media",
    "Sampling",
    "Views",
    "read_clips",
    "read_files",
    "read_moment",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
