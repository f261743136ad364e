"""Read a file's streams and timestamps without decoding it (15 ms per minute of video).

The packets' timestamps give the start and end of each stream, which headers often lack, and the packets that a set of
clips needs. Times are seconds since the file's first frame shown. If the first audio sample leads by more than
:data:`CODEC_DELAY_SECONDS`, or there is no video, they are seconds since that sample. Memory does not grow with the
length of the file, but for 10 bytes per frame.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.container import InputContainer
from av.video import VideoStream

from crisscross_zoo.errors import CrissCrossError, NoStreamError, UnreadableMediaError
from crisscross_zoo.files.fingerprints import fingerprint_of
from crisscross_zoo.media.advice import JOINED, NO_DECODER, RESTARTS, known_trouble
from crisscross_zoo.media.clock import (
    LONGEST_REORDERING,
    RESTART_SECONDS,
    STRAY_SECONDS,
    StreamStamps,
    fill_in,
    gaps,
    run_through,
)
from crisscross_zoo.media.codec_names import codec_name
from crisscross_zoo.media.frames import decode_video, display_matrix
from crisscross_zoo.media.hidden import HiddenPackets
from crisscross_zoo.media.packets import (
    READ_ERRORS,
    EditStarts,
    best_streams,
    ignore_damage,
    open_media,
    read_packets,
    reason_of,
    stream_at,
    without_decoder,
)
from crisscross_zoo.media.tracks import (
    MP4_FORMAT,
    NO_STAMP,
    AudioTrack,
    Finding,
    Media,
    Packets,
    Stream,
    VideoTrack,
)
from crisscross_zoo.media.turned import TurnedPackets
from crisscross_zoo.settings import StrPath, check_path
from crisscross_zoo.text import counted
from crisscross_zoo.workers.errors import file_error

CODEC_DELAY_SECONDS = 0.1
"""Audio that leads the video by less is codec delay, not content: the video's start stays time 0."""

LONGEST_PACKET_SECONDS = {"video": 600.0, "audio": 5.0}
"""The durations of video and audio packets are capped at these."""

TRUNCATION_SECONDS = 1.0
"""A file is truncated if it ends more than this, and more than 1 % of its length, earlier than its header states."""

_AUDIO_FRAMES = 4  # decoded to measure their lengths

# Formats whose frames have no timestamps, or wrong ones: they are timed by counting packets.
_COUNTED_FORMATS = frozenset({"avi", "h264", "hevc", "vvc", "m4v", "mpegvideo", "mjpeg", "image2", "obu"})

# Formats whose header states a real duration; elsewhere FFmpeg estimates it from the bit rate.
_STATED_DURATION_FORMATS = frozenset({"matroska,webm", "avi", "flv", "wav", "flac", "ogg"})

# The first bytes of a file, in formats of which FFmpeg reads only the first file if several are joined end to end.
_BEGINNINGS = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        MP4_FORMAT: rb"\0\0\0.ftyp",
        "flv": rb"FLV\x01[\x00-\x05]\0\0\0\x09",
        "avi": rb"RIFF.{4}AVI LIST",  # read on, unless the first file's streams are not interleaved
        "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",
        "wtv": rb"\xb7\xd8\0\x20\x37\x49\xda\x11\xa6\x4e\0\x07\xe9\x5e\xad\x8d",
        "swf": rb"FWS[\x01-\x32].{4}[\x28-\xf8]|CWS[\x06-\x32].{4}x[\x01\x5e\x9c\xda]",
        "yuv4mpegpipe": rb"YUV4MPEG2 ",
        "apng": rb"\x89PNG\r\n\x1a\n",
        "wav": rb"(?:RIFF|RF64|BW64).{4}WAVE[ -~]{4}",
        "w64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
        "aiff": rb"FORM.{4}AIF[FC][ -~]{4}",
        "iff": rb"FORM.{4}8SVX|FRM8.{8}DSD ",
        "caf": rb"caff\0\x01\0\0desc",
        "voc": rb"Creative Voice File\x1a",
        "tta": rb"TTA[12][\x01-\x03]\0",
        "ape": rb"MAC [\x80-\xff][\x0c-\x10]",
        "mpc": rb"MP\+[\x07\x17]",
        "mpc8": rb"MPCKSH",
        "tak": rb"tBaK\x01",
        "wv": rb"wvpk.{4}[\x02-\x10]\x04.{6}\0\0\0\0",
        "dsf": rb"DSD \x1c\0\0\0\0\0\0\0",
    }.items()
}

