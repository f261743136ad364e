"""Labelled data sets as they lie on disk: which files are trained on, which are tested, and what is in them.

Layouts are those of the data sets' own releases (appendix E names the data sets); media files are not opened here. A
folder is listed once, whatever the number of its files.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.files.find import MEDIA_SUFFIXES, VIDEO_SUFFIXES, find_media, read_list
from crisscross_zoo.files.trees import (
    KINETICS_SOUND_CLASSES,
    TEST_SPLITS,
    class_folders,
    folder_names,
    split_folder,
    unreadable,
)
from crisscross_zoo.settings import check_choice
from crisscross_zoo.text import counted

DATASETS = ("ucf101", "hmdb51", "esc50", "dcase", "kinetics400", "kinetics-sound", "folder")
"""What :func:`read_dataset` reads:

- ucf101: ``UCF-101/CLASS/VIDEO.avi`` and ``ucfTrainTestlist/``; three folds.
- hmdb51: ``HMDB-51/CLASS/VIDEO.avi`` and ``testTrainMulti_7030_splits/``; three folds.
- esc50: ``audio/CLIP.wav`` and ``meta/esc50.csv``; five folds.
- dcase: DCASE2013's scenes, ``scenes_stereo/CLASSNN.wav`` and ``scenes_stereo_testset/CLASSNN.wav``.
- kinetics400: ``train/CLASS/VIDEO`` and ``val/CLASS/VIDEO``.
- kinetics-sound: the same tree, of which the 32 classes are taken.
- folder: ``train/CLASS/FILE`` and ``test/CLASS/FILE`` (or ``val/``), or ``CLASS/FILE``, dealt into up to five folds.
"""

NO_CLASSES = "has no class folders"

MAX_FOLDS = 5
"""Into which a folder of classes is dealt, if each class has as many files."""


@dataclass(frozen=True)
class LabelledFile:
    """One labelled file.

    Attributes:
        path: The file.
        label: Place of its class in :attr:`LabelledData.classes`.
        group: Files that share it (cut from one recording, say) never part when training files are held out.
    """

    path: str
    label: int
    group: str


@dataclass(frozen=True)
class Fold:
    """What is trained on and what is tested, without a file in common."""

    train: tuple[LabelledFile, ...]
    test: tuple[LabelledFile, ...]

    def __repr__(self) -> str:
        return f"Fold({len(self.train)} train, {len(self.test)} test)"


@dataclass(frozen=True)
class LabelledData:
    """A data set with its folds.

    Attributes:
        name: "ucf101", "hmdb51", "esc50", "dcase", "kinetics400", "kinetics-sound" or "folder".
        root: Its folder.
        classes: Names of the classes, by label.
        folds: By number, from 1.
        absent: A line for each list that names files which are not there; they are in no fold.
    """

    name: str
    root: str
    classes: tuple[str, ...]
    folds: Mapping[int, Fold]
    absent: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"LabelledData({self.name!r}, {self.root!r}, {counted(len(self.classes), 'class')}, {dict(self.folds)})"


def read_dataset(
    name: str,
    root: str | Path,
    *,
    split_root: str | Path | None = None,
    seed: int = 0,
    missing: Callable[[str], None] | None = None,
) -> LabelledData:
    """Find a data set's classes, files and folds.

    Files of a fold are sorted by path. Where a release names classes in a list (UCF101, ESC-50), labels follow it;
    elsewhere they follow the sorted names.

    Args:
        name: One of :data:`DATASETS`.
        root: Where it was unpacked.
        split_root: Folder of the lists that say what is trained on and what is tested, if not below ``root``: of
            UCF101, HMDB51 and ESC-50 alone.
        seed: Of the folds of a "folder" without train and test; they depend on it and on the files' names alone.
        missing: Called with a line such as "12 of 9537 files of trainlist01.txt not found, such as ..." for each
            list of which some files are not there; they are left out. None: a warning.

    Returns:
        The data set; its folds are those whose lists are there. Each has files of every class on both sides.

    Raises:
        ConfigError: the name is not known, or the tree is not what its release unpacks to.
    """
    check_choice("dataset", name, DATASETS)
    if split_root is not None and f"{name} lists" not in _PLACES:
        raise ConfigError(
            f"split_root={str(split_root)!r}: {name} has no lists",
            remedy="leave it out; its folders say it all",
        )
    tree = _Tree(
        _folder(root, "name the data set's folder"),
        None if split_root is None else _folder(split_root, "name the folder of the lists"),
        seed,
        missing,
    )
    classes, sides = _READERS[name](tree)
    folds = {number: Fold(*map(_sorted, pair)) for number, pair in sorted(sides.items())}
    for number, fold in folds.items():
        for samples, purpose in ((fold.train, "train on"), (fold.test, "test")):
            absent = sorted({*range(len(classes))} - {s.label for s in samples})
            if absent:
                raise ConfigError(
                    f"fold {number} has no file to {purpose} of {len(absent)} of {counted(len(classes), 'class')}: "
                    + ", ".join(classes[k] for k in absent[:5])
                    + (", ..." if len(absent) > 5 else ""),
                    remedy="each class needs both; complete the data set",
                    path=tree.root,
                )
    return LabelledData(name, tree.root, tuple(classes), folds, tuple(tree.absent))


def check_no_leak(fold: Fold) -> None:
    """Make sure that no file is trained on and tested, be it by way of a link.

    Args:
        fold: What to check.

    Raises:
        ConfigError: a file is on both sides.
    """
    test = dict(_real_paths(fold.test))
    both = [(path, test[real]) for real, path in _real_paths(fold.train) if real in test]
    if both:
        path, other = both[0]
        raise ConfigError(
            "is in train and in test"
            + (f" (there as {other})" if other != path else "")
            + (f", as {len(both) - 1} more are" if len(both) > 1 else ""),
            remedy="take it out of one of them",
            path=path,
        )


def shared_content(fold: Fold, digests: dict[str, str] | None = None) -> dict[str, str]:
    """Find what is trained on and tested under two names: files with the same bytes.

    Only files whose length is found on both sides are read. What cannot be read is left out.

    Args:
        fold: What to compare.
        digests: What is known of files, by path, from other folds of the same data set; added to.

    Returns:
        The test files that have the bytes of a training file, sorted, with such a file of each.
    """
    digests = {} if digests is None else digests

    def digest(path: str) -> str:
        if path not in digests:
            digests[path] = file_sha256(path)
        return digests[path]

    sides = [_keyed((s.path for s in side), _size) for side in (fold.train, fold.test)]
    shared: dict[str, str] = {}
    for size in sides[0].keys() & sides[1].keys():
        train, test = (_keyed(side[size], digest) for side in sides)
        shared |= {path: train[known][0] for known in train.keys() & test.keys() for path in test[known]}
    return dict(sorted(shared.items()))


# --- the data sets -----------------------------------------------------------------------------------------------

_Sides = tuple[Iterable[LabelledFile], Iterable[LabelledFile]]
"""To train on, and to test."""

_Found = tuple[Sequence[str], Mapping[int, _Sides]]
"""Names of the classes, by label, and the folds."""


def _ucf101(tree: _Tree) -> _Found:
    pairs = {n: (f"trainlist0{n}.txt", f"testlist0{n}.txt") for n in (1, 2, 3)}
    lists = tree.find(
        "ucf101 lists", pairs[1][0], lambda names: any(not names.isdisjoint(p) for p in pairs.values())
    )
    labels: dict[str, int] = {}
    index = f"{lists}/classInd.txt"
    for number, match in _lines(index, r"\d+\s+([^/\0]+)", "NUMBER CLASS"):
        if match[1] in labels:
            raise ConfigError(
                f"line {number}: {match[1]!r} is there already", remedy="remove one", path=index
            )
        labels[match[1]] = len(labels)
    videos = tree.find("ucf101 videos", next(iter(labels)), lambda names: not names.isdisjoint(labels))

    def samples(name: str) -> Iterator[LabelledFile]:
        for number, match in _lines(f"{lists}/{name}", r"([^/]+)/([^/]+\.\w+)(?:\s+\d+)?", "CLASS/VIDEO.avi"):
            if match[1] not in labels:
                raise ConfigError(
                    f"line {number}: classInd.txt has no class {match[1]!r}",
                    remedy="take both files from one release",
                    path=f"{lists}/{name}",
                )
            recording = re.fullmatch(r"v_(.+_g\d+)_c\d+", Path(match[2]).stem)
            group = recording[1] if recording else Path(match[2]).stem
            yield LabelledFile(f"{videos}/{match[1]}/{match[2]}", labels[match[1]], group)

    there = tree.names(lists)
    return list(labels), {
        n: (tree.there(samples(train), train), tree.there(samples(test), test))
        for n, (train, test) in pairs.items()
        if train in there or test in there
    }


def _hmdb51(tree: _Tree) -> _Found:
    def matches(names: Iterable[str]) -> list[re.Match[str]]:
        return [m for m in map(re.compile(r"([^.].*)_test_split([123])\.txt").fullmatch, sorted(names)) if m]

    lists = tree.find("hmdb51 lists", "CLASS_test_split1.txt", lambda names: bool(matches(names)))
    found = matches(tree.names(lists))
    classes = sorted({match[1] for match in found})
    videos = tree.find("hmdb51 videos", classes[0], lambda names: not names.isdisjoint(classes))
    for name in sorted(tree.names(videos) - {*classes}):
        if any(_has_suffix(n, VIDEO_SUFFIXES) for n in tree.names(f"{videos}/{name}")):
            raise ConfigError(
                f"has no {name}_test_split1.txt, but {videos}/{name} has videos",
                remedy="take the lists and the videos from one release",
                path=lists,
            )
    folds = {}
    for n in sorted({int(match[2]) for match in found}):
        marked: dict[str, list[LabelledFile]] = {"1": [], "2": [], "0": []}
        for label, name in enumerate(classes):
            for _, match in _lines(
                f"{lists}/{name}_test_split{n}.txt", r"([^/]*[^/\s])\s+([012])", "VIDEO.avi 0, 1 or 2"
            ):
                stem = Path(match[1]).stem
                group = stem.rpartition(f"_{name}_")[0] or stem
                marked[match[2]].append(LabelledFile(f"{videos}/{name}/{match[1]}", label, group))
        folds[n] = (
            tree.there(marked["1"], f"*_test_split{n}.txt to train on"),
            tree.there(marked["2"], f"*_test_split{n}.txt to test"),
        )
    return classes, folds


def _esc50(tree: _Tree) -> _Found:
    lists = tree.find("esc50 lists", "esc50.csv", lambda names: "esc50.csv" in names)
    path = f"{lists}/esc50.csv"
    rows: dict[str, tuple[int, str]] = {}  # of each file the target and the fold
    categories: dict[int, str] = {}
    columns = ("filename", "fold", "target", "category")
    reader = csv.DictReader(read_list(path).split("\n"), strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ConfigError(
            f"line {reader.line_num + 1}: {error}", remedy="correct the line", path=path
        ) from None
    if absent := [c for c in columns if c not in (reader.fieldnames or ())]:
        raise ConfigError(
            f"has no column {absent[0]!r}", remedy=f"its first line names {', '.join(columns)}", path=path
        )
    for number, row in lines:
        name, fold, target, category = (row[c] or "" for c in columns)
        problem = ""
        if not (
            name and category and re.fullmatch(r"[1-5]", fold) and re.fullmatch(r"\d{1,4}", target, re.ASCII)
        ):
            problem = f"{name!r}, {fold!r}, {target!r}, {category!r} are not a file, a fold 1 to 5, a number and a name"
        elif name in rows:
            problem = f"{name!r} is there already"
        elif categories.setdefault(int(target), category) != category:
            problem = f"target {target} is {category!r}, but was {categories[int(target)]!r}"
        if problem:
            raise ConfigError(f"line {number}: {problem}", remedy="correct the line", path=path)
        rows[name] = (int(target), fold)
    gaps = sorted({*range(max(categories, default=0) + 1)} - {*categories})
    if gaps:
        raise ConfigError(
            f"has no file of target {gaps[0]}", remedy="targets are 0, 1, 2 and so on", path=path
        )
    audio = tree.find("esc50 audio", next(iter(rows)), lambda names: not names.isdisjoint(rows))
    samples = tree.there(
        (LabelledFile(f"{audio}/{name}", target, f"fold{fold}") for name, (target, fold) in rows.items()),
        "esc50.csv",
    )
    folds = {}
    for fold in sorted({fold for _, fold in rows.values()}):
        group = f"fold{fold}"
        folds[int(fold)] = (
            [s for s in samples if s.group != group],
            [s for s in samples if s.group == group],
        )
    return [categories[k] for k in sorted(categories)], folds


def _dcase(tree: _Tree) -> _Found:
    sides = []
    for what in ("dcase train", "dcase test"):
        folder = tree.find(what, "*.wav", lambda names: any(_has_suffix(n, (".wav",)) for n in names))
        side: dict[str, list[str]] = defaultdict(list)
        for name in sorted(n for n in tree.names(folder) if _has_suffix(n, (".wav",))):
            match = re.fullmatch(r"(.+)\d\d\.wav", name, re.ASCII | re.IGNORECASE)
            if match is None:
                raise ConfigError(
                    "is not named by its class and two digits, as bus01.wav",
                    remedy="remove or rename it",
                    path=f"{folder}/{name}",
                )
            side[match[1]].append(f"{folder}/{name}")
        sides.append(side)
    return _one_fold(*sides)


def _kinetics400(tree: _Tree, wanted: Collection[str] | None = None) -> _Found:
    folders = [split_folder(tree.root, splits, below="CLASS/VIDEO") for splits in (("train",), TEST_SPLITS)]
    sides = [_class_files(folder, VIDEO_SUFFIXES, wanted, spaced=True) for folder in folders]
    return _one_fold(*sides, classes=wanted)


def _kinetics_sound(tree: _Tree) -> _Found:
    return _kinetics400(tree, KINETICS_SOUND_CLASSES)


def _any_folder(tree: _Tree) -> _Found:
    folders = folder_names(tree.root)
    # A class may be called "train" too; it then has files, not folders.
    asked = next((s for s in TEST_SPLITS if s in folders and folder_names(f"{tree.root}/{s}")), "test")
    splits = [s for s in ("train", asked) if s in folders and folder_names(f"{tree.root}/{s}")]
    if len(splits) == 2:
        return _one_fold(*(_class_files(f"{tree.root}/{split}", MEDIA_SUFFIXES) for split in splits))
    if splits:
        absent = "test" if splits == ["train"] else "train"
        raise ConfigError(
            f"has {splits[0]}/CLASS, but no {absent}/CLASS",
            remedy="give it both, or class folders alone",
            path=tree.root,
        )
    classes = _class_files(tree.root, MEDIA_SUFFIXES)
    smallest = min(classes, key=lambda name: len(classes[name]))
    if len(classes[smallest]) < 2:
        raise ConfigError(
            f"class {smallest!r} has one file, which cannot be trained on and tested",
            remedy="give each class two or more",
            path=tree.root,
        )

    def place(path: str) -> bytes:
        below = Path(path).relative_to(tree.root).as_posix()
        return hashlib.sha256(os.fsencode(f"{tree.seed}/{below}")).digest()

    number = min(MAX_FOLDS, len(classes[smallest]))
    folds: dict[int, tuple[list[LabelledFile], list[LabelledFile]]] = {
        n: ([], []) for n in range(1, number + 1)
    }
    for label, name in enumerate(sorted(classes)):
        for k, path in enumerate(sorted(classes[name], key=place)):
            for n, (train, test) in folds.items():
                (test if n == k % number + 1 else train).append(LabelledFile(path, label, path))
    return sorted(classes), folds


def _one_fold(
    train: Mapping[str, Sequence[str]],
    test: Mapping[str, Sequence[str]],
    *,
    classes: Iterable[str] | None = None,
) -> _Found:
    """Make the one fold of a data set whose folders say what is trained on; labels by sorted names."""
    names = sorted({*train, *test} if classes is None else classes)

    def samples(side: Mapping[str, Sequence[str]]) -> list[LabelledFile]:
        return [
            LabelledFile(path, label, path) for label, name in enumerate(names) for path in side.get(name, ())
        ]

    return names, {1: (samples(train), samples(test))}


_READERS: dict[str, Callable[[_Tree], _Found]] = {
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "esc50": _esc50,
    "dcase": _dcase,
    "kinetics400": _kinetics400,
    "kinetics-sound": _kinetics_sound,
    "folder": _any_folder,
}


# --- where things lie --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where a part of a data set lies below its root: in the first of ``folders`` that has it; how it comes there."""

    folders: tuple[str, ...]
    unpack: str


