"""Checkpoints from their authors' release: download the zip, check it, convert it once, keep the safetensors.

The files are kept in ``$HF_HOME/assets/crisscross-zoo/weights/origin`` (``HF_ASSETS_CACHE`` moves the assets),
or in ``cache_dir/crisscross-zoo/weights/origin``: the safetensors, its sha256 beside it, and a
partial download if there is one. The zip is deleted once it is converted.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # its transport's, by its version
from huggingface_hub.utils import WeakFileLock, tqdm  # type: ignore[attr-defined]

from crisscross_zoo.checkpoints.files import build_strictly, write_checkpoint
from crisscross_zoo.checkpoints.hub import Access, resolution_error, unresolved_error
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import (
    CheckpointError,
    ChecksumError,
    DownloadError,
    WeightsError,
    WeightsNotAvailableError,
)
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights.convert import MAX_BYTES, read_pth
from crisscross_zoo.weights.manifest import WeightsEntry

_log = logging.getLogger(__name__)

TRIES = 5
BACKOFF_SECONDS = 1.0
"""Wait after the first failed attempt; doubled after each, unless the server names a time."""

MAX_WAIT_SECONDS = 30.0

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})

_READ_BYTES = 64 * 1024


def origin_file(entry: WeightsEntry, *, access: Access) -> Path:
    """Return the converted safetensors of a checkpoint's original release, from the cache if it is there.

    Processes that call this at the same time wait for the one that downloads. The next call resumes an interrupted
    download.

    Args:
        entry: A released checkpoint with an origin.
        access: Cache and network; the token is not sent.

    Raises:
        WeightsNotAvailableError: not in the cache, and the network may not be used.
        DownloadError: the download failed, or the cache cannot be written.
        ChecksumError: the zip's sha256 is not the manifest's.
        CheckpointError: the zip holds no such checkpoint.
    """
    assert entry.origin is not None
    assert entry.config is not None
    folder = Path(access.cache_dir or constants.HF_ASSETS_CACHE, "crisscross-zoo", "weights", "origin")
    target = folder / f"{entry.name}-{entry.modality}.safetensors"
    try:
        if _is_whole(target):
            return target
        if access.offline:
            raise WeightsNotAvailableError(
                f"the {entry.modality} weights are not in the cache, and the network may not be used",
                remedy=f"run `crisscross-weights download {entry.name}` once online, or pass a local file",
                path=entry.name,
            )
        folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(target.with_suffix(".lock")):
            if not _is_whole(target):  # another process may have finished first
                _download_and_convert(entry, target)
        return target
    except WeightsError:
        raise
    except OSError as error:
        raise DownloadError(
            f"the cache cannot be used: {error.strerror or error}",
            remedy="free space or permit writing there, or choose another folder with cache_dir or HF_HOME",
            path=folder,
        ) from error


def _is_whole(target: Path) -> bool:
    checksum = _checksum_file(target)
    if not (target.is_file() and checksum.is_file()):
        return False
    return checksum.read_text(encoding="utf-8").strip() == file_sha256(target)


def _checksum_file(target: Path) -> Path:
    return target.with_suffix(".safetensors.sha256")


def _download_and_convert(entry: WeightsEntry, target: Path) -> None:
    assert entry.origin is not None
    assert entry.config is not None
    url, wanted = entry.origin.url, entry.origin.sha256
    partial = target.with_suffix(".zip.partial")
    download(url, partial)
    try:
        if wanted is not None and (found := file_sha256(partial)) != wanted:
            raise ChecksumError(
                f"the download has sha256 {found[:12]}..., it must be {wanted[:12]}...",
                remedy="try again; if it stays so, the release was changed: report it",
                path=url,
            )
        state_dict = read_pth(partial, entry.modality, source=url, suffixes=(entry.origin.member_suffix,))
        encoder = build_strictly(build_encoder, entry.config, state_dict, source=url)
    except (CheckpointError, ChecksumError):
        _forget(partial)  # the next call restarts the download
        raise
    sha256 = write_checkpoint(target, encoder.state_dict(), entry.config)
    write_atomically(_checksum_file(target), f"{sha256}\n".encode())
    _forget(partial)


def download(url: str, partial: Path) -> None:
    """Download ``url`` to ``partial``, and resume an interrupted download.

    The server's entity tag is kept beside the file, so that only the same version of the file is resumed. A progress
    bar is on stderr if that is a terminal (``HF_HUB_DISABLE_PROGRESS_BARS`` hides it).

    Raises:
        DownloadError: the host is not found, the server refuses, or five attempts failed; the partial file is kept for
            the next call.
    """
    if (unresolved := resolution_error(url)) is not None:
        raise unresolved_error(unresolved, url, path=url)
    for attempt in range(TRIES):
        try:
            _fetch_rest(url, partial)
            return
        except _TransientError as error:
            reason, wait = str(error), error.wait
        if attempt + 1 < TRIES:
            pause = min(BACKOFF_SECONDS * 2**attempt if wait is None else wait, MAX_WAIT_SECONDS)
            _log.warning("%s: %s; trying again in %.0f s", url, reason, pause)
            time.sleep(pause)
    kept = f" ({partial.stat().st_size:,} bytes are kept)" if partial.is_file() else ""
    raise DownloadError(
        f"{TRIES} tries failed: {reason}",
        remedy=f"check the connection and try again{kept}, or fetch the file yourself and pass its path",
        path=url,
    )


class _TransientError(Exception):
    """A failure that may be temporary; ``wait`` is the number of seconds that the server asks for, or None."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _fetch_rest(url: str, partial: Path) -> None:
    tag_file = partial.with_suffix(".etag")
    headers = {"Accept-Encoding": "identity"}
    have = 0
    if partial.is_file() and tag_file.is_file():
        have = partial.stat().st_size
        headers |= {"Range": f"bytes={have}-", "If-Range": tag_file.read_text(encoding="utf-8")}
    with _answer(url, headers) as (status, answered, chunks):
        resumed = status == 206 and answered.get("Content-Range", "").startswith(f"bytes {have}-")
        if status == 416 or (status == 206 and not resumed):  # 416: killed between download and conversion
            _forget(partial)
            raise _TransientError("the server could not resume the partial download")
        if status in _RETRIED:
            raise _TransientError(f"the server answers {status}", _seconds(answered.get("Retry-After")))
        if status not in (200, 206):
            raise DownloadError(
                f"the server answers {status}",
                remedy="the release may have moved: fetch the file yourself and pass its path",
                path=url,
            )
        if status == 200:
            have = 0
            _forget(partial)
            if (tag := answered.get("ETag", "")).startswith('"'):  # a weak tag does not identify the bytes
                tag_file.write_text(tag, encoding="utf-8")
        length = answered.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if (total or 0) > MAX_BYTES:
            raise _too_large(url)
        with (
            partial.open("ab" if have else "wb") as file,
            tqdm(  # type: ignore[no-untyped-call]
                desc=url.rsplit("/", 1)[-1],
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                disable=None,
                name="crisscross_zoo.weights",
            ) as bar,
        ):
            for chunk in chunks:
                if file.tell() + len(chunk) > MAX_BYTES:
                    raise _too_large(url)
                file.write(chunk)
                bar.update(len(chunk))
            if total is not None and (received := file.tell()) < total:  # not every transport notices
                raise _TransientError(f"the connection was closed after {received:,} of {total:,} bytes")