# Codecs whose first packet in an Ogg recording is the decoder's delay, and begins before 0. Of a recording chained to
# another, FFmpeg 8 gives that packet the timestamp that follows the recording before.
_DELAYED_IN_OGG = frozenset({"opus", "vorbis"})

# Formats in which the timestamps of audio are exact to the sample, or to 1 / 90,000 s.
_EXACT_FORMATS = frozenset({MP4_FORMAT, "mpegts", "mpeg"})


def decoder_versions() -> dict[str, str]:
    """Return the versions of PyAV and of the libraries inside it, which determine the decoded frames and audio."""
    libraries = ("libavcodec", "libavformat", "libswscale", "libswresample")
    return {"av": av.__version__, **{n: ".".join(map(str, av.library_versions[n])) for n in libraries}}


def scan(path: StrPath, source: BinaryIO | None = None, format_name: str | None = None) -> Media:
    """Read a file's streams and timestamps, decoding no more than the first frames of each.

    Args:
        path: A local file.
        source: The file's bytes, read instead of the file; it must be seekable, and stays open.
        format_name: FFmpeg's name of the container format, if ``source`` alone does not identify it.

    Returns:
        The best stream of each kind, with its span, and the findings. A stream of which nothing can be decoded is
        None, with a finding, if the other can.

    Raises:
        InputError: ``path`` is not a path.
        MediaNotFoundError: the file does not exist.
        UnreadableMediaError: the file is empty, not media, a folder or a device, has no read permission, or cannot be
            decoded.
        NoStreamError: the file is readable, but has neither video nor audio.
    """
    check_path("the path", path)
    with open_media(path, source, format_name) as container:
        video, audio = best_streams(container)
        undecoded = without_decoder(container)
        if video is None and audio is None and not undecoded:
            raise NoStreamError(
                f"has neither video nor audio (read as {container.format.name!r})",
                remedy="pass video or audio files",
                path=path,
            )
        name = container.format.name
        found = None if video is None and audio is None else _Scan(container, video, audio)
    missing = [Finding(_no_decoder(name, index, path, source), kind) for kind, index in undecoded.items()]
    if found is None or not found.streams:
        reasons = [f"; {finding}" for finding in missing]
        raise known_trouble(os.fspath(path)) or UnreadableMediaError(
            f"nothing in it can be decoded{''.join(reasons)}",
            remedy="convert it" if reasons else "check the file in a player, or fetch it again",
            path=path,
        )
    found.findings += missing
    if source is None:
        size, modified_ns = fingerprint_of(path)
    else:
        size, modified_ns = source.seek(0, os.SEEK_END), 0
    video_track, audio_track = _TrackBuilder(found, path, source).tracks()
    return Media(
        path=os.fspath(path),
        size=size,
        modified_ns=modified_ns,
        format=found.format,
        video=video_track,
        audio=audio_track,
        findings=tuple(dict.fromkeys(found.findings)),
    )


def scan_file(path: StrPath) -> Iterator[Media | CrissCrossError]:
    """Scan one file, as a job of worker processes; yield its :class:`Media`, or the error with the reason."""
    try:
        yield scan(path).compact()
    except Exception as error:
        yield file_error(error, path)


