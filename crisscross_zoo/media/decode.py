"""Decode a whole file in one forward pass without seeking: frames by time, and audio.

:func:`~crisscross_zoo.media.scan.scan` has read the file's timestamps before, see docs/time.md. Both readers use them,
and report what the decoder does not return although the timestamps promise it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.video import VideoStream

from crisscross_zoo.errors import NoStreamError, UnreadableMediaError
from crisscross_zoo.media.audio import MAX_LOST_SECONDS, MonoAudio, Piece
from crisscross_zoo.media.frames import (
    INDEXED_FORMATS,
    DecodingPlan,
    Frame,
    NotAsIndexedError,
    RgbConverter,
    decode_video,
    shown_frames,
)
from crisscross_zoo.media.packets import (
    AudioBreak,
    OnDamage,
    changed,
    decode_audio,
    open_media,
    opens_unprobed,
    read_packets,
    stream_at,
)
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.tracks import MP4_FORMAT, Media, VideoTrack

INT16_SCALE = 32767.0
"""Decoded 16-bit audio is divided by this, as the reference does."""


def read_frames(
    media: Media, times: npt.NDArray[np.float64], *, on_damage: OnDamage
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Decode the frames shown at ``times``: at each, the last one whose timestamp is not later.

    This is the released code's ``int(time * fps)``, on files with a constant frame rate, and right on others.

    Args:
        media: From :func:`~crisscross_zoo.media.scan.scan`, with a video track.
        times: Seconds, shape (n,), ascending.
        on_damage: Called with one phrase for each loss.

    Yields:
        ``(count, frame)``: the frame serves the next ``count`` of ``times``; uint8 RGB, shape (H, W, 3), upright.

    Raises:
        NoStreamError: the file has no video stream.
        UnreadableMediaError: no frame could be decoded.
    """
    yield from convert_frames(media, times, RgbConverter, on_damage=on_damage)


def convert_frames(
    media: Media,
    times: npt.NDArray[np.float64],
    make: Callable[[VideoTrack], Callable[[av.VideoFrame], Frame]],
    *,
    on_damage: OnDamage,
    source: BinaryIO | None = None,
) -> Iterator[tuple[int, Frame]]:
    """Yield as :func:`read_frames` does, but frames of another kind, or of ``source``.

    Args:
        media: See :func:`read_frames`.
        times: See :func:`read_frames`.
        make: Makes the converter of a track's frames.
        on_damage: See :func:`read_frames`.
        source: The file's bytes, read instead of the file.
    """
    track = with_packets(media, source)
    if not len(times):
        return
    convert = make(track)
    done = 0
    if not track.counted and not track.turns and media.format in INDEXED_FORMATS:
        try:
            for count, frame in _one_pass(media, track, times, convert, True, on_damage, source):
                yield count, frame
                done += count
        except NotAsIndexedError:
            # A damaged packet, or one wrongly flagged as a key frame: decode the whole file for the remaining times.
            pass
        else:
            return
    yield from _one_pass(media, track, times[done:], convert, False, on_damage, source)


def read_audio(
    media: Media,
    sample_rate: int,
    *,
    on_damage: OnDamage,
    on_note: Callable[[str], None] | None = None,
    source: BinaryIO | None = None,
) -> Iterator[Piece]:
    """Decode the audio stream to mono, positioned by its timestamps, see :mod:`crisscross_zoo.media.audio`.

    Args:
        media: From :func:`~crisscross_zoo.media.scan.scan`, with an audio track.
        sample_rate: The rate to resample to, Hz.
        on_damage: Called with one phrase for each loss.
        on_note: Called with one phrase for what is unusual.
        source: The file's bytes, read instead of the file.

    Yields:
        ``(first, samples)``: int16 samples, shape (m,), and the position of the first, in samples since time 0. Pieces
        ascend and never overlap; what lies between two pieces is a gap in the file.

    Raises:
        NoStreamError: the file has no audio stream.
        UnreadableMediaError: nothing could be decoded.
    """
    track = media.audio
    if track is None:
        raise media.lacks("audio")
    if not track.regular and track.stamps is None:
        track = scan_again(media, source).audio
        if track is None:
            raise changed(media.path, "no audio stream now")
    mono = MonoAudio(sample_rate, track, on_damage, on_note=on_note)
    unprobed = media.video is not None and opens_unprobed(media.format, media.video.codec)
    promised = 0.0
    longest = 2 * max(track.frame, track.lead) / track.rate if track.frame and track.rate else np.inf
    with open_media(media.path, source, media.format, unprobed=unprobed) as container:
        stream = stream_at(container, track.index, track.codec, media.path, AudioStream)

        def measured() -> Iterator[av.Packet[AudioStream]]:
            nonlocal promised
            for packet in read_packets(container, stream, on_damage):
                if not packet.is_discard:
                    promised += min(max(packet.duration or 0, 0) * track.tick, longest)
                yield packet

        def returned() -> Iterator[av.AudioFrame | AudioBreak]:
            nonlocal promised
            frames = decode_audio(measured(), stream, on_damage, track.stamps)
            if media.format == MP4_FORMAT:
                # FFmpeg does not flag all packets that an edit hides as "discard"; the decoder drops their audio.
                for first in itertools.islice(frames, 1):
                    if isinstance(first, av.AudioFrame):
                        promised = first.samples / max(first.sample_rate, 1)
                    yield first
            yield from frames

        yield from mono.of(returned())
    if not mono.has_output:
        raise UnreadableMediaError(
            "its audio cannot be decoded", remedy="check it in a player", path=media.path
        )
    if promised - mono.seconds > MAX_LOST_SECONDS:
        on_damage(f"audio: {promised - mono.seconds:.2f} of {promised:.2f} s could not be decoded")


def scan_again(media: Media, source: BinaryIO | None = None) -> Media:
    """Scan the file of ``media`` again, for the entries per packet, which an index does not keep.

    Raises:
        UnreadableMediaError: the file has no stream any more, or cannot be read.
    """
    try:
        return scan(media.path, source, media.format)
    except NoStreamError:
        raise changed(media.path, "neither video nor audio now") from None


def with_packets(media: Media, source: BinaryIO | None = None) -> VideoTrack:
    """Return the video track with its packets; if ``media`` comes from an index, scan the file again for them.

    Raises:
        NoStreamError: the file has no video stream.
        UnreadableMediaError: the file has no video stream any more.
    """
    if media.video is None:
        raise media.lacks("video")
    track = media.video if media.video.packets is not None else scan_again(media, source).video
    if track is None:
        raise changed(media.path, "no video stream now")
    return track


def _one_pass(
    media: Media,
    track: VideoTrack,
    times: npt.NDArray[np.float64],
    convert: Callable[[av.VideoFrame], Frame],
    only_needed: bool,
    on_damage: OnDamage,
    source: BinaryIO | None,
) -> Iterator[tuple[int, Frame]]:
    """Decode the file in one pass; with ``only_needed``, only the packets that ``times`` need."""
    plan = DecodingPlan(track, times) if only_needed else None
    unprobed = only_needed and opens_unprobed(media.format, track.codec)
    with open_media(media.path, source, media.format, unprobed=unprobed) as container:
        stream = stream_at(container, track.index, track.codec, media.path, VideoStream)
        assert track.packets is not None
        packets = read_packets(container, stream, on_damage)
        decoded = decode_video(packets, stream, plan, on_damage, track.packets.shown)
        yield from shown_frames(decoded, track, times, convert, plan, media.path, on_damage)
