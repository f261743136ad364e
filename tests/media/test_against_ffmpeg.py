"""Pictures and sound where Debian's ``ffmpeg`` has them, in every combination of :mod:`combinations`."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import av
import combinations  # noqa: F401  registers them
import needs
import numpy as np
import pytest
from against_ffmpeg import DIFFERS, Answer, compare, complaints, expected, instants, shift_of_sound
from numbered import COMBINATIONS, SAMPLE_RATE, FfmpegError, Shelf, noise

# Files made, and put before ffmpeg, while the ones before are compared; other workers have the other cores.
AHEAD = 1 if "PYTEST_XDIST_WORKER" in os.environ else 4


class Prepared:
    """Each combination's file and the right answer, made a few ahead by two threads, as ``ffmpeg`` takes longest."""

    def __init__(self, names, folder):
        self._names, self._folder = names, folder
        self._shelf = Shelf(folder)
        self._pool = ThreadPoolExecutor(2)
        self._coming = {}

    def __call__(self, name):
        at = self._names.index(name)
        for later in self._names[at : at + AHEAD]:
            if later not in self._coming:
                self._coming[later] = self._pool.submit(self._prepare, COMBINATIONS[later])
        path, answer = self._coming[name].result()
        self._coming[name] = None
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


def test_what_differs_on_purpose_is_a_combination():
    assert set(DIFFERS) <= set(COMBINATIONS)


LACKING = {"ts-hevc-from-inside": (62,)}  # the libavcodec that it takes


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_pictures_and_sound_are_where_ffmpeg_has_them(combination, prepared):
    if combination in LACKING and av.library_versions["libavcodec"] < LACKING[combination]:
        pytest.xfail("an older FFmpeg shows frames whose references are missing")
    try:
        path, answer = prepared(combination)
    except FfmpegError as error:
        if "Unknown encoder" in str(error):
            needs.absent(f"an encoder of ffmpeg's: {error}")
        raise
    found = compare(COMBINATIONS[combination], path, answer)
    assert complaints(COMBINATIONS[combination], found) == []


@pytest.mark.parametrize("late", [-0.1, 0.0, 0.005])
def test_a_shift_of_sound_is_measured(late):
    sound = noise(SAMPLE_RATE).astype(np.float32)
    answer = Answer([], None, SAMPLE_RATE, 0, sound)
    assert shift_of_sound(answer, round(late * SAMPLE_RATE), sound)[0] == pytest.approx(late, abs=1e-4)


def test_sound_that_is_lost_or_made_up_is_seen():
    sound = noise(SAMPLE_RATE).astype(np.float32)
    hole = sound.copy()
    hole[12_000:36_000] = 0
    whole, holed = (Answer([], None, SAMPLE_RATE, 0, s) for s in (sound, hole))
    assert "lost" in shift_of_sound(whole, 0, hole)[1]
    assert "made up" in shift_of_sound(holed, 0, sound)[1]


def test_instants_keep_off_what_may_be_rounded_and_ask_of_frames_of_one_time_for_the_last():
    answer = Answer([(0.0, 0), (0.04, 1), (0.04, 2), (0.08, 3)], 0.12, 0, 0, np.zeros(0))
    asked = instants(answer, 0.001)
    assert [n for _, n in asked] == [0, 0, 2, 2, 2, 3]
    assert all(min(abs(t - edge) for edge in (0.0, 0.04, 0.08)) > 0.001 for t, _ in asked)
