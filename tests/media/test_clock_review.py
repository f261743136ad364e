"""Clocks of streams with pauses and broken timestamps, of which ``ffmpeg`` cannot make files."""

import numpy as np

from crisscross_zoo.media.clock import StreamStamps, run_through
from crisscross_zoo.media.tracks import NO_STAMP

TICK, STEP = 1 / 90_000, 3600  # 25 fps
SECOND = 90_000


def stream(pts, dts, *, positions=None, durations=STEP):
    count = len(dts)
    return StreamStamps(
        tick=TICK,
        pts=np.asarray(pts, np.int64),
        dts=np.asarray(dts, np.int64),
        durations=np.full(count, durations, np.int64),
        positions=np.arange(count) if positions is None else np.asarray(positions, np.int64),
        unseen=np.zeros(count, np.bool_),
        keys=np.ones(count, np.bool_),
    )


def frames(count, first=0):
    """Return PTS and DTS of frames in a row, each shown two frames after its decoding."""
    dts = first + STEP * np.arange(count)
    return dts + 2 * STEP, dts


def test_the_timestamp_of_a_still_at_the_end_is_kept():
    pts, dts = frames(100)
    pts[-1] += 50 * SECOND
    clock = run_through({"video": stream(pts, dts)}, 0.0)["video"]
    assert clock.strays == 0
    assert clock.pts[-1] == pts[-1]


def test_a_still_at_the_end_that_lasts_as_long_as_the_audio_is_kept():
    pts, dts = frames(100)
    pts[-1] += 300 * SECOND
    positions = np.arange(0, 200, 2)
    alone = run_through({"video": stream(pts, dts)}, 0.0)["video"]
    times = np.arange(0, 310 * SECOND, 20 * STEP)
    audio = stream(times, times, positions=1 + 2 * np.arange(len(times)), durations=20 * STEP)
    clocks = run_through({"video": stream(pts, dts, positions=positions), "audio": audio}, 0.0)
    assert alone.strays == 1
    assert clocks["video"].strays == 0


def test_a_still_at_the_end_that_lasts_as_long_as_the_header_states_is_kept():
    pts, dts = frames(100)
    pts[-1] += 300 * SECOND
    assert run_through({"video": stream(pts, dts)}, 305.0)["video"].strays == 0
    assert run_through({"video": stream(pts, dts)}, 200.0)["video"].strays == 1


def test_the_timestamp_of_a_frame_far_after_those_that_follow_it_is_ignored():
    pts, dts = frames(100)
    pts[50] += 10 * SECOND
    assert run_through({"video": stream(pts, dts)}, 0.0)["video"].pts[50] == NO_STAMP


def test_a_broken_timestamp_does_not_move_the_recording_after_it():
    pts, dts = (np.concatenate([stamps, stamps]) for stamps in frames(100))
    intact = run_through({"video": stream(pts, dts)}, 0.0)["video"]
    broken = pts.copy()
    broken[50] += 1000 * SECOND
    clock = run_through({"video": stream(broken, dts)}, 0.0)["video"]
    assert clock.restarts == intact.restarts == [100]
    assert clock.strays == 1
    np.testing.assert_array_equal(np.delete(clock.pts, 50), np.delete(intact.pts, 50))


def test_a_pause_between_the_decoding_of_frames_is_no_restart():
    _, times = frames(101)
    times[50:] += 200 * SECOND
    order = np.arange(101)
    order[1:] = order[1:].reshape(-1, 2)[:, ::-1].ravel()  # 0, 2, 1, ..., 50, 49, ...
    pts, dts = times[order], np.append(times[0] - STEP, times[:-1])
    clock = run_through({"video": stream(pts, dts)}, 0.0)["video"]
    assert clock.restarts == []
    np.testing.assert_array_equal(clock.pts, pts)


def test_a_jump_ahead_of_all_frames_is_a_restart():
    first, second = frames(100), frames(100, 500 * SECOND)
    pts, dts = (np.concatenate([a, b]) for a, b in zip(first, second, strict=True))
    clock = run_through({"video": stream(pts, dts)}, 0.0)["video"]
    assert clock.restarts == [100]
    assert (np.diff(clock.pts) == STEP).all()
