"""Copies of an index's videos that training reads fast: small, with close key frames, audio at training's sample rate.

Everything is in one folder:

    index.parquet    the index of the copies, for training
    prepare.json     the options of the copies
    failed.jsonl     files that could not be copied, if any
    ...              the copies, in the same tree as the originals and with their modification times

Copies are written atomically, so that a killed run can be resumed. A copy is written again if its original has changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crisscross_zoo.errors import ConfigError, CrissCrossError, OutputError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.failures import FAILED_NAME, failure_row
from crisscross_zoo.files.fingerprints import fingerprint_of
from crisscross_zoo.media.encode import CopyOptions, reencode
from crisscross_zoo.media.packets import ignore_damage
from crisscross_zoo.media.scan import scan
from crisscross_zoo.pretrain.index import INDEX_NAME, Index, index_files
from crisscross_zoo.settings import StrPath, check_count
from crisscross_zoo.text import counted
from crisscross_zoo.workers.errors import file_error
from crisscross_zoo.workers.pool import WorkerStartError, usable_cores, work_on_files

SETTINGS_NAME = "prepare.json"

_VERSION = 1
_MODIFIED_TOLERANCE_NS = 2_000_000_000  # the coarsest file systems keep modification times to 2 s


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """Result of :func:`prepare`.

    Attributes:
        index: Path of the index of the copies.
        total: Number of originals.
        usable: Number of copies that can be trained on.
        written: Number of copies written by this run; the others existed already.
        failed: Number of originals that could not be copied, see ``failed.jsonl``.
        original_bytes: Bytes of the originals that have a copy.
        copied_bytes: Bytes of the copies.
    """

    index: str
    total: int
    usable: int
    written: int
    failed: int
    original_bytes: int
    copied_bytes: int

    def summary(self) -> str:
        """Return the report as a line of text."""
        failed = f"; {self.failed} failed, see {FAILED_NAME} beside it" if self.failed else ""
        return (
            f"{self.index}: {self.usable:,} of {counted(self.total, 'file')} usable ({self.written} written now),"
            f" {self.original_bytes / 2**20:.0f} MiB before, {self.copied_bytes / 2**20:.0f} MiB now{failed}"
        )


def prepare(
    index: Index,
    out_dir: StrPath,
    options: CopyOptions | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrepareReport:
    """Copy each usable file of an index with :func:`crisscross_zoo.media.encode.reencode`, and index the copies.

    Args:
        index: An index from :func:`crisscross_zoo.pretrain.index.read_index`.
        out_dir: Folder to write to: new, empty, or of an earlier run with the same options.
        options: Options of the copies.
        workers: Number of encoding workers; None: one per core; 0: none, and a decoder that crashes ends the run.
        on_progress: Called with the number of files done and the total number after each file, first while the files
            are copied, then while the copies are indexed.

    Raises:
        ConfigError: ``out_dir`` has other contents, two files would have the same copy, or an option is out of range.
        OutputError: the folder cannot be written.
        WorkerStartError: the workers do not start.
    """
    options = CopyOptions() if options is None else options
    check_count("workers", workers, least=0)
    folder = Path(os.path.abspath(out_dir))
    _claim(folder, options)
    labels: dict[str, str | None] = {}
    names = index.class_names or ()
    todo: dict[str, tuple[str, int]] = {}
    sizes: dict[str, int] = {}
    for position, info in enumerate(index):
        copy = copy_path(info.path, index.root, folder)
        if copy in labels:
            raise ConfigError(
                f"{info.path}: another file has the same copy, {copy}", remedy="rename one of them"
            )
        labels[copy] = names[index.labels[position]] if index.labels is not None else None
        sizes[copy] = info.size
        if not _is_up_to_date(copy, info.modified_ns):
            todo[info.path] = copy, info.modified_ns
    failures: list[dict[str, str]] = []
    workers = usable_cores() if workers is None else workers
    job = functools.partial(copy_file, root=index.root, folder=str(folder), options=options)
    results = work_on_files(list(todo), job, workers=min(workers, len(todo)), queue_size=64)
    with contextlib.closing(results):
        for done, (_, given, item) in enumerate(results, start=len(labels) - len(todo) + 1):
            copy, modified_ns = todo[str(given)]
            if isinstance(item, WorkerStartError | OutputError):
                raise item
            if isinstance(item, CrissCrossError):
                failures.append(failure_row(str(given), item))
                del labels[copy]
            else:
                os.utime(copy, ns=(modified_ns, modified_ns))
            if on_progress is not None:
                on_progress(done, len(index))
    report = index_files(
        labels,
        folder / INDEX_NAME,
        root=str(folder),
        layout=index.layout,
        split=index.split,
        min_seconds=index.min_seconds,
        workers=workers,
        on_progress=on_progress,
    )
    _write_failures(folder, failures)
    return PrepareReport(
        index=report.out,
        total=len(index),
        usable=report.usable,
        written=len(todo) - len(failures),
        failed=len(failures),
        original_bytes=sum(sizes[copy] for copy in labels),
        copied_bytes=sum(Path(copy).stat().st_size for copy in labels),
    )


def copy_path(path: str, root: str, folder: StrPath) -> str:
    """Return the path of the copy of a file below ``root``; ``.mp4`` is appended unless the name ends with it.

    Raises:
        ConfigError: the file is not below ``root``.
    """
    below = os.path.relpath(path, root)
    if below.split(os.sep, 1)[0] == os.pardir:
        raise ConfigError(f"{path}: is not below {root}", remedy="index the folder that holds it")
    return os.path.join(folder, below if below.endswith(".mp4") else f"{below}.mp4")


def copy_file(
    path: StrPath, *, root: str, folder: str, options: CopyOptions
) -> Iterator[str | CrissCrossError]:
    """Write the copy of one file, and yield its path or the error."""
    copy = copy_path(os.fspath(path), root, folder)
    try:
        reencode(scan(path), copy, options, on_damage=ignore_damage)
        yield copy
    except Exception as error:
        yield file_error(error, path, doing="copying")


def _claim(folder: Path, options: CopyOptions) -> None:
    """Write the options to a new folder, or check that an existing one has the same options."""
    wanted = {"version": _VERSION, **dataclasses.asdict(options)}
    path = folder / SETTINGS_NAME
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        if found != wanted:
            other = ", ".join(f"{n} {found.get(n)}, not {v}" for n, v in wanted.items() if found.get(n) != v)
            raise ConfigError(
                f"{folder}: was prepared with other options ({other})",
                remedy="pass the same, or another --out",
            )
        return
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not an empty folder", remedy="empty it, or name another")
    try:
        write_atomically(path, json.dumps(wanted, indent=2).encode())
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror})", remedy="choose another --out", path=folder
        ) from None


def _is_up_to_date(copy: str, modified_ns: int) -> bool:
    try:
        return abs(fingerprint_of(copy).modified_ns - modified_ns) <= _MODIFIED_TOLERANCE_NS
    except OSError:
        return False


def _write_failures(folder: Path, failures: list[dict[str, str]]) -> None:
    path = folder / FAILED_NAME
    if failures:
        lines = sorted(json.dumps(failure) for failure in failures)
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    else:
        path.unlink(missing_ok=True)
