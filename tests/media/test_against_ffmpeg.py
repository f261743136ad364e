"""Pictures and sound where Debian's ``ffmpeg`` has them, in every combination of :mod:`combinations`."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import combinations  # noqa: F401  registers them
import needs
import pytest
from against_ffmpeg import DIFFERS, compare, complaints, expected
from numbered import COMBINATIONS, FfmpegError, Shelf

# Files made, and put before ffmpeg, while the ones before are compared; another worker has the next.
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


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_pictures_and_sound_are_where_ffmpeg_has_them(combination, prepared):
    try:
        path, answer = prepared(combination)
    except FfmpegError as error:
        if "Unknown encoder" in str(error):
            needs.absent(f"an encoder of ffmpeg's: {error}")
        raise
    found = compare(COMBINATIONS[combination], path, answer)
    assert complaints(COMBINATIONS[combination], found) == []
