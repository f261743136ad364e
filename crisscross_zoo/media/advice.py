"""Errors with a remedy: of files that FFmpeg cannot read, by their first bytes, and of damaged and joined files."""

from __future__ import annotations

import os
from pathlib import Path

from crisscross_zoo.errors import TruncatedMediaError, UnreadableMediaError

RESTARTS = "the timestamps restart"
"""The beginning of the finding for joined recordings in a format without an index, such as MPEG-TS."""

JOINED = "another file is joined to its end and is not read"
"""The finding for joined files in a format of which FFmpeg reads only the first, such as MP4."""

NO_DECODER = "has no decoder"
"""The end of the finding for a stream whose codec FFmpeg cannot decode."""

_HEAD_BYTES = 64
_ID3_HEADER_BYTES = 10
_WEBP_FLAGS = 20  # the byte that flags an animation


def strict_error(finding: str, path: str | os.PathLike[str]) -> TruncatedMediaError:
    """Return the error that strict reading raises for a file.

    Args:
        finding: What is wrong with the file.
        path: The file.
    """
    if JOINED in finding:
        return TruncatedMediaError(
            f"is several recordings in one file: {finding}",
            remedy="split it where it was joined, or pass strict=False to read only the first",
            path=path,
        )
    if NO_DECODER in finding:
        return TruncatedMediaError(
            f"has a stream that cannot be decoded: {finding}",
            remedy="convert that stream, use the other modality, or pass strict=False",
            path=path,
        )
    if RESTARTS in finding:
        return TruncatedMediaError(
            f"is several recordings in one file: {finding}",
            remedy="remux an MPEG-TS file (ffmpeg -i FILE -c copy NEW.mkv), join others with ffmpeg -f concat, or"
            " pass strict=False to read them all",
            path=path,
        )
    return TruncatedMediaError(
        f"is truncated or damaged: {finding}", remedy="fetch it again, or pass strict=False", path=path
    )


def known_trouble(path: str) -> UnreadableMediaError | None:
    """Return the error of a file of a kind that some players play and FFmpeg refuses, None for any other file.

    Args:
        path: A local file that could not be opened, or of which nothing could be decoded.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD_BYTES)
            extended = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > _WEBP_FLAGS
            if extended and head[_WEBP_FLAGS] & 2:
                return UnreadableMediaError(
                    "is an animated WebP, which FFmpeg does not decode",
                    remedy="convert it to GIF or MP4 with another tool, such as ImageMagick",
                    path=path,
                )
            if head[:3] == b"ID3" and len(head) > _ID3_HEADER_BYTES:
                # The tag's length is in four bytes of 7 bits each; it excludes the header, and the footer that flag 16
                # announces.
                length = sum(
                    (byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
                )
                size = length + _ID3_HEADER_BYTES * (2 if head[5] & 16 else 1)
                file.seek(size)
                inside = file.read(12)
                if inside[:4] in (b"RIFF", b"RF64") and inside[8:] == b"WAVE":
                    return UnreadableMediaError(
                        f"is WAV behind an ID3 tag of {size} bytes, where FFmpeg looks for MP3",
                        remedy=f"cut the tag off: tail -c +{size + 1} FILE > NEW.wav",
                        path=path,
                    )
    except OSError:
        pass
    return None
