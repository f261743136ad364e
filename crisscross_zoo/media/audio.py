"""Decoded audio to mono 16-bit samples at one rate, placed on the file's clock.

FFmpeg's resampler does rate and downmix in ``s16p``, as the reference does (planar float would skip the downmix's
normalisation). Of ambisonic sound, channel W is taken, which is its mono version; channels without a layout, or in one
that the resampler refuses, are averaged.
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

from crisscross_zoo.media.packets import OnDamage, reason_of
from crisscross_zoo.media.tracks import AudioTrack

Piece = tuple[int, npt.NDArray[np.int16]]
"""Samples, shape (m,), and the place of the first, in samples since time 0."""

MAX_CLOCK_DRIFT_SECONDS = 0.1
"""Audio whose timestamps differ by more from the samples counted so far is placed anew: a gap or an overlap."""

MAX_STEP_SECONDS = 0.002
"""Where timestamps are exact, and after audio that could not be decoded, it is placed anew where one of them is further
from the end of the frame before."""

MAX_LOST_SECONDS = 0.25
"""Audio may be shorter by this than its packets say: what encoders pad at either end is not given out."""

OUT_OF_PHASE = 0.05
"""Stereo whose average has less than this share of the power of its channels cancels out."""

_LOOKED_AT = 8  # every so many frames of stereo

_AUDIBLE = 1e-4  # mean square of a channel, of 1; what is softer is not looked at


class MonoAudio:
    """Decoded frames to mono int16 at one rate, each piece with its place in samples since time 0.

    Args:
        sample_rate: To resample to, Hz.
        track: Says where the frames lie.
        on_damage: Called with one phrase for whatever was lost.
        on_note: Called with one phrase for what is unusual.
        start: Where a first frame without a timestamp lies, seconds.

    Attributes:
        heard: Whether anything came out.
        seconds: How much was put in.
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
        self._is_ready = False  # whether frames have the form of the output: of copies
        self._mixes: dict[tuple[int, str, str], bool] = {}  # whether the resampler takes this form
        self._broken = False  # whether the last packet could not be decoded
        self._ended = start  # where the last frame ended by its timestamp
        self._next_seconds = start  # where the input should go on
        self._first = self._place = 0  # of the current resampler's output
        self._unheard: list[av.AudioFrame] = []  # frames of a piece of which nothing has come out yet
        self._phase = _Phase() if on_note is not None else None
        self._on_note = on_note
        self.heard = False
        self.seconds = 0.0

    def of(self, frames: Iterable[av.AudioFrame | None]) -> Iterator[Piece]:
        """Resample all of ``frames``, None where some are lost; places ascend from 0 and never overlap."""
        cursor, overlap = 0, 0
        for first, samples in itertools.chain.from_iterable(
            itertools.chain(map(self.add, frames), [self.flush()])
        ):
            keep = samples[max(0, cursor - first) :]
            if cursor > 0 and cursor > first:  # what leads time 0 is the codec's delay
                overlap += len(samples) - len(keep)
            if len(keep):
                yield max(first, cursor), keep
                cursor = max(first, cursor) + len(keep)
        if overlap > MAX_CLOCK_DRIFT_SECONDS * self._rate:
            self._on_damage(f"audio: {overlap / self._rate:.2f} s that overlap what came before are left out")
        if self._phase is not None and self._on_note is not None and self._phase.cancels:
            self._on_note("audio: the two channels are out of phase and cancel out in the average")

    def add(self, frame: av.AudioFrame | None) -> Iterator[Piece]:
        """Resample a frame; one that does not follow on, or has another form, starts a new piece."""
        if frame is None:
            self._broken = True
        if frame is None or frame.samples == 0 or frame.sample_rate <= 0:
            return
        seconds = (
            self._next_seconds if frame.pts is None else frame.pts * self._track.tick - self._track.origin
        )
        if self._phase is not None:
            self._phase.add(frame)
        self.seconds += frame.samples / frame.sample_rate
        form = _form(frame)
        if form not in self._mixes:
            self._mixes[form] = _is_mixed(frame, self._rate)
        if not self._mixes[form]:
            frame = _mean(frame)
            form = _form(frame)
        apart = abs(seconds - self._next_seconds) > MAX_CLOCK_DRIFT_SECONDS
        if self._track.exact or self._broken:
            apart = apart or abs(seconds - self._ended) > MAX_STEP_SECONDS
        self._broken = False
        if form != self._form or apart:
            yield from self.flush()
            self._form = form
            self._is_ready = form[:2] == (self._rate, "mono") and form[2] in ("s16", "s16p")
            self._resampler = AudioResampler(format="s16p", layout="mono", rate=self._rate)
            self._first = self._place = round(seconds * self._rate)
            self._next_seconds = seconds
        self._next_seconds += frame.samples / frame.sample_rate
        self._ended = seconds + frame.samples / frame.sample_rate
        frame.pts = None  # places are counted here; the resampler need not know
        if self._place == self._first:
            self._unheard.append(frame)
        else:
            self._unheard.clear()
        yield from self._placed(frame)

    def flush(self) -> Iterator[Piece]:
        """Give what is still inside, before a gap or at the end."""
        if self._resampler is None or self._form is None:
            return
        yield from self._placed(None)
        if self._place == self._first:
            # Shorter than the resampler's filter, so that nothing comes out: let silence follow, and cut it off.
            rate, layout, form = self._form
            silence = av.AudioFrame(format=form, layout=layout, samples=rate // 10)
            silence.sample_rate = rate
            for plane in _planes(silence):
                plane.update(bytes(plane.buffer_size))
            length = max(1, round(self._next_seconds * self._rate) - self._first)
            self._resampler = AudioResampler(format="s16p", layout="mono", rate=self._rate)
            pieces = [p for f in (*self._unheard, silence) for p in self._placed(f)]
            if pieces:
                yield self._first, np.concatenate([samples for _, samples in pieces])[:length]
        self._unheard.clear()
        self._resampler = None

    def _placed(self, frame: av.AudioFrame | None) -> Iterator[Piece]:
        if self._resampler is None:
            return
        try:
            resampled = [frame] if self._is_ready else self._resampler.resample(frame)
        except (av.error.FFmpegError, ValueError) as error:
            self._on_damage(f"audio: of a form that cannot be resampled ({reason_of(error)})")
            self._resampler = None  # not safe to use again; the rest of the piece is lost
            return
        for piece in resampled:
            if piece is not None:  # a resampler with nothing to do hands None back
                samples = np.frombuffer(memoryview(piece.planes[0]), np.int16, piece.samples)
                self.heard = True
                yield self._place, samples
                self._place += len(samples)


def cut_out(pieces: Iterable[Piece], begin: int, length: int) -> npt.NDArray[np.int16]:
    """Return samples ``begin`` to ``begin + length`` of placed pieces, silence where there is none."""
    samples = np.zeros(length, np.int16)
    for place, piece in pieces:
        low, high = max(begin, place), min(begin + length, place + len(piece))
        if low < high:
            samples[low - begin : high - begin] = piece[low - place : high - place]
        if place + len(piece) >= begin + length:
            break
    return samples


def _form(frame: av.AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _is_mixed(frame: av.AudioFrame, rate: int) -> bool:
    """Whether the resampler mixes such frames down as they should be."""
    if frame.layout.name.startswith("ambisonic") or frame.layout.name.endswith(" channels"):
        return False
    try:
        AudioResampler(format="s16p", layout="mono", rate=rate).resample(frame)
    except (av.error.FFmpegError, ValueError):  # BL+BR, without a speaker in front
        return False
    return True


def _mean(frame: av.AudioFrame) -> av.AudioFrame:
    """Return the mean of the frame's channels as a frame; of ambisonic ones channel W, the first."""
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
    """The frame's planes. PyAV finds one too many, which is none, where there are eight or more: it would crash."""
    return frame.planes[: frame.layout.nb_channels if frame.format.is_planar else 1]


def channels_of(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """The frame's samples, shape (channels, samples).

    Raises:
        ValueError: they are of a format that numpy has no type for.
    """
    form, channels = frame.format.name, frame.layout.nb_channels
    if (kind := _SAMPLES.get(form.removesuffix("p"))) is None:
        raise ValueError(f"samples of format {form}")
    count = frame.samples * (1 if frame.format.is_planar else channels)
    planes = [np.frombuffer(memoryview(plane), kind, count) for plane in _planes(frame)]
    return np.stack(planes) if frame.format.is_planar else planes[0].reshape(-1, channels).T


def frame_of(values: npt.NDArray[Any], form: str, layout: str) -> av.AudioFrame:
    """Undo :func:`channels_of`.

    Raises:
        ValueError: ``layout`` has no name that is known.
    """
    frame = av.AudioFrame(format=form, layout=layout, samples=values.shape[1])
    for plane, row in zip(_planes(frame), values if frame.format.is_planar else [values.T], strict=True):
        data = np.ascontiguousarray(row).tobytes()
        plane.update(data + bytes(plane.buffer_size - len(data)))
    return frame


class _Phase:
    """Holds the power of a stereo stream's average against that of its channels."""

    def __init__(self) -> None:
        self._channels = self._average = 0.0
        self._samples = self._frames = 0

    def add(self, frame: av.AudioFrame) -> None:
        self._frames += 1
        if frame.layout.nb_channels != 2 or self._frames % _LOOKED_AT != 1:
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
