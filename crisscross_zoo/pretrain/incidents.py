"""Files that crashed or hung the process that read them. They are listed in the run's folder and not read again.

A file that crashes its decoder ends the process too. Since samples are the same each time, a run that was merely
restarted would crash at the same file every time. A crash, an exit or silence counts against the
file at once. A death that may have come from outside (SIGKILL, by the out-of-memory killer or by a scheduler that ends
the whole run) counts only the second time at the same file.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import mmap
import os
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from crisscross_zoo.files.atomic import writing
from crisscross_zoo.media.tracks import Media

_log = logging.getLogger(__name__)

SKIPPED_FILE = "skipped.jsonl"
"""The list, one line per incident. A rank above 0 has a list of its own, with the rank in its name."""

READING_FILE = "reading.{rank}"
"""The file that a training process without workers is reading. It is left behind if the process dies of that."""

NOTHING = -1
"""Stands for the position of a file while no file is read."""

_NEEDED = 2  # uncertain incidents before a file is skipped

_RECORD = struct.Struct("<q")


class Incidents:
    """The incidents of a run: the lists of all ranks are read, and this rank's list is added to.

    Args:
        run: The run's folder, or None: the list is kept in memory.
        files: The data set.
        data_id: Identifies the data set: lines about another one are ignored.
        rank: Rank of this process.

    Attributes:
        skipped: Positions, in ``files``, of the files that are not read any more.
    """

    def __init__(self, run: Path | None, files: Sequence[Media], *, data_id: str = "", rank: int = 0) -> None:
        self._run, self._files, self._data_id, self._rank = run, files, data_id, rank
        self._incidents: Counter[int] = Counter()
        self.skipped: set[int] = set()
        for path in sorted(run.glob(_ranked(SKIPPED_FILE, "*"))) if run is not None else ():
            for line in path.read_text(encoding="ascii").splitlines(keepends=True):
                if line.endswith("\n") and (values := json.loads(line))["data_id"] == data_id:
                    self._count(values["place"], certain=values["certain"])

    def add(self, position: int, reason: str, *, certain: bool) -> None:
        """Add an incident to the list.

        Args:
            position: Position of the file in the data set.
            reason: What happened.
            certain: Whether the file is surely the cause.

        Raises:
            StorageError: the disk is full, over quota or read-only.
        """
        path = self._files[position].path
        self._count(position, certain=certain)
        then = "it is not read any more" if position in self.skipped else "it is tried once more"
        _log.warning("%s: %s; %s", path, reason, then)
        if self._run is None:
            return
        values = {
            "place": position, "path": path, "reason": reason, "certain": certain, "data_id": self._data_id,
        }  # fmt: skip
        name = SKIPPED_FILE if self._rank == 0 else _ranked(SKIPPED_FILE, self._rank)
        with writing(self._run), (self._run / name).open("a", encoding="ascii", newline="\n") as file:
            file.write(json.dumps(values) + "\n")

    def take_left_behind(self) -> None:
        """Add the files that training processes of an earlier start were reading when they died.

        One rank calls this, before any rank reads a file.
        """
        for path in sorted(self._run.glob(READING_FILE.format(rank="*"))) if self._run is not None else ():
            record = path.read_bytes()
            position = _RECORD.unpack(record)[0] if len(record) == _RECORD.size else NOTHING
            if 0 <= position < len(self._files):
                self.add(position, "the training process died or hung while reading it", certain=False)
            path.unlink()

    def _count(self, position: int, *, certain: bool) -> None:
        self._incidents[position] += 1
        if certain or self._incidents[position] >= _NEEDED:
            self.skipped.add(position)


class Record:
    """A record of the file that this process is reading. It survives the process, and ends a process that hangs.

    Args:
        run: The run's folder, or None: nothing is recorded.
        rank: Rank of this process.
        limit: Seconds that a file may take; then a watchdog outside the interpreter ends the process with exit code 1.
    """

    def __init__(self, run: Path | None, *, rank: int, limit: float) -> None:
        self._run, self._rank, self._limit = run, rank, limit
        self._memory: mmap.mmap | None = None

    @contextlib.contextmanager
    def kept(self) -> Iterator[Record]:
        """Keep the record file while the context is open. It is removed at the end, also after an exception."""
        if self._run is None:
            yield self
            return
        path = self._run / READING_FILE.format(rank=self._rank)
        with writing(self._run):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_RECORD.pack(NOTHING))
        try:
            with path.open("r+b") as file, mmap.mmap(file.fileno(), _RECORD.size) as self._memory:
                yield self
        finally:
            self._memory = None
            path.unlink(missing_ok=True)

    def note(self, position: int) -> None:
        """Record the position of the file that is read from now on, or :data:`NOTHING`."""
        if self._memory is None:
            return
        _RECORD.pack_into(self._memory, 0, position)
        stderr = sys.__stderr__
        if position == NOTHING:
            faulthandler.cancel_dump_traceback_later()
        elif stderr is not None and not stderr.closed:
            faulthandler.dump_traceback_later(self._limit, exit=True, file=stderr)
        else:
            faulthandler.dump_traceback_later(self._limit, exit=True, file=_nowhere())


def _nowhere() -> int:
    """Return a descriptor of the null device; it is opened once."""
    global _null
    if _null is None:
        _null = os.open(os.devnull, os.O_WRONLY)
    return _null


_null: int | None = None


def _ranked(name: str, rank: object) -> str:
    return name.replace(".", "*." if rank == "*" else f".{rank}.", 1)
