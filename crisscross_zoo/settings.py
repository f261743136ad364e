"""Settings: frozen dataclasses whose type hints state the allowed values, and errors that name these values.

A field of a :class:`Settings` is checked by its type: ``batch_size: Annotated[int, Range(2)] = 512``. Standard library
only; :func:`pick_device` imports torch when it is called.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from crisscross_zoo.errors import ConfigError, InputError, first_line

if TYPE_CHECKING:
    import torch

StrPath: TypeAlias = str | os.PathLike[str]

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = typing.get_args(Precision)
"""Precisions of a network; :data:`crisscross_zoo.numerics.DTYPES` has their torch dtypes."""


# --- what a type allows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """The allowed range of a number; without arguments, any finite number.

    Attributes:
        least: Inclusive minimum.
        most: Inclusive maximum.
        above: Exclusive minimum.
        below: Exclusive maximum.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: Any) -> bool:
        return math.isfinite(value) and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"{self.least:g} to {self.most:g}"
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if math.isfinite(limit))


@dataclass(frozen=True, eq=False)  # by identity: tables cannot be hashed
class OneOf:
    """The allowed values, if they are the keys of a table. A fixed set of values is a ``Literal``."""

    allowed: Collection[object]


FIXED = object()
"""Marks a field that :meth:`Settings.override` cannot change, except inside a section: ``Annotated[str, FIXED]``."""

Count: TypeAlias = Annotated[int, Range(1)]
Whole: TypeAlias = Annotated[int, Range(0)]
Positive: TypeAlias = Annotated[float, Range(above=0)]
NotNegative: TypeAlias = Annotated[float, Range(0)]
Ratio: TypeAlias = Annotated[float, Range(0, 1)]

_NOUNS: dict[type, str] = {int: "a whole number", float: "a number", bool: "True or False", str: "a str"}


def check(name: str, value: Any, hint: Any) -> Any:
    """Return ``value``, with JSON's lists as tuples; raise a ConfigError unless its type hint allows it.

    Args:
        name: The name of the value in the error.
        value: Any value.
        hint: A type: bool, int, float, str, a :class:`Settings`, a ``Literal``, a tuple of these, each with None or
            without, and ``Annotated`` with a :class:`Range` or :class:`OneOf`.

    Raises:
        ConfigError: the value is not allowed; the error names it and what is allowed.
    """
    kind, *rules = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    choices = next((rule.allowed for rule in rules if isinstance(rule, OneOf)), None)
    if origin in (typing.Union, types.UnionType):
        (kind,) = set(arguments) - {types.NoneType}
        inner: Any = Annotated[(kind, *rules)] if rules else kind
        return None if value is None else check(name, value, inner)
    if origin is tuple:
        return _check_tuple(name, value, arguments)
    if origin is Literal:
        choices = arguments
    else:
        _check_kind(name, value, kind, next((rule for rule in rules if isinstance(rule, Range)), Range()))
    if choices is not None:
        check_choice(name, value, choices)
    return value


def _check_kind(name: str, value: Any, kind: type, span: Range) -> None:
    noun = _NOUNS.get(kind, f"{kind.__name__}(...)")
    remedy = f"pass {noun}, {span}" if str(span) else f"pass {noun}"
    kinds: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name}={value!r:.60} is not {noun}", remedy=remedy)
    if kind in (int, float) and value not in span:
        raise ConfigError(f"{name}={value!r} is out of range", remedy=remedy)


def _check_tuple(name: str, value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    wanted = "a list" if ... in kinds else f"{len(kinds)} values"
    if not isinstance(value, tuple | list) or (... not in kinds and len(value) != len(kinds)):
        raise ConfigError(f"{name}={value!r:.60} is not {wanted}", remedy=f"pass {wanted}")
    hints = kinds[:1] * len(value) if ... in kinds else kinds
    return tuple(check(name, one, hint) for one, hint in zip(value, hints, strict=True))


# --- settings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of frozen dataclasses of settings: each field is what its type allows, see :func:`check`.

    A field that is itself a :class:`Settings` is a section. Rules about several fields go into ``__post_init__``.

    Raises:
        ConfigError: a field has a value that its type does not allow.
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, check(name, getattr(self, name), hint))

    @property
    def title(self) -> str:
        """The name of these settings in errors."""
        return type(self).__name__

    def names(self) -> list[str]:
        """Return the names of all fields that :meth:`override` can change; dotted names, of sections, come last."""
        own, nested = [], []
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            if FIXED not in typing.get_args(hint):
                own.append(name)
            if isinstance(value, Settings):
                nested += [f"{name}.{inner}" for inner in value.names()]
        return own + nested

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **changes)

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with fields changed by dotted name, such as ``{"optim.batch_size": 64}``.

        Raises:
            ConfigError: a setting is unknown, or a value is not allowed; the error has the dotted name.
        """
        known = self.names()
        for name in changes:
            if name not in known:
                raise ConfigError(f"{self.title} has no setting {name!r}", remedy=_suggest_name(name, known))
        return self._override(changes, "")

    def _override(self, changes: Mapping[str, Any], path: str) -> Self:
        hints = _hints(type(self))
        own: dict[str, Any] = {}
        sections: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            section, dot, inner = name.partition(".")
            if dot:
                sections.setdefault(section, {})[inner] = value
            else:
                own[name] = check(path + name, value, hints[name])
        for section, values in sections.items():
            own[section] = own.get(section, getattr(self, section))._override(values, f"{path}{section}.")
        return self.replace(**own)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without fields that are None; :meth:`from_dict` reads them back."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the settings that :meth:`to_dict` wrote.

        Raises:
            ConfigError: a field is unknown or missing, or a value is not allowed.
        """
        hints = _hints(cls)
        values = {}
        for name, value in fields.items():
            if name not in hints:
                raise ConfigError(f"{cls.__name__} has no field {name!r}", remedy=suggest(name, hints))
            section = _section(hints[name])
            values[name] = section.from_dict(value) if section and isinstance(value, Mapping) else value
        for field in dataclasses.fields(cls):
            needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if needed and field.name not in values:
                raise ConfigError(f"{cls.__name__} lacks {field.name!r}", remedy="add it")
        return cls(**values)


