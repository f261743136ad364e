"""An index of a data set's files: scanned once, by several workers, and kept as Parquet, so that training starts fast.

The result of each scan is appended to a partial index beside the index, so that a killed run can be resumed. Whether a
file is usable is decided when the index is written, from the rows of the partial index and of the previous index. The
index's bytes therefore depend on the files and the options alone.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import os
import stat
import sys
import tempfile
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import ConfigError, CrissCrossError, OutputError
from crisscross_zoo.files.atomic import atomic_path, storage_error, write_atomically, writing
from crisscross_zoo.files.find import VIDEO_SUFFIXES, common_folder, find_media
from crisscross_zoo.files.fingerprints import Fingerprint, fingerprint_of
from crisscross_zoo.files.remote import is_url
from crisscross_zoo.files.trees import KINETICS_SOUND_CLASSES, class_folders, split_folder
from crisscross_zoo.media.scan import scan_file
from crisscross_zoo.media.tracks import COLUMNS, Media
from crisscross_zoo.settings import StrPath, check_choice
from crisscross_zoo.text import counted, duration
from crisscross_zoo.workers.pool import WorkerStartError, usable_cores, work_on_files

INDEX_VERSION = 4
"""Version of the file format. An index of another version is not read; its files are scanned again."""

INDEX_NAME = "index.parquet"
"""Name of the index in a folder of prepared copies or of shards."""

MIN_SECONDS = 1.1
"""Video, audio and their overlap must be longer, in seconds, as in the released code's list of Kinetics400."""

LAYOUTS = ("files", "kinetics400", "kinetics-sound", "audioset")
"""Folder layouts of a data set:

- files: any folders, files and patterns.
- kinetics400: ``ROOT/SPLIT/CLASS/VIDEO``.
- kinetics-sound: the same tree; only its 32 classes are indexed.
- audioset: one folder, or ``ROOT/SPLIT``, with clips at any depth.
"""

OK, NO_AUDIO, NO_VIDEO, TOO_SHORT, UNREADABLE = (
    "ok",
    "no audio",
    "no video",
    "too short",
    "unreadable",
)
"""Values of the column ``status``, as they are stored. Pretraining skips all files but those with the first."""

SHARED_ROWS = 1 << 16
"""An index with this many rows or more is memory-mapped from a file instead of copied into each process."""

_TREES = ("kinetics400", "kinetics-sound")
_EXAMPLES = 3  # names of skipped files that a report keeps for each status
_ROW_GROUP = 1 << 16
_ARROW_TYPES = {int: "int64", float: "float64", bool: "bool_", str: "string"}
_METADATA_KEY = b"crisscross_zoo"


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """Result of :func:`build_index`.

    Attributes:
        out: Path of the index.
        total: Number of files in the index.
        usable: Number of files whose video and audio are long enough.
        damaged: Number of usable files that are partly damaged.
        hours: Total length of the usable files, in hours.
        skipped: Number of files that are not usable, by status.
        examples: Up to three of the files that are not usable, by status: ``path: reason``.
        classes: Number of classes, or None if the layout has none.
        outside: Videos of the split that are not in the index: in no class folder, or of another class.
        scanned: Number of files opened by this run; the others are unchanged since an earlier run.
    """

    out: str
    total: int
    usable: int
    damaged: int
    hours: float
    skipped: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    classes: int | None
    outside: int
    scanned: int

    def summary_lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [
            f"{self.out}: {self.usable:,} of {counted(self.total, 'file')} usable, {duration(3600 * self.hours)}"
            + (f", {counted(self.classes, 'class')}" if self.classes is not None else "")
            + f" ({self.scanned} scanned, {self.total - self.scanned} unchanged)"
        ]
        if self.damaged:
            lines.append(f"usable, but partly damaged: {self.damaged}")
        for status, count in self.skipped.items():
            shown = self.examples[status]
            more = f" and {count - len(shown)} more" if count > len(shown) else ""
            lines.append(f"skipped, {status}: {count} ({', '.join(shown)}{more})")
        if self.outside:
            lines.append(f"not in the index, outside the folders of its classes: {self.outside}")
        return lines


