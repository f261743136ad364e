"""Convert decoded audio to mono 16-bit samples at one rate, positioned on the file's clock.

FFmpeg's resampler converts the sample rate and mixes down in ``s16p``, as the reference does (planar float would skip
the downmix's normalisation). Of ambisonic audio, channel W is used, which is its mono version. Channels without a
layout, or with a layout that the resampler refuses, are averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio.plane import AudioPlane
from av.audio.resampler import AudioResampler

from crisscross_zoo.media.packets import AudioBreak, OnDamage, reason_of
from crisscross_zoo.media.tracks import AudioTrack

Piece = tuple[int, npt.NDArray[np.int16]]
"""The position of the first sample, in samples since time 0, and the samples, shape (m,)."""

MAX_CLOCK_DRIFT_SECONDS = 0.1
"""Audio whose timestamps differ by more from the samples counted so far is repositioned: a gap or an overlap."""

MAX_STEP_SECONDS = 0.002
"""Where timestamps are exact, a frame is repositioned if its timestamp is further than this from the end of the frame
before; after audio that could not be decoded, and where an edit begins, if it is further than a tick and a half."""

MAX_LOST_SECONDS = 0.25
"""Decoded audio may be shorter by this than its packets' durations: decoders drop the padding of encoders."""

OUT_OF_PHASE = 0.05
"""Stereo cancels out if the power of its average is less than this fraction of the power of its channels."""

_PHASE_EVERY = 8  # the phase is measured on one frame in so many

_AUDIBLE = 1e-4  # mean square of a channel whose full scale is 1; the phase of softer audio is not judged


