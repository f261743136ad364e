"""Expand a command's inputs to files: folders, globs, lists and single files. No media file is opened."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.files import remote
from crisscross_zoo.files.trees import unreadable

_VIDEO_SUFFIXES = """
.3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2ts .m2v .m4v .mj2 .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogv .qt .rm
.rmvb .ts .vob .webm .wmv .y4m
"""
_AUDIO_SUFFIXES = """
.aac .ac3 .aif .aifc .aiff .amr .ape .au .caf .flac .m4a .mka .mp2 .mp3 .oga .ogg .opus .ra .snd .tta .wav .weba .wma
.wv
"""
VIDEO_SUFFIXES: frozenset[str] = frozenset(_VIDEO_SUFFIXES.split())
"""Suffixes of files that usually have a video stream, with or without audio."""

MEDIA_SUFFIXES: frozenset[str] = VIDEO_SUFFIXES | frozenset(_AUDIO_SUFFIXES.split())
"""Suffixes of the files taken from folders. A file that is named itself is tried whatever its suffix."""

# UTF-32 comes first: its byte order mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LINE_END = re.compile(r"\r\n|\r|\n")


def find_media(
    inputs: Iterable[str],
    *,
    list_file: str | None = None,
    suffixes: Collection[str] = MEDIA_SUFFIXES,
    on_skipped: Callable[[str, Counter[str]], None] | None = None,
) -> list[str]:
    """Return the files that the inputs stand for, in the order given, each once.

    Args:
        inputs: Files, their URLs, folders (searched recursively for ``suffixes``, hidden files skipped) and glob
            patterns (``**`` crosses folders). A file that does not exist is kept; reading it raises the error.
        list_file: A file with one path per line, relative to the working directory, as :func:`read_list` takes it;
            blank lines, lines that begin with # and white space around a path are ignored.
        suffixes: Those of :data:`crisscross_zoo.files.find.MEDIA_SUFFIXES` to take from folders.
        on_skipped: Called with each folder in which files are skipped because of their suffix, and the number of each
            suffix (lower case, "" for none).

    Raises:
        ConfigError: a folder has no media, a pattern matches nothing, or a list cannot be read.
    """
    found: dict[str, None] = {}
    for given in [*inputs, *(_paths_in_list(list_file) if list_file is not None else ())]:
        given = remote.without_file_scheme(given)
        if is_folder(given):
            files, skipped = [], Counter[str]()
            for path in _walk(given):
                suffix = Path(path).suffix.lower()
                if suffix in suffixes:
                    files.append(path)
                else:
                    skipped[suffix] += 1
            if not files:
                raise _no_files(given, suffixes, skipped)
            files.sort()
            if on_skipped is not None and skipped:
                on_skipped(given, skipped)
        elif glob.has_magic(given) and not (remote.is_http(given) or remote.exists(given, ask=True)):
            if remote.is_url(given):
                files = remote.glob(given)
            else:
                matches = glob.glob(given, recursive=True)
                files = sorted(p for p in matches if Path(p).is_file())
            if not files:
                raise ConfigError("matches no file", remedy="check the pattern", path=given)
        else:
            files = [given]
        found.update(dict.fromkeys(files))
    if not found:
        raise ConfigError("no input", remedy="name files, folders or patterns, or a list with --list")
    return list(found)


def is_folder(path: str) -> bool:
    """Return whether a path or URL is a folder; a URL with a media suffix is taken for a file, without a request."""
    if remote.is_url(path):
        return (
            Path(path).suffix.lower() not in MEDIA_SUFFIXES
            and not (remote.is_http(path) and glob.has_magic(path))
            and remote.is_folder(path)
        )
    # os.path returns False where pathlib raises: names too long, folders that may not be entered.
    return os.path.isdir(path)


def common_folder(inputs: Iterable[str]) -> Path:
    """Return the deepest folder that holds all ``inputs``; an input that is a folder counts as itself.

    Raises:
        ConfigError: there is no such folder (paths on several drives).
    """
    paths = [(i, remote.absolute(i)) for i in inputs]
    folders = [p if is_folder(i) else os.path.dirname(p) for i, p in paths]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        raise ConfigError("the inputs have no folder in common", remedy="run once per drive") from None


def _no_files(folder: str, suffixes: Collection[str], skipped: Collection[str]) -> ConfigError:
    if suffixes == VIDEO_SUFFIXES and any(suffix in MEDIA_SUFFIXES for suffix in skipped):
        return ConfigError(
            "has audio files only", remedy="use modality 'audio', or name a folder of videos", path=folder
        )
    return ConfigError(
        "has no media files", remedy=f"known suffixes: {' '.join(sorted(suffixes))}", path=folder
    )


def _walk(folder: str) -> Iterable[str]:
    """Yield the files of a folder and of all folders in it, without hidden ones."""

    def refuse(error: OSError) -> None:
        raise ConfigError(
            f"{error.filename}: cannot be read ({error.strerror})", remedy="check its access rights"
        )

    if remote.is_url(folder):
        yield from remote.find(folder)
        return
    seen: set[str] = set()  # links to folders are followed, each folder once
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield os.path.join(here, name)


def read_list(path: str) -> str:
    """Return the text of a list: UTF-8, or UTF-16 or UTF-32 with a byte order mark; with any line endings.

    Bytes that are not UTF-8 are kept (``surrogateescape``), since file names need not be UTF-8.

    Raises:
        ConfigError: the list cannot be read, or a line is not text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    encoding, mark = next(((e, m) for m, e in _MARKS if data.startswith(m)), ("utf-8", b""))
    try:
        text = data[len(mark) :].decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        before = data[len(mark) :][: error.start].decode(encoding)
        raise ConfigError(
            f"line {len(_LINE_END.split(before))} is not {encoding.upper()}, as the byte order mark states",
            remedy="save the list as UTF-8",
            path=path,
        ) from None
    lines = _LINE_END.split(text)
    if (
        bad := next((number for number, line in enumerate(lines, start=1) if "\0" in line), None)
    ) is not None:
        raise ConfigError(
            f"line {bad} has a NUL byte: the list is not text, or it is UTF-16 without a byte order mark",
            remedy="write one path per line, in UTF-8",
            path=path,
        )
    return "\n".join(lines)


def _paths_in_list(path: str) -> Iterator[str]:
    for number, line in enumerate(read_list(path).split("\n"), start=1):
        given = line.strip()
        if not given or given.startswith("#"):
            continue
        # Bytes that are not UTF-8 are those of a file name, or the list has another encoding.
        if (
            not given.isascii()
            and _is_undecodable(given)
            and not (os.path.lexists(given) or glob.has_magic(given))
        ):
            raise ConfigError(
                f"line {number} is not UTF-8, and there is no file whose name has these bytes",
                remedy="save the list as UTF-8",
                path=path,
            )
        yield given


def _is_undecodable(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)