class Index(Sequence[Media]):
    """The usable files of an index, in its order. ``index[i]`` returns the Media of file i, with an absolute path.

    A large index (:data:`SHARED_ROWS`) is memory-mapped from a file in the system's folder of temporary files, which
    all processes of a machine share, under any start method. Pickling it passes the file's name, not the rows.

    Attributes:
        path: Path of the index.
        root: The folder that the paths in the index are relative to.
        layout: One of :data:`LAYOUTS`.
        split: Folder of the split, or None.
        class_names: Names of the classes, sorted, or None if the layout has none.
        min_seconds: Video, audio and their overlap are longer than this in usable files, in seconds.
    """

    def __init__(
        self, path: str, root: str, metadata: Mapping[str, Any], table: Any, digest: str | None = None
    ) -> None:
        self.path = path
        self.root = root
        self.layout: str = metadata["layout"]
        self.split: str | None = metadata["split"]
        self.min_seconds: float = metadata["min_seconds"]
        classes = metadata["classes"]
        self.class_names: tuple[str, ...] | None = None if classes is None else tuple(classes)
        self._table: Any = table
        self._digest = digest

    @functools.cached_property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class of each file, int64, shape (n,), or None if the layout has none. Pretraining does not use it."""
        if self.class_names is None:
            return None
        compute = _pyarrow().compute
        labels = compute.index_in(self._table["label"], value_set=_pyarrow().array(self.class_names))
        return np.asarray(labels.to_numpy(), np.int64)

    @functools.cached_property
    def seconds(self) -> npt.NDArray[np.float64]:
        """Length of each file in seconds, float64, shape (n,)."""
        return np.asarray(self._table["duration"].to_numpy(), np.float64)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("labels", "seconds")}
        return state if self._digest is None else {**state, "_table": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._digest is not None:
            self._table = _map_table(Path(self.path), self._digest)

    @typing.overload
    def __getitem__(self, position: int) -> Media: ...

    @typing.overload
    def __getitem__(self, position: slice) -> list[Media]: ...

    def __getitem__(self, position: int | slice) -> Media | list[Media]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        position = range(len(self))[position]
        row = {name: self._table[name][position].as_py() for name in (*COLUMNS, "path_bytes")}
        row["path"] = _path_of(row, self.root)
        return Media.from_row(row)

    def __repr__(self) -> str:
        return f"Index({self.path!r}: {counted(len(self), 'file')}, {duration(float(self.seconds.sum()))})"


def build_index(
    inputs: Sequence[str],
    out: StrPath,
    *,
    layout: str = "files",
    split: str | None = None,
    list_file: str | None = None,
    workers: int | None = None,
    min_seconds: float = MIN_SECONDS,
    on_progress: Callable[[int, int], None] | None = None,
    rescan: bool = False,
) -> IndexReport:
    """Scan the files of a data set and write the index for training.

    A file that an earlier run could read, even if that run was killed, is not opened again while its size and
    modification time are unchanged.

    Args:
        inputs: With layout "files": files, folders (searched for video files) and glob patterns. With the other
            layouts: the one folder ROOT.
        out: The index to write, Parquet.
        layout: One of :data:`LAYOUTS`.
        split: Folder below ROOT. Default: "train" with a Kinetics layout, ROOT itself with "audioset".
        list_file: With layout "files": a file with one input per line.
        workers: Number of scanning workers; None: one per core; 0: none, and a decoder that crashes ends the run.
        min_seconds: Video, audio and their overlap must be longer than this to be usable, in seconds.
        on_progress: Called with the number of files done and the total number, after each file.
        rescan: Open every file again.

    Raises:
        ConfigError: an option is not allowed, pyarrow is missing, an input is a URL, the folders do not have the
            layout, or ``out`` is another file.
        OutputError: ``out`` cannot be written.
        WorkerStartError: the workers do not start.
    """
    _pyarrow()
    check_choice("layout", layout, LAYOUTS)
    if not 0 <= min_seconds < float("inf"):
        raise ConfigError(f"min_seconds={min_seconds!r} is not allowed", remedy="give seconds, 0 or more")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers={workers!r} is not allowed", remedy="give 0 or more")
    _check_local(inputs)
    for name in inputs if layout == "files" else ():
        if not glob.has_magic(name) and not os.path.exists(name):
            raise ConfigError(f"{name}: no such file or folder", remedy="check the path")
    if Path(out).suffix.lower() != ".parquet" and not os.path.isdir(out):
        raise ConfigError(f"{out}: an index is a Parquet file", remedy=f"name it {Path(out).stem}.parquet")
    if split is None and layout in _TREES:
        split = "train"
    root, labels, outside = _find(inputs, layout, split, list_file)
    return index_files(
        labels,
        out,
        root=root,
        layout=layout,
        split=split,
        min_seconds=min_seconds,
        outside=outside,
        workers=workers,
        on_progress=on_progress,
        rescan=rescan,
    )


def index_files(
    labels: Mapping[str, str | None],
    out: StrPath,
    *,
    root: str,
    layout: str,
    split: str | None,
    min_seconds: float,
    outside: int = 0,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    rescan: bool = False,
) -> IndexReport:
    """Scan given files and write their index. :func:`build_index` finds the files and calls this.

    Args:
        labels: Absolute paths, with the class of each, or None.
        out: The index to write.
        root: The folder that the paths in the index are relative to.
        layout: Layout to store in the index.
        split: Split to store in the index.
        min_seconds: See :func:`build_index`.
        outside: Number of videos that are not indexed, for the report.
        workers: See :func:`build_index`.
        on_progress: See :func:`build_index`.
        rescan: See :func:`build_index`.
    """
    target = Path(os.path.abspath(out))
    earlier = _earlier_rows(target, rescan=rescan)
    partial = _PartialIndex(target.with_name(f".{target.name}.part.jsonl"), fresh=rescan)
    with partial:
        earlier.update(partial.rows)
        partial.rows.clear()
        rows: dict[str, _Row] = {}
        for path in labels:
            row = earlier.get(path)
            if row is not None and (row[_column("size")], row[_column("modified_ns")]) == _fingerprint(path):
                rows[path] = row
        del earlier
        todo = [path for path in labels if path not in rows]
        failed: dict[str, CrissCrossError] = {}
        workers = usable_cores() if workers is None else workers
        results = work_on_files(todo, scan_file, workers=min(workers, len(todo)), queue_size=64)
        with contextlib.closing(results):
            for _, given, item in results:
                if isinstance(item, WorkerStartError):
                    raise item
                if isinstance(item, CrissCrossError):
                    failed[str(given)] = item
                else:
                    rows[str(given)] = _row(item.to_row())
                    partial.add(rows[str(given)])
                if on_progress is not None:
                    on_progress(len(rows) + len(failed), len(labels))
    report = _write(
        target,
        rows,
        failed,
        labels,
        root=root,
        metadata={"layout": layout, "split": split, "min_seconds": float(min_seconds)},
        outside=outside,
        scanned=len(todo),
    )
    partial.path.unlink(missing_ok=True)
    return report


def read_index(path: StrPath, *, root: StrPath | None = None) -> Index:
    """Read an index's usable files.

    Args:
        path: An index that :func:`build_index` wrote.
        root: The folder that the files are in now, if they were moved.

    Raises:
        ConfigError: pyarrow is missing, the file does not exist or is not an index, or no file in it is usable.
    """
    path = Path(path)
    parquet, metadata, digest = _open_parquet(path)
    if metadata["version"] != INDEX_VERSION or not {*COLUMNS} <= {*parquet.schema_arrow.names}:
        raise ConfigError(
            f"{path}: is an index of another version of this package", remedy="build it again from the files"
        )
    large = parquet.metadata.num_rows >= SHARED_ROWS
    if large:
        del parquet  # frees its bytes
        table = _map_table(path, digest)
    else:
        with _an_index(path):
            table = _usable(parquet.read(use_threads=False)).combine_chunks()
    if table.num_rows == 0:
        raise ConfigError(
            f"{path}: none of its files is usable",
            remedy="crisscross-pretrain index prints the reasons; index other files",
        )
    return Index(
        os.fspath(path),
        os.path.abspath(metadata["root"] if root is None else root),
        metadata,
        table,
        digest if large else None,
    )


# --- which files -------------------------------------------------------------------------------------------------


def _check_local(paths: Iterable[str]) -> None:
    for path in paths:
        if is_url(path):
            raise ConfigError(
                f"{path}: pretraining reads local files", remedy="copy them, and pass the copies"
            )


def _find(
    inputs: Sequence[str], layout: str, split: str | None, list_file: str | None
) -> tuple[str, dict[str, str | None], int]:
    """Return the root, each file's absolute path with its label, and the number of videos not taken."""
    if layout == "files":
        if split is not None:
            raise ConfigError(
                f"split={split!r}: layout 'files' has no splits", remedy="name the folder itself as input"
            )
        found = find_media(inputs, list_file=list_file, suffixes=VIDEO_SUFFIXES)
        _check_local(found)
        existing = [p for p in found if os.path.exists(p)]
        folders = [p for p in inputs if os.path.isdir(p)]
        root = str(common_folder([*folders, *existing] or found))
        return root, {os.path.abspath(p): None for p in found}, 0
    root, folder = _split_folder(inputs, layout, split, list_file)
    found = [os.path.abspath(p) for p in find_media([folder], suffixes=VIDEO_SUFFIXES)]
    if layout == "audioset":
        return root, dict.fromkeys(found), 0
    wanted = KINETICS_SOUND_CLASSES if layout == "kinetics-sound" else None
    classes = class_folders(folder, wanted, spaced=True)
    labels: dict[str, str | None] = {
        path: classes[below[0]]
        for path in found
        if (below := Path(os.path.relpath(path, folder)).parts)[0] in classes and len(below) > 1
    }
    where = os.path.join(folder, "CLASS", "VIDEO")
    if not labels and layout == "kinetics400":
        raise ConfigError(f"{folder}: has videos, but no class folders", remedy=f"arrange them as {where}")
    if layout == "kinetics-sound":
        missing = sorted({*KINETICS_SOUND_CLASSES} - {*labels.values()})
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ConfigError(
                f"{folder}: has no videos of {len(missing)} of the 32 classes of Kinetics-Sound: {names}",
                remedy=f"arrange them as {where} (spaces or underscores), or use layout 'kinetics400'",
            )
    return root, labels, len(found) - len(labels)


