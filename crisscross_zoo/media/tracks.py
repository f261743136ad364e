"""What a scan finds in a file: its streams, where each lies on the file's clock, and what is wrong with them.

:class:`Media` is also what an index keeps of a file: :meth:`Media.to_row` and :meth:`Media.from_row` give it as plain
values. The arrays with one entry a packet are not kept; what needs them scans the file again.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import InputError, NoStreamError

Stream: TypeAlias = Literal["video", "audio"]
Value: TypeAlias = int | float | bool | str | None

NO_STAMP = int(np.iinfo(np.int64).min)
"""Stands for a timestamp that is missing or not believed."""

MP4_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the container format of MP4, MOV and their kin."""

EARLY_SECONDS = 1e-6
"""A frame is shown from this much before its time on, for what rounding does to sums of seconds."""


@dataclass(frozen=True)
class Finding:
    """Something about a file that its user should know.

    Attributes:
        text: One phrase.
        stream: The stream it concerns; None: the whole file.
        harmless: A note: unusual, but nothing is lost or guessed. Otherwise it is damage.
    """

    text: str
    stream: Stream | None = None
    harmless: bool = False

    def __str__(self) -> str:
        return self.text if self.stream is None else f"{self.stream}: {self.text}"

    @classmethod
    def from_line(cls, line: str, *, harmless: bool) -> Self:
        """Undo ``str``."""
        for stream in ("video", "audio"):
            if line.startswith(f"{stream}: "):
                return cls(line.removeprefix(f"{stream}: "), stream, harmless)
        return cls(line, None, harmless)


