"""What Debian's ``ffmpeg`` command shows and plays when, and how far this package's answer is from it.

The oracle is ``ffmpeg -copyts`` with the filters showinfo and ashowinfo: for each picture that it shows the time stamp
and the number that stands in the picture, for each piece of sound the time stamp and the samples. Everything is then
put on seconds since the first picture shown, or since the first sound where that leads by more than 0.1 s.

Where the clock of a file cannot be taken as it is, ``ffmpeg`` is asked about files whose clock can:

- Recordings joined end to end, whose clock restarts or jumps ahead too far for a gap: about each recording. The first
  picture of the second (its first sound where there are no pictures) follows where the last of the first ended, and
  sound keeps the distance to the pictures that it has within its own recording.
- Time stamps that were taken out or changed by hand: about the file as it was before.
- :data:`DIFFERS` lists the combinations for which another answer than ffmpeg's is right, with the reason.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from container_bytes import avi_pictures
from make_media import read_number
from numbered import COUNT, FPS, Combination, FfmpegError, Shelf, part_of

from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.scan import scan

INSTANTS_A_SECOND = 16

LEAD_SECONDS = 0.1
"""Sound that begins so much before the first picture, or more, is time 0; docs/time.md."""

MAX_SHIFT_SECONDS = 1e-3
"""Sound may be this far from where ffmpeg places it."""

JITTER_SECONDS = 2e-3
"""Pieces of sound whose stamps are this near to where the one before ended follow on."""

MAX_SOUND_ENDS_SECONDS = 0.05
"""The first and the last sound may be this far from ffmpeg's: a frame of a codec, which one may trim and one not."""

WINDOW_SECONDS, SEARCH_SECONDS = 0.2, 0.15
"""Sound is compared in windows of this length, each looked for this far to both sides."""

THINNING = 4
"""Of so many samples one is compared: the noise has nothing above 3 kHz."""

LIKENESS = 0.35
"""Two windows whose normalized cross-correlation stays below are different sound."""

SIZE = (192, 64)  # what ffmpeg scales to before its numbers are read

Shown = list[tuple[float, int]]
"""Pictures in the order shown: seconds from which on, and the number read from it."""


@dataclass(frozen=True)
class Answer:
    """What is shown and heard.

    Attributes:
        shown: The pictures, on seconds since time 0.
        end: When the last picture ends, None where there are none.
        rate: Samples a second of the sound, 0 where there is none.
        first: Place of ``sound``'s first sample, in samples since time 0.
        sound: float32 samples with gaps as silence.
        slack: Seconds by which time 0 may be off: it is as good as sound can be placed where the sound leads.
    """

    shown: Shown
    end: float | None
    rate: int
    first: int
    sound: np.ndarray
    slack: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """How far this package is from the oracle on one file.

    Attributes:
        compared: Pictures compared: instants at which one was asked for.
        wrong: ``(seconds, number wanted, number given)`` of those that are not the oracle's.
        ends: Seconds by which the pictures' span ends too late.
        shift: The largest shift of sound in seconds, infinite where sound is lost or made up, None without sound.
        sound_text: Where that is, for the reader.
        sound_ends: Seconds by which the sound begins and ends too late.
        damage: What the package says is wrong with the file.
        notes: What it says is unusual.
    """

    compared: int
    wrong: list[tuple[float, int, int]]
    ends: float
    shift: float | None
    sound_text: str
    sound_ends: tuple[float, float]
    damage: tuple[str, ...]
    notes: tuple[str, ...]


# --- ffmpeg's answer ---------------------------------------------------------------------------------------------

_TIME_BASE = re.compile(r"showinfo\S* @ \S+\] config in time_base: (\d+)/(\d+)")
_PICTURE = re.compile(r"_showinfo\S* @ \S+\] n: *\d+ pts: *(\S+) ")
_SOUND = re.compile(r"_ashowinfo\S* @ \S+\] n: *\d+ pts: *(\S+) .* rate:(\d+) nb_samples:(\d+)")


