"""An output folder: one features file an input in a mirrored tree, an index, a list of failures, and what is done.

Nothing appears there half written. A run that was killed and started again skips what is finished and ends in the same
bytes as one that never was.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crisscross_zoo.atomic import write_atomically
from crisscross_zoo.errors import ConfigError, CrissCrossError, OutputError
from crisscross_zoo.features import load_metadata

INDEX_NAME = "index.csv"
FAILED_NAME = "failed.jsonl"

# File names need not be text: what is not UTF-8 in one goes through as it is.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}

_INDEX_COLUMNS = (
    "input", "output", "duration", "video_rows", "video_dim", "audio_rows", "audio_dim", "missing", "warnings",
)  # fmt: skip


def mirror(paths: Sequence[str], root: Path, folder: Path, suffix: str) -> dict[str, Path]:
    """Map each input to its output: the same place in the tree under ``folder``, with ``suffix`` for its own.

    Inputs that would share an output (``a.mp4`` and ``a.avi``) keep their suffix and get another: ``a.mp4.npz``.

    Raises:
        ConfigError: an input is not under ``root``, or two inputs have the same output all the same.
    """
    places: dict[str, Path] = {}
    for path in paths:
        # A link counts where it stands, not where it leads; abspath takes ".." out, which absolute() does not.
        place = Path(os.path.relpath(os.path.abspath(path), os.path.abspath(root)))  # noqa: PTH100
        if place.parts[0] == ".." or place.is_absolute():
            raise ConfigError(
                f"{path}: is not under the root {root}", remedy="give --root a folder that holds all inputs"
            )
        places[path] = place
    stems = Counter(str(p.with_suffix("")).casefold() for p in places.values())
    outputs = {
        path: folder
        / (p.with_suffix(suffix) if stems[str(p.with_suffix("")).casefold()] == 1 else f"{p}{suffix}")
        for path, p in places.items()
    }
    seen: dict[str, str] = {}
    for path, output in outputs.items():
        other = seen.setdefault(str(output).casefold(), path)
        if other != path:
            raise ConfigError(
                f"{path} would be written to {output}, as {other} would", remedy="name each file once"
            )
    return outputs


def finished(output: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the metadata of ``output`` if it holds the features that ``identity`` asks for, else None.

    Args:
        output: Where the features would be written.
        identity: From :meth:`crisscross_zoo.FeatureExtractor.identity`.

    Raises:
        OutputError: the file there is something else: not features, or those of another file.
    """
    if not output.exists():
        return None
    try:
        metadata = load_metadata(output)
        stored = {name: metadata["source"][name] for name in ("path", "bytes", "modified_ns")}
    except (OutputError, KeyError, TypeError):
        raise OutputError(
            "exists and does not hold features made here", remedy="move it, or allow --overwrite", path=output
        ) from None
    source = identity["source"]
    unchanged = all(stored[name] == source[name] for name in ("bytes", "modified_ns"))
    here = os.path.abspath(stored["path"]) == os.path.abspath(source["path"])  # noqa: PTH100
    moved = unchanged and Path(stored["path"]).name == Path(source["path"]).name
    if not (here or moved):
        raise OutputError(
            f"holds the features of {stored['path']}",
            remedy="choose another --out, or allow --overwrite",
            path=output,
        )
    return (
        metadata
        if unchanged and all(metadata.get(k) == identity[k] for k in ("settings", "weights"))
        else None
    )


class Lists:
    """``index.csv`` and ``failed.jsonl`` of an output folder: what is in it, and what failed.

    What earlier runs with other inputs left in them stays, as long as the output, or the input that failed, is there.

    Raises:
        OutputError: one of them is there and was not written here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, dict[str, str]] = {}
        try:
            if (folder / INDEX_NAME).exists():
                with (folder / INDEX_NAME).open(**_TEXT, newline="") as file:
                    table = csv.DictReader(file)
                    if tuple(table.fieldnames or ()) != _INDEX_COLUMNS:
                        raise ValueError("other columns")
                    self._rows = {row["output"]: row for row in table}
            if (folder / FAILED_NAME).exists():
                lines = (folder / FAILED_NAME).read_text(**_TEXT).splitlines()
                failures = map(json.loads, lines)
                self._failures = {f["path"]: f for f in failures if os.path.exists(f["path"])}  # noqa: PTH110
        except (KeyError, TypeError, ValueError, csv.Error, OSError) as error:
            raise OutputError(
                f"{INDEX_NAME} or {FAILED_NAME} there was not written by this command ({error})",
                remedy="choose another --out, or move it away",
                path=folder,
            ) from None

    def add(self, path: str, output: Path, metadata: Mapping[str, Any]) -> None:
        """Note a finished input, from the metadata of its output."""
        shapes = {name: metadata["shapes"].get(name, ["", ""]) for name in ("video", "audio")}
        name = output.relative_to(self._folder).as_posix()
        values = (
            path, name, round(metadata["duration"], 6), *shapes["video"], *shapes["audio"],
            " ".join(metadata["missing"]), "; ".join(metadata["warnings"]),
        )  # fmt: skip
        self._rows[name] = dict(zip(_INDEX_COLUMNS, values, strict=True))
        self._failures.pop(path, None)

    def add_failure(self, path: str, output: Path, failure: dict[str, str]) -> None:
        """Note a failed input."""
        self._rows.pop(output.relative_to(self._folder).as_posix(), None)
        self._failures[path] = failure

    def write(self) -> None:
        """Write both, sorted; ``failed.jsonl`` goes where nothing failed.

        Raises:
            OSError: they cannot be written.
        """
        text = io.StringIO()
        table = csv.DictWriter(text, _INDEX_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows[name] for name in sorted(self._rows) if (self._folder / name).exists())
        write_atomically(self._folder / INDEX_NAME, text.getvalue().encode(**_TEXT))
        if not self._failures:
            (self._folder / FAILED_NAME).unlink(missing_ok=True)
            return
        failures = (self._failures[path] for path in sorted(self._failures))
        lines = "".join(json.dumps(f) + "\n" for f in failures)
        write_atomically(self._folder / FAILED_NAME, lines.encode())


def describe_failure(path: str, modality: str, error: CrissCrossError) -> dict[str, str]:
    """Describe a failed input, as a line of ``failed.jsonl`` does."""
    return {
        "path": path,
        "modality": modality,
        "error": type(error).__name__,
        "reason": error.reason,
        "remedy": error.remedy,
    }
