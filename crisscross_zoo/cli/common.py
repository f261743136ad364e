"""What every command shares: option parsing with suggestions, exit codes, errors as one line, JSON.

Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted, 141 done but the reader of stdout was gone. Results go to
stdout, everything else to stderr. A standard stream that is closed, or whose reader goes away, does not stop the work.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from crisscross_zoo import __version__
from crisscross_zoo.errors import ConfigError, CrissCrossError, UnknownWeightsError
from crisscross_zoo.files.atomic import storage_error
from crisscross_zoo.settings import suggest

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_BROKEN_PIPE = 141
"""The code that a shell gives to a program that SIGPIPE ended."""

_BAD_CHOICE = re.compile(r"invalid choice: (?P<value>'.*?'|\S+) \(choose from (?P<choices>.*)\)$")
_KEYWORD = re.compile(r'(\w+)="(\w+)"')
_UNKNOWN_OPTION = re.compile(r"unrecognized arguments: (?P<option>-[^\s=]+)")


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with exit code 2, and suggest the option or choice that was meant.

    Options are not matched by prefix: a shortened option would change its meaning when another one is added.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        self._of_command = False

    def add_common_options(self, *, as_json: str) -> None:
        """Add ``--quiet`` and ``--json``; ``as_json`` is the help of ``--json``: what it prints."""
        self.add_argument(
            "--quiet", action="store_true", help="hide progress, notes and warnings; errors are still printed"
        )
        self.add_argument("--json", action="store_true", help=as_json)

    def add_commands(self) -> Callable[..., ArgumentParser]:
        """Give the parser subcommands; return the function that adds one, ``add(name, function, about, as_json)``.

        ``function`` takes the parsed options and returns an exit code. It is stored in them as ``command``.
        """
        commands = self.add_subparsers(metavar="COMMAND", required=True)

        def add(
            name: str, function: Callable[[argparse.Namespace], int], about: str, as_json: str
        ) -> ArgumentParser:
            parser: ArgumentParser = commands.add_parser(name, help=about, description=about)
            parser._of_command = True
            parser.set_defaults(command=function)
            parser.add_common_options(as_json=as_json)
            return parser

        return add

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and exit with 2."""
        if bad := _BAD_CHOICE.search(message):
            choices = [c.strip().strip("'\"") for c in bad["choices"].split(",")]
            meant = suggest(bad["value"].strip("'\""), choices)
            message = f"{message[: bad.start()]}{bad['value']} is not known; {meant}"
        elif unknown := _UNKNOWN_OPTION.search(message):
            known = {option for action in self._actions for option in action.option_strings}
            meant = suggest(unknown["option"], sorted(option for option in known if option.startswith("--")))
            message = f"there is no option {unknown['option']!r}; " + meant.split(" (choose")[0]
        elif "required" in message:
            message += f"; see {self.prog} --help"
        self.exit(EXIT_USAGE, f"{self.prog}: error: {' '.join(message.split())}\n")

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse. A subcommand reports unknown arguments itself, so that the suggestion is one of its own options."""
        if not self._of_command:
            _options.clear()
        _options.update(option for action in self._actions for option in action.option_strings)
        found, unknown = super().parse_known_args(*args, **kwargs)
        if unknown and self._of_command:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


# Options of the command that was parsed last, and of its subcommand: in_options() uses them.
_options: set[str] = set()

_TURNED_OFF = re.compile(r"\bpass ([a-z]\w*)=False\b")
_ARGUMENT = re.compile(r"(?<![\w.?&/=-])([a-z][a-z_]*(?:\.[a-z_]+)*)=('[^']*'|[\w.+-]*\w)")
_MODALITY = re.compile(r"\bmodality '(\w+)'(?: or '(\w+)')?")


def error_line(error: CrissCrossError) -> str:
    """Return an error as a command prints it: see :func:`in_options`."""
    text = str(error)
    where = text[: text.index(error.reason)]
    return where + in_options(text[len(where) :])


def in_options(text: str) -> str:
    """Return a message with options (``--clips 10``) for Python's arguments (``clips=10``).

    Arguments for which the command that was parsed last has no option stay as they are.
    """
    text = _TURNED_OFF.sub(lambda found: _as_option(found, "leave out {}"), text)
    text = _ARGUMENT.sub(lambda found: _as_option(found, f"{{}} {found[2].strip(chr(39))}"), text)
    if "--modality" not in _options:
        return text
    return _MODALITY.sub(lambda found: f"--modality {' or '.join(filter(None, found.groups()))}", text)


def _as_option(found: re.Match[str], words: str) -> str:
    option = f"--{found[1].replace('_', '-')}"
    return words.format(option) if option in _options else found[0]


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``."""
    parser.add_argument("--version", action="version", version=f"crisscross-zoo {__version__}")


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None, *, prog: str) -> int:
    """Call ``main(argv)`` and return the exit code; the package's own errors become one line on stderr.

    While ``main`` runs, writing to the standard streams does not fail: see :class:`_Stream`.

    Args:
        main: Parses the arguments and does the work; returns 0, or 1 if some of the inputs failed.
        argv: Arguments without the program's name; None: those of the process.
        prog: The command's name, for the error line.
    """
    _open_closed_streams()
    with _stream("stderr"), _stream("stdout") as stdout:
        code = _exit_code(main, argv, prog=prog)
        with contextlib.suppress(ValueError):  # other code has closed it
            sys.stdout.flush()
        if stdout is None or stdout.lost is None:
            return code
        if not isinstance(stdout.lost, BrokenPipeError):  # a full disk
            print(f"{prog}: error: standard output: {stdout.lost.strerror}", file=sys.stderr)
            return code or EXIT_FAILED
        return code or EXIT_BROKEN_PIPE


