"""Compute one continuous clock for a file from its packets' timestamps: pure arithmetic.

Decoding timestamps (DTS) ascend in every intact file, even if presentation timestamps (PTS) are broken, so jumps are
searched in the DTS:

- A few that lie far from those before and after them are broken: their packets count as packets without timestamps.
- Where DTS jump back, and the PTS with them, another recording begins. Its clock continues where the video of the
  recording before ended. Streams that jump back at the same position in the file get the same shift, so that they stay
  in sync.
- Where DTS jump ahead by more than the file's length, and the PTS with them, the same. A shorter gap is kept.

DTS of an MP4 go back where an edit of its edit list begins. This is no jump: each edit begins where the list has it.

The rules are in docs/time.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from crisscross_zoo.media.tracks import NO_STAMP, Stream

Stamps = npt.NDArray[np.int64]

RESTART_SECONDS = 0.1
"""Decoding timestamps that go back by more are a restart."""

STRAY_SECONDS = 60.0
"""A timestamp is ignored if it lies outside twice the file's length by more than this. It is also ignored if it lies
this much after the last decoding timestamp, unless the header or the other stream lasts as long."""

GAP_SECONDS = 1.0
"""A longer gap is reported."""

MISPLACED_SECONDS = 1.0
"""A PTS is misplaced if it lies by more than this before its packet's DTS, or after the DTS of the next 32 packets."""

_TOGETHER_SECONDS = 5.0
"""Restarts of two streams are one if they lie no further apart, both on the old clock and on the new."""

_FEWEST = 3  # packets at either end of a stream that make a recording of their own
_LONGEST_STRAY = 64  # packets in a row with broken timestamps

LONGEST_REORDERING = 32
"""No codec shows a frame after more than this many of the frames that follow it in the file."""


