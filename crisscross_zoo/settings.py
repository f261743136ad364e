"""Checks of options, in one dialect: what is wrong and what is allowed, in one line. Standard library only."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from typing import TypeAlias

from crisscross_zoo.errors import ConfigError, InputError

StrPath: TypeAlias = str | os.PathLike[str]


def suggest(value: object, allowed: Collection[object]) -> str:
    """Say what is allowed, and which of it was probably meant: ``"did you mean 'audio'? (audio, video)"``."""
    names = {str(a).lstrip("-"): str(a) for a in allowed}  # the dashes of two options are no likeness
    near = difflib.get_close_matches(str(value).lstrip("-"), names, n=1)
    listing = "choose from " + ", ".join(names.values())
    return f"did you mean {names[near[0]]!r}? ({listing})" if near else listing


def check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    """Raise a ConfigError that proposes the nearest allowed value unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} is not known", remedy=suggest(value, allowed))


def check_count(name: str, value: object, *, least: int) -> None:
    """Raise a ConfigError unless ``value`` is None or a whole number not below ``least``."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigError(
            f"{name}={value!r} is out of range", remedy=f"pass a whole number, at least {least}"
        )


def check_path(name: str, value: object) -> None:
    """Raise an InputError unless ``value`` is a path or URL: text, or an ``os.PathLike`` that gives text."""
    if isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)):
        return
    kind = type(value).__name__
    if isinstance(value, bytes | os.PathLike):
        remedy = "pass os.fsdecode(...) of it"
    elif hasattr(value, "read"):
        kind, remedy = f"{kind}, an open file", "pass the file's path"
    else:
        remedy = "pass a str or a pathlib.Path"
    raise InputError(f"{name} is a {kind}, and not text", remedy=remedy)


def check_training_precision(device: str, precision: str) -> None:
    """Raise a ConfigError for 16-bit training on a CPU.

    There oneDNN's gradients of 3-D convolutions in bfloat16 hold uninitialised memory (torch 2.14, kernels (3, 1, 1)
    over 2 frames and others): NaN now and then, wrong numbers without a sign otherwise. Inference is not concerned.
    """
    if device == "cpu" and precision in ("bf16", "fp16"):
        raise ConfigError(
            f"training in {precision} on a CPU gives wrong gradients (an error of its convolutions)",
            remedy="use fp32 (--optim.precision fp32), or a GPU",
        )
