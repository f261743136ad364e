"""Features of many files on disk, in one growing matrix that is mapped into memory, and rows picked out of it.

A store's folder is named by what decides its numbers (settings and weights), so it is shared by protocols, folds and
runs; in it a file is known by path, size and time of change. It holds::

    identity.json          settings and weights
    files.jsonl            a line for each file: which rows are its
    video.f32, audio.f32   rows of float32, one after another

Rows are written before the line that tells of them, and what no line tells of is cut off when the store is opened: a
killed run loses the files it was at, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from crisscross_zoo.errors import CrissCrossError, OutputError
from crisscross_zoo.extract.extractor import FeatureExtractor
from crisscross_zoo.features import Features
from crisscross_zoo.files.atomic import write_atomically, writing
from crisscross_zoo.files.stamps import stamp_of

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BLOCK_BYTES = 64 << 20
"""Of rows that are in memory at a time."""

FEATURES_FORMAT = 1
"""Raised when the same settings and weights give other numbers: older features are then not used."""

_IDENTITY_FILE, _FILES_FILE, _LOCK_FILE = "identity.json", "files.jsonl", "lock"
_BYTES = 4
_PATIENCE_SECONDS = 0.2  # before it is said that another run is waited for


@dataclass
class Rows:
    """Rows of one matrix or of several side by side, in an order of their own, read a block at a time.

    Attributes:
        parts: Matrices (float32) and which of their rows, as many from each.
        change: What is done to a block of each part before they are put side by side.
    """

    parts: Sequence[tuple[Floats, Ints]]
    change: Callable[[Floats], Floats] | None = None
    shape: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.shape = len(self.parts[0][1]), sum(matrix.shape[1] for matrix, _ in self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | Ints) -> Floats:
        """Return some rows, float32 (n, D), as a copy in memory."""
        blocks = [np.asarray(matrix[index[places]], np.float32) for matrix, index in self.parts]
        blocks = blocks if self.change is None else [self.change(block) for block in blocks]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def take(self, places: Ints) -> Rows:
        """Return fewer rows, or others, without reading any."""
        return Rows([(matrix, index[places]) for matrix, index in self.parts], self.change)

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, Floats]]:
        """Yield all rows in order, ``size`` at a time (default: :data:`BLOCK_BYTES` of them), with where they stand."""
        size = size or max(64, BLOCK_BYTES // (_BYTES * max(1, self.shape[1])))
        for first in range(0, len(self), size):
            where = slice(first, min(first + size, len(self)))
            yield where, self[where]

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Rows:
        """Make rows of an array (n, D)."""
        matrix = np.asarray(array, np.float32)
        return cls([(matrix, np.arange(len(matrix)))])


class FeatureStore:
    """A folder of features, made by one extractor's settings and weights.

    Args:
        folder: Of all stores; this one's is made in it.
        extractor: Makes what is not there yet.

    Attributes:
        folder: Of this store.

    Raises:
        OutputError: it is damaged.
        OSError: it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        weights = {name: known["sha256"] for name, known in extractor.weights.items()}
        identity = {"format": FEATURES_FORMAT, "settings": extractor.settings, "weights": weights}
        text = json.dumps(identity, sort_keys=True, default=list)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _IDENTITY_FILE).exists():
            write_atomically(self.folder / _IDENTITY_FILE, (text + "\n").encode())
        self._files: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._ends = dict.fromkeys(extractor.encoders, 0)
        self._widths: dict[str, int] = {}
        self._load()

    def extract(
        self,
        paths: Sequence[str],
        *,
        on_file: Callable[[int, int], None] | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> dict[str, CrissCrossError]:
        """Extract the files that are not here yet; where another process is at it, wait for that first.

        Args:
            paths: Files.
            on_file: Told how many of them are here, and how many there are.
            on_wait: Told, in a line, of another process that is waited for.

        Returns:
            What went wrong, by file; nothing of such a file is kept, so that it is tried again the next time.

        Raises:
            StorageError: the disk is full, over quota or read-only; what was written before stays.
            OutputError: it is damaged.
        """
        wanted = list(dict.fromkeys(paths))
        failures: dict[str, CrissCrossError] = {}
        keys: dict[str, tuple[str, int, int]] = {}
        for path in wanted:
            try:
                keys[path] = _key(path)
            except OSError as error:
                failures[path] = CrissCrossError(error.strerror or str(error), path=path)
        first = {key: path for path, key in reversed(keys.items())}  # a file may be named in several ways
        todo = [path for path, key in keys.items() if key not in self._files and first[key] == path]
        done = len(wanted) - len(todo)
        if on_file is not None:
            on_file(done, len(wanted))
        if not todo:
            return failures
        with writing(self.folder), contextlib.ExitStack() as stack:
            stack.enter_context(_locked(self.folder / _LOCK_FILE, on_wait))
            self._load()  # another run may have added to it, or died in the middle
            self._cut()
            todo = [path for path in todo if keys[path] not in self._files]
            files = stack.enter_context((self.folder / _FILES_FILE).open("a", encoding="utf-8", newline="\n"))
            matrices = {m: stack.enter_context(self._matrix_file(m).open("ab")) for m in self._ends}
            for file, features in self.extractor.stream(todo):
                done += 1
                name = os.fspath(file)
                if isinstance(features, CrissCrossError):
                    failures[name] = features
                elif lacking := features.metadata["missing"]:
                    failures[name] = CrissCrossError(f"has no {lacking[0]}", path=name)
                else:
                    self._append(keys[name], features, files, matrices)
                if on_file is not None:
                    on_file(done, len(wanted))
        return failures | {p: failures[first[k]] for p, k in keys.items() if first[k] in failures}

    def rows(self, modality: str, paths: Sequence[str]) -> tuple[tuple[Floats, Ints], Ints]:
        """Pick files that are here.

        Args:
            modality: "video" or "audio".
            paths: Files; each must be here.

        Returns:
            The matrix (mapped, float32) with the rows to take from it, and for each row the place of its file in
            ``paths``, ascending.
        """
        places = [self._files[_key(path)][modality] for path in paths]
        index = [np.arange(first, first + count) for first, count in places]
        owners = np.repeat(np.arange(len(paths)), [count for _, count in places])
        width = self._widths[modality]
        matrix: Floats = np.memmap(
            self._matrix_file(modality), np.float32, "r", shape=(self._ends[modality], width)
        )
        return (matrix, np.concatenate(index)), owners

    def damage(self, paths: Sequence[str]) -> list[dict[str, str]]:
        """Return which of some files that are here could be read in part alone, and what is wrong with them."""
        found = {path: self._files[_key(path)]["damage"] for path in paths}
        return [{"path": path, "reason": "; ".join(phrases)} for path, phrases in found.items() if phrases]

    def _matrix_file(self, modality: str) -> Path:
        return self.folder / f"{modality}.f32"

    def _load(self) -> None:
        path = self.folder / _FILES_FILE
        self._files.clear()
        if not path.exists():
            return
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # the last one, of a killed run
            try:
                entry = json.loads(line)
                self._files[entry["path"], entry["bytes"], entry["modified_ns"]] = entry
                for modality in self._ends:
                    first, count = entry[modality]
                    self._ends[modality] = max(self._ends[modality], first + count)
                    self._widths[modality] = entry["width"][modality]
            except (ValueError, KeyError, TypeError) as error:
                raise OutputError(f"is damaged ({error})", remedy="delete its folder", path=path) from None
        for modality, end in self._ends.items():
            file = self._matrix_file(modality)
            size = file.stat().st_size if file.exists() else 0
            if size < end * self._widths.get(modality, 0) * _BYTES:
                raise OutputError(
                    "is shorter than its list says",
                    remedy="delete its folder",
                    path=file,
                )

    def _cut(self) -> None:
        """Cut off what a killed run left without a line."""
        path = self.folder / _FILES_FILE
        if path.exists():
            _shorten(path, path.read_bytes().rfind(b"\n") + 1)
        for modality, end in self._ends.items():
            if (file := self._matrix_file(modality)).exists():
                _shorten(file, end * self._widths.get(modality, 0) * _BYTES)

    def _append(
        self,
        key: tuple[str, int, int],
        features: Features,
        files: IO[str],
        matrices: Mapping[str, IO[bytes]],
    ) -> None:
        entry: dict[str, Any] = {"path": key[0], "bytes": key[1], "modified_ns": key[2], "width": {}}
        entry["damage"] = features.metadata["warnings"]
        arrays = features.arrays()
        for modality, file in matrices.items():
            values = np.ascontiguousarray(arrays[modality], np.float32)
            if values.shape[1] != self._widths.setdefault(modality, values.shape[1]):
                raise OutputError("holds rows of another length", remedy="delete it", path=self.folder)
            file.write(values.tobytes())
            file.flush()
            entry[modality] = [self._ends[modality], len(values)]
            entry["width"][modality] = values.shape[1]
            self._ends[modality] += len(values)
        files.write(json.dumps(entry) + "\n")
        files.flush()
        self._files[key] = entry


def _shorten(path: Path, length: int) -> None:
    """Cut a file to ``length`` bytes; a whole one is not touched: Windows cuts none that another run has mapped."""
    if path.stat().st_size > length:
        os.truncate(path, length)


def _key(path: str) -> tuple[str, int, int]:
    return str(Path(path).absolute()), *stamp_of(path)


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[str], None] | None) -> Iterator[None]:
    """Hold a lock that ends with the process."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(path, timeout=_PATIENCE_SECONDS))
        except TimeoutError:
            if on_wait is not None:
                on_wait(f"waiting for another run that extracts the same features into {path.parent}")
            held.enter_context(WeakFileLock(path))
        yield