def _dcase_place(part: str) -> _Place:
    doubled = (f"{part}/{part}", part)
    return _Place((*(f"set1/{folder}" for folder in doubled), *doubled), f"{part}.zip there")


_UCF_LISTS, _HMDB_LISTS = "ucfTrainTestlist", "testTrainMulti_7030_splits"
_PLACES: dict[str, _Place] = {
    "ucf101 lists": _Place(
        (_UCF_LISTS, f"UCF101TrainTestSplits-RecognitionTask/{_UCF_LISTS}", "."),
        "UCF101TrainTestSplits-RecognitionTask.zip there",
    ),
    "ucf101 videos": _Place(("UCF-101", "UCF101", "videos", "."), "UCF101.rar there"),
    "hmdb51 lists": _Place(
        (_HMDB_LISTS, f"test_train_splits/{_HMDB_LISTS}", "test_train_splits", "."),
        "test_train_splits.rar there",
    ),
    "hmdb51 videos": _Place(
        ("HMDB-51", "hmdb51_org", "HMDB51", "hmdb51", "videos", "."),
        "hmdb51_org.rar there, and the .rar of each class that is in it",
    ),
    "esc50 lists": _Place(("meta", "ESC-50-master/meta", "."), "ESC-50-master.zip and name what is in it"),
    "esc50 audio": _Place(("audio", "ESC-50-master/audio"), "ESC-50-master.zip and name what is in it"),
    "dcase train": _dcase_place("scenes_stereo"),
    "dcase test": _dcase_place("scenes_stereo_testset"),
}


