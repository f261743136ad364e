import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crisscross_zoo.media.windows import (
    centred_alike,
    centred_starts,
    centres_of,
    dense_starts,
    frame_times,
    random_starts,
    real_windows,
    uniform_starts,
    whole_units,
)

SELECTION = json.loads((Path(__file__).parents[1] / "golden" / "clip_selection.json").read_text())

spans = st.tuples(st.floats(0, 100), st.floats(0.01, 300)).map(lambda p: (p[0], p[0] + p[1]))
lengths = st.floats(0.1, 10)


@pytest.mark.parametrize("case", SELECTION["video_dense"], ids=lambda c: f"{c['clip_seconds']}s-{c['nf']}")
def test_uniform_video_starts_are_the_references(case):
    fps, seconds = case["fps"], case["clip_seconds"]
    starts = uniform_starts((0.0, case["nf"] / fps), seconds, case["clips"], fps)
    np.testing.assert_array_equal(np.rint(starts * fps).astype(int), case["starts"])


@pytest.mark.parametrize(
    "case", SELECTION["audio_dense"], ids=lambda c: f"{c['clip_seconds']}s-{c['nf']}-{c['clips']}"
)
def test_uniform_audio_starts_are_the_references(case):
    rate = case["frame_rate"]
    starts = uniform_starts((0.0, case["nf"] / rate), case["clip_seconds"], case["clips"], rate)
    np.testing.assert_array_equal(np.rint(starts * rate).astype(int), case["starts"])