@dataclass
class StreamStamps:
    """Timestamps of one stream's packets in the order of the file.

    Attributes:
        tick: The time base: seconds per unit of a timestamp.
        pts: Presentation timestamps, :data:`NO_STAMP` where one is missing.
        dts: Decoding timestamps, likewise.
        durations: Durations, 0 where one is not known.
        positions: Each packet's number among the packets of all streams of the file.
        unseen: Whether each packet is decoded but not shown; its timestamps may then lie anywhere.
        keys: Whether each packet is a key frame.
        edits: Numbers of the packets at which later edits of an edit list begin.
    """

    tick: float
    pts: Stamps
    dts: Stamps
    durations: Stamps
    positions: Stamps
    unseen: npt.NDArray[np.bool_]
    keys: npt.NDArray[np.bool_]
    edits: Sequence[int] = ()

    @property
    def step(self) -> float:
        """Median distance of two successive packets, in ticks; of two values in the middle, the smaller.

        One distance alone may be that to a broken timestamp, so the packets' durations go first.
        """
        known, stamps = self._known()
        steps = np.diff(stamps)[np.diff(known) == 1]
        steps = np.sort(steps[steps > 0])
        lengths = self.durations[self.durations > 0]
        if len(steps) > 1 or (len(steps) and not len(lengths)):
            return float(steps[(len(steps) - 1) // 2])
        return float(np.median(lengths)) if len(lengths) else 1.0 / self.tick

    def decoding(self) -> npt.NDArray[np.float64]:
        """Return the DTS in ticks, extrapolated where they are missing; 0, 1, ... if all timestamps are missing."""
        numbers = np.arange(len(self.dts))
        known, stamps = self._known()
        if not len(known):
            return numbers.astype(np.float64)
        before = np.maximum(np.searchsorted(known, numbers, side="right") - 1, 0)
        after = np.minimum(before + 1, len(known) - 1)
        filled: npt.NDArray[np.float64] = stamps[before] + self.step * (numbers - known[before])
        between = (after > before) & (stamps[after] >= stamps[before])
        filled[between] = np.minimum(filled, stamps[after])[between]
        return filled

    def _known(self) -> tuple[npt.NDArray[np.int64], Stamps]:
        """Return the numbers of the packets with a DTS, and these DTS; PTS instead if the stream has no DTS."""
        stamps = self.pts if (self.dts == NO_STAMP).all() else self.dts
        known = np.flatnonzero((stamps != NO_STAMP) & ~self.unseen)
        return known, stamps[known]


@dataclass
class Clock:
    """One stream's timestamps on the continuous clock, from :func:`run_through`.

    Attributes:
        pts: Presentation timestamps, :data:`NO_STAMP` where one is missing or ignored.
        dts: Decoding timestamps; every packet has one.
        strays: Number of packets whose timestamps are ignored.
        restarts: Numbers of the packets at which the clock restarts.
    """

    pts: Stamps
    dts: Stamps
    strays: int
    restarts: list[int]


def run_through(streams: Mapping[Stream, StreamStamps], stated: float) -> dict[Stream, Clock]:
    """Put the streams of a file on one continuous clock.

    Args:
        streams: The streams by name, each with at least one packet.
        stated: Length of the file by its header in seconds, 0 if the header states none.

    Returns:
        A clock for each of the names.
    """
    clocks: dict[Stream, Clock] = {}
    streams = {name: _in_edits(stream) for name, stream in streams.items()}
    length = max([stated, *(float(s.durations.sum()) * s.tick for s in streams.values())])
    far = STRAY_SECONDS + 2 * length
    for name, stream in streams.items():
        decoding = stream.decoding()
        strays, restarts = _jumps(stream, decoding, RESTART_SECONDS / stream.tick, far / stream.tick)
        pts = stream.pts.copy()
        pts[strays] = NO_STAMP
        good = np.flatnonzero(~strays) if not strays.all() else np.arange(len(pts))
        dts = np.rint(np.interp(np.arange(len(pts)), good, decoding[good])).astype(np.int64)
        clocks[name] = Clock(pts, dts, int(strays.sum()), restarts)
    for name, clock in clocks.items():  # per recording: a broken timestamp must not move later recordings
        edges = [0, *clock.restarts, len(clock.pts)]
        recordings = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
        wrong = np.concatenate([_misplaced(packets, name, streams, clocks, stated) for packets in recordings])
        clock.pts[wrong] = NO_STAMP
        clock.strays += len(wrong)
    _continue(streams, clocks)
    return clocks


def _in_edits(stream: StreamStamps) -> StreamStamps:
    """Return the stream with the first frame shown of each edit where the edit begins, and with DTS that ascend.

    FFmpeg gives the beginning of an edit to the DTS of the first packet that is shown. So the PTS are later by that
    packet's delay, which differs from edit to edit.
    """
    if not stream.edits:
        return stream
    pts, dts = stream.pts.copy(), stream.dts.copy()
    seen = ~stream.unseen & (pts != NO_STAMP) & (dts != NO_STAMP)
    delays: list[int] = []
    for start, stop in itertools.pairwise([0, *stream.edits, len(pts)]):
        if len(shown := start + np.flatnonzero(seen[start:stop])):
            delays.append(int(pts[shown].min() - dts[shown[0]]))
            pts[shown] -= delays[-1] - delays[0]
    dts[seen] = np.maximum.accumulate(dts[seen])
    return replace(stream, pts=pts, dts=dts)


def _misplaced(
    packets: Stamps,
    name: Stream,
    streams: Mapping[Stream, StreamStamps],
    clocks: Mapping[Stream, Clock],
    stated: float,
) -> Stamps:
    """Return the numbers of those of one recording's ``packets`` whose PTS no order of decoding can explain."""
    stream, clock = streams[name], clocks[name]
    stamped: Stamps = packets[(clock.pts[packets] != NO_STAMP) & ~stream.unseen[packets]]
    if not len(stamped):
        return stamped
    pts, dts = clock.pts[stamped], clock.dts[stamped]
    usual = np.median(pts - dts)
    room = max(MISPLACED_SECONDS / stream.tick, 20 * stream.step)
    latest = np.full(len(dts), float(dts.max()) + abs(usual) + max(room, STRAY_SECONDS / stream.tick))
    followed = len(dts) - LONGEST_REORDERING
    if followed > 0:
        latest[:followed] = np.maximum(dts[LONGEST_REORDERING:], dts[:followed]) + abs(usual) + room
    # The last packets have none after them to be judged by: a still at the end is shown long after its decoding.
    tail = np.arange(len(dts)) >= followed
    latest[tail] = np.maximum(latest[tail], _ends(packets, name, streams, clocks, stated) / stream.tick)
    wrong: Stamps = stamped[(pts - dts < min(usual, 0) - room) | (pts > latest)]
    return wrong


def _ends(
    packets: Stamps,
    name: Stream,
    streams: Mapping[Stream, StreamStamps],
    clocks: Mapping[Stream, Clock],
    stated: float,
) -> float:
    """Return the seconds up to which a recording is known to last: by the header, or by the other streams' DTS."""
    stream, clock = streams[name], clocks[name]
    ends = [max(float(clock.dts[packets[0]]) * stream.tick, 0.0) + stated]
    first, last = stream.positions[packets[0]], stream.positions[packets[-1]]
    if packets[-1] == len(clock.dts) - 1:
        last = max(int(s.positions[-1]) for s in streams.values())
    for other, others in streams.items():
        within = (others.positions >= first) & (others.positions <= last)
        if other != name and within.any():
            ends.append(float(clocks[other].dts[within].max()) * others.tick)
    return max(ends)


def _jumps(
    stream: StreamStamps, decoding: npt.NDArray[np.float64], back: float, ahead: float
) -> tuple[npt.NDArray[np.bool_], list[int]]:
    """Return which packets have broken timestamps, and the numbers of the packets at which the clock restarts."""
    count, step = len(decoding), stream.step
    shown = (stream.pts != NO_STAMP) & ~stream.unseen
    strays = np.zeros(count, np.bool_)
    steps = np.diff(decoding)
    jumps = np.flatnonzero((steps < -back) | (steps > ahead)) + 1
    restarts: list[int] = []
    done = 0
    for here in jumps.tolist():
        if here < done:
            continue
        last = decoding[here - 1]
        expected = last + step * np.arange(1, min(_LONGEST_STRAY, count - here) + 1)
        near = min(max(3 * back, 4 * step), abs(float(decoding[here] - last)) / 2)
        returned = np.flatnonzero(np.abs(decoding[here : here + len(expected)] - expected) <= near)
        if len(returned):
            done = here + int(returned[0])
            strays[here:done] = True
            done += 1  # the jump back to the expected timestamps
            continue
        earlier = decoding[max(0, here - 1 - _LONGEST_STRAY) : here - 1][::-1]
        continued = np.flatnonzero(
            np.abs(earlier + step * np.arange(2, len(earlier) + 2) - decoding[here]) <= near
        )
        if decoding[here] < last and len(
            continued
        ):  # the packets before this one were ahead, by too little for a jump
            strays[here - 1 - int(continued[0]) : here] = True
            continue
        before, after = (stream.pts[side][shown[side]] for side in (slice(0, here), slice(here, None)))
        before, after = before[-LONGEST_REORDERING:], after[:LONGEST_REORDERING]
        if not len(before) or not len(after):
            begins = True
        elif decoding[here] < last:
            begins = bool(after.min() < before.max() - back)
        else:  # no restart if it is a pause: a frame shown after the pause may be decoded before one shown ahead of it
            edges = np.concatenate([[0], jumps, [count]])
            # Other jumps, before and after this one, do not count.
            low, high = edges[edges < here][-1], edges[edges > here][0]
            around = np.flatnonzero(shown[:high])
            around = around[around >= max(low, here - LONGEST_REORDERING)]
            around = around[around < here + LONGEST_REORDERING]
            # A PTS later than all that follow the jump, or equal to one of them, is broken.
            good = (stream.pts[around] <= after.max() + near) & ~np.isin(stream.pts[around], after)
            around = around[good | (around >= here)]
            later = stream.pts[around] > (last + decoding[here]) / 2
            at_once = (later[1:] >= later[:-1]).all()
            first = around[later][:1]  # DTS that FFmpeg computes may lag behind a key frame
            begins = bool(at_once and len(first) and (first[0] >= here or stream.keys[first[0]]))
        if begins:
            # Where FFmpeg computes DTS from PTS, they lag behind by a few packets.
            while (
                here - 1 > done
                and shown[here - 1]
                and abs(float(stream.pts[here - 1]) - decoding[here])
                < min(abs(float(stream.pts[here - 1]) - decoding[here - 1]), back + 20 * step)
            ):
                here -= 1
                decoding[here] = decoding[here + 1] - step
            restarts.append(here)
    # A few packets at either end, too few for a recording, have broken timestamps.
    while restarts and restarts[0] < _FEWEST and count > 2 * _FEWEST:
        strays[: restarts.pop(0)] = True
    while restarts and count - restarts[-1] < _FEWEST and decoding[restarts[-1]] > decoding[restarts[-1] - 1]:
        strays[restarts.pop() :] = True
    return strays, restarts


def _continue(streams: Mapping[Stream, StreamStamps], clocks: dict[Stream, Clock]) -> None:
    """Shift the timestamps after each restart so that they continue where the streams that restart together ended."""
    waiting = {name: list(clock.restarts) for name, clock in clocks.items()}
    shifted = dict.fromkeys(clocks, 0.0)  # seconds by which the rest has been shifted so far
    while any(waiting.values()):
        first = min((n for n, w in waiting.items() if w), key=lambda n: streams[n].positions[waiting[n][0]])
        together = {first: waiting[first].pop(0)}
        ended, begins = _around(streams[first], clocks[first], together[first], shifted[first])
        for name, left in waiting.items():
            if name != first and left:
                other_ended, other_begins = _around(streams[name], clocks[name], left[0], shifted[name])
                if max(abs(other_ended - ended), abs(other_begins - begins)) <= _TOGETHER_SECONDS:
                    together[name] = left.pop(0)
        leads: Stream = "video" if "video" in together else first
        ended, begins = _around(streams[leads], clocks[leads], together[leads], shifted[leads])
        shift = ended - begins
        for name, at in together.items():
            clock, ticks = clocks[name], round(shift / streams[name].tick)
            clock.dts[at:] += ticks
            stamped = clock.pts[at:] != NO_STAMP
            clock.pts[at:][stamped] += ticks
            shifted[name] += shift


def _around(stream: StreamStamps, clock: Clock, at: int, shifted: float) -> tuple[float, float]:
    """Return when the packets before packet ``at`` end, and when those from it on begin: seconds on the current clock.

    What lies before a recording's own time 0, which is at ``shifted`` seconds now, is the decoder's delay. If a
    recording begins inside a group of pictures, both times are taken from the DTS, since frames of both sides are
    interleaved in presentation order.
    """
    if not stream.keys[at]:
        return float(clock.dts[at - 1] + stream.step) * stream.tick, float(clock.dts[at]) * stream.tick
    best = np.where(clock.pts == NO_STAMP, clock.dts, clock.pts)
    durations = np.where(stream.durations > 0, stream.durations, round(stream.step))
    edges = [0, *clock.restarts, len(best)]
    number = edges.index(at)
    before, after = np.arange(edges[number - 1], at), np.arange(at, edges[number + 1])
    before, after = (p if stream.unseen[p].all() else p[~stream.unseen[p]] for p in (before, after))
    ended, begins = float((best[before] + durations[before]).max()), float(best[after].min())
    return ended * stream.tick, max(begins * stream.tick, shifted)


def fill_in(pts: Stamps, order: Sequence[int] | npt.NDArray[np.int64], step: float) -> Stamps:
    """Give each frame without a timestamp one between those of the frames shown before and after it.

    Args:
        pts: By packet, :data:`NO_STAMP` where one is missing.
        order: Numbers of packets in the order in which their frames are shown.
        step: Usual distance of two frames in ticks, for frames at either end.

    Returns:
        ``pts`` with an ascending timestamp for every packet in ``order``.
    """
    shown = np.asarray(order, np.int64)
    filled = pts.copy()
    known: list[int] = []
    for rank, stamp in enumerate(pts[shown].tolist()):
        if stamp != NO_STAMP and (not known or stamp > pts[shown[known[-1]]]):
            known.append(rank)
    if not known:
        filled[shown] = np.rint(step * np.arange(len(shown))).astype(np.int64)
        return filled
    ranks, values = np.array(known), pts[shown[known]].astype(np.float64)
    everywhere = np.arange(len(shown))
    stamps = np.interp(everywhere, ranks, values)
    stamps = np.where(everywhere < ranks[0], values[0] - step * (ranks[0] - everywhere), stamps)
    stamps = np.where(everywhere > ranks[-1], values[-1] + step * (everywhere - ranks[-1]), stamps)
    filled[shown] = np.rint(stamps).astype(np.int64)
    return filled


def gaps(clock: Clock, stream: StreamStamps) -> list[float]:
    """Return the lengths of a stream's gaps longer than :data:`GAP_SECONDS`, in seconds, in the order of the file."""
    durations = np.where(stream.durations > 0, stream.durations, stream.step)
    empty = (np.diff(clock.dts) - durations[:-1]) * stream.tick
    return [float(g) for g in empty[empty > GAP_SECONDS]]