def _exit_code(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None, *, prog: str) -> int:
    try:
        return main(argv)
    except SystemExit as stop:  # argparse: --help, --version and bad usage
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED
    except CrissCrossError as error:
        print(f"{prog}: error: {error_line(error)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigError | UnknownWeightsError) else EXIT_FAILED
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:  # a name too long, a folder that may not be entered, a full disk
        where = "" if error.filename is None else f"{error.filename}: "
        print(
            f"{prog}: error: {storage_error(error) or f'{where}{error.strerror or error}'}", file=sys.stderr
        )
        return EXIT_FAILED


class _Stream(io.FileIO):
    """A standard stream that drops what cannot be written: its reader may go away, or its disk may be full.

    Attributes:
        lost: The first error of writing, if there was one.
    """

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write ``data``, or drop it if it cannot be written."""
        if self.lost is None:
            try:
                return super().write(data)
            except BlockingIOError:
                raise
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that the process was started without (daemons, ``>&-``).

    Otherwise the next file to be opened would get the number of a closed stream, and what libraries print would go
    into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(opened, True)


@contextlib.contextmanager
def _stream(name: str) -> Iterator[_Stream | None]:
    """Make ``sys.stdout`` or ``sys.stderr`` accept any file name and not fail, while open; yield the raw stream.

    The raw stream is None if it is not a file of the system's (a notebook, a test).
    """
    before = getattr(sys, name)
    with contextlib.ExitStack() as stack:
        raw: _Stream | None = None
        if before is None or before.closed:  # the process was started without it
            now: Any = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        elif before is getattr(sys, f"__{name}__") and type(_raw(before)) is io.FileIO:
            with contextlib.suppress(OSError):
                before.flush()
            raw = _Stream(before.fileno(), "w", closefd=False)
            now = io.TextIOWrapper(
                io.BufferedWriter(raw) if _raw(before) is not before.buffer else raw,  # python -u
                encoding=before.encoding,
                errors="backslashreplace",  # file names may have bytes that are not text
                line_buffering=before.line_buffering,
                write_through=before.write_through,
            )
            stack.callback(now.flush)
        else:
            now = before
            if isinstance(now, io.TextIOWrapper):
                now.reconfigure(errors="backslashreplace")
        setattr(sys, name, now)
        stack.callback(setattr, sys, name, before)
        yield raw


def _raw(stream: Any) -> Any:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Make SIGTERM, which Slurm and torchrun send, interrupt as Ctrl-C does, while open."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_json(value: object) -> None:
    """Print ``value`` to stdout as JSON, for machines: no NaN, two spaces of indent."""
    print(json.dumps(value, indent=2, allow_nan=False))


def add_field(
    group: argparse._ActionsContainer, field: dataclasses.Field[Any], text: str, **special: Any
) -> None:
    """Add an option for a field of a dataclass, with the field's type and default.

    Args:
        group: Gets the option.
        field: The field, whose annotation is a type, not a string. Numbers must be above 0, a bool becomes a flag, and
            any other type is parsed as ``str``.
        text: The field's text in the class's docstring. Its first sentence is the help, where a keyword
            (``modality="both"``) becomes an option (``--modality both``).
        special: Arguments of ``add_argument`` that replace those of the field.
    """
    kind: Any = field.type
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    arguments: dict[str, Any] = {"default": field.default}
    if kind is bool:
        arguments["action"] = "store_true"
    elif typing.get_origin(kind) is typing.Literal:
        arguments["choices"] = typing.get_args(kind)
    elif kind in (int, float):
        arguments["type"] = count if kind is int else positive
    arguments["help"] = _KEYWORD.sub(r"--\1 \2", text.split(". ")[0].removesuffix("."))
    group.add_argument(f"--{field.name.replace('_', '-')}", **(arguments | special))


def positive(text: str) -> float:
    """Parse a number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def count(text: str) -> int:
    """Parse a whole number above 0."""
    with contextlib.suppress(ValueError):
        if int(text) > 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
