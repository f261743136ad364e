"""Windows of clips in a file: pure arithmetic on seconds.

A window is a half-open interval ``[start, end)`` in seconds. Time 0 is the file's first frame, or its first audio
sample if that comes first. ``span`` is the interval of the file in which a stream has content.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

Edges = Literal["keep", "drop"]

REMAINDER_SECONDS = 0.1
"""A remainder at the end of a file that is shorter than this (codec padding, a frame or two) gets no window."""

_ROUNDING = 1e-6


def dense_starts(span: tuple[float, float], window: float, stride: float) -> FloatArray:
    """Start a window every ``stride`` seconds, from the beginning of ``span`` to its end.

    A window that would reach beyond the span is moved back to end with it. A remainder below
    :data:`REMAINDER_SECONDS` (or half a stride, if that is less) gets no window. A span no longer than a window gets
    one window, at its beginning.

    Args:
        span: ``(start, end)`` of the stream in seconds.
        window: Length of a window in seconds.
        stride: Seconds between starts.

    Returns:
        Starts in seconds, shape (n,), ascending, n >= 1.
    """
    start, end = span
    room = end - start - window
    remainder = min(REMAINDER_SECONDS, stride / 2)
    n = 1 + max(0, math.ceil((room - remainder) / stride - _ROUNDING))
    n = min(n, max(1, math.ceil((end - start) / stride - _ROUNDING)))  # a window that starts in the span
    starts = start + stride * np.arange(n, dtype=np.float64)
    return np.minimum(starts, start + max(room, 0.0))


def uniform_starts(span: tuple[float, float], window: float, clips: int, rate: float) -> FloatArray:
    """Spread ``clips`` windows evenly over ``span``, as the paper's evaluations do (section E.1).

    Starts are whole multiples of ``1 / rate``: ``trunc(linspace(0, max(total - length, 1), clips)) / rate``, with the
    span and the window counted in units of ``1 / rate``. A span no longer than a window repeats its beginning.

    Args:
        span: ``(start, end)`` of the stream in seconds.
        window: Length of a window in seconds.
        clips: Number of windows.
        rate: Units per second: the clip's frame rate for video, spectrogram columns per second for audio.

    Returns:
        Starts in seconds, shape (clips,), ascending.
    """
    total = whole_units(span[1] - span[0], rate)
    length = whole_units(window, rate)
    if length >= total:
        return np.full(clips, span[0], dtype=np.float64)
    units = np.linspace(0, max(total - length, 1), clips).astype(np.int64)
    starts: FloatArray = span[0] + units / rate
    return starts


def random_starts(
    span: tuple[float, float], window: float, clips: int, rng: np.random.Generator
) -> FloatArray:
    """Draw ``clips`` uniformly random windows in ``span``.

    Args:
        span: ``(start, end)`` of the stream in seconds; if no longer than a window, all windows start at its beginning.
        window: Length of a window in seconds.
        clips: Number of windows; they may overlap.
        rng: The random number generator.

    Returns:
        Starts in seconds, shape (clips,), ascending.
    """
    room = max(0.0, span[1] - span[0] - window)
    starts: FloatArray = span[0] + np.sort(rng.uniform(0.0, 1.0, clips)) * room
    return starts


def centred_starts(centres: FloatArray, span: tuple[float, float], window: float) -> FloatArray:
    """Centre a window on each time; a window that would reach beyond ``span`` is moved inside it.

    Args:
        centres: Seconds, shape (n,).
        span: ``(start, end)`` of the stream in seconds.
        window: Length of a window in seconds.

    Returns:
        Starts in seconds, shape (n,), in the order of ``centres``.
    """
    last = max(span[0], span[1] - window)
    return np.clip(centres - window / 2, span[0], last)


def real_windows(starts: FloatArray, span: tuple[float, float], window: float) -> FloatArray:
    """Return the part of each window that lies in ``span``.

    Args:
        starts: Seconds, shape (n,).
        span: ``(start, end)`` of the stream in seconds.
        window: Length of a window in seconds.

    Returns:
        Seconds, shape (n, 2), float64.
    """
    return np.stack([starts, np.minimum(starts + window, max(span[1], span[0]))], axis=1)


def centres_of(windows: FloatArray) -> FloatArray:
    """Return the middle of each window, seconds, shape (n,)."""
    middles: FloatArray = windows.mean(1)
    return middles


def centred_alike(video: FloatArray, audio: FloatArray, fps: float) -> npt.NDArray[np.bool_]:
    """Return whether the video and audio windows of each row are centred within half a frame of each other.

    Args:
        video: Seconds, shape (n, 2).
        audio: Seconds, shape (n, 2).
        fps: Frame rate of the video clips.

    Returns:
        bool, shape (n,).
    """
    alike: npt.NDArray[np.bool_] = np.abs(centres_of(video) - centres_of(audio)) <= 0.5 / fps + _ROUNDING
    return alike


def whole_units(seconds: float, rate: float) -> int:
    """Count the whole units of ``1 / rate`` in ``seconds``; a hundredth of a unit short still counts."""
    return math.floor(seconds * rate + 0.01)


def frame_times(starts: FloatArray, span: tuple[float, float], frames: int, fps: float) -> FloatArray:
    """Return the times at which each window's frames are picked: ``start + k / fps``.

    If the span has fewer than ``frames`` sampling times, its frames are repeated from the first one (3 of 8:
    0 1 2 0 1 2 0 1).

    Args:
        starts: Seconds, shape (n,).
        span: ``(start, end)`` of the stream in seconds.
        frames: Frames in a clip.
        fps: Frame rate of the clip.

    Returns:
        Seconds, shape (n, frames).
    """
    real = max(1, min(frames, whole_units(span[1] - span[0], fps)))
    return starts[:, None] + (np.arange(frames) % real)[None, :] / fps
