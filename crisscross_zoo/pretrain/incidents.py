"""Files that ended or hung the process that read them: kept in the run's folder, so that no process reads them again.

A file that crashes its decoder takes a process with it, and samples are the same each time: a run that was merely
started again would die at the same one for ever. What ends a process by itself (a fault, an exit, silence) counts at
once. What may have come from outside (SIGKILL: the machine's memory, or a scheduler, that ends the whole run) counts
the second time at the same file.
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
"""The list, a line an incident; a process other than the first has its rank in the name of its own."""

READING_FILE = "reading.{rank}"
"""What a training process without data processes is reading just then; left behind where it died of that."""

NOTHING = -1
"""The place of no file."""

_NEEDED = 2  # incidents that may have come from outside

_RECORD = struct.Struct("<q")


class Incidents:
    """The list of a run, as one process sees and adds to it.

    Args:
        run: The run's folder, or None: the list is kept in memory.
        files: The data set.
        data_id: Which it is: lines about another are passed over.
        rank: Of this process.

    Attributes:
        skipped: Places of the files that are not read any more.
    """

    def __init__(self, run: Path | None, files: Sequence[Media], *, data_id: str = "", rank: int = 0) -> None:
        self._run, self._files, self._data_id, self._rank = run, files, data_id, rank
        self._doubts: Counter[int] = Counter()
        self.skipped: set[int] = set()
        for path in sorted(run.glob(_ranked(SKIPPED_FILE, "*"))) if run is not None else ():
            for line in path.read_text(encoding="ascii").splitlines(keepends=True):
                if line.endswith("\n") and (values := json.loads(line))["data_id"] == data_id:
                    self._count(values["place"], certain=values["certain"])

    def add(self, place: int, reason: str, *, certain: bool) -> None:
        """Write down what a file did; ``certain``: that it was the file.

        Raises:
            StorageError: the disk is full, over quota or read-only.
        """
        path = self._files[place].path
        self._count(place, certain=certain)
        then = "it is not read any more" if place in self.skipped else "it is tried once more"
        _log.warning("%s: %s; %s", path, reason, then)
        if self._run is None:
            return
        values = {
            "place": place, "path": path, "reason": reason, "certain": certain, "data_id": self._data_id,
        }  # fmt: skip
        name = SKIPPED_FILE if self._rank == 0 else _ranked(SKIPPED_FILE, self._rank)
        with writing(self._run), (self._run / name).open("a", encoding="ascii", newline="\n") as file:
            file.write(json.dumps(values) + "\n")

    def take_left_behind(self) -> None:
        """Add what training processes of an earlier start were reading when they died.

        One process calls this, before any reads.
        """
        for path in sorted(self._run.glob(READING_FILE.format(rank="*"))) if self._run is not None else ():
            record = path.read_bytes()
            place = _RECORD.unpack(record)[0] if len(record) == _RECORD.size else NOTHING
            if 0 <= place < len(self._files):
                self.add(place, "the training process died or hung while it was read", certain=False)
            path.unlink()

    def _count(self, place: int, *, certain: bool) -> None:
        self._doubts[place] += 1
        if certain or self._doubts[place] >= _NEEDED:
            self.skipped.add(place)


class Record:
    """What this very process is reading, where it stays if the process dies; and the end of one that hangs.

    Args:
        run: The run's folder, or None: nothing is recorded.
        rank: Of this process.
        limit: Seconds that a file may take; then the process ends with exit code 1, from outside of Python.
    """

    def __init__(self, run: Path | None, *, rank: int, limit: float) -> None:
        self._run, self._rank, self._limit = run, rank, limit
        self._memory: mmap.mmap | None = None

    @contextlib.contextmanager
    def kept(self) -> Iterator[Record]:
        """Keep the record for as long; what ends in an exception leaves none."""
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

    def note(self, place: int) -> None:
        """Say which file is read from now on, or :data:`NOTHING`."""
        if self._memory is None:
            return
        _RECORD.pack_into(self._memory, 0, place)
        stderr = sys.__stderr__
        if place == NOTHING:
            faulthandler.cancel_dump_traceback_later()
        elif stderr is not None and not stderr.closed:
            faulthandler.dump_traceback_later(self._limit, exit=True, file=stderr)
        else:
            faulthandler.dump_traceback_later(self._limit, exit=True, file=_nowhere())


def _nowhere() -> int:
    """A descriptor that takes what is printed; opened once."""
    global _null
    if _null is None:
        _null = os.open(os.devnull, os.O_WRONLY)
    return _null


_null: int | None = None


def _ranked(name: str, rank: object) -> str:
    return name.replace(".", "*." if rank == "*" else f".{rank}.", 1)
