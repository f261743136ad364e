"""Features of one file: its feature vectors, their windows, and how they were made. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import InputError, OutputError
from crisscross_zoo.files.atomic import atomic_path, longest_name, write_atomically
from crisscross_zoo.files.remote import is_url
from crisscross_zoo.media.windows import centred_alike, centres_of
from crisscross_zoo.settings import check_path, suggest

Format = Literal["npz", "safetensors", "npy"]
"""File formats that features are written in."""

FORMATS: tuple[str, ...] = tuple(f".{name}" for name in get_args(Format))
"""Their suffixes."""

SIDECAR_SUFFIX = ".json"
"""``feats.npy`` has a sidecar, ``feats.npy.json``, with its windows and metadata."""

_SHORT_NAME_BYTES = 128
"""A name of at most so many bytes is not checked against the limit of the file system."""

_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged or foreign file may raise, besides the error of safetensors."""

_ARRAYS = ("video", "video_windows", "audio", "audio_windows")


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Features of one file, one row per clip.

    Attributes:
        video: Feature vectors of the video stream, float32, shape (n, D); None without video.
        video_windows: ``[start, end)`` of each row's clip, float64 seconds, shape (n, 2); without the
            part of the clip that is outside the file.
        audio: As ``video``, of the audio stream.
        audio_windows: As ``video_windows``, of the audio stream.
        metadata: How the features were made: source, settings, weights, versions. JSON types.

    Raises:
        InputError: shapes or dtypes that do not fit together.
    """

    video: npt.NDArray[np.float32] | None = None
    video_windows: npt.NDArray[np.float64] | None = None
    audio: npt.NDArray[np.float32] | None = None
    audio_windows: npt.NDArray[np.float64] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("video", "audio"):
            rows, windows = getattr(self, name), getattr(self, f"{name}_windows")
            if (rows is None) != (windows is None):
                raise InputError(f"{name} and {name}_windows go together", remedy="pass both or neither")
            if rows is None:
                continue
            if rows.ndim != 2 or rows.dtype != np.float32:
                raise InputError(
                    f"{name} is {rows.dtype} {rows.shape}", remedy="pass float32 of shape (n, D)"
                )
            if windows.shape != (len(rows), 2) or windows.dtype != np.float64:
                raise InputError(
                    f"{name}_windows is {windows.dtype} {windows.shape}",
                    remedy=f"pass float64 of shape ({len(rows)}, 2)",
                )

    def __repr__(self) -> str:
        fragments = []
        for name in ("video", "audio"):
            rows, windows = getattr(self, name), getattr(self, f"{name}_windows")
            if rows is not None:
                until = f", {windows[0, 0]:.3f} to {windows[-1, 1]:.3f} s" if len(rows) else ""
                fragments.append(f"{name}: {rows.dtype} {rows.shape}{until}")
        return f"Features({'; '.join(fragments)})"

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The centre of each row's window in seconds, shape (n,); of the video window, if there is one.

        Raises:
            InputError: there are no rows of either modality.
        """
        windows = self.audio_windows if self.video_windows is None else self.video_windows
        if windows is None:
            raise InputError("the features have neither video nor audio")
        return centres_of(windows)

    @property
    def aligned(self) -> npt.NDArray[np.bool_]:
        """Whether both windows of a row are centred within half a frame of each other, shape (n,).

        At the ends of a file they may not be: a window that would reach beyond it is moved inside. All True with a
        single modality. ``features.video[features.aligned]`` are the rows that ``edges="drop"`` leaves.

        Raises:
            InputError: the metadata have no frame rate, or there are different numbers of video and audio rows.
        """
        if self.video_windows is None or self.audio_windows is None:
            return np.ones(len(self.centres), np.bool_)
        if len(self.video_windows) != len(self.audio_windows):
            raise uneven_rows(self)
        try:
            fps = float(self.metadata["settings"]["video"]["fps"])
        except (KeyError, TypeError):
            raise InputError(
                "metadata['settings']['video'] has no fps", remedy="use the extractor's features"
            ) from None
        return centred_alike(self.video_windows, self.audio_windows, fps)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are not None, by name."""
        return {n: getattr(self, n) for n in _ARRAYS if getattr(self, n) is not None}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to ``path`` atomically; the same features give the same bytes.

        ``.npz`` and ``.safetensors`` hold the arrays and the metadata (as JSON). ``.npy`` is the (n, D) array of a
        single modality; its windows and metadata go to a sidecar, ``<path>.json``.

        Raises:
            OutputError: another suffix, two modalities for ``.npy``, a name too long, or the file cannot be written.
            StorageError: the disk is full, over quota or read-only.
        """
        check_format(path)
        check_name(path)
        target = Path(path)
        try:
            if target.suffix == ".npz":
                arrays: dict[str, Any] = {**self.arrays(), "metadata": np.array(json.dumps(self.metadata))}
                with atomic_path(target) as temporary, temporary.open("wb") as file:
                    np.savez(file, **arrays)
            elif target.suffix == ".safetensors":
                from safetensors.numpy import save

                tensors = {k: np.ascontiguousarray(v) for k, v in self.arrays().items()}
                write_atomically(target, save(tensors, metadata={"metadata": json.dumps(self.metadata)}))
            else:
                self._save_npy(target)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(
                f"cannot be written ({reason})", remedy="check the folder and its free space", path=path
            ) from None

    def _save_npy(self, target: Path) -> None:
        rows = [n for n in ("video", "audio") if getattr(self, n) is not None]
        if len(rows) != 1:
            raise OutputError(
                f".npy holds one modality, there are {len(rows)}",
                remedy="write .npz or .safetensors",
                path=target,
            )
        array = getattr(self, rows[0])
        sidecar = {
            "modality": rows[0],
            "sha256": _array_sha256(array),
            "windows": getattr(self, f"{rows[0]}_windows").tolist(),
            "metadata": self.metadata,
        }
        with atomic_path(target) as temporary:
            with temporary.open("wb") as file:
                np.save(file, array)
            with atomic_path(_sidecar(target)) as beside:
                beside.write_bytes(json.dumps(sidecar).encode())
                # An array must never have the sidecar of another: the old array goes first, the new one comes last.
                target.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Features:
        """Read features that :meth:`save` wrote.

        Raises:
            OutputError: no such file, another format, or damaged.
        """
        check_format(path)
        source = Path(path)
        with _reading(source):
            if source.suffix == ".npz":
                with np.load(source, allow_pickle=False) as stored:
                    metadata = json.loads(str(stored["metadata"]))
                    return cls(**{n: stored[n] for n in _ARRAYS if n in stored}, metadata=metadata)
            if source.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(source, framework="numpy") as opened:
                    arrays = {n: opened.get_tensor(n) for n in opened.keys()}  # noqa: SIM118 - not a dict
                    return cls(**arrays, metadata=json.loads(opened.metadata()["metadata"]))
            array = np.load(source, allow_pickle=False)
            sidecar = json.loads(_sidecar(source).read_text(encoding="utf-8"))
            if _array_sha256(array) != sidecar["sha256"]:
                raise OutputError(f"is not the array that {_sidecar(source).name} describes", path=source)
            name = sidecar["modality"]
            windows = np.asarray(sidecar["windows"], np.float64).reshape(-1, 2)
            return cls(**{name: array, f"{name}_windows": windows}, metadata=sidecar["metadata"])


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn the exceptions of reading ``source`` into an OutputError."""
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError as error:
        raise OutputError("no such file", remedy="check the path", path=error.filename or source) from None
    except (*_DAMAGE, SafetensorError) as error:
        raise OutputError(
            f"does not hold features ({error})", remedy="extract them again", path=source
        ) from None


def _array_sha256(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata of saved features alone; raises like :meth:`Features.load`."""
    check_path("the path", path)
    if Path(path).suffix != ".npz":
        return dict(Features.load(path).metadata)
    with _reading(Path(path)), np.load(path, allow_pickle=False) as stored:
        metadata: dict[str, Any] = json.loads(str(stored["metadata"]))
        return metadata


