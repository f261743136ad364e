"""Numbers as text."""

from __future__ import annotations

import pytest

from crisscross_zoo.text import counted, duration, percent


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "file", "0 files"),
        (1, "file", "1 file"),
        (12_345, "file", "12,345 files"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
    ],
)
def test_nouns_agree_with_their_numbers(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1.0 min"),
        (90, "1.5 min"),
        (3590, "59.8 min"),
        (3599, "1.0 h"),
        (9000, "2.5 h"),
    ],
)
def test_durations_have_a_unit_that_shows_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ratios_are_percentages_with_their_standard_deviation() -> None:
    assert percent(0.5) == "50.0 %"
    assert percent(mean=0.1234, std=0.02) == "12.3 ± 2.0 %"