def _split_folder(
    inputs: Sequence[str], layout: str, split: str | None, list_file: str | None
) -> tuple[str, str]:
    if len(inputs) != 1 or list_file is not None:
        raise ConfigError(
            f"layout {layout!r} takes one folder", remedy="name the data set's root, or use layout 'files'"
        )
    root = os.path.abspath(inputs[0])
    if not os.path.isdir(root):
        raise ConfigError(f"{root}: no such folder", remedy="name the data set's root")
    if split is None:
        return root, root
    below = "CLASS/VIDEO" if layout in _TREES else "VIDEO"
    return root, split_folder(root, [split], below=below, others=True)


def _fingerprint(path: str) -> Fingerprint | None:
    try:
        return fingerprint_of(path)
    except (OSError, ValueError):
        return None


# --- rows of earlier runs ----------------------------------------------------------------------------------------

_Row = tuple[Any, ...]
"""A row's values in the order of ``COLUMNS``. A tuple takes far less memory than a dictionary, for a million rows."""


def _column(name: str) -> int:
    return list(COLUMNS).index(name)


def _row(values: Mapping[str, Any]) -> _Row:
    return tuple(sys.intern(v) if isinstance(v, str) else v for v in (values[name] for name in COLUMNS))


class _PartialIndex:
    """The rows that a run has scanned so far: a line of JSON with the columns' names, then one line per file."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.rows: dict[str, _Row] = {}
        self._fresh = fresh

    def __enter__(self) -> _PartialIndex:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            end = 0 if self._fresh else self._read()
            self._file = self.path.open("ab")
            self._file.truncate(end)
        except OSError as error:
            raise _not_written(self.path.parent, error) from None
        if end == 0:
            self._append([INDEX_VERSION, *COLUMNS])
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: _Row) -> None:
        self._append(row)

    def _append(self, values: Sequence[Any]) -> None:
        try:
            self._file.write(json.dumps(values).encode("ascii") + b"\n")
            self._file.flush()
        except OSError as error:
            raise _not_written(self.path.parent, error) from None

    def _read(self) -> int:
        """Read the whole lines and return where the last one ends, or 0 if another version wrote them."""
        end, path = 0, _column("path")
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    values = json.loads(line)
                except ValueError:
                    break
                if end == 0 and values != [INDEX_VERSION, *COLUMNS]:
                    return 0
                if not line.endswith(b"\n") or len(values) != len(COLUMNS) + (end == 0):
                    break
                if end > 0:
                    row = _row(dict(zip(COLUMNS, values, strict=True)))
                    self.rows[row[path]] = row
                end += len(line)
        return end


def _earlier_rows(out: Path, *, rescan: bool) -> dict[str, _Row]:
    """Return the previous index's rows of files that could be read, by absolute path."""
    if not os.path.lexists(out):
        return {}
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder", remedy="name a file, such as index.parquet")
    table, metadata = _read_table(out)  # raises if it is another file
    if rescan or metadata["version"] != INDEX_VERSION or not {*COLUMNS} <= {*table.column_names}:
        return {}
    rows = {}
    for batch in table.to_batches(max_chunksize=4096):
        for values in batch.to_pylist():
            if values["status"] != UNREADABLE:
                values["path"] = _path_of(values, metadata["root"])
                rows[values["path"]] = _row(values)
    return rows


