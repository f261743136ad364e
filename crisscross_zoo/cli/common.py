"""What every command shares: option parsing with suggestions, exit codes, errors as one line, JSON.

Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted, 141 done but the reader of stdout was gone. Results go to
stdout, all else to stderr. A standard stream that is closed, or whose reader goes away, stops no work.
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
"""What a shell says of a program that SIGPIPE ended."""

_BAD_CHOICE = re.compile(r"invalid choice: (?P<value>'.*?'|\S+) \(choose from (?P<choices>.*)\)$")
_KEYWORD = re.compile(r'(\w+)="(\w+)"')
_UNKNOWN_OPTION = re.compile(r"unrecognized arguments: (?P<option>-[^\s=]+)")


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, exit 2 and propose the option or choice that was meant.

    Options are not matched by prefix: a shortened one would change its meaning when another is added.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        self._of_command = False

    def add_common_options(self, *, as_json: str) -> None:
        """Add ``--quiet`` and ``--json``; ``as_json`` is the help of the latter: what it prints."""
        self.add_argument("--quiet", action="store_true", help="no progress, no remarks; errors still show")
        self.add_argument("--json", action="store_true", help=as_json)

    def add_commands(self) -> Callable[..., ArgumentParser]:
        """Make this a command of commands; what is returned adds one, as ``add(name, function, about, as_json)``.

        The function takes the parsed options, which have it as ``command``, and returns an exit code.
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
        """Parse; a command of commands refuses what it does not know itself, among whose options it was meant."""
        if not self._of_command:
            _options.clear()
        _options.update(option for action in self._actions for option in action.option_strings)
        found, unknown = super().parse_known_args(*args, **kwargs)
        if unknown and self._of_command:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


_options: set[str] = set()  # of the command that was parsed last, and of its subcommand

_TURNED_OFF = re.compile(r"\bpass ([a-z]\w*)=False\b")
_ARGUMENT = re.compile(r"(?<![\w.?&/=-])([a-z][a-z_]*(?:\.[a-z_]+)*)=('[^']*'|[\w.+-]*\w)")
_MODALITY = re.compile(r"\bmodality '(\w+)'(?: or '(\w+)')?")


def said(error: CrissCrossError) -> str:
    """Return an error as a command says it: Python's arguments in it (``clips=10``) are options (``--clips 10``).

    What the command that was parsed last has no option for stays as it is.
    """
    text = str(error)
    where = text[: text.index(error.reason)]
    rest = _TURNED_OFF.sub(lambda found: _as_option(found, "leave out {}"), text[len(where) :])
    rest = _ARGUMENT.sub(lambda found: _as_option(found, f"{{}} {found[2].strip(chr(39))}"), rest)
    if "--modality" not in _options:
        return where + rest
    return where + _MODALITY.sub(
        lambda found: f"--modality {' or '.join(filter(None, found.groups()))}", rest
    )


def _as_option(found: re.Match[str], words: str) -> str:
    option = f"--{found[1].replace('_', '-')}"
    return words.format(option) if option in _options else found[0]


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``."""
    parser.add_argument("--version", action="version", version=f"crisscross-zoo {__version__}")


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None, *, prog: str) -> int:
    """Call ``main(argv)`` and return the exit code; what it raises on purpose becomes one line on stderr.

    While it runs, standard streams are such that writing to them does not fail: see :class:`_Stream`.

    Args:
        main: Parses and works; returns 0, or 1 where some of the inputs failed.
        argv: Arguments without the program's name; None: those of the process.
        prog: The command's name, for the error line.
    """
    _open_closed_streams()
    with _stream("stderr"), _stream("stdout") as stdout:
        code = _exit_code(main, argv, prog=prog)
        with contextlib.suppress(ValueError):  # it was closed by somebody else
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
        print(f"{prog}: error: {said(error)}", file=sys.stderr)
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
    """A standard stream whose reader may go away, or whose disk may be full: what is written then is dropped.

    Attributes:
        lost: The first error of writing, if there was one.
    """

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written."""
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

    Otherwise the next file to be opened would take a closed one's number, and with it what libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number: this one
            os.set_inheritable(opened, True)


@contextlib.contextmanager
def _stream(name: str) -> Iterator[_Stream | None]:
    """While open, ``sys.stdout`` or ``sys.stderr`` takes any file name and does not fail; gives what it writes to.

    None where that is no file of the system's (a notebook, a test).
    """
    before = getattr(sys, name)
    with contextlib.ExitStack() as stack:
        raw: _Stream | None = None
        if before is None or before.closed:  # there was none at the start
            now: Any = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        elif before is getattr(sys, f"__{name}__") and type(_raw(before)) is io.FileIO:
            with contextlib.suppress(OSError):
                before.flush()
            raw = _Stream(before.fileno(), "w", closefd=False)
            now = io.TextIOWrapper(
                io.BufferedWriter(raw) if _raw(before) is not before.buffer else raw,  # python -u
                encoding=before.encoding,
                errors="backslashreplace",  # file names need not be text
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
    """While open, SIGTERM, which Slurm and torchrun send, interrupts as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # others get no signals
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
    """Add an option for a field of a dataclass, whose type and default it takes.

    Args:
        group: Gets the option.
        field: Its annotation is a type, not text: numbers are above 0, a bool is a flag. Text is taken for ``str``.
        text: What the class says of the field; the first sentence is the help, a keyword in it (``modality="both"``)
            the option (``--modality both``).
        special: Arguments of ``add_argument`` that are otherwise.
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
