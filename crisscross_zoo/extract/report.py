"""What :func:`crisscross_zoo.extract_files` tells while it runs, its events, and at its end, a :class:`Summary`.

``str()`` of each is a line for people.
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
    """Of the run as a whole.

    Attributes:
        text: What.
    """

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FileNote:
    """What may be as wanted, of a file or folder. The same note is told of three files; a :class:`Message` counts more.

    Attributes:
        path: The input.
        text: What.
    """

    path: str
    text: str

    def __str__(self) -> str:
        return f"note: {shown(self.path)}: {self.text}"


@dataclass(frozen=True)
class FileWarning:
    """What is damaged in a file whose features are written.

    Attributes:
        path: The input.
        text: What.
    """

    path: str
    text: str

    def __str__(self) -> str:
        return f"warning: {shown(self.path)}: {self.text}; the features are of what could be read"


@dataclass(frozen=True)
class FileDone:
    """Features are written.

    Attributes:
        path: The input.
        output: The path or URL of its features.
        shapes: Their shapes by modality.
    """

    path: str
    output: str
    shapes: Mapping[str, list[int]]

    def __str__(self) -> str:
        return f"{shown(self.path)} -> {shown(self.output)}: {describe_shapes(self.shapes)}"


@dataclass(frozen=True)
class FileSkipped(FileDone):
    """Features were already there, of the same file, settings and weights."""

    def __str__(self) -> str:
        return f"{super().__str__()}, already there"


@dataclass(frozen=True)
class FileFailed:
    """There are no features of a file.

    Attributes:
        path: The input.
        error: Why.
    """

    path: str
    error: CrissCrossError

    def __str__(self) -> str:
        return f"error: {self.error}"


@dataclass(frozen=True)
class Progress:
    """How far the run is; told at the start, about twice a second, and at the end.

    Attributes:
        files: Files that are done, were already there, or failed.
        of: All files.
        clips: Clips that are done.
        known: Clips of the files that were opened.
        opened: How many files were opened; none of those that were already there.
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
    """What is kept of a file with features.

    Attributes:
        path: The input.
        output: The path or URL of its features.
        metadata: Of theirs: "shapes", "duration", "missing", "warnings", "notes" and "padded".
        span: Seconds from the start of the first window to the end of the last; None where they were already there.
        skipped: They were already there.
    """

    path: str
    output: str
    metadata: Mapping[str, Any]
    span: tuple[float, float] | None
    skipped: bool


@dataclass(frozen=True)
class Summary:
    """What became of all inputs.

    Attributes:
        out: The output, as it was given.
        files: Files with features, in the order of the inputs.
        failed: Why the others have none, by input.
        inputs: How many there were, the shard's alone.
        modality: What was wanted of them.
        interrupted: The run ended before its end: by Ctrl-C, or since the disk is full.
        stopped: It ended at the first failure (``on_error="stop"``).
        seconds: How long it took.
        failed_list: Where ``failed.jsonl`` is, or would be; None where the output is one file.
        shard: Which of the inputs it was about.
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
        """How many files' features were written."""
        return len(self.files) - self.skipped

    @property
    def skipped(self) -> int:
        """How many files' features were already there."""
        return sum(file.skipped for file in self.files)

    @property
    def clips(self) -> int:
        """How many rows were written."""
        return sum(rows for f in self.files if not f.skipped for rows, _ in f.metadata["shapes"].values())

    def to_dict(self) -> dict[str, Any]:
        """Return what ``crisscross-extract --json`` prints; JSON types."""
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
            part = f"{file.span[0]:.1f} to {file.span[1]:.1f} s of {shown(file.path)}"
            return f"{shown(self.out)}: {shapes}, {part} (took {self.seconds:.1f} s)"
        where = f" (see {shown(self.failed_list)})" if self.failed and self.failed_list is not None else ""
        rest = self.inputs - len(self.files) - len(self.failed)
        end = f"; stopped, {rest} not done" if self.stopped else ""
        return (
            f"{shown(self.out)}: {counted(self.done, 'file')} done, {self.skipped} already there,"
            f" {len(self.failed)} failed{where}; {counted(self.clips, 'clip')} (took {self.seconds:.1f} s){end}"
        )


Event: TypeAlias = Message | FileNote | FileWarning | FileDone | FileSkipped | FileFailed | Progress | Summary
"""What ``on_event`` is called with; the summary comes last, also where the run then raises a StorageError."""


def describe_shapes(shapes: Mapping[str, list[int]]) -> str:
    """Return ``video 12 rows x 64, audio 12 rows x 576``."""
    return ", ".join(f"{name} {counted(rows, 'row')} x {size}" for name, (rows, size) in shapes.items())
