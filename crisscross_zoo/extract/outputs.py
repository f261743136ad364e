"""Features files in an output folder: where each input's go, which are there already, and writing them.

Nothing appears there half written. A run that was killed and started again skips what is finished and ends in the same
bytes as one that never was.
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
    """Map each input to the name of its output: the same place in the tree in ``folder``, with ``suffix``.

    Inputs that would share an output (``a.mp4`` and ``a.avi``) keep their suffix and get another: ``a.mp4.npz``.

    Raises:
        ConfigError: an input is not under ``root``, or two inputs have the same output all the same.
    """
    places: dict[str, PurePath] = {}
    for path in paths:
        # A link counts where it stands, not where it leads; abspath takes ".." out, which absolute() does not.
        try:
            place: Path | None = Path(os.path.relpath(remote.absolute(path), os.path.abspath(root)))
        except ValueError:  # on another drive
            place = None
        if place is None or place.parts[0] == "..":
            raise ConfigError(
                f"{path}: is not under the root {root}", remedy="give --root a folder that holds all inputs"
            )
        places[path] = place
    stems = Counter(str(p.with_suffix("")).casefold() for p in places.values())
    outputs: dict[str, str] = {}
    seen: dict[str, str] = {}
    for path, p in places.items():
        alone = stems[str(p.with_suffix("")).casefold()] == 1
        outputs[path] = (p.with_suffix(suffix) if alone else PurePath(f"{p}{suffix}")).as_posix()
        other = seen.setdefault(outputs[path].casefold(), path)
        if other != path:
            raise ConfigError(
                f"{path} would be written to {folder.place(outputs[path])}, as {other} would",
                remedy="name each file once",
            )
    return outputs


def finished(folder: Folder, name: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the metadata of an output if it holds the features that ``identity`` asks for, else None.

    Args:
        folder: The output folder.
        name: Where the features would be written in it; a file is there.
        identity: From :meth:`crisscross_zoo.FeatureExtractor.identity`.

    Raises:
        OutputError: the file there is something else (not features, or those of another file), or cannot be fetched.
    """
    output = folder.place(name)
    try:
        with folder.local_copy(name) as local:
            metadata = load_metadata(local)
        stored = {key: metadata["source"][key] for key in ("path", "bytes", "modified_ns")}
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
    unchanged = source["bytes"] > 0 and all(stored[key] == source[key] for key in ("bytes", "modified_ns"))
    here = os.path.abspath(stored["path"]) == os.path.abspath(source["path"])
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
class FileResult:
    """What became of one input.

    Attributes:
        path: The input.
        output: Name of its features in the output folder.
        summary: Of its features' metadata, what lists and reports need; None where it failed.
        error: Why it failed.
        skipped: The features were already there.
        span: Seconds from the start of the first window to the end of the last; None where nothing was extracted.
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
    """Return the result of an input that need not be extracted, or could not be written, else None.

    Args:
        path: The input.
        folder: The output folder.
        name: Where the input's features would be written in it.
        identity: :meth:`crisscross_zoo.FeatureExtractor.identity`.
        overwrite: Extract also what is there, see :func:`finished`.
    """
    if not remote.exists(path):
        return None
    try:
        if folder.local is not None:
            check_name(folder.local / name, remedy="shorten the input's name, or choose another --format")
        if overwrite or not folder.exists(name):  # before a URL is asked what it is
            return None
        metadata = finished(folder, name, identity(path))
    except OutputError as error:
        return FileResult(path, name, error=error)
    except MediaError:  # a URL that cannot be asked; fetching it will say so
        return None
    except OSError as error:  # a name too long
        return FileResult(path, name, error=_no_access("read", error, folder.place(name)))
    return None if metadata is None else FileResult(path, name, _summary(metadata), skipped=True)


def save(path: str, folder: Folder, name: str, result: Features | CrissCrossError) -> FileResult:
    """Write what came of an input to ``folder``, if it is features, and return what became of it.

    Args:
        path: The input.
        folder: The output folder.
        name: Where the features go in it.
        result: They, or the error.

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
        return FileResult(path, name, error=_no_access("written", error, folder.place(name)))
    return FileResult(path, name, _summary(result.metadata), span=_span(result))


def _span(features: Features) -> tuple[float, float]:
    windows = [w for w in (features.video_windows, features.audio_windows) if w is not None and len(w)]
    return min(float(w.min()) for w in windows), max(float(w.max()) for w in windows)


def _no_access(done: str, error: OSError, output: str) -> OutputError:
    return OutputError(f"cannot be {done} ({error.strerror})", remedy="check the folder", path=output)


def _summary(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Keep little for each of a million files."""
    kept = {name: metadata[name] for name in ("shapes", "duration", "missing", "warnings")}
    return kept | {name: metadata.get(name, ()) for name in ("notes", "padded")}  # older features do not say
