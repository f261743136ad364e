"""Frames and audio at the times at which Debian's ``ffmpeg`` has them, in every combination of :mod:`combinations`."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import av
import combinations  # noqa: F401  registers them
import needs
import numpy as np
import pytest
from against_ffmpeg import DIFFERS, Answer, compare, complaints, expected, instants, shift_of_audio
from numbered import COMBINATIONS, SAMPLE_RATE, FfmpegError, Shelf, noise

pytestmark = pytest.mark.integration

# Files made, and decoded by ffmpeg, while earlier ones are compared; other test workers use the other cores.
AHEAD = 1 if "PYTEST_XDIST_WORKER" in os.environ else 4


class Prepared:
    """Each combination's file and the right answer, prepared ahead by two threads, since ``ffmpeg`` takes longest."""

    def __init__(self, names, folder):
        self._names, self._folder = names, folder
        self._shelf = Shelf(folder)
        self._pool = ThreadPoolExecutor(2)
        self._futures = {}

    def __call__(self, name):
        at = self._names.index(name)
        for later in self._names[at : at + AHEAD]:
            if later not in self._futures:
                self._futures[later] = self._pool.submit(self._prepare, COMBINATIONS[later])
        path, answer = self._futures[name].result()
        self._futures[name] = None
        return path, answer

    def _prepare(self, combination):
        path = self._folder / f"{combination.name}.{combination.suffix}"
        combination.make(self._shelf, path)
        return path, expected(combination, path, self._shelf)

    def close(self):
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def prepared(request, tmp_path_factory):
    if shutil.which("ffmpeg") is None:
        needs.absent("the command ffmpeg")
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = [c.params["combination"] for c in calls if c is not None and "combination" in c.params]
    prepared = Prepared(names, tmp_path_factory.mktemp("combinations"))
    yield prepared
    prepared.close()


def test_there_are_enough_combinations():
    assert len(COMBINATIONS) >= 80


def test_each_intended_difference_is_of_a_combination():
    assert set(DIFFERS) <= set(COMBINATIONS)


LACKING = {"ts-hevc-from-inside": (62,)}  # the oldest libavcodec that passes


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_frames_and_audio_are_at_the_times_of_ffmpeg(combination, prepared):
    if combination in LACKING and av.library_versions["libavcodec"] < LACKING[combination]:
        pytest.xfail("an older FFmpeg shows frames whose references are missing")
    try:
        path, answer = prepared(combination)
    except FfmpegError as error:
        if "Unknown encoder" in str(error):
            needs.absent(f"an encoder of ffmpeg: {error}")
        raise
    found = compare(COMBINATIONS[combination], path, answer)
    assert complaints(COMBINATIONS[combination], found) == []


@pytest.mark.parametrize("late", [-0.1, 0.0, 0.005])
def test_a_shift_of_audio_is_measured(late):
    audio = noise(SAMPLE_RATE).astype(np.float32)
    answer = Answer([], None, SAMPLE_RATE, 0, audio)
    assert shift_of_audio(answer, round(late * SAMPLE_RATE), audio)[0] == pytest.approx(late, abs=1e-4)


def test_lost_and_extra_audio_is_detected():
    audio = noise(SAMPLE_RATE).astype(np.float32)
    hole = audio.copy()
    hole[12_000:36_000] = 0
    whole, holed = (Answer([], None, SAMPLE_RATE, 0, s) for s in (audio, hole))
    assert "lost" in shift_of_audio(whole, 0, hole)[1]
    assert "extra" in shift_of_audio(holed, 0, audio)[1]


def test_instants_avoid_rounded_times_and_use_the_last_of_frames_with_one_time():
    answer = Answer([(0.0, 0), (0.04, 1), (0.04, 2), (0.08, 3)], 0.12, 0, 0, np.zeros(0))
    compared = instants(answer, 0.001)
    assert [n for _, n in compared] == [0, 0, 2, 2, 2, 3]
    assert all(min(abs(t - edge) for edge in (0.0, 0.04, 0.08)) > 0.001 for t, _ in compared)
