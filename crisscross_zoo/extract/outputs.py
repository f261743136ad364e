"""The feature files of an output folder: name them, find those that are up to date, write the others.

Files are written atomically. A run that was killed and restarted skips what is finished, and ends with the same bytes
as a run that was never killed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

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
from crisscross_zoo.files.store import Folder


def mirror(paths: Sequence[str], root: Path, folder: Folder, suffix: str) -> dict[str, str]:
    """Map each input to the name of its output: its path relative to ``root``, with ``suffix``.

    Inputs that would share an output (``a.mp4`` and ``a.avi``) keep their suffix and get another: ``a.mp4.npz``.

    Raises:
        ConfigError: an input is not under ``root``, or two inputs have the same output even so.
    """
    relative: dict[str, PurePath] = {}
    for path in paths:
        # The path of a symbolic link counts, not its target's; abspath resolves "..", which absolute() does not.
        try:
            below: Path | None = Path(os.path.relpath(remote.absolute(path), os.path.abspath(root)))
        except ValueError:  # on another drive
            below = None
        if below is None or below.parts[0] == "..":
            raise ConfigError(
                f"{path}: is not under the root {root}", remedy="give --root a folder that holds all inputs"
            )
        relative[path] = below
    stems = Counter(str(p.with_suffix("")).casefold() for p in relative.values())
    outputs: dict[str, str] = {}
    seen: dict[str, str] = {}
    for path, p in relative.items():
        alone = stems[str(p.with_suffix("")).casefold()] == 1
        outputs[path] = (p.with_suffix(suffix) if alone else PurePath(f"{p}{suffix}")).as_posix()
        other = seen.setdefault(outputs[path].casefold(), path)
        if other != path:
            raise ConfigError(
                f"{path} would be written to {folder.locate(outputs[path])}, as {other} would",
                remedy="name each file once",
            )
    return outputs


def finished(folder: Folder, name: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the metadata of an existing output if it is up to date, else None.

    Args:
        folder: The output folder.
        name: Name of the output in the folder.
        identity: What must be unchanged, from :meth:`crisscross_zoo.FeatureExtractor.identity`.

    Raises:
        OutputError: the file does not hold features, or holds those of another input, or cannot be downloaded.
    """
    output = folder.locate(name)
    try:
        with folder.local_copy(name) as local:
            metadata = load_metadata(local)
        stored = {key: metadata["source"][key] for key in ("path", "bytes", "modified_ns")}
    except MediaNotFoundError:  # it was removed meanwhile
        return None
    except MediaError as error:  # of downloading the output: its input is not at fault
        raise OutputError(error.reason, remedy=error.remedy, path=output) from None
    except (OutputError, KeyError, TypeError):
        raise OutputError(
            "exists and does not hold features made here", remedy="move it, or allow --overwrite", path=output
        ) from None
    source = identity["source"]
    # A web server need not report a file's length, which is then 0.
    unchanged = source["bytes"] > 0 and all(stored[key] == source[key] for key in ("bytes", "modified_ns"))
    here = os.path.abspath(stored["path"]) == os.path.abspath(source["path"])
    # Either path may come from another system; Windows' rules know the separators of all.
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
class FileResult:
    """The outcome of one input.

    Attributes:
        path: The input.
        output: Name of its features in the output folder.
        summary: The fields of the features' metadata that lists and reports need; None if the input failed.
        error: Why the input failed.
        skipped: Whether the output was up to date.
        span: Start of the first window and end of the last, in seconds; None if nothing was extracted.
    """

    path: str
    output: str
    summary: Mapping[str, Any] | None = None
    error: CrissCrossError | None = None
    skipped: bool = False
    span: tuple[float, float] | None = None


def known_result(
    path: str,
    folder: Folder,
    name: str,
    identity: Callable[[str], Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> FileResult | None:
    """Return the result of an input whose output is up to date or cannot be written; None if it must be extracted.

    Args:
        path: The input.
        folder: The output folder.
        name: Name of the input's output in the folder.
        identity: :meth:`crisscross_zoo.FeatureExtractor.identity`.
        overwrite: Extract the input again even if its output is up to date, see :func:`finished`.
    """
    if not remote.exists(path):
        return None
    try:
        if folder.local is not None:
            check_name(folder.local / name, remedy="shorten the input's name, or choose another --format")
        if overwrite or not folder.exists(name):  # checked first, since identity() sends a request to a URL
            return None
        metadata = finished(folder, name, identity(path))
    except OutputError as error:
        return FileResult(path, name, error=error)
    except MediaError:  # a URL that does not answer; downloading it will raise the error
        return None
    except OSError as error:  # a name too long
        return FileResult(path, name, error=_no_access("read", error, folder.locate(name)))
    return None if metadata is None else FileResult(path, name, _summary(metadata), skipped=True)


def save(path: str, folder: Folder, name: str, result: Features | CrissCrossError) -> FileResult:
    """Write the features of an input to ``folder``, and return its outcome.

    Args:
        path: The input.
        folder: The output folder.
        name: Name of the output in the folder.
        result: The features; or the error, which is not written.

    Raises:
        StorageError: the disk is full, over quota or read-only: no other output could be written either.
    """
    if isinstance(result, CrissCrossError):
        return FileResult(path, name, error=result)

    def write(target: Path) -> list[Path]:
        result.save(target)
        return files_of(target)

    try:
        folder.save(name, write)
    except StorageError:
        raise
    except OutputError as error:
        return FileResult(path, name, error=error)
    except OSError as error:
        return FileResult(path, name, error=_no_access("written", error, folder.locate(name)))
    return FileResult(path, name, _summary(result.metadata), span=_span(result))


def _span(features: Features) -> tuple[float, float]:
    windows = [w for w in (features.video_windows, features.audio_windows) if w is not None and len(w)]
    return min(float(w.min()) for w in windows), max(float(w.max()) for w in windows)


def _no_access(done: str, error: OSError, output: str) -> OutputError:
    return OutputError(f"cannot be {done} ({error.strerror})", remedy="check the folder", path=output)


def _summary(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that lists and reports need: few, since there may be a million files."""
    kept = {name: metadata[name] for name in ("shapes", "duration", "missing", "warnings")}
    return kept | {name: metadata.get(name, ()) for name in ("notes", "padded")}  # older features lack these
