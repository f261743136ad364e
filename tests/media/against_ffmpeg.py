"""Compare this package's frames and audio, and their times, with those of Debian's ``ffmpeg`` command.

The oracle is ``ffmpeg -copyts`` with the filters showinfo and ashowinfo: for each frame that it shows the timestamp
and the number in the image, for each piece of audio the timestamp and the samples. All times are then converted to
seconds since the first frame shown, or since the first audio if that leads by more than 0.1 s.

If the clock of a file cannot be used as it is, ``ffmpeg`` reads other files:

- Recordings joined end to end, whose clock restarts or jumps ahead too far for a gap: each recording. The first frame
  of the second (its first audio if there are no frames) follows where the last of the first ended, and the audio keeps
  the distance to the frames that it has within its own recording.
- Timestamps that were removed or changed by hand: the file before the change.
- Several edits of frames that are reordered: the frames of the file before the change, cut by the edit list. ``ffmpeg``
  places those of a later edit late or early, by the difference of the delays of the edits' first packets.
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
from container_bytes import Edit, avi_frames
from make_media import read_number
from numbered import COUNT, FPS, Combination, FfmpegError, Shelf, recording_of

from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.scan import scan

INSTANTS_A_SECOND = 16

LEAD_SECONDS = 0.1
"""If audio begins this much before the first frame, or more, its start is time 0; docs/time.md."""

MAX_SHIFT_SECONDS = 1e-3
"""Audio may be this far from its position by ffmpeg."""

JITTER_SECONDS = 2e-3
"""A piece of audio follows the one before if its timestamp is this near to the end of that piece."""

MAX_AUDIO_ENDS_SECONDS = 0.05
"""The start and the end of audio may be this far from ffmpeg's: a codec's frame, which only one of them may trim."""

WINDOW_SECONDS, SEARCH_SECONDS = 0.2, 0.15
"""Audio is compared in windows of this length, each searched this far to both sides."""

THINNING = 4
"""One of so many samples is compared: the noise has nothing above 3 kHz."""

LIKENESS = 0.35
"""Two windows are different audio if their normalized cross-correlation stays below this."""

SIZE = (192, 64)  # what ffmpeg scales to before its numbers are read

Shown = list[tuple[float, int]]
"""Frames in the order shown: the time in seconds, and the number read from the image."""


@dataclass(frozen=True)
class Answer:
    """The frames and the audio of a file, with their times.

    Attributes:
        shown: The frames, in seconds since time 0.
        end: End of the last frame, None if there are no frames.
        rate: Sample rate of the audio, Hz; 0 if there is none.
        first: Position of the first sample of ``audio``, in samples since time 0.
        audio: float32 samples, with silence in gaps.
        slack: Seconds by which time 0 may be off: if the audio leads, the accuracy of its position.
    """

    shown: Shown
    end: float | None
    rate: int
    first: int
    audio: np.ndarray
    slack: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The difference between this package and the oracle on one file.

    Attributes:
        compared: Number of frames compared, one per instant.
        wrong: ``(seconds, expected number, returned number)`` of the frames that are not the oracle's.
        ends: Seconds by which the video's span ends too late.
        shift: The largest shift of the audio in seconds, infinite if audio is lost or extra, None without audio.
        audio_text: The time of that shift and its amount, in words.
        audio_ends: Seconds by which the audio begins and ends too late.
        damage: The damage that the package reports.
        notes: The notes that the package reports.
    """

    compared: int
    wrong: list[tuple[float, int, int]]
    ends: float
    shift: float | None
    audio_text: str
    audio_ends: tuple[float, float]
    damage: tuple[str, ...]
    notes: tuple[str, ...]


# --- ffmpeg's answer ---------------------------------------------------------------------------------------------

_TIME_BASE = re.compile(r"showinfo\S* @ \S+\] config in time_base: (\d+)/(\d+)")
_FRAME = re.compile(r"_showinfo\S* @ \S+\] n: *\d+ pts: *(\S+) ")
_AUDIO = re.compile(r"_ashowinfo\S* @ \S+\] n: *\d+ pts: *(\S+) .* rate:(\d+) nb_samples:(\d+)")


