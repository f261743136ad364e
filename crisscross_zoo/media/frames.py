"""Decode a video stream's frames by their packets' numbers, pick those shown at given times, and turn them upright."""

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
from crisscross_zoo.media.packets import EditStarts, OnDamage, PacketDecoder
from crisscross_zoo.media.tracks import EARLY_SECONDS, MP4_FORMAT, VideoTrack
from crisscross_zoo.text import counted

Frame = TypeVar("Frame")

INDEXED_FORMATS = frozenset({MP4_FORMAT, "matroska,webm"})
"""Formats whose key-frame flags can be trusted, so that packets no clip needs are not decoded."""

# How many frames a decoder holds back at most in order to reorder them; 1 for other codecs.
_LONGEST_DELAYS = {"h264": 16, "hevc": 16}

ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
"""For ``VideoReformatter.reformat``: from PyAV 17 on, a new scaler otherwise starts a thread per core. That costs more
than to convert the few frames of a training view, and readers run side by side anyway."""

# Codecs whose non-reference frames can be skipped without changing the others (checked in tests/media).
_SKIPPABLE_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video"})


class NotAsIndexedError(Exception):
    """The decoder did not return a frame that the index promises."""


@dataclass(frozen=True)
class Decoded:
    """A frame as the decoder returns it.

    Attributes:
        frame: The frame; its ``pts`` is the number of the packet that it comes from, None if that is not known.
        after: Number of the last packet that the decoder was given.
        inside: How many frames the decoder still holds.
        due: Number of the packet that was given ``inside`` packets before the last, not counting packets without a
            frame.
    """

    frame: av.VideoFrame
    after: int
    inside: int
    due: int


class DecodingPlan:
    """Which packets to decode for the frames at given times, and as few others as possible.

    Packets form groups that start with a key frame, in decoding order. A group without a needed frame is not decoded.
    Frames shown before their group's key frame also need the group before. Within a group, the decoder skips
    non-reference frames that are not needed, which leaves the others bit for bit the same.
    """

    def __init__(self, track: VideoTrack, times: npt.NDArray[np.float64]) -> None:
        assert track.packets is not None
        stamps, shown, keys = track.packets
        self._keys = keys
        self.picks = track.numbers_at(times)
        self.needed = np.zeros(len(stamps), np.bool_)
        self.needed[self.picks] = True
        self.needed[1:] |= self.needed[:-1] & ~shown[1:]  # it may be the second field of the same frame
        group = np.maximum(np.cumsum(keys) - 1, 0)
        key_stamps = stamps[np.flatnonzero(keys)] if keys.any() else stamps[:1]
        wanted = np.zeros(len(key_stamps), np.bool_)
        wanted[group[self.needed]] = True
        leading = self.needed & (stamps < key_stamps[group])
        wanted[np.maximum(group[leading] - 1, 0)] = True
        self.decode = wanted[group]
        self.skips = track.codec in _SKIPPABLE_CODECS

    def check_key(self, frame: av.VideoFrame) -> None:
        """Raise if ``frame`` is no key frame although its packet is flagged as one: its group may need earlier ones."""
        number = frame.pts
        if (
            number is not None
            and 0 <= number < len(self._keys)
            and self._keys[number]
            and not frame.key_frame
        ):
            raise NotAsIndexedError

    def check(self, done: int, count: int, number: int | None) -> None:
        """Raise unless the frame of packet ``number`` is the one for times ``done`` to ``done + count``."""
        if number is None or np.any(self.picks[done : done + count] != number):
            raise NotAsIndexedError


