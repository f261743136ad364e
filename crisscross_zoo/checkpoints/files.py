"""Checkpoints: the weights of one encoder or classifier in safetensors, with its config in the header.

Nothing here unpickles, downloads or guesses: a file is read completely and strictly, or refused with a
:class:`~crisscross_zoo.errors.CheckpointError` that names the file, the reason, and what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from crisscross_zoo.config import BLOCKS_PER_STAGE, EncoderConfig, config_from_dict
from crisscross_zoo.errors import CheckpointError, ConfigError, InputError, UnknownWeightsError
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.numerics import plain_torch

MODEL_FILE = "model.safetensors"
"""Name of the weights in a checkpoint folder or Hub repository."""

CONFIG_FILE = "config.json"
"""Name of the config beside them; read only if the header of the weights has none."""

_CONFIG_KEY = "config"
# The only metadata key: safetensors writes several in no fixed order, and the bytes must not vary.

CHECKPOINT_OF = {"video": "a video checkpoint", "audio": "an audio checkpoint"}
"""Names of the checkpoint of a modality in messages."""

_STAGES_OF_MODALITY = {
    "video": ("conv2x", "conv3x", "conv4x", "conv5x"),
    "audio": ("block1", "block2", "block3", "block4"),
}
# Module names in the released state dicts, which tell one modality's keys from the other's.

_NAMED_AT_MOST = 3


class Fields(Protocol):
    """A config that is stored in a file."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        ...