@dataclass(frozen=True)
class _Raw:
    """What ``ffmpeg`` says of a file, on the file's own clock in seconds; see :class:`Answer`."""

    shown: Shown
    end: float
    pieces: list[tuple[float, np.ndarray]]
    rate: int

    @property
    def heard(self) -> float:
        """When the first sound is heard."""
        return min((t for t, _ in self.pieces), default=np.inf)

    def later(self, seconds: float) -> _Raw:
        """The same, so much later."""
        return _Raw(
            [(t + seconds, n) for t, n in self.shown],
            self.end + seconds,
            [(t + seconds, s) for t, s in self.pieces],
            self.rate,
        )


def _ask(combination: Combination, path: Path, rate: int | None = None) -> _Raw:
    """Ask ``ffmpeg`` what it shows and plays when; sound at its own rate, or at ``rate``."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, sounds = Path(folder) / "pictures", Path(folder) / "sounds"
        command = [
            "ffmpeg",
            "-hide_banner",
            "-nostdin",
            "-nostats",
            "-copyts",
            "-threads",
            "1",
            "-i",
            str(path),
        ]
        if combination.video is not None:
            chain = f"showinfo=checksum=0,scale={SIZE[0]}:{SIZE[1]}:flags=area,format=gray"
            command += ["-map", f"0:{combination.video}", "-vf", chain, "-fps_mode", "passthrough"]
            command += ["-f", "rawvideo", str(pictures)]
        if combination.audio is not None:
            chain = "ashowinfo" if rate is None else f"ashowinfo,aresample={rate}"
            command += ["-map", f"0:{combination.audio}", "-af", chain, "-ac", "1"]
            command += ["-f", "s16le", str(sounds)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise FfmpegError(done.stderr[-2000:])
        shown, end = _shown(done.stderr, pictures) if combination.video is not None else ([], 0.0)
        pieces, rate = _pieces(done.stderr, sounds, rate) if combination.audio is not None else ([], 0)
    if combination.video is None:
        end = max(t + len(s) / rate for t, s in pieces)
    return _Raw(shown, end, pieces, rate)


def _shown(log: str, pictures: Path) -> tuple[Shown, float]:
    bases = _TIME_BASE.findall(log)
    tick = Fraction(*map(int, bases[0]))
    assert len(set(bases)) == 1, f"ffmpeg changes its time base: {bases}"
    stamps = _PICTURE.findall(log)
    assert stamps, "ffmpeg shows no picture"
    assert "NOPTS" not in stamps, "ffmpeg shows pictures without a time"
    times = [float(int(s) * tick) for s in stamps]
    frames = np.fromfile(pictures, np.uint8).reshape(-1, SIZE[1], SIZE[0], 1)
    assert len(frames) == len(times), f"{len(frames)} pictures, {len(times)} times"
    steps = np.diff(times)
    typical = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1 / FPS
    return [(t, read_number(f)) for t, f in zip(times, frames, strict=True)], max(times) + typical


def _pieces(log: str, sounds: Path, rate: int | None) -> tuple[list[tuple[float, np.ndarray]], int]:
    found = [(p, int(r), int(n)) for p, r, n in _SOUND.findall(log) if int(n)]
    assert found, "ffmpeg plays no sound"
    assert all(p != "NOPTS" for p, _, _ in found), "ffmpeg plays sound without a time"
    rate = rate or found[0][1]
    samples = np.fromfile(sounds, np.int16).astype(np.float32)
    # Stamps jitter by what the container and ffmpeg round: pieces that follow on are one run, placed by all of them.
    runs: list[list[tuple[float, np.ndarray]]] = []
    starts: list[float] = []
    done, follows = 0, np.inf
    for stamp, its_rate, length in found:
        # ashowinfo counts in 1 / rate of the piece; what comes out has the rate of the first.
        length = round(length * rate / its_rate)
        seconds = int(stamp) / its_rate
        if abs(seconds - follows) > JITTER_SECONDS:
            runs.append([])
            follows = seconds
        runs[-1].append((seconds - follows, samples[done : done + length]))
        done += length
        follows += length / rate
        if len(runs[-1]) == 1:
            starts.append(seconds)
    assert abs(done - len(samples)) <= 0.01 * rate, f"{done} samples by ashowinfo, {len(samples)} written"
    return [
        (start + float(np.median([late for late, _ in run])), np.concatenate([piece for _, piece in run]))
        for start, run in zip(starts, runs, strict=True)
    ], rate


def _aligned(raw: _Raw) -> Answer:
    """Seconds since the first picture shown, or the first sound where it leads by more."""
    origin, slack = min((t for t, _ in raw.shown), default=raw.heard), 0.0
    if raw.heard < origin - LEAD_SECONDS:
        origin, slack = raw.heard, MAX_SHIFT_SECONDS
    first, sound = placed([(round((t - origin) * raw.rate), s) for t, s in raw.pieces])
    shown = [(t - origin, n) for t, n in sorted(raw.shown, key=lambda pair: pair[0])]
    return Answer(shown, raw.end - origin if shown else None, raw.rate, first, sound, slack)


def placed(pieces: list[tuple[int, np.ndarray]]) -> tuple[int, np.ndarray]:
    """All pieces in one array with silence between, and the place of its first sample; a later piece covers.

    What comes before time 0 is left out: sound may lead by a codec's delay.
    """
    pieces = [(max(place, 0), samples[max(-place, 0) :]) for place, samples in pieces]
    if not pieces:
        return 0, np.zeros(0, np.float32)
    first = min(p for p, _ in pieces)
    whole = np.zeros(max(p + len(s) for p, s in pieces) - first, np.float32)
    for place, samples in pieces:
        whole[place - first : place - first + len(samples)] = samples
    return first, whole


# --- where ffmpeg's answer is not the right one ------------------------------------------------------------------


def _by_chunk(raw: _Raw, path: Path) -> _Raw:
    """Each picture at the time of a chunk that brings one, in the order shown; empty ones prolong the one before."""
    numbers = [n for _, n in raw.shown]
    chunks = avi_pictures(path.read_bytes())
    filled = [k for k, chunk in enumerate(chunks) if chunk]
    assert len(numbers) == len(filled)
    shown = [(k / FPS, n) for k, n in zip(filled, numbers, strict=True)]
    return _Raw(shown, len(chunks) / FPS, raw.pieces, raw.rate)


def _readable(raw: _Raw, path: Path) -> _Raw:
    """Without the pictures whose number is none."""
    return _Raw([(t, n) for t, n in raw.shown if n < COUNT], raw.end, raw.pieces, raw.rate)


_AVI_DELAY = (
    "AVI has no presentation times. ffmpeg adds the decoder's delay, by which the sound is early against the original; "
    "with the k-th picture shown at the chunk of the k-th picture it is not"
)
_AVI_PACKED = (
    "packed B-pictures belong to the chunk that brings them; libavcodec hands them out a chunk late, and those before "
    "an empty chunk two"
)
DIFFERS: dict[str, tuple[str, Callable[[_Raw, Path], _Raw]]] = {
    **dict.fromkeys(("avi-mpeg4-bframes", "avi-h264-bframes", "avi-mpeg2-bframes"), (_AVI_DELAY, _by_chunk)),
    **dict.fromkeys(
        ("avi-mpeg4-packed", "avi-mpeg4-packed-dropped", "avi-xvid-packed"), (_AVI_PACKED, _by_chunk)
    ),
    "avi-mjpeg-empty-chunks": (
        "empty chunks at the end prolong the last picture; showinfo tells no length",
        _by_chunk,
    ),
    "ts-hevc-from-inside": (
        "this ffmpeg shows pictures whose references are missing as white; a newer one leaves them out",
        _readable,
    ),
}
"""By combination: the reason in one line, and what makes the right answer of ffmpeg's."""