def uneven_rows(features: Features) -> InputError:
    """Return the error for features whose video and audio rows should be of the same clips, but differ in number."""
    return InputError(
        f"{features!r} has different numbers of video and audio rows", remedy="extract both with clips=N"
    )


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise an OutputError unless ``path`` is local and its suffix one of :data:`FORMATS`.

    Raises:
        InputError: ``path`` is not a path, such as bytes or an open file.
    """
    check_path("the path", path)
    if is_url(path):
        raise OutputError(
            "features are saved at local paths",
            remedy="copy them, or use crisscross-extract --out",
            path=path,
        )
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise OutputError(
            f"features are not written as {suffix or 'a name without suffix'!r}",
            remedy=suggest(suffix, FORMATS),
            path=path,
        )


def check_name(path: str | os.PathLike[str], *, remedy: str = "choose a shorter one") -> None:
    """Raise an OutputError if a name of the files of :func:`files_of` is too long for the file system."""
    for file in files_of(Path(path)):
        length = len(os.fsencode(file.name))
        if length > _SHORT_NAME_BYTES and length > (most := longest_name(file.parent)):
            raise OutputError(
                f"a file name of {length} bytes, where {most} are allowed", remedy=remedy, path=file
            )


def files_of(path: Path) -> list[Path]:
    """Return the files that features saved to ``path`` consist of, in the order in which they are written."""
    return [_sidecar(path), path] if path.suffix == ".npy" else [path]


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR_SUFFIX)
