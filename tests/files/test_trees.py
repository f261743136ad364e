"""Trees of splits and classes: finding the folders, and the error for a missing one."""

from __future__ import annotations

from pathlib import Path

import pytest

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.files.trees import TEST_SPLITS, class_folders, folder_names, split_folder


def make(root: Path, *folders: str) -> str:
    for folder in (".", *folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
    return str(root)


def test_the_first_split_that_exists_is_taken(tmp_path: Path) -> None:
    root = make(tmp_path, "test", "validation")
    assert split_folder(root, TEST_SPLITS, below="VIDEO") == str(tmp_path / "validation")


def test_the_error_for_a_missing_split_has_the_expected_path(tmp_path: Path) -> None:
    root = make(tmp_path / "k", "val", ".hidden")
    with pytest.raises(ConfigError) as caught:
        split_folder(root, ["train"], below="CLASS/VIDEO")
    assert str(caught.value) == (
        f"{root}: has no folder 'train'; the videos are looked for as {root}/train/CLASS/VIDEO"
    )
    with pytest.raises(ConfigError, match=r"/vla/VIDEO; for another split, did you mean 'val'\?") as caught:
        split_folder(root, ["vla"], below="VIDEO", others=True)
    assert ".hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_the_error_for_a_root_that_is_a_split_has_its_parent(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / name)
    with pytest.raises(ConfigError, match=f"looks like a split itself: name its parent, {tmp_path}$"):
        split_folder(root, ["eval"], below="VIDEO")


def test_folders_of_classes(tmp_path: Path) -> None:
    root = make(tmp_path, "tap_dancing", "tap dancing", "bowling", ".cache")
    (tmp_path / "stray.mp4").touch()
    assert folder_names(root) == ["bowling", "tap dancing", "tap_dancing"]
    assert class_folders(root) == {name: name for name in folder_names(root)}
    assert class_folders(root, ["tap dancing"], spaced=True) == {
        "tap dancing": "tap dancing",
        "tap_dancing": "tap dancing",
    }
    with pytest.raises(ConfigError, match="nowhere: cannot be read"):
        folder_names(str(tmp_path / "nowhere"))
