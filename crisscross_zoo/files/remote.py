"""Files at URLs: whatever fsspec opens, such as s3://, gs://, hf:// and https://.

A file is downloaded to a temporary one while it is read. Outputs at URLs are in :mod:`crisscross_zoo.files.store`.
A ``file://`` URL is treated as a local path.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

from crisscross_zoo.errors import (
    ConfigError,
    CrissCrossError,
    MediaError,
    MediaNotFoundError,
    UnreadableMediaError,
    first_line,
)
from crisscross_zoo.files.atomic import temporary_folder, writing
from crisscross_zoo.files.fingerprints import fingerprint_of

_WINDOWS = os.name == "nt"
_NOT_IN_NAMES = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]\Z')
_DEVICE = re.compile(
    r"^(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\xb9\xb2\xb3])(?= *(\.|\Z))", re.IGNORECASE
)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: "C:" is a drive

_SIGNED = re.compile(r"(^|&)(x-amz-signature|x-goog-signature|signature|sig)=", re.IGNORECASE)
_SIGNATURE = re.compile(  # of S3, Google's and Azure's stores, and CloudFront
    r"(x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|key-pair-id|policy|signature|expires"
    r"|sig|se|sp|sv|sr|st|spr|skoid|sktid|skt|ske|sks|skv)=",
    re.IGNORECASE,
)

_BUCKETS = re.compile(r"(s3a?|gc?s|az|abfss?|adl)://")

_TRANSIENT = {
    "ConnectionError", "TimeoutError", "HTTPClientError", "ResponseParserError", "IncompleteRead",
    "ClientConnectionError", "ClientPayloadError",
}  # fmt: skip
"""Class names of network errors, of Python and of the stores' clients."""

_FETCHES = 3
"""Largest number of attempts at a download. Each client retries failed requests, but not each a response cut off."""

_PAUSE = 1.0
"""Seconds before the second attempt; twice that before the third."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a URL."""
    return isinstance(path, str) and _URL.match(path) is not None


def in_bucket(url: str) -> bool:
    """Return whether ``url`` is the URL of a bucket, or of an object in one."""
    return _BUCKETS.match(url) is not None


def is_http(path: str) -> bool:
    """Return whether ``path`` is an http or https URL, in which ``?`` begins a query."""
    return path.lower().startswith(("http://", "https://"))


def unsigned(path: str) -> str:
    """Return the part of a signed http(s) URL that identifies the file: without signature and expiry.

    Any other path is returned as it is.
    """
    if not is_http(path) or "?" not in path:
        return path
    bare, query = path.split("?", 1)
    if not _SIGNED.search(query):  # "expires" or "sp" alone may belong to the file
        return path
    kept = [pair for pair in query.split("&") if not _SIGNATURE.match(pair)]
    return "?".join([bare, "&".join(kept)]) if kept else bare


def without_file_scheme(path: str) -> str:
    """Return the local path of a ``file://`` URL; anything else as it is."""
    local = path.removeprefix("file://")
    is_drive = _WINDOWS and local != path and re.match(r"/[A-Za-z]:", local)
    return local[1:] if is_drive else local  # file:///C:/in


def local_name(name: str) -> str:
    """Return the name of an object in a store as a valid local file name; only on Windows does it differ.

    On Windows everything that a file name may not have (``:``, ``?``, a dot at the end, ``CON``) is percent-encoded, as
    in a URL (``%3A``). Windows would write ``a:b.npz`` into a hidden stream of ``a``, and ``CON.npz`` to the console.
    """
    if not _WINDOWS or name in (".", ".."):
        return name
    name = _NOT_IN_NAMES.sub(lambda match: _escaped(match[0]), name)
    return _DEVICE.sub(lambda match: match[0][:-1] + _escaped(match[0][-1]), name)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def absolute(path: str) -> str:
    """Return an absolute local path; a URL becomes one too, for comparison, with the scheme as its first folder."""
    if is_url(path):
        scheme, rest = unsigned(path).split("://", 1)
        path = os.path.join(os.sep, scheme, *map(local_name, rest.lstrip("/").split("/")))
    return os.path.abspath(path)