@dataclass(frozen=True)
class _Raw:
    """ffmpeg's output for a file, on the file's own clock in seconds; see :class:`Answer`."""

    shown: Shown
    end: float
    pieces: list[tuple[float, np.ndarray]]
    rate: int

    @property
    def audio_start(self) -> float:
        """Time of the first audio."""
        return min((t for t, _ in self.pieces), default=np.inf)

    def later(self, seconds: float) -> _Raw:
        """Return the same, later by ``seconds``."""
        return _Raw(
            [(t + seconds, n) for t, n in self.shown],
            self.end + seconds,
            [(t + seconds, s) for t, s in self.pieces],
            self.rate,
        )


def _decode(combination: Combination, path: Path, rate: int | None = None) -> _Raw:
    """Return ffmpeg's frames and audio with their times; audio at its own rate, or at ``rate``."""
    with tempfile.TemporaryDirectory() as folder:
        frames_file, audio_file = Path(folder) / "frames", Path(folder) / "audio"
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
            command += ["-f", "rawvideo", str(frames_file)]
        if combination.audio is not None:
            chain = "ashowinfo" if rate is None else f"ashowinfo,aresample={rate}"
            command += ["-map", f"0:{combination.audio}", "-af", chain, "-ac", "1"]
            command += ["-f", "s16le", str(audio_file)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise FfmpegError(done.stderr[-2000:])
        shown, end = _shown(done.stderr, frames_file) if combination.video is not None else ([], 0.0)
        pieces, rate = _pieces(done.stderr, audio_file, rate) if combination.audio is not None else ([], 0)
    if combination.video is None:
        end = max(t + len(s) / rate for t, s in pieces)
    return _Raw(shown, end, pieces, rate)


def _shown(log: str, frames_file: Path) -> tuple[Shown, float]:
    bases = _TIME_BASE.findall(log)
    tick = Fraction(*map(int, bases[0]))
    assert len(set(bases)) == 1, f"ffmpeg changes its time base: {bases}"
    stamps = _FRAME.findall(log)
    assert stamps, "ffmpeg shows no frame"
    assert "NOPTS" not in stamps, "ffmpeg shows frames without a timestamp"
    times = [float(int(s) * tick) for s in stamps]
    frames = np.fromfile(frames_file, np.uint8).reshape(-1, SIZE[1], SIZE[0], 1)
    assert len(frames) == len(times), f"{len(frames)} frames, {len(times)} times"
    steps = np.diff(times)
    typical = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1 / FPS
    return [(t, read_number(f)) for t, f in zip(times, frames, strict=True)], max(times) + typical


def _pieces(log: str, audio_file: Path, rate: int | None) -> tuple[list[tuple[float, np.ndarray]], int]:
    found = [(p, int(r), int(n)) for p, r, n in _AUDIO.findall(log) if int(n)]
    assert found, "ffmpeg decodes no audio"
    assert all(p != "NOPTS" for p, _, _ in found), "ffmpeg decodes audio without a timestamp"
    rate = rate or found[0][1]
    samples = np.fromfile(audio_file, np.int16).astype(np.float32)
    # The container and ffmpeg round timestamps: pieces that follow one another are one run, with a median start.
    runs: list[list[tuple[float, np.ndarray]]] = []
    starts: list[float] = []
    done, follows = 0, np.inf
    for stamp, its_rate, length in found:
        # ashowinfo counts in 1 / rate of the piece; the output has the rate of the first piece.
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
    """Return the answer in seconds since the first frame shown, or since the first audio if that leads by more."""
    origin, slack = min((t for t, _ in raw.shown), default=raw.audio_start), 0.0
    if raw.audio_start < origin - LEAD_SECONDS:
        origin, slack = raw.audio_start, MAX_SHIFT_SECONDS
    first, audio = joined_pieces([(round((t - origin) * raw.rate), s) for t, s in raw.pieces])
    shown = [(t - origin, n) for t, n in sorted(raw.shown, key=lambda pair: pair[0])]
    return Answer(shown, raw.end - origin if shown else None, raw.rate, first, audio, slack)


def joined_pieces(pieces: list[tuple[int, np.ndarray]]) -> tuple[int, np.ndarray]:
    """Return the position of the first sample, and all pieces in one array with silence between; later ones overwrite.

    Audio before time 0 is dropped: it may lead by a codec's delay.
    """
    pieces = [(max(position, 0), samples[max(-position, 0) :]) for position, samples in pieces]
    if not pieces:
        return 0, np.zeros(0, np.float32)
    first = min(p for p, _ in pieces)
    whole = np.zeros(max(p + len(s) for p, s in pieces) - first, np.float32)
    for position, samples in pieces:
        whole[position - first : position - first + len(samples)] = samples
    return first, whole


# --- where ffmpeg's answer is not the right one ------------------------------------------------------------------


def _by_chunk(raw: _Raw, path: Path) -> _Raw:
    """Return each frame at the time of the chunk that holds it, in the order shown; an empty chunk repeats a frame."""
    numbers = [n for _, n in raw.shown]
    chunks = avi_frames(path.read_bytes())
    filled = [k for k, chunk in enumerate(chunks) if chunk]
    assert len(numbers) == len(filled)
    shown = [(k / FPS, n) for k, n in zip(filled, numbers, strict=True)]
    return _Raw(shown, len(chunks) / FPS, raw.pieces, raw.rate)


def _readable(raw: _Raw, path: Path) -> _Raw:
    """Return the answer without frames that show no valid number."""
    return _Raw([(t, n) for t, n in raw.shown if n < COUNT], raw.end, raw.pieces, raw.rate)


def _from_zero(raw: _Raw, _: Path) -> _Raw:
    """Return the answer without audio before the file's own time 0."""
    pieces = [(max(t, 0.0), s[round(max(-t, 0.0) * raw.rate) :]) for t, s in raw.pieces]
    return _Raw(raw.shown, raw.end, pieces, raw.rate)


_AVI_DELAY = (
    "AVI has no presentation timestamps. ffmpeg adds the decoder's delay, so its audio is early against the original; "
    "it is not if the k-th frame is shown at the chunk of the k-th frame"
)
_AVI_PACKED = (
    "packed B-frames belong to the chunk that holds them; libavcodec returns them a chunk late, and those before an "
    "empty chunk two chunks late"
)
DIFFERS: dict[str, tuple[str, Callable[[_Raw, Path], _Raw]]] = {
    **dict.fromkeys(("avi-mpeg4-bframes", "avi-h264-bframes", "avi-mpeg2-bframes"), (_AVI_DELAY, _by_chunk)),
    **dict.fromkeys(
        ("avi-mpeg4-packed", "avi-mpeg4-packed-dropped", "avi-xvid-packed"), (_AVI_PACKED, _by_chunk)
    ),
    "avi-mjpeg-empty-chunks": (
        "empty chunks at the end prolong the last frame; showinfo prints no duration",
        _by_chunk,
    ),
    "mp4-h264-frag-of-edit": (
        "this ffmpeg plays audio that the edit list of a fragmented file hides; a newer one skips it",
        _from_zero,
    ),
    "ts-hevc-from-inside": (
        "this ffmpeg shows frames whose references are missing as white; a newer one skips them",
        _readable,
    ),
}
"""By combination: the reason in one line, and the function that corrects ffmpeg's answer."""


def expected(combination: Combination, path: Path, shelf: Shelf) -> Answer:
    """Return the right answer; see the module's docstring."""
    if combination.same_as is not None:
        return _aligned(_decode(combination, shelf.file(combination.same_as)))
    if combination.recordings > 1:
        return _aligned(_joined(combination, path))
    raw = _decode(combination, path)
    if combination.edits is not None:
        base, edits = combination.edits
        raw = _by_edits(raw, _decode(combination, shelf.file(base)), edits)
    if combination.name in DIFFERS:
        raw = DIFFERS[combination.name][1](raw, path)
    return _aligned(raw)


def _by_edits(raw: _Raw, unedited: _Raw, edits: tuple[Edit, ...]) -> _Raw:
    """Return the frames that begin in each edit, the first one where the edit begins; and the audio of ``raw``."""
    times = [t for t, _ in unedited.shown]
    step = float(np.median(np.diff(times)))
    shown: Shown = []
    begins = end = 0.0
    for media, length in edits:
        assert media is not None
        inside = [(t, n) for t, n in unedited.shown if media <= t + 1e-3 < media + length]
        shown += [(begins + t - inside[0][0], n) for t, n in inside]
        end = shown[-1][0] + step
        begins += length
    return _Raw(shown, end, raw.pieces, raw.rate)


def _joined(combination: Combination, path: Path) -> _Raw:
    whole = _decode(combination, recording_of(path, 0))
    for number in range(1, combination.recordings):
        raw = _decode(combination, recording_of(path, number), whole.rate or None)
        raw = raw.later(whole.end - min((t for t, _ in raw.shown), default=raw.audio_start))
        whole = _Raw(whole.shown + raw.shown, raw.end, whole.pieces + raw.pieces, whole.rate)
    return whole


# --- comparison --------------------------------------------------------------------------------------------------


def instants(answer: Answer, rounding: float) -> list[tuple[float, int]]:
    """Return ascending seconds, each with the number of the frame shown then.

    There are 16 per second, none of them on a frame's boundary, and each boundary itself plus ``rounding`` and a
    microsecond. ``rounding`` is the container's tick if it rounds times that the package restores.
    """
    times = np.array([t for t, _ in answer.shown])
    assert answer.end is not None
    spread = np.arange(0.25 / FPS, answer.end, 1 / INSTANTS_A_SECOND)
    nearest = np.abs(spread[:, None] - times[None]).min(axis=1)
    margin = 1e-6 + rounding
    seconds = np.concatenate([spread[nearest > 2 * margin], times + margin])
    seconds = np.sort(seconds[seconds < answer.end - margin])
    # Of frames with one timestamp, the last is shown. A frame that ends within the margin is not compared.
    shown = np.maximum(np.searchsorted(times, seconds, side="right") - 1, 0)
    clear = np.append(times, np.inf)[shown + 1] - seconds > margin
    return [(float(t), answer.shown[i][1]) for t, i in zip(seconds[clear], shown[clear], strict=True)]


def compare(combination: Combination, path: Path, answer: Answer) -> Comparison:
    """Compare the package's frames and audio with ``answer``."""
    media = scan(path)
    reported: list[str] = []
    wrong: list[tuple[float, int, int]] = []
    wanted: list[tuple[float, int]] = []
    ends = 0.0
    if combination.video is not None:
        assert media.video is not None
        assert answer.end is not None
        wanted = instants(answer, max(combination.rounding, answer.slack))
        given: list[int] = []
        times = np.array([t for t, _ in wanted])
        for count, frame in read_frames(media, times, on_damage=reported.append):
            given += [read_number(frame)] * count
        assert len(given) == len(wanted)
        wrong = [(t, n, g) for (t, n), g in zip(wanted, given, strict=True) if n != g]
        ends = media.video.span[1] - answer.end
    shift, text, audio_ends = None, "", (0.0, 0.0)
    if combination.audio is not None:
        first, audio = joined_pieces(list(read_audio(media, answer.rate, on_damage=reported.append)))
        audio = audio.astype(np.float32)
        shift, text = shift_of_audio(answer, first, audio)
        (a, b), (c, d) = _loud_range(first, audio), _loud_range(answer.first, answer.audio)
        audio_ends = ((a - c) / answer.rate, (b - d) / answer.rate)
    damage = (*media.damage, *reported)
    return Comparison(len(wanted), wrong, ends, shift, text, audio_ends, damage, getattr(media, "notes", ()))


def complaints(combination: Combination, found: Comparison) -> list[str]:
    """Return a phrase for each deviation of a comparison."""
    bad = []
    if found.wrong:
        some = ", ".join(f"{given} for {wanted} at {t:.3f} s" for t, wanted, given in found.wrong[:3])
        bad.append(f"{len(found.wrong)} of {found.compared} frames: {some}")
    if abs(found.ends) >= 1.5 / FPS:
        bad.append(f"the video ends {1000 * found.ends:+.0f} ms off")
    most = MAX_SHIFT_SECONDS if combination.edits is None else JITTER_SECONDS
    if found.shift is not None and abs(found.shift) > most:
        bad.append(f"audio {found.audio_text}")
    if max(map(abs, found.audio_ends)) > MAX_AUDIO_ENDS_SECONDS:
        bad.append(
            "audio begins and ends {:+.0f} and {:+.0f} ms off".format(*(1000 * s for s in found.audio_ends))
        )
    if combination.reported == "nothing" and found.damage:
        bad.append(f"damage reported of an undamaged file: {found.damage[0]}")
    if combination.reported == "damage" and not found.damage:
        bad.append("no damage reported")
    return bad


def _loud_range(first: int, audio: np.ndarray) -> tuple[int, int]:
    """Return the positions of the first and the last sample that is not silence."""
    loud = np.flatnonzero(np.abs(audio) > 0.1 * np.abs(audio).max(initial=1.0))
    return (first + int(loud[0]), first + int(loud[-1])) if len(loud) else (first, first)


def shift_of_audio(answer: Answer, first: int, audio: np.ndarray) -> tuple[float, str]:
    """Return the largest shift of ``audio`` against the answer's, positive if later; infinite if nothing matches."""
    worst, text = 0.0, ""
    expected_audio, own_audio = _thinned(answer.first, answer.audio), _thinned(first, audio)
    for own, a, b in ((False, expected_audio, own_audio), (True, own_audio, expected_audio)):
        for at, shift in _shifts(*a, *b, answer.rate // THINNING):
            shift = -shift if own else shift
            if abs(shift) > abs(worst):
                worst = shift
                lost = "extra" if own else "lost"
                text = f"at {at:.2f} s " + (lost if np.isinf(shift) else f"{1000 * shift:+.1f} ms")
    return worst, text


def _thinned(first: int, audio: np.ndarray) -> tuple[int, np.ndarray]:
    """Return one of :data:`THINNING` samples, those at positions that are its multiples."""
    skipped = -first % THINNING
    return (first + skipped) // THINNING, audio[skipped::THINNING]


def _shifts(a_first: int, a: np.ndarray, b_first: int, b: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """Return, for each window of ``a`` that is not silent, its time in seconds and by how many it is later in ``b``."""
    length, search = round(WINDOW_SECONDS * rate), round(SEARCH_SECONDS * rate)
    # b with silence around it, so that each window can be searched past the ends of b.
    start = a_first - search
    around = np.zeros(len(a) + 2 * search + length, np.float32)
    low, high = max(b_first, start), min(b_first + len(b), start + len(around))
    if high > low:
        around[low - start : high - start] = b[low - b_first : high - b_first]
    loud = 0.1 * float(np.sqrt(np.mean(np.square(a)))) if len(a) else 0.0
    found = []
    for position in range(0, max(len(a) - length // 2, 1), length):
        window = a[position : position + length]
        # Silence matches any silence: at least a quarter of the window must not be silent.
        if np.mean(np.abs(window) > loud) < 0.25 or len(window) < length // 4:
            continue
        field = around[position : position + len(window) + 2 * search]
        size = 1 << (len(field) + len(window) - 1).bit_length()
        product = np.fft.irfft(np.fft.rfft(field, size) * np.conj(np.fft.rfft(window, size)), size)
        energy = np.concatenate([[0.0], np.cumsum(np.square(field, dtype=np.float64))])
        energy = energy[len(window) :] - energy[: len(energy) - len(window)]
        whole = float(np.square(window, dtype=np.float64).sum())
        likeness = product[: 2 * search + 1] / np.sqrt(np.maximum(energy, 0.2 * whole) * whole)
        best = int(np.argmax(likeness))
        shift = (best - search) / rate if likeness[best] > LIKENESS else np.inf
        found.append(((a_first + position) / rate, shift))
    return found
