"""The classes and file counts of released data sets, and what a copy lacks."""

from __future__ import annotations

import dataclasses

import pytest

from crisscross_zoo.evaluate.datasets import DATASETS, Fold, LabelledData, LabelledFile
from crisscross_zoo.evaluate.releases import Release, describe_missing, find_missing, release_of

KNOWN = [name for name in DATASETS if release_of(name) is not None]


def whole(name: str) -> LabelledData:
    """A data set with as many files as its release; the first classes have the files left over by an even split."""
    release = release_of(name)
    assert release is not None
    folds = {}
    for number, counts in release.files.items():
        sides = []
        for side, count in zip(("train", "test"), counts, strict=True):
            labels = [k % len(release.classes) for k in range(count)]
            sides.append(tuple(LabelledFile(f"{side}/{k}", label, "") for k, label in enumerate(labels)))
        folds[number] = Fold(*sides)
    return LabelledData(name, "/data", release.classes, folds or {1: Fold((), ())})


@pytest.mark.parametrize(
    ("name", "classes", "files"),
    [
        ("ucf101", 101, 13_320), ("hmdb51", 51, 5_100), ("esc50", 50, 2_000), ("dcase", 10, 200),
        ("kinetics400", 400, None),
    ],
)  # fmt: skip
def test_releases_have_the_sizes_that_their_authors_state(name: str, classes: int, files: int | None) -> None:
    release = release_of(name)
    assert isinstance(release, Release)
    assert len(set(release.classes)) == len(release.classes) == classes
    assert {sum(counts) for counts in release.files.values()} == ({files} if files else set())
    assert release.each is None or release.each * classes == files


def test_other_data_sets_have_no_release() -> None:
    assert KNOWN == ["ucf101", "hmdb51", "esc50", "dcase", "kinetics400"]
    data = dataclasses.replace(whole("esc50"), name="folder")
    assert find_missing(data, data.folds) == {}
    assert describe_missing("folder", {}) == []


@pytest.mark.parametrize("name", KNOWN)
def test_a_complete_data_set_lacks_nothing(name: str) -> None:
    data = whole(name)
    assert find_missing(data, data.folds) == {}


@pytest.mark.parametrize("name", KNOWN)
def test_a_missing_class_is_named(name: str) -> None:
    data = whole(name)
    fewer = dataclasses.replace(data, classes=(*data.classes[:-1], "my own"))
    missing = find_missing(fewer, fewer.folds)
    assert missing["classes"] == [data.classes[-1]]
    assert missing["other_classes"] == ["my own"]
    first, second = describe_missing(name, missing)
    assert first.endswith(f", without {data.classes[-1]}")
    assert second.startswith("1 class that ")
    assert second.endswith(" does not have: my own")


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "kinetics400"])
def test_a_missing_file_is_counted_in_the_evaluated_folds(name: str) -> None:
    data = whole(name)
    fold = data.folds[1]
    fewer = {**data.folds, 1: dataclasses.replace(fold, test=fold.test[1:])}
    missing = find_missing(data, fewer)
    train, test = len(fold.train), len(fold.test)
    assert missing["files"] == {"1": {"train": [train, train], "test": [test - 1, test]}}
    lines = describe_missing(name, missing)
    assert lines[0] == f"fold 1 has {train} of {train} training files and {test - 1} of {test} test files"
    release = release_of(name)
    assert release is not None
    if release.each is not None:
        assert lines[1] == f"files of a class: {data.classes[0]} {release.each - 1} of {release.each}"
    others = {number: f for number, f in data.folds.items() if number != 1}
    assert find_missing(data, others) == {}


@pytest.mark.parametrize("name", ["esc50", "hmdb51", "dcase"])
def test_files_are_counted_by_class_if_their_sum_is_right(name: str) -> None:
    data = whole(name)
    fold = data.folds[1]
    first = next(file for file in fold.train if file.label == 0)
    moved = tuple(dataclasses.replace(file, label=1) if file is first else file for file in fold.train)
    missing = find_missing(data, {**data.folds, 1: dataclasses.replace(fold, train=moved)})
    release = release_of(name)
    assert release is not None
    assert release.each is not None
    (one, other), each = data.classes[:2], release.each
    assert missing["files"] == {}
    assert missing["files_of_class"] == {one: [each - 1, each], other: [each + 1, each]}
    assert describe_missing(name, missing) == [
        f"files of a class: {one} {each - 1} of {each}, {other} {each + 1} of {each}"
    ]


def test_at_most_ten_names_are_shown() -> None:
    data = whole("esc50")
    missing = find_missing(dataclasses.replace(data, classes=data.classes[:10]), {})
    (line,) = describe_missing("esc50", missing)
    assert line.startswith("10 of the 50 classes of ESC-50, without airplane, ")
    assert line.endswith(" and 30 more")
    assert line.count(",") == 10
