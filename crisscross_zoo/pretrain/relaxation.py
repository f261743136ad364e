"""Temporal relaxation: how far apart in time the two views of a file are (section 3 of the paper).

A view is a half-open window ``[start, start + length)`` in seconds, on the clock of :mod:`crisscross_zoo.media`.
A file gives two video views and two audio views. The table gives the distance from the start of a modality's first view
to the start of its second view, for views of length L:

=======  ==================================================================================================
none     0: both views show the same time
mild     L / 2: the views overlap by half of their length (the released configuration)
medium   L: the second view begins where the first ends
extreme  opposite ends of the file: the first view's centre is drawn from the first third of the possible centres,
         the second's from the last third; in a short file, from shorter ranges at the ends, so that the distance
         is at least that of medium, or else as long as the file allows
mixed    one of the four above, drawn for each sample
=======  ==================================================================================================

The supplementary material and the known facts about the released code give numbers for mild only. The thirds of
"extreme", and "mixed" as a draw among the four, are this package's reading.

View 1 is the earlier one in both modalities. Video view 1 and audio view 1 are a synchronous pair, and so are the
views 2: the span of the two video views is centred on the span of the two audio views, so that each short video window
lies inside the audio window of its pair. The released code is looser, see ``released``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.settings import check_choice

RELAXATIONS = ("none", "mild", "medium", "extreme", "mixed")
"""The relaxations that :func:`view_starts` takes."""

Span = tuple[float, float]

_DISTANCE_IN_VIEWS = {"none": 0.0, "mild": 0.5, "medium": 1.0}
"""Distance between the views' starts, in lengths of a view."""


@dataclass(frozen=True)
class ViewStarts:
    """Start times of the four views of a file, in seconds.

    Attributes:
        v1: First video view.
        v2: Second video view, ``v2 >= v1``.
        a1: First audio view.
        a2: Second audio view, ``a2 >= a1``.
    """

    v1: float
    v2: float
    a1: float
    a2: float


def view_starts(
    relaxation: str,
    *,
    video_span: Span,
    audio_span: Span,
    video_seconds: float,
    audio_seconds: float,
    rng: np.random.Generator,
    released: bool = False,
) -> ViewStarts:
    """Draw the start times of the views of one file. The module's docstring describes each relaxation.

    If the file is long enough, all four views lie in their streams' spans, and every such position is equally likely
    (for extreme: within the two thirds). In a shorter file the two views of a modality move closer together. If a
    stream is shorter than one view, both views start at its beginning, and the reader pads them. If the two streams do
    not overlap for long enough, the views of each are placed as near to those of the other as its span allows.

    Args:
        relaxation: One of :data:`RELAXATIONS`.
        video_span: ``(start, end)`` of the video stream in seconds.
        audio_span: ``(start, end)`` of the audio stream in seconds.
        video_seconds: Length of one video view; the paper's is 0.5 s.
        audio_seconds: Length of one audio view; the paper's is 2 s.
        rng: The only source of randomness.
        released: Place the video views as the released code does, for mild only: the 3 s of audio begin anywhere, and
            the 0.75 s of video begin anywhere inside them (0 to 2.25 s later), so that v1 need not lie inside a1.

    Returns:
        Start times in seconds. They are finite, and none is before the start of its stream.

    Raises:
        ConfigError: ``relaxation`` is unknown, or ``released`` is set with a relaxation other than mild.
        InputError: A length is not above 0, or a span is reversed or not finite.
    """
    check_choice("relaxation", relaxation, RELAXATIONS)
    if released and relaxation != "mild":
        raise ConfigError(
            f"released=True is defined for relaxation 'mild' only, not for {relaxation!r}",
            remedy="leave released=False, or use relaxation 'mild'",
        )
    video, audio = _Stream(video_span, video_seconds), _Stream(audio_span, audio_seconds)
    if relaxation == "mixed":
        relaxation = RELAXATIONS[rng.integers(RELAXATIONS.index("mixed"))]
    if relaxation == "extreme":
        return _extreme(video, audio, rng)
    views = _DISTANCE_IN_VIEWS[relaxation]
    draw = _loose if released else _centred
    return draw(video, audio, video.distance(views), audio.distance(views), rng)


@dataclass(frozen=True)
class _Stream:
    """One modality: the span of its stream, and the length of its views, in seconds."""

    span: Span
    view: float

    def __post_init__(self) -> None:
        start, end = self.span
        if not (math.isfinite(start) and math.isfinite(end) and start <= end):
            raise InputError(f"span {self.span!r} is not (start, end) in seconds")
        if not (math.isfinite(self.view) and self.view > 0):
            raise InputError(f"a view of {self.view!r} s has no length", remedy="give seconds above 0")

    def distance(self, views: float) -> float:
        """Return the seconds between the views' starts: ``views`` lengths of a view, or less in a short stream."""
        room = self.span[1] - self.span[0] - self.view
        return min(views * self.view, max(room, 0.0))

    def centres(self, distance: float) -> Span:
        """Return the first and last time on which two views ``distance`` apart can be centred."""
        half = (distance + self.view) / 2
        first = self.span[0] + half
        return first, max(self.span[1] - half, first)

    def starts(self, first: float, distance: float) -> tuple[float, float]:
        """Return the starts of two views ``distance`` apart; ``first`` is moved inside the span."""
        last = max(self.span[0], self.span[1] - self.view - distance)
        first = min(max(first, self.span[0]), last)
        return first, first + distance


def _shared(a: Span, b: Span) -> Span:
    """Return the overlap of two intervals, or, if there is none, the time in the middle between them."""
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low <= high else ((low + high) / 2,) * 2


def _centred(
    video: _Stream, audio: _Stream, video_distance: float, audio_distance: float, rng: np.random.Generator
) -> ViewStarts:
    """None, mild, medium: draw one time, and centre the pair of views of each modality on it."""
    centre = rng.uniform(*_shared(video.centres(video_distance), audio.centres(audio_distance)))
    v1, v2 = video.starts(centre - (video_distance + video.view) / 2, video_distance)
    a1, a2 = audio.starts(centre - (audio_distance + audio.view) / 2, audio_distance)
    return ViewStarts(v1, v2, a1, a2)


def _loose(
    video: _Stream, audio: _Stream, video_distance: float, audio_distance: float, rng: np.random.Generator
) -> ViewStarts:
    """Mild as released: the audio begins anywhere, and the video begins anywhere inside the audio."""
    a1, a2 = audio.starts(
        rng.uniform(audio.span[0], max(audio.span[0], audio.span[1] - audio_distance - audio.view)),
        audio_distance,
    )
    slack = max(0.0, audio_distance + audio.view - video_distance - video.view)
    v1, v2 = video.starts(a1 + rng.uniform(0.0, slack), video_distance)
    return ViewStarts(v1, v2, a1, a2)


def _extreme(video: _Stream, audio: _Stream, rng: np.random.Generator) -> ViewStarts:
    """Draw one time near each end, and centre a view of each modality on it."""
    first, last = _shared(video.centres(0.0), audio.centres(0.0))
    room = last - first
    reach = max(0.0, min(room / 3, (room - max(video.view, audio.view)) / 2))
    early, late = rng.uniform(first, first + reach), rng.uniform(last - reach, last)
    v1, a1 = (s.starts(early - s.view / 2, 0.0)[0] for s in (video, audio))
    v2, a2 = (s.starts(late - s.view / 2, 0.0)[0] for s in (video, audio))
    return ViewStarts(v1, v2, a1, a2)
