"""Realistic files of numbered frames and noise: combinations of container, codec and property.

Each :class:`Combination` makes one file with Debian's ``ffmpeg`` command from one base file, or by changing the bytes
of such a file. The base has :data:`COUNT` frames at :data:`FPS` fps, each an image of its number, and as much
band-limited noise, the same in both channels.
"""

from __future__ import annotations

import subprocess
import threading
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from container_bytes import Edit
from make_media import numbered_frame

FPS = 25
COUNT = 75
SECONDS = COUNT / FPS
SAMPLE_RATE = 48_000

Reported = Literal["nothing", "damage"]


class FfmpegError(Exception):
    """``ffmpeg`` failed; the text is its error output."""


@dataclass(frozen=True)
class Combination:
    """One file, and how it is compared.

    Attributes:
        name: container-codec-property.
        suffix: The file's suffix.
        make: Makes the file, given the shelf of base files and the path to write.
        video: The video stream that is compared, as ``ffmpeg -map`` names it, None if there is none.
        audio: The audio stream that is compared, likewise.
        reported: Whether the package must report damage of the file ("damage") or must not ("nothing").
        recordings: How many recordings with clocks of their own are joined end to end. ``ffmpeg`` decodes each of them
            (:func:`recording_of`), and the second must follow where the first ended.
        same_as: The shelf's file of which only timestamps were removed or changed: the frames must be shown at the
            times at which ``ffmpeg`` shows those of that file.
        rounding: Seconds by which the container rounds timestamps, if the package undoes the rounding.
        edits: The shelf's file whose only edit was replaced by several, and these edits: the frames must be shown when
            the edits say.
    """

    name: str
    suffix: str
    make: Callable[[Shelf, Path], None]
    video: str | None = "V:0"
    audio: str | None = "a:0"
    reported: Reported = "nothing"
    recordings: int = 1
    same_as: str | None = None
    rounding: float = 0.0
    edits: tuple[str, tuple[Edit, ...]] | None = None


COMBINATIONS: dict[str, Combination] = {}


def combination(name: str, suffix: str, **details: Any) -> Callable[[Callable[[Shelf, Path], None]], None]:
    """Register the decorated function as the maker of a combination's file."""

    def register(make: Callable[[Shelf, Path], None]) -> None:
        assert name not in COMBINATIONS, name
        COMBINATIONS[name] = Combination(name, suffix, make, **details)

    return register


def table(text: str, **details: Any) -> None:
    """Register a combination per line: its name, its suffix and the options of :func:`encoded`."""
    for line in text.strip().splitlines():
        name, suffix, options = line.split(None, 2)
        encoded(name, suffix, options, **details)


def encoded(
    name: str, suffix: str, options: str, *, base: str = "base", before: str = "", **details: Any
) -> None:
    """Register a combination that one ``ffmpeg`` command makes from the shelf's ``base``."""

    def make(shelf: Shelf, out: Path) -> None:
        ffmpeg(before, "-i", shelf.file(base), options, out)

    combination(name, suffix, **details)(make)


