"""Checkpoints from the Hugging Face Hub, through its own client.

Cache, tokens, mirrors and offline mode are ``huggingface_hub``'s: ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT``
and ``HF_HUB_OFFLINE`` work as for any other model. This module adds checksums, a retry
where the client has none, and errors of one line.
"""

from __future__ import annotations

import logging
import re
import socket
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from crisscross_zoo.errors import (
    ChecksumError,
    DownloadError,
    UnknownWeightsError,
    WeightsError,
    WeightsNotAvailableError,
)
from crisscross_zoo.files.digest import file_sha256

_log = logging.getLogger(__name__)

TRIES = 3
BACKOFF_SECONDS = 1.0
"""Wait after the first failed attempt; doubled after each."""

_LOOKUP_PAUSE_SECONDS = 0.5

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2")  # by version of the client

_LOG_IN = "pass token=, set HF_TOKEN or run `hf auth login` with an account that has access"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Cache, network and token of downloads.

    Attributes:
        cache_dir: Cache, instead of the Hub's and of this package's folder beside it.
        local_files_only: Use the cache alone.
        token: For private or gated repositories; None: the stored one.
    """

    cache_dir: Path | None = None
    local_files_only: bool = False
    token: str | bool | None = None

    @property
    def offline(self) -> bool:
        """Whether the network may not be used, by ``local_files_only`` or ``HF_HUB_OFFLINE``."""
        return self.local_files_only or constants.HF_HUB_OFFLINE


def hub_file(
    repo: str,
    file: str,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    again: bool = False,
    access: Access,
) -> Path:
    """Return a file of a repository in the Hub's cache, downloaded if necessary, with a verified checksum.

    The client accepts wrong bytes of the right size, so the file is hashed here: against ``sha256``, else
    against the Hub's own hash of a large file. On a mismatch it is downloaded once more.

    Args:
        repo: ``org/name``.
        file: Path inside the repository.
        revision: Branch, tag or commit; None: the main branch.
        sha256: The sha256 that the file must have.
        again: Download the file again if it is cached.
        access: Cache, network and token.

    Raises:
        UnknownWeightsError: no such repository, revision or file.
        WeightsNotAvailableError: no access, or not in the cache and the network may not be used.
        DownloadError: the download failed.
        ChecksumError: the file has another checksum, also after a second download.
    """

    def fetch(*, again: bool) -> Path:
        # The client would retry six times, with a line for each, before it reads its cache.
        unresolved = None if access.offline else resolution_error(constants.ENDPOINT)
        if unresolved is not None and again:
            raise hub_error(unresolved, repo, file=file)
        for attempt in range(TRIES):
            try:
                return Path(
                    huggingface_hub.hf_hub_download(
                        repo,
                        file,
                        revision=revision,
                        cache_dir=access.cache_dir,
                        local_files_only=access.local_files_only or unresolved is not None,
                        token=access.token,
                        force_download=again,
                    )
                )
            except Exception as error:  # the client's transport, hence its errors, changes with its version
                if unresolved is not None and isinstance(error, LocalEntryNotFoundError):
                    raise hub_error(unresolved, repo, file=file) from error
                if attempt + 1 == TRIES or not _is_transient(error):
                    raise hub_error(error, repo, file=file, revision=revision) from error
                pause = BACKOFF_SECONDS * 2**attempt
                _log.warning("%s: %s; trying again in %.0f s", repo, _one_line(error), pause)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    path = fetch(again=again)
    wanted = sha256 or _hash_by_hub(path)
    if wanted is None or file_sha256(path) == wanted:
        return path
    if not access.offline:
        path = fetch(again=True)
        if file_sha256(path) == wanted:
            return path
    raise ChecksumError(
        f"{file} has sha256 {file_sha256(path)[:12]}..., it must be {wanted[:12]}...",
        remedy="load it once online, to download it again"
        if access.offline
        else "a proxy or mirror may alter it: try another network or HF_ENDPOINT",
        path=repo,
    )


def hub_error(
    error: Exception, repo: str, *, file: str, revision: str | None = None, doing: str = "download from"
) -> WeightsError:
    """Return the error of this package for an exception of the Hub's client."""
    status = _status(error)
    if isinstance(innermost := _innermost(error), socket.gaierror):
        return unresolved_error(innermost, constants.ENDPOINT, path=repo, loading=doing == "download from")
    offline = isinstance(error, OfflineModeIsEnabled) or (
        isinstance(error, LocalEntryNotFoundError)
        and (error.__cause__ is None or isinstance(error.__cause__, OfflineModeIsEnabled))
    )
    kind: type[WeightsError]
    if offline:
        kind, reason = (
            WeightsNotAvailableError,
            f"{file} is not in the cache, and the network may not be used",
        )
        remedy = "load it once online, without local_files_only and HF_HUB_OFFLINE"
    elif isinstance(error, GatedRepoError):
        kind, reason = WeightsNotAvailableError, "the repository is gated"
        remedy = f"accept its terms at {constants.ENDPOINT}/{repo}, then {_LOG_IN}"
    elif isinstance(error, RevisionNotFoundError):
        kind, reason = UnknownWeightsError, f"the repository has no revision {revision!r}"
        remedy = "pass a branch, tag or commit of it"
    elif isinstance(error, RepositoryNotFoundError | HFValidationError):
        kind, reason = UnknownWeightsError, "neither a path here nor a repository on the Hub that you can see"
        remedy = f"check the spelling; if it is private, {_LOG_IN}"
    elif isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        kind, reason = UnknownWeightsError, f"the repository has no {file}"
        remedy = "pass one that save_pretrained, push_to_hub or crisscross-weights publish filled"
    elif status in (401, 403):
        kind, reason, remedy = WeightsNotAvailableError, f"the Hub refuses access ({status})", _LOG_IN
    else:
        kind = DownloadError
        reason = f"cannot {doing} {constants.ENDPOINT} ({_one_line(innermost)})"
        remedy = "check the connection and the disk, then try again"
    return kind(reason, remedy=remedy, path=repo)