class HoldsWeights(Protocol):
    """The weights of an encoder or classifier."""

    @property
    def config(self) -> Fields:
        """The config of the module."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the weights under the released names."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> object:
        """Copy weights into the module, cast and moved."""
        ...


_C = TypeVar("_C", bound=Fields)
_M = TypeVar("_M", bound=HoldsWeights)


def weights_file(path: Path) -> Path:
    """Return the safetensors file of a checkpoint: ``path`` itself, or the one in the folder ``path``."""
    return path / MODEL_FILE if path.is_dir() else path


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], EncoderConfig | None]:
    """Read a safetensors file, or the folder that holds one as ``model.safetensors``.

    Args:
        path: File or folder.

    Returns:
        The tensors by name, on the CPU, and the config: from the header's metadata, else from
        ``config.json`` if ``path`` is a folder, else None.

    Raises:
        UnknownWeightsError: there is no such file or folder.
        CheckpointError: it is not a complete safetensors file, or its config does not fit its tensors.
    """
    path = Path(path)

    def parse(fields: dict[str, Any]) -> EncoderConfig:
        if "num_classes" in fields:
            raise CheckpointError(
                "this is a classifier's checkpoint", remedy="use Classifier.from_pretrained", path=path
            )
        return config_from_dict(fields)

    state_dict, config = read_tensors(path, parse)
    if config is not None:
        _check_config(config, state_dict, path)
    return state_dict, config


def read_tensors(
    path: str | os.PathLike[str], parse: Callable[[dict[str, Any]], _C]
) -> tuple[dict[str, Tensor], _C | None]:
    """Read a file or folder as :func:`read_checkpoint` does, but with any config, not checked against the tensors.

    Args:
        path: File or folder.
        parse: Makes the config from its JSON object; may raise a ConfigError.

    Raises:
        UnknownWeightsError: there is no such file or folder.
        CheckpointError: it is not a complete safetensors file, or ``parse`` refuses its config.
    """
    path = Path(path)
    if not os.path.exists(path):  # Path.exists raises where the name is too long
        raise UnknownWeightsError("there is no such file or folder", remedy="check the path", path=path)
    folder = path if path.is_dir() else None
    file = weights_file(path)
    if not file.is_file():
        inside = [os.fspath(path / m) for m in CHECKPOINT_OF if (path / m / MODEL_FILE).is_file()]
        raise CheckpointError(
            f"the folder has no {MODEL_FILE}" if folder else "not a regular file",
            remedy=f"did you mean {' or '.join(inside)}?"
            if inside
            else "pass a safetensors file; crisscross-weights convert makes one of a .pth.tar",
            path=path,
        )
    try:
        with plain_torch(), safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            state_dict = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _unreadable(file, error) from error

    config = None
    if _CONFIG_KEY in metadata:
        config = _parse_config(metadata[_CONFIG_KEY], file, parse)
    elif folder is not None and (folder / CONFIG_FILE).is_file():
        config = _read_config(folder / CONFIG_FILE, parse)
    return state_dict, config


def write_checkpoint(path: str | os.PathLike[str], state_dict: Mapping[str, Tensor], config: Fields) -> str:
    """Write a safetensors file with ``config`` in its header, atomically.

    The same tensors and config always give the same bytes, whatever the tensors' order, device and strides.

    Args:
        path: The file to write. Missing folders are made.
        state_dict: Tensors by name, on any device.
        config: The config of the encoder or classifier.

    Returns:
        The file's sha256 in hexadecimal.

    Raises:
        OSError: the file cannot be written.
    """
    data = _serialize(state_dict, config)
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def write_folder(folder: Path, state_dict: Mapping[str, Tensor], config: Fields) -> None:
    """Write ``model.safetensors`` and ``config.json`` into a folder; missing folders are made.

    Raises:
        OSError: they cannot be written.
    """
    write_checkpoint(folder / MODEL_FILE, state_dict, config)
    write_atomically(folder / CONFIG_FILE, (json.dumps(config.to_dict(), indent=2) + "\n").encode())


def state_sha256(state_dict: Mapping[str, Tensor], config: Fields) -> str:
    """Return the sha256 of the file that :func:`write_checkpoint` would write."""
    return hashlib.sha256(_serialize(state_dict, config)).hexdigest()


def build_strictly(
    build: Callable[[_C], _M], config: _C, state_dict: Mapping[str, Tensor], *, source: str
) -> _M:
    """Build an encoder or classifier on the CPU and load its weights strictly; torch's global random state is kept.

    Args:
        build: Makes the module from ``config``.
        config: What to build.
        state_dict: Tensors under the released names.
        source: The file or repository that the weights come from, for errors.

    Raises:
        CheckpointError: a key, shape or value does not fit, or there is too little memory for a module of that size.
    """
    try:
        with plain_torch(), torch.random.fork_rng(devices=()):
            module = build(config)
    except RuntimeError as error:
        what = "a classifier of that size"
        if isinstance(config, EncoderConfig):
            what = f"an encoder of depth {config.depth} and width {config.width}"
        raise CheckpointError(
            f"{what} cannot be built here",
            remedy="the file is damaged, or this machine has too little memory",
            path=source,
        ) from error
    except InputError as error:  # a classifier whose clips are too small for the pooling
        raise CheckpointError(error.reason, remedy="use another checkpoint", path=source) from error
    apply_state_dict(module, state_dict, source=source)
    return module


def apply_state_dict(module: HoldsWeights, state_dict: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into ``module``, strictly: all keys and shapes fit and all values are finite, or nothing is copied.

    Values are cast to the module's dtype and moved to its device.

    Args:
        module: Changed in place; left as it was when an error is raised.
        state_dict: Tensors under the released names.
        source: The file or repository that they come from, for the error.

    Raises:
        CheckpointError: a key is missing or unknown, a shape or kind differs, or a value is not finite.
    """
    kind = "encoder" if isinstance(module.config, EncoderConfig) else "classifier"
    own = module.state_dict()
    if odd := [name for name, value in state_dict.items() if not _is_plain_tensor(name, value)]:
        raise CheckpointError(
            f"what should be plain tensors under names is not ({_some(odd)})",
            remedy="pass the backbone's state dict",
            path=source,
        )

    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    if missing or unexpected:
        reason = "; ".join(
            f"{len(names)} {kind} of {len(own)} keys ({_some(names)})"
            for kind, names in (("missing", missing), ("unexpected", unexpected))
            if names
        )
        raise CheckpointError(reason, remedy=_mismatch_hint(module.config, state_dict), path=source)

    wrong = [name for name in own if own[name].shape != state_dict[name].shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{len(wrong)} tensors have another shape: {name} is {tuple(state_dict[name].shape)},"
            f" the {kind}'s is {tuple(own[name].shape)}",
            remedy=_mismatch_hint(module.config, state_dict),
            path=source,
        )

    for name, value in state_dict.items():
        if value.is_floating_point() != own[name].is_floating_point():
            raise CheckpointError(
                f"{name} has dtype {value.dtype}, the {kind}'s is {own[name].dtype}",
                remedy="use weights stored as floating point, not quantised ones",
                path=source,
            )
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{name} holds values that are not finite",
                remedy="the file is damaged or its training diverged: use another checkpoint",
                path=source,
            )
    module.load_state_dict(dict(state_dict), strict=True)