def expected(combination: Combination, path: Path, shelf: Shelf) -> Answer:
    """The right answer; see the module."""
    if combination.same_as is not None:
        return _aligned(_ask(combination, shelf.file(combination.same_as)))
    if combination.recordings > 1:
        return _aligned(_joined(combination, path))
    raw = _ask(combination, path)
    if combination.name in DIFFERS:
        raw = DIFFERS[combination.name][1](raw, path)
    return _aligned(raw)


def _joined(combination: Combination, path: Path) -> _Raw:
    whole = _ask(combination, part_of(path, 0))
    for number in range(1, combination.recordings):
        part = _ask(combination, part_of(path, number), whole.rate or None)
        part = part.later(whole.end - min((t for t, _ in part.shown), default=part.heard))
        whole = _Raw(whole.shown + part.shown, part.end, whole.pieces + part.pieces, whole.rate)
    return whole


# --- comparison --------------------------------------------------------------------------------------------------


def instants(answer: Answer, rounding: float) -> list[tuple[float, int]]:
    """Seconds, ascending, and the number of the picture shown then.

    16 a second, none of them on a picture's boundary, and each boundary itself, passed by ``rounding`` and a
    microsecond: the container's tick where it rounds times that the package restores.
    """
    times = np.array([t for t, _ in answer.shown])
    assert answer.end is not None
    spread = np.arange(0.25 / FPS, answer.end, 1 / INSTANTS_A_SECOND)
    nearest = np.abs(spread[:, None] - times[None]).min(axis=1)
    margin = 1e-6 + rounding
    asked = np.concatenate([spread[nearest > 2 * margin], times + margin])
    asked = np.sort(asked[asked < answer.end - margin])
    # Of pictures with one time the last is shown; one that is over before its time plus the margin is not asked for.
    shown = np.maximum(np.searchsorted(times, asked, side="right") - 1, 0)
    clear = np.append(times, np.inf)[shown + 1] - asked > margin
    return [(float(t), answer.shown[i][1]) for t, i in zip(asked[clear], shown[clear], strict=True)]


