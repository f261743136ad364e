"""Open media files, and read and decode the packets of a stream."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video import VideoStream

from crisscross_zoo.errors import MediaError, MediaNotFoundError, UnreadableMediaError
from crisscross_zoo.media.advice import known_trouble
from crisscross_zoo.media.tracks import MP4_FORMAT, NO_STAMP
from crisscross_zoo.settings import StrPath

OnDamage = Callable[[str], None]


def ignore_damage(_: str) -> None:
    """Take a phrase of damage of which another pass tells, or of which nobody wants to know."""


AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)

# Demuxers that make "video" of text, and ones that open other files or addresses named in the input.
_REFUSED_FORMATS = frozenset(
    {"tty", "bin", "xbin", "adf", "idf", "hls", "concat", "dash", "sdp", "applehttp"}
)
_REFUSED_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})

# Of the decoders that FFmpeg probes a file with: they decode nothing, and one packet is enough.
_UNPROBED = {"skip_frame": "all", "probesize": "32"}

# Codecs of which MP4's header says all that reading needs, decoding times too. What comes out is held against the
# index, so that a file whose header says too little is noticed.
_UNPROBED_CODECS = frozenset({"h264", "hevc"})


def opens_unprobed(format_name: str, video_codec: str | None) -> bool:
    """Return whether a file can be opened without a look at its first frames."""
    return format_name == MP4_FORMAT and video_codec in _UNPROBED_CODECS


def open_media(
    path: StrPath, source: BinaryIO | None = None, format_name: str | None = None, *, unprobed: bool = False
) -> InputContainer:
    """Open a file, or ``source``, which holds its bytes, as the format that the file was read as before.

    What is open reads on from where ``source`` stands: one container of a source at a time. FFmpeg decodes the first
    frames when it opens a file, to see what its header may not say; ``unprobed`` keeps it from that (1 ms instead
    of 6 at 640x360, 22 at 1280x720). The decoders used later are not told.
    """
    name = os.fspath(path)
    if source is None:
        _check_regular(name)
    try:
        # Local files only: a playlist must not make the decoder open addresses or pipes.
        # The path is made absolute because FFmpeg takes "12:30.mp4" for a protocol.
        file: Any = os.path.abspath(name)
        if source is not None:
            source.seek(0)
            file = source
        container: InputContainer = av.open(
            file,
            # Bytes have no suffix to tell raw formats by. Stills have another demuxer, which is found by content.
            format=None if source is None or format_name == "image2" else format_name,
            metadata_errors="replace",
            # Not in options: PyAV up to 17.0 hands these to streams that FLV adds later, and crashes.
            container_options={"protocol_whitelist": "file"},
            options=_UNPROBED if unprobed else {},
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise known_trouble(name) or _unreadable(name, error) from None
    if container.format.name in _REFUSED_FORMATS:
        container.close()
        raise UnreadableMediaError(
            f"is not a media file (read as {container.format.name!r})",
            remedy="pass video or sound files",
            path=name,
        )
    return container


def _check_regular(name: str) -> None:
    try:
        status = Path(name).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MediaNotFoundError("no such file", remedy="check the path", path=name) from None
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableMediaError("is a folder, not a file", remedy="pass the files in it", path=name)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableMediaError("is not a regular file", remedy="copy it to a file first", path=name)
    if status.st_size == 0:
        raise UnreadableMediaError("is empty (0 bytes)", remedy="fetch it again", path=name)


def _unreadable(path: str, error: Exception) -> MediaError:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EACCES:
        return UnreadableMediaError("permission denied", remedy="check its access rights", path=path)
    if isinstance(error, av.error.InvalidDataError):
        return UnreadableMediaError(
            "is not media that FFmpeg can read, or its index is cut off",
            remedy="check it in a player, or fetch it again",
            path=path,
        )
    return UnreadableMediaError(
        f"cannot be opened ({reason_of(error)})", remedy="check it in a player", path=path
    )


READ_ERRORS = (av.error.FFmpegError, OSError, IndexError)
"""What reading packets may raise; IndexError is PyAV's for a packet of a stream that was not there at first (FLV)."""


