"""Command-line options from a config: one for each field of nested frozen dataclasses, by dotted name.

``optim.batch_size`` becomes ``--optim.batch-size``; its type, default and help are the field's. The help is the
field's line under "Attributes:" in the class's docstring.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.M)


_MARKUP = re.compile(r"(?::\w+:)?`{1,2}([^`]+)`{1,2}")


def add_config_options(
    parser: argparse.ArgumentParser, config: Any, *, skip: tuple[str, ...] = (), defaults: bool = True
) -> None:
    """Add an option for every field of ``config`` (a dataclass instance) and of the dataclasses in it.

    Options that the user does not give are not in the namespace; :func:`config_overrides` collects those given.

    Args:
        parser: Gets one group of options for each dataclass.
        config: Has the names, types and defaults.
        skip: Dotted names of fields that get no option.
        defaults: Whether the help states the values of ``config`` as defaults.
    """
    for title, fields in _groups(config, ""):
        group = parser.add_argument_group(title)
        for name, kind, default, text in fields:
            if name not in skip:
                _add(group, name, kind, default if defaults else ..., text)


def config_overrides(
    options: argparse.Namespace, config: Any, *, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the values of those options of :func:`add_config_options` that the user gave, by dotted name."""
    names = {name for _, fields in _groups(config, "") for name, *_ in fields} - {*skip}
    given = {name: value for name, value in vars(options).items() if name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def field_docs(cls: type) -> dict[str, str]:
    """Return the text of each field in the "Attributes:" section of a dataclass's docstring, and of its bases'."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        docs |= {
            name: _MARKUP.sub(r"\1", " ".join(text.split())) for name, text in _ATTRIBUTE.findall(section)
        }
    return docs


def _groups(config: Any, prefix: str) -> Iterator[tuple[str, list[tuple[str, Any, Any, str]]]]:
    kinds, docs = typing.get_type_hints(type(config)), field_docs(type(config))
    own = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            own.append((prefix + field.name, kinds[field.name], value, docs.get(field.name, "")))
    summary = _MARKUP.sub(r"\1", (type(config).__doc__ or "").strip().split("\n")[0].rstrip("."))
    yield summary, own
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _groups(value, f"{prefix}{field.name}.")


def _add(group: argparse._ArgumentGroup, name: str, kind: Any, default: Any, text: str) -> None:
    flag = "--" + name.replace("_", "-")
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    about = text if default is ... else f"{text} (default: {'none' if shown in ('', None) else shown})"
    about = about.replace("%", "%%")
    arguments: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": about}
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **arguments)
    elif typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        number: int | str = "+" if ... in inner else len(inner)
        group.add_argument(flag, nargs=number, type=inner[0], metavar=inner[0].__name__.upper(), **arguments)
    elif typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        group.add_argument(flag, choices=choices, type=type(choices[0]), **arguments)
    else:
        group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **arguments)