# --- the index file ----------------------------------------------------------------------------------------------


def _judge(info: Media, min_seconds: float) -> tuple[str, str | None]:
    """Return a readable file's status and, if it is not usable, the reason."""
    video, audio = info.video_span, info.audio_span
    if audio is None:
        return NO_AUDIO, info.lacks("audio").reason
    if video is None:
        return NO_VIDEO, info.lacks("video").reason
    overlap = (max(video[0], audio[0]), min(video[1], audio[1]))
    for what, (start, end) in (
        ("its video lasts", video),
        ("its audio lasts", audio),
        ("its video and audio overlap for", overlap),
    ):
        if end - start <= min_seconds:
            return TOO_SHORT, f"{what} {max(0.0, end - start):.2f} s, not more than {min_seconds:g} s"
    return OK, None


def _write(
    out: Path,
    rows: Mapping[str, _Row],
    failed: Mapping[str, CrissCrossError],
    labels: Mapping[str, str | None],
    *,
    root: str,
    metadata: Mapping[str, Any],
    outside: int,
    scanned: int,
) -> IndexReport:
    """Write the index and return the report on it."""
    pa = _pyarrow()
    if metadata["layout"] == "kinetics-sound":
        classes: list[str] | None = sorted(KINETICS_SOUND_CLASSES)
    else:
        classes = sorted({n for n in labels.values() if n is not None}) or None
    short = {_under(root, path): path for path in labels}
    names = ("path", "path_bytes", "status", "reason", "label", *(n for n in COLUMNS if n != "path"))
    columns: dict[str, list[Any]] = {name: [] for name in names}
    statuses: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    damaged, seconds = 0, 0.0
    for name in sorted(short, key=os.fsencode):
        path = short[name]
        values: dict[str, Any] = dict.fromkeys(COLUMNS)
        if path in rows:
            values.update(zip(COLUMNS, rows[path], strict=True))
            info = Media.from_row(values)
            status, reason = _judge(info, metadata["min_seconds"])
            if status == OK:
                damaged += bool(info.damage)
                seconds += info.duration
        else:
            error = failed[path]
            status, reason = UNREADABLE, f"{type(error).__name__}: {error.reason}"
            values["size"], values["modified_ns"] = _fingerprint(path) or (None, None)
        text = _text(name)
        values.update(
            path=text,
            path_bytes=None if text == name else os.fsencode(name),
            status=status,
            reason=reason,
            label=labels[path],
        )
        for column, value in values.items():
            columns[column].append(_text(value) if isinstance(value, str) else value)
        statuses[status] += 1
        if status != OK and len(shown := examples.setdefault(status, [])) < _EXAMPLES:
            shown.append(f"{name}: {reason}")
    kinds = {"path_bytes": "binary", **{name: _ARROW_TYPES[kind] for name, kind in COLUMNS.items()}}
    about = {"version": INDEX_VERSION, "root": root, "classes": classes, **metadata}
    schema = pa.schema([(name, getattr(pa, kinds.get(name, "string"))()) for name in names])
    schema = schema.with_metadata({_METADATA_KEY: json.dumps(about, sort_keys=True)})
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(
        pa.table(columns, schema=schema), sink, compression="zstd", version="2.6", row_group_size=_ROW_GROUP
    )
    try:
        write_atomically(out, sink.getvalue().to_pybytes())
    except OSError as error:
        raise _not_written(out, error) from None
    return IndexReport(
        out=str(out),
        total=len(short),
        usable=statuses[OK],
        damaged=damaged,
        hours=seconds / 3600,
        skipped={s: statuses[s] for s in (NO_AUDIO, NO_VIDEO, TOO_SHORT, UNREADABLE) if statuses[s]},
        examples={status: tuple(shown) for status, shown in examples.items()},
        classes=None if classes is None else len(classes),
        outside=outside,
        scanned=scanned,
    )


