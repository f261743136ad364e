"""Open media files, and read and decode the packets of a stream."""

from __future__ import annotations

import enum
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
from crisscross_zoo.media.tracks import MP4_FORMAT, NO_STAMP, Stream
from crisscross_zoo.settings import StrPath

OnDamage = Callable[[str], None]


def ignore_damage(_: str) -> None:
    """Ignore a phrase of damage that another pass reports, or that the caller does not report."""


AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)

# Demuxers that render text as "video", and demuxers that open other files or URLs named in the input.
_REFUSED_FORMATS = frozenset(
    {"tty", "bin", "xbin", "adf", "idf", "hls", "concat", "dash", "sdp", "applehttp"}
)
_REFUSED_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})

# Options of the decoders with which FFmpeg probes a file: they decode nothing, and stop after one packet.
_UNPROBED = {"skip_frame": "all", "probesize": "32"}

# Codecs for which MP4's header holds all that reading needs, decoding times included. Decoded frames are checked
# against the index, so that a file whose header is incomplete is noticed.
_UNPROBED_CODECS = frozenset({"h264", "hevc"})


def opens_unprobed(format_name: str, video_codec: str | None) -> bool:
    """Return whether a file can be opened without probing its first frames."""
    return format_name == MP4_FORMAT and video_codec in _UNPROBED_CODECS


