"""Inputs and outputs at URLs: whatever fsspec opens, such as s3://, gs://, hf:// and https://.

An input is fetched to a temporary file while it is read. An output is put in one piece.
``file://`` is a local path, and treated as one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

from crisscross_zoo.atomic import writing
from crisscross_zoo.errors import (
    ConfigError,
    CrissCrossError,
    MediaNotFoundError,
    OutputError,
    UnreadableMediaError,
    first_line,
)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: "C:" is a drive

_SIGNED = re.compile(r"(^|&)(x-amz-signature|x-goog-signature|signature|sig)=", re.IGNORECASE)
_SIGNATURE = re.compile(  # of S3, Google's and Azure's stores, and CloudFront
    r"(x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|key-pair-id|policy|signature|expires"
    r"|sig|se|sp|sv|sr|st|spr|skoid|sktid|skt|ske|sks|skv)=",
    re.IGNORECASE,
)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a URL."""
    return isinstance(path, str) and _URL.match(path) is not None


def is_http(path: str) -> bool:
    """Return whether ``path`` is a web page's URL, in which ``?`` begins a query."""
    return path.lower().startswith(("http://", "https://"))


def unsigned(path: str) -> str:
    """Return what stays the same of a signed http(s) URL when it is signed again; any other path as it is."""
    if not is_http(path) or "?" not in path:
        return path
    bare, query = path.split("?", 1)
    if not _SIGNED.search(query):  # "expires" or "sp" alone may be a file's
        return path
    kept = [part for part in query.split("&") if not _SIGNATURE.match(part)]
    return "?".join([bare, "&".join(kept)]) if kept else bare


def without_file_scheme(path: str) -> str:
    """Return the local path of a ``file://`` URL; anything else as it is."""
    return path.removeprefix("file://")


def absolute(path: str) -> str:
    """Return an absolute local path, and of a URL what can be compared as one: the scheme is its first folder."""
    if is_url(path):
        scheme, rest = unsigned(path).split("://", 1)
        path = os.path.join(os.sep, scheme, rest.lstrip("/"))  # noqa: PTH118
    return os.path.abspath(path)  # noqa: PTH100 - absolute() keeps ".."


def exists(path: str, *, ask: bool = False) -> bool:
    """Return whether there is such a file or folder.

    Args:
        path: A local path or a URL.
        ask: Send the request that a URL costs; otherwise it is taken to be there.

    Raises:
        ConfigError: the store cannot be asked.
    """
    if not is_url(path):
        return os.path.exists(path)  # noqa: PTH110 - Path.exists raises on long names
    if not ask:
        return True
    with _listing(path) as (fs, name):
        return bool(fs.exists(name))


def is_folder(url: str) -> bool:
    """Return whether a URL is a folder.

    Raises:
        ConfigError: the store cannot be asked.
    """
    with _listing(url) as (fs, root):
        return bool(fs.isdir(root))


def find(url: str) -> list[str]:
    """Return the URLs of all files in the folder ``url`` and below, sorted, without hidden ones.

    Raises:
        ConfigError: the store cannot be asked.
    """
    with _listing(url) as (fs, root):
        names = [str(name)[len(root) :].lstrip("/") for name in fs.find(root)]
    shown = (n for n in names if not any(part.startswith(".") for part in n.split("/")))
    return [f"{url.rstrip('/')}/{name}" for name in sorted(shown)]


def glob(url: str) -> list[str]:
    """Return the URLs of the files that match a pattern, sorted.

    Raises:
        ConfigError: the store cannot be asked.
    """
    with _listing(url) as (fs, root):
        return sorted(
            fs.unstrip_protocol(n) for n, d in fs.glob(root, detail=True).items() if d["type"] == "file"
        )


