"""Labelled data sets on disk: their classes, and the training and test files of each fold.

The layouts are those of the data sets' own releases (appendix E names the data sets). Media files are not opened here,
and each folder is listed only once.
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
- kinetics-sound: the 32 classes of Kinetics-Sound in the tree of kinetics400.
- folder: ``train/CLASS/FILE`` and ``test/CLASS/FILE`` (or ``val/``), or ``CLASS/FILE``, split into up to five folds.
"""

NO_CLASSES = "has no class folders"

MAX_FOLDS = 5
"""Number of folds into which a folder of classes is split; fewer if its smallest class has fewer files."""


@dataclass(frozen=True)
class LabelledFile:
    """One labelled file.

    Attributes:
        path: The file.
        label: Index of its class in :attr:`LabelledData.classes`.
        group: Files of one group, such as clips cut from one recording, stay together when training files are held
            out.
    """

    path: str
    label: int
    group: str


@dataclass(frozen=True)
class Fold:
    """The training files and the test files of a fold; no file is in both."""

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
        folds: The folds by number, from 1.
        absent: A line for each list that names missing files; those files are in no fold.
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

    The files of a fold are sorted by path. Labels follow the release's list of classes if there is one (UCF101,
    ESC-50), and the sorted class names otherwise.

    Args:
        name: One of :data:`DATASETS`.
        root: The folder into which the data set was unpacked.
        split_root: The folder of the split lists, if it is not below ``root``. Only for UCF101, HMDB51 and ESC-50.
        seed: Seed of the folds of a "folder" without train and test; these folds depend only on the seed and on the
            files' names.
        missing: Called with a line such as "12 of 9,537 files of trainlist01.txt not found, such as ..." for each
            list that names missing files. Those files are skipped. None: a warning instead.

    Returns:
        The data set, with the folds whose lists exist. Each fold has training and test files of every class.

    Raises:
        ConfigError: the name is not known, or the folder does not have the layout of the release.
    """
    check_choice("dataset", name, DATASETS)
    if split_root is not None and f"{name} lists" not in _LOCATIONS:
        raise ConfigError(
            f"split_root={str(split_root)!r}: {name} has no lists",
            remedy="leave it out; its folders define the split",
        )
    tree = _Tree(
        _folder(root, "name the data set's folder"),
        None if split_root is None else _folder(split_root, "name the folder of the lists"),
        seed,
        missing,
    )
    classes, splits = _READERS[name](tree)
    folds = {number: Fold(*map(_sorted, pair)) for number, pair in sorted(splits.items())}
    for number, fold in folds.items():
        for samples, purpose in ((fold.train, "training"), (fold.test, "test")):
            absent = sorted({*range(len(classes))} - {s.label for s in samples})
            if absent:
                raise ConfigError(
                    f"fold {number} has no {purpose} file of {len(absent)} of {counted(len(classes), 'class')}: "
                    + ", ".join(classes[k] for k in absent[:5])
                    + (", ..." if len(absent) > 5 else ""),
                    remedy="each class needs training and test files; complete the data set",
                    path=tree.root,
                )
    return LabelledData(name, tree.root, tuple(classes), folds, tuple(tree.absent))


def check_no_leak(fold: Fold) -> None:
    """Check that no file is in both training and test, directly or through a link.

    Args:
        fold: The fold to check.

    Raises:
        ConfigError: a file is in both.
    """
    test = dict(_real_paths(fold.test))
    both = [(path, test[real]) for real, path in _real_paths(fold.train) if real in test]
    if both:
        path, other = both[0]
        raise ConfigError(
            "is both a training and a test file"
            + (f" (in test: {other})" if other != path else "")
            + (f", and so are {len(both) - 1} more" if len(both) > 1 else ""),
            remedy="remove it from one of them",
            path=path,
        )


def shared_content(fold: Fold, digests: dict[str, str] | None = None) -> dict[str, str]:
    """Find the test files that have the same bytes as a training file.

    A file is only read if training and test both have files of its size. Files that cannot be read are skipped.

    Args:
        fold: The fold to compare.
        digests: Digests of files by path, from other folds of the same data set; new digests are added.

    Returns:
        For each such test file a training file with the same bytes, by path, sorted by test file.
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
        shared |= {path: train[same][0] for same in train.keys() & test.keys() for path in test[same]}
    return dict(sorted(shared.items()))


# --- the data sets -----------------------------------------------------------------------------------------------

_Split = tuple[Iterable[LabelledFile], Iterable[LabelledFile]]
"""Training files and test files."""

_Found = tuple[Sequence[str], Mapping[int, _Split]]
"""Names of the classes, by label, and the folds by number."""


