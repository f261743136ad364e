"""Every combination of :mod:`numbered`: pictures and sound where Debian's ``ffmpeg`` has them."""

import os
import shutil

import combinations  # noqa: F401  registers them
import pytest
from against_ffmpeg import MAX_SHIFT_SECONDS, MAX_SOUND_ENDS_SECONDS, compare, expected
from numbered import COMBINATIONS, FPS, FfmpegError, Shelf


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    if shutil.which("ffmpeg") is None and not os.environ.get("CI"):
        pytest.skip("no ffmpeg command")
    return Shelf(tmp_path_factory.mktemp("shelf"))


def test_there_are_enough_combinations():
    assert len(COMBINATIONS) >= 80


@pytest.mark.parametrize("name", COMBINATIONS)
def test_pictures_and_sound_are_where_ffmpeg_has_them(name, shelf, tmp_path):
    combination = COMBINATIONS[name]
    path = tmp_path / f"{name}.{combination.suffix}"
    try:
        combination.make(shelf, path)
    except FfmpegError as error:
        if "Unknown encoder" in str(error) and not os.environ.get("CI"):
            pytest.skip(str(error))
        raise
    found = compare(combination, path, expected(combination, path, shelf))
    assert not found.wrong, f"{len(found.wrong)} of {found.compared} pictures: {found.wrong[:5]}"
    assert abs(found.ends) < 1.5 / FPS
    assert found.shift is None or abs(found.shift) <= MAX_SHIFT_SECONDS, found.sound_text
    assert max(map(abs, found.sound_ends)) <= MAX_SOUND_ENDS_SECONDS
    if combination.said == "nothing":
        assert found.damage == ()
    if combination.said == "damage":
        assert found.damage