class _StreamScan:
    """Collect one stream's timestamps, and decode packets until its first frames are returned."""

    def __init__(self, stream: VideoStream | AudioStream) -> None:
        context = stream.codec_context
        self.kind: Stream = "video" if isinstance(stream, VideoStream) else "audio"
        self.index = stream.index
        self.codec = context.name
        self.tick = float(stream.time_base or 0) or 1e-6
        self.stated = float((stream.duration or 0) * self.tick)
        self.pts: list[int] = []
        self.dts: list[int] = []
        self.durations: list[int] = []
        self.positions: list[int] = []
        self.keys: list[bool] = []
        self.shown: list[bool] = []
        self.unseen: list[bool] = []
        self.second_fields: list[bool] = []
        self.turns = False
        self.edits: list[int] = []
        self.corrupt = 0
        self.first: int | None = None  # the first frame: of video its packet's number, of audio its timestamp
        self.lengths: list[int] = []  # of the first audio frames, samples
        self.rate = 0
        self.matrix: tuple[int, ...] = ()
        self.decoded = False
        self._enough = False
        self._hidden = HiddenPackets(self.codec, context.extradata)
        self._turned = TurnedPackets(self.codec, context.extradata)
        self._starts = EditStarts(stream)
        self._context = context
        context.thread_count = 1

    def add(self, packet: av.Packet[Any], position: int) -> None:
        """Add the stream's next packet, number ``position`` of the file; an empty one is the stream's end."""
        if packet.size > 0:
            if self._starts.begins(packet):
                self.edits.append(len(self.pts))
            self.pts.append(NO_STAMP if packet.pts is None else packet.pts)
            self.dts.append(NO_STAMP if packet.dts is None else packet.dts)
            self.durations.append(max(packet.duration or 0, 0))
            self.positions.append(position)
            self.shown.append(self._hidden.shows(packet))
            self.unseen.append(self._hidden.unseen)
            self.second_fields.append(self._hidden.second)
            self.turns = self.turns or self._turned.turns(packet)
            self.keys.append(packet.is_keyframe and not self._hidden.second)
            if self._hidden.second:  # the frame lasts as long as both of its fields
                before, here = self.pts[-2:]
                apart = here - before if NO_STAMP not in (before, here) else 0
                self.durations[-2:] = (2 * apart if apart > 0 else sum(self.durations[-2:])), 0
            self.corrupt += packet.is_corrupt
        if self._enough:
            return
        if self.kind == "video":
            packet.pts = packet.dts = len(self.pts) - 1
        try:
            frames = self._context.decode(packet if packet.size else None)
        except (av.error.FFmpegError, ValueError):
            return
        for frame in frames:
            self._take(frame)

    def _take(self, frame: Any) -> None:
        if isinstance(frame, av.VideoFrame):
            if not self.decoded:
                self.first, self.matrix = frame.pts, display_matrix(frame)
            self.decoded = self._enough = True
        elif frame.samples and frame.sample_rate > 0:
            if not self.decoded:
                self.first, self.rate = frame.pts, frame.sample_rate
            self.decoded = True
            self.lengths.append(frame.samples)
            self._enough = len(self.lengths) >= _AUDIO_FRAMES

    @property
    def packed(self) -> bool:
        return self._hidden.packed

    def stamps(self, format_name: str) -> StreamStamps:
        longest = int(LONGEST_PACKET_SECONDS[self.kind] / self.tick)
        arrays = (np.array(v, np.int64) for v in (self.pts, self.dts, self.durations, self.positions))
        pts, dts, durations, positions = arrays
        if format_name == "ogg" and self.codec in _DELAYED_IN_OGG:
            # The second packet of a recording then begins inside the first, counted from 0.
            back = pts[:-1] > pts[1:] + round(RESTART_SECONDS / self.tick)
            again = np.flatnonzero(back & (pts[1:] >= 0) & (pts[1:] < durations[:-1]))
            pts[again] = dts[again] = pts[again + 1] - durations[again]
        unseen = np.array(self.unseen, np.bool_)
        keys = np.array(self.keys, np.bool_)
        durations = np.minimum(durations, longest)
        return StreamStamps(self.tick, pts, dts, durations, positions, unseen, keys, self.edits)