def source_of(path: str | os.PathLike[str]) -> dict[str, str | int]:
    """Return what tells a file from others: ``path`` as given but :func:`unsigned`, ``bytes`` and ``modified_ns``.

    The latter is 0 where a store does not say when an object was changed.

    Raises:
        OSError: there is no such file.
        UnreadableMediaError: the store cannot be asked.
    """
    if not is_url(path):
        status = os.stat(path)  # noqa: PTH116 - keeps the path as it was given
        return {"path": os.fspath(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    url = os.fspath(path)
    with _fetching(url):
        fs, name = _open_store(url)
        try:
            modified = round(fs.modified(name).timestamp() * 1_000_000) * 1000
        except (NotImplementedError, KeyError):
            modified = 0
        return {"path": unsigned(url), "bytes": int(fs.info(name)["size"] or 0), "modified_ns": modified}


@contextlib.contextmanager
def local_copy(path: str | os.PathLike[str]) -> Iterator[str | os.PathLike[str]]:
    """Give a local file with the content of ``path``: itself, or of a URL a temporary copy of the same name.

    Raises:
        MediaNotFoundError: the store has no such object.
        UnreadableMediaError: it cannot be fetched.
        StorageError: the disk of temporary files (``TMPDIR``) is full.
    """
    if not is_url(path):
        yield path
        return
    url = os.fspath(path)
    with tempfile.TemporaryDirectory(prefix="crisscross-") as folder:
        name = urlsplit(url).path if is_http(url) else url  # a signed query may be longer than a name
        local = os.path.join(folder, PurePosixPath(name).name)  # noqa: PTH118
        with _fetching(url), writing(folder):
            fs, name = _open_store(url)
            fs.get_file(name, local)
        yield local


def output_path(out: str) -> Path:
    """Return where to write: a local path, or of a URL what has a path's methods (universal_pathlib's UPath).

    Raises:
        ConfigError: universal_pathlib is not installed, nothing opens such URLs, there is no such bucket, or files
            should not be put there.
        OutputError: the store cannot be asked.
    """
    if not is_url(out):
        return Path(out)
    if out.startswith("hf://"):
        raise ConfigError(
            f"{out}: every file would be a commit",
            remedy="write to a folder, then run `hf upload-large-folder`",
        )
    if is_http(out):
        raise ConfigError(f"{out}: a web server takes no files", remedy="write to a folder or a bucket")
    if has_magic(out):
        raise ConfigError(f"{out}: stores take [, * and ? for a pattern", remedy="choose another --out")
    try:
        from upath import UPath

        path = cast(Path, UPath(out))
        fs = cast(Any, path).fs
    except (ImportError, ValueError) as error:
        raise _missing(out, error) from None
    with using_store(path, "written"):
        if path.drive and not fs.exists(path.drive):  # some stores would make one of any name that is free
            raise ConfigError(f"{out}: there is no bucket {path.drive!r}", remedy="make it, or check the URL")
    return path


def is_remote(path: Path) -> bool:
    """Return whether :func:`output_path` made ``path`` of a URL."""
    return not isinstance(path, Path)


def write(target: Path, data: bytes) -> None:
    """Write to a remote ``target``.

    In a bucket (s3://, gs://) an object appears whole or not at all. Where the store is a file system (sftp://), a
    process killed in mid-write leaves half a file.

    Raises:
        OutputError: it cannot be written.
    """
    to: Any = target
    with using_store(target, "written"):
        to.parent.mkdir(parents=True, exist_ok=True)
        to.fs.pipe_file(to.path, data)  # mv would take [, * and ? in a name for a pattern


def names_in(folder: Path) -> set[str]:
    """Return the names of all files in and below a remote folder, relative to it, as the store has them now."""
    place: Any = folder
    with using_store(folder, "listed"):
        place.fs.invalidate_cache()
        return {name[len(place.path) :].lstrip("/") for name in place.fs.find(place.path)}


@contextlib.contextmanager
def using_store(path: Path, done: str) -> Iterator[None]:
    """Turn what a remote store raises into an OutputError, "cannot be ``done``"; local paths raise as they do."""
    try:
        yield
    except CrissCrossError:
        raise
    except Exception as error:  # each store has errors of its own
        if not is_remote(path):
            raise
        raise OutputError(
            f"cannot be {done} ({_reason(error)})", remedy="check the URL and your rights", path=str(path)
        ) from None


@contextlib.contextmanager
def _listing(url: str) -> Iterator[tuple[Any, str]]:
    try:
        yield _open_store(url)
    except CrissCrossError:
        raise
    except Exception as error:  # each store has errors of its own
        raise ConfigError(
            f"{url}: cannot be listed ({_reason(error)})", remedy="check the URL and your rights"
        ) from None


@contextlib.contextmanager
def _fetching(url: str) -> Iterator[None]:
    try:
        yield
    except CrissCrossError:
        raise
    except FileNotFoundError as error:
        # Over HTTP fsspec raises this for all that a web server answers.
        cause = error.__cause__ if is_http(url) else None
        if cause is not None and getattr(cause, "status", None) not in (404, 410):
            raise UnreadableMediaError(
                f"cannot be fetched ({_reason(cause)})",
                remedy="check the URL, its signature, and the server",
                path=url,
            ) from None
        raise MediaNotFoundError("no such object", remedy="check the URL", path=url) from None
    except Exception as error:  # each store has errors of its own
        raise UnreadableMediaError(
            f"cannot be fetched ({_reason(error)})", remedy="check the URL and your rights", path=url
        ) from None


def _open_store(url: str) -> tuple[Any, str]:
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs at length what it raises, too
    try:
        fs, name = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise _missing(url, error) from None
    return fs, name.rstrip("/")


def _missing(url: str, error: Exception) -> ConfigError:
    unknown = isinstance(error, ValueError)  # a scheme that fsspec has never heard of
    return ConfigError(
        f"{url}: nothing installed opens it ({error})",
        remedy="check the URL" if unknown else "pip install 'crisscross-zoo[remote]'",
    )


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}".rstrip(": ")