def ffmpeg(*options: str | Path) -> None:
    """Run ``ffmpeg`` with files, and with options that are split at spaces."""
    command = ["ffmpeg", "-y", "-nostdin", "-v", "error"]
    for option in options:
        command += [str(option)] if isinstance(option, Path) else option.split()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise FfmpegError(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def noise(samples: int) -> np.ndarray:
    """Return int16 noise between 100 and 3000 Hz: every codec keeps it, and cross-correlation locates it exactly."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum[(hertz < 100) | (hertz > 3000)] = 0
    whole = np.fft.irfft(spectrum, samples)
    return (whole / np.abs(whole).max() * 19_000).astype(np.int16)


def recording_of(path: Path, number: int) -> Path:
    """Return the path of recording ``number`` of those that are joined to ``path``."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


class Shelf:
    """Cache of files from which several combinations are made; each is made once, by the first thread that needs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "shelf"
        self._folder.mkdir(exist_ok=True)
        self._made: set[str] = set()
        self._lock = threading.RLock()

    def file(self, name: str) -> Path:
        """Return the file of this name from :data:`SHELF`, or the base."""
        with self._lock:
            if name == "base":
                return self._base()
            path = self._folder / name
            if name not in self._made:
                source, options = SHELF[name]
                ffmpeg("-i", self.file(source), options, path)
                self._made.add(name)
            return path

    def bytes(self, name: str) -> bytes:
        """Return the bytes of that file."""
        return self.file(name).read_bytes()

    def _base(self) -> Path:
        path = self._folder / "base.nut"  # Matroska would round the audio's timestamps
        if "base" not in self._made:
            raw, wav = self._folder / "base.rgb", self._folder / "base.wav"
            raw.write_bytes(b"".join(numbered_frame(n).tobytes() for n in range(COUNT)))
            with wave.open(str(wav), "wb") as file:
                file.setnchannels(2)
                file.setsampwidth(2)
                file.setframerate(SAMPLE_RATE)
                file.writeframes(np.repeat(noise(round(SECONDS * SAMPLE_RATE))[:, None], 2, axis=1).tobytes())
            form = f"-f rawvideo -pix_fmt rgb24 -video_size 192x64 -framerate {FPS}"
            ffmpeg(form, "-i", raw, "-i", wav, "-pix_fmt yuv420p -c:v ffv1 -g 1 -c:a pcm_s16le", path)
            self._made.add("base")
        return path


# --- options of encoders -----------------------------------------------------------------------------------------

H264 = "-c:v libx264 -preset veryfast -threads 1 -pix_fmt yuv420p -x264-params scenecut=0"
H264_B = f"{H264} -bf 3 -b_strategy 0 -g 12"
H264_OPEN = f"{H264_B} -x264-params open-gop=1:scenecut=0"
HEVC = "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=none:frame-threads=1"
HEVC_OPEN = f"{HEVC}:keyint=12:bframes=3:open-gop=1"
MPEG4 = "-c:v mpeg4 -q:v 3 -g 12"
MPEG2 = "-c:v mpeg2video -q:v 3 -g 12 -bf 2"
XVID = "-c:v libxvid -q:v 3 -g 12"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 16 -b:v 1M -g 24 -threads 1"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M -g 24 -row-mt 0 -threads 1"
AV1 = "-c:v libsvtav1 -preset 12 -crf 20 -g 25 -svtav1-params lp=1"
THEORA = "-c:v libtheora -q:v 9 -g 12"

AAC = "-c:a aac -aac_coder fast"
MP2 = "-c:a mp2"
MP3 = "-c:a libmp3lame"
OPUS = "-c:a libopus"
VORBIS = "-c:a libvorbis"
PCM = "-c:a pcm_s16le"

SHELF: dict[str, tuple[str, str]] = {
    "h264.mp4": ("base", f"{H264_B} {AAC}"),
    "h264-nob.mp4": ("base", f"{H264} -bf 0 -g 12 {AAC}"),
    "h264-bf7.mp4": ("base", f"{H264} -bf 7 -b_strategy 0 -b-pyramid normal -g 60 {AAC}"),
    "h264-slow.mp4": ("base", f"-vf setpts=2*PTS -r 12.5 -t 3 {H264} -bf 3 -b_strategy 0 -g 250 {AAC}"),
    "mpeg4-b.mp4": ("base", f"{MPEG4} -bf 2 {AAC}"),
    "h264-opengop.mp4": ("base", f"{H264_OPEN} {AAC}"),
    "hevc-opengop.mp4": ("base", f"{HEVC_OPEN} {AAC}"),
    "h264-refresh.ts": ("base", f"{H264} -x264-params intra-refresh=1:keyint=25:bframes=0 {AAC}"),
    "hevc.mp4": ("base", f"{HEVC}:keyint=12:bframes=3 {AAC}"),
    "pcm.mov": ("base", f"{H264_B} {PCM}"),
    "prores.mov": ("base", f"-c:v prores {PCM}"),
    "aac.m4a": ("base", f"-vn {AAC}"),
    "h264-fragments.mp4": ("base", f"{H264_B} {AAC} -movflags empty_moov+frag_keyframe+default_base_moof"),
    "h264.ts": ("base", f"{H264_B} {AAC}"),
    "h264-nob.ts": ("base", f"{H264} -bf 0 -g 12 {AAC}"),
    "mpeg2-nob.ts": ("base", f"-c:v mpeg2video -q:v 3 -g 12 {MP2}"),
    "h264.flv": ("base", f"{H264_B} {AAC}"),
    "theora.ogv": ("base", f"{THEORA} {VORBIS}"),
    "mpeg2.m2v": ("base", f"{MPEG2} -frames:v 74 -an"),
    "cover.png": ("base", "-frames:v 1 -an"),
    "h264-opengop.ts": ("base", f"{H264_OPEN} {AAC}"),
    "hevc-opengop.ts": ("base", f"{HEVC}:keyint=12:bframes=3:open-gop=1 {AAC}"),
    "mpeg2.ts": ("base", f"{MPEG2} {MP2}"),
    "mpeg2.vob": ("base", f"{MPEG2} {MP2} -packetsize 256"),
    "h264.mkv": ("base", f"{H264_B} {AAC}"),
    "vp9.webm": ("base", f"{VP9} {OPUS}"),
    "mpeg4.avi": ("base", f"{MPEG4} {PCM}"),
    "mpeg4-b.avi": ("base", f"{MPEG4} -bf 2 {PCM}"),
    "mjpeg.avi": ("base", f"-c:v mjpeg -q:v 3 {PCM}"),
    "frozen.avi": ("base", f"-vf select='not(between(mod(n,10),6,9))',fps=25 {MPEG4} {PCM}"),
    "frozen.mkv": ("base", f"-vf select='not(between(mod(n,10),6,9))',fps=25 {MPEG4} {MP3}"),
}
"""Base files by name: the file from which each is made, and ffmpeg's options."""
