"""The lists of an output folder: ``index.csv``, what is in it, and ``failed.jsonl``, what failed.

Of several processes that share the work on one folder, each writes its own part of the lists; :class:`Lists` without a
part takes them together.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from crisscross_zoo.errors import CrissCrossError, OutputError
from crisscross_zoo.files import remote
from crisscross_zoo.files.atomic import writing
from crisscross_zoo.files.failures import FAILED_NAME
from crisscross_zoo.files.store import Folder

INDEX_NAME = "index.csv"
PARTS_NAME = ".parts"
"""Folder of the lists' parts, one folder a process, until a run alone on the output folder takes them in."""

# File names need not be text: what is not UTF-8 (on Windows, UTF-16) in one goes through as it is.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": sys.getfilesystemencodeerrors()}

_INDEX_COLUMNS = (
    "input", "output", "duration", "video_rows", "video_dim", "audio_rows", "audio_dim", "missing", "warnings", "notes",
)  # fmt: skip


class Lists:
    """``index.csv`` and ``failed.jsonl`` of an output folder.

    What earlier runs with other inputs left in them stays, as long as the output, or the input that failed, is there.

    Args:
        folder: The output folder.
        part: Name of this process's own part of the lists, where several work on the folder at once. None: the lists
            themselves, with all parts that are there; where those disagree, the one written last is right.

    Raises:
        OutputError: one of them is there and was not written here, or a store cannot be asked.
        OSError: one of them cannot be read.
    """

    def __init__(self, folder: Folder, part: str | None = None) -> None:
        self._folder = folder
        self._place = "" if part is None else f"{PARTS_NAME}/{part}/"  # what names of the lists begin with
        self._rows: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, dict[str, str]] = {}
        self._read(self._place)
        if part is not None:
            folder.remove(self._place + INDEX_NAME)
            return
        # A part is there once its process is done with all its inputs.
        for index in folder.oldest_first(f"{PARTS_NAME}/*/{INDEX_NAME}"):
            self._read(index.removesuffix(INDEX_NAME))

    def _read(self, place: str) -> None:
        try:
            index, failed = (
                self._folder.read(place + name).decode(**_TEXT) if self._folder.exists(place + name) else ""
                for name in (INDEX_NAME, FAILED_NAME)
            )
            if index:
                table = csv.DictReader(io.StringIO(index, newline=""))
                if tuple(table.fieldnames or ()) != _INDEX_COLUMNS:
                    raise ValueError("other columns")
                for row in table:
                    self._rows[row["output"]] = row
                    self._failures.pop(row["input"], None)
            for line in failed.splitlines():
                failure = json.loads(line)
                if not remote.is_gone(failure["path"]):
                    self._rows.pop(failure.get("output", ""), None)
                    self._failures[remote.unsigned(failure["path"])] = failure
        except CrissCrossError:
            raise
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise OutputError(
                f"{INDEX_NAME} or {FAILED_NAME} there was not written by this command ({error})",
                remedy="choose another --out, or move it away",
                path=self._folder.place(place.rstrip("/")),
            ) from None

    def add(self, path: str, output: str, metadata: Mapping[str, Any]) -> None:
        """Note a finished input.

        Args:
            path: The input.
            output: Name of its features in the folder.
            metadata: Theirs.
        """
        path = remote.unsigned(path)
        shapes = {name: metadata["shapes"].get(name, ["", ""]) for name in ("video", "audio")}
        values = (
            path, output, round(metadata["duration"], 6), *shapes["video"], *shapes["audio"],
            " ".join(metadata["missing"]), "; ".join(metadata["warnings"]), "; ".join(metadata["notes"]),
        )  # fmt: skip
        self._rows[output] = dict(zip(_INDEX_COLUMNS, values, strict=True))
        self._failures.pop(path, None)

    def add_failure(self, path: str, output: str, failure: dict[str, str]) -> None:
        """Note a failed input, of which ``failure`` is the row."""
        self._rows.pop(output, None)
        self._failures[remote.unsigned(path)] = {**failure, "output": output}

    def write(self) -> None:
        """Write both, sorted; ``failed.jsonl`` goes where nothing failed. What was there stays unless both are whole.

        The lists themselves, once written, take the place of all parts.

        Raises:
            StorageError: the disk is full, over quota or read-only.
            OutputError: a store does not take them.
            OSError: they cannot be written.
        """
        self._write(self._place)
        if not self._place:
            self._folder.remove_folder(PARTS_NAME)

    def _write(self, place: str, *, by: str = "") -> None:
        failures = [self._failures[path] for path in sorted(self._failures)]
        names = sorted(self._rows)
        if not place:
            # Parts alone say where a failed input's features would have been, and may list outputs that are gone.
            failures = [{k: v for k, v in f.items() if k != "output"} for f in failures]
            names = self._folder.existing(names)
        text = io.StringIO()
        table = csv.DictWriter(text, _INDEX_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows[name] for name in names)
        with (
            self._folder.replacing(place + INDEX_NAME, text.getvalue().encode(**_TEXT), by=by),
            writing(self._folder.place(place)),
        ):
            if failures:
                lines = "".join(json.dumps(f) + "\n" for f in failures)
                with self._folder.replacing(place + FAILED_NAME, lines.encode(), by=by):
                    pass
            else:
                self._folder.remove(place + FAILED_NAME)

    @classmethod
    def merge(cls, folder: Folder, parts: Sequence[str], *, by: str) -> bool:
        """Write the lists of ``folder`` from all parts, if those named ``parts`` are all there; return whether so.

        Several processes may do it at once: each reads the same parts, which stay, and writes the same lists.

        Args:
            folder: The output folder.
            parts: Names of the parts to wait for.
            by: Name of the part whose process this is.
        """
        folder.refresh()
        if not all(folder.exists(f"{PARTS_NAME}/{part}/{INDEX_NAME}") for part in parts):
            return False
        cls(folder)._write("", by=by)
        return True
