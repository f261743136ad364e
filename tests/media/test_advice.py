"""Advice for files that FFmpeg cannot read and that their first bytes identify, and for joined files."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import av
import pytest
from make_media import make_media
from PIL import Image

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.errors import TruncatedMediaError, UnreadableMediaError
from crisscross_zoo.media.advice import known_trouble
from crisscross_zoo.media.clips import Sampling, file_events
from crisscross_zoo.media.scan import scan


def webp(*, images: int) -> bytes:
    made = [Image.new("RGB", (32, 32), (40 * k, 0, 0)) for k in range(images)]
    memory = io.BytesIO()
    made[0].save(memory, "WEBP", save_all=images > 1, append_images=made[1:])
    return memory.getvalue()


def wav(seconds: float = 1.0) -> bytes:
    memory = io.BytesIO()
    with wave.open(memory, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\0\1" * round(seconds * 16_000))
    return memory.getvalue()


def id3(size: int, *, footer: bool = False) -> bytes:
    """Return a tag of ``size`` bytes, its header included, and with ``footer`` its footer too."""
    length = size - (20 if footer else 10)
    sevens = bytes((length >> shift) & 127 for shift in (21, 14, 7, 0))
    head = b"ID3\x04\0" + bytes([16 if footer else 0]) + sevens
    frame = b"TIT2" + struct.pack(">I", length - 10) + b"\0\0"
    tag = head + frame + b"\0" * (length - 10)
    return tag + (b"3DI" + head[3:] if footer else b"")


def animated(folder: Path) -> tuple[Path, str]:
    path = folder / "moving.webp"
    path.write_bytes(webp(images=3))
    return (
        path,
        "is an animated WebP, which FFmpeg does not decode; convert it to GIF or MP4 with another tool",
    )


def tagged(folder: Path, size: int = 300, *, footer: bool = False) -> tuple[Path, str]:
    path = folder / "tagged.wav"
    path.write_bytes(id3(size, footer=footer) + wav())
    return (
        path,
        f"is WAV behind an ID3 tag of {size} bytes, .*cut the tag off: tail -c \\+{size + 1} FILE > NEW.wav",
    )


@pytest.mark.parametrize("make", [animated, tagged])
def test_the_kind_is_recognised(tmp_path: Path, make) -> None:
    path, message = make(tmp_path)
    error = known_trouble(str(path))
    assert isinstance(error, UnreadableMediaError)
    with pytest.raises(UnreadableMediaError, match=message):
        raise error


@pytest.mark.parametrize(("size", "footer"), [(20, False), (300, True), (40_000, False)])
def test_the_file_without_the_tag_is_read(tmp_path: Path, size: int, footer: bool) -> None:
    path, message = tagged(tmp_path, size, footer=footer)
    with pytest.raises(UnreadableMediaError, match=message):
        raise known_trouble(str(path))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(path.read_bytes()[size:])  # tail -c +N begins with byte N, counted from 1
    assert scan(cut).duration == pytest.approx(1.0)


@pytest.mark.parametrize(
    "data", [b"", b"ID3", id3(30), id3(30) + b"RIFF", webp(images=1), wav(), b"RIFF" * 9]
)
def test_other_files_get_no_advice(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert known_trouble(str(tmp_path / "x")) is None
    assert known_trouble(str(tmp_path / "gone")) is None


@pytest.mark.parametrize("make", [animated, tagged])
def test_a_scan_raises_the_advice_of_the_kind(tmp_path: Path, make) -> None:
    path, message = make(tmp_path)
    if make is tagged and av.__version__ < "16":  # its FFmpeg skips the tag
        assert scan(path).format == "wav"
    else:
        with pytest.raises(UnreadableMediaError, match=message):
            scan(path)


def test_a_head_that_ends_early_is_no_animation(tmp_path):
    path = tmp_path / "short.webp"
    path.write_bytes(b"RIFF\x10\0\0\0WEBPVP8X")
    assert known_trouble(str(path)) is None


@pytest.mark.parametrize(
    ("suffix", "remedy"),
    [
        (".ts", "remux an MPEG-TS file (ffmpeg -i FILE -c copy NEW.mkv), "),
        (".mp4", "split it where it was joined, or pass strict=False to read only the first"),
    ],
)
def test_joined_recordings_are_not_reported_as_truncated(tmp_path: Path, suffix: str, remedy: str) -> None:
    path = make_media(tmp_path / f"a{suffix}", seconds=1.5)
    path.write_bytes(2 * path.read_bytes())
    *_, error = file_events(path, Sampling(video=VideoConfig(size=32), audio=None, strict=True))
    assert isinstance(error, TruncatedMediaError)
    assert error.reason.startswith("is several recordings in one file: ")
    assert error.remedy.startswith(remedy)