class _Scan:
    """One pass over a file's packets.

    Attributes:
        streams: The scans of the video and the audio stream, by kind; a stream that cannot be decoded is omitted.
        findings: What is wrong or unusual so far.
        stated: Length of the file by its header, seconds; 0 if the header states none.
        length: Length of all streams together, by their timestamps from 0 or from the first one, seconds.
        read: Bytes of the file up to the end of the last packet.
    """

    def __init__(
        self, container: InputContainer, video: VideoStream | None, audio: AudioStream | None
    ) -> None:
        self.format = container.format.name
        stated = self.format in _STATED_DURATION_FORMATS or self.format == MP4_FORMAT
        self.stated = (container.duration or 0) / av.time_base if stated else 0.0
        self.streams: dict[Stream, _StreamScan] = {}
        self.findings: list[Finding] = []
        self.length, self.read = 0.0, 0
        if video is not None:
            self.rate = float(video.guessed_rate or video.average_rate or 25)
            self.width, self.height = video.width, video.height
        self._by_index = {s.index: _StreamScan(s) for s in (video, audio) if s is not None}
        self._read(container)

    def _read(self, container: InputContainer) -> None:
        ticks = [float(s.time_base or 0) for s in container.streams]
        start, end, position = np.inf, 0.0, 0
        try:
            for packet in container.demux():
                index = packet.stream_index
                self.read = max(self.read, (packet.pos or 0) + packet.size)
                if index < len(ticks) and packet.size > 0 and packet.pts is not None:
                    begins = packet.pts * ticks[index]
                    start = min(start, begins)
                    end = max(end, begins + max(packet.duration or 0, 0) * ticks[index])
                if (scanned := self._by_index.get(index)) is not None:
                    scanned.add(packet, position)
                    position += 1
        except READ_ERRORS as error:
            self.findings.append(Finding(f"reading stops early ({reason_of(error)})"))
        self.length = max(end, end - start)
        for scanned in self._by_index.values():
            if scanned.decoded and scanned.pts:
                self.streams[scanned.kind] = scanned
            else:
                self.findings.append(Finding("nothing in the stream can be decoded", scanned.kind))


class _VideoTiming(NamedTuple):
    """A video stream's timing on its own clock: ``start`` and ``end`` in ticks of ``tick`` seconds."""

    packets: Packets
    counted: bool
    regular: bool
    tick: float
    start: int
    end: float


