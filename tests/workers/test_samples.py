"""Samples are determined by their keys; a file that fails is replaced, and its error is recorded."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from crisscross_zoo.errors import MediaError, UnreadableMediaError
from crisscross_zoo.workers.samples import TRIES, SampleDataset, SampleKey, first_error


class Numbers(SampleDataset[float]):
    """A random number of each file; files below ``broken`` fail."""

    def __init__(self, broken: int, *, seed: int = 0, error: Exception | None = None) -> None:
        super().__init__(range(5), seed=seed, remedy="mend them")
        self.broken, self.error = broken, error or ValueError("odd\nbytes")

    def path(self, index: int) -> str:
        return f"{index}.mp4"

    def draw(self, index: int, random: np.random.Generator) -> float:
        if index < self.broken:
            raise self.error
        return float(random.random())


def test_a_sample_is_decided_by_seed_epoch_and_position() -> None:
    keys = [SampleKey(epoch, position, 3) for epoch in range(3) for position in range(3)]
    drawn = [[Numbers(0, seed=seed)[key] for key in keys] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert len({number for row in drawn[1:] for number, _, _ in row}) == 2 * len(keys)
    assert {(path, len(failures)) for number, path, failures in drawn[0]} == {("3.mp4", 0)}


def test_a_file_that_fails_is_replaced_by_the_same_other_each_time() -> None:
    dataset = Numbers(1)
    taken = []
    for position in range(20):
        (_, path, failures), again = dataset[SampleKey(0, position, 0)], dataset[SampleKey(0, position, 0)]
        assert again[1:] == (path, failures)
        assert failures[0] == {
            "path": "0.mp4", "error": "UnreadableMediaError", "reason": "reading it failed (ValueError: odd bytes)",
            "remedy": "check it in a player",
        }  # fmt: skip
        taken.append(path)
    assert {*Counter(taken)} == {"1.mp4", "2.mp4", "3.mp4", "4.mp4"}


def test_an_error_of_this_package_is_recorded_as_it_is() -> None:
    error = UnreadableMediaError("is empty", remedy="fetch it", path="0.mp4")
    (_, _, failures) = Numbers(1, error=error)[SampleKey(0, 0, 0)]
    assert failures[0]["reason"] == "is empty"
    assert failures[0]["remedy"] == "fetch it"


def test_a_skipped_file_is_not_read() -> None:
    dataset, noted = Numbers(0), list[int]()
    dataset.skipped, dataset.note = {2}, noted.append
    _, path, failures = dataset[SampleKey(0, 0, 2)]
    assert path != "2.mp4"
    assert 2 not in noted
    assert [f["error"] for f in failures] == ["DecoderCrashError"] * len(failures)
    assert failures[0]["reason"] == "is not read any more, see skipped.jsonl"


def test_file_after_file_that_fails_is_an_error_which_data_workers_pass_on() -> None:
    dataset = Numbers(5)
    with pytest.raises(
        MediaError, match=f"{TRIES} files in turn cannot be used: reading it failed"
    ) as caught:
        dataset[SampleKey(0, 0, 0)]
    assert caught.value.remedy == "mend them"
    good, error = first_error(pickle.loads(pickle.dumps(dataset.__getitems__([SampleKey(0, 0, 0)]))))
    assert good == []
    assert str(error) == str(caught.value)
