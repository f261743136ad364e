"""The result of a scan: a file's streams, the span of each on the file's clock, and what is wrong with them.

:class:`Media` is also what an index keeps of a file: :meth:`Media.to_row` and :meth:`Media.from_row` convert it to
plain values and back. An index does not keep the arrays with one entry per packet; a reader that needs them scans the
file again.
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
"""Stands for a timestamp that is missing or ignored."""

MP4_FORMAT = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the container format of MP4, MOV and related files."""

EARLY_SECONDS = 1e-6
"""A frame counts as shown this much before its time, since sums of seconds are rounded."""


@dataclass(frozen=True)
class Finding:
    """One phrase about a file: damage, or a note.

    Attributes:
        text: One phrase.
        stream: The stream that it concerns; None: the whole file.
        harmless: True for a note: unusual, but nothing is lost or guessed. False for damage.
    """

    text: str
    stream: Stream | None = None
    harmless: bool = False

    def __str__(self) -> str:
        return self.text if self.stream is None else f"{self.stream}: {self.text}"

    @classmethod
    def from_line(cls, line: str, *, harmless: bool) -> Self:
        """Return the finding of a line that ``str`` made."""
        for stream in ("video", "audio"):
            if line.startswith(f"{stream}: "):
                return cls(line.removeprefix(f"{stream}: "), stream, harmless)
        return cls(line, None, harmless)


class Packets(NamedTuple):
    """One entry per packet of a video stream, in the order of the file, which is decoding order.

    Attributes:
        stamps: Presentation timestamps, int64 in ticks of the stream, on the file's continuous clock. For a counted
            stream, decoding timestamps.
        shown: Whether the packet has a frame to show: it is not discarded by an edit list and not a placeholder.
        keys: Whether the packet starts a group that decodes without earlier packets.
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
        rate: Frame rate by the header, fps.
        counted: Whether the file lacks usable presentation timestamps. A frame is then shown when the packet with
            which the decoder returns it is decoded, less the decoder's delay.
        constant: Whether the timestamps are multiples of ``1 / rate``, rounded to ticks; the rounding is then undone.
        regular: Whether the file can be read by seeking: each packet's own timestamp is the time of its frame, and
            no packet states an orientation of its own (``turns``).
        tick: The time base: seconds per unit of a timestamp.
        origin: ``stamp * tick - origin`` is the time in the file.
        frames: Number of frames: packets of the stream with a frame to show.
        width: Width as stored, before the frame is turned upright, pixels.
        height: Height as stored, pixels.
        matrix: Display matrix of the first frame, see :func:`crisscross_zoo.media.frames.orientation_of`.
        packed: Whether packets hold two frames, with placeholders at the positions of the second ones.
        turns: Whether packets of H.264 or HEVC state orientations of their own, so that those of frames can differ.
        packets: One entry per packet; None if the track was read from an index.
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
    frames: int
    width: int
    height: int
    matrix: tuple[int, ...] = field(default=(), repr=False, compare=False)
    packed: bool = field(default=False, repr=False, compare=False)
    turns: bool = field(default=False, repr=False, compare=False)
    packets: Packets | None = field(default=None, repr=False, compare=False)

    def seconds(self, stamps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the times of ``stamps`` in the file, in seconds."""
        seconds = np.asarray(stamps, np.float64) * self.tick - self.origin
        if self.constant:
            first = self.span[0]
            seconds = first + np.rint((seconds - first) * self.rate) / self.rate
        return seconds

    def display_order(self) -> npt.NDArray[np.int64]:
        """Return the packets' numbers in the order in which their frames are shown; not for counted streams."""
        assert self.packets is not None
        shown = np.flatnonzero(self.packets.shown)
        order: npt.NDArray[np.int64] = shown[np.argsort(self.packets.stamps[shown], kind="stable")]
        return order

    def numbers_at(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the numbers of the packets whose frames are shown at ``times`` (seconds).

        A time before the first frame gets the first frame's packet.
        """
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
        tick: The time base: seconds per unit of a timestamp.
        origin: ``stamp * tick - origin`` is the time in the file.
        regular: Whether each packet's own timestamp is its time, so that the file can be read by seeking.
        exact: Whether timestamps are exact, so that a small step between two frames is real.
        rate: Sample rate of the file, Hz.
        first: Timestamp of the first decoded audio frame; None if it has none.
        lead: Samples in that frame.
        frame: Samples in each later audio frame; 0 if their lengths differ.
        stamps: Timestamp of each packet, int64 in ticks, :data:`NO_STAMP` where it is not known; None if the packets'
            own timestamps are right.
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
        size: Size of the file in bytes.
        modified_ns: Modification time, nanoseconds since 1970.
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
        """End of the stream that ends last, seconds."""
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
        """What is lost, guessed or repaired in either stream or the file, one phrase each."""
        return tuple(str(f) for f in self.findings if not f.harmless)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual and costs nothing, one phrase each."""
        return tuple(str(f) for f in self.findings if f.harmless)

    def lacks(self, stream: Stream) -> NoStreamError:
        """Return the error of a file that has no such stream, or none that can be decoded."""
        reason = f"has no {stream} stream"
        for finding in self.findings:
            if finding.stream == stream and not finding.harmless:
                reason = f"its {stream} stream cannot be decoded ({finding.text})"
                break
        remedy = f"use modality {'audio' if stream == 'video' else 'video'!r}"
        return NoStreamError(reason, remedy=remedy, path=self.path)

    def findings_of(self, streams: Collection[str]) -> list[Finding]:
        """Return the findings that concern one of ``streams``, or the whole file."""
        return [f for f in self.findings if f.stream is None or f.stream in streams]

    def compact(self) -> Self:
        """Return a copy without the entries per packet, which grow with the file's length."""
        video = self.video and dataclasses.replace(self.video, packets=None)
        audio = self.audio and dataclasses.replace(self.audio, stamps=None)
        return dataclasses.replace(self, video=video, audio=audio)

    def to_row(self) -> dict[str, Value]:
        """Return an int, float, bool, str or None by column; ``damage`` and ``notes`` have one phrase per line."""
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
        """Return the media of a row of :meth:`to_row`, without entries per packet; other keys of ``row`` are ignored.

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
    """Return the types of a track's fields that a row keeps, by name; ``int`` for ``int | None``."""
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
"""Columns of :meth:`Media.to_row` by name, with the type of their values: int, float, bool or str."""