def compare(combination: Combination, path: Path, answer: Answer) -> Comparison:
    """Hold what the package gives against ``answer``."""
    media = scan(path)
    said: list[str] = []
    wrong: list[tuple[float, int, int]] = []
    asked: list[tuple[float, int]] = []
    ends = 0.0
    if combination.video is not None:
        assert media.video is not None
        assert answer.end is not None
        asked = instants(answer, max(combination.rounding, answer.slack))
        given: list[int] = []
        times = np.array([t for t, _ in asked])
        for count, picture in read_frames(media, times, on_damage=said.append):
            given += [read_number(picture)] * count
        assert len(given) == len(asked)
        wrong = [(t, n, g) for (t, n), g in zip(asked, given, strict=True) if n != g]
        ends = media.video.span[1] - answer.end
    shift, text, sound_ends = None, "", (0.0, 0.0)
    if combination.audio is not None:
        first, sound = placed(list(read_audio(media, answer.rate, on_damage=said.append)))
        sound = sound.astype(np.float32)
        shift, text = shift_of_sound(answer, first, sound)
        (a, b), (c, d) = _loud_part(first, sound), _loud_part(answer.first, answer.sound)
        sound_ends = ((a - c) / answer.rate, (b - d) / answer.rate)
    damage = (*media.damage, *said)
    return Comparison(len(asked), wrong, ends, shift, text, sound_ends, damage, getattr(media, "notes", ()))


