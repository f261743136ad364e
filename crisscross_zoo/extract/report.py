"""The events that :func:`crisscross_zoo.extract_files` reports while it runs; the last is a :class:`Summary`.

``str()`` of an event is a line for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from crisscross_zoo.errors import CrissCrossError, shown
from crisscross_zoo.extract.shard import Shard
from crisscross_zoo.files.failures import failure_row
from crisscross_zoo.text import counted


@dataclass(frozen=True)
class Message:
    """Event: a line about the run as a whole.

    Attributes:
        text: The line.
    """

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FileNote:
    """Event: a note on a file or folder. The same note is reported for three files; a :class:`Message` counts the rest.

    Attributes:
        path: The input.
        text: What is unusual.
    """

    path: str
    text: str

    def __str__(self) -> str:
        return f"note: {shown(self.path)}: {self.text}"


@dataclass(frozen=True)
class FileWarning:
    """Event: a file whose features are written is damaged.

    Attributes:
        path: The input.
        text: What is damaged.
    """

    path: str
    text: str

    def __str__(self) -> str:
        return f"warning: {shown(self.path)}: {self.text}; the features cover what could be read"


@dataclass(frozen=True)
class FileDone:
    """Event: the features of a file are written.

    Attributes:
        path: The input.
        output: The path or URL of the features.
        shapes: The shape (rows, D) of the features, by modality.
    """

    path: str
    output: str
    shapes: Mapping[str, list[int]]

    def __str__(self) -> str:
        return f"{shown(self.path)} -> {shown(self.output)}: {describe_shapes(self.shapes)}"


@dataclass(frozen=True)
class FileSkipped(FileDone):
    """Event: the output of a file is up to date: made from the same file, settings and weights."""

    def __str__(self) -> str:
        return f"{super().__str__()}, already there"


@dataclass(frozen=True)
class FileFailed:
    """Event: a file failed.

    Attributes:
        path: The input.
        error: Why it failed.
    """

    path: str
    error: CrissCrossError

    def __str__(self) -> str:
        return f"error: {self.error}"


@dataclass(frozen=True)
class Progress:
    """Event: the progress of the run; reported at the start, about twice a second, and at the end.

    Attributes:
        files: Number of files that are done, skipped or failed.
        of: Number of all files.
        clips: Number of clips that are done.
        known: Number of clips of the files that were opened so far.
        opened: Number of files that were opened so far; skipped files are not opened.
    """

    files: int
    of: int
    clips: int
    known: int
    opened: int

    def __str__(self) -> str:
        return f"{self.files} of {counted(self.of, 'file')}, {counted(self.clips, 'clip')}"


@dataclass(frozen=True)
class FileSummary:
    """The path, output and metadata of a file with features.

    Attributes:
        path: The input.
        output: The path or URL of the features.
        metadata: Fields of the features' metadata: "shapes", "duration", "missing", "warnings", "notes" and "padded".
        span: Start of the first window and end of the last, in seconds; None if the file was skipped.
        skipped: Whether the output was up to date.
    """

    path: str
    output: str
    metadata: Mapping[str, Any]
    span: tuple[float, float] | None
    skipped: bool


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    Attributes:
        out: The output, as given.
        files: The files with features, in the order of the inputs.
        failed: The error of each file that failed, by input.
        inputs: Number of inputs; with shards, of this shard.
        modality: "video", "audio" or "both".
        interrupted: Whether the run ended early: by Ctrl-C, or because the disk is full.
        stopped: Whether the run ended at the first failure (``on_error="stop"``).
        seconds: Duration of the run.
        failed_list: Path or URL of ``failed.jsonl``, which exists if a file failed; None if the output is one file.
        shard: The shard of the inputs that the run processed.
    """

    out: str
    files: tuple[FileSummary, ...]
    failed: Mapping[str, CrissCrossError]
    inputs: int
    modality: str
    interrupted: bool
    stopped: bool
    seconds: float
    failed_list: str | None
    shard: Shard

    @property
    def done(self) -> int:
        """Number of files whose features were written."""
        return len(self.files) - self.skipped

    @property
    def skipped(self) -> int:
        """Number of files whose output was up to date."""
        return sum(file.skipped for file in self.files)

    @property
    def clips(self) -> int:
        """Number of rows that were written."""
        return sum(rows for f in self.files if not f.skipped for rows, _ in f.metadata["shapes"].values())

    def to_dict(self) -> dict[str, Any]:
        """Return the dict, of JSON types, that ``crisscross-extract --json`` prints."""
        kept = ("shapes", "warnings", "notes", "missing", "padded")
        return {
            "out": self.out,
            "done": self.done,
            "skipped": self.skipped,
            "failed": len(self.failed),
            "interrupted": self.interrupted,
            "clips": self.clips,
            "seconds": round(self.seconds, 3),
            "outputs": [
                {"input": f.path, "output": f.output} | {name: f.metadata[name] for name in kept}
                for f in self.files
            ],
            "failures": [failure_row(p, e, modality=self.modality) for p, e in self.failed.items()],
        }

    def __str__(self) -> str:
        if self.failed_list is None and len(self.files) == 1:
            (file,) = self.files
            shapes = describe_shapes(file.metadata["shapes"])
            if file.span is None:
                return f"{shown(self.out)}: {shapes} of {shown(file.path)}: already there with these settings"
            span = f"{file.span[0]:.1f} to {file.span[1]:.1f} s of {shown(file.path)}"
            return f"{shown(self.out)}: {shapes}, {span} (took {self.seconds:.1f} s)"
        where = f" (see {shown(self.failed_list)})" if self.failed and self.failed_list is not None else ""
        rest = self.inputs - len(self.files) - len(self.failed)
        end = f"; stopped, {rest} not done" if self.stopped else ""
        return (
            f"{shown(self.out)}: {counted(self.done, 'file')} done, {self.skipped} already there,"
            f" {len(self.failed)} failed{where}; {counted(self.clips, 'clip')} (took {self.seconds:.1f} s){end}"
        )


Event: TypeAlias = Message | FileNote | FileWarning | FileDone | FileSkipped | FileFailed | Progress | Summary
"""The argument of ``on_event``. The summary comes last, also where the run then raises a StorageError."""


def describe_shapes(shapes: Mapping[str, list[int]]) -> str:
    """Return shapes as text, ``video 12 rows x 128, audio 12 rows x 1728``."""
    return ", ".join(f"{name} {counted(rows, 'row')} x {size}" for name, (rows, size) in shapes.items())
