"""Errors of other libraries become one line, with what to do; unknown errors are raised as they are."""

from __future__ import annotations

import pytest
import torch

from crisscross_zoo.errors import MediaNotFoundError, TrainingError, UnreadableMediaError
from crisscross_zoo.workers.errors import file_error, training_errors


def test_any_exception_of_a_file_is_that_files_error() -> None:
    own = MediaNotFoundError("no such file", path="a.mp4")
    assert file_error(own, "b.mp4") is own
    error = file_error(IndexError("list index\nout of range"), "a.mp4", doing="copying")
    assert type(error) is UnreadableMediaError
    assert (
        str(error) == "a.mp4: copying it failed (IndexError: list index out of range); check it in a player"
    )


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "CUDA out of memory.; use less"),
        (
            RuntimeError("DataLoader worker (pid 3)\n is killed"),
            "DataLoader worker (pid 3) is killed; run it again with fewer --workers; it resumes from there",
        ),
    ],
)
def test_torchs_errors_in_training_become_one_line(raised: Exception, line: str) -> None:
    with pytest.raises(TrainingError) as caught, training_errors(memory="use less"):
        raise raised
    assert str(caught.value) == line


def test_other_errors_are_raised_as_they_are() -> None:
    for raised in (RuntimeError("shapes differ"), KeyError("a")):
        with pytest.raises(type(raised)) as caught, training_errors(memory="use less"):
            raise raised
        assert caught.value is raised
