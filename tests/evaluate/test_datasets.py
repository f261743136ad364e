"""Data sets on disk: the training and test files of every layout by value, and the errors for wrong trees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from make_trees import CLASS_NAMES, make_tree

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.evaluate import datasets
from crisscross_zoo.evaluate.datasets import (
    DATASETS,
    Fold,
    LabelledData,
    LabelledFile,
    check_no_leak,
    read_dataset,
    shared_content,
)
from crisscross_zoo.files.trees import KINETICS_SOUND_CLASSES

ROOT = Path(__file__).resolve().parents[2]


def fail(line: str) -> None:
    pytest.fail(f"reported as missing: {line}")


def read(name: str, root: Path, **options: object) -> LabelledData:
    """Read a data set without missing files."""
    return read_dataset(name, root, missing=fail, **options)  # type: ignore[arg-type]


def names(samples: Iterable[LabelledFile]) -> list[str]:
    return [Path(s.path).name for s in samples]


def below(root: Path, samples: Iterable[LabelledFile]) -> list[tuple[str, int, str]]:
    return [(Path(s.path).relative_to(root).as_posix(), s.label, s.group) for s in samples]


def line_of(error: pytest.ExceptionInfo[ConfigError], root: Path) -> str:
    line = str(error.value)
    assert "\n" not in line
    return line.replace(str(root), "ROOT")


# --- right trees -------------------------------------------------------------------------------------------------


def test_ucf101(tmp_path: Path) -> None:
    root = make_tree("ucf101", tmp_path / "ucf", files_per_class=4)
    data = read("ucf101", root)
    assert (data.name, data.root, data.classes) == ("ucf101", str(root), ("ApplyEyeMakeup", "Archery"))
    assert list(data.folds) == [1, 2, 3]
    assert below(root, data.folds[1].train) == [
        ("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c01.avi", 0, "ApplyEyeMakeup_g02"),
        ("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi", 0, "ApplyEyeMakeup_g03"),
        ("UCF-101/Archery/v_Archery_g02_c01.avi", 1, "Archery_g02"),
        ("UCF-101/Archery/v_Archery_g03_c01.avi", 1, "Archery_g03"),
    ]
    assert below(root, data.folds[1].test) == [
        ("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 0, "ApplyEyeMakeup_g01"),
        ("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi", 0, "ApplyEyeMakeup_g01"),
        ("UCF-101/Archery/v_Archery_g01_c01.avi", 1, "Archery_g01"),
        ("UCF-101/Archery/v_Archery_g01_c02.avi", 1, "Archery_g01"),
    ]
    assert {s.group for s in data.folds[3].test} == {"ApplyEyeMakeup_g03", "Archery_g03"}


def test_labels_of_ucf101_follow_the_list_of_classes_not_its_numbers(tmp_path: Path) -> None:
    root = make_tree("ucf101", tmp_path)
    (root / "ucfTrainTestlist" / "classInd.txt").write_bytes(
        b"\xef\xbb\xbf7 Archery\r\n\r\n3 ApplyEyeMakeup\r\n"
    )
    data = read("ucf101", root)
    assert data.classes == ("Archery", "ApplyEyeMakeup")
    assert [s.label for s in data.folds[1].test] == [1, 0]  # still sorted by path


def test_hmdb51(tmp_path: Path) -> None:
    root = make_tree("hmdb51", tmp_path / "hmdb", classes=4, files_per_class=4)
    data = read("hmdb51", root)
    assert data.classes == ("brush_hair", "cartwheel", "kick", "kick_ball")
    assert list(data.folds) == [1, 2, 3]
    assert below(root, data.folds[2].test) == [
        ("HMDB-51/brush_hair/Movie_2_brush_hair_f_cm_np1_fr_med_0.avi", 0, "Movie_2"),
        ("HMDB-51/cartwheel/Movie_2_cartwheel_f_cm_np1_fr_med_0.avi", 1, "Movie_2"),
        ("HMDB-51/kick/Movie_2_kick_f_cm_np1_fr_med_0.avi", 2, "Movie_2"),
        ("HMDB-51/kick_ball/Movie_2_kick_ball_f_cm_np1_fr_med_0.avi", 3, "Movie_2"),
    ]
    assert names(data.folds[2].train)[:3] == [
        "Movie_1_brush_hair_f_cm_np1_fr_med_0.avi",
        "Movie_1_brush_hair_f_cm_np1_fr_med_1.avi",
        "Movie_3_brush_hair_f_cm_np1_fr_med_0.avi",
    ]
    assert len(data.folds[2].train) == 12


@pytest.mark.parametrize(
    ("clip", "group"),
    [
        ("#20_Rhythm_kick_f_nm_np1_ri_goo_0.avi", "#20_Rhythm"),
        (
            "Kung Fu (1971)! kick_[x]  & 'y'_kick_kick_f_cm_np1_ba_med_3.avi",
            "Kung Fu (1971)! kick_[x]  & 'y'_kick",
        ),
        ("caf\udce9_kick_u_nm_np1_fr_bad_1.avi", "caf\udce9"),
        ("no tail 2.avi", "no tail 2"),
    ],
)
def test_names_of_hmdb51_may_have_blanks_and_any_characters(tmp_path: Path, clip: str, group: str) -> None:
    root = make_tree("hmdb51", tmp_path, classes=3)
    (root / "HMDB-51" / "kick" / clip).touch()
    with (root / "testTrainMulti_7030_splits" / "kick_test_split1.txt").open("ab") as file:
        file.write(os.fsencode(clip) + b" 2\r\n")
    data = read("hmdb51", root)
    assert LabelledFile(f"{root}/HMDB-51/kick/{clip}", 2, group) in data.folds[1].test


def test_esc50(tmp_path: Path) -> None:
    root = make_tree("esc50", tmp_path / "esc", classes=3, files_per_class=6)
    data = read("esc50", root)
    assert data.classes == ("dog", "rooster", "pig")  # by target, not sorted
    assert list(data.folds) == [1, 2, 3, 4, 5]
    assert below(root, data.folds[1].test) == [
        ("audio/1-1000-A-0.wav", 0, "fold1"),
        ("audio/1-1000-A-1.wav", 1, "fold1"),
        ("audio/1-1000-A-2.wav", 2, "fold1"),
        ("audio/1-1005-A-0.wav", 0, "fold1"),
        ("audio/1-1005-A-1.wav", 1, "fold1"),
        ("audio/1-1005-A-2.wav", 2, "fold1"),
    ]
    assert Counter(s.group for s in data.folds[1].train) == {f"fold{k}": 3 for k in (2, 3, 4, 5)}
    everything = {*data.folds[1].train, *data.folds[1].test}
    for fold in data.folds.values():
        assert {*fold.train, *fold.test} == everything
        assert not {*fold.train} & {*fold.test}


def test_dcase(tmp_path: Path) -> None:
    root = make_tree("dcase", tmp_path / "dcase", files_per_class=2)
    data = read("dcase", root)
    assert data.classes == ("bus", "busystreet")
    assert list(data.folds) == [1]
    train, test = (f"set1/{name}/{name}" for name in ("scenes_stereo", "scenes_stereo_testset"))
    for side, folder in ((data.folds[1].train, train), (data.folds[1].test, test)):
        assert below(root, side) == [
            (f"{folder}/{name}", label, f"{root}/{folder}/{name}")
            for name, label in (
                ("bus01.wav", 0),
                ("bus02.wav", 0),
                ("busystreet01.wav", 1),
                ("busystreet02.wav", 1),
            )
        ]


def test_kinetics400(tmp_path: Path) -> None:
    root = make_tree("kinetics400", tmp_path / "k", classes=3, files_per_class=1)
    (root / "val" / "stray.mp4").touch()
    (root / "val" / "archery" / "notes.txt").touch()
    (root / "val" / "archery" / "._val000.mp4").touch()
    data = read("kinetics400", root)
    assert data.classes == ("air drumming", "archery", "tap dancing")
    assert below(root, data.folds[1].train) == [
        ("train/air_drumming/train000.mp4", 0, f"{root}/train/air_drumming/train000.mp4"),
        ("train/archery/train000.mp4", 1, f"{root}/train/archery/train000.mp4"),
        ("train/tap_dancing/train000.mp4", 2, f"{root}/train/tap_dancing/train000.mp4"),
    ]
    assert [(n, s.label) for n, s in zip(names(data.folds[1].test), data.folds[1].test, strict=True)] == [
        ("val000.mp4", k) for k in range(3)
    ]


def test_a_class_of_kinetics_may_be_written_in_two_ways(tmp_path: Path) -> None:
    root = make_tree("kinetics400", tmp_path, classes=3, files_per_class=1)
    shutil.copytree(root / "train" / "tap_dancing", root / "train" / "tap dancing")
    data = read("kinetics400", root)
    assert [s.label for s in data.folds[1].train] == [0, 1, 2, 2]


@pytest.mark.parametrize("split", ["val", "validate", "validation", "test"])
def test_kinetics_is_tested_on_the_first_split_that_is_there(tmp_path: Path, split: str) -> None:
    there = ("val", "validate", "validation", "test")
    root = make_tree("kinetics400", tmp_path, splits=("train", *there[there.index(split) :]))
    data = read("kinetics400", root)
    assert {Path(s.path).parts[-3] for s in data.folds[1].test} == {split}


def test_kinetics_sound_is_32_classes_of_kinetics(tmp_path: Path) -> None:
    root = make_tree("kinetics-sound", tmp_path, files_per_class=1)
    (root / "train" / "zumba" / "x.mp4").touch()
    data = read("kinetics-sound", root)
    assert data.classes == KINETICS_SOUND_CLASSES
    for side in (data.folds[1].train, data.folds[1].test):
        assert {Path(s.path).parent.name.replace("_", " "): s.label for s in side} == {
            name: k for k, name in enumerate(KINETICS_SOUND_CLASSES)
        }


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    root = make_tree("folder", tmp_path, files_per_class=1)
    (root / "train" / "b" / "deep" / "er").mkdir(parents=True)
    (root / "train" / "b" / "deep" / "er" / "x.WAV").touch()
    data = read("folder", root)
    assert data.classes == ("a", "b")
    assert below(root, data.folds[1].train) == [
        ("train/a/0.mp4", 0, f"{root}/train/a/0.mp4"),
        ("train/b/0.mp4", 1, f"{root}/train/b/0.mp4"),
        ("train/b/deep/er/x.WAV", 1, f"{root}/train/b/deep/er/x.WAV"),
    ]
    assert [s.label for s in data.folds[1].test] == [0, 1]


def test_a_folder_of_classes_is_split_into_folds(tmp_path: Path) -> None:
    root = make_tree("folder", tmp_path, files_per_class=7, classes=3, splits=())
    data = read("folder", root)
    assert list(data.folds) == [1, 2, 3, 4, 5]
    for fold in data.folds.values():
        assert not {*fold.train} & {*fold.test}
        assert len(fold.train) + len(fold.test) == 21
        per_class = Counter(s.label for s in fold.test)
        assert set(per_class) == {0, 1, 2}
        assert set(per_class.values()) <= {1, 2}
    assert Counter(s.path for f in data.folds.values() for s in f.test) == Counter(
        str(root / c / f"{k}.mp4") for c in "abc" for k in range(7)
    )


def test_these_folds_depend_only_on_seed_and_names(tmp_path: Path) -> None:
    root = make_tree("folder", tmp_path / "one", files_per_class=5, splits=())
    other = make_tree("folder", tmp_path / "elsewhere", files_per_class=5, splits=())

    def split(root: Path, seed: int) -> list[list[str]]:
        folds = read("folder", root, seed=seed).folds
        return [[Path(s.path).relative_to(root).as_posix() for s in fold.test] for fold in folds.values()]

    # The order of `printf 0/a/0.mp4 | sha256sum` and so on: 2 1 4 0 3 for a, and 2 4 0 1 3 for b.
    expected = [[f"a/{i}.mp4", f"b/{k}.mp4"] for i, k in ((2, 2), (1, 4), (4, 0), (0, 1), (3, 3))]
    assert split(root, 0) == expected
    assert split(other, 0) == expected
    assert split(root, 1) != expected


@pytest.mark.parametrize(("files", "folds"), [(2, 2), (4, 4), (5, 5), (9, 5)])
def test_the_smallest_class_limits_the_number_of_folds(tmp_path: Path, files: int, folds: int) -> None:
    root = make_tree("folder", tmp_path, files_per_class=9, splits=())
    for k in range(files, 9):
        (root / "b" / f"{k}.mp4").unlink()
    assert len(read("folder", root).folds) == folds


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = make_tree("folder", tmp_path, classes=1, splits=())
    for name in ("train", "test"):
        shutil.copytree(root / "a", root / name)
    assert read("folder", root).classes == ("a", "test", "train")


def test_a_tree_can_have_any_media(tmp_path: Path) -> None:
    made: dict[str, int] = {}

    def make(path: Path, label: int) -> None:
        path.touch()
        made[str(path)] = label

    for name in DATASETS:
        root = make_tree(name, tmp_path / name, make_file=make)
        data = read(name, root)
        assert data.classes == CLASS_NAMES[name][: len(data.classes)]
        samples = {s for fold in data.folds.values() for s in (*fold.train, *fold.test)}
        assert {s.path: s.label for s in samples} == {
            p: k for p, k in made.items() if p.startswith(f"{root}/")
        }


def test_a_data_set_prints_its_size(tmp_path: Path) -> None:
    data = read("folder", make_tree("folder", tmp_path, files_per_class=1))
    assert repr(data) == f"LabelledData('folder', '{tmp_path}', 2 classes, {{1: Fold(2 train, 2 test)}})"


# --- other names of the same folders -----------------------------------------------------------------------------

RENAMED = [
    (
        "ucf101",
        {"UCF-101": "UCF101", "ucfTrainTestlist": "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist"},
    ),
    ("ucf101", {"UCF-101": "."}),
    ("ucf101", {"UCF-101": "videos", "ucfTrainTestlist": "."}),
    (
        "hmdb51",
        {
            "HMDB-51": "hmdb51_org",
            "testTrainMulti_7030_splits": "test_train_splits/testTrainMulti_7030_splits",
        },
    ),
    ("hmdb51", {"HMDB-51": "HMDB51", "testTrainMulti_7030_splits": "test_train_splits"}),
    ("hmdb51", {"HMDB-51": "videos"}),
    ("hmdb51", {"HMDB-51": "."}),
    ("esc50", {"audio": "ESC-50-master/audio", "meta": "ESC-50-master/meta"}),
    ("dcase", {"set1/scenes_stereo/scenes_stereo": "set1/scenes_stereo"}),
    ("dcase", {"set1/scenes_stereo": "scenes_stereo", "set1/scenes_stereo_testset": "scenes_stereo_testset"}),
    (
        "dcase",
        {
            "set1/scenes_stereo/scenes_stereo": "scenes_stereo",
            "set1/scenes_stereo_testset/scenes_stereo_testset": "scenes_stereo_testset",
        },
    ),
]


@pytest.mark.parametrize(("name", "moves"), RENAMED)
def test_the_folders_may_have_other_names(tmp_path: Path, name: str, moves: dict[str, str]) -> None:
    data = read(name, make_tree(name, tmp_path / "as released"))
    root = make_tree(name, tmp_path / "renamed")
    for old, new in moves.items():
        (root / old).rename(root / "moving")
        (root / new).mkdir(parents=True, exist_ok=True)
        for entry in (root / "moving").iterdir():
            entry.rename(root / new / entry.name)
        (root / "moving").rmdir()
    other = read(name, root)
    assert other.classes == data.classes
    assert list(other.folds) == list(data.folds)
    for number, fold in data.folds.items():
        assert names(other.folds[number].train) == names(fold.train)
        assert names(other.folds[number].test) == names(fold.test)


@pytest.mark.parametrize(
    ("name", "lists"),
    [("ucf101", "ucfTrainTestlist"), ("hmdb51", "testTrainMulti_7030_splits"), ("esc50", "meta")],
)
def test_the_lists_may_lie_elsewhere(tmp_path: Path, name: str, lists: str) -> None:
    root = make_tree(name, tmp_path / "root")
    data = read(name, root)
    (tmp_path / "elsewhere").mkdir()
    (root / lists).rename(tmp_path / "elsewhere" / lists)
    assert read(name, root, split_root=tmp_path / "elsewhere") == data
    assert read(name, root, split_root=tmp_path / "elsewhere" / lists) == data


def test_folds_are_those_whose_lists_exist(tmp_path: Path) -> None:
    ucf, hmdb = make_tree("ucf101", tmp_path / "u"), make_tree("hmdb51", tmp_path / "h")
    for path in (*ucf.rglob("*list01.txt"), *hmdb.rglob("*_split2.txt")):
        path.unlink()
    assert list(read("ucf101", ucf).folds) == [2, 3]
    assert list(read("hmdb51", hmdb).folds) == [1, 3]


def test_a_relative_root_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree("esc50", tmp_path / "esc")
    monkeypatch.chdir(tmp_path / "esc")
    data = read("esc50", Path())
    assert data == read("esc50", tmp_path / "esc")
    assert read_dataset("esc50", ".") == data


def test_a_file_listed_twice_counts_once(tmp_path: Path) -> None:
    root = make_tree("ucf101", tmp_path)
    data = read("ucf101", root)
    path = root / "ucfTrainTestlist" / "testlist01.txt"
    path.write_text(path.read_text() * 2)
    assert read("ucf101", root) == data


def test_each_folder_is_listed_once_and_no_file_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree("hmdb51", tmp_path, files_per_class=6)
    scandir = os.scandir
    listed: Counter[str] = Counter()

    def counting(folder: str) -> object:
        listed[str(folder)] += 1
        return scandir(folder)

    def stat(*_: object, **__: object) -> None:
        raise AssertionError("stat")

    monkeypatch.setattr(datasets.os, "scandir", counting)
    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(datasets.os.path, "exists", stat)
    assert len(read("hmdb51", root).folds) == 3
    assert set(listed.values()) == {1}


# --- missing files -----------------------------------------------------------------------------------------------

MISSING = [
    (
        "ucf101",
        "UCF-101/Archery/v_Archery_g01_c01.avi",
        [
            "1 of 4 files of testlist01.txt not found, such as ROOT/UCF-101/Archery/v_Archery_g01_c01.avi",
            "1 of 8 files of trainlist02.txt not found, such as ROOT/UCF-101/Archery/v_Archery_g01_c01.avi",
            "1 of 8 files of trainlist03.txt not found, such as ROOT/UCF-101/Archery/v_Archery_g01_c01.avi",
        ],
    ),
    (
        "hmdb51",
        "HMDB-51/cartwheel/Movie_3_cartwheel_f_cm_np1_fr_med_1.avi",
        [
            f"1 of {n} files of *_test_split{k}.txt ({what}) not found, such as "
            "ROOT/HMDB-51/cartwheel/Movie_3_cartwheel_f_cm_np1_fr_med_1.avi"
            for n, k, what in ((8, 1, "training"), (8, 2, "training"), (4, 3, "test"))
        ],
    ),
    (
        "esc50",
        "audio/1-1005-A-1.wav",
        ["1 of 12 files of esc50.csv not found, such as ROOT/audio/1-1005-A-1.wav"],
    ),
]


@pytest.mark.parametrize(("name", "file", "lines"), MISSING)
def test_listed_files_that_are_missing_are_skipped_and_reported(
    tmp_path: Path, name: str, file: str, lines: list[str]
) -> None:
    root = make_tree(name, tmp_path, files_per_class=6)
    data = read(name, root)
    (root / file).unlink()
    messages: list[str] = []
    less = read_dataset(name, root, missing=messages.append)
    assert [line.replace(str(root), "ROOT") for line in messages] == lines
    for number, fold in data.folds.items():
        for before, after in ((fold.train, less.folds[number].train), (fold.test, less.folds[number].test)):
            assert list(after) == [s for s in before if s.path != str(root / file)]


def test_without_a_callback_missing_files_are_a_warning(tmp_path: Path) -> None:
    root = make_tree("esc50", tmp_path, files_per_class=6)
    (root / "audio" / "1-1005-A-1.wav").unlink()
    with pytest.warns(
        UserWarning, match=r"^1 of 12 files of esc50\.csv not found, such as .*1-1005-A-1\.wav$"
    ):
        read_dataset("esc50", root)


# --- wrong trees -------------------------------------------------------------------------------------------------

Break = Callable[[Path], object]


def remove(*names: str) -> Break:
    def run(root: Path) -> None:
        for name in names:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return run


def empty(*names: str) -> Break:
    def run(root: Path) -> None:
        for name in names:
            for path in (root / name).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return run


def write(name: str, text: str) -> Break:
    return lambda root: (root / name).write_text(text)


def append(name: str, text: str) -> Break:
    return lambda root: (root / name).write_text((root / name).read_text() + text)


def both(*breaks: Break) -> Break:
    return lambda root: [run(root) for run in breaks]


UCF, HMDB, ESC = "ROOT/ucfTrainTestlist", "ROOT/testTrainMulti_7030_splits", "ROOT/meta/esc50.csv"
HEAD = "filename,fold,target,category\n"
BOTH = "each class needs training and test files; complete the data set"
RELEASE = "check that the lists and the files are from one release, and unpacked"
READABLE = "check that it is there, and its access rights"

WRONG: list[tuple[str, Break, str]] = [
    (
        "ucf101",
        remove("ucfTrainTestlist"),
        (
            "ROOT: has no ucfTrainTestlist/trainlist01.txt; "
            "unpack UCF101TrainTestSplits-RecognitionTask.zip there, or give --split-root"
        ),
    ),
    (
        "ucf101",
        remove("ucfTrainTestlist/classInd.txt"),
        f"{UCF}/classInd.txt: cannot be read (No such file or directory); {READABLE}",
    ),
    (
        "ucf101",
        remove("ucfTrainTestlist/testlist02.txt"),
        f"{UCF}/testlist02.txt: cannot be read (No such file or directory); {READABLE}",
    ),
    ("ucf101", remove("UCF-101"), "ROOT: has no UCF-101/ApplyEyeMakeup; unpack UCF101.rar there"),
    (
        "ucf101",
        remove("UCF-101/Archery"),
        f"ROOT: fold 1 has no training file of 1 of 2 classes: Archery; {BOTH}",
    ),
    (
        "ucf101",
        remove("UCF-101/Archery/v_Archery_g01_c01.avi"),
        f"ROOT: fold 1 has no test file of 1 of 2 classes: Archery; {BOTH}",
    ),
    (
        "ucf101",
        empty("UCF-101/Archery", "UCF-101/ApplyEyeMakeup"),
        (
            "ROOT: none of the 4 files of trainlist01.txt exists, such as "
            f"ROOT/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c01.avi; {RELEASE}"
        ),
    ),
    (
        "ucf101",
        append("ucfTrainTestlist/trainlist01.txt", "\nv_Archery_g09_c01.avi 2\n"),
        f"{UCF}/trainlist01.txt: line 6, 'v_Archery_g09_c01.avi 2', is not CLASS/VIDEO.avi; correct the line",
    ),
    (
        "ucf101",
        append("ucfTrainTestlist/testlist03.txt", "Achery/v_Archery_g09_c01.avi\n"),
        f"{UCF}/testlist03.txt: line 3: classInd.txt has no class 'Achery'; take both files from one release",
    ),
    (
        "ucf101",
        write("ucfTrainTestlist/classInd.txt", "1 Archery\nApplyEyeMakeup\n"),
        f"{UCF}/classInd.txt: line 2, 'ApplyEyeMakeup', is not NUMBER CLASS; correct the line",
    ),
    (
        "ucf101",
        write("ucfTrainTestlist/classInd.txt", "1 Archery\n2 Archery\n"),
        f"{UCF}/classInd.txt: line 2: 'Archery' is listed twice; remove one",
    ),
    (
        "ucf101",
        write("ucfTrainTestlist/testlist01.txt", "\n"),
        f"{UCF}/testlist01.txt: is empty; its lines are CLASS/VIDEO.avi",
    ),
    (
        "ucf101",
        append("ucfTrainTestlist/classInd.txt", "3 YoYo\n"),
        f"ROOT: fold 1 has no training file of 1 of 3 classes: YoYo; {BOTH}",
    ),
    (
        "hmdb51",
        remove("testTrainMulti_7030_splits"),
        (
            "ROOT: has no testTrainMulti_7030_splits/CLASS_test_split1.txt; "
            "unpack test_train_splits.rar there, or give --split-root"
        ),
    ),
    (
        "hmdb51",
        remove("HMDB-51"),
        "ROOT: has no HMDB-51/brush_hair; unpack hmdb51_org.rar there, and each class's .rar inside it",
    ),
    (
        "hmdb51",
        both(empty("HMDB-51"), write("HMDB-51/brush_hair.rar", "x")),
        "ROOT: has no HMDB-51/brush_hair; unpack hmdb51_org.rar there, and each class's .rar inside it",
    ),
    (
        "hmdb51",
        remove("HMDB-51/cartwheel"),
        f"ROOT: fold 1 has no training file of 1 of 2 classes: cartwheel; {BOTH}",
    ),
    (
        "hmdb51",
        remove("testTrainMulti_7030_splits/cartwheel_test_split2.txt"),
        f"{HMDB}/cartwheel_test_split2.txt: cannot be read (No such file or directory); {READABLE}",
    ),
    (
        "hmdb51",
        remove(*(f"testTrainMulti_7030_splits/cartwheel_test_split{k}.txt" for k in (1, 2, 3))),
        (
            f"{HMDB}: has no cartwheel_test_split1.txt, but ROOT/HMDB-51/cartwheel has videos; "
            "take the lists and the videos from one release"
        ),
    ),
    (
        "hmdb51",
        append("testTrainMulti_7030_splits/cartwheel_test_split1.txt", "x y_cartwheel_1.avi 3\n"),
        (
            f"{HMDB}/cartwheel_test_split1.txt: line 5, 'x y_cartwheel_1.avi 3', is not VIDEO.avi 0, 1 or 2; "
            "correct the line"
        ),
    ),
    (
        "hmdb51",
        write("testTrainMulti_7030_splits/brush_hair_test_split1.txt", "a.avi 0\n"),
        f"ROOT: fold 1 has no training file of 1 of 2 classes: brush_hair; {BOTH}",
    ),
    (
        "hmdb51",
        empty("HMDB-51/cartwheel", "HMDB-51/brush_hair"),
        (
            "ROOT: none of the 4 files of *_test_split1.txt (training) exists, such as "
            f"ROOT/HMDB-51/brush_hair/Movie_2_brush_hair_f_cm_np1_fr_med_0.avi; {RELEASE}"
        ),
    ),
    (
        "esc50",
        remove("meta"),
        "ROOT: has no meta/esc50.csv; unpack ESC-50-master.zip and name the folder inside it, or give --split-root",
    ),
    (
        "esc50",
        remove("audio"),
        "ROOT: has no audio/1-1000-A-0.wav; unpack ESC-50-master.zip and name the folder inside it",
    ),
    (
        "esc50",
        remove(*(f"audio/{k + 1}-{1000 + k}-A-1.wav" for k in (0, 1, 2))),
        f"ROOT: fold 1 has no training file of 1 of 2 classes: rooster; {BOTH}",
    ),
    (
        "esc50",
        remove("audio/2-1001-A-1.wav"),
        f"ROOT: fold 2 has no test file of 1 of 2 classes: rooster; {BOTH}",
    ),
    (
        "esc50",
        append("meta/esc50.csv", "x.wav,6,1,rooster,,,\n"),
        (
            f"{ESC}: line 8: 'x.wav', '6', '1', 'rooster' are not a file, a fold 1 to 5, a number and a name; "
            "correct the line"
        ),
    ),
    (
        "esc50",
        append("meta/esc50.csv", "x.wav,1\n"),
        f"{ESC}: line 8: 'x.wav', '1', '', '' are not a file, a fold 1 to 5, a number and a name; correct the line",
    ),
    (
        "esc50",
        append("meta/esc50.csv", "1-1000-A-0.wav,2,0,dog,,,\n"),
        f"{ESC}: line 8: '1-1000-A-0.wav' is listed twice; correct the line",
    ),
    (
        "esc50",
        append("meta/esc50.csv", "x.wav,1,1,dog,,,\n"),
        f"{ESC}: line 8: target 1 is 'dog', but was 'rooster'; correct the line",
    ),
    (
        "esc50",
        append("meta/esc50.csv", 'x.wav,1,1,"rooster\n'),
        f"{ESC}: line 8: unexpected end of data; correct the line",
    ),
    (
        "esc50",
        append("meta/esc50.csv", "x.wav,1,3,cow,,,\n"),
        f"{ESC}: has no file of target 2; targets are 0, 1, 2 and so on",
    ),
    (
        "esc50",
        write("meta/esc50.csv", HEAD),
        f"{ESC}: has no file of target 0; targets are 0, 1, 2 and so on",
    ),
    (
        "esc50",
        write("meta/esc50.csv", "filename,fold,label,category\n"),
        f"{ESC}: has no column 'target'; its first line names filename, fold, target, category",
    ),
    (
        "esc50",
        write("meta/esc50.csv", ""),
        f"{ESC}: has no column 'filename'; its first line names filename, fold, target, category",
    ),
    (
        "dcase",
        remove("set1/scenes_stereo"),
        "ROOT: has no set1/scenes_stereo/scenes_stereo/*.wav; unpack scenes_stereo.zip there",
    ),
    (
        "dcase",
        empty("set1/scenes_stereo_testset/scenes_stereo_testset"),
        "ROOT: has no set1/scenes_stereo_testset/scenes_stereo_testset/*.wav; unpack scenes_stereo_testset.zip there",
    ),
    (
        "dcase",
        write("set1/scenes_stereo/scenes_stereo/noise.wav", "x"),
        (
            "ROOT/set1/scenes_stereo/scenes_stereo/noise.wav: is not named by its class and two digits, "
            "such as bus01.wav; remove or rename it"
        ),
    ),
    (
        "dcase",
        remove(*(f"set1/scenes_stereo/scenes_stereo/bus0{k}.wav" for k in (1, 2, 3))),
        f"ROOT: fold 1 has no training file of 1 of 2 classes: bus; {BOTH}",
    ),
    (
        "kinetics400",
        remove("train"),
        "ROOT: has no folder 'train'; the videos are looked for as ROOT/train/CLASS/VIDEO",
    ),
    (
        "kinetics400",
        remove("val"),
        (
            "ROOT: has no folder 'val' or 'validate' or 'validation' or 'test'; "
            "the videos are looked for as ROOT/val/CLASS/VIDEO"
        ),
    ),
    (
        "kinetics400",
        remove("val/archery", "val/air_drumming"),
        "ROOT/val: has no class folders; put the files at ROOT/val/CLASS/FILE",
    ),
    (
        "kinetics400",
        remove("train/archery"),
        f"ROOT: fold 1 has no training file of 1 of 2 classes: archery; {BOTH}",
    ),
    ("kinetics400", empty("train/archery"), "ROOT/train/archery: has no media files; known suffixes: .3g2 "),
    (
        "kinetics-sound",
        remove("val/tapping_pen", "val/singing"),
        f"ROOT: fold 1 has no test file of 2 of 32 classes: singing, tapping pen; {BOTH}",
    ),
    (
        "kinetics-sound",
        empty("train"),
        (
            "ROOT: fold 1 has no training file of 32 of 32 classes: blowing nose, blowing out candles, bowling, "
            f"chopping wood, dribbling basketball, ...; {BOTH}"
        ),
    ),
    (
        "folder",
        remove("test"),
        "ROOT: has train/CLASS, but no test/CLASS; provide both, or only class folders",
    ),
    (
        "folder",
        remove("train"),
        "ROOT: has test/CLASS, but no train/CLASS; provide both, or only class folders",
    ),
    ("folder", empty("train/b"), "ROOT/train/b: has no media files; known suffixes: .3g2 "),
    ("folder", remove("test/b"), f"ROOT: fold 1 has no test file of 1 of 2 classes: b; {BOTH}"),
    (
        "folder",
        remove("train", "test"),
        "ROOT: has no class folders; put the files at ROOT/CLASS/FILE",
    ),
]


@pytest.mark.parametrize(
    ("name", "spoil", "line"), WRONG, ids=[f"{n}-{k}" for k, (n, _, _) in enumerate(WRONG)]
)
def test_a_wrong_tree_gives_one_line_that_names_the_right_layout(
    tmp_path: Path, name: str, spoil: Break, line: str
) -> None:
    root = make_tree(name, tmp_path / "root")
    spoil(root)
    with pytest.raises(ConfigError) as caught:
        read_dataset(name, root, missing=lambda _: None)
    message = line_of(caught, root)
    assert message[: len(line)] == line
    assert message == line or line.endswith(".3g2 ")  # all the suffixes follow


def test_a_class_of_a_folder_with_one_file_cannot_be_split(tmp_path: Path) -> None:
    root = make_tree("folder", tmp_path, splits=())
    remove("b/0.mp4", "b/1.mp4")(root)
    with pytest.raises(ConfigError) as caught:
        read("folder", root)
    assert line_of(caught, root) == (
        "ROOT: class 'b' has only one file, which cannot be both trained on and tested; "
        "give each class two or more files"
    )


def test_lists_that_lie_elsewhere_are_only_looked_for_there(tmp_path: Path) -> None:
    root = make_tree("ucf101", tmp_path / "root")
    (tmp_path / "lists").mkdir()
    with pytest.raises(ConfigError) as caught:
        read("ucf101", root, split_root=tmp_path / "lists")
    assert line_of(caught, tmp_path) == (
        "ROOT/lists: has no trainlist01.txt; unpack UCF101TrainTestSplits-RecognitionTask.zip there"
    )


def test_a_split_of_kinetics_is_not_its_root(tmp_path: Path) -> None:
    root = make_tree("kinetics400", tmp_path / "k")
    with pytest.raises(ConfigError) as caught:
        read("kinetics400", root / "train")
    assert line_of(caught, root) == (
        "ROOT/train: has no folder 'train'; it looks like a split itself: name its parent, ROOT"
    )


@pytest.mark.parametrize("name", DATASETS)
def test_the_root_is_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for given, problem in (
        ("nowhere", "no such folder"),
        ("file", "is a file, not a folder"),
        ("x" * 300, "no such"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_dataset(name, tmp_path / given)
        assert line_of(caught, tmp_path).startswith(f"ROOT/{given}: {problem}")
    with pytest.raises(ConfigError, match=r"no such folder; name the data set's folder$"):
        read_dataset(name, "nu\0ll")


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_root_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path))}: has no "):
        read_dataset(name, tmp_path)


def test_a_misspelt_name_gets_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_dataset("ucf-101", tmp_path)
    assert str(caught.value) == (
        "dataset='ucf-101' is not known; did you mean 'ucf101'? (choose from ucf101, hmdb51, esc50, dcase, "
        "kinetics400, kinetics-sound, folder)"
    )


def test_lists_are_for_data_sets_that_have_them(tmp_path: Path) -> None:
    for name in ("dcase", "kinetics400", "kinetics-sound", "folder"):
        with pytest.raises(ConfigError, match=f"^split_root='lists': {name} has no lists; leave it out"):
            read_dataset(name, tmp_path, split_root="lists")
    with pytest.raises(ConfigError, match=r"nowhere: no such folder; name the folder of the lists$"):
        read_dataset("esc50", tmp_path, split_root=tmp_path / "nowhere")


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_that_cannot_be_read_is_reported(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(datasets.os, "scandir", refuse)
    with pytest.raises(
        ConfigError, match=r"cannot be read \(Permission denied\); check that it is there, and its"
    ):
        read_dataset(name, make_tree(name, tmp_path))


# --- train and test ----------------------------------------------------------------------------------------------


def fold_of(train: Iterable[Path], test: Iterable[Path]) -> Fold:
    return Fold(*(tuple(LabelledFile(str(p), 0, str(p)) for p in side) for side in (train, test)))


@pytest.mark.parametrize("name", DATASETS)
def test_a_right_tree_leaks_nothing(tmp_path: Path, name: str) -> None:
    for fold in read(name, make_tree(name, tmp_path)).folds.values():
        check_no_leak(fold)
        assert shared_content(fold) == {}


def test_a_file_listed_on_both_sides_is_a_leak(tmp_path: Path) -> None:
    root = make_tree("hmdb51", tmp_path)
    path = root / "testTrainMulti_7030_splits" / "cartwheel_test_split1.txt"
    clip = "Movie_1_cartwheel_f_cm_np1_fr_med_0.avi"
    path.write_text(f"{path.read_text()}{clip} 1\n")
    data = read("hmdb51", root)
    check_no_leak(data.folds[2])
    with pytest.raises(ConfigError) as caught:
        check_no_leak(data.folds[1])
    assert line_of(caught, root) == (
        f"ROOT/HMDB-51/cartwheel/{clip}: is both a training and a test file; remove it from one of them"
    )


def test_links_to_files_and_to_folders_leak_too(tmp_path: Path) -> None:
    root = make_tree("folder", tmp_path)
    (root / "test" / "a" / "9.mp4").symlink_to(root / "train" / "a" / "1.mp4")
    with pytest.raises(ConfigError) as caught:
        check_no_leak(read("folder", root).folds[1])
    assert line_of(caught, root) == (
        "ROOT/train/a/1.mp4: is both a training and a test file (in test: ROOT/test/a/9.mp4); "
        "remove it from one of them"
    )
    remove("test/b")(root)
    (root / "test" / "b").symlink_to(root / "train" / "b", target_is_directory=True)
    remove("test/a/9.mp4")(root)
    with pytest.raises(ConfigError) as caught:
        check_no_leak(read("folder", root).folds[1])
    assert line_of(caught, root) == (
        "ROOT/train/b/0.mp4: is both a training and a test file (in test: ROOT/test/b/0.mp4), and so are 2 more; "
        "remove it from one of them"
    )


def test_equal_bytes_on_both_sides_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {
        "a": b"same",
        "b": b"same",
        "c": b"diff",
        "d": b"alone here",
        "e": b"same",
        "f": b"diff",
        "g": b"more",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    read_files: list[str] = []
    sha256 = datasets.file_sha256
    monkeypatch.setattr(
        datasets, "file_sha256", lambda path: read_files.append(Path(path).name) or sha256(path)
    )
    fold = fold_of((tmp_path / n for n in "bacd"), (tmp_path / n for n in "gfe"))
    digests: dict[str, str] = {}
    shared = {str(tmp_path / b): str(tmp_path / a) for a, b in (("b", "e"), ("c", "f"))}
    assert shared_content(fold, digests) == shared
    assert shared_content(fold, digests) == shared  # nothing is read again
    assert sorted(read_files) == list("abcefg")  # not d, since no other file has its size


def test_a_file_that_has_disappeared_is_reported(tmp_path: Path) -> None:
    fold = fold_of([tmp_path / "a"], [tmp_path / "gone" / "b"])
    assert shared_content(fold) == {}
    with pytest.raises(ConfigError, match=r"gone: cannot be read \(No such file or directory\)"):
        check_no_leak(fold)


def test_reading_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from crisscross_zoo.evaluate.datasets import read_dataset\n"
        f"read_dataset('folder', {str(make_tree('folder', tmp_path))!r})\n"
        "print([m for m in ('torch', 'numpy', 'av', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"