def test_dense_windows_lie_end_to_end_and_the_last_is_moved_inside():
    np.testing.assert_allclose(dense_starts((0.0, 2.0), 0.5, 0.5), [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(dense_starts((0.0, 2.3), 0.5, 0.5), [0, 0.5, 1, 1.5, 1.8])
    np.testing.assert_allclose(dense_starts((1.0, 3.0), 0.5, 0.25), [1, 1.25, 1.5, 1.75, 2, 2.25, 2.5])


def test_strides_beyond_the_window_leave_gaps_and_stay_on_the_grid():
    np.testing.assert_allclose(dense_starts((0.0, 6.0), 0.5, 1.0), [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(dense_starts((0.0, 12.0), 0.5, 10.0), [0, 10])
    np.testing.assert_allclose(dense_starts((0.0, 10.3), 0.5, 10.0), [0, 9.8])


def test_a_remainder_of_codec_padding_gets_no_window():
    np.testing.assert_allclose(dense_starts((0.0, 2.09), 0.5, 0.5), [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(dense_starts((0.0, 2.11), 0.5, 0.5), [0, 0.5, 1, 1.5, 1.61])


def test_a_file_shorter_than_a_window_gives_one_with_its_real_part():
    starts = dense_starts((0.0, 0.3), 0.5, 0.5)
    np.testing.assert_array_equal(real_windows(starts, (0.0, 0.3), 0.5), [[0.0, 0.3]])


@given(spans, lengths, st.floats(0.05, 5))
def test_dense_windows_cover_the_span_and_stay_in_it(span, window, stride):
    starts = dense_starts(span, window, stride)
    real = real_windows(starts, span, window)
    assert starts[0] == span[0]
    assert np.all(np.diff(starts) > -1e-9)
    assert np.all(np.diff(starts) <= stride + 1e-9)
    assert np.all(real[:, 1] <= span[1] + 1e-9)
    assert np.all(real[:, 0] < real[:, 1])
    assert span[1] - real[-1, 1] <= max(min(0.1, stride / 2), stride - window) + 1e-5
    on_grid = starts[:-1] if len(starts) > 1 else starts
    np.testing.assert_allclose(on_grid, span[0] + stride * np.arange(len(on_grid)), atol=1e-6)


@given(spans, lengths, st.integers(1, 50))
def test_uniform_windows_are_as_many_as_requested_and_ascend(span, window, clips):
    starts = uniform_starts(span, window, clips, 16)
    assert len(starts) == clips
    assert starts[0] == span[0]
    assert np.all(np.diff(starts) >= 0)


@given(spans, lengths, lengths)
def test_centred_windows_have_the_given_centres_where_the_span_allows(span, one, other):
    centres = dense_starts(span, one, one) + one / 2
    starts = centred_starts(centres, span, other)
    assert np.all(starts >= span[0])
    assert np.all(starts <= max(span[0], span[1] - other))
    inside = (centres - other / 2 >= span[0]) & (centres + other / 2 <= span[1])
    np.testing.assert_allclose(starts[inside] + other / 2, centres[inside], atol=1e-9)


def test_frames_of_short_clips_are_repeated_from_the_first():
    times = frame_times(np.array([0.0]), (0.0, 3 / 16), 8, 16)
    np.testing.assert_array_equal(np.rint(times[0] * 16), [0, 1, 2, 0, 1, 2, 0, 1])
    times = frame_times(np.array([1.0]), (0.0, 9.0), 8, 16)
    np.testing.assert_array_equal(np.rint(times[0] * 16), np.arange(16, 24))


def test_units_are_counted_whole_but_for_rounding():
    assert whole_units(0.4999999, 16) == 8
    assert whole_units(0.49, 16) == 7
    assert whole_units(0.0, 16) == 0


def test_a_remainder_of_half_a_stride_gets_a_window():
    np.testing.assert_allclose(dense_starts((0.0, 0.54), 0.5, 0.1), [0])
    np.testing.assert_allclose(dense_starts((0.0, 0.57), 0.5, 0.1), [0, 0.07])
    np.testing.assert_allclose(dense_starts((0.0, 0.62), 0.5, 0.1), [0, 0.1])


def test_no_window_starts_where_the_span_has_ended():
    np.testing.assert_allclose(dense_starts((0.0, 0.9), 0.5, 1.0), [0])
    np.testing.assert_allclose(dense_starts((3.0, 5.0), 0.5, 1.0), [3, 4])


def test_uniform_windows_of_a_span_that_has_room_for_few():
    """Starts are whole units of 1 / 16 s."""
    np.testing.assert_array_equal(uniform_starts((2.0, 2.5), 0.5, 3, 16), [2, 2, 2])
    np.testing.assert_array_equal(uniform_starts((2.0, 2.0 + 9 / 16), 0.5, 3, 16), [2, 2, 2 + 1 / 16])
    np.testing.assert_array_equal(uniform_starts((2.0, 2.0 + 10 / 16), 0.5, 2, 16), [2, 2 + 2 / 16])


def test_random_windows_are_sorted_and_fill_the_span():
    starts = random_starts((2.0, 7.0), 1.0, 2000, np.random.default_rng(0))
    assert starts.shape == (2000,)
    np.testing.assert_allclose(starts, 2 + 4 * (np.arange(2000) + 0.5) / 2000, atol=4 * 0.04)
    assert np.all(np.diff(starts) >= 0)
    assert starts[0] >= 2
    assert starts[-1] <= 6
    drawn = np.sort(np.random.default_rng(0).uniform(size=2000))
    np.testing.assert_allclose(starts, 2 + 4 * drawn)


@pytest.mark.parametrize("end", [2.0, 2.5, 3.0])
def test_random_windows_of_a_span_no_longer_than_one_are_its_beginning(end):
    assert random_starts((2.0, end), 1.0, 3, np.random.default_rng(0)).tolist() == [2, 2, 2]


def test_windows_end_with_the_span_and_have_their_middle_as_centre():
    real = real_windows(np.array([0.0, 1.0, 1.75]), (0.0, 2.0), 0.5)
    np.testing.assert_array_equal(real, [[0, 0.5], [1, 1.5], [1.75, 2]])
    np.testing.assert_array_equal(centres_of(real), [0.25, 1.25, 1.875])
    np.testing.assert_array_equal(real_windows(np.array([2.0]), (2.0, 1.0), 0.5), [[2, 2]])


def test_centred_windows_of_a_span_of_no_length_start_at_it():
    np.testing.assert_array_equal(centred_starts(np.array([0.0, 9.0]), (3.0, 3.0), 2.0), [3, 3])
    np.testing.assert_array_equal(centred_starts(np.array([0.0, 5.0, 9.0]), (0.0, 8.0), 2.0), [0, 4, 6])


def test_windows_are_centred_alike_within_half_a_frame():
    video = np.array([[1.0, 1.5]] * 4)
    shift = np.array([0, 0.5 / 16, -0.5 / 16, 0.6 / 16])[:, None]
    audio = np.array([[0.25, 2.25]] * 4) + shift
    assert centred_alike(video, audio, 16.0).tolist() == [True, True, True, False]
    assert centred_alike(video, audio, 8.0).all()


def test_all_frames_of_a_span_of_no_length_are_its_first():
    assert frame_times(np.array([3.0]), (3.0, 3.0), 3, 16).tolist() == [[3, 3, 3]]


def test_a_remainder_that_is_too_long_only_by_rounding_gets_no_window():
    assert 1.1 - 0.5 - 0.1 > 0.5  # in floating point
    np.testing.assert_allclose(dense_starts((0.0, 1.1), 0.5, 0.5), [0, 0.5])


def test_whole_seconds_give_starts_in_float64_too():
    for starts in (dense_starts((0, 4), 1, 1), uniform_starts((2, 3), 1, 2, 16)):
        assert starts.dtype == np.float64
