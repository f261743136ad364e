"""One clock for a whole file, made of its packets' timestamps: pure arithmetic.

Decoding timestamps (DTS) ascend in every intact file, whatever has happened to presentation timestamps (PTS), so jumps
are looked for in them:

- a few that lie elsewhere, between ones that go on as before, are broken: what they stamp counts as unstamped;
- where they jump back, and what is shown with them, another recording begins, whose clock goes on where the video of
  the one before ended. Streams that jump back at the same place get the same shift, so that they stay together;
- where they jump ahead by more than the file's length, and what is shown with them, the same; a shorter gap is kept.

The rules are in docs/time.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crisscross_zoo.media.tracks import NO_STAMP, Stream

Stamps = npt.NDArray[np.int64]

RESTART_SECONDS = 0.1
"""Decoding timestamps that go back by more are a restart."""

STRAY_SECONDS = 60.0
"""A timestamp is not believed if it lies outside twice the file's length by more; nor one that comes by so much after
all decoding, where neither the header nor the other stream lasts so long."""

GAP_SECONDS = 1.0
"""A gap that is longer is reported."""

MISPLACED_SECONDS = 1.0
"""A frame that is shown by more before its decoding, or after that of the 32 that follow, is misplaced."""

_TOGETHER_SECONDS = (
    5.0  # restarts of two streams that lie no further apart, on the old clock and the new, are one
)
_FEWEST = 3  # packets at either end of a stream that make a recording of their own
_LONGEST_STRAY = 64  # packets

LONGEST_REORDERING = 32
"""No codec shows a frame later than this many others that come after it in the file."""


@dataclass
class StreamStamps:
    """Timestamps of one stream's packets in the order of the file.

    Attributes:
        tick: Seconds a unit.
        pts: When each is shown, :data:`NO_STAMP` where that is missing.
        dts: When each is decoded, likewise.
        durations: How long each lasts, 0 where that is not known.
        places: Which packet of the file each is.
        unseen: Whether each is decoded for the sake of others alone; its timestamps may lie anywhere.
        keys: Whether each decodes on its own.
    """

    tick: float
    pts: Stamps
    dts: Stamps
    durations: Stamps
    places: Stamps
    unseen: npt.NDArray[np.bool_]
    keys: npt.NDArray[np.bool_]

    @property
    def step(self) -> float:
        """Usual distance of two packets in ticks."""
        known, stamps = self._known()
        steps = np.diff(stamps)[np.diff(known) == 1]
        steps = steps[steps > 0]
        if len(steps):
            return float(np.median(steps))
        lengths = self.durations[self.durations > 0]
        return float(np.median(lengths)) if len(lengths) else 1.0 / self.tick

    def decoding(self) -> npt.NDArray[np.float64]:
        """DTS in ticks, or what they must be about where they are missing; 0, 1, ... where all are."""
        numbers = np.arange(len(self.dts))
        known, stamps = self._known()
        if not len(known):
            return numbers.astype(np.float64)
        before = np.maximum(np.searchsorted(known, numbers, side="right") - 1, 0)
        filled: npt.NDArray[np.float64] = stamps[before] + self.step * (numbers - known[before])
        return filled

    def _known(self) -> tuple[npt.NDArray[np.int64], Stamps]:
        """Numbers of the packets whose DTS is known, and these; PTS where no DTS is there at all."""
        stamps = self.pts if (self.dts == NO_STAMP).all() else self.dts
        known = np.flatnonzero((stamps != NO_STAMP) & ~self.unseen)
        return known, stamps[known]


@dataclass
class Clock:
    """What :func:`run_through` makes of one stream's timestamps.

    Attributes:
        pts: On the clock that runs through, :data:`NO_STAMP` where missing or not believed.
        dts: Likewise; every packet has one.
        strays: Packets whose timestamps are not believed.
        restarts: Numbers of the packets at which the clock began again.
    """

    pts: Stamps
    dts: Stamps
    strays: int
    restarts: list[int]


def run_through(streams: Mapping[Stream, StreamStamps], stated: float) -> dict[Stream, Clock]:
    """Put the streams of a file on one clock that runs through all of it.

    Args:
        streams: By name, each with a packet or more.
        stated: Length of the file by its header in seconds, 0 where there is none.

    Returns:
        A clock by the same names.
    """
    clocks: dict[Stream, Clock] = {}
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
    for name, clock in clocks.items():  # within each recording: a broken one must not move those after it
        edges = [0, *clock.restarts, len(clock.pts)]
        parts = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
        wrong = np.concatenate([_misplaced(part, name, streams, clocks, stated) for part in parts])
        clock.pts[wrong] = NO_STAMP
        clock.strays += len(wrong)
    _continue(streams, clocks)
    return clocks


def _misplaced(
    part: Stamps,
    name: Stream,
    streams: Mapping[Stream, StreamStamps],
    clocks: Mapping[Stream, Clock],
    stated: float,
) -> Stamps:
    """Of the packets of one recording, the numbers of those shown at a time that no decoding order explains."""
    stream, clock = streams[name], clocks[name]
    stamped: Stamps = part[(clock.pts[part] != NO_STAMP) & ~stream.unseen[part]]
    if not len(stamped):
        return stamped
    pts, dts = clock.pts[stamped], clock.dts[stamped]
    usual = np.median(pts - dts)
    room = max(MISPLACED_SECONDS / stream.tick, 20 * stream.step)
    latest = np.full(len(dts), float(dts.max()) + abs(usual) + max(room, STRAY_SECONDS / stream.tick))
    followed = len(dts) - LONGEST_REORDERING
    if followed > 0:
        latest[:followed] = np.maximum(dts[LONGEST_REORDERING:], dts[:followed]) + abs(usual) + room
    # At the end nothing follows by which to judge: a picture that stays there is shown long after its decoding.
    tail = np.arange(len(dts)) >= followed
    latest[tail] = np.maximum(latest[tail], _ends(part, name, streams, clocks, stated) / stream.tick)
    wrong: Stamps = stamped[(pts - dts < min(usual, 0) - room) | (pts > latest)]
    return wrong


def _ends(
    part: Stamps,
    name: Stream,
    streams: Mapping[Stream, StreamStamps],
    clocks: Mapping[Stream, Clock],
    stated: float,
) -> float:
    """Seconds up to which a recording surely lasts: by the header, or by the decoding of the other streams."""
    stream, clock = streams[name], clocks[name]
    ends = [max(float(clock.dts[part[0]]) * stream.tick, 0.0) + stated]
    first, last = stream.places[part[0]], stream.places[part[-1]]
    if part[-1] == len(clock.dts) - 1:
        last = max(int(s.places[-1]) for s in streams.values())
    for other, others in streams.items():
        within = (others.places >= first) & (others.places <= last)
        if other != name and within.any():
            ends.append(float(clocks[other].dts[within].max()) * others.tick)
    return max(ends)


def _jumps(
    stream: StreamStamps, decoding: npt.NDArray[np.float64], back: float, ahead: float
) -> tuple[npt.NDArray[np.bool_], list[int]]:
    """Which packets have broken timestamps, and at which ones the clock begins again."""
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
            done += 1  # the jump with which they return
            continue
        earlier = decoding[max(0, here - 1 - _LONGEST_STRAY) : here - 1][::-1]
        went_on = np.flatnonzero(
            np.abs(earlier + step * np.arange(2, len(earlier) + 2) - decoding[here]) <= near
        )
        if decoding[here] < last and len(
            went_on
        ):  # it is those before that lay ahead, by too little to be seen
            strays[here - 1 - int(went_on[0]) : here] = True
            continue
        before, after = (stream.pts[part][shown[part]] for part in (slice(0, here), slice(here, None)))
        before, after = before[-LONGEST_REORDERING:], after[:LONGEST_REORDERING]
        if not len(before) or not len(after):
            begins = True
        elif decoding[here] < last:
            begins = bool(after.min() < before.max() - back)
        else:  # not in a pause, behind which frames are decoded before others that are shown before it
            edges = np.concatenate([[0], jumps, [count]])
            low, high = (
                edges[edges < here][-1],
                edges[edges > here][0],
            )  # jumps before and behind are other matters
            around = np.flatnonzero(shown[:high])
            around = around[around >= max(low, here - LONGEST_REORDERING)]
            around = around[around < here + LONGEST_REORDERING]
            # A time beyond those behind the jump, or that one of them has, is broken.
            good = (stream.pts[around] <= after.max() + near) & ~np.isin(stream.pts[around], after)
            around = around[good | (around >= here)]
            later = stream.pts[around] > (last + decoding[here]) / 2
            at_once = (later[1:] >= later[:-1]).all()
            first = around[later][:1]  # FFmpeg's own decoding timestamps may lag behind a key frame
            begins = bool(at_once and len(first) and (first[0] >= here or stream.keys[first[0]]))
        if begins:
            # Where FFmpeg makes decoding timestamps of presentation ones, they lag behind by a few packets.
            while (
                here - 1 > done
                and shown[here - 1]
                and abs(float(stream.pts[here - 1]) - decoding[here])
                < min(abs(float(stream.pts[here - 1]) - decoding[here - 1]), back + 20 * step)
            ):
                here -= 1
                decoding[here] = decoding[here + 1] - step
            restarts.append(here)
    # What is too short at either end to be a recording is broken.
    while restarts and restarts[0] < _FEWEST and count > 2 * _FEWEST:
        strays[: restarts.pop(0)] = True
    while restarts and count - restarts[-1] < _FEWEST and decoding[restarts[-1]] > decoding[restarts[-1] - 1]:
        strays[restarts.pop() :] = True
    return strays, restarts


def _continue(streams: Mapping[Stream, StreamStamps], clocks: dict[Stream, Clock]) -> None:
    """Shift what comes after each restart so that it goes on where the streams that restart together ended."""
    waiting = {name: list(clock.restarts) for name, clock in clocks.items()}
    shifted = dict.fromkeys(clocks, 0.0)  # by how many seconds the rest was shifted so far
    while any(waiting.values()):
        first = min((n for n, w in waiting.items() if w), key=lambda n: streams[n].places[waiting[n][0]])
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
    """Seconds at which what comes before packet ``at`` ends, and at which what comes after begins, as it is now.

    What a recording has before its own time 0, which is at ``shifted`` seconds now, is the decoder's delay. Where it
    begins inside a group, decoding goes on, and frames on both sides are shown in one another's order.
    """
    if not stream.keys[at]:
        return float(clock.dts[at - 1] + stream.step) * stream.tick, float(clock.dts[at]) * stream.tick
    best = np.where(clock.pts == NO_STAMP, clock.dts, clock.pts)
    durations = np.where(stream.durations > 0, stream.durations, round(stream.step))
    edges = [0, *clock.restarts, len(best)]
    place = edges.index(at)
    before, after = np.arange(edges[place - 1], at), np.arange(at, edges[place + 1])
    before, after = (p if stream.unseen[p].all() else p[~stream.unseen[p]] for p in (before, after))
    ended, begins = float((best[before] + durations[before]).max()), float(best[after].min())
    return ended * stream.tick, max(begins * stream.tick, shifted)


def fill_in(pts: Stamps, order: Sequence[int] | npt.NDArray[np.int64], step: float) -> Stamps:
    """Give frames without a timestamp one between those that are shown before and after them.

    Args:
        pts: By packet, :data:`NO_STAMP` where missing.
        order: Numbers of packets in the order in which their frames are shown.
        step: Usual distance of two frames in ticks, for those at either end.

    Returns:
        ``pts`` with an ascending timestamp for every packet in ``order``.
    """
    shown = np.asarray(order, np.int64)
    filled = pts.copy()
    known: list[int] = []
    for place, stamp in enumerate(pts[shown].tolist()):
        if stamp != NO_STAMP and (not known or stamp > pts[shown[known[-1]]]):
            known.append(place)
    if not known:
        filled[shown] = np.rint(step * np.arange(len(shown))).astype(np.int64)
        return filled
    places, values = np.array(known), pts[shown[known]].astype(np.float64)
    everywhere = np.arange(len(shown))
    stamps = np.interp(everywhere, places, values)
    stamps = np.where(everywhere < places[0], values[0] - step * (places[0] - everywhere), stamps)
    stamps = np.where(everywhere > places[-1], values[-1] + step * (everywhere - places[-1]), stamps)
    filled[shown] = np.rint(stamps).astype(np.int64)
    return filled


def gaps(clock: Clock, stream: StreamStamps) -> list[float]:
    """Lengths of the gaps in a stream that are longer than :data:`GAP_SECONDS`, seconds, in their order."""
    durations = np.where(stream.durations > 0, stream.durations, stream.step)
    empty = (np.diff(clock.dts) - durations[:-1]) * stream.tick
    return [float(g) for g in empty[empty > GAP_SECONDS]]
