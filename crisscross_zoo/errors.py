"""The exceptions that users can catch. All derive from :class:`CrissCrossError`.

Each is one line: where, what is wrong, what to do.
"""

from __future__ import annotations

import os
import re
from typing import Any


class CrissCrossError(Exception):
    """Base class of every error that this package raises on purpose.

    Args:
        reason: What is wrong.
        remedy: What the user can do about it.
        path: The file, folder, URL or repository that the error is about, if any.
    """

    def __init__(self, reason: str, *, remedy: str = "", path: str | os.PathLike[str] | None = None) -> None:
        self.reason = " ".join(str(reason).split())
        self.remedy = " ".join(str(remedy).split())
        self.path = None if path is None else os.fspath(path)
        super().__init__(self.reason)

    def __str__(self) -> str:
        where = "" if self.path is None else f"{shown(self.path)}: "
        return where + self.reason + (f"; {self.remedy}" if self.remedy else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.reason, self.remedy, self.path))


def _rebuild(cls: type[CrissCrossError], reason: str, remedy: str, path: str | None) -> CrissCrossError:
    return cls(reason, remedy=remedy, path=path)


def shown(path: str) -> str:
    """Return a path as printed in one line: newlines and other control characters are escaped."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], path)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of another library's exception; "" if it has no message."""
    return next(iter(str(error).strip().splitlines()), "")


class ConfigError(CrissCrossError, ValueError):
    """A setting, option or config field has a value that is not allowed."""


class InputError(CrissCrossError, ValueError):
    """An array or tensor has the wrong shape, dtype or range, or an argument is not a path."""


class MediaError(CrissCrossError):
    """A media file cannot be used."""


class MediaNotFoundError(MediaError, FileNotFoundError):
    """The file does not exist, or it is not a regular file."""


class UnreadableMediaError(MediaError):
    """The file cannot be opened, is not media, or nothing in it can be decoded."""


class NoStreamError(MediaError):
    """The file is readable but has no stream of the requested modality that can be decoded."""


class TruncatedMediaError(MediaError):
    """The file ends early or is damaged, and strict reading was requested."""


class DecoderCrashError(MediaError):
    """The process that decoded the file died, or hung and was killed."""


class OutputError(CrissCrossError):
    """Features cannot be written to, or read from, this path."""


class StorageError(OutputError):
    """The disk is full, over quota or read-only. Later writes would fail as well, so the run ends."""


class ClusterError(CrissCrossError):
    """A cluster cannot run the work, or was lost; finished work is kept."""


class TrainingError(CrissCrossError):
    """A training run cannot continue; its progress is in its checkpoints."""


class WeightsError(CrissCrossError):
    """Weights cannot be found, downloaded or loaded."""


class UnknownWeightsError(WeightsError, ValueError):
    """No checkpoint, file or repository has this name."""


class WeightsNotAvailableError(WeightsError):
    """The checkpoint is known, but it is not published, not cached, or not reachable offline."""


class DownloadError(WeightsError):
    """A download failed or was interrupted."""


class ChecksumError(WeightsError):
    """A file's sha256 is not the one in the manifest."""


class CheckpointError(WeightsError):
    """A weights file is malformed or hostile, or its keys, shapes or values do not fit."""


class OtherModalityError(CheckpointError):
    """A weights file holds the encoder of the other modality."""


class ManifestError(WeightsError):
    """``weights_manifest.json`` is missing or malformed, or cannot be written."""