def _resolve(cls: type[Settings]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


_hints: Callable[[Any], dict[str, Any]] = functools.cache(_resolve)  # mypy denies that a class has a hash


def _section(hint: Any) -> type[Settings] | None:
    """Return the :class:`Settings` in a type hint, alone or in a union with None; else None."""
    if isinstance(hint, type):
        return hint if issubclass(hint, Settings) else None
    return next(filter(None, map(_section, typing.get_args(hint))), None)


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _suggest_name(name: str, known: Collection[str]) -> str:
    section = name.rpartition(".")[0]
    siblings = [other for other in known if other.rpartition(".")[0] == section]
    sections = dict.fromkeys(other.rpartition(".")[0] for other in known if "." in other)
    return suggest(name, siblings) if siblings else suggest(section, sections)


# --- single checks -----------------------------------------------------------------------------------------------


_SYNONYMS = {"mean": "avg"}
"""Names that users may expect, and ours; the spelling is too different for a suggestion."""


def suggest(value: object, allowed: Collection[object]) -> str:
    """Return a remedy: the nearest allowed value, and all of them: "did you mean 'audio'? (choose from ...)"."""
    names = {str(a).lstrip("-"): str(a) for a in allowed}  # dashes would make any two options alike
    given = str(value).lstrip("-")
    near = [name for name in (_SYNONYMS.get(given),) if name in names] or difflib.get_close_matches(
        given, names, n=1
    )
    listing = "choose from " + ", ".join(names.values())
    return f"did you mean {names[near[0]]!r}? ({listing})" if near else listing


def check_choice(name: str, value: object, allowed: Collection[object]) -> None:
    """Raise a ConfigError, which proposes the nearest allowed value, unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r} is not known", remedy=suggest(value, allowed))


def check_count(name: str, value: object, *, least: int) -> None:
    """Raise a ConfigError unless ``value`` is None or a whole number not below ``least``."""
    check(name, value, Annotated[int, Range(least)] | None)


def check_path(name: str, value: object) -> None:
    """Raise an InputError unless ``value`` is a path or URL: a str, or an ``os.PathLike`` of a str."""
    if isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)):
        return
    kind = type(value).__name__
    if isinstance(value, bytes | os.PathLike):
        remedy = "pass os.fsdecode(...) of it"
    elif hasattr(value, "read"):
        kind, remedy = f"{kind} (an open file)", "pass the file's path"
    else:
        remedy = "pass a str or a pathlib.Path"
    raise InputError(f"{name} is of type {kind}, not text", remedy=remedy)


def check_training_precision(device: str, precision: str) -> None:
    """Raise a ConfigError for 16-bit training on a CPU.

    On a CPU oneDNN's gradients of 3-D convolutions in bfloat16 hold uninitialised memory (torch 2.14, kernels (3, 1, 1)
    over 2 frames and others): sometimes NaN, otherwise silently wrong numbers. Inference is not affected.
    """
    if device == "cpu" and precision in ("bf16", "fp16"):
        raise ConfigError(
            f"training in {precision} on a CPU gives wrong gradients (an error of its convolutions)",
            remedy="use fp32 (--optim.precision fp32), or a GPU",
        )


# --- devices -----------------------------------------------------------------------------------------------------


def pick_device(device: str | torch.device, *, auto: Sequence[str] = ("cuda", "mps")) -> torch.device:
    """Return the torch device, with its index if it has one.

    Args:
        device: ``"auto"``, or a device of torch.
        auto: Devices for ``"auto"``: the first one that is available; the CPU if none is.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    import torch

    if device == "auto":
        available: dict[str, Callable[[], bool]] = {
            "cuda": torch.cuda.is_available,
            "mps": torch.backends.mps.is_available,
        }
        device = next((name for name in auto if available[name]()), "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises each of them
        raise ConfigError(
            f"device={str(device)!r} cannot be used ({first_line(error)})", remedy="pass 'auto' or 'cpu'"
        ) from None
