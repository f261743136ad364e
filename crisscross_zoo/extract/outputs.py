"""An output folder: one features file an input in a mirrored tree, an index, a list of failures, and what is done.

Nothing appears there half written. A run that was killed and started again skips what is finished and ends in the same
bytes as one that never was. Of several processes that share the work on one folder, each writes its own part of the
lists; :class:`Lists` without a part takes them together.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

from crisscross_zoo.errors import (
    ConfigError,
    CrissCrossError,
    MediaError,
    MediaNotFoundError,
    OutputError,
    StorageError,
)
from crisscross_zoo.features import Features, check_name, files_of, load_metadata
from crisscross_zoo.files import remote
from crisscross_zoo.files.atomic import atomic_path, temporary_folder, writing
from crisscross_zoo.files.failures import FAILED_NAME

INDEX_NAME = "index.csv"
PARTS_NAME = ".parts"
"""Folder of the lists' parts, one folder a process, until a run alone on the output folder takes them in."""

# File names need not be text: what is not UTF-8 (on Windows, UTF-16) in one goes through as it is.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": sys.getfilesystemencodeerrors()}

_INDEX_COLUMNS = (
    "input", "output", "duration", "video_rows", "video_dim", "audio_rows", "audio_dim", "missing", "warnings", "notes",
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
        try:
            place: Path | None = Path(os.path.relpath(remote.absolute(path), os.path.abspath(root)))  # noqa: PTH100
        except ValueError:  # on another drive
            place = None
        if place is None or place.parts[0] == "..":
            raise ConfigError(
                f"{path}: is not under the root {root}", remedy="give --root a folder that holds all inputs"
            )
        places[path] = place
    stems = Counter(str(p.with_suffix("")).casefold() for p in places.values())
    outputs = {
        path: folder
        / str(p.with_suffix(suffix) if stems[str(p.with_suffix("")).casefold()] == 1 else f"{p}{suffix}")
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
        output: Where the features would be written; a file is there.
        identity: From :meth:`crisscross_zoo.FeatureExtractor.identity`.

    Raises:
        OutputError: the file there is something else (not features, or those of another file), or cannot be fetched.
    """
    try:
        with remote.local_copy(str(output)) as local:
            metadata = load_metadata(local)
        stored = {name: metadata["source"][name] for name in ("path", "bytes", "modified_ns")}
    except MediaNotFoundError:  # it went since
        return None
    except MediaError as error:  # of fetching the output: its input is not to blame
        raise OutputError(error.reason, remedy=error.remedy, path=output) from None
    except (OutputError, KeyError, TypeError):
        raise OutputError(
            "exists and does not hold features made here", remedy="move it, or allow --overwrite", path=output
        ) from None
    source = identity["source"]
    # A web server need not say how long a file is: 0.
    unchanged = source["bytes"] > 0 and all(stored[name] == source[name] for name in ("bytes", "modified_ns"))
    here = os.path.abspath(stored["path"]) == os.path.abspath(source["path"])  # noqa: PTH100
    # Windows' rules know the separators of every system, and either may have been made on another.
    moved = unchanged and PureWindowsPath(stored["path"]).name == PureWindowsPath(source["path"]).name
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


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: The input.
        summary: Of its features' metadata, what lists and reports need; None where it failed.
        error: Why it failed.
        skipped: The features were already there.
    """

    path: str
    summary: Mapping[str, Any] | None = None
    error: CrissCrossError | None = None
    skipped: bool = False


def known_outcome(
    path: str, output: Path, identity: Callable[[str], Mapping[str, Any]], *, overwrite: bool = False
) -> Outcome | None:
    """Return the outcome of an input that need not be extracted, or could not be written, else None.

    Args:
        path: The input.
        output: Where its features would be written.
        identity: :meth:`crisscross_zoo.FeatureExtractor.identity`.
        overwrite: Extract also what is there, see :func:`finished`.
    """
    if not remote.exists(path):
        return None
    if not remote.is_remote(output):
        try:
            check_name(output, remedy="shorten the input's name, or choose another --format")
        except OutputError as error:
            return Outcome(path, error=error)
    if overwrite:
        return None
    try:
        with remote.using_store(output, "read"):
            if not output.exists():  # before a URL is asked what it is
                return None
            metadata = finished(output, identity(path))
    except OutputError as error:
        return Outcome(path, error=error)
    except MediaError:  # a URL that cannot be asked; fetching it will say so
        return None
    except OSError as error:  # a name too long
        problem = OutputError(f"cannot be read ({error.strerror})", remedy="check the folder", path=output)
        return Outcome(path, error=problem)
    return None if metadata is None else Outcome(path, _summary(metadata), skipped=True)


def save(
    path: str, output: Path, result: Features | CrissCrossError, *, scratch: Path | None = None
) -> Outcome:
    """Write what came of an input to ``output``, if it is features, and return the outcome.

    Args:
        path: The input.
        output: Where its features go.
        result: They, or the error.
        scratch: Folder on the same file system for what is not whole yet, for processes that may, unknown to each
            other, write the same output.

    Raises:
        StorageError: the disk is full, over quota or read-only: no other output could be written either.
    """
    if isinstance(result, CrissCrossError):
        return Outcome(path, error=result)
    try:
        if remote.is_remote(output):
            with temporary_folder() as folder:
                local = Path(folder) / f"features{output.suffix}"  # a store takes longer names
                result.save(local)
                remote.write(output, local.read_bytes())
        elif scratch is None:
            result.save(output)
        else:
            result.save(scratch / output.name)
            with writing(output.parent):
                output.parent.mkdir(parents=True, exist_ok=True)
                for file in files_of(scratch / output.name):
                    file.replace(output.with_name(file.name))
    except StorageError:
        raise
    except OutputError as error:
        return Outcome(path, error=error)
    except OSError as error:
        problem = OutputError(f"cannot be written ({error.strerror})", remedy="check the folder", path=output)
        return Outcome(path, error=problem)
    return Outcome(path, _summary(result.metadata))


def _summary(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Keep little for each of a million files."""
    kept = {name: metadata[name] for name in ("shapes", "duration", "missing", "warnings")}
    return kept | {name: metadata.get(name, ()) for name in ("notes", "padded")}  # older features do not say


class Lists:
    """``index.csv`` and ``failed.jsonl`` of an output folder: what is in it, and what failed.

    What earlier runs with other inputs left in them stays, as long as the output, or the input that failed, is there.

    Args:
        folder: The output folder.
        part: Name of this process's own part of the lists, where several work on the folder at once. None: the lists
            themselves, with all parts that are there; where those disagree, the one written last is right.

    Raises:
        OutputError: one of them is there and was not written here, or a store cannot be asked.
        OSError: one of them cannot be read.
    """

    def __init__(self, folder: Path, part: str | None = None) -> None:
        self._folder = folder
        self._part = part
        self._rows: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, dict[str, str]] = {}
        with remote.using_store(folder, "read"):
            self._read_all()

    def _read_all(self) -> None:
        folder, part = self._folder, self._part
        parts = folder / PARTS_NAME
        if part is not None:
            places = [parts / part]
        else:
            # A part is there once its process is done with all its inputs.
            indexes = sorted(_indexes_in(parts), key=lambda p: (p.stat().st_mtime, p.parent.name))
            places = [folder, *(p.parent for p in indexes)]
        for place in places:
            self._read(place)
        if part is not None:
            remote.remove(parts / part / INDEX_NAME)

    def _read(self, place: Path) -> None:
        try:
            if (place / INDEX_NAME).exists():
                with (place / INDEX_NAME).open(**_TEXT, newline="") as file:
                    table = csv.DictReader(file)
                    if tuple(table.fieldnames or ()) != _INDEX_COLUMNS:
                        raise ValueError("other columns")
                    for row in table:
                        self._rows[row["output"]] = row
                        self._failures.pop(row["input"], None)
            if (place / FAILED_NAME).exists():
                for line in (place / FAILED_NAME).read_text(**_TEXT).splitlines():
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
                path=place,
            ) from None

    def add(self, path: str, output: Path, metadata: Mapping[str, Any]) -> None:
        """Note a finished input, from the metadata of its output."""
        path = remote.unsigned(path)
        shapes = {name: metadata["shapes"].get(name, ["", ""]) for name in ("video", "audio")}
        name = remote.name_in(self._folder, output)
        values = (
            path, name, round(metadata["duration"], 6), *shapes["video"], *shapes["audio"],
            " ".join(metadata["missing"]), "; ".join(metadata["warnings"]), "; ".join(metadata["notes"]),
        )  # fmt: skip
        self._rows[name] = dict(zip(_INDEX_COLUMNS, values, strict=True))
        self._failures.pop(path, None)

    def add_failure(self, path: str, output: Path, failure: dict[str, str]) -> None:
        """Note a failed input."""
        name = remote.name_in(self._folder, output)
        self._rows.pop(name, None)
        self._failures[remote.unsigned(path)] = {**failure, "output": name}

    def write(self) -> None:
        """Write both, sorted; ``failed.jsonl`` goes where nothing failed. What was there stays unless both are whole.

        The lists themselves, once written, take the place of all parts.

        Raises:
            StorageError: the disk is full, over quota or read-only.
            OSError: they cannot be written.
        """
        if self._part is not None:
            self._write(self._folder / PARTS_NAME / self._part)
            return
        self._write(self._folder)
        parts = self._folder / PARTS_NAME
        if remote.is_remote(parts):
            remote.remove_folder(parts)
        elif parts.exists():
            shutil.rmtree(parts)

    def _write(self, place: Path, *, by: str = "") -> None:
        failures = [self._failures[path] for path in sorted(self._failures)]
        names = sorted(self._rows)
        if place == self._folder:
            # Parts alone say where a failed input's features would have been, and may list outputs that are gone.
            failures = [{k: v for k, v in f.items() if k != "output"} for f in failures]
            there = remote.names_in(self._folder) if remote.is_remote(self._folder) else None
            names = [n for n in names if ((self._folder / n).exists() if there is None else n in there)]
        text = io.StringIO()
        table = csv.DictWriter(text, _INDEX_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self._rows[name] for name in names)
        with _written(place / INDEX_NAME, text.getvalue().encode(**_TEXT), by), writing(place):
            if failures:
                lines = "".join(json.dumps(f) + "\n" for f in failures)
                with _written(place / FAILED_NAME, lines.encode(), by):
                    pass
            else:
                remote.remove(place / FAILED_NAME)

    @classmethod
    def merge(cls, folder: Path, parts: Sequence[str], *, by: str) -> bool:
        """Write the lists of ``folder`` from all parts, if those named ``parts`` are all there; return whether so.

        Several processes may do it at once: each reads the same parts, which stay, and writes the same lists.

        Args:
            folder: The output folder.
            parts: Names of the parts to wait for.
            by: Name of the part whose process this is.
        """
        if remote.is_remote(folder):
            cast(Any, folder).fs.invalidate_cache()  # others have written to it
        if not all((folder / PARTS_NAME / part / INDEX_NAME).exists() for part in parts):
            return False
        cls(folder)._write(folder, by=by)
        return True


def _indexes_in(parts: Path) -> list[Path]:
    if not remote.is_remote(parts):
        return list(parts.glob(f"*/{INDEX_NAME}"))
    return [parts / name for name in remote.names_in(parts) if PurePosixPath(name).match(f"*/{INDEX_NAME}")]


@contextlib.contextmanager
def _written(path: Path, data: bytes, by: str) -> Iterator[None]:
    """Write a file that takes its place when the block ends: to a disk that is full it fails before."""
    if remote.is_remote(path):
        yield
        remote.write(path, data)
        return
    with atomic_path(path, by=by) as temporary:
        temporary.write_bytes(data)
        yield