def _ucf101(tree: _Tree) -> _Found:
    pairs = {n: (f"trainlist0{n}.txt", f"testlist0{n}.txt") for n in (1, 2, 3)}
    lists = tree.find(
        "ucf101 lists", pairs[1][0], lambda names: any(not names.isdisjoint(p) for p in pairs.values())
    )
    labels: dict[str, int] = {}
    index = f"{lists}/classInd.txt"
    for number, match in _lines(index, r"\d+\s+([^/\0]+)", "NUMBER CLASS"):
        if match[1] in labels:
            raise ConfigError(f"line {number}: {match[1]!r} is listed twice", remedy="remove one", path=index)
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

    present = tree.names(lists)
    return list(labels), {
        n: (tree.existing(samples(train), train), tree.existing(samples(test), test))
        for n, (train, test) in pairs.items()
        if train in present or test in present
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
            tree.existing(marked["1"], f"*_test_split{n}.txt (training)"),
            tree.existing(marked["2"], f"*_test_split{n}.txt (test)"),
        )
    return classes, folds


def _esc50(tree: _Tree) -> _Found:
    lists = tree.find("esc50 lists", "esc50.csv", lambda names: "esc50.csv" in names)
    path = f"{lists}/esc50.csv"
    rows: dict[str, tuple[int, str]] = {}  # target and fold by file
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
            problem = f"{name!r} is listed twice"
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
    samples = tree.existing(
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
                    "is not named by its class and two digits, such as bus01.wav",
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
    # A class may also be called "train"; that folder then has files, not folders.
    test_split = next((s for s in TEST_SPLITS if s in folders and folder_names(f"{tree.root}/{s}")), "test")
    splits = [s for s in ("train", test_split) if s in folders and folder_names(f"{tree.root}/{s}")]
    if len(splits) == 2:
        return _one_fold(*(_class_files(f"{tree.root}/{split}", MEDIA_SUFFIXES) for split in splits))
    if splits:
        absent = "test" if splits == ["train"] else "train"
        raise ConfigError(
            f"has {splits[0]}/CLASS, but no {absent}/CLASS",
            remedy="provide both, or only class folders",
            path=tree.root,
        )
    classes = _class_files(tree.root, MEDIA_SUFFIXES)
    smallest = min(classes, key=lambda name: len(classes[name]))
    if len(classes[smallest]) < 2:
        raise ConfigError(
            f"class {smallest!r} has only one file, which cannot be both trained on and tested",
            remedy="give each class two or more files",
            path=tree.root,
        )

    def sort_key(path: str) -> bytes:
        relative = Path(path).relative_to(tree.root).as_posix()
        return hashlib.sha256(os.fsencode(f"{tree.seed}/{relative}")).digest()

    number = min(MAX_FOLDS, len(classes[smallest]))
    folds: dict[int, tuple[list[LabelledFile], list[LabelledFile]]] = {
        n: ([], []) for n in range(1, number + 1)
    }
    for label, name in enumerate(sorted(classes)):
        for k, path in enumerate(sorted(classes[name], key=sort_key)):
            for n, (train, test) in folds.items():
                (test if n == k % number + 1 else train).append(LabelledFile(path, label, path))
    return sorted(classes), folds


def _one_fold(
    train: Mapping[str, Sequence[str]],
    test: Mapping[str, Sequence[str]],
    *,
    classes: Iterable[str] | None = None,
) -> _Found:
    """Return the only fold of a data set whose folders define the split; labels follow the sorted class names."""
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


# --- folders of the releases -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Location:
    """The folders below a data set's root in which its lists or its media files may be.

    Attributes:
        folders: Relative paths; the first one that has the files is used.
        unpack: What to unpack if none has them, for errors.
    """

    folders: tuple[str, ...]
    unpack: str


def _dcase_location(archive: str) -> _Location:
    doubled = (f"{archive}/{archive}", archive)
    return _Location((*(f"set1/{folder}" for folder in doubled), *doubled), f"{archive}.zip there")


_UCF_LISTS, _HMDB_LISTS = "ucfTrainTestlist", "testTrainMulti_7030_splits"
_LOCATIONS: dict[str, _Location] = {
    "ucf101 lists": _Location(
        (_UCF_LISTS, f"UCF101TrainTestSplits-RecognitionTask/{_UCF_LISTS}", "."),
        "UCF101TrainTestSplits-RecognitionTask.zip there",
    ),
    "ucf101 videos": _Location(("UCF-101", "UCF101", "videos", "."), "UCF101.rar there"),
    "hmdb51 lists": _Location(
        (_HMDB_LISTS, f"test_train_splits/{_HMDB_LISTS}", "test_train_splits", "."),
        "test_train_splits.rar there",
    ),
    "hmdb51 videos": _Location(
        ("HMDB-51", "hmdb51_org", "HMDB51", "hmdb51", "videos", "."),
        "hmdb51_org.rar there, and each class's .rar inside it",
    ),
    "esc50 lists": _Location(
        ("meta", "ESC-50-master/meta", "."), "ESC-50-master.zip and name the folder inside it"
    ),
    "esc50 audio": _Location(
        ("audio", "ESC-50-master/audio"), "ESC-50-master.zip and name the folder inside it"
    ),
    "dcase train": _dcase_location("scenes_stereo"),
    "dcase test": _dcase_location("scenes_stereo_testset"),
}


class _Tree:
    """The folders of a data set, each listed only once."""

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
        """Return the names in a folder; none if there is no such folder."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(entry.name for entry in os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
            except OSError as error:
                raise unreadable(folder, error) from None
        return self._names[folder]

    def find(self, what: str, example: str, wanted: Callable[[frozenset[str]], bool]) -> str:
        """Return the first folder of ``_LOCATIONS[what]`` that has the right files.

        Args:
            what: Key of the location.
            example: A file that the folder should have, for the error.
            wanted: Returns whether the names in a folder are the right ones.

        Raises:
            ConfigError: no folder has the files.
        """
        location = _LOCATIONS[what]
        root, folders = self.root, location.folders
        if self.split_root is not None and what.endswith("lists"):
            root, folders = self.split_root, (".", *folders)
        for folder in folders:
            path = root if folder == "." else f"{root}/{folder}"
            if wanted(self.names(path)):
                return path
        raise ConfigError(
            f"has no {'' if folders[0] == '.' else folders[0] + '/'}{example}",
            remedy=f"unpack {location.unpack}"
            + (", or give --split-root" if what.endswith("lists") and self.split_root is None else ""),
            path=root,
        )

    def existing(self, samples: Iterable[LabelledFile], source: str) -> list[LabelledFile]:
        """Return the samples whose files exist, and report the missing ones; ``source`` is the list that names them."""
        found: list[LabelledFile] = []
        absent: list[LabelledFile] = []
        for sample in samples:
            folder, _, name = sample.path.rpartition("/")
            (found if name in self.names(folder) else absent).append(sample)
        if absent and not found:
            raise ConfigError(
                f"none of the {counted(len(absent), 'file')} of {source} exists, such as {absent[0].path}",
                remedy="check that the lists and the files are from one release, and unpacked",
                path=self.root,
            )
        if absent:
            line = (
                f"{len(absent):,} of {counted(len(absent) + len(found), 'file')} of {source} not found, "
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
    """Return the absolute path of a folder.

    Raises:
        ConfigError: there is no such folder.
    """
    full = os.path.abspath(path)
    # os.path returns False where pathlib raises: for names that are too long and folders without access.
    if not os.path.isdir(full):
        exists = os.path.exists(full)
        raise ConfigError("is a file, not a folder" if exists else "no such folder", remedy=remedy, path=full)
    return full


def _class_files(
    folder: str, suffixes: Collection[str], wanted: Collection[str] | None = None, *, spaced: bool = False
) -> dict[str, list[str]]:
    """Return the files in ``folder/CLASS``, at any depth, by class; see :func:`class_folders`."""
    files: dict[str, list[str]] = defaultdict(list)
    for name, label in class_folders(folder, wanted, spaced=spaced).items():
        files[label] += find_media([f"{folder}/{name}"], suffixes=suffixes)
    if not files and wanted is None:
        raise ConfigError(NO_CLASSES, remedy=f"put the files at {folder}/CLASS/FILE", path=folder)
    return files


def _lines(path: str, pattern: str, expected: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield the number and the match of each line of a list; blank lines are skipped.

    Raises:
        ConfigError: a line does not match, or the list is empty.
    """
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
    """Sort by path; a file that a list names twice is kept once."""
    return tuple(sorted(set(samples), key=lambda s: (s.path, s.label)))


def _real_paths(samples: Iterable[LabelledFile]) -> Iterator[tuple[str, str]]:
    """Yield (path without links, path) of each sample; reads only folders and links, not the files."""
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
    """Group files by the value of ``key``; files that cannot be read are skipped."""
    keyed = defaultdict(list)
    for path in paths:
        with contextlib.suppress(OSError):  # whoever uses the file reports the error
            keyed[key(path)].append(path)
    return keyed


def _size(path: str) -> int:
    return Path(path).stat().st_size
