"""Temporal relaxation: how far apart in time the two views of a file are (section 3 of the paper).

A view is a half-open window ``[start, start + length)`` in seconds, on the clock of :mod:`crisscross_zoo.media`.
A file gives two views of its pictures and two of its sound. ``distance`` is the time from the first view's start to
the second view's, for views of length L:

=======  ==================================================================================================
none     0: both views show the same time
mild     L / 2: the views share half of their time (the released configuration)
medium   L: the second view begins where the first ends
extreme  opposite ends of the file: the first view's centre is drawn from the first third of the centres that
         fit, the second's from the last third; in a short file closer to the ends, so that the distance is
         at least that of medium, or else as long as the file allows
mixed    one of the four above, drawn anew each time
=======  ==================================================================================================

The text at hand (the supplementary material, and facts about the released code) gives numbers for mild alone. The
thirds of "extreme", and "mixed" as a draw among the four, are this package's reading.

View 1 is the earlier one in both modalities. View 1 of the pictures and view 1 of the sound are the synchronous pair,
and so are views 2: what the two picture views span is centred on what the two sound views span, which puts each short
picture window inside the sound window of its pair. The released code is looser, see ``released``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.settings import check_choice

RELAXATIONS = ("none", "mild", "medium", "extreme", "mixed")
"""What :func:`view_starts` understands."""

Span = tuple[float, float]

_SHARE_OF_VIEW = {"none": 0.0, "mild": 0.5, "medium": 1.0}
"""Distance between the views' starts, in lengths of a view."""


@dataclass(frozen=True)
class ViewStarts:
    """Where the four views of a file begin, in seconds.

    Attributes:
        v1: First view of the pictures.
        v2: Second view of the pictures, ``v2 >= v1``.
        a1: First view of the sound.
        a2: Second view of the sound, ``a2 >= a1``.
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
    """Draw where the views of one file begin; see the module's docstring for what each relaxation means.

    All four views lie in their streams' spans where the file is long enough, and every position that keeps them there
    is equally likely (for extreme: within the two thirds). In a shorter file the two views of a modality come closer
    together first; a stream shorter than one view has both at its beginning, for the reader to pad. Where pictures and
    sound do not last long enough at the same time, each is placed as near to the other as its span allows.

    Args:
        relaxation: One of :data:`RELAXATIONS`.
        video_span: ``(start, end)`` of the picture stream in seconds.
        audio_span: ``(start, end)`` of the sound stream in seconds.
        video_seconds: Length of one view of the pictures; the paper's is 0.5 s.
        audio_seconds: Length of one view of the sound; the paper's is 2 s.
        rng: All that is random comes from here.
        released: Place the pictures as the released code does, for mild alone: the sound's 3 s begin anywhere, the
            pictures' 0.75 s begin anywhere inside them (0 to 2.25 s later), so that v1 need not lie inside a1.

    Returns:
        Starts in seconds, finite, none before its stream's.

    Raises:
        ConfigError: ``relaxation`` is not known, or ``released`` is set with another one than mild.
        InputError: A length is not above 0, or a span is reversed or not finite.
    """
    check_choice("relaxation", relaxation, RELAXATIONS)
    if released and relaxation != "mild":
        raise ConfigError(
            f"the released placement is known for relaxation 'mild' alone, not for {relaxation!r}",
            remedy="leave released=False, or use relaxation 'mild'",
        )
    video, audio = _Stream(video_span, video_seconds), _Stream(audio_span, audio_seconds)
    if relaxation == "mixed":
        relaxation = RELAXATIONS[rng.integers(RELAXATIONS.index("mixed"))]
    if relaxation == "extreme":
        return _extreme(video, audio, rng)
    share = _SHARE_OF_VIEW[relaxation]
    place = _loose if released else _centred
    return place(video, audio, video.distance(share), audio.distance(share), rng)


@dataclass(frozen=True)
class _Stream:
    """One modality: where it has content, and how long its views are."""

    span: Span
    view: float

    def __post_init__(self) -> None:
        start, end = self.span
        if not (math.isfinite(start) and math.isfinite(end) and start <= end):
            raise InputError(f"span {self.span!r} is not (start, end) in seconds")
        if not (math.isfinite(self.view) and self.view > 0):
            raise InputError(f"a view of {self.view!r} s has no length", remedy="give seconds above 0")

    def distance(self, share: float) -> float:
        """Seconds between the views' starts: ``share`` of a view, less where the stream is too short for that."""
        room = self.span[1] - self.span[0] - self.view
        return min(share * self.view, max(room, 0.0))

    def centres(self, distance: float) -> Span:
        """First and last instant on which two views ``distance`` apart can be centred."""
        half = (distance + self.view) / 2
        first = self.span[0] + half
        return first, max(self.span[1] - half, first)

    def starts(self, first: float, distance: float) -> tuple[float, float]:
        """Starts of two views ``distance`` apart, ``first`` moved inside the span."""
        last = max(self.span[0], self.span[1] - self.view - distance)
        first = min(max(first, self.span[0]), last)
        return first, first + distance


def _shared(a: Span, b: Span) -> Span:
    """Return what two intervals share; where that is nothing, the instant in the middle between them."""
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low <= high else ((low + high) / 2,) * 2


def _centred(
    video: _Stream, audio: _Stream, video_distance: float, audio_distance: float, rng: np.random.Generator
) -> ViewStarts:
    """None, mild, medium: both modalities' pairs of views are centred on one instant, which is drawn."""
    centre = rng.uniform(*_shared(video.centres(video_distance), audio.centres(audio_distance)))
    v1, v2 = video.starts(centre - (video_distance + video.view) / 2, video_distance)
    a1, a2 = audio.starts(centre - (audio_distance + audio.view) / 2, audio_distance)
    return ViewStarts(v1, v2, a1, a2)


def _loose(
    video: _Stream, audio: _Stream, video_distance: float, audio_distance: float, rng: np.random.Generator
) -> ViewStarts:
    """Mild as released: the sound begins anywhere, then the pictures begin anywhere inside the sound."""
    a1, a2 = audio.starts(
        rng.uniform(audio.span[0], max(audio.span[0], audio.span[1] - audio_distance - audio.view)),
        audio_distance,
    )
    slack = max(0.0, audio_distance + audio.view - video_distance - video.view)
    v1, v2 = video.starts(a1 + rng.uniform(0.0, slack), video_distance)
    return ViewStarts(v1, v2, a1, a2)


def _extreme(video: _Stream, audio: _Stream, rng: np.random.Generator) -> ViewStarts:
    """Draw one instant near each end; a view of either modality is centred on each."""
    first, last = _shared(video.centres(0.0), audio.centres(0.0))
    room = last - first
    reach = max(0.0, min(room / 3, (room - max(video.view, audio.view)) / 2))
    early, late = rng.uniform(first, first + reach), rng.uniform(last - reach, last)
    v1, a1 = (s.starts(early - s.view / 2, 0.0)[0] for s in (video, audio))
    v2, a2 = (s.starts(late - s.view / 2, 0.0)[0] for s in (video, audio))
    return ViewStarts(v1, v2, a1, a2)
