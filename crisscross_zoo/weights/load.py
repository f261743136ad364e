"""Load an encoder by a name or a path: :func:`load_encoder`.

The meaning of ``weights`` is decided in this order:

1. ``None``: random weights from torch's global generator. ``"random:SEED"``: random weights, equal everywhere.
2. A name of the manifest, such as ``"audioset"``. (A file of that name is ``"./audioset"``.)
3. ``"org/name@revision"``: always a repository on the Hub.
4. A path: a ``pathlib.Path``, or a str that exists on disk, starts with ``.``, ``/`` or ``~``, has the suffix of a
   checkpoint (``.safetensors``, ``.pth.tar``, ...), or is in a folder that exists.
5. ``"org/name"``: a repository on the Hub.

A path that does not exist is an error, and is never looked up on the Hub.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from crisscross_zoo.checkpoints.files import (
    CONFIG_FILE,
    MODEL_FILE,
    build_strictly,
    read_checkpoint,
    state_sha256,
    weights_file,
)
from crisscross_zoo.checkpoints.hub import Access, hub_file
from crisscross_zoo.checkpoints.mixin import Loaded
from crisscross_zoo.config import CONFIG_TYPES, MODALITIES, POOLINGS, EncoderConfig, Modality, Pooling
from crisscross_zoo.encoders import Encoder, build_encoder
from crisscross_zoo.errors import (
    CheckpointError,
    ChecksumError,
    ConfigError,
    UnknownWeightsError,
    WeightsNotAvailableError,
)
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.numerics import plain_torch
from crisscross_zoo.settings import check_choice, check_path, pick_device, suggest
from crisscross_zoo.weights.card import card_data
from crisscross_zoo.weights.convert import PTH_SUFFIXES, read_local
from crisscross_zoo.weights.manifest import BUNDLED_FOLDER, WeightsEntry, find_weights, list_weights
from crisscross_zoo.weights.origin import origin_file

_RANDOM = re.compile(r"random(:(?P<seed>.*))?$")
_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[^@\s]+))?")
_PATH_SUFFIXES = (".safetensors", ".zip", ".tar", *PTH_SUFFIXES)


def load_encoder(
    modality: Modality,
    weights: str | os.PathLike[str] | None = "audioset",
    *,
    pooling: Pooling | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Encoder:
    """Return an encoder in eval mode, with ``weights_id`` and ``weights_sha256`` set.

    Args:
        modality: ``"video"`` or ``"audio"``.
        weights: A name of :func:`list_weights`; a Hub id, ``"org/name"`` or ``"org/name@revision"``;
            a file (safetensors, ``.pth.tar``, ``.pth``, ``.pt``, the authors' ``.pth.tar.zip``) or a folder
            that ``save_pretrained`` or a pretraining run made; ``"random:SEED"``; None: random without a seed. The
            documentation of :mod:`crisscross_zoo.weights.load` has the rule by which they are distinguished.
        pooling: How conv5x becomes a vector, see :mod:`crisscross_zoo.encoders.pooling`; None: the pooling of the
            checkpoint's config, ``"linear"`` for checkpoints of the manifest and random weights.
        device: Device of the encoder; None: the CPU.
        revision: Branch, tag or commit on the Hub, instead of the one pinned in the manifest.
        cache_dir: Cache, instead of the Hub's and of this package's folder beside it.
        local_files_only: Never use the network; ``HF_HUB_OFFLINE=1`` means the same.
        token: For private or gated repositories; None: the token that ``hf auth login`` stored.

    Raises:
        InputError: ``weights`` or ``cache_dir`` is not a str or path, such as bytes or an open file.
        ConfigError: an unknown modality, pooling or device, a seed that is not a number, or a revision of
            something that is not on the Hub.
        UnknownWeightsError: no checkpoint, file or repository has this name.
        WeightsNotAvailableError: it is planned, not accessible, or not in the cache while offline.
        DownloadError: the download failed.
        ChecksumError: the download does not have the manifest's checksum.
        CheckpointError: the file is broken, hostile, of the other modality, or does not fit.
    """
    check_choice("modality", modality, MODALITIES)
    if cache_dir is not None:
        check_path("cache_dir", cache_dir)
    if pooling is not None:
        check_choice("pooling", pooling, POOLINGS)  # before a download
    device = pick_device("cpu" if device is None else device)
    random = _RANDOM.match(weights) if isinstance(weights, str) else None
    if weights is None or random is not None:
        if revision is not None:
            raise _no_revision(weights)
        config = CONFIG_TYPES[modality](pooling=pooling or "linear")
        with plain_torch():
            encoder = (
                build_encoder(config) if random is None else _seeded_encoder(config, random["seed"] or "")
            )
        encoder.weights_id = "random" if weights is None else str(weights)
        encoder.weights_sha256 = encoder.values_sha256()
        encoder.loaded = Loaded(sha256=encoder.weights_sha256)
    else:
        access = Access(
            cache_dir=None if cache_dir is None else Path(cache_dir),
            local_files_only=local_files_only,
            token=token,
        )
        found = find_checkpoint(modality, weights, revision=revision, access=access)
        encoder = open_checkpoint(found, modality, pooling=pooling)
    with plain_torch():
        return encoder.eval().to(device)


@dataclass(frozen=True, kw_only=True)
class FoundCheckpoint:
    """The location of a checkpoint on this machine.

    Attributes:
        path: A file, or a folder with ``model.safetensors``.
        weights_id: A name, ``org/name@commit``, or the last part of a path.
        config: The manifest's config, which overrides the file's own; None for other sources.
        entry: The entry in the manifest; None for other sources.
    """

    path: Path
    weights_id: str
    config: EncoderConfig | None = None
    entry: WeightsEntry | None = None


def open_checkpoint(
    found: FoundCheckpoint, modality: Modality | None = None, *, pooling: Pooling | None = None
) -> Encoder:
    """Read and check a checkpoint on disk and return its encoder, on the CPU, in eval mode.

    Args:
        found: The location of the checkpoint.
        modality: What it must be, or which backbone of a full model to take; None: whichever it is.
        pooling: As for :func:`load_encoder`.

    Raises:
        CheckpointError: the file is broken, hostile, of the other modality, or does not fit.
    """
    state_dict, own_config = read_local(found.path, modality)
    config = found.config or own_config
    encoder = build_strictly(build_encoder, config, state_dict, source=os.fspath(found.path))
    encoder = encoder.with_pooling(pooling)
    encoder.weights_id = found.weights_id
    if found.path.name.lower().endswith(PTH_SUFFIXES):
        encoder.weights_sha256 = state_sha256(encoder.state_dict(), config)  # as if it were converted
    else:
        encoder.weights_sha256 = file_sha256(weights_file(found.path))
    listed = None if found.entry is None else card_data(found.entry)
    encoder.loaded = Loaded(sha256=encoder.values_sha256(), card_data=listed)
    return encoder.eval()


def find_checkpoint(
    modality: Modality,
    weights: str | os.PathLike[str],
    *,
    revision: str | None = None,
    access: Access | None = None,
) -> FoundCheckpoint:
    """Return where the weights are on disk, after a download if necessary; local files are not read or checked.

    Args:
        modality: ``"video"`` or ``"audio"``.
        weights: As for :func:`load_encoder`, but not random.
        revision: Revision of a Hub repository, instead of the pinned one.
        access: Cache, network and token; None: the Hub's defaults.

    Raises:
        InputError: ``weights`` is not a str or path.
        WeightsError: as for :func:`load_encoder`, except errors inside the file.
        ConfigError: a revision of something that is not on the Hub.
    """
    check_path("weights", weights)
    access = access or Access()
    text = os.fspath(weights)
    hub_id = _HUB_ID.fullmatch(text) if isinstance(weights, str) else None
    if isinstance(weights, str) and any(entry.name == weights for entry in list_weights()):
        entry = find_weights(weights, modality)
        path = _entry_file(entry, revision=revision, access=access)
        return FoundCheckpoint(path=path, weights_id=entry.name, config=entry.config, entry=entry)

    if hub_id is not None and (hub_id["revision"] or not _is_path(text)):
        if revision is not None and hub_id["revision"] not in (None, revision):
            raise ConfigError(f"{text!r} and revision={revision!r} disagree", remedy="give one of them")
        return _on_hub(hub_id["repo"], revision=revision or hub_id["revision"], access=access)

    if not isinstance(weights, str) or _is_path(text):
        path = Path(text).expanduser()
        if not path.exists():
            raise UnknownWeightsError(
                "there is no such file or folder", remedy=_nearest_file(path, hub_id), path=text
            )
        if revision is not None:
            raise _no_revision(text)
        weights_id = path.resolve().name
        encoders = [m for m in MODALITIES if (path / m / MODEL_FILE).is_file()]
        if encoders and not (path / MODEL_FILE).is_file():  # a run of pretraining
            if modality not in encoders:
                raise CheckpointError(
                    f"the folder has no {MODEL_FILE} of {modality}",
                    remedy=f"it has one of {encoders[0]} alone: ask for {encoders[0]}",
                    path=text,
                )
            path, weights_id = path / modality, id_in_run(path, modality)
        return FoundCheckpoint(path=path, weights_id=weights_id)

    names = [entry.name for entry in list_weights(modality) if entry.status != "planned"]
    raise UnknownWeightsError(
        f"no weights, file or Hub repository are called {text!r}",
        remedy=suggest(text.lower().replace("_", "-"), names) + "; or pass org/name, a path or random:SEED",
    )


def id_in_run(run: Path, modality: str) -> str:
    """Return the id of the weights of a pretraining run."""
    return f"{run.resolve().name}/{modality}"


def _entry_file(entry: WeightsEntry, *, revision: str | None, access: Access) -> Path:
    """Return the file of a manifest's entry: in the wheel, from the Hub, or from its origin."""
    if entry.status == "planned":
        raise WeightsNotAvailableError(
            f"the {entry.modality} checkpoint is planned and not shipped yet",
            remedy="use 'demo', small weights that ship with the package, for trying things out",
            path=entry.name,
        )
    if entry.hub.repo is None and revision is not None:
        raise _no_revision(entry.name)
    if entry.bundled is not None:
        path = BUNDLED_FOLDER / entry.bundled.file
        if not path.is_file() or file_sha256(path) != entry.bundled.sha256:
            raise ChecksumError(
                "the file of the installation is missing or altered",
                remedy="install crisscross-zoo again",
                path=path,
            )
        return path
    if entry.hub.repo is not None:
        assert entry.hub.file is not None
        pinned = revision in (None, entry.hub.revision)
        return hub_file(
            entry.hub.repo,
            entry.hub.file,
            revision=revision or entry.hub.revision,
            sha256=entry.hub.sha256 if pinned else None,
            access=access,
        )
    return origin_file(entry, access=access)


def _on_hub(repo: str, *, revision: str | None, access: Access) -> FoundCheckpoint:
    file = hub_file(repo, MODEL_FILE, revision=revision, access=access)
    folder, commit = file.parent, file.parent.name  # as the Hub's cache lays it out
    if read_checkpoint(file)[1] is None:  # the config is not in the weights' header
        with contextlib.suppress(UnknownWeightsError):
            hub_file(repo, CONFIG_FILE, revision=commit, access=access)
    return FoundCheckpoint(path=folder, weights_id=f"{repo}@{commit}")


def _is_path(text: str) -> bool:
    path = Path(text).expanduser()
    if text.startswith((".", "/", "~")) or text.lower().endswith(_PATH_SUFFIXES) or path.exists():
        return True
    return path.parent != Path() and path.parent.is_dir()


def _nearest_file(path: Path, hub_id: re.Match[str] | None) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either: check the path"
    near = difflib.get_close_matches(path.name, sorted(p.name for p in path.parent.iterdir()), n=1)
    remedy = f"did you mean {os.fspath(path.parent / near[0])!r}?" if near else "check the path"
    return remedy if hub_id is None else f"{remedy} (a Hub repository is {hub_id['repo']}@main)"


def _no_revision(weights: object) -> ConfigError:
    return ConfigError(f"revision has no meaning for {weights!r}, which is not on the Hub", remedy="omit it")


def _seeded_encoder(config: EncoderConfig, seed: str) -> Encoder:
    """Return an encoder whose weights depend only on the seed and the tensors' names.

    Convolutions are uniform with the variance of He et al. (2015), 2 / fan_in; batch norms are identities.
    Each tensor has its own PCG64 stream, and only sums, products and square roots are used, so that the
    values are equal bit for bit on every machine, with any version of torch and any order of calls.
    """
    if not seed.isdecimal():
        raise ConfigError(
            f"random weights need a seed, not {seed!r}", remedy="write random:0, with a whole number"
        )
    with torch.device("meta"):
        shapes = build_encoder(config).state_dict()
    values = {name: _seeded_tensor(name, like, int(seed)) for name, like in shapes.items()}
    return build_strictly(build_encoder, config, values, source=f"random:{seed}")


def _seeded_tensor(name: str, like: torch.Tensor, seed: int) -> torch.Tensor:
    if like.ndim < 2:  # of a batch norm: scales and variances are 1, all others 0
        fill = 1 if name.endswith((".weight", ".running_var")) else 0
        return torch.full(like.shape, fill, dtype=like.dtype)
    bound = math.sqrt(6 / math.prod(like.shape[1:]))
    stream = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    uniform = stream.random(tuple(like.shape))  # float64 in [0, 1)
    return torch.from_numpy((2 * uniform - 1) * bound).to(like.dtype)