class _Tree:
    """A data set's folders, each listed once."""

    def __init__(
        self, root: str, split_root: str | None, seed: int, missing: Callable[[str], None] | None
    ) -> None:
        self.root = root
        self.split_root = split_root
        self.seed = seed
        self._missing = missing
        self.absent: list[str] = []
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Names in a folder; none where there is no such folder."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(entry.name for entry in os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
            except OSError as error:
                raise unreadable(folder, error) from None
        return self._names[folder]

    def find(self, what: str, example: str, wanted: Callable[[frozenset[str]], bool]) -> str:
        """Return the first folder of ``_PLACES[what]`` whose names are ``wanted``; ``example`` is one for errors."""
        place = _PLACES[what]
        root, folders = self.root, place.folders
        if self.split_root is not None and what.endswith("lists"):
            root, folders = self.split_root, (".", *folders)
        for folder in folders:
            path = root if folder == "." else f"{root}/{folder}"
            if wanted(self.names(path)):
                return path
        raise ConfigError(
            f"has no {'' if folders[0] == '.' else folders[0] + '/'}{example}",
            remedy=f"unpack {place.unpack}"
            + (", or give --split-root" if what.endswith("lists") and self.split_root is None else ""),
            path=root,
        )

    def there(self, samples: Iterable[LabelledFile], source: str) -> list[LabelledFile]:
        """Return the samples whose files are there, and report the others; ``source`` says what names them."""
        found: list[LabelledFile] = []
        absent: list[LabelledFile] = []
        for sample in samples:
            folder, _, name = sample.path.rpartition("/")
            (found if name in self.names(folder) else absent).append(sample)
        if absent and not found:
            raise ConfigError(
                f"none of {counted(len(absent), 'file')} of {source} exists, such as {absent[0].path}",
                remedy="check that the lists and the files are of one release, and unpacked",
                path=self.root,
            )
        if absent:
            line = (
                f"{len(absent)} of {counted(len(absent) + len(found), 'file')} of {source} not found, "
                f"such as {absent[0].path}"
            )
            self.absent.append(line)
            if self._missing is None:
                warnings.warn(line, stacklevel=4)
            else:
                self._missing(line)
        return found