class MonoAudio:
    """Convert decoded frames to mono int16 at one rate, each piece with its position in samples since time 0.

    Args:
        sample_rate: The rate to resample to, Hz.
        track: The audio stream's timing.
        on_damage: Called with one phrase for each loss.
        on_note: Called with one phrase for what is unusual.
        start: Time of a first frame without a timestamp, seconds.

    Attributes:
        has_output: Whether any samples were returned.
        seconds: Duration of the input so far.
    """

    def __init__(
        self,
        sample_rate: int,
        track: AudioTrack,
        on_damage: OnDamage,
        *,
        on_note: Callable[[str], None] | None = None,
        start: float = 0.0,
    ) -> None:
        self._on_damage = on_damage
        self._rate = sample_rate
        self._track = track
        self._resampler: AudioResampler | None = None
        self._form: tuple[int, str, str] | None = None
        self._is_ready = False  # whether frames have the output's form already, as in prepared copies
        self._mixes: dict[tuple[int, str, str], bool] = {}  # whether the resampler accepts this form
        self._breaks: set[AudioBreak] = set()  # why the next frame does not continue the last
        self._ended = start  # end of the last frame by its timestamp
        self._next_seconds = start  # expected time of the next frame
        self._first = self._position = 0  # of the current resampler's output
        self._pending: list[av.AudioFrame] = []  # frames of a piece that has no output yet
        self._longest = 0.0  # duration of the longest frame
        self._spare = 0.0  # by which overlaps may be longer: the last frame of an edit may end after it
        self._cut = False  # whether more than two frames overlap at once; fewer may be a delay
        self._phase = _Phase() if on_note is not None else None
        self._on_note = on_note
        self.has_output = False
        self.seconds = 0.0

    def of(self, frames: Iterable[av.AudioFrame | AudioBreak]) -> Iterator[Piece]:
        """Resample all of ``frames``; positions ascend, pieces never overlap."""
        cursor, overlap, at_once, ended = 0, 0, 0, 0
        for first, samples in itertools.chain.from_iterable(
            itertools.chain(map(self.add, frames), [self.flush()])
        ):
            keep = samples[max(0, cursor - first) :]
            at_once = at_once if first == ended else 0
            ended = first + len(samples)
            if cursor > 0 and cursor > first:  # audio before time 0 is the codec's delay
                overlap += len(samples) - len(keep)
                at_once += len(samples) - len(keep)
                self._cut = self._cut or at_once > (2 * self._longest + MAX_STEP_SECONDS) * self._rate
            if len(keep):
                yield max(first, cursor), keep
                cursor = max(first, cursor) + len(keep)
        if self._cut or overlap > (MAX_CLOCK_DRIFT_SECONDS + self._spare) * self._rate:
            self._on_damage(f"audio: {overlap / self._rate:.2f} s overlap earlier audio and are dropped")
        if self._phase is not None and self._on_note is not None and self._phase.cancels:
            self._on_note("audio: the two channels are out of phase and cancel out in the average")

    def add(self, frame: av.AudioFrame | AudioBreak) -> Iterator[Piece]:
        """Resample a frame; a frame that does not follow the last one, or has another form, starts a new piece."""
        if isinstance(frame, AudioBreak):
            self._breaks.add(frame)
            return
        if frame.samples == 0 or frame.sample_rate <= 0:
            return
        seconds = (
            self._next_seconds if frame.pts is None else frame.pts * self._track.tick - self._track.origin
        )
        if self._phase is not None:
            self._phase.add(frame)
        duration = frame.samples / frame.sample_rate
        self.seconds += duration
        self._longest = max(self._longest, duration)
        form = _form(frame)
        if form not in self._mixes:
            self._mixes[form] = _is_mixed(frame, self._rate)
        if not self._mixes[form]:
            frame = _mean(frame)
            form = _form(frame)
        apart = abs(seconds - self._next_seconds) > MAX_CLOCK_DRIFT_SECONDS
        step = abs(seconds - self._ended)
        apart = apart or (self._track.exact and step > MAX_STEP_SECONDS)
        apart = apart or (bool(self._breaks) and step > 1.5 * self._track.tick)
        self._spare += duration if AudioBreak.EDIT in self._breaks else 0.0
        self._breaks.clear()
        if form != self._form or apart:
            yield from self.flush()
            self._form = form
            self._is_ready = form[:2] == (self._rate, "mono") and form[2] in ("s16", "s16p")
            self._resampler = AudioResampler(format="s16p", layout="mono", rate=self._rate)
            self._first = self._position = round(seconds * self._rate)
            self._next_seconds = seconds
        self._next_seconds += duration
        self._ended = seconds + duration
        frame.pts = None  # positions are counted here; the resampler does not need timestamps
        if self._position == self._first:
            self._pending.append(frame)
        else:
            self._pending.clear()
        yield from self._resampled(frame)

    def flush(self) -> Iterator[Piece]:
        """Yield what the resampler still holds, before a gap or at the end."""
        if self._resampler is None or self._form is None:
            return
        yield from self._resampled(None)
        if self._position == self._first:
            # The piece is shorter than the resampler's filter and gave no output: append silence, and cut it off again.
            rate, layout, form = self._form
            silence = av.AudioFrame(format=form, layout=layout, samples=rate // 10)
            silence.sample_rate = rate
            for plane in _planes(silence):
                plane.update(bytes(plane.buffer_size))
            length = max(1, round(self._next_seconds * self._rate) - self._first)
            self._resampler = AudioResampler(format="s16p", layout="mono", rate=self._rate)
            pieces = [p for f in (*self._pending, silence) for p in self._resampled(f)]
            if pieces:
                yield self._first, np.concatenate([samples for _, samples in pieces])[:length]
        self._pending.clear()
        self._resampler = None

    def _resampled(self, frame: av.AudioFrame | None) -> Iterator[Piece]:
        if self._resampler is None:
            return
        try:
            resampled = [frame] if self._is_ready else self._resampler.resample(frame)
        except (av.error.FFmpegError, ValueError) as error:
            self._on_damage(f"audio: a format that cannot be resampled ({reason_of(error)})")
            self._resampler = None  # not safe to use again; the rest of the piece is lost
            return
        for piece in resampled:
            if piece is not None:  # a resampler with nothing to do returns None
                samples = np.frombuffer(memoryview(piece.planes[0]), np.int16, piece.samples)
                self.has_output = True
                yield self._position, samples
                self._position += len(samples)


def cut_out(pieces: Iterable[Piece], begin: int, length: int) -> npt.NDArray[np.int16]:
    """Return samples ``begin`` to ``begin + length`` of the pieces' audio, silence between and beyond pieces."""
    samples = np.zeros(length, np.int16)
    for position, piece in pieces:
        low, high = max(begin, position), min(begin + length, position + len(piece))
        if low < high:
            samples[low - begin : high - begin] = piece[low - position : high - position]
        if position + len(piece) >= begin + length:
            break
    return samples


def _form(frame: av.AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _is_mixed(frame: av.AudioFrame, rate: int) -> bool:
    """Return whether the resampler mixes such frames down correctly."""
    if frame.layout.name in ("mono", "stereo"):
        return True  # without a trial, whose new resampler is slow beside a training sample
    if frame.layout.name.startswith("ambisonic") or frame.layout.name.endswith(" channels"):
        return False
    try:
        AudioResampler(format="s16p", layout="mono", rate=rate).resample(frame)
    except (av.error.FFmpegError, ValueError):  # such as BL+BR, without a front speaker
        return False
    return True


def _mean(frame: av.AudioFrame) -> av.AudioFrame:
    """Return the mean of the frame's channels as a frame; for ambisonic audio channel W, the first."""
    values = channels_of(frame)
    ambisonic = frame.layout.name.startswith("ambisonic")
    mono = values[:1] if ambisonic else values.mean(0, dtype=np.float64, keepdims=True)
    if values.dtype.kind in "iu":
        mono = np.rint(mono)
    made = frame_of(mono.astype(values.dtype), f"{frame.format.name.removesuffix('p')}p", "mono")
    made.sample_rate, made.pts = frame.sample_rate, frame.pts
    return made


_SAMPLES = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}


def _planes(frame: av.AudioFrame) -> tuple[AudioPlane, ...]:
    """Return the frame's planes. With eight or more, PyAV lists one that does not exist and crashes when it is read."""
    return frame.planes[: frame.layout.nb_channels if frame.format.is_planar else 1]


def channels_of(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """Return the frame's samples, shape (channels, samples).

    Raises:
        ValueError: numpy has no type for their format.
    """
    form, channels = frame.format.name, frame.layout.nb_channels
    if (kind := _SAMPLES.get(form.removesuffix("p"))) is None:
        raise ValueError(f"samples of format {form}")
    count = frame.samples * (1 if frame.format.is_planar else channels)
    planes = [np.frombuffer(memoryview(plane), kind, count) for plane in _planes(frame)]
    return np.stack(planes) if frame.format.is_planar else planes[0].reshape(-1, channels).T


def frame_of(values: npt.NDArray[Any], form: str, layout: str) -> av.AudioFrame:
    """Return a frame of samples of shape (channels, samples): undo :func:`channels_of`.

    Raises:
        ValueError: FFmpeg does not know the name ``layout``.
    """
    frame = av.AudioFrame(format=form, layout=layout, samples=values.shape[1])
    for plane, row in zip(_planes(frame), values if frame.format.is_planar else [values.T], strict=True):
        data = np.ascontiguousarray(row).tobytes()
        plane.update(data + bytes(plane.buffer_size - len(data)))
    return frame


class _Phase:
    """Compare the power of a stereo stream's average with that of its channels."""

    def __init__(self) -> None:
        self._channels = self._average = 0.0
        self._samples = self._frames = 0

    def add(self, frame: av.AudioFrame) -> None:
        self._frames += 1
        if frame.layout.nb_channels != 2 or self._frames % _PHASE_EVERY != 1:
            return
        values = channels_of(frame)
        left, right = values.astype(np.float32)
        if values.dtype.kind in "iu":
            half = np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
            left, right = (v / half - (values.dtype.kind == "u") for v in (left, right))
        self._channels += float(np.dot(left, left) + np.dot(right, right)) / 2
        middle = (left + right) / 2
        self._average += float(np.dot(middle, middle))
        self._samples += len(left)

    @property
    def cancels(self) -> bool:
        loud = self._channels > _AUDIBLE * max(1, self._samples)
        return loud and self._average < OUT_OF_PHASE * self._channels
