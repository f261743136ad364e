"""An output folder: one features file an input in a mirrored tree, an index, a list of failures, and what is done.

Nothing appears there half written. A run that was killed and started again skips what is finished and ends in the same
bytes as one that never was.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crisscross_zoo.atomic import write_atomically
from crisscross_zoo.errors import CrissCrossError, OutputError
from crisscross_zoo.features import load_metadata

INDEX_NAME = "index.csv"
FAILED_NAME = "failed.jsonl"

_INDEX_COLUMNS = (
    "input", "output", "duration", "video_rows", "video_dim", "audio_rows", "audio_dim", "missing", "warnings",
)  # fmt: skip


def mirror(paths: Sequence[str], root: Path, folder: Path, suffix: str) -> dict[str, Path]:
    """Map each input to its output: the same place in the tree under ``folder``, with ``suffix`` for its own.

    Inputs that would share an output (``a.mp4`` and ``a.avi``) keep their suffix and get another: ``a.mp4.npz``.

    Raises:
        OutputError: an input is not under ``root``, or two inputs have the same output all the same.
    """
    places: dict[str, Path] = {}
    for path in paths:
        try:
            places[path] = Path(path).absolute().resolve().relative_to(root.resolve())
        except ValueError:
            # A link that leads out of the tree: its own place counts, not where it leads.
            try:
                places[path] = Path(path).absolute().relative_to(root.absolute())
            except ValueError:
                raise OutputError(
                    f"is not under the root {root}",
                    remedy="give --root a folder that holds all inputs",
                    path=path,
                ) from None
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
            raise OutputError(
                f"would be written to {output}, as {other} would", remedy="name each file once", path=path
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
        stored = metadata["source"]
    except (OutputError, KeyError):
        raise OutputError(
            "exists and does not hold features made here", remedy="move it, or allow --overwrite", path=output
        ) from None
    source = identity["source"]
    if stored["path"] != source["path"] and (
        Path(stored["path"]).name != Path(source["path"]).name or stored["bytes"] != source["bytes"]
    ):
        raise OutputError(
            f"holds the features of {stored['path']}",
            remedy="choose another --out, or allow --overwrite",
            path=output,
        )
    same = stored["bytes"] == source["bytes"] and all(
        metadata.get(k) == identity[k] for k in ("settings", "weights")
    )
    return metadata if same else None


def index_row(path: str, output: Path, folder: Path, metadata: Mapping[str, Any]) -> tuple[object, ...]:
    """Make one row of the index from the metadata of an output."""
    shapes = {name: metadata["shapes"].get(name, ["", ""]) for name in ("video", "audio")}
    return (
        path, output.relative_to(folder).as_posix(), round(metadata["duration"], 6), *shapes["video"], *shapes["audio"],
        " ".join(metadata["missing"]), "; ".join(metadata["warnings"]),
    )  # fmt: skip


def write_index(folder: Path, rows: Iterable[tuple[object, ...]]) -> None:
    """Write ``index.csv``: one row a finished input."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_INDEX_COLUMNS)
    table.writerows(rows)
    write_atomically(folder / INDEX_NAME, text.getvalue().encode())


def failure(path: str, modality: str, error: CrissCrossError) -> dict[str, str]:
    """Describe a failed input, as a line of ``failed.jsonl`` does."""
    return {
        "path": path,
        "modality": modality,
        "error": type(error).__name__,
        "reason": error.reason,
        "remedy": error.remedy,
    }


def write_failures(folder: Path, failures: Sequence[Mapping[str, str]]) -> None:
    """Write ``failed.jsonl``, one line a failed input; remove it where there is none."""
    if not failures:
        (folder / FAILED_NAME).unlink(missing_ok=True)
        return
    lines = "".join(json.dumps(f, ensure_ascii=False) + "\n" for f in failures)
    write_atomically(folder / FAILED_NAME, lines.encode())
