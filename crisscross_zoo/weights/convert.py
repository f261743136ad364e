"""Convert PyTorch checkpoints to safetensors; the only module that reads ``.pth`` files.

Nothing is unpickled without limits: ``torch.load`` runs with ``weights_only=True``, which refuses pickles
that call code. Zips are read in memory, under a limit, and never unpacked to disk.

A file may be a torch file in its zip or its legacy form (``.pth.tar``, ``.pth``, ``.pt``), or a zip with one such
member (the authors' ``.pth.tar.zip``); the content decides. It holds the state dict of a backbone or of the full
model, bare or under ``"model"`` or ``"state_dict"``, with or without ``module.`` prefixes. Floating point of another
precision becomes float32: float16 and bfloat16 exactly, float64 rounded.
"""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

import torch
from torch import Tensor

from crisscross_zoo.checkpoints.files import CHECKPOINT_OF, build_strictly, read_checkpoint, write_checkpoint
from crisscross_zoo.config import BLOCKS_PER_STAGE, CONFIG_TYPES, MODALITIES, EncoderConfig, Modality
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import (
    CheckpointError,
    ConfigError,
    OtherModalityError,
    UnknownWeightsError,
    WeightsError,
)
from crisscross_zoo.settings import check_choice

PTH_SUFFIXES = (".pth.tar.zip", ".pth.zip", ".pth.tar", ".pth", ".pt")
"""Suffixes of the files that :func:`read_pth` reads."""

MEMBER_SUFFIXES = (".pth.tar", ".pth", ".pt")
"""Suffixes of a checkpoint inside a zip."""

MAX_BYTES = 1 << 30
"""A checkpoint that unpacks to more is refused; the largest released one holds 62 MB."""

_TORCH_MARK = "data.pkl"
_TORCH_REASON = "WeightsUnpickler error:"
_PICKLED_CODE = re.compile(r"GLOBAL (\S+)")
_CHUNK = 1 << 20
_CONTAINER_KEYS = ("model", "state_dict")
_PARALLEL_PREFIX = "module."
_AGAIN = "get the file again"


def read_pth(
    path: str | os.PathLike[str],
    modality: Modality | None,
    *,
    source: str | None = None,
    suffixes: tuple[str, ...] = MEMBER_SUFFIXES,
) -> dict[str, Tensor]:
    """Read the state dict of one modality's backbone from a PyTorch file or a zip with one.

    Args:
        path: The file.
        modality: Which backbone to take from a full model; a single backbone is returned whatever its modality.
            None: the file holds a single one.
        source: The name of the file in errors; default: its path.
        suffixes: Suffixes of the checkpoint's name if the file is a zip with one.

    Returns:
        Tensors by their released names, on the CPU, floating point as float32.

    Raises:
        UnknownWeightsError: there is no such file.
        CheckpointError: it is not a PyTorch checkpoint, damaged, hostile or too large.
    """
    path, source = Path(path), source or os.fspath(path)
    if not path.is_file():
        raise UnknownWeightsError("there is no such file", remedy="check the path", path=source)
    try:
        with path.open("rb") as file:
            loaded = _load(file, source, suffixes)
    except OSError as error:
        raise CheckpointError(
            f"cannot be read: {error.strerror or error}",
            remedy="check its permissions and the disk",
            path=source,
        ) from error
    return _plain_float32(_pick_backbone(_unwrap(loaded, source), modality, source), source)


def read_local(
    path: str | os.PathLike[str], modality: Modality | None
) -> tuple[dict[str, Tensor], EncoderConfig]:
    """Read any checkpoint on disk: safetensors, a folder that ``save_pretrained`` made, or a PyTorch file.

    Args:
        path: File or folder; ``.pth.tar.zip``, ``.pth.tar``, ``.pth`` and ``.pt`` are PyTorch files.
        modality: What it must be, or which backbone of a full model to take; None: whichever it is.

    Returns:
        The backbone's tensors and its config, inferred if the file has none.

    Raises:
        UnknownWeightsError: there is no such file.
        CheckpointError: see :func:`read_pth` and ``read_checkpoint``; or it is of the other modality.
    """
    path = Path(path)
    if path.name.lower().endswith(PTH_SUFFIXES):
        state_dict: dict[str, Tensor] = read_pth(path, modality)
        config = None
    else:
        state_dict, config = read_checkpoint(path)
        state_dict = _pick_backbone(state_dict, modality, os.fspath(path))
    if config is None:
        return state_dict, _infer_config(state_dict, modality)
    if modality not in (None, config.modality):
        raise OtherModalityError(
            f"this is {CHECKPOINT_OF[config.modality]}, not {modality}",
            remedy=f"load it as {config.modality!r}",
            path=path,
        )
    return state_dict, config


