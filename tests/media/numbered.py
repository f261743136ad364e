"""Files as people have them, of numbered pictures and noise: combinations of container, codec and property.

Each :class:`Combination` makes one file with Debian's ``ffmpeg`` command from one base file, or by changing the bytes
of such a file. The base has :data:`COUNT` pictures at :data:`FPS` a second, each with its number in it, and as much
band-limited noise, the same in both channels.
"""

from __future__ import annotations

import struct
import subprocess
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from make_media import numbered_picture

FPS = 25
COUNT = 75
SECONDS = COUNT / FPS
SAMPLE_RATE = 48_000

Said = Literal["nothing", "damage", "either"]


class FfmpegError(Exception):
    """``ffmpeg`` failed; the text is what it wrote."""


@dataclass(frozen=True)
class Combination:
    """One file and how it is asked for.

    Attributes:
        name: container-codec-property.
        suffix: The file's.
        make: Makes the file, given the shelf of base files and the path to write.
        video: Which pictures are compared, as ``ffmpeg -map`` names them, None where there are none.
        audio: Which sound is compared, likewise.
        said: Whether the package must say that the file is damaged, must not, or may.
        restarts: Whether the clock restarts, so that ``ffmpeg`` is asked without ``-copyts``.
        rounding: Seconds by which the container rounds time stamps, where the package undoes that.
        oracle_options: Options of ``ffmpeg`` before ``-i``.
    """

    name: str
    suffix: str
    make: Callable[[Shelf, Path], None]
    video: str | None = "V:0"
    audio: str | None = "a:0"
    said: Said = "nothing"
    restarts: bool = False
    rounding: float = 0.0
    oracle_options: tuple[str, ...] = ()


COMBINATIONS: dict[str, Combination] = {}


def combination(name: str, suffix: str, **details: Any) -> Callable[[Callable[[Shelf, Path], None]], None]:
    """Register the decorated function as the maker of a combination's file."""

    def register(make: Callable[[Shelf, Path], None]) -> None:
        assert name not in COMBINATIONS, name
        COMBINATIONS[name] = Combination(name, suffix, make, **details)

    return register


def encoded(name: str, suffix: str, options: str, *, base: str = "base", **details: Any) -> None:
    """Register a combination that one ``ffmpeg`` command makes of the shelf's ``base``."""

    def make(shelf: Shelf, out: Path) -> None:
        ffmpeg(f"-i {shelf.file(base)} {options} {out}")

    combination(name, suffix, **details)(make)