class Packets(NamedTuple):
    """One entry a packet of a video stream, in the order of the file, which is decoding order.

    Attributes:
        stamps: When its frame is shown, int64 in ticks of the stream, on the clock that runs through the whole file.
            Of a counted stream: when it is decoded.
        shown: Whether a frame comes of it that is to be shown: not discarded by an edit list, not a placeholder.
        keys: Whether it starts a group that decodes on its own.
    """

    stamps: npt.NDArray[np.int64]
    shown: npt.NDArray[np.bool_]
    keys: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class VideoTrack:
    """The video stream that clips are taken from.

    Attributes:
        index: Stream index in the file.
        codec: FFmpeg's name of the codec.
        span: ``(start, end)`` in seconds on the file's clock: first frame shown, last frame's end.
        rate: Frames a second by the header.
        counted: Whether the file has no presentation timestamps that could be used. A frame is then shown when the
            packet that made the decoder give it is decoded, less the decoder's delay.
        constant: Whether the timestamps are multiples of ``1 / rate``, rounded to ticks; the rounding is then undone.
        regular: Whether each packet's own timestamp says when its frame is shown, so that the file can be sought in.
        tick: Seconds per unit of a timestamp.
        origin: ``stamp * tick - origin`` is the time in the file.
        pictures: Packets of the stream that hold a frame.
        width: Pixels a line as stored, before the frame is turned upright.
        height: Lines as stored.
        matrix: Display matrix of the first frame, see :func:`crisscross_zoo.media.frames.orientation_of`.
        packed: Whether packets hold two frames, and placeholders stand where the second is due.
        packets: One entry a packet; None where the file was not scanned but read from an index.
    """

    index: int
    codec: str
    span: tuple[float, float]
    rate: float
    counted: bool
    constant: bool
    regular: bool
    tick: float
    origin: float
    pictures: int
    width: int
    height: int
    matrix: tuple[int, ...] = field(default=(), repr=False, compare=False)
    packed: bool = field(default=False, repr=False, compare=False)
    packets: Packets | None = field(default=None, repr=False, compare=False)

    def seconds(self, stamps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Times in the file of timestamps."""
        seconds = np.asarray(stamps, np.float64) * self.tick - self.origin
        if self.constant:
            first = self.span[0]
            seconds = first + np.rint((seconds - first) * self.rate) / self.rate
        return seconds

    def display_order(self) -> npt.NDArray[np.int64]:
        """Packets by number, in the order in which their frames are shown; counted streams have none."""
        assert self.packets is not None
        shown = np.flatnonzero(self.packets.shown)
        order: npt.NDArray[np.int64] = shown[np.argsort(self.packets.stamps[shown], kind="stable")]
        return order

    def numbers_at(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Numbers of the packets whose frames are shown at ``times``, seconds in the file; the first one before it."""
        assert self.packets is not None
        order = self.display_order()
        later = np.searchsorted(self.seconds(self.packets.stamps[order]), times + EARLY_SECONDS, side="right")
        numbers: npt.NDArray[np.int64] = order[np.maximum(later - 1, 0)]
        return numbers


@dataclass(frozen=True, kw_only=True)
class AudioTrack:
    """The audio stream that clips are taken from.

    Attributes:
        index: Stream index in the file.
        codec: FFmpeg's name of the codec.
        span: ``(start, end)`` in seconds on the file's clock; it starts at 0 or later.
        tick: Seconds per unit of a timestamp.
        origin: ``stamp * tick - origin`` is the time in the file.
        regular: Whether each packet's own timestamp says where it lies, so that the file can be sought in.
        exact: Whether timestamps are exact, so that a small step between two frames is meant.
        rate: Samples a second in the file, Hz.
        first: Timestamp of the first decoded frame; None if it has none.
        lead: Samples in that first frame.
        frame: Samples in each later frame; 0 if they differ.
        stamps: Where each packet lies, int64 in ticks, :data:`NO_STAMP` where that is not known; None where the
            packets' own timestamps say it.
    """

    index: int
    codec: str
    span: tuple[float, float]
    tick: float
    origin: float
    regular: bool
    exact: bool
    rate: int
    first: int | None
    lead: int
    frame: int
    stamps: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Media:
    """What :func:`crisscross_zoo.media.scan.scan` finds in a file.

    Attributes:
        path: The file.
        size: Its length in bytes.
        modified_ns: When it was last changed, nanoseconds since 1970.
        format: FFmpeg's name of the container format.
        video: The best video stream, or None (attached cover art does not count).
        audio: The best audio stream, or None.
        findings: What is wrong or unusual.
    """

    path: str
    size: int
    modified_ns: int
    format: str
    video: VideoTrack | None
    audio: AudioTrack | None
    findings: tuple[Finding, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds to the end of the stream that ends last."""
        return max(t.span[1] for t in (self.video, self.audio) if t is not None)

    @property
    def video_span(self) -> tuple[float, float] | None:
        """``(start, end)`` of the video in seconds, None if there is none."""
        return None if self.video is None else self.video.span

    @property
    def audio_span(self) -> tuple[float, float] | None:
        """``(start, end)`` of the audio in seconds, None if there is none."""
        return None if self.audio is None else self.audio.span

    @property
    def damage(self) -> tuple[str, ...]:
        """What is lost, guessed or put right in either stream or the file, one phrase each."""
        return tuple(str(f) for f in self.findings if not f.harmless)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual and costs nothing, one phrase each."""
        return tuple(str(f) for f in self.findings if f.harmless)

    def lacks(self, stream: Stream) -> NoStreamError:
        """Return the error of a file that has no such stream."""
        other = "audio" if stream == "video" else "video"
        return NoStreamError(f"has no {stream} stream", remedy=f"use modality {other!r}", path=self.path)

    def findings_of(self, streams: Collection[str]) -> list[Finding]:
        """What concerns one of ``streams``, or the whole file."""
        return [f for f in self.findings if f.stream is None or f.stream in streams]

    def compact(self) -> Self:
        """Return the same without what grows with the file's length."""
        video = self.video and dataclasses.replace(self.video, packets=None)
        audio = self.audio and dataclasses.replace(self.audio, stamps=None)
        return dataclasses.replace(self, video=video, audio=audio)

    def to_row(self) -> dict[str, Value]:
        """Return it as int, float, bool, str or None by column; ``damage`` and ``notes`` have one phrase a line."""
        row: dict[str, Value] = {name: getattr(self, name) for name in (*_FILE_COLUMNS, "duration")}
        for stream, columns in _COLUMNS.items():
            track = getattr(self, stream)
            for name in columns:
                row[f"{stream}_{name}"] = None if track is None else getattr(track, name)
            for name, end in (("start", 0), ("end", 1)):
                row[f"{stream}_{name}"] = None if track is None else float(track.span[end])
        return {**row, "damage": "\n".join(self.damage), "notes": "\n".join(self.notes)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_row`, but for the entries per packet; other keys of ``row`` are left aside.

        Raises:
            InputError: a column is missing.
        """
        if missing := [n for n in COLUMNS if n not in row]:
            raise InputError(f"no column {missing[0]!r}", remedy="index the folder again")
        tracks: dict[str, Any] = {}
        for stream, (track, columns) in {
            s: (t, _COLUMNS[s]) for s, t in (("video", VideoTrack), ("audio", AudioTrack))
        }.items():
            if row[f"{stream}_index"] is not None:
                values = {name: row[f"{stream}_{name}"] for name in columns}
                tracks[stream] = track(span=(row[f"{stream}_start"], row[f"{stream}_end"]), **values)
        findings = [
            Finding.from_line(line, harmless=harmless)
            for column, harmless in (("damage", False), ("notes", True))
            for line in (row[column] or "").splitlines()
        ]
        return cls(
            **{name: row[name] for name in _FILE_COLUMNS},
            video=tracks.get("video"),
            audio=tracks.get("audio"),
            findings=tuple(findings),
        )


_FILE_COLUMNS: tuple[str, ...] = ("path", "size", "modified_ns", "format")


def _columns_of(track: type) -> dict[str, type]:
    """Types of a track's fields that a row keeps, by name; ``int`` of ``int | None``."""
    hints = typing.get_type_hints(track)
    kept = [f.name for f in dataclasses.fields(track) if f.compare and f.name != "span"]
    return {name: (*typing.get_args(hints[name]), hints[name])[0] for name in kept}


_COLUMNS: dict[str, dict[str, type]] = {"video": _columns_of(VideoTrack), "audio": _columns_of(AudioTrack)}

COLUMNS: dict[str, type] = {
    "path": str,
    "size": int,
    "modified_ns": int,
    "format": str,
    "duration": float,
    **{
        f"{stream}_{name}": kind
        for stream, kinds in _COLUMNS.items()
        for name, kind in {**kinds, "start": float, "end": float}.items()
    },
    "damage": str,
    "notes": str,
}
"""Columns of :meth:`Media.to_row` by name, with the type of what is in them: int, float, bool or str."""
