"""A file's continuous clock, on timestamps made by hand."""

import numpy as np
import pytest

from crisscross_zoo.media.clock import StreamStamps, fill_in, gaps, run_through
from crisscross_zoo.media.tracks import NO_STAMP

TICK = 1 / 1000
STEP = 40
GROUP = 12


def stamps(dts, *, pts=None, step=STEP, keys=None, positions=None, unseen=()):
    """Return a stream of one packet per ``step``, shown when it is decoded unless ``pts`` is given."""
    dts = np.array(dts, np.int64)
    count = len(dts)
    hidden = np.zeros(count, np.bool_)
    hidden[list(unseen)] = True
    return StreamStamps(
        tick=TICK,
        pts=dts.copy() if pts is None else np.array(pts, np.int64),
        dts=dts,
        durations=np.full(count, step, np.int64),
        positions=np.arange(count) if positions is None else np.array(positions),
        unseen=hidden,
        keys=np.arange(count) % GROUP == 0 if keys is None else np.array(keys, np.bool_),
    )


def recording(start, count, step=STEP):
    return [start + step * k for k in range(count)]


def run(stream, stated=0.0):
    return run_through({"video": stream}, stated)["video"]


EVEN = recording(0, 60)


@pytest.mark.parametrize("start", [0, 5000, -200, 95_443_700])
def test_a_continuous_clock_is_kept(start):
    clock = run(stamps(recording(start, 60)))
    assert clock.pts.tolist() == clock.dts.tolist() == recording(start, 60)
    assert (clock.strays, clock.restarts) == (0, [])


@pytest.mark.parametrize("where", [slice(20, 21), slice(20, 50), slice(0, 1), slice(0, 2), slice(59, 60)])
@pytest.mark.parametrize("by", [1_000_000, 200_000])
def test_a_few_timestamps_far_from_the_others_are_ignored(where, by):
    dts = np.array(EVEN)
    dts[where] += by
    clock = run(stamps(dts))
    lost = np.zeros(60, np.bool_)
    lost[where] = True
    assert clock.restarts == []
    assert clock.strays == lost.sum()
    assert ((clock.pts == NO_STAMP) == lost).all()
    assert (clock.pts[~lost] == np.array(EVEN)[~lost]).all()
    assert (np.diff(clock.dts) >= 0).all()
    assert clock.dts[~lost].tolist() == np.array(EVEN)[~lost].tolist()


def test_a_few_timestamps_a_little_ahead_are_found_when_the_clock_jumps_back():
    dts = np.array(EVEN)
    dts[30:36] += 2000
    clock = run(stamps(dts))
    assert clock.restarts == []
    assert np.flatnonzero(clock.pts == NO_STAMP).tolist() == [30, 31, 32, 33, 34, 35]


@pytest.mark.parametrize("second", [0, 240, 1000, -5000, 100_000])
def test_another_recording_continues_where_the_first_ended(second):
    clock = run(stamps(recording(0, 36) + recording(second, 24)))
    assert clock.restarts == [36]
    assert clock.pts.tolist() == EVEN if second >= 0 else clock.pts[:36].tolist() == EVEN[:36]
    assert clock.strays == 0


@pytest.mark.parametrize(
    "starts", [(0, 0, 0), (0, 900_000, 0), (900_000, 0, 900_000), (0, 900_000, 90_000_000)]
)
def test_each_of_several_recordings_continues_where_the_one_before_ended(starts):
    clock = run(stamps([s for start in starts for s in recording(start, 24)]))
    assert clock.restarts == [24, 48]
    assert clock.pts.tolist() == recording(starts[0], 72)


def test_timestamps_of_a_recording_before_its_time_0_are_the_decoders_delay():
    clock = run(stamps(recording(0, 36) + recording(-80, 24)))
    assert clock.pts[36:].tolist() == recording(36 * STEP - 80, 24)


def test_a_step_back_below_a_tenth_of_a_second_is_no_restart():
    dts = recording(0, 30) + recording(30 * STEP - 120, 30)
    clock = run(stamps(dts))
    assert clock.restarts == []
    assert clock.pts.tolist() == dts


