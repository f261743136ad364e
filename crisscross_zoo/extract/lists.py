"""The lists of an output folder: ``index.csv`` has its outputs, ``failed.jsonl`` the inputs that failed.

Where several processes write to one folder, one per shard, each writes its own fragment of the lists. :class:`Lists`
without a fragment merges all of them.
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
FRAGMENTS_NAME = ".parts"
"""Folder of the lists' fragments, one folder per shard, until a run without shards merges and removes them."""

# File names need not be text: bytes that are not UTF-8 (on Windows, UTF-16) are kept as they are.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": sys.getfilesystemencodeerrors()}

_INDEX_COLUMNS = (
    "input", "output", "duration", "video_rows", "video_dim", "audio_rows", "audio_dim", "missing", "warnings", "notes",
)  # fmt: skip


class Lists:
    """``index.csv`` and ``failed.jsonl`` of an output folder.

    Entries of earlier runs with other inputs are kept as long as their output, or the input that failed, exists.

    Args:
        folder: The output folder.
        fragment: Name of this process's own fragment of the lists, where several processes write to the folder. None:
            the lists themselves, merged with all fragments; where these disagree, the one written last counts.

    Raises:
        OutputError: one of the lists exists and was not written by this command, or a store does not answer.
        OSError: one of the lists cannot be read.
    """

    def __init__(self, folder: Folder, fragment: str | None = None) -> None:
        self._folder = folder
        self._prefix = "" if fragment is None else f"{FRAGMENTS_NAME}/{fragment}/"  # of the lists' names
        self._rows: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, dict[str, str]] = {}
        self._read(self._prefix)
        if fragment is not None:
            folder.remove(self._prefix + INDEX_NAME)
            return
        # A fragment's index exists only once its process is done with all its inputs.
        for index in folder.oldest_first(f"{FRAGMENTS_NAME}/*/{INDEX_NAME}"):
            self._read(index.removesuffix(INDEX_NAME))

    def _read(self, prefix: str) -> None:
        try:
            index, failed = (
                self._folder.read(prefix + name).decode(**_TEXT) if self._folder.exists(prefix + name) else ""
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
                f"its {INDEX_NAME} or {FAILED_NAME} was not written by this command ({error})",
                remedy="choose another --out, or move the file away",
                path=self._folder.locate(prefix.rstrip("/")),
            ) from None

    def add(self, path: str, output: str, metadata: Mapping[str, Any]) -> None:
        """Add an input whose features are written.

        Args:
            path: The input.
            output: Name of its features in the folder.
            metadata: The features' metadata.
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
        """Add an input that failed; ``failure`` is its row of ``failed.jsonl``."""
        self._rows.pop(output, None)
        self._failures[remote.unsigned(path)] = {**failure, "output": output}

    def write(self) -> None:
        """Write both lists, sorted; remove ``failed.jsonl`` if nothing failed.

        If one cannot be written, neither changes. The lists themselves, once written, replace all fragments.

        Raises:
            StorageError: the disk is full, over quota or read-only.
            OutputError: a store refuses them.
            OSError: they cannot be written.
        """
        self._write(self._prefix)
        if not self._prefix:
            self._folder.remove_folder(FRAGMENTS_NAME)

    def _write(self, prefix: str, *, by: str = "") -> None:
        failures = [self._failures[path] for path in sorted(self._failures)]
        names = sorted(self._rows)
        if not prefix:
            # Only fragments have the output name of a failed input, and only they may list outputs that were removed.
            failures = [{k: v for k, v in f.items() if k != "output"} for f in failures]
            names = self._folder.existing(names)
        text = io.StringIO()
        table = csv.DictWriter(text, _INDEX_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows[name] for name in names)
        with (
            self._folder.replacing(prefix + INDEX_NAME, text.getvalue().encode(**_TEXT), by=by),
            writing(self._folder.locate(prefix)),
        ):
            if failures:
                lines = "".join(json.dumps(f) + "\n" for f in failures)
                with self._folder.replacing(prefix + FAILED_NAME, lines.encode(), by=by):
                    pass
            else:
                self._folder.remove(prefix + FAILED_NAME)

    @classmethod
    def merge(cls, folder: Folder, fragments: Sequence[str], *, by: str) -> bool:
        """Write the lists of ``folder`` from all fragments, if those named ``fragments`` exist; return whether they do.

        Several processes may merge at once: each reads the same fragments, which stay, and writes the same lists.

        Args:
            folder: The output folder.
            fragments: Names of the fragments that must exist.
            by: Name of this process's own fragment.
        """
        folder.refresh()
        if not all(folder.exists(f"{FRAGMENTS_NAME}/{fragment}/{INDEX_NAME}") for fragment in fragments):
            return False
        cls(folder)._write("", by=by)
        return True
