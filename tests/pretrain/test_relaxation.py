"""Views lie inside their streams, at the given distance, synchronous in pairs, at equally likely positions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.pretrain.relaxation import RELAXATIONS, ViewStarts, view_starts

V, A = 0.5, 2.0  # the paper's lengths of a view
EPS = 1e-9
FIXED = {"none": 0.0, "mild": 0.5, "medium": 1.0}  # distance in lengths of a view

seeds = st.integers(0, 2**32 - 1)
starts = st.floats(0.0, 100.0)
lengths = st.floats(0.0, 600.0)
views = st.floats(0.05, 10.0)
modes = st.sampled_from(RELAXATIONS)


def draw(mode, length=10.0, seed=0, **kwargs):
    given_ = {
        "video_span": (0.0, length),
        "audio_span": (0.0, length),
        "video_seconds": V,
        "audio_seconds": A,
    }
    return view_starts(mode, **{**given_, **kwargs}, rng=np.random.default_rng(seed))


def many(mode, n=4000, **kwargs):
    """Return n draws as an array (n, 4): v1, v2, a1, a2."""
    rng = np.random.default_rng(1)
    return np.array([dataclasses.astuple(draw(mode, seed=rng, **kwargs)) for _ in range(n)])


def overlap(one, other, length):
    return max(0.0, length - abs(other - one))


@given(mode=modes, seed=seeds, v0=starts, a0=starts, v_len=lengths, a_len=lengths, v=views, a=views)
def test_any_file_gives_finite_starts_inside_its_streams(mode, seed, v0, a0, v_len, a_len, v, a):
    s = view_starts(
        mode, video_span=(v0, v0 + v_len), audio_span=(a0, a0 + a_len), video_seconds=v, audio_seconds=a,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    for first, second, start, length, view in ((s.v1, s.v2, v0, v_len, v), (s.a1, s.a2, a0, a_len, a)):
        assert math.isfinite(first)
        assert start <= first <= second
        assert second + view <= start + max(length, view) + EPS


@pytest.mark.parametrize(
    ("mode", "video_overlap", "audio_overlap", "video_window", "audio_window"),
    [("none", 0.5, 2.0, 0.5, 2.0), ("mild", 0.25, 1.0, 0.75, 3.0), ("medium", 0.0, 0.0, 1.0, 4.0)],
)
def test_the_views_overlap_as_they_should(mode, video_overlap, audio_overlap, video_window, audio_window):
    s = draw(mode)
    assert overlap(s.v1, s.v2, V) == pytest.approx(video_overlap)
    assert overlap(s.a1, s.a2, A) == pytest.approx(audio_overlap)
    assert s.v2 + V - s.v1 == pytest.approx(video_window)
    assert s.a2 + A - s.a1 == pytest.approx(audio_window)


@given(mode=st.sampled_from(sorted(FIXED)), seed=seeds, start=starts, v=views, a=views, more=lengths)
def test_distances_are_exact_in_files_that_are_long_enough(mode, seed, start, v, a, more):
    span = (start, start + 2 * max(v, a) + more)
    s = view_starts(
        mode, video_span=span, audio_span=span, video_seconds=v, audio_seconds=a,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    assert s.v2 - s.v1 == pytest.approx(FIXED[mode] * v, abs=EPS)
    assert s.a2 - s.a1 == pytest.approx(FIXED[mode] * a, abs=EPS)


def test_mild_is_the_released_8_of_12_frames():
    s = draw("mild", seed=3)
    first, second = (np.rint((t - s.v1) * 16 + np.arange(8)).astype(int).tolist() for t in (s.v1, s.v2))
    assert (first, second) == (list(range(8)), list(range(4, 12)))


@given(mode=modes, seed=seeds, length=st.floats(0.5, 600.0))
def test_each_pair_is_synchronous(mode, seed, length):
    s = draw(mode, length, seed)
    for video, audio in ((s.v1, s.a1), (s.v2, s.a2)):
        assert audio - EPS <= video
        assert video + V <= max(audio + A, length) + EPS


@given(mode=modes, seed=seeds, length=st.floats(4.0, 600.0))
def test_video_is_centred_on_audio(mode, seed, length):
    s = draw(mode, length, seed)
    assert (s.v1 + s.v2 + V) / 2 == pytest.approx((s.a1 + s.a2 + A) / 2, abs=EPS)


@given(seed=seeds, length=st.floats(2.0, 600.0))
def test_extreme_pairs_come_from_opposite_ends(seed, length):
    s = draw("extreme", length, seed)
    room = length - A
    for video, audio in ((s.v1, s.a1), (s.v2, s.a2)):
        assert video + V / 2 == pytest.approx(audio + A / 2, abs=EPS)
    assert s.a1 <= room / 3 + EPS
    assert s.a2 >= room * 2 / 3 - EPS
    assert s.a2 - s.a1 >= min(A, room) - EPS  # never closer than medium, if the file allows


def test_extreme_is_further_apart_than_medium_on_average():
    s = many("extreme", length=14.0)
    distance = s[:, 3] - s[:, 2]
    assert distance.min() >= 4.0 - EPS
    assert distance.mean() == pytest.approx(8.0, abs=0.1)
    assert distance.max() <= 12.0 + EPS


@pytest.mark.parametrize(("mode", "last"), [("none", 8.0), ("mild", 7.0), ("medium", 6.0)])
def test_every_start_is_as_likely_as_any_other(mode, last):
    a1 = np.sort(many(mode)[:, 2])
    assert a1[0] >= 0
    assert a1[-1] <= last + EPS
    uniform = (np.arange(len(a1)) + 0.5) / len(a1) * last
    assert np.abs(a1 - uniform).max() / last < 0.03  # Kolmogorov-Smirnov: 1.63 / sqrt(4000) = 0.026 at 1 %


def test_mixed_draws_each_of_the_four_as_often():
    s = many("mixed", length=20.0)
    distance = s[:, 3] - s[:, 2]
    for expected in (0.0, 1.0, 2.0):
        assert np.mean(np.abs(distance - expected) < 1e-6) == pytest.approx(0.25, abs=0.03)
    assert np.mean(distance > 2.1) == pytest.approx(0.25, abs=0.03)


@given(mode=modes, seed=seeds)
def test_the_same_generator_gives_the_same_views(mode, seed):
    assert draw(mode, seed=seed) == draw(mode, seed=seed)


def test_draws_differ():
    assert len({draw("mild", seed=seed) for seed in range(20)}) == 20


@given(seed=seeds)
def test_in_a_short_file_the_views_move_closer_together(seed):
    s = draw("mild", 2.4, seed)  # 3 s are wanted
    assert (s.a1, s.a2) == pytest.approx((0.0, 0.4))
    assert s.v2 - s.v1 == pytest.approx(0.25)
    s = draw("medium", 3.0, seed)
    assert (s.a1, s.a2) == pytest.approx((0.0, 1.0))
    s = draw("extreme", 3.0, seed)
    assert (s.a1, s.a2) == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize("mode", RELAXATIONS)
@pytest.mark.parametrize("length", [0.0, 0.04, 0.3])
def test_a_file_shorter_than_a_view_starts_at_its_beginning(mode, length):
    assert draw(mode, length) == ViewStarts(0.0, 0.0, 0.0, 0.0)
    late = draw(mode, video_span=(3.0, 3.0 + length), audio_span=(3.0, 3.0 + length))
    assert late == ViewStarts(3.0, 3.0, 3.0, 3.0)


@pytest.mark.parametrize("mode", RELAXATIONS)
def test_streams_that_do_not_meet_are_placed_as_near_as_they_can(mode):
    s = draw(mode, video_span=(0.0, 10.0), audio_span=(20.0, 30.0))
    assert s.v2 + V == pytest.approx(10.0)
    assert s.a1 == pytest.approx(20.0)


@given(seed=seeds, mode=st.sampled_from(["none", "mild", "medium"]))
def test_where_audio_ends_early_video_stays_with_it(seed, mode):
    s = draw(mode, seed=seed, video_span=(0.0, 60.0), audio_span=(0.0, 10.0))
    assert s.a1 - EPS <= s.v1
    assert s.v2 + V <= s.a2 + A + EPS


def test_released_mild_places_video_anywhere_inside_the_audio():
    s = many("mild", released=True)
    assert s[:, 1] - s[:, 0] == pytest.approx(0.25)
    assert s[:, 3] - s[:, 2] == pytest.approx(1.0)
    offset = np.sort(s[:, 0] - s[:, 2])
    assert offset[0] >= -EPS
    assert offset[-1] <= 2.25 + EPS
    assert np.abs(offset - (np.arange(len(offset)) + 0.5) / len(offset) * 2.25).max() / 2.25 < 0.03
    a1 = np.sort(s[:, 2])
    assert np.abs(a1 - (np.arange(len(a1)) + 0.5) / len(a1) * 7).max() / 7 < 0.03
    assert np.mean(s[:, 0] + V > s[:, 2] + A) > 0.25  # v1 often sticks out of a1: 0.75 / 2.25


@given(seed=seeds, v_len=lengths, a_len=lengths)
def test_released_mild_stays_inside_too(seed, v_len, a_len):
    s = draw("mild", seed=seed, video_span=(0.0, v_len), audio_span=(0.0, a_len), released=True)
    assert 0 <= s.v1 <= s.v2 <= max(v_len - V, 0) + EPS
    assert 0 <= s.a1 <= s.a2 <= max(a_len - A, 0) + EPS


def test_an_unknown_relaxation_is_named_with_the_one_meant():
    with pytest.raises(ConfigError, match="did you mean 'medium'") as caught:
        draw("medum")
    assert "relaxation='medum'" in str(caught.value)


def test_the_released_placement_is_defined_for_mild_alone():
    with pytest.raises(ConfigError, match="mild"):
        draw("none", released=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"video_seconds": 0.0},
        {"audio_seconds": -1.0},
        {"video_span": (1.0, 0.0)},
        {"audio_span": (0.0, math.nan)},
    ],
)
def test_spans_and_lengths_are_checked(wrong):
    with pytest.raises(InputError):
        draw("mild", **wrong)


def test_released_video_longer_than_the_audio_begins_with_it():
    s = many("mild", n=50, released=True, video_seconds=4.0, audio_seconds=1.0)
    assert s[:, 0] == pytest.approx(np.minimum(s[:, 2], 10.0 - 6.0))
    assert s[:, 1] - s[:, 0] == pytest.approx(2.0)


@pytest.mark.parametrize(("v", "a"), [(0.5, 2.0), (3.0, 1.0)])
def test_extreme_begins_and_ends_with_the_file(v, a):
    s = many("extreme", length=20.0, video_seconds=v, audio_seconds=a)
    first, second, view = (s[:, 2], s[:, 3], a) if a > v else (s[:, 0], s[:, 1], v)
    third = (20.0 - view) / 3
    assert 0 <= first.min() < 0.02 * third
    assert 0.98 * third < first.max() <= third
    assert 0 <= (20.0 - view - second).min() < 0.02 * third
    assert 0.98 * third < (20.0 - view - second).max() <= third + EPS


def test_extreme_in_a_file_of_few_views_goes_to_the_ends():
    """In 5 s with views of 2 s, each end has (3 - 2) / 2 = 0.5 s, less than a third."""
    s = many("extreme", length=5.0)
    assert 0.49 < s[:, 2].max() <= 0.5
    assert 2.5 <= s[:, 3].min() < 2.51


@pytest.mark.parametrize("span", [(0.0, math.inf), (-math.inf, 0.0), (math.nan, 1.0)])
def test_a_span_has_two_finite_ends_and_an_instant_will_do(span):
    with pytest.raises(InputError, match=r"is not \(start, end\) in seconds"):
        draw("mild", video_span=span)
    assert draw("mild", video_span=(5.0, 5.0)).v1 == 5.0
    with pytest.raises(InputError, match="a view of inf s has no length; give seconds above 0"):
        draw("mild", video_seconds=math.inf)


def test_a_view_may_be_shorter_than_a_second():
    assert draw("none", video_seconds=0.001).v1 == pytest.approx(draw("none").v1 + 0.2495)