def exists(path: str, *, ask: bool = False) -> bool:
    """Return whether a file or folder exists.

    Args:
        path: A local path or a URL.
        ask: Send a request for a URL; otherwise a URL is taken to exist.

    Raises:
        MediaError: the store cannot be reached, or refuses.
        ConfigError: nothing installed opens such URLs.
    """
    if not is_url(path):
        return os.path.exists(path)
    if not ask:
        return True
    with _listing(path) as (fs, name):
        return bool(fs.exists(name))


def is_gone(path: str) -> bool:
    """Return whether a file is missing; False if the store refuses to answer, or nothing installed opens such URLs.

    Raises:
        UnreadableMediaError: the store cannot be reached.
    """
    if not is_url(path):
        return not exists(path)
    try:
        fs, name = open_store(path)
        return not fs.exists(name)
    except CrissCrossError:
        return False
    except Exception as error:
        if _is_transient(error):
            raise _media_error(path, error, "looked up") from None
        return False


def is_folder(url: str) -> bool:
    """Return whether a URL is a folder.

    Raises:
        MediaError: the store cannot be reached, or refuses.
        ConfigError: nothing installed opens such URLs.
    """
    with _listing(url) as (fs, root):
        return bool(fs.isdir(root))


def find(url: str) -> list[str]:
    """Return the URLs of all files in the folder ``url`` and below, sorted, without hidden ones.

    Raises:
        MediaError: the store cannot be reached, or refuses.
        ConfigError: nothing installed opens such URLs.
    """
    with _listing(url) as (fs, root):
        names = [name[len(root) :].lstrip("/") for name in files_below(fs, root)]
    shown = (n for n in names if not any(part.startswith(".") for part in n.split("/")))
    return [f"{url.rstrip('/')}/{name}" for name in sorted(shown)]


def glob(url: str) -> list[str]:
    """Return the URLs of the files that match a pattern, sorted.

    Raises:
        MediaError: the store cannot be reached, or refuses.
        ConfigError: nothing installed opens such URLs, or the pattern is invalid.
    """
    with _listing(url) as (fs, pattern):
        from fsspec.utils import glob_translate

        matches = re.compile(glob_translate(pattern)).match
        root = re.split(r"[*?[]", pattern, maxsplit=1)[0].rpartition("/")[0]
        depth = None if "**" in pattern else len(pattern[len(root) :].strip("/").split("/"))
        return sorted(fs.unstrip_protocol(name) for name in files_below(fs, root, depth) if matches(name))


def source_of(path: str | os.PathLike[str]) -> dict[str, str | int]:
    """Return what identifies a file: ``path``, as given but :func:`unsigned`, ``bytes`` and ``modified_ns``.

    ``modified_ns`` is 0 if a store does not report when an object was changed.

    Raises:
        OSError: there is no such file.
        UnreadableMediaError: the store cannot be reached, or refuses.
    """
    if not is_url(path):
        return {"path": os.fspath(path), **fingerprint_of(path)._asdict()}
    url = os.fspath(path)
    with _fetching(url):
        fs, name = open_store(url)
        try:
            modified = round(fs.modified(name).timestamp() * 1_000_000) * 1000
        except (NotImplementedError, KeyError):
            modified = 0
        return {"path": unsigned(url), "bytes": int(fs.info(name)["size"] or 0), "modified_ns": modified}


@contextlib.contextmanager
def local_copy(path: str | os.PathLike[str]) -> Iterator[str | os.PathLike[str]]:
    """Yield a local file with the content of ``path``: itself, or for a URL a temporary copy of the same name.

    Raises:
        MediaNotFoundError: the store has no such object.
        UnreadableMediaError: the object cannot be downloaded.
        StorageError: the disk of temporary files (``TMPDIR``) is full.
    """
    if not is_url(path):
        yield path
        return
    url = os.fspath(path)
    with temporary_folder() as folder:
        name = urlsplit(url).path if is_http(url) else url  # a signed query may be longer than a name
        local = os.path.join(folder, local_name(PurePosixPath(name).name))
        with _fetching(url), writing(folder):
            _fetch(url, local)
        yield local