# --- files -------------------------------------------------------------------------------------------------------


def _folder(path: str | Path, remedy: str) -> str:
    """Return the absolute path of a folder that is there."""
    full = os.path.abspath(path)
    # os.path answers False where pathlib raises: names too long, folders that may not be entered.
    if not os.path.isdir(full):
        there = os.path.exists(full)
        raise ConfigError("is a file, not a folder" if there else "no such folder", remedy=remedy, path=full)
    return full


def _class_files(
    folder: str, suffixes: Collection[str], wanted: Collection[str] | None = None, *, spaced: bool = False
) -> dict[str, list[str]]:
    """Return the files in ``folder/CLASS``, at any depth, by class; see :func:`class_folders`."""
    files: dict[str, list[str]] = defaultdict(list)
    for name, label in class_folders(folder, wanted, spaced=spaced).items():
        files[label] += find_media([f"{folder}/{name}"], suffixes=suffixes)
    if not files and wanted is None:
        raise ConfigError(NO_CLASSES, remedy=f"put files where {folder}/CLASS/FILE is one", path=folder)
    return files


def _lines(path: str, pattern: str, expected: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Match each line of a list, but blank ones; yields their numbers too."""
    empty = True
    for number, line in enumerate(read_list(path).split("\n"), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(pattern, line.strip())
        if match is None:
            raise ConfigError(
                f"line {number}, {line.strip()!r:.60}, is not {expected}",
                remedy="correct the line",
                path=path,
            )
        empty = False
        yield number, match
    if empty:
        raise ConfigError("is empty", remedy=f"its lines are {expected}", path=path)


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in suffixes


def _sorted(samples: Iterable[LabelledFile]) -> tuple[LabelledFile, ...]:
    """Sort by path; a file that a list names twice counts once."""
    return tuple(sorted(set(samples), key=lambda s: (s.path, s.label)))


def _real_paths(samples: Iterable[LabelledFile]) -> Iterator[tuple[str, str]]:
    """Yield (path without links, path) of each; asks the disk about folders and links alone."""
    folders: dict[str, tuple[str, frozenset[str]]] = {}
    for sample in samples:
        folder, name = os.path.split(sample.path)
        if folder not in folders:
            try:
                links = frozenset(entry.name for entry in os.scandir(folder) if entry.is_symlink())
            except OSError as error:
                raise unreadable(folder, error) from None
            folders[folder] = (os.path.realpath(folder), links)
        real, links = folders[folder]
        full = os.path.join(real, name)
        yield (os.path.realpath(full) if name in links else full), sample.path


def _keyed(paths: Iterable[str], key: Callable[[str], object]) -> dict[object, list[str]]:
    """Sort files into lists by what ``key`` says of them."""
    keyed = defaultdict(list)
    for path in paths:
        with contextlib.suppress(OSError):  # whoever uses the file says so
            keyed[key(path)].append(path)
    return keyed


def _size(path: str) -> int:
    return Path(path).stat().st_size