@contextlib.contextmanager
def _answer(url: str, headers: Mapping[str, str]) -> Iterator[tuple[int, Mapping[str, str], Iterator[bytes]]]:
    """GET ``url`` in the session of the Hub's client, with its proxies and certificates.

    The session is one of ``requests`` before ``huggingface_hub`` 1.0, of ``httpx`` or ``httpx2`` since.

    Yields:
        The status, the headers and the chunks of the body as they arrive.

    Raises:
        _TransientError: an exception of the transport, here or while the body is read.
    """
    session: Any = get_session()
    options = {"headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
    if callable(getattr(session, "stream", None)):  # a setting of the same name in requests
        with _transient(HTTPError), session.stream("GET", url, follow_redirects=True, **options) as response:
            yield response.status_code, response.headers, response.iter_bytes()
    else:
        from requests import RequestException
        from urllib3.exceptions import HTTPError as PoolError

        with _transient(RequestException, PoolError), session.get(url, stream=True, **options) as response:
            yield response.status_code, response.headers, _chunks(response.raw)


@contextlib.contextmanager
def _transient(*kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise _TransientError(str(error) or type(error).__name__) from error


def _chunks(raw: Any) -> Iterator[bytes]:
    """Yield the bytes of urllib3 as they arrive: ``iter_content`` would drop up to a chunk if the connection breaks."""
    read = getattr(raw, "read1", raw.read)  # urllib3 1 has no read1
    return iter(lambda: read(_READ_BYTES), b"")


def _forget(partial: Path) -> None:
    for file in (partial, partial.with_suffix(".etag")):
        file.unlink(missing_ok=True)


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdigit() else None


def _too_large(url: str) -> DownloadError:
    return DownloadError(
        f"the download is larger than {MAX_BYTES:,} bytes", remedy="check the manifest's URL", path=url
    )
