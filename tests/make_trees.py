"""Small data sets in the layouts of their releases, with the lists of their splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from crisscross_zoo.files.trees import KINETICS_SOUND_CLASSES

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "ucf101": ("ApplyEyeMakeup", "Archery", "BabyCrawling", "YoYo"),
    "hmdb51": ("brush_hair", "cartwheel", "kick", "kick_ball"),
    "esc50": ("dog", "rooster", "pig", "cow"),  # in the order of their targets, which is not sorted
    "dcase": ("bus", "busystreet", "office", "park"),
    "kinetics400": ("air drumming", "archery", "tap dancing", "zumba"),
    "kinetics-sound": KINETICS_SOUND_CLASSES,
    "folder": ("a", "b", "c", "d"),
}
"""Class names of a tree, by label."""


def touch(path: Path, label: int) -> None:
    """Write a few bytes, different ones in each file."""
    path.write_text(f"{label} {path.parent} {path.name}", encoding="utf-8", errors="surrogateescape")


def make_tree(
    name: str,
    root: Path | str,
    *,
    files_per_class: int = 3,
    classes: int = 2,
    make_file: Callable[[Path, int], None] = touch,
    suffix: str | None = None,
    splits: Sequence[str] | None = None,
) -> Path:
    """Write a data set, and return its root.

    Args:
        name: One of ``crisscross_zoo.evaluate.datasets.DATASETS``.
        root: Folder to make.
        files_per_class: Files of each class; if the splits are folders, in each of them. Files k = 0, 1, ...
            are tested in fold k % 3 + 1 of UCF101 and HMDB51 (give 2 or more), k % 5 + 1 of ESC-50.
        classes: Number of classes, at most 4; Kinetics-Sound always has its 32, and a folder of another class.
        make_file: Writes a file, given its path and its label.
        suffix: Of media files; None: the release's own.
        splits: With "folder", the folders at the top, () for none; with Kinetics ("train", "val") in other words.
    """
    root = Path(root)
    names = CLASS_NAMES[name] if name == "kinetics-sound" else CLASS_NAMES[name][:classes]
    own = {"esc50": ".wav", "dcase": ".wav", "ucf101": ".avi", "hmdb51": ".avi"}
    end = suffix or own.get(name, ".mp4")

    def put(path: Path, label: int) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_file(path, label)
        return path.name

    def write(path: Path, lines: Sequence[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")

    if name == "ucf101":
        files = [
            (
                k,
                label,
                f"{cls}/" + put(root / f"UCF-101/{cls}/v_{cls}_g{k % 3 + 1:02}_c{k // 3 + 1:02}{end}", label),
            )
            for label, cls in enumerate(names)
            for k in range(files_per_class)
        ]
        lists = root / "ucfTrainTestlist"
        write(lists / "classInd.txt", [f"{label + 1} {cls}" for label, cls in enumerate(names)])
        for fold in (1, 2, 3):
            train = [f"{file} {label + 1}" for k, label, file in files if k % 3 + 1 != fold]
            write(lists / f"trainlist0{fold}.txt", train)
            write(lists / f"testlist0{fold}.txt", [file for k, _, file in files if k % 3 + 1 == fold])
    elif name == "hmdb51":
        for label, cls in enumerate(names):
            clips = [
                put(root / f"HMDB-51/{cls}/Movie_{k % 3 + 1}_{cls}_f_cm_np1_fr_med_{k // 3}{end}", label)
                for k in range(files_per_class)
            ]
            for fold in (1, 2, 3):
                marks = [f"{clip} {2 if k % 3 + 1 == fold else 1} " for k, clip in enumerate(clips)]
                unused = f"Unused_{cls}_f_cm_np1_fr_med_0{end} 0 "  # and not there
                write(root / f"testTrainMulti_7030_splits/{cls}_test_split{fold}.txt", [*marks, unused])
    elif name == "esc50":
        lines = ["filename,fold,target,category,esc10,src_file,take"]
        for label, cls in enumerate(names):
            for k in range(files_per_class):
                clip = put(root / f"audio/{k % 5 + 1}-{1000 + k}-A-{label}{end}", label)
                lines.append(f"{clip},{k % 5 + 1},{label},{cls},False,{1000 + k},A")
        write(root / "meta" / "esc50.csv", lines)
    elif name == "dcase":
        for scenes in ("scenes_stereo", "scenes_stereo_testset"):
            for label, cls in enumerate(names):
                for k in range(files_per_class):
                    put(root / f"set1/{scenes}/{scenes}/{cls}{k + 1:02}{end}", label)
    elif name in ("kinetics400", "kinetics-sound"):
        for split in splits or ("train", "val"):
            for label, cls in enumerate(names):
                folder = cls if label % 2 else cls.replace(" ", "_")
                for k in range(files_per_class):
                    put(root / f"{split}/{folder}/{split}{k:03}{end}", label)
            if name == "kinetics-sound":
                (root / split / "zumba").mkdir()
    else:
        for split in ("train", "test") if splits is None else splits or (".",):
            for label, cls in enumerate(names):
                for k in range(files_per_class):
                    put(root / f"{split}/{cls}/{k}{end}", label)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a folder, by its path in the folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
