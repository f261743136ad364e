"""The cache of features on disk: one growing matrix per modality, which is mapped into memory.

The name of a store's folder is a hash of settings and weights, so protocols, folds and runs with the same settings and
weights share it. A file in it is identified by path, size and modification time. The folder has::

    identity.json          settings and weights
    files.jsonl            a line for each file, with the indices of its rows
    video.f32, audio.f32   rows of float32, one after another

The rows of a file are written before its line, and rows without a line are truncated before new rows are written. A
killed run therefore loses only the files that it was extracting.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from crisscross_zoo.errors import CrissCrossError, OutputError
from crisscross_zoo.evaluate.rows import Floats, Ints
from crisscross_zoo.extract.extractor import FeatureExtractor
from crisscross_zoo.features import Features
from crisscross_zoo.files.atomic import write_atomically, writing
from crisscross_zoo.files.fingerprints import fingerprint_of

FEATURES_FORMAT = 1
"""Incremented when the same settings and weights give other features, so that older features are not used."""

_IDENTITY_FILE, _FILES_FILE, _LOCK_FILE = "identity.json", "files.jsonl", "lock"
_BYTES = 4
_PATIENCE_SECONDS = 0.2  # after this time, waiting for another run is reported


class FeatureStore:
    """A folder of features with the settings and weights of one extractor.

    Args:
        folder: The cache folder; this store's folder is created in it.
        extractor: Extracts the features that are not in the store yet.
        weights: sha256 of its weights by modality. Default: those of the extractor, which differ from those of the
            checkpoint file if an encoder was passed to the extractor.

    Attributes:
        folder: The folder of this store.

    Raises:
        OutputError: the store is damaged.
        OSError: the store cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        extractor: FeatureExtractor,
        *,
        weights: Mapping[str, str | None] | None = None,
    ) -> None:
        self.extractor = extractor
        if weights is None:
            weights = {name: entry["sha256"] for name, entry in extractor.weights.items()}
        identity = {"format": FEATURES_FORMAT, "settings": extractor.settings, "weights": dict(weights)}
        text = json.dumps(identity, sort_keys=True, default=list)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _IDENTITY_FILE).exists():
            write_atomically(self.folder / _IDENTITY_FILE, (text + "\n").encode())
        self._kept = _KeptRows(self.folder, tuple(extractor.encoders))
        self._kept.load()

    def __len__(self) -> int:
        """Return the number of files in the store."""
        return len(self._kept.files)

    def extract(
        self,
        paths: Sequence[str],
        *,
        on_file: Callable[[int, int], None] | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> dict[str, CrissCrossError]:
        """Extract the files that are not in the store yet; if another process is doing so, wait for it first.

        Args:
            paths: Files.
            on_file: Called with the number of files that are done, and the number of files.
            on_wait: Called with a line of text when another process has to be waited for.

        Returns:
            The errors by file. Nothing is stored of a file that failed, so the next call tries it again.

        Raises:
            StorageError: the disk is full, over quota or read-only; everything written before remains.
            OutputError: the store is damaged.
        """
        wanted = list(dict.fromkeys(paths))
        failures: dict[str, CrissCrossError] = {}
        keys: dict[str, tuple[str, int, int]] = {}
        for path in wanted:
            try:
                keys[path] = _key(path)
            except OSError as error:
                failures[path] = CrissCrossError(error.strerror or str(error), path=path)
        first = {key: path for path, key in reversed(keys.items())}  # several paths may name one file
        todo = [path for path, key in keys.items() if key not in self._kept.files and first[key] == path]
        done = len(wanted) - len(todo)
        if on_file is not None:
            on_file(done, len(wanted))
        if not todo:
            return failures
        with writing(self.folder), contextlib.ExitStack() as stack:
            stack.enter_context(_locked(self.folder / _LOCK_FILE, on_wait))
            append = stack.enter_context(self._kept.appending())
            todo = [path for path in todo if keys[path] not in self._kept.files]
            for file, features in self.extractor.stream(todo):
                done += 1
                name = os.fspath(file)
                if isinstance(features, CrissCrossError):
                    failures[name] = features
                elif lacking := features.metadata["missing"]:
                    failures[name] = CrissCrossError(f"has no {lacking[0]}", path=name)
                else:
                    append(keys[name], features)
                if on_file is not None:
                    on_file(done, len(wanted))
        return failures | {p: failures[first[k]] for p, k in keys.items() if first[k] in failures}

    def rows(self, modality: str, paths: Sequence[str]) -> tuple[tuple[Floats, Ints], Ints]:
        """Return the rows of files in the store, without reading them.

        Args:
            modality: "video" or "audio".
            paths: Files; each must be in the store.

        Returns:
            The matrix (memory-mapped, float32) with the indices of the files' rows, and for each of these rows the
            index of its file in ``paths``, ascending.
        """
        ranges = [self._kept.files[_key(path)][modality] for path in paths]
        index = [np.arange(first, first + count) for first, count in ranges]
        owners = np.repeat(np.arange(len(paths)), [count for _, count in ranges])
        return (self._kept.matrix(modality), np.concatenate(index)), owners

    def damage(self, paths: Sequence[str]) -> list[dict[str, str]]:
        """Return path and reason of each of some files in the store that could only be read partly."""
        found = {path: self._kept.files[_key(path)]["damage"] for path in paths}
        return [{"path": path, "reason": "; ".join(phrases)} for path, phrases in found.items() if phrases]


class _KeptRows:
    """The rows in a store's folder, and the files to which they belong.

    Attributes:
        files: The entry of each file in ``files.jsonl``, by :func:`_key`.
    """

    def __init__(self, folder: Path, modalities: Sequence[str]) -> None:
        self.files: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._folder = folder
        self._ends = dict.fromkeys(modalities, 0)
        self._widths: dict[str, int] = {}

    def matrix(self, modality: str) -> Floats:
        """Map all rows of a modality into memory."""
        shape = self._ends[modality], self._widths[modality]
        matrix: Floats = np.memmap(self._matrix_file(modality), np.float32, "r", shape=shape)
        return matrix

    @contextlib.contextmanager
    def appending(self) -> Iterator[Callable[[tuple[str, int, int], Features], None]]:
        """Load rows that other runs added, truncate rows of a killed run, and yield a function that adds a file."""
        self.load()
        self._cut()
        with contextlib.ExitStack() as stack:
            files = stack.enter_context(
                (self._folder / _FILES_FILE).open("a", encoding="utf-8", newline="\n")
            )
            matrices = {m: stack.enter_context(self._matrix_file(m).open("ab")) for m in self._ends}
            yield lambda key, features: self._append(key, features, files, matrices)

    def load(self) -> None:
        """Read from ``files.jsonl`` which rows belong to which file.

        Raises:
            OutputError: the folder is damaged.
        """
        path = self._folder / _FILES_FILE
        self.files.clear()
        if not path.exists():
            return
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # the incomplete last line of a killed run
            try:
                entry = json.loads(line)
                self.files[entry["path"], entry["bytes"], entry["modified_ns"]] = entry
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
                    f"is shorter than {_FILES_FILE} states",
                    remedy="delete its folder",
                    path=file,
                )

    def _cut(self) -> None:
        """Truncate rows without a complete line, which a killed run has left."""
        path = self._folder / _FILES_FILE
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
                raise OutputError("has rows of another length", remedy="delete it", path=self._folder)
            file.write(values.tobytes())
            file.flush()
            entry[modality] = [self._ends[modality], len(values)]
            entry["width"][modality] = values.shape[1]
            self._ends[modality] += len(values)
        files.write(json.dumps(entry) + "\n")
        files.flush()
        self.files[key] = entry

    def _matrix_file(self, modality: str) -> Path:
        return self._folder / f"{modality}.f32"


def _shorten(path: Path, length: int) -> None:
    """Truncate a longer file to ``length`` bytes; others are not touched: Windows truncates no mapped file."""
    if path.stat().st_size > length:
        os.truncate(path, length)


def _key(path: str) -> tuple[str, int, int]:
    return str(Path(path).absolute()), *fingerprint_of(path)


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[str], None] | None) -> Iterator[None]:
    """Hold a lock that is released when the process ends."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(path, timeout=_PATIENCE_SECONDS))
        except TimeoutError:
            if on_wait is not None:
                on_wait(f"waiting for another run that extracts the same features into {path.parent}")
            held.enter_context(WeakFileLock(path))
        yield