def _read_table(path: Path) -> tuple[Any, dict[str, Any]]:
    """Read an index of any version."""
    parquet, metadata, _ = _open_parquet(path)
    with _an_index(path):
        return parquet.read(use_threads=False), metadata


def _open_parquet(path: Path) -> tuple[Any, dict[str, Any], str]:
    """Return the opened index, of any version, its metadata and its sha256. The file is closed again."""
    pa = _pyarrow()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror})", remedy="build it with crisscross-pretrain index"
        ) from None
    with _an_index(path):
        parquet = pa.parquet.ParquetFile(pa.BufferReader(data))
        metadata = json.loads((parquet.schema_arrow.metadata or {})[_METADATA_KEY])
    return parquet, metadata, hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _an_index(path: Path) -> Iterator[None]:
    """Raise a :class:`ConfigError` if the code in the context finds that the file is not an index."""
    try:
        yield
    except (_pyarrow().ArrowException, KeyError, ValueError):
        raise ConfigError(f"{path}: is not an index of this package", remedy="name another file") from None


def _usable(table: Any) -> Any:
    """Return the rows of the usable files, with the columns that are read."""
    names = dict.fromkeys((*COLUMNS, "path_bytes", "label"))
    return table.filter(_pyarrow().compute.equal(table["status"], OK)).select([*names])