def complaints(combination: Combination, found: Comparison) -> list[str]:
    """What of a comparison is not as it must be, a phrase each."""
    bad = []
    if found.wrong:
        some = ", ".join(f"{given} for {wanted} at {t:.3f} s" for t, wanted, given in found.wrong[:3])
        bad.append(f"{len(found.wrong)} of {found.compared} pictures: {some}")
    if abs(found.ends) >= 1.5 / FPS:
        bad.append(f"the pictures end {1000 * found.ends:+.0f} ms off")
    if found.shift is not None and abs(found.shift) > combination.shift:
        bad.append(f"sound {found.sound_text}")
    if max(map(abs, found.sound_ends)) > MAX_SOUND_ENDS_SECONDS:
        bad.append(
            "sound begins and ends {:+.0f} and {:+.0f} ms off".format(*(1000 * s for s in found.sound_ends))
        )
    if combination.said == "nothing" and found.damage:
        bad.append(f"damage said of a file that has none: {found.damage[0]}")
    if combination.said == "damage" and not found.damage:
        bad.append("no word about damage")
    return bad


def _loud_part(first: int, sound: np.ndarray) -> tuple[int, int]:
    """Places between which there is sound."""
    loud = np.flatnonzero(np.abs(sound) > 0.1 * np.abs(sound).max(initial=1.0))
    return (first + int(loud[0]), first + int(loud[-1])) if len(loud) else (first, first)


def shift_of_sound(answer: Answer, first: int, sound: np.ndarray) -> tuple[float, str]:
    """The largest shift of ``sound`` against the answer's, later counted positive; infinite where one has no like."""
    worst, text = 0.0, ""
    theirs, ours = _thinned(answer.first, answer.sound), _thinned(first, sound)
    for mine, a, b in ((False, theirs, ours), (True, ours, theirs)):
        for at, shift in _shifts(*a, *b, answer.rate // THINNING):
            shift = -shift if mine else shift
            if abs(shift) > abs(worst):
                worst = shift
                lost = "made up" if mine else "lost"
                text = f"at {at:.2f} s " + (lost if np.isinf(shift) else f"{1000 * shift:+.1f} ms")
    return worst, text


def _thinned(first: int, sound: np.ndarray) -> tuple[int, np.ndarray]:
    """One of :data:`THINNING` samples, those whose place it divides."""
    skipped = -first % THINNING
    return (first + skipped) // THINNING, sound[skipped::THINNING]


def _shifts(a_first: int, a: np.ndarray, b_first: int, b: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """For windows of ``a`` in which there is sound: seconds, and by how many it comes later in ``b``."""
    length, search = round(WINDOW_SECONDS * rate), round(SEARCH_SECONDS * rate)
    # What lies around b, so that each window can be looked for past its ends.
    start = a_first - search
    around = np.zeros(len(a) + 2 * search + length, np.float32)
    low, high = max(b_first, start), min(b_first + len(b), start + len(around))
    if high > low:
        around[low - start : high - start] = b[low - b_first : high - b_first]
    loud = 0.1 * float(np.sqrt(np.mean(np.square(a)))) if len(a) else 0.0
    found = []
    for place in range(0, max(len(a) - length // 2, 1), length):
        window = a[place : place + length]
        # Silence cannot be told from silence: a quarter of the window or more must be sound.
        if np.mean(np.abs(window) > loud) < 0.25 or len(window) < length // 4:
            continue
        field = around[place : place + len(window) + 2 * search]
        size = 1 << (len(field) + len(window) - 1).bit_length()
        product = np.fft.irfft(np.fft.rfft(field, size) * np.conj(np.fft.rfft(window, size)), size)
        energy = np.concatenate([[0.0], np.cumsum(np.square(field, dtype=np.float64))])
        energy = energy[len(window) :] - energy[: len(energy) - len(window)]
        whole = float(np.square(window, dtype=np.float64).sum())
        likeness = product[: 2 * search + 1] / np.sqrt(np.maximum(energy, 0.2 * whole) * whole)
        best = int(np.argmax(likeness))
        shift = (best - search) / rate if likeness[best] > LIKENESS else np.inf
        found.append(((a_first + place) / rate, shift))
    return found