def convert_checkpoint(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    modality: Modality | None = None,
    *,
    overwrite: bool = False,
) -> str:
    """Convert a checkpoint that :func:`read_local` reads to one safetensors file with its config inside.

    Args:
        source: The file to read.
        out: The ``.safetensors`` file, which is written atomically.
        modality: What it must be, or which backbone of a full model to take; None: whichever it is.
        overwrite: Replace ``out`` if it exists.

    Returns:
        The sha256 of the written file.

    Raises:
        ConfigError: the modality is unknown, or ``out`` has another suffix or exists.
        CheckpointError: ``source`` is refused.
        WeightsError: ``out`` cannot be written.
    """
    if modality is not None:
        check_choice("modality", modality, MODALITIES)
    out = Path(out)
    if out.suffix != ".safetensors":
        raise ConfigError("the output must be a .safetensors file", remedy="change its suffix")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists", remedy="choose another name, or pass --overwrite")
    state_dict, config = read_local(source, modality)
    encoder = build_strictly(build_encoder, config, state_dict, source=os.fspath(source))
    try:
        return write_checkpoint(out, encoder.state_dict(), config)
    except OSError as error:
        raise WeightsError(
            f"cannot be written: {error.strerror or error}", remedy="choose another path", path=out
        ) from error


def _pick_backbone(
    state_dict: Mapping[str, Tensor], modality: Modality | None, source: str
) -> dict[str, Tensor]:
    """Return one backbone of a full model's state dict; a single backbone's is returned as it is.

    ``module.`` prefixes, which data-parallel training leaves, are removed.
    """
    names = {name.removeprefix(_PARALLEL_PREFIX): name for name in state_dict}
    prefixes = {m: f"{m}_backbone." for m in MODALITIES}
    if not any(name.startswith(tuple(prefixes.values())) for name in names):
        return {name: state_dict[original] for name, original in names.items()}
    if modality is None:
        raise CheckpointError(
            "a full model, which holds a video and an audio backbone",
            remedy="choose one: --modality video or --modality audio",
            path=source,
        )
    prefix = prefixes[modality]
    return {name.removeprefix(prefix): state_dict[o] for name, o in names.items() if name.startswith(prefix)}


def _infer_config(state_dict: Mapping[str, Tensor], modality: Modality | None) -> EncoderConfig:
    """Return the config of a checkpoint that has none: width and depth from its shapes, other fields as in the paper.

    A state dict that is not a backbone's also gets a config, and ``build_strictly`` then refuses it.
    """
    stem = state_dict.get("conv1.0.weight")
    if modality is None:  # only the video stem is 3-D
        modality = "video" if stem is not None and stem.ndim == 5 else "audio"
    config = CONFIG_TYPES[modality]()

    def misfits(depth: int) -> int:
        with torch.device("meta"):
            names = build_encoder(config.replace(depth=depth)).state_dict().keys()
        return len(names ^ state_dict.keys())

    config = config.replace(depth=min(BLOCKS_PER_STAGE, key=misfits))
    return (
        config
        if stem is None or 0 in stem.shape[:1] or not stem.ndim
        else config.replace(width=stem.shape[0])
    )