def decode_video(
    packets: Iterable[av.Packet[Any]],
    stream: VideoStream,
    plan: DecodingPlan | None,
    on_damage: OnDamage,
    shown: npt.NDArray[np.bool_] | None = None,
) -> Iterator[Decoded]:
    """Decode a video stream's packets with their numbers from 0 as timestamps: those of the plan, or all.

    Each edit of an edit list is decoded on its own: the decoder would sort its frames among those of the edit before.

    Args:
        packets: All packets of the stream, or those from a key frame on.
        stream: The stream, of an open file.
        plan: Which packets to decode; None: all.
        on_damage: Called with one phrase if some packets cannot be decoded.
        shown: Which packets hold a frame to be shown; failing to decode another packet is no damage.
    """
    decoder = PacketDecoder(stream, on_damage)
    context, edits = stream.codec_context, EditStarts(stream)
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
        skipped = plan is not None and number < len(plan.decode) and not plan.decode[number]
        if (edits.begins(packet) or skipped) and not drained:
            yield from decoded(decoder.decode(None))
            context.flush_buffers()
            drained = True
        if skipped:
            continue
        if plan is not None and number < len(plan.decode) and plan.skips:
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
    """Yield the decoded frames shown at ``times``: at each time, the last frame whose timestamp is not later.

    Args:
        decoded: From :func:`decode_video`, of the track's packets.
        track: The track, scanned.
        times: Seconds, shape (n,), ascending, n >= 1.
        convert: Converts a decoded frame to what is yielded.
        plan: What was decoded; each frame is checked against it. None: all packets were decoded.
        path: The file, for errors.
        on_damage: Called with one phrase for each loss.

    Yields:
        ``(count, frame)``: the frame serves the next ``count`` of ``times``.

    Raises:
        UnreadableMediaError: the decoder returned no frame.
        NotAsIndexedError: with a plan, the decoder returned other frames than planned.
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
    """Time of a frame by the timestamp of the packet that it comes from."""

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
        """Return a phrase for each loss among the frames that are shown before ``until`` seconds."""
        due = self._packets.shown & (self._seconds >= self._start - EARLY_SECONDS) & (self._seconds < until)
        lost = int((due & ~self._came).sum())
        losses = _losses(lost, int(due.sum()), self.misplaced)
        if self._unknown:
            losses.append(f"{counted(self._unknown, 'frame')} of packets that the scan did not find")
        return losses


class _CountedClock:
    """Time of a frame by the last packet that the decoder was given, less the decoder's delay.

    FFmpeg shows AVI in the same way, but does not subtract the delay. A packet without a frame takes time too. Packed
    B-frames are shown with the packet that holds them, as by the decoders that they were made for.
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
        return _losses(lost, due, self.misplaced)


def _losses(lost: int, due: int, misplaced: int) -> list[str]:
    losses = [f"{lost:,} of {counted(due, 'frame')} could not be decoded"] if lost > 0 else []
    return [*losses, *([f"{counted(misplaced, 'frame')} out of order, skipped"] if misplaced else [])]


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
        """Return an array of shape (H, W, ...) turned upright."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...]:
    """Return the nine values of a frame's display matrix, () if it has none."""
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


# Otherwise PyAV returns no side data at all of a frame with an unlisted kind (in PyAV 18 EXIF, as in photos and in
# cameras' MJPEG).
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
    """Convert frames to upright RGB arrays, with one reused scaler (4 to 5 times faster than a new one per frame).

    Args:
        track: The frames' track, scanned. If its frames have orientations of their own, each is turned by its own, as
            by ``ffmpeg``: to the first frame's shape, so that a frame that is not turned as the first one is stretched.
    """

    def __init__(self, track: VideoTrack) -> None:
        self._reformatter = VideoReformatter()
        self._transposed = orientation_of(track.matrix).transpose if track.turns else None

    def __call__(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        """Return the frame as uint8 RGB, shape (H, W, 3), upright."""
        orientation = orientation_of(display_matrix(frame))
        width, height = frame.width, frame.height
        if self._transposed is not None and orientation.transpose != self._transposed:
            width, height = height, width
        shown = self._reformatter.reformat(frame, width, height, "rgb24", **ONE_THREAD)
        rgb: npt.NDArray[Any] = shown.to_ndarray()
        return orientation.apply(rgb)