def is_of_hub(error: Exception) -> bool:
    """Return whether an error is from the Hub, its client, the client's transport or the system."""
    room = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or room in ("huggingface_hub", "requests", *_TRANSPORTS)


def resolution_error(url: str) -> socket.gaierror | None:
    """Return the error of looking up the host of ``url``; None if it is found, or if a proxy looks it up."""
    host, scheme = urlsplit(url).hostname, urlsplit(url).scheme
    proxies = urllib.request.getproxies()
    if host is None:
        return None
    if (scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host):
        return None
    for pause in (_LOOKUP_PAUSE_SECONDS, None):
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror as error:
            if pause is None or error.errno != socket.EAI_AGAIN:
                return error
            time.sleep(pause)
        else:
            return None
    raise AssertionError("the last lookup returns")


def unresolved_error(error: socket.gaierror, url: str, *, path: str, loading: bool = True) -> DownloadError:
    """Return the error for a host that is not found, most likely because there is no network.

    Args:
        error: The error of the lookup.
        url: A URL of the host.
        path: What was to be downloaded from the host, or pushed to it.
        loading: Whether weights were to be loaded, which is also possible without a network.
    """
    others = "; without one, weights='demo' needs no download, and HF_HUB_OFFLINE=1 uses what is in the cache"
    return DownloadError(
        f"the host {urlsplit(url).hostname} cannot be resolved ({error.strerror})",
        remedy="check the connection" + others * loading,
        path=path,
    )


def _is_transient(error: Exception) -> bool:
    """Return whether a failure may be temporary; only of kinds that not every version of the client retries.

    These are a 5xx, also as the cause of a failed lookup in the cache, and under ``requests`` a body that is cut off.
    """
    server_error = max(_status(error) or 0, _status(error.__cause__) or 0) >= 500
    return server_error or type(error).__name__ == "ChunkedEncodingError"


def _innermost(error: BaseException) -> BaseException:
    """Return the system's error inside the exceptions of transports; else the cause, or the error itself."""
    found, inner = error.__cause__ or error, error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno is not None:
            found = inner
        inner = inner.__cause__ or inner.__context__
    return found


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status of the Hub's answer; None without an answer, which clients before version 1 allow."""
    if not isinstance(error, HfHubHTTPError) or error.response is None:
        return None
    return error.response.status_code


def _hash_by_hub(path: Path) -> str | None:
    """Return the Hub's sha256 of a cached large file, which is the name of its blob."""
    if not path.is_symlink():
        return None
    blob = path.readlink().name
    return blob if _SHA256.fullmatch(blob) else None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