def _load(file: IO[bytes], source: str, suffixes: tuple[str, ...]) -> object:
    """Return the content of a torch file, or of a zip with one."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size == 0:
        raise CheckpointError("the file is empty", remedy=_AGAIN, path=source)
    if size > MAX_BYTES:
        raise _too_large(f"the file has {size:,} bytes", source)
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK"):
        file = _torch_file_in_zip(file, source, suffixes)
    elif head.lstrip()[:1] == b"<":
        raise CheckpointError(
            "a web page, not a checkpoint", remedy="get the file itself, not the page about it", path=source
        )
    elif head.isascii() and b"\0" not in head:
        raise CheckpointError("a text file, not a checkpoint", remedy=_AGAIN, path=source)
    try:
        with warnings.catch_warnings():  # about unusual pickles: real errors are raised
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle can make torch raise nearly anything
        reason = str(error).split(_TORCH_REASON)[-1].strip().split("\n")[0]
        if code := _PICKLED_CODE.search(str(error)):
            raise CheckpointError(
                f"its pickle holds more than tensors ({code[1]}), which could run code, so it was not loaded",
                remedy="save the state dict alone: torch.save(model.state_dict(), path)",
                path=source,
            ) from error
        raise CheckpointError(
            f"not a whole PyTorch checkpoint ({type(error).__name__}: {reason[:120]})",
            remedy=_AGAIN,
            path=source,
        ) from error


def _torch_file_in_zip(
    file: IO[bytes], source: str, suffixes: tuple[str, ...], *, nested: bool = False
) -> IO[bytes]:
    """Return ``file`` itself if it is a torch zip, else its one checkpoint member, unpacked in memory."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            if any(PurePosixPath(m.filename).name == _TORCH_MARK for m in members):
                if sum(m.file_size for m in members) > MAX_BYTES:
                    raise _too_large("its tensors declare more bytes", source)
                file.seek(0)
                return file
            if nested:
                raise CheckpointError("a zip in a zip", remedy="pass the checkpoint, unpacked", path=source)
            data = _read_member(archive, _only_checkpoint(members, source, suffixes), source)
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # a hostile zip can make zipfile and its decompressors raise nearly anything
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"a damaged zip ({reason[:200]})", remedy=_AGAIN, path=source) from error
    is_zip = data.read(2) == b"PK"
    data.seek(0)
    return _torch_file_in_zip(data, source, suffixes, nested=True) if is_zip else data


def _only_checkpoint(
    members: list[zipfile.ZipInfo], source: str, suffixes: tuple[str, ...]
) -> zipfile.ZipInfo:
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        outside = ".." in parts or member.filename.startswith(("/", "\\"))
        if outside or not parts or ":" in parts[0]:  # no parts: "."
            raise CheckpointError(
                f"the zip has a member that points outside it or nowhere ({member.filename[:60]!r})",
                remedy="do not use this file: it was made to overwrite others",
                path=source,
            )
    # macOS puts a shadow of every file under __MACOSX
    found = [m for m in members if m.filename.endswith(suffixes) and not m.filename.startswith("__MACOSX/")]
    if len(found) != 1:
        names = ", ".join(m.filename for m in found[:3])
        raise CheckpointError(
            f"the zip has {len(found)} checkpoints ({names})"
            if found
            else f"the zip has no {suffixes[0]} member",
            remedy="pass the one you mean, unpacked" if found else _AGAIN,
            path=source,
        )
    return found[0]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str) -> io.BytesIO:
    if member.file_size > MAX_BYTES:
        raise _too_large(f"its member declares {member.file_size:,} bytes", source)
    data = io.BytesIO()
    with archive.open(member) as opened:
        while chunk := opened.read(_CHUNK):
            if data.tell() + len(chunk) > MAX_BYTES:
                raise _too_large("its member is longer than declared", source)
            data.write(chunk)
    data.seek(0)
    return data


def _too_large(what: str, source: str) -> CheckpointError:
    return CheckpointError(
        f"{what}; a checkpoint may unpack to at most {MAX_BYTES:,} bytes",
        remedy="do not use this file, unless you know why it is so large",
        path=source,
    )


def _unwrap(loaded: object, source: str) -> dict[str, Tensor]:
    """Return the state dict in the result of ``torch.load``."""
    for key in _CONTAINER_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(
            f"it holds {'an empty dict' if loaded == {} else 'a ' + type(loaded).__name__}, not a state dict",
            remedy="pass the backbone's state dict",
            path=source,
        )
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"entry {str(name)[:60]!r} is a {type(value).__name__}, not a tensor under a name",
                remedy="pass the backbone's state dict",
                path=source,
            )
    return loaded


def _plain_float32(state_dict: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    plain = {}
    for name, value in state_dict.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(
                f"{name} is a sparse, quantised or meta tensor",
                remedy="save plain tensors",
                path=source,
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(
                f"{name} claims {value.numel():,} values and stores fewer",
                remedy="do not use this file",
                path=source,
            )
        plain[name] = value.detach().float() if value.is_floating_point() else value
    return plain