def _serialize(state_dict: Mapping[str, Tensor], config: Fields) -> bytes:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    metadata = {_CONFIG_KEY: json.dumps(config.to_dict(), sort_keys=True)}
    return safetensors.torch.save(tensors, metadata=metadata)


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    """Return the error for a file that is not safetensors, with what it is instead."""
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError as unopened:
        return CheckpointError(
            f"cannot be read: {unopened.strerror}", remedy="check its permissions", path=file
        )
    again = "get the file again"
    if not head:
        return CheckpointError("the file is empty", remedy=again, path=file)
    if head.startswith((b"PK", b"\x80")):
        return CheckpointError(
            "a zip or pickle file, not safetensors",
            remedy="crisscross-weights convert reads the released .pth.tar files safely",
            path=file,
        )
    if head.startswith(b"version https://git-lfs"):
        return CheckpointError("a Git LFS pointer, not the weights", remedy="run git lfs pull", path=file)
    if head.isascii() and b"\0" not in head:
        return CheckpointError("a text file, not safetensors", remedy=again, path=file)
    return CheckpointError(f"not a whole safetensors file ({error})", remedy=again, path=file)


def _read_config(file: Path, parse: Callable[[dict[str, Any]], _C]) -> _C:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"the config cannot be read ({error})", remedy="get the file again", path=file
        ) from error
    return _parse_config(text, file, parse)


def _parse_config(text: str, file: Path, parse: Callable[[dict[str, Any]], _C]) -> _C:
    try:
        fields: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"its config is not JSON ({error})", remedy="get the file again", path=file
        ) from error
    if not isinstance(fields, dict):
        raise CheckpointError("its config is not a JSON object", remedy="get the file again", path=file)
    try:
        return parse(fields)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(
            f"its config is not one of this package ({error})",
            remedy="use a checkpoint that save_pretrained or crisscross-weights wrote",
            path=file,
        ) from error


def _check_config(config: EncoderConfig, state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Raise a CheckpointError if the tensors contradict the config, before a network of that size is built."""
    found = _architecture(state_dict)
    stated = {"modality": config.modality, "depth": config.depth, "width": config.width}
    if wrong := [key for key in stated if key in found and found[key] != stated[key]]:
        raise CheckpointError(
            "; ".join(f"its config says {key} {stated[key]}, its tensors {found[key]}" for key in wrong),
            remedy="get the file again",
            path=path,
        )


def _architecture(state_dict: Mapping[str, Tensor]) -> dict[str, str | int]:
    """Return modality, depth and width as far as the names and shapes of the tensors determine them."""
    found: dict[str, str | int] = {}
    for modality, stages in _STAGES_OF_MODALITY.items():
        inside = [{name.split(".")[1] for name in state_dict if name.startswith(f"{s}.")} for s in stages]
        if any(inside):
            found["modality"] = modality
            # A stage of one block is the block itself, without an index: its names are not numbers.
            blocks = tuple(sum(n.isdigit() for n in names) or min(len(names), 1) for names in inside)
            if blocks in BLOCKS_PER_STAGE.values():
                found["depth"] = next(depth for depth, per in BLOCKS_PER_STAGE.items() if per == blocks)
    stem = state_dict.get("conv1.0.weight")
    if stem is not None and stem.ndim > 0:
        found["width"] = stem.shape[0]
    return found


def _mismatch_hint(config: Fields, state_dict: Mapping[str, Tensor]) -> str:
    if not isinstance(config, EncoderConfig):
        return "get the file again"
    found = _architecture(state_dict)
    wanted = f"the encoder is {config.modality} of depth {config.depth} and width {config.width}"
    modality = found.get("modality")
    if modality is None:
        return f"pass the state dict of a bare backbone, without prefixes: {wanted}"
    kind = CHECKPOINT_OF[str(modality)]
    if modality != config.modality:
        return f"this is {kind}: {wanted}"
    if "depth" in found and "width" in found:
        return f"this is {kind} of depth {found['depth']} and width {found['width']}; {wanted}"
    return f"this is {kind} with tensors missing or added; {wanted}"


def _is_plain_tensor(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized)
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(str(name) for name in names[:_NAMED_AT_MOST])
    return shown + (", ..." if len(names) > _NAMED_AT_MOST else "")