def test_a_wrap_is_a_restart():
    top = 1 << 33
    dts = [(top - 20 * STEP + STEP * k) % top for k in range(60)]
    clock = run(stamps(dts))
    assert clock.restarts == [20]
    assert np.diff(clock.pts).tolist() == [STEP] * 59


def with_b_frames(start, count):
    """Return decoding and presentation timestamps of groups I B B P B B ... in decoding order: I P B B P B B."""
    pts = [start + 2 * STEP + STEP * (k + 2 if k % 3 == 1 else k - 1 if k else 0) for k in range(count)]
    return recording(start, count), pts


def test_a_restart_inside_a_group_continues_the_decoding_timestamps():
    dts, pts = with_b_frames(0, 48)
    shifted = 200_000
    keys = np.arange(48) % GROUP == 0
    at = 26
    clock = run(
        stamps(
            dts[:at] + [d + shifted for d in dts[at:]],
            pts=pts[:at] + [p + shifted for p in pts[at:]],
            keys=keys,
        )
    )
    assert clock.restarts == [at]
    assert clock.pts.tolist() == pts


def test_streams_that_restart_together_keep_their_distance():
    video = stamps(recording(0, 36) + recording(0, 24), positions=[2 * k for k in range(60)])
    audio = stamps(
        recording(10, 36) + recording(10, 24), keys=np.ones(60), positions=[2 * k + 1 for k in range(60)]
    )
    clocks = run_through({"video": video, "audio": audio}, 0.0)
    assert clocks["video"].pts.tolist() == EVEN
    assert clocks["audio"].pts.tolist() == [s + 10 for s in EVEN]
    assert clocks["audio"].restarts == clocks["video"].restarts == [36]


def test_audio_that_lasts_longer_than_the_video_does_not_move_it():
    video = stamps(recording(0, 36) + recording(0, 24), positions=[*range(36), *range(100, 124)])
    audio = stamps(
        recording(0, 40) + recording(0, 24), keys=np.ones(64), positions=[*range(40, 80), *range(130, 154)]
    )
    clocks = run_through({"video": video, "audio": audio}, 0.0)
    assert clocks["video"].pts.tolist() == EVEN
    assert clocks["audio"].pts[40:].tolist() == recording(36 * STEP, 24)


def test_a_stream_that_restarts_alone_does_not_move_the_other():
    video = stamps(EVEN)
    audio = stamps(recording(0, 36) + recording(0, 24), keys=np.ones(60))
    clocks = run_through({"video": video, "audio": audio}, 0.0)
    assert clocks["video"].pts.tolist() == EVEN
    assert clocks["audio"].pts.tolist() == EVEN
    assert clocks["video"].restarts == []


def test_a_frame_whose_time_no_decoding_order_explains_is_misplaced():
    pts = np.array(EVEN)
    pts[20] += 5000
    pts[30] -= 3000
    clock = run(stamps(EVEN, pts=pts))
    assert np.flatnonzero(clock.pts == NO_STAMP).tolist() == [20, 30]
    assert clock.dts.tolist() == EVEN


def test_a_frame_with_a_time_of_the_next_recording_does_not_stretch_its_own():
    dts = recording(0, 36) + recording(500_000, 24)
    pts = np.array(dts)
    pts[34] = 500_000
    clock = run(stamps(dts, pts=pts))
    assert clock.pts[34] == NO_STAMP
    assert clock.pts[36:].tolist() == EVEN[36:]


def test_missing_decoding_timestamps_are_extrapolated():
    dts = np.array(EVEN)
    dts[[0, 7, 8, 40]] = NO_STAMP
    clock = run(stamps(dts, pts=EVEN))
    assert clock.dts.tolist() == EVEN
    assert (clock.strays, clock.restarts) == (0, [])


def test_packets_that_are_not_shown_may_lie_anywhere():
    dts = np.array(EVEN)
    dts[20:30] -= 600
    clock = run(stamps(dts, unseen=range(20, 30)))
    assert (clock.strays, clock.restarts) == (0, [])