def reason_of(error: Exception) -> str:
    """Return what an error of FFmpeg or the system says, in lower case."""
    if isinstance(error, IndexError):
        return "a stream begins in the middle of the file"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def best_streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """Return the largest of the video streams marked as default, and the audio stream that FFmpeg holds best."""
    videos = [s for s in container.streams.video if _is_video(s)]
    video = max(
        videos, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height), default=None
    )
    audio = container.streams.best("audio")
    usable = isinstance(audio, AudioStream) and audio.codec_context is not None
    return video, audio if usable and isinstance(audio, AudioStream) else None


def _is_video(stream: VideoStream) -> bool:
    context = stream.codec_context
    cover = bool(stream.disposition & Disposition.attached_pic)
    return context is not None and not cover and context.name not in _REFUSED_CODECS


def stream_at(
    container: InputContainer, index: int, codec: str, path: str, kind: type[AnyStream]
) -> AnyStream:
    """Return the stream that a scan found.

    Args:
        container: The open file.
        index: Of the stream in the file.
        codec: FFmpeg's name of its codec.
        path: The file, for the error.
        kind: ``VideoStream`` or ``AudioStream``.

    Raises:
        UnreadableMediaError: the file has no such stream any more.
    """
    if index < len(container.streams):
        stream = container.streams[index]
        context = getattr(stream, "codec_context", None)
        if isinstance(stream, kind) and context is not None and context.name == codec:
            return stream
    raise changed(path, f"stream {index} is no {codec} stream now")


def changed(path: str, how: str) -> UnreadableMediaError:
    """Return the error of a file that is not what it was when it was scanned."""
    return UnreadableMediaError(
        f"has changed since it was indexed ({how})", remedy="index the folder again", path=path
    )


def read_packets(
    container: InputContainer, stream: VideoStream | AudioStream, on_damage: OnDamage
) -> Iterator[av.Packet[Any]]:
    """Yield the stream's packets that hold data, up to where the file can be read."""
    try:
        for packet in container.demux(stream):
            if packet.size > 0:
                yield packet
    except READ_ERRORS as error:
        on_damage(f"reading stops early ({reason_of(error)})")


class PacketDecoder:
    """Decodes packet by packet, so that a bad packet costs no more than itself."""

    def __init__(self, stream: VideoStream | AudioStream, on_damage: OnDamage) -> None:
        self.context = stream.codec_context
        self._damaged = f"{stream.type}: some packets are damaged and cannot be decoded"
        self._on_damage = on_damage
        self.failed = False  # whether the last packet could not be decoded
        if self.context.thread_count != 1:  # it cannot be set again once the codec is open
            self.context.thread_count = 1

    def decode(self, packet: av.Packet[Any] | None, *, needed: bool = True) -> list[Any]:
        """Return the frames that come out; None: those that are still inside. What is not needed may be damaged."""
        self.failed = False
        try:
            return list(self.context.decode(packet))
        except (av.error.FFmpegError, ValueError):
            self.failed = True
            if needed:
                self._on_damage(self._damaged)
            return []


def decode_audio(
    packets: Iterable[av.Packet[Any]],
    stream: AudioStream,
    on_damage: OnDamage,
    stamps: npt.NDArray[np.int64] | None = None,
) -> Iterator[av.AudioFrame | None]:
    """Decode an audio stream's packets; ``stamps``, if given, take the place of their own, one each.

    Yields:
        Frames, and None for a packet that could not be decoded.
    """
    decoder = PacketDecoder(stream, on_damage)
    for number, packet in enumerate(packets):
        if stamps is not None:
            stamp = int(stamps[number]) if number < len(stamps) else NO_STAMP
            packet.pts = packet.dts = None if stamp == NO_STAMP else stamp
        yield from decoder.decode(packet)
        if decoder.failed:
            yield None
    yield from decoder.decode(None)
