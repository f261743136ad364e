"""Name the codec of a stream for which FFmpeg has no decoder, by the container's header: PyAV then names nothing."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from crisscross_zoo.media.tracks import MP4_FORMAT

_HEAD_BYTES = 1 << 20  # of a file, in which the headers of Matroska and AVI lie
_INDEX_BYTES = 64 << 20  # of MP4's index

_CODEC_IDS = re.compile(rb"\x86([\x83-\xbf])([VASBD]_[\w./+-]+)")  # Matroska's element CodecID, its size
_SAMPLE_ENTRIES = re.compile(rb"stsd\0{4}.{4}.{4}(....)", re.DOTALL)
_STREAM_HEADERS = re.compile(rb"strh.{4}(....).{0,512}?strf.{4}(.{20})", re.DOTALL)


def codec_name(file: BinaryIO, format_name: str, index: int) -> str | None:
    """Return the codec of stream ``index`` as a Matroska, MP4 or AVI file names it; None if that is not found."""
    names: list[str] = []
    if format_name == "matroska,webm":
        names = [_text(m[2][: m[1][0] & 127]) for m in _CODEC_IDS.finditer(_read(file, 0, _HEAD_BYTES))]
    elif format_name == MP4_FORMAT:
        names = [_text(m[1]) for m in _SAMPLE_ENTRIES.finditer(_index(file))]
    elif format_name == "avi":
        for match in _STREAM_HEADERS.finditer(_read(file, 0, _HEAD_BYTES)):
            audio = match[1] == b"auds"
            names.append(f"0x{int.from_bytes(match[2][:2], 'little'):04x}" if audio else _text(match[2][16:]))
    return names[index] if index < len(names) else None


def _text(name: bytes) -> str:
    return name.decode("latin-1") if name.isascii() and name.decode().isprintable() else f"0x{name.hex()}"


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _index(file: BinaryIO) -> bytes:
    """Return an MP4's box ``moov``, which has one sample description per stream."""
    size, at = file.seek(0, os.SEEK_END), 0
    while at + 8 <= size:
        head = _read(file, at, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if head[4:8] == b"moov":
            return _read(file, at, min(length or size, _INDEX_BYTES))
        if length < 8:
            break
        at += length
    return b""