def _map_table(path: Path, digest: str) -> Any:
    """Memory-map an index's usable files from a file in Arrow's format, which is written if it does not exist.

    Raises:
        ConfigError: the index has changed, or other users can write to the folder.
        StorageError: the disk is full.
    """
    pa = _pyarrow()
    mapped = _own_folder() / f"index-{digest}.arrow"
    try:
        return pa.ipc.open_file(pa.memory_map(os.fspath(mapped))).read_all()
    except (OSError, pa.ArrowInvalid):
        pass  # it does not exist, or a cleaner or a failing disk has damaged it
    parquet, _, now = _open_parquet(path)
    if now != digest:
        raise ConfigError(f"{path}: has changed since it was opened", remedy="start again")
    with (
        atomic_path(mapped, by=str(os.getpid())) as temporary,
        _an_index(path),
        contextlib.ExitStack() as stack,
    ):
        writer: Any = None
        for group in range(
            parquet.num_row_groups
        ):  # one group at a time, so that the whole index is never in this process's memory
            table = _usable(parquet.read_row_group(group, use_threads=False))
            if writer is None:
                sink = stack.enter_context(pa.OSFile(os.fspath(temporary), "wb"))
                writer = stack.enter_context(pa.ipc.new_file(sink, table.schema))
            writer.write_table(table.combine_chunks())
    pa.default_memory_pool().release_unused()
    return pa.ipc.open_file(pa.memory_map(os.fspath(mapped))).read_all()


def _own_folder() -> Path:
    """Return a folder for temporary files that are kept, which no other user can write to."""
    user = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir()) / ("crisscross-zoo" if user is None else f"crisscross-zoo-{user}")
    with writing(folder.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or (
        user is not None and (status.st_uid != user or status.st_mode & 0o022)
    ):
        raise ConfigError(f"{folder}: others can write to it", remedy="set TMPDIR to a folder of your own")
    return folder


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "an index needs pyarrow, which is not installed",
            remedy='pip install "crisscross-zoo[pretrain]"',
        ) from None
    return pa


def _under(root: str, path: str) -> str:
    """Return ``path`` relative to ``root``, with slashes, or unchanged if it is not under ``root``."""
    inside = path.startswith(root.rstrip(os.sep) + os.sep)
    return os.path.relpath(path, root).replace(os.sep, "/") if inside else path


def _path_of(row: Mapping[str, Any], root: str) -> str:
    """Return the absolute path of a row's file, with the system's separators."""
    under = row["path"] if row["path_bytes"] is None else os.fsdecode(row["path_bytes"])
    return os.path.join(root, under.replace("/", os.sep))


def _text(value: str) -> str:
    """Return the string with escapes for what is not UTF-8, which Arrow does not accept."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _not_written(path: Path, error: OSError) -> OutputError:
    return storage_error(error, path) or OutputError(
        f"cannot be written ({error.strerror})", remedy="choose another --out", path=path
    )