def test_a_jump_ahead_by_more_than_the_file_is_a_restart_and_a_shorter_one_a_gap():
    far, near = (run(stamps(recording(0, 36) + recording(start, 24)), 10.0) for start in (90_000, 60_000))
    assert (far.restarts, near.restarts) == ([36], [])
    assert far.pts.tolist() == EVEN
    assert near.pts[36] == 60_000


@pytest.mark.parametrize(("empty", "reported"), [(900, []), (1100, [1.1]), (30_000, [30.0])])
def test_gaps_above_a_second_are_reported(empty, reported):
    stream = stamps(recording(0, 36) + recording(36 * STEP + empty, 24))
    assert gaps(run(stream), stream) == pytest.approx(reported)


def in_two_edits(delay, seen):
    """Return two edits of 24 frames, read from 12 frames before; the first packet seen is ``delay`` early."""
    pts, dts, unseen = [], [], []
    for start in (0, 24 * STEP):
        unseen += [len(pts) + k for k in range(36) if k < 12 - seen]
        dts += recording(start - (12 - seen) * STEP, 36)
        pts += recording(start - (12 - seen - delay) * STEP, 36)
    return stamps(dts, pts=pts, unseen=unseen)


def test_each_edit_begins_where_the_edit_list_has_it():
    stream = in_two_edits(delay=0, seen=0)
    stream.pts[36:] += 5 * STEP  # as FFmpeg writes it, if the first packet seen is decoded five frames early
    stream.edits = [36]
    clock = run(stream)
    assert (clock.strays, clock.restarts) == (0, [])
    assert clock.pts[~stream.unseen].tolist() == recording(0, 48)
    assert (np.diff(clock.dts) >= 0).all()
    assert gaps(clock, stream) == []


def test_edits_that_overlap_in_decoding_order_are_no_restart():
    stream = in_two_edits(delay=6, seen=6)
    stream.edits = [36]
    clock = run(stream)
    assert (clock.strays, clock.restarts) == (0, [])
    assert clock.pts[36 + 6] - clock.pts[6] == 24 * STEP


def test_an_edit_without_a_frame_moves_nothing():
    stream = in_two_edits(delay=0, seen=0)
    stream.unseen[36:] = True
    stream.edits = [36]
    assert run(stream).pts[12:36].tolist() == recording(0, 24)


NO = NO_STAMP


@pytest.mark.parametrize(
    ("pts", "order", "filled"),
    [
        ([0, NO, 80, NO, 160], [0, 1, 2, 3, 4], [0, 40, 80, 120, 160]),
        ([NO, NO, 80], [0, 1, 2], [0, 40, 80]),
        ([0, 40, NO, NO], [0, 1, 2, 3], [0, 40, 80, 120]),
        ([NO, NO, NO], [0, 1, 2], [0, 40, 80]),
        ([0, 120, NO, 80], [0, 2, 3, 1], [0, 120, 40, 80]),  # B-frames in decoding order
        ([0, 40, 40, 120], [0, 1, 2, 3], [0, 40, 80, 120]),  # the third has the timestamp of the second
        ([0, NO, 80, 500], [0, 1, 2], [0, 40, 80, 500]),  # the decoder never returned the last
    ],
)
def test_frames_without_a_timestamp_get_one_between_those_shown_before_and_after(pts, order, filled):
    assert fill_in(np.array(pts), order, STEP).tolist() == filled


@pytest.mark.parametrize("broken", [np.full(5, NO_STAMP), np.array([10**12, -(10**12), 5, 10**14, 0])])
def test_a_recording_with_only_broken_timestamps_does_not_crash(broken):
    clock = run(stamps(broken))
    assert len(clock.pts) == len(clock.dts) == 5


@pytest.mark.parametrize("count", [2, 3])
def test_a_broken_timestamp_is_found_among_few(count):
    dts = np.array(recording(0, count))
    dts[-1] = 3_000_000_000
    stream = stamps(dts)
    clock = run(stream)
    assert (clock.strays, clock.restarts) == (1, [])
    assert clock.dts[-1] <= STEP * count
    assert stream.step == STEP