def _fetch(url: str, local: str) -> None:
    fs, name = open_store(url)
    for fetch in range(1, _FETCHES + 1):
        try:
            fs.get_file(name, local)
            return
        except Exception as error:
            # A request that the store answered with an error has been retried by its client already.
            if fetch == _FETCHES or _status(error) is not None or not _is_transient(error):
                raise
        time.sleep(fetch * _PAUSE)


@contextlib.contextmanager
def _listing(url: str) -> Iterator[tuple[Any, str]]:
    try:
        yield open_store(url)
    except CrissCrossError:
        raise
    except ValueError as error:  # an invalid pattern or endpoint
        raise ConfigError(f"{url}: cannot be listed ({reason_of(error)})", remedy="check the URL") from None
    except Exception as error:  # each store has errors of its own
        raise _media_error(url, error, "listed") from None


@contextlib.contextmanager
def _fetching(url: str) -> Iterator[None]:
    try:
        yield
    except CrissCrossError:
        raise
    except Exception as error:  # each store has errors of its own
        raise _media_error(url, error, "fetched") from None


def _media_error(url: str, error: Exception, done: str) -> MediaError:
    if isinstance(error, FileNotFoundError):
        # Over HTTP fsspec raises this for every error of a web server.
        answer = error.__cause__ if is_http(url) else None
        if answer is None or _status(answer) in (404, 410):
            bucket = url.split("://")[1].split("/")[0]
            reason = f"there is no bucket {bucket!r}" if _no_bucket(error) else "no such object"
            return MediaNotFoundError(reason, remedy="check the URL", path=url)
        return UnreadableMediaError(
            f"cannot be {done} ({reason_of(answer)})",
            remedy=remedy_of(answer)
            if _is_transient(answer)
            else "check the URL, its signature, and the server",
            path=url,
        )
    return UnreadableMediaError(f"cannot be {done} ({reason_of(error)})", remedy=remedy_of(error), path=url)


def remedy_of(error: BaseException) -> str:
    """Return what to do about an error of a store or its client."""
    if _is_transient(error):
        first = "check the connection and the endpoint, and " if _status(error) is None else ""
        return f"{first}try again: finished work is kept"
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        return "check your credentials and rights"
    return "check the URL and your rights"


def _is_transient(error: BaseException) -> bool:
    """Return whether an error is temporary: of the store or the network, not of the request."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    return any(kind.__name__ in _TRANSIENT for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of a store's answer, if there is one."""
    for raised in (error, error.__cause__):  # botocore's, or what s3fs made of it
        if isinstance(answer := getattr(raised, "response", None), dict):
            return cast(int | None, answer.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    status = getattr(error, "status", getattr(error, "code", None))  # aiohttp's, gcsfs'
    return status if isinstance(status, int) else None


def _no_bucket(error: FileNotFoundError) -> bool:
    return "bucket does not exist" in str(error)


def files_below(fs: Any, root: str, depth: int | None = None) -> Iterator[str]:
    """Yield the names of the files in ``root`` and below, in folders up to ``depth`` deep.

    A folder that cannot be listed raises. fsspec's own ``glob``, and ``find`` if a store has none of its own, skip it
    silently.
    """
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    own = type(fs).find is not AbstractFileSystem.find or (
        isinstance(fs, AsyncFileSystem) and type(fs)._find is not AsyncFileSystem._find
    )
    # A web page may have dead links.
    if depth is None and (own or "http" in fs.protocol):
        yield from (str(name) for name in fs.find(root))
        return
    try:
        entries = fs.ls(root, detail=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, FileNotFoundError) and _no_bucket(error):
            raise
        return
    for entry in entries:
        name = str(entry["name"]).rstrip("/")
        if name == root.rstrip("/"):
            continue
        if entry["type"] != "directory":
            yield name
        elif depth != 1:
            yield from files_below(fs, name, None if depth is None else depth - 1)


def open_store(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises:
        ConfigError: nothing installed opens such URLs.
    """
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it also logs, at length, what it raises
    try:
        if "::" in url and in_bucket(url):  # "::" in an object's key chains no stores
            fs = fsspec.filesystem(url.split("://")[0])
            name = fs._strip_protocol(url)
        else:
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


def reason_of(error: BaseException) -> str:
    """Describe an error of a store or its client in one line."""
    return f"{type(error).__name__}: {first_line(error)}".rstrip(": ")
