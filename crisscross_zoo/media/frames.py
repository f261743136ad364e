"""Frames of a video stream: decoded by their packets' numbers, shown by the track's clock, turned upright."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video import VideoStream
from av.video.reformatter import VideoReformatter

from crisscross_zoo.errors import UnreadableMediaError
from crisscross_zoo.media.packets import OnDamage, PacketDecoder
from crisscross_zoo.media.tracks import EARLY_SECONDS, MP4_FORMAT, VideoTrack
from crisscross_zoo.text import counted

Frame = TypeVar("Frame")

INDEXED_FORMATS = frozenset({MP4_FORMAT, "matroska,webm"})
"""Formats whose key-frame flags can be trusted, so that packets no clip needs are not decoded."""

# Frames that a decoder holds back for others that are shown before them, where it is more than one.
_LONGEST_DELAYS = {"h264": 16, "hevc": 16}

# Codecs whose non-reference frames can be left out without changing the others (checked in tests/media).
_SKIPPABLE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video"})


class NotAsIndexedError(Exception):
    """A frame that the index promises did not come out of the decoder."""


@dataclass(frozen=True)
class Decoded:
    """A frame as it comes out of the decoder.

    Attributes:
        frame: It; its ``pts`` is the number of the packet that it comes from, None where that is not known.
        after: Number of the packet that the decoder had been given last.
        inside: How many frames the decoder still held.
        due: Number of the packet given so many packets with a frame before.
    """

    frame: av.VideoFrame
    after: int
    inside: int
    due: int


class DecodingPlan:
    """Which packets to decode so that the frames at some times come out, and nothing else if possible.

    Packets form groups that start with a key frame, in decoding order. A group with no needed frame is dropped
    before the decoder. Frames shown before their group's key frame also need the group before. In a group,
    non-reference frames that are not needed are skipped by the decoder, which leaves the others bit for bit the same.
    """

    def __init__(self, track: VideoTrack, times: npt.NDArray[np.float64]) -> None:
        assert track.packets is not None
        stamps, shown, keys = track.packets
        self._keys = keys
        self.picks = track.numbers_at(times)
        self.needed = np.zeros(len(stamps), np.bool_)
        self.needed[self.picks] = True
        self.needed[1:] |= self.needed[:-1] & ~shown[1:]  # which may be the second field of the same frame
        group = np.maximum(np.cumsum(keys) - 1, 0)
        key_stamps = stamps[np.flatnonzero(keys)] if keys.any() else stamps[:1]
        wanted = np.zeros(len(key_stamps), np.bool_)
        wanted[group[self.needed]] = True
        leading = self.needed & (stamps < key_stamps[group])
        wanted[np.maximum(group[leading] - 1, 0)] = True
        self.decode = wanted[group]
        self.skips = track.codec in _SKIPPABLE_CODECS

    def check_key(self, frame: av.VideoFrame) -> None:
        """Raise if the packet of ``frame`` is flagged as a key frame and was none: its group may not decode alone."""
        number = frame.pts
        if (
            number is not None
            and 0 <= number < len(self._keys)
            and self._keys[number]
            and not frame.key_frame
        ):
            raise NotAsIndexedError

    def check(self, done: int, count: int, number: int | None) -> None:
        """Raise unless the frame of packet ``number`` is the one for these of the times."""
        if number is None or np.any(self.picks[done : done + count] != number):
            raise NotAsIndexedError


def decode_video(
    packets: Iterable[av.Packet[Any]],
    stream: VideoStream,
    plan: DecodingPlan | None,
    on_damage: OnDamage,
    shown: npt.NDArray[np.bool_] | None = None,
) -> Iterator[Decoded]:
    """Decode a video stream's packets, numbered from 0 in place of their timestamps: those of the plan, or all.

    Args:
        packets: All of the stream, or from a key frame on.
        stream: The stream, of an open file.
        plan: Which of them to decode.
        on_damage: Called with one phrase if some cannot be decoded.
        shown: Which of them hold a frame to be shown: of others it is no damage.
    """
    decoder = PacketDecoder(stream, on_damage)
    context = stream.codec_context
    given, came, last, drained = 0, 0, -1, True
    recent: deque[int] = deque([0], maxlen=1 + max(_LONGEST_DELAYS.values()))

    def decoded(frames: list[av.VideoFrame]) -> Iterator[Decoded]:
        nonlocal came
        for frame in frames:
            came += 1
            held = _LONGEST_DELAYS.get(context.name, 1) if context.has_b_frames else 0
            inside = max(0, min(given - came, held, len(recent) - 1))
            yield Decoded(frame, last, inside, recent[-1 - inside])

    for number, packet in enumerate(packets):
        if plan is not None and number < len(plan.decode):
            if not plan.decode[number]:
                if not drained:
                    yield from decoded(decoder.decode(None))
                    context.flush_buffers()
                    drained = True
                continue
            if plan.skips:
                context.skip_frame = "DEFAULT" if plan.needed[number] else "NONREF"
        drained, last = False, number
        packet.pts = packet.dts = number
        needed = shown is None or number >= len(shown) or bool(shown[number])
        frames = decoder.decode(packet, needed=needed)
        if needed and not decoder.failed:
            given += 1
            recent.append(number)
        yield from decoded(frames)
    yield from decoded(decoder.decode(None))


def shown_frames(
    decoded: Iterable[Decoded],
    track: VideoTrack,
    times: npt.NDArray[np.float64],
    convert: Callable[[av.VideoFrame], Frame],
    plan: DecodingPlan | None,
    path: str,
    on_damage: OnDamage,
) -> Iterator[tuple[int, Frame]]:
    """Of decoded frames, yield those shown at ``times``: at each, the last one that is shown by then.

    Args:
        decoded: From :func:`decode_video`, of the track's packets.
        track: The track, scanned.
        times: Seconds, shape (n,), ascending, n >= 1.
        convert: Makes of a decoded frame what is given.
        plan: What was decoded; each frame is held against it. None: all.
        path: The file, for errors.
        on_damage: Called with one phrase for whatever was lost.

    Yields:
        ``(count, frame)``: the frame serves the next ``count`` of ``times``.

    Raises:
        UnreadableMediaError: no frame came out.
        NotAsIndexedError: with a plan: it cannot be kept to.
    """
    wall = times + EARLY_SECONDS
    clock = _CountedClock(track) if track.counted else _StampedClock(track)
    done, current, number, newest = 0, None, None, -np.inf
    for item in decoded:
        if plan is not None:
            plan.check_key(item.frame)
        seconds = clock.seconds(item)
        if seconds is None:
            continue
        if seconds <= newest:
            clock.misplaced += 1
            continue
        newest = seconds
        if current is not None:
            count = int(np.searchsorted(wall, seconds, side="left")) - done
            if count > 0:
                if plan is not None:
                    plan.check(done, count, number)
                yield count, convert(current)
                done += count
                if done == len(times):
                    break
        current, number = item.frame, item.frame.pts
    else:
        if current is None:
            if plan is not None:
                raise NotAsIndexedError
            raise UnreadableMediaError(
                "its video cannot be decoded", remedy="check it in a player", path=path
            )
        if plan is not None:
            plan.check(done, len(times) - done, number)
        newest = np.inf
    if plan is None:
        for phrase in clock.losses(newest):
            on_damage(f"video: {phrase}")
    if done < len(times) and current is not None:
        yield len(times) - done, convert(current)


class _StampedClock:
    """Says when a frame is shown by the timestamp of the packet it comes from."""

    def __init__(self, track: VideoTrack) -> None:
        assert track.packets is not None
        self._packets = track.packets
        self._seconds = track.seconds(track.packets.stamps)
        self._came = np.zeros(len(self._seconds), np.bool_)
        self._start = track.span[0]
        self._unknown = 0
        self.misplaced = 0

    def seconds(self, item: Decoded) -> float | None:
        number = item.frame.pts
        if number is None or not 0 <= number < len(self._seconds):
            self._unknown += 1
            return None
        if not self._packets.shown[number]:
            return None
        self._came[number] = True
        seconds = float(self._seconds[number])
        return seconds if seconds >= self._start - EARLY_SECONDS else None

    def losses(self, until: float) -> list[str]:
        """What was lost of the frames that are shown before ``until`` seconds, in phrases."""
        due = self._packets.shown & (self._seconds >= self._start - EARLY_SECONDS) & (self._seconds < until)
        lost = int((due & ~self._came).sum())
        return [
            *([f"{lost} of {counted(int(due.sum()), 'frame')} could not be decoded"] if lost else []),
            *([f"{counted(self.misplaced, 'frame')} out of order, skipped"] if self.misplaced else []),
            *(
                [f"{counted(self._unknown, 'frame')} of packets that the scan did not find"]
                if self._unknown
                else []
            ),
        ]


class _CountedClock:
    """Says when a frame is shown by the packet that the decoder was given last, less what the decoder held back.

    This is how FFmpeg shows AVI, but for the delay, which it keeps; where a packet gives no frame, time passes. Packed
    B-frames are shown with the packet that brings them, as by the decoders that they were made for.
    """

    def __init__(self, track: VideoTrack) -> None:
        assert track.packets is not None
        self._track, self._packets = track, track.packets
        steps = np.unique(track.packets.stamps)  # a frame's two fields have one
        self._step = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
        self._first: float | None = None
        self._came = 0
        self.misplaced = 0

    def seconds(self, item: Decoded) -> float | None:
        stamps = self._packets.stamps
        after, due = (min(number, len(stamps) - 1) for number in (item.after, item.due))
        stamp = float(stamps[due] if self._track.packed else stamps[after] - item.inside * self._step)
        if self._first is None:
            self._first = stamp
        self._came += 1
        return float(self._track.seconds(stamp - self._first + float(stamps[0])))

    def losses(self, until: float) -> list[str]:
        due = int(self._packets.shown.sum())
        lost = due - self._came if until == np.inf else 0
        return [
            *([f"{lost} of {counted(due, 'frame')} could not be decoded"] if lost > 0 else []),
            *([f"{counted(self.misplaced, 'frame')} out of order, skipped"] if self.misplaced else []),
        ]


# --- upright -----------------------------------------------------------------------------------------------------


class Orientation(NamedTuple):
    """How a stored frame becomes upright: rows and columns exchanged first, then flipped.

    Attributes:
        transpose: Rows become columns.
        flip_rows: The top becomes the bottom.
        flip_columns: The left becomes the right.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Turn an array of shape (H, W, ...)."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...]:
    """Return the nine numbers of a frame's display matrix, () where it has none."""
    data: Any  # PyAV's own types take it for a mapping
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return tuple(np.frombuffer(data, np.int32, 9).tolist())
    return ()


def _unlisted(kinds: type[SideDataType], value: Any) -> SideDataType:
    """Return a kind of side data that PyAV does not list."""
    kind = object.__new__(kinds)
    kind._name_, kind._value_ = f"UNLISTED_{value}", value
    return kind


# Of a frame with such side data (in PyAV 18 EXIF, which photos and cameras' MJPEG have) PyAV would give none at all.
SideDataType._missing_ = classmethod(_unlisted)  # type: ignore[assignment, method-assign]


def orientation_of(matrix: Sequence[int]) -> Orientation:
    """Return the orientation nearest to a display matrix: (a, b, u, c, d, v, x, y, w), row by row.

    A stored point (x, y), y downwards, is shown at ``(a x + c y, b x + d y)``.
    """
    if len(matrix) < 5:
        return Orientation()
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, d < 0, a < 0)
    return Orientation(True, b < 0, c < 0)


class RgbConverter:
    """Frames to upright RGB arrays, with one reused scaler (4 to 5 times faster than a new one a frame)."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        """Return (H, W, 3), upright."""
        rgb: npt.NDArray[Any] = self._reformatter.reformat(
            frame, frame.width, frame.height, "rgb24"
        ).to_ndarray()
        return orientation_of(display_matrix(frame)).apply(rgb)