class _TrackBuilder:
    """Put the scanned streams on one clock, see the module's docstring, and add to the findings."""

    def __init__(self, found: _Scan, path: StrPath, source: BinaryIO | None) -> None:
        self._found, self._path, self._source = found, path, source
        self._stamps = {kind: scanned.stamps(found.format) for kind, scanned in found.streams.items()}
        self._clocks = run_through(self._stamps, found.stated)

    def tracks(self) -> tuple[VideoTrack | None, AudioTrack | None]:
        """Return the video track and the audio track, None for a stream that the file lacks."""
        starts: dict[Stream, float] = {}
        timing = self._video_timing() if "video" in self._found.streams else None
        if timing is not None:
            starts["video"] = timing.start * timing.tick
        if "audio" in self._found.streams:
            starts["audio"] = self._audio_start() * self._stamps["audio"].tick
        origins = self._origins(starts)
        video = None if timing is None else self._video_track(timing, origins["video"])
        audio = None if "audio" not in starts else self._audio_track(starts["audio"], origins["audio"])
        for kind in self._found.streams:
            self._report_clock(kind)
        tracks: dict[Stream, VideoTrack | AudioTrack | None] = {"video": video, "audio": audio}
        self._check_length({kind: track for kind, track in tracks.items() if track is not None})
        if _another_begins(self._found, self._path, self._source):
            self._add(None, JOINED)
        return video, audio

    def _add(self, stream: Stream | None, text: str, *, harmless: bool = False) -> None:
        self._found.findings.append(Finding(text, stream, harmless))

    def _origins(self, starts: dict[Stream, float]) -> dict[Stream, float]:
        """Return each stream's timestamp at time 0, in seconds."""
        origin = starts.get("video", starts.get("audio", 0.0))
        if "audio" in starts and starts["audio"] < origin - CODEC_DELAY_SECONDS:
            origin = starts["audio"]
        if len(starts) == 2:
            lengths = [float(np.ptp(c.dts)) * self._stamps[k].tick for k, c in self._clocks.items()]
            if abs(starts["video"] - starts["audio"]) > max(self._found.stated, *lengths) + STRAY_SECONDS:
                self._add(None, "video and audio have different clocks; both are taken to start at time 0")
                return starts
        return dict.fromkeys(starts, origin)

    # Video

    def _video_timing(self) -> _VideoTiming:
        found, video, stamps, clock = (
            self._found, self._found.streams["video"], self._stamps["video"], self._clocks["video"]
        )  # fmt: skip
        shown = np.array(video.shown, np.bool_)
        first = video.first if video.first is not None and 0 <= video.first < len(shown) else 0
        shown[first] = True  # the decoder has returned it
        keys = np.array(video.keys, np.bool_)
        if _is_counted(found.format) or bool((stamps.pts == NO_STAMP).all()):
            unstamped = bool((stamps.dts == NO_STAMP).all())
            tick = 1 / found.rate if unstamped else video.tick
            second = np.array(video.second_fields, np.bool_)
            dts = clock.dts - np.cumsum(second) if unstamped else clock.dts.copy()
            dts[second] = dts[np.flatnonzero(second) - 1]
            end = float(dts.max()) + (1.0 if unstamped or len(dts) == 1 else stamps.step)
            if found.format == "avi" and not _avi_is_cut(self._path, self._source):
                end = max(end, video.stated / video.tick)  # empty chunks follow the last frame
            return _VideoTiming(Packets(dts, shown, keys), True, False, tick, int(dts[0]), end)
        pts = clock.pts.copy()
        if stamps.step > 2:
            pts[_repeated(pts, shown, stamps.step)] = NO_STAMP
        unstamped_here = bool((shown & (pts == NO_STAMP)).any())
        regular = not (clock.restarts or clock.strays or stamps.edits or unstamped_here)
        if (shown & (pts == NO_STAMP)).any():
            pts, shown = self._filled(pts, shown)
        unstamped_too = pts == NO_STAMP  # and not shown
        pts[unstamped_too] = clock.dts[unstamped_too]
        start = int(pts[first])
        early = np.flatnonzero(shown & (pts < start))
        if lost := int((early < first).sum()):
            self._add("video", f"{counted(lost, 'frame')} before the first key frame cannot be decoded")
        if leading := int(((early > first) & (early <= first + LONGEST_REORDERING)).sum()):
            text = "skipped at the start (they refer to frames before the start)"
            self._add("video", f"{counted(leading, 'frame')} {text}", harmless=True)
        if before := int((early > first + LONGEST_REORDERING).sum()):
            text = "skipped (timestamps before the first frame)"
            self._add("video", f"{counted(before, 'frame')} {text}")
        last = int(np.argmax(np.where(shown, pts, NO_STAMP)))
        end = max(int(pts[last]), start) + float(stamps.durations[last] or stamps.step)
        return _VideoTiming(Packets(pts, shown, keys), False, regular, video.tick, start, end)

    def _filled(
        self, pts: npt.NDArray[np.int64], shown: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Give each frame without a timestamp one, in the order in which the decoder returns the frames."""
        came = np.zeros(len(shown), np.bool_)
        order: list[int] = []
        with open_media(self._path, self._source, self._found.format) as container:
            video = self._found.streams["video"]
            stream = stream_at(container, video.index, video.codec, os.fspath(self._path), VideoStream)
            for item in decode_video(
                read_packets(container, stream, ignore_damage), stream, None, ignore_damage
            ):
                number = item.frame.pts
                if number is not None and number < len(shown) and shown[number] and not came[number]:
                    order.append(number)
                    came[number] = True
        if unstamped := int((came & (pts == NO_STAMP)).sum()):
            text = "without a usable timestamp, placed between the others"
            self._add("video", f"{counted(unstamped, 'frame')} {text}")
        # A frame that the decoder did not return is kept only if it has a timestamp: decoding then reports its loss.
        shown = shown & (came | (pts != NO_STAMP))
        return (fill_in(pts, order, self._stamps["video"].step) if order else pts), shown

    def _video_track(self, timing: _VideoTiming, origin: float) -> VideoTrack:
        found, video = self._found, self._found.streams["video"]
        stamps = timing.packets.stamps[timing.packets.shown]
        return VideoTrack(
            index=video.index,
            codec=video.codec,
            span=(float(timing.start * timing.tick - origin), float(timing.end * timing.tick - origin)),
            rate=found.rate,
            counted=timing.counted,
            constant=not timing.counted
            and _is_constant(stamps[stamps >= timing.start], timing.tick, found.rate),
            regular=timing.regular and not video.turns,
            tick=timing.tick,
            origin=float(origin),
            frames=len(stamps),
            width=found.width,
            height=found.height,
            matrix=video.matrix,
            packed=video.packed,
            turns=video.turns,
            packets=timing.packets,
        )

    # Audio

    def _audio_start(self) -> int:
        """Return the timestamp of the first decoded sample."""
        clock, first = self._clocks["audio"], self._found.streams["audio"].first
        stamped = clock.pts[~self._stamps["audio"].unseen & (clock.pts != NO_STAMP)]
        if not len(stamped):
            return first or 0
        believed = first is not None and (not clock.strays or first in clock.pts)
        return first if believed and first is not None else int(stamped[0])

    def _audio_track(self, start: float, origin: float) -> AudioTrack:
        audio, stamps, clock = (
            self._found.streams["audio"], self._stamps["audio"], self._clocks["audio"]
        )  # fmt: skip
        ends = clock.pts + np.where(stamps.durations > 0, stamps.durations, round(stamps.step))
        ends = ends[~stamps.unseen & (clock.pts != NO_STAMP)]
        length = float(stamps.durations.sum()) * audio.tick
        end = float(ends.max()) * audio.tick if len(ends) else start + length
        first = max(start - origin, 0.0)
        regular = not (clock.restarts or clock.strays or stamps.edits)
        later = set(audio.lengths[1:])
        return AudioTrack(
            index=audio.index,
            codec=audio.codec,
            span=(float(first), float(max(end - origin, first + audio.tick))),
            tick=audio.tick,
            origin=float(origin),
            regular=regular,
            exact=not regular or self._found.format in _EXACT_FORMATS,
            rate=audio.rate,
            first=audio.first,
            lead=audio.lengths[0],
            frame=later.pop() if len(later) == 1 else 0,
            stamps=None if regular else clock.pts,
        )

    # Both

    def _report_clock(self, stream: Stream) -> None:
        """Add findings for a stream's restarts, damaged packets, ignored timestamps and gaps."""
        clock = self._clocks[stream]
        corrupt = self._found.streams[stream].corrupt
        if corrupt == 1 and self._found.format == "wav" and _wav_is_open(self._path, self._source):
            corrupt = 0  # the last packet is only shorter than the others
        if clock.restarts:
            times = "once" if len(clock.restarts) == 1 else f"{len(clock.restarts)} times"
            self._add(stream, f"{RESTARTS} {times}; time continues where they ended")
        if corrupt:  # after the restarts, which may be the cause: FFmpeg flags a packet at a joint
            self._add(stream, counted(corrupt, "damaged packet"))
        if clock.strays:
            self._add(stream, f"{counted(clock.strays, 'timestamp')} far off, ignored")
        if empty := gaps(clock, self._stamps[stream]):
            how_long = f"{min(empty):.2f} to {max(empty):.2f} s" if len(empty) > 1 else f"{empty[0]:.2f} s"
            count = f"{len(empty)} gaps" if len(empty) > 1 else "a gap"
            self._add(stream, f"{count} of {how_long}", harmless=True)

    def _check_length(self, tracks: Mapping[Stream, VideoTrack | AudioTrack]) -> None:
        """Compare the length read with the header's, which may count from 0 or from the first packet."""
        found = self._found
        if found.format == MP4_FORMAT:  # states each stream's duration, without what edit lists hide
            for kind, track in tracks.items():
                start, end = track.span
                self._compare(kind, found.streams[kind].stated, max(end - start, end + track.origin))
        else:  # the header's length includes streams that are not used
            ends = [track.span[1] for track in tracks.values()]
            self._compare(None, found.stated, max(found.length, *ends))

    def _compare(self, stream: Stream | None, stated: float, read: float) -> None:
        if stated - read > max(TRUNCATION_SECONDS, 0.01 * stated):
            self._add(stream, f"the header states {stated:.2f} s, but only {read:.2f} s can be read")


def _is_counted(format_name: str) -> bool:
    return format_name in _COUNTED_FORMATS or format_name.endswith("_pipe")


def _repeated(pts: npt.NDArray[np.int64], shown: npt.NDArray[np.bool_], step: float) -> npt.NDArray[np.int64]:
    """Return the numbers of the shown packets whose timestamp is another's.

    Of several with one timestamp, the first in the file keeps it, unless exactly these frames fit evenly between the
    timestamps before and after: then any of them may be the one that is wrong.
    """
    numbers = np.flatnonzero(shown & (pts != NO_STAMP))
    stamps, first, which, counts = np.unique(
        pts[numbers], return_index=True, return_inverse=True, return_counts=True
    )
    evenly = np.zeros(len(stamps), np.bool_)
    evenly[1:-1] = np.abs(stamps[2:] - stamps[:-2] - (counts[1:-1] + 1) * step) <= step / 2
    again = evenly[which] & (counts[which] > 1)
    again[np.setdiff1d(np.arange(len(numbers)), first)] = True
    return numbers[again]


def _is_constant(stamps: npt.NDArray[np.int64], tick: float, rate: float) -> bool:
    """Return whether timestamps are multiples of ``1 / rate`` after the first, rounded to ticks."""
    if not len(stamps):
        return False
    grid = (stamps - stamps.min()) * tick * rate
    rounding = 0.75 * tick * rate
    return rounding < 0.4 and bool(np.all(np.abs(grid - np.rint(grid)) <= rounding))


def _another_begins(found: _Scan, path: StrPath, source: BinaryIO | None) -> bool:
    """Return whether another file of the same format begins after the last packet."""
    if (beginning := _BEGINNINGS.get(found.format)) is None:
        return False
    with _opened(path, source) as file:
        file.seek(found.read)
        before = b""
        while data := file.read(1 << 20):
            if beginning.search(before + data):
                return True
            before = data[-128:]
    return False


def _no_decoder(format_name: str, index: int, path: StrPath, source: BinaryIO | None) -> str:
    """Return the finding for a stream whose codec has no decoder."""
    with _opened(path, source) as file:
        name = codec_name(file, format_name, index)
    return f"its codec {NO_DECODER}" if name is None else f"its codec {name!r} {NO_DECODER}"


def _opened(path: StrPath, source: BinaryIO | None) -> contextlib.AbstractContextManager[BinaryIO]:
    return Path(path).open("rb") if source is None else contextlib.nullcontext(source)


def _avi_is_cut(path: StrPath, source: BinaryIO | None) -> bool:
    """Return whether an AVI is shorter than its RIFF chunks state."""
    with _opened(path, source) as file:
        size, at = file.seek(0, os.SEEK_END), 0
        while at < size:
            file.seek(at)
            head = file.read(8)
            if head[:4] != b"RIFF":
                return False
            at += 8 + int.from_bytes(head[4:], "little")
        return at > size + 1


def _wav_is_open(path: StrPath, source: BinaryIO | None) -> bool:
    """Return whether a WAV's header states no length, as if it was written to a pipe."""
    with _opened(path, source) as file:
        size, at = file.seek(0, os.SEEK_END), 12
        while at < size:
            file.seek(at)
            head = file.read(8)
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return length in (0, 0xFFFFFFFF)
            at += 8 + length + length % 2
    return False