def ffmpeg(options: str) -> None:
    """Run ``ffmpeg`` with options that hold no spaces."""
    command = ["ffmpeg", "-y", "-nostdin", "-v", "error", *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise FfmpegError(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def noise(samples: int) -> np.ndarray:
    """int16 noise between 100 and 3000 Hz, which every codec keeps and cross-correlation places exactly."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum[(hertz < 100) | (hertz > 3000)] = 0
    whole = np.fft.irfft(spectrum, samples)
    return (whole / np.abs(whole).max() * 19_000).astype(np.int16)


class Shelf:
    """Files that several combinations are made of, each made once in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str) -> Path:
        """The file of this name from :data:`SHELF`, or the base."""
        if name == "base":
            return self._base()
        path = self.folder / name
        if not path.exists():
            source, options = SHELF[name]
            ffmpeg(f"-i {self.file(source)} {options} {path}")
        return path

    def bytes(self, name: str) -> bytes:
        """What is in that file."""
        return self.file(name).read_bytes()

    def _base(self) -> Path:
        path = self.folder / "base.mkv"
        if not path.exists():
            raw, wav = self.folder / "base.rgb", self.folder / "base.wav"
            raw.write_bytes(b"".join(numbered_picture(n).tobytes() for n in range(COUNT)))
            with wave.open(str(wav), "wb") as file:
                file.setnchannels(2)
                file.setsampwidth(2)
                file.setframerate(SAMPLE_RATE)
                file.writeframes(np.repeat(noise(round(SECONDS * SAMPLE_RATE))[:, None], 2, axis=1).tobytes())
            form = f"-f rawvideo -pix_fmt rgb24 -video_size 192x64 -framerate {FPS}"
            ffmpeg(f"{form} -i {raw} -i {wav} -pix_fmt yuv420p -c:v ffv1 -g 1 -c:a pcm_s16le {path}")
        return path


# --- options of encoders -----------------------------------------------------------------------------------------

H264 = "-c:v libx264 -preset veryfast -threads 1 -pix_fmt yuv420p -x264-params scenecut=0"
H264_B = f"{H264} -bf 3 -b_strategy 0 -g 12"
HEVC = (
    "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none:pools=none:frame-threads=1"
)
MPEG4 = "-c:v mpeg4 -q:v 3 -g 12"
MPEG2 = "-c:v mpeg2video -q:v 3 -g 12 -bf 2"
XVID = "-c:v libxvid -q:v 3 -g 12"
VP8 = "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 1M -g 24"
VP9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M -g 24 -row-mt 0 -threads 1"
AV1 = "-c:v libsvtav1 -preset 12 -crf 20 -g 25 -svtav1-params lp=1"
THEORA = "-c:v libtheora -q:v 9 -g 12"

AAC = "-c:a aac"
MP2 = "-c:a mp2"
MP3 = "-c:a libmp3lame"
OPUS = "-c:a libopus"
VORBIS = "-c:a libvorbis"
PCM = "-c:a pcm_s16le"

SHELF: dict[str, tuple[str, str]] = {
    "h264.mp4": ("base", f"{H264_B} {AAC}"),
    "h264-nob.mp4": ("base", f"{H264} -bf 0 -g 12 {AAC}"),
    "h264-opengop.mp4": ("base", f"{H264_B} -x264-params open-gop=1:scenecut=0 {AAC}"),
    "h264.ts": ("base", f"{H264_B} {AAC}"),
    "h264.mkv": ("base", f"{H264_B} {AAC}"),
    "mpeg2.ts": ("base", f"{MPEG2} {MP2}"),
}

# --- containers and codecs, nothing special ----------------------------------------------------------------------

for _name, _suffix, _options, _details in (
    ("mp4-h264-bframes", "mp4", f"{H264_B} {AAC}", {}),
    ("mp4-h264-opengop", "mp4", f"{H264_B} -x264-params open-gop=1:scenecut=0 {AAC}", {}),
    ("mp4-h264-faststart", "mp4", f"{H264_B} {AAC} -movflags faststart", {}),
    ("mp4-hevc-bframes", "mp4", f"{HEVC}:keyint=12:bframes=3 {AAC}", {}),
    ("mp4-hevc-opengop", "mp4", f"{HEVC}:keyint=12:bframes=3:open-gop=1 {AAC}", {}),
    ("mp4-mpeg4-bframes", "mp4", f"{MPEG4} -bf 2 {AAC}", {}),
    ("mp4-av1-hierarchical", "mp4", f"{AV1} {AAC}", {}),
    ("mp4-av1-aom-altref", "mp4", f"-c:v libaom-av1 -cpu-used 8 -crf 20 -g 25 -lag-in-frames 19 {OPUS}", {}),
    ("mp4-vp9", "mp4", f"{VP9} {OPUS}", {}),
    ("mov-prores-pcm", "mov", f"-c:v prores {PCM}", {}),
    ("mov-mjpeg-pcm", "mov", f"-c:v mjpeg -q:v 3 {PCM}", {}),
    ("mov-h264-alac", "mov", f"{H264_B} -c:a alac", {}),
    ("3gp-h263", "3gp", f"-vf scale=176:144 -c:v h263 -q:v 3 {AAC}", {}),
    ("mkv-h264-bframes", "mkv", f"{H264_B} {AAC}", {}),
    ("mkv-hevc-opengop", "mkv", f"{HEVC}:keyint=12:bframes=3:open-gop=1 -c:a ac3", {}),
    (
        "mkv-vp8-altref",
        "mkv",
        "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 5 -b:v 300k -g 50 -c:a flac",
        {},
    ),
    (
        "webm-vp9-altref",
        "webm",
        f"-c:v libvpx-vp9 -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 8 -b:v 300k {OPUS}",
        {},
    ),
    ("webm-vp8-opus", "webm", f"{VP8} {OPUS}", {}),
    ("webm-av1-opus", "webm", f"{AV1} {OPUS}", {}),
    ("mkv-theora-vorbis", "mkv", f"{THEORA} {VORBIS}", {}),
    ("mkv-mpeg2-mp2", "mkv", f"{MPEG2} {MP2}", {}),
    ("mkv-mpeg4-bframes", "mkv", f"{MPEG4} -bf 2 {MP3}", {}),
    ("mkv-ffv1-flac", "mkv", "-c:v ffv1 -c:a flac", {}),
    ("mkv-snow-pcm", "mkv", f"-c:v snow -q:v 3 {PCM}", {}),
    ("ts-h264-bframes", "ts", f"{H264_B} {AAC}", {}),
    ("ts-h264-opengop", "ts", f"{H264_B} -x264-params open-gop=1:scenecut=0 -c:a ac3", {}),
    ("ts-hevc-opengop", "ts", f"{HEVC}:keyint=12:bframes=3:open-gop=1 {AAC}", {}),
    ("ts-mpeg2-mp2", "ts", f"{MPEG2} {MP2}", {}),
    ("ts-mpeg4-bframes", "ts", f"{MPEG4} -bf 2 {MP3}", {}),
    ("m2ts-h264-ac3", "m2ts", f"{H264_B} -c:a ac3", {}),
    ("mpg-mpeg1-mp2", "mpg", f"-c:v mpeg1video -q:v 3 -bf 2 -g 12 {MP2}", {}),
    ("vob-mpeg2-ac3", "vob", f"{MPEG2} -c:a ac3", {}),
    ("avi-mjpeg-pcm", "avi", f"-c:v mjpeg -q:v 3 {PCM}", {}),
    ("avi-mpeg4-mp3", "avi", f"{MPEG4} {MP3}", {}),
    ("avi-xvid-mp3", "avi", f"{XVID} {MP3}", {}),
    ("avi-msmpeg4-mp3", "avi", f"-c:v msmpeg4v2 -q:v 3 {MP3}", {}),
    ("avi-h264-nob", "avi", f"{H264} -bf 0 -g 12 {MP3}", {}),
    ("avi-ffv1-pcm", "avi", f"-c:v ffv1 {PCM}", {}),
    ("flv-flv1-mp3", "flv", f"-c:v flv -q:v 3 -ar 44100 {MP3}", {}),
    ("flv-h264-bframes", "flv", f"{H264_B} {AAC}", {}),
    ("asf-wmv2-wma", "wmv", "-c:v wmv2 -q:v 3 -c:a wmav2", {}),
    ("asf-msmpeg4-mp3", "asf", f"-c:v msmpeg4 -q:v 3 {MP3}", {}),
    ("ogv-theora-vorbis", "ogv", f"{THEORA} {VORBIS}", {}),
    ("ogv-theora-opus", "ogv", f"{THEORA} {OPUS}", {}),
    ("rm-rv20-ac3", "rm", "-vf scale=176:144 -c:v rv20 -q:v 3 -c:a ac3", {}),
    ("mxf-mpeg2-pcm", "mxf", f"{MPEG2} -qmin 1 {PCM}", {}),
    ("nut-mpeg4-mp3", "nut", f"{MPEG4} -bf 2 {MP3}", {}),
    ("h264-raw", "h264", f"{H264_B} -an", {"audio": None}),
    ("hevc-raw", "hevc", f"{HEVC}:keyint=12:bframes=3 -an", {"audio": None}),
    ("m4v-raw", "m4v", f"{MPEG4} -an", {"audio": None}),
    ("m2v-raw", "m2v", f"{MPEG2} -an", {"audio": None}),
    ("mjpeg-raw", "mjpeg", "-c:v mjpeg -q:v 3 -an", {"audio": None}),
    ("ivf-vp9", "ivf", f"{VP9} -an", {"audio": None}),
    ("obu-av1", "obu", f"{AV1} -an", {"audio": None}),
    ("y4m-raw", "y4m", "-an", {"audio": None}),
    ("gif-frames", "gif", "-an", {"audio": None}),
    ("apng-frames", "apng", "-an", {"audio": None}),
    ("png-still", "png", "-frames:v 1 -an", {"audio": None}),
    ("webp-still", "webp", "-frames:v 1 -c:v libwebp -lossless 1 -an", {"audio": None}),
    ("wav-pcm", "wav", "-vn", {"video": None}),
    ("mp3-lame", "mp3", "-vn", {"video": None}),
    ("m4a-aac", "m4a", f"-vn {AAC}", {"video": None}),
    ("adts-aac", "aac", f"-vn {AAC}", {"video": None}),
    ("flac-flac", "flac", "-vn", {"video": None}),
    ("opus-opus", "opus", f"-vn {OPUS}", {"video": None}),
    ("ogg-vorbis", "ogg", f"-vn {VORBIS}", {"video": None}),
    ("ac3-raw", "ac3", "-vn", {"video": None}),
    ("aiff-pcm", "aiff", "-vn", {"video": None}),
    ("caf-alac", "caf", "-vn -c:a alac", {"video": None}),
):
    encoded(_name, _suffix, _options, **_details)