def open_media(
    path: StrPath, source: BinaryIO | None = None, format_name: str | None = None, *, unprobed: bool = False
) -> InputContainer:
    """Open a file; or ``source``, which holds its bytes, as the format ``format_name``.

    Opening rewinds ``source``. The container then reads on from wherever ``source`` stands, so a source can have
    only one open container at a time. FFmpeg decodes the first frames when it opens a file, for what the header may
    lack; ``unprobed`` prevents that (1 ms instead of 6 at 640x360, 22 at 1280x720). The decoders used later are not
    affected.
    """
    name = os.fspath(path)
    if source is None:
        _check_regular(name)
    try:
        # Local files only: a playlist must not make FFmpeg open URLs or pipes.
        # The path is made absolute because FFmpeg takes "12:30.mp4" for a protocol.
        file: Any = os.path.abspath(name)
        if source is not None:
            source.seek(0)
            file = source
        container: InputContainer = av.open(
            file,
            # Bytes have no suffix that identifies raw formats. Stills have another demuxer, found by their content.
            format=None if source is None or format_name == "image2" else format_name,
            metadata_errors="replace",
            # Not in options: PyAV up to 17.0 passes those to streams that FLV adds later, and crashes.
            container_options={"protocol_whitelist": "file"},
            options=_UNPROBED if unprobed else {},
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise known_trouble(name) or _unreadable(name, error) from None
    if container.format.name in _REFUSED_FORMATS:
        container.close()
        raise UnreadableMediaError(
            f"is not a media file (read as {container.format.name!r})",
            remedy="pass video or audio files",
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
"""What reading packets may raise. PyAV raises IndexError at a packet of a stream that was added after opening (FLV)."""


def reason_of(error: Exception) -> str:
    """Return the message of an error of FFmpeg or the system, in lower case."""
    if isinstance(error, IndexError):
        return "a stream begins in the middle of the file"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def best_streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """Return the largest of the video streams flagged as default, and the audio stream that FFmpeg considers best.

    Streams whose codec has no decoder are omitted, see :func:`without_decoder`.
    """
    videos = [s for s in container.streams.video if _is_video(s) and s.codec_context is not None]
    video = max(
        videos, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height), default=None
    )
    audios = [s for s in container.streams.audio if s.codec_context is not None]
    best = container.streams.best("audio")
    return video, next((s for s in audios if best and s.index == best.index), audios[0] if audios else None)


def without_decoder(container: InputContainer) -> dict[Stream, int]:
    """Return the index of the first video or audio stream by kind, if no stream of that kind has a decoder."""
    kinds: tuple[tuple[Stream, list[Any]], ...] = (
        ("video", [s for s in container.streams.video if _is_video(s)]),
        ("audio", list(container.streams.audio)),
    )
    return {
        kind: streams[0].index
        for kind, streams in kinds
        if streams and all(s.codec_context is None for s in streams)
    }


def _is_video(stream: VideoStream) -> bool:
    """Return whether a stream is neither cover art nor rendered text."""
    context: Any = stream.codec_context  # None without a decoder, which PyAV's own types do not say
    cover = bool(stream.disposition & Disposition.attached_pic)
    return not cover and (context is None or context.name not in _REFUSED_CODECS)


def stream_at(
    container: InputContainer, index: int, codec: str, path: str, kind: type[AnyStream]
) -> AnyStream:
    """Return the stream that a scan found, or raise if it is gone.

    Args:
        container: The open file.
        index: Index of the stream in the file.
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
    """Return the error of a file that has changed since it was scanned."""
    return UnreadableMediaError(
        f"has changed since it was indexed ({how})", remedy="index the folder again", path=path
    )


def read_packets(
    container: InputContainer, stream: VideoStream | AudioStream, on_damage: OnDamage
) -> Iterator[av.Packet[Any]]:
    """Yield the stream's packets that hold data, up to the first read error."""
    try:
        for packet in container.demux(stream):
            if packet.size > 0:
                yield packet
    except READ_ERRORS as error:
        on_damage(f"reading stops early ({reason_of(error)})")


class EditStarts:
    """Find the packets at which the later edits of an MP4's edit list begin.

    FFmpeg reads each edit from the key frame before it to a key frame after it, and flags as "discard" what the edit
    does not show.

    Args:
        stream: A stream of an open file.
    """

    def __init__(self, stream: VideoStream | AudioStream) -> None:
        self._edited = stream.container.format.name == MP4_FORMAT
        self._last: tuple[int, int, bool] | None = None
        self._hides = False  # whether a packet so far is not shown

    def begins(self, packet: av.Packet[Any]) -> bool:
        """Return whether the stream's next packet begins another edit."""
        if not self._edited or packet.pos is None or packet.dts is None:
            return False
        last, self._last = self._last, (packet.pos, packet.dts, packet.is_discard)
        self._hides = self._hides or packet.is_discard
        if last is None or not packet.is_keyframe:
            return False
        earlier, again = packet.pos <= last[0], packet.dts <= last[1]
        # The chunks of a file without edits may lie in any order: then all is shown, and DTS ascend. Fragments of
        # another recording have earlier timestamps, but they lie behind, and nothing is discarded.
        return (earlier and (again or self._hides)) or (again and (packet.is_discard or last[2]))


class PacketDecoder:
    """Decode packet by packet, so that a damaged packet does not affect the others."""

    def __init__(self, stream: VideoStream | AudioStream, on_damage: OnDamage) -> None:
        self.context = stream.codec_context
        self._damaged = f"{stream.type}: some packets are damaged and cannot be decoded"
        self._on_damage = on_damage
        self.failed = False  # whether the last packet could not be decoded
        if self.context.thread_count != 1:  # it cannot be set once the codec is open
            self.context.thread_count = 1

    def decode(self, packet: av.Packet[Any] | None, *, needed: bool = True) -> list[Any]:
        """Return the frames that the decoder returns for a packet; for None, those that it still holds.

        With ``needed`` False, a packet that cannot be decoded is not reported.
        """
        self.failed = False
        try:
            return list(self.context.decode(packet))
        except (av.error.FFmpegError, ValueError):
            self.failed = True
            if needed:
                self._on_damage(self._damaged)
            return []


class AudioBreak(enum.Enum):
    """Why the next audio frame does not continue the one before."""

    LOST = "a packet could not be decoded"
    EDIT = "another edit begins"


def decode_audio(
    packets: Iterable[av.Packet[Any]],
    stream: AudioStream,
    on_damage: OnDamage,
    stamps: npt.NDArray[np.int64] | None = None,
) -> Iterator[av.AudioFrame | AudioBreak]:
    """Decode an audio stream's packets; ``stamps``, if given, replace their own timestamps, one per packet.

    Yields:
        Frames, and an :class:`AudioBreak` where they do not continue.
    """
    decoder, edits = PacketDecoder(stream, on_damage), EditStarts(stream)
    for number, packet in enumerate(packets):
        if edits.begins(packet):
            yield AudioBreak.EDIT
        if stamps is not None:
            stamp = int(stamps[number]) if number < len(stamps) else NO_STAMP
            packet.pts = packet.dts = None if stamp == NO_STAMP else stamp
        yield from decoder.decode(packet)
        if decoder.failed:
            yield AudioBreak.LOST
    yield from decoder.decode(None)
