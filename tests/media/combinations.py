"""The combinations of container, codec and property that are compared with ``ffmpeg``; importing registers them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from container_bytes import (
    AUDIO_PID,
    CLOCK,
    VIDEO_PID,
    ChangeStamps,
    Edit,
    avi_frames,
    change_avi,
    change_ps,
    change_ts,
    cut_ts,
    frame_type,
    h264_fields,
    mpeg2_fields,
    not_coded,
    packed,
    pick_fragments,
    recounted,
    reverse_chunks,
    set_edits,
    set_matrix,
    start_later,
    telecined,
    ts_starts,
)
from make_media import numbered_frame
from numbered import (
    AAC,
    AV1,
    COUNT,
    FPS,
    H264,
    H264_B,
    H264_OPEN,
    HEVC,
    HEVC_OPEN,
    MP2,
    MP3,
    MPEG2,
    MPEG4,
    OPUS,
    PCM,
    THEORA,
    VORBIS,
    VP8,
    VP9,
    XVID,
    Shelf,
    combination,
    ffmpeg,
    recording_of,
    table,
)

MILLISECOND = 1e-3
FRAME = CLOCK // FPS  # MPEG ticks from frame to frame


# --- containers and codecs, nothing special ----------------------------------------------------------------------

table(
    f"""
mp4-h264-bframes       mp4   {H264_B} {AAC}
mp4-h264-opengop       mp4   {H264_OPEN} {AAC}
mp4-h264-faststart     mp4   {H264_B} {AAC} -movflags faststart
mp4-hevc-bframes       mp4   {HEVC}:keyint=12:bframes=3 {AAC}
mp4-hevc-opengop       mp4   {HEVC_OPEN} {AAC}
mp4-mpeg4-bframes      mp4   {MPEG4} -bf 2 {AAC}
mp4-av1-hierarchical   mp4   {AV1} {AAC}
mp4-av1-aom-altref     mp4   -c:v libaom-av1 -cpu-used 8 -crf 20 -g 25 -lag-in-frames 19 {OPUS}
mp4-vp9                mp4   {VP9} {OPUS}
mov-prores-pcm         mov   -c:v prores {PCM}
mov-mjpeg-pcm          mov   -c:v mjpeg -q:v 3 {PCM}
mov-h264-alac          mov   {H264_B} -c:a alac
3gp-h263               3gp   -vf scale=176:144 -c:v h263 -q:v 3 {AAC}
mkv-h264-bframes       mkv   {H264_B} {AAC}
mkv-hevc-opengop       mkv   {HEVC_OPEN} -c:a ac3
mkv-vp8-altref         mkv   -c:v libvpx -threads 1 -auto-alt-ref 1 -lag-in-frames 16 -b:v 300k -g 50 -c:a flac
webm-vp9-altref        webm  -c:v libvpx-vp9 -auto-alt-ref 1 -lag-in-frames 16 -cpu-used 8 -b:v 300k {OPUS}
webm-vp8-opus          webm  {VP8} {OPUS}
webm-av1-opus          webm  {AV1} {OPUS}
mkv-theora-vorbis      mkv   {THEORA} {VORBIS}
mkv-mpeg2-mp2          mkv   {MPEG2} {MP2}
mkv-mpeg4-bframes      mkv   {MPEG4} -bf 2 {MP3}
mkv-ffv1-flac          mkv   -c:v ffv1 -c:a flac
mkv-snow-pcm           mkv   -c:v snow -q:v 3 {PCM}
mkv-h263p-pcm          mkv   -s 352x288 -c:v h263p -q:v 3 {PCM}
ts-h264-bframes        ts    {H264_B} {AAC}
ts-h264-opengop        ts    {H264_OPEN} -c:a ac3
ts-hevc-opengop        ts    {HEVC_OPEN} {AAC}
ts-mpeg2-mp2           ts    {MPEG2} {MP2}
ts-mpeg4-bframes       ts    {MPEG4} -bf 2 {MP3}
m2ts-h264-ac3          m2ts  {H264_B} -c:a ac3
mpg-mpeg1-mp2          mpg   -c:v mpeg1video -q:v 3 -bf 2 -g 12 {MP2}
vob-mpeg2-ac3          vob   {MPEG2} -c:a ac3
avi-mjpeg-pcm          avi   -c:v mjpeg -q:v 3 {PCM}
avi-mpeg4-pcm          avi   {MPEG4} {PCM}
avi-xvid-mp3           avi   {XVID} {MP3}
avi-msmpeg4-mp3        avi   -c:v msmpeg4v2 -q:v 3 {MP3}
avi-h264-ac3           avi   {H264} -bf 0 -g 12 -c:a ac3
avi-ffv1-pcm           avi   -c:v ffv1 {PCM}
flv-flv1-mp3           flv   -c:v flv -q:v 3 -ar 44100 {MP3}
flv-h264-bframes       flv   {H264_B} {AAC}
asf-wmv2-wma           wmv   -c:v wmv2 -q:v 3 -c:a wmav2
asf-msmpeg4-mp3        asf   -c:v msmpeg4 -q:v 3 {MP3}
ogv-theora-vorbis      ogv   {THEORA} {VORBIS}
ogv-theora-opus        ogv   {THEORA} {OPUS}
rm-rv20-ac3            rm    -vf scale=176:144 -c:v rv20 -q:v 3 -c:a ac3
mxf-mpeg2-pcm          mxf   {MPEG2} -qmin 1 {PCM}
nut-mpeg4-mp3          nut   {MPEG4} -bf 2 {MP3}
"""
)
table(
    f"""
h264-raw               h264  {H264_B} -an
hevc-raw               hevc  {HEVC}:keyint=12:bframes=3 -an
m4v-raw                m4v   {MPEG4} -an -f m4v
m2v-raw                m2v   {MPEG2} -an
mjpeg-raw              mjpeg -c:v mjpeg -q:v 3 -an
ivf-vp9                ivf   {VP9} -an
obu-av1                obu   {AV1} -an
y4m-raw                y4m   -an
gif-frames             gif   -an
apng-frames            apng  -an
png-still              png   -frames:v 1 -an
tiff-still             tiff  -frames:v 1 -an
webp-still             webp  -frames:v 1 -c:v libwebp -lossless 1 -an
""",
    audio=None,
)
table(
    f"""
wav-pcm                wav   -vn
wav-g722               wav   -vn -ar 16000 -ac 1 -c:a g722
mp3-lame               mp3   -vn
m4a-aac                m4a   -vn {AAC}
adts-aac               aac   -vn {AAC}
flac-flac              flac  -vn
opus-opus              opus  -vn {OPUS}
ogg-vorbis             ogg   -vn {VORBIS}
ac3-raw                ac3   -vn
aiff-pcm               aiff  -vn
caf-alac               caf   -vn -c:a alac
""",
    video=None,
)

# --- frame rates and variable frame rates ------------------------------------------------------------------------

VFR = "-vf select='not(between(n,20,50)*mod(n,7))' -fps_mode vfr"
UNEVEN = "-vf settb=1/90000,setpts='(N+0.45*sin(N))*3600' -fps_mode passthrough -enc_time_base 1/90000"
STILL_THEN_BURST = (
    "-vf settb=1/1000,setpts='if(lt(N,3),N*700,2100+(N-3)*11)' -fps_mode passthrough -enc_time_base 1/1000"
)
STILL_AT_END = "-vf settb=1/1000,setpts='if(lt(N,74),N*40,15000)' -fps_mode passthrough -enc_time_base 1/1000"
LONG_PAUSE = (
    "-vf settb=1/1000,setpts='N*40+if(lt(N,40),0,100000)' -fps_mode passthrough -enc_time_base 1/1000"
)


def speed(fps: str) -> str:
    """Return options that give the base's frames another rate."""
    return f"-vf setpts=N/({fps})/TB -r {fps}"


table(
    f"""
mp4-h264-1fps          mp4   {speed("1")} -frames:v 5 {H264} -g 12 {AAC}
mp4-h264-1000fps       mp4   {speed("1000")} {H264_B} {AAC}
mkv-h264-1000fps       mkv   {speed("1000")} {H264_B} {AAC}
mp4-h264-29.97         mp4   {speed("30000/1001")} {H264_B} {AAC}
mp4-h264-vfr           mp4   {VFR} {H264_B} {AAC}
mkv-h264-vfr           mkv   {VFR} {H264_B} {AAC}
webm-vp9-vfr           webm  {VFR} {VP9} {OPUS}
ts-h264-vfr            ts    {VFR} {H264_B} {AAC}
flv-h264-vfr           flv   {VFR} {H264_B} {AAC}
asf-wmv2-vfr           wmv   {VFR} -c:v wmv2 -q:v 3 -c:a wmav2
mp4-h264-uneven        mp4   {UNEVEN} {H264_B} {AAC}
mkv-h264-uneven        mkv   {UNEVEN} {H264_B} {AAC}
ts-h264-uneven         ts    {UNEVEN} {H264_B} {AAC}
mp4-h264-burst         mp4   {STILL_THEN_BURST} {H264_B} {AAC}
mkv-h264-burst         mkv   {STILL_THEN_BURST} {H264_B} {AAC}
mp4-h264-still-end     mp4   {STILL_AT_END} {H264_B} {AAC}
mkv-h264-still-end     mkv   {STILL_AT_END} {H264_B} {AAC}
ts-h264-still-end      ts    {STILL_AT_END} {H264_B} {AAC}
ts-hevc-still-end      ts    {STILL_AT_END} {HEVC}:keyint=12:bframes=3 {AAC}
"""
)
table(f"ts-h264-pause  ts  {LONG_PAUSE} {H264_B} {AAC}")
table(
    f"""
mkv-h264-29.97         mkv   {speed("30000/1001")} {H264_B} {AAC}
flv-h264-59.94         flv   {speed("60000/1001")} {H264_B} {AAC}
""",
    rounding=MILLISECOND,
)
table(f"ts-h264-23.976  ts  {speed('24000/1001')} {H264_B} {AAC}", rounding=1 / CLOCK)
table(f"gif-vfr  gif  {VFR} -an", audio=None)
table(f"apng-vfr  apng  {VFR} -an", audio=None)

# --- edit lists --------------------------------------------------------------------------------------------------


def edited(name: str, base: str, *rows: Edit, tracks: str = "both", version: int = 0, **details: Any) -> None:
    """Register an MP4 whose tracks (``vide``, ``soun`` or both) have the edits ``rows``; without any, no edit list."""

    def make(shelf: Shelf, out: Path) -> None:
        data = shelf.bytes(base)
        for handler in ("vide", "soun") if tracks == "both" else (tracks,):
            data = set_edits(data, handler.encode(), rows or None, version=version)
        out.write_bytes(data)

    combination(name, Path(base).suffix[1:], **details)(make)


FOUR = ((0.2, 0.3), (0.9, 0.3), (1.6, 0.3), (2.3, 0.3))


def several_edits(name: str, base: str, *rows: Edit, **details: Any) -> None:
    """Register an MP4 with reordered frames and several edits."""
    # ffmpeg's audio has steps of up to JITTER_SECONDS between edits, which the comparison takes for rounding.
    edited(name, base, *rows, **{"edits": (base, rows), "rounding": MILLISECOND, **details})


table("mp4-h264-edit-head  mp4  -c copy", base="h264.mp4", before="-ss 0.92")
table("mp4-h264-edit-late-start  mp4  -ss 0.92 -c copy", base="h264.mp4")
table("mp4-hevc-edit-head  mp4  -c copy -tag:v hvc1", base="hevc.mp4", before="-ss 0.92")
edited("mp4-h264-edit-tail", "h264.mp4", (0, 1.52))
edited("mp4-h264-edit-inside", "h264.mp4", (0.52, 1.6))
edited("mp4-h264-edit-nob", "h264-nob.mp4", (0.52, 1.6))
edited("mp4-h264-edit-opengop", "h264-opengop.mp4", (0.52, 1.6))
edited("mp4-hevc-edit-inside", "hevc.mp4", (0.52, 1.6))
edited("mp4-h264-edit-version1", "h264.mp4", (0.52, 1.6), version=1)
edited("mov-h264-edit-pcm", "pcm.mov", (0.52, 1.6))
edited("mov-prores-edit-inside", "prores.mov", (0.52, 1.6))
edited("mp4-h264-edit-two", "h264.mp4", (0.4, 0.8), (2.0, 0.6))
edited("mp4-h264-edit-swapped", "h264.mp4", (2.0, 0.6), (0.4, 0.8))
edited("mp4-h264-edit-repeated", "h264.mp4", (1.0, 0.48), (1.0, 0.48))
edited("mp4-h264-edit-late-video", "h264.mp4", (None, 0.5), (0, 2.48), tracks="vide")
edited("mp4-h264-edit-late-audio", "h264.mp4", (None, 0.5), (0, 2.5), tracks="soun")
several_edits("mp4-h264-edit-three", "h264.mp4", (0.4, 0.4), (1.2, 0.4), (2.4, 0.4))
several_edits("mp4-h264-edit-opengop-swapped", "h264-opengop.mp4", (2.1, 0.5), (0.7, 0.5))
several_edits("mp4-hevc-edit-opengop-two", "hevc-opengop.mp4", (0.6, 0.6), (2.1, 0.5))
several_edits("mp4-h264-edit-overlapping", "h264-bf7.mp4", (0.5, 1.0), (1.0, 1.0))
several_edits("mp4-h264-edit-four", "h264-bf7.mp4", *FOUR)
several_edits("mp4-h264-edit-four-reversed", "h264-bf7.mp4", *FOUR[::-1])
several_edits("mp4-h264-edit-five-again", "h264-bf7.mp4", *[(1.31, 0.3)] * 5)
several_edits("mp4-h264-edit-slow-overlapping", "h264-slow.mp4", (0.5, 1.0), (1.0, 1.0))
several_edits("mp4-h264-edit-slow-swapped", "h264-slow.mp4", (1.8, 0.6), (0.4, 0.8))
several_edits("mp4-h264-edit-to-the-end-swapped", "h264-bf7.mp4", (2.2, 0.8), (1.5, 1.5))
several_edits("mp4-h264-edit-opengop-four", "h264-opengop.mp4", *FOUR[::-1])
several_edits("mp4-hevc-edit-opengop-four", "hevc-opengop.mp4", *FOUR[::-1])
several_edits("mp4-hevc-edit-four", "hevc.mp4", *FOUR)
several_edits("mp4-mpeg4-edit-four", "mpeg4-b.mp4", *FOUR[::-1])
edited("mp4-h264-edit-beyond", "h264.mp4", (0.52, 9.0))
edited("mp4-h264-edit-audio-hole", "h264.mp4", (0.4, 0.8), (None, 0.5), (1.6, 0.6), tracks="soun")
edited("mp4-h264-edit-one-frame", "h264.mp4", (1.3, 0.04))
edited("mp4-h264-edit-none", "h264.mp4")
edited("mp4-h264-edit-video-only", "h264.mp4", (0.52, 1.6), tracks="vide")
edited("mp4-h264-edit-audio-only", "h264.mp4", (0.52, 1.6), tracks="soun")
edited("m4a-aac-edit-inside", "aac.m4a", (0.52, 1.6), tracks="soun", video=None)

table(
    "mp4-h264-frag-of-edit  mp4  -c copy -movflags frag_keyframe+delay_moov",
    base="h264-bf7.mp4",
    before="-ss 0.93",
)


@combination("mp4-h264-opengop-chunks-reversed", "mp4")
def _(shelf: Shelf, out: Path) -> None:
    out.write_bytes(reverse_chunks(shelf.bytes("h264-opengop.mp4")))


# --- fragments ---------------------------------------------------------------------------------------------------

table(
    f"""
mp4-h264-fragments     mp4   {H264_B} {AAC} -movflags empty_moov+frag_keyframe+default_base_moof
mp4-h264-frag-delayed  mp4   {H264_B} {AAC} -movflags delay_moov+frag_keyframe+default_base_moof
mp4-h264-frag-cmaf     mp4   {H264_B} {AAC} -movflags cmaf+delay_moov+frag_keyframe
mp4-h264-frag-sidx     mp4   {H264_B} {AAC} -movflags dash+global_sidx+frag_keyframe
mp4-hevc-frag-opengop  mp4   {HEVC_OPEN} {AAC} -movflags empty_moov+frag_keyframe+default_base_moof
mp4-h264-negative-cts  mp4   {H264_B} {AAC} -movflags negative_cts_offsets
mp4-h264-no-editlist   mp4   {H264_B} {AAC} -use_editlist 0
"""
)
table(
    f"mp4-h264-frag-frame  mp4  {H264} -bf 0 -g 12 -an -movflags empty_moov+frag_every_frame+default_base_moof",
    audio=None,
)


def fragments(name: str, wanted: Callable[[int], bool], **details: Any) -> None:
    """Register the header and some fragments of a file."""

    def make(shelf: Shelf, out: Path) -> None:
        out.write_bytes(pick_fragments(shelf.bytes("h264-fragments.mp4"), wanted))

    combination(name, "mp4", **details)(make)


fragments("mp4-h264-segment-late", lambda k: k >= 2)
fragments("mp4-h264-segment-middle", lambda k: 1 <= k < 4)
fragments("mp4-h264-segment-missing", lambda k: k != 2)

# --- where the clocks start --------------------------------------------------------------------------------------

table(
    """
mkv-h264-late          mkv   -c copy -output_ts_offset 100
mp4-h264-late          mp4   -c copy -output_ts_offset 5
ts-h264-late           ts    -c copy -output_ts_offset 5000
flv-h264-late          flv   -c copy -output_ts_offset 100
mkv-h264-cut-copyts    mkv   -c copy -copyts -ss 1
mkv-h264-live          mkv   -c copy -live 1
mkv-h264-cut           mkv   -c copy -ss 1
mp4-h264-cut           mp4   -c copy -ss 1
ts-h264-cut            ts    -c copy -ss 1
flv-h264-cut           flv   -c copy -ss 1
nut-h264-cut           nut   -c copy -ss 1
""",
    base="h264.mkv",
)
table(
    f"""
ogg-opus-late          opus  -vn {OPUS} -output_ts_offset 100
mka-opus-late          mka   -vn {OPUS} -output_ts_offset 7
""",
    video=None,
)
table(f"ogv-theora-late  ogv  {THEORA} {VORBIS} -output_ts_offset 100")
table("asf-wmv2-late  wmv  -c:v wmv2 -q:v 3 -c:a wmav2 -output_ts_offset 10")
table(
    f"""
mkv-h264-negative      mkv   {H264_B} {AAC} -output_ts_offset -1
mkv-h264-unshifted     mkv   {H264_B} {AAC} -avoid_negative_ts disabled
nut-h264-negative      nut   {H264_B} {AAC} -output_ts_offset -1
mp4-h264-negative      mp4   {H264_B} {AAC} -output_ts_offset -1 -avoid_negative_ts disabled
ts-h264-negative       ts    {H264_B} {AAC} -output_ts_offset -3 -avoid_negative_ts disabled
"""
)
table(  # the muxer writes them from 2^31 ms on, and the clock wraps around at 0
    "flv-h264-negative  flv  -c copy -output_ts_offset -1 -avoid_negative_ts disabled",
    base="h264.flv",
    same_as="h264.flv",
    reported="damage",
)
table("mp4-hevc-opengop-cut  mp4  -c copy", base="hevc-opengop.mp4", before="-ss 1")
table("mkv-hevc-opengop-cut  mkv  -c copy", base="hevc-opengop.mp4", before="-ss 1")
table("mp4-h264-opengop-cut  mp4  -c copy", base="h264-opengop.mp4", before="-ss 1")
table("mkv-h264-opengop-cut  mkv  -c copy", base="h264-opengop.mp4", before="-ss 1")


def apart(text: str, seconds: float) -> None:
    """Register files whose audio is delayed by ``seconds``: its timestamps begin that much later."""

    def register(name: str, suffix: str, options: str) -> None:
        def make(shelf: Shelf, out: Path) -> None:
            base = shelf.file("base")
            early, late = ("", f"-itsoffset {seconds}") if seconds > 0 else (f"-itsoffset {-seconds}", "")
            ffmpeg(
                early, "-i", base, late, "-i", base, "-map 0:v -map 1:a -fps_mode passthrough", options, out
            )

        combination(name, suffix)(make)

    for line in text.strip().splitlines():
        register(*line.split(None, 2))


apart(
    f"""
mp4-h264-audio-late    mp4   {H264_B} {AAC}
mkv-h264-audio-late    mkv   {H264_B} {AAC}
ts-h264-audio-late     ts    {H264_B} {AAC}
flv-h264-audio-late    flv   {H264_B} {AAC}
avi-mpeg4-audio-late   avi   {MPEG4} {PCM}
ogv-theora-audio-late  ogv   {THEORA} {VORBIS}
vob-mpeg2-audio-late   vob   {MPEG2} {MP2}
asf-wmv2-audio-late    wmv   -c:v wmv2 -q:v 3 -c:a wmav2
""",
    0.52,
)
apart(
    f"""
mp4-h264-audio-early   mp4   {H264_B} {AAC}
mkv-h264-audio-early   mkv   {H264_B} {AAC}
ts-h264-audio-early    ts    {H264_B} {AAC}
webm-vp9-audio-early   webm  {VP9} {OPUS}
avi-mpeg4-audio-early  avi   {MPEG4} {PCM}
ogv-theora-audio-early ogv   {THEORA} {VORBIS}
""",
    -0.52,
)
apart(f"mp4-h264-audio-leads-little  mp4  {H264_B} {AAC}", -0.06)
apart(f"mkv-h264-audio-leads-little  mkv  {H264_B} {AAC}", -0.06)

# --- MPEG-TS and MPEG-PS: missing, repeated, jumping and restarting timestamps -----------------------------------


def stamps(
    name: str, base: str, change: ChangeStamps, change_audio: ChangeStamps | None = None, **details: Any
) -> None:
    """Register a transport or program stream with changed video timestamps, and changed audio timestamps if given."""
    suffix = Path(base).suffix[1:]

    def make(shelf: Shelf, out: Path) -> None:
        data = shelf.bytes(base)
        data = change_ts(data, VIDEO_PID, change) if suffix == "ts" else change_ps(data, 0xE0, change)
        if change_audio is not None:
            is_ts = suffix == "ts"
            data = change_ts(data, AUDIO_PID, change_audio) if is_ts else change_ps(data, 0xC0, change_audio)
        out.write_bytes(data)

    combination(name, suffix, **details)(make)


def moved(wanted: Callable[[int], bool], seconds: float) -> ChangeStamps:
    """Return a change that moves the timestamps of the PES packets whose number is wanted by so many seconds."""
    ticks = round(seconds * CLOCK)

    def change(k: int, pts: int | None, dts: int | None) -> tuple[int | None, int | None]:
        if not wanted(k):
            return pts, dts
        return (None if pts is None else pts + ticks), (None if dts is None else dts + ticks)

    return change


def without(wanted: Callable[[int], bool]) -> ChangeStamps:
    """Return a change that removes the timestamps of the PES packets whose number is wanted."""
    return lambda k, pts, dts: (None, None) if wanted(k) else (pts, dts)


for _name, _base, _which in (
    ("ts-h264-pts-one-missing", "h264.ts", lambda k: k == 20),
    ("ts-h264-pts-half-missing", "h264.ts", lambda k: k % 2 == 1),
    ("ts-h264-pts-third-missing", "h264.ts", lambda k: k % 3 == 1),
    ("ts-h264-pts-keys-only", "h264.ts", lambda k: k % 12 > 0),
    ("ts-h264-pts-first-missing", "h264.ts", lambda k: k == 0),
    ("ts-h264-nob-pts-half-missing", "h264-nob.ts", lambda k: k % 2 == 1),
    ("ts-h264-opengop-pts-one-missing", "h264-opengop.ts", lambda k: k == 20),
    ("ts-h264-opengop-pts-half-missing", "h264-opengop.ts", lambda k: k % 2 == 1),
    ("ts-hevc-pts-half-missing", "hevc-opengop.ts", lambda k: k % 2 == 1),
    ("ts-mpeg2-pts-one-missing", "mpeg2.ts", lambda k: k == 20),
    ("ts-mpeg2-pts-half-missing", "mpeg2.ts", lambda k: k % 2 == 1),
    ("vob-mpeg2-pts-one-missing", "mpeg2.vob", lambda k: k == 20),
    ("vob-mpeg2-pts-half-missing", "mpeg2.vob", lambda k: k % 2 == 1),
):
    # FFmpeg's parser of MPEG-2 fills timestamps in.
    stamps(_name, _base, without(_which), same_as=_base, reported="nothing" if "mpeg2" in _name else "damage")
stamps(
    "ts-h264-audio-pts-half-missing",
    "h264.ts",
    without(lambda k: False),
    without(lambda k: k % 2 == 1),
    same_as="h264.ts",
)
stamps("vob-mpeg2-gap", "mpeg2.vob", moved(lambda k: k >= 12, 2.0))


def moved_end(by: float) -> ChangeStamps:
    """Return a change that moves the timestamps of a TS from 1.44 s on, where a closed group begins."""

    def change(k: int, pts: int | None, dts: int | None) -> tuple[int | None, int | None]:
        assert pts is not None
        return moved(lambda _: pts >= TS_START + round(1.44 * CLOCK), by)(k, pts, dts)

    return change


TS_START = round(1.48 * CLOCK)  # ffmpeg's first frame with three B-frames

stamps("ts-h264-gap", "h264.ts", moved_end(2.0), moved_end(2.0))
stamps("ts-h264-gap-long", "h264.ts", moved_end(20.0), moved_end(20.0))
stamps("ts-h264-jump-back", "h264.ts", moved_end(-1.0), moved_end(-1.0), same_as="h264.ts", reported="damage")
stamps(
    "ts-h264-jump-back-far",
    "h264.ts",
    moved_end(-1000.0),
    moved_end(-1000.0),
    same_as="h264.ts",
    reported="damage",
)

# If the whole clock jumps inside a group, frames of both sides are interleaved in presentation order.
for _first, _by in ((30, -1000.0), (33, 1000.0), (38, -1.0), (47, -1000.0)):
    stamps(
        f"ts-h264-jump-inside-{_first}",
        "h264.ts",
        moved(lambda k, first=_first: k >= first, _by),
        same_as="h264.ts",
        audio=None,
        reported="damage",
    )
# Below 0 the clock wraps, and again a little later.
for _codec in ("h264", "mpeg2-nob"):
    stamps(
        f"ts-{_codec}-jump-below-zero",
        f"{_codec}.ts",
        moved_end(-3.0),
        moved_end(-3.0),
        same_as=f"{_codec}.ts",
        reported="damage",
    )


def repeated(k: int, pts: int | None, dts: int | None) -> tuple[int | None, int | None]:
    """Give each tenth frame the timestamps of the frame before."""
    assert pts is not None
    back = FRAME if k % 10 == 5 else 0
    return pts - back, None if dts is None else dts - back


stamps("ts-h264-pts-repeated", "h264-nob.ts", repeated, same_as="h264-nob.ts", reported="damage")
stamps("ts-mpeg2-pts-repeated", "mpeg2-nob.ts", repeated, same_as="mpeg2-nob.ts", reported="damage")

stamps(
    "ts-h264-pts-one-later",
    "h264.ts",
    lambda k, pts, dts: (None if pts is None else pts + FRAME * (k == 21), dts),
    same_as="h264.ts",
    reported="damage",
)
stamps(
    "ts-h264-audio-jumps-back",
    "h264.ts",
    without(lambda k: False),
    lambda k, pts, dts: (pts - CLOCK * 8 // 100 if pts is not None and pts > 2.9 * CLOCK else pts, dts),
    reported="damage",
)

for _name, _by in (("astray", 1000.0), ("late", 0.5), ("early", -0.5), ("astray-back", -1000.0)):
    stamps(
        f"ts-h264-pts-one-{_name}",
        "h264.ts",
        moved(lambda k: k == 20, _by),
        same_as="h264.ts",
        reported="damage",
    )
stamps(
    "ts-h264-audio-pts-one-astray",
    "h264.ts",
    without(lambda k: False),
    moved(lambda k: k == 5, 1000.0),
    same_as="h264.ts",
    reported="damage",
)
stamps("ts-h264-dts-missing", "h264.ts", lambda k, pts, dts: (pts, None), same_as="h264.ts")
stamps(
    "ts-h264-pts-all-but-first-missing",
    "h264-nob.ts",
    without(lambda k: k > 0),
    same_as="h264-nob.ts",
    reported="damage",
)

table(
    """
ts-h264-wraps          ts    -c copy -output_ts_offset 95441.2
m2ts-h264-wraps        m2ts  -c copy -output_ts_offset 95441.2
ts-h264-wraps-at-start ts    -c copy -muxdelay 0 -muxpreload 0 -output_ts_offset 95443.75
""",
    base="h264.mp4",
)


def joined(name: str, suffix: str, *options: str, restarts: bool = True, **details: Any) -> None:
    """Register recordings joined end to end with ``cat``: the base is split into as many as there are options."""
    count = len(options)
    edges = [round(COUNT * k / count) / FPS for k in range(count + 1)]

    def make(shelf: Shelf, out: Path) -> None:
        whole = b""
        for k in range(count):
            recording = recording_of(out, k)
            cut = f"-ss {edges[k]} -t {edges[k + 1] - edges[k]:.3f}"
            ffmpeg(cut, "-i", shelf.file("base"), options[k], recording)
            whole += recording.read_bytes()
        out.write_bytes(whole if restarts or suffix != "ts" else recounted(whole))

    if restarts:
        details = {"recordings": count, "reported": "damage", **details}
    combination(name, suffix, **details)(make)


for _name, _suffix, _options, _details in (
    ("ts-h264-joined", "ts", f"{H264_B} {AAC}", {}),
    ("ts-hevc-joined", "ts", f"{HEVC_OPEN} {AAC}", {}),
    ("ts-mpeg2-joined", "ts", f"{MPEG2} {MP2}", {}),
    ("m2ts-h264-joined", "m2ts", f"{H264_B} -c:a ac3", {}),
    ("mpg-mpeg1-joined", "mpg", f"-c:v mpeg1video -q:v 3 -bf 2 -g 12 {MP2}", {}),
    ("vob-mpeg2-joined", "vob", f"{MPEG2} -c:a ac3", {}),
    ("ts-aac-joined", "ts", f"-vn {AAC}", {"video": None}),
    ("ts-h264-joined-silent", "ts", f"{H264_B} -an", {"audio": None}),
    ("opus-chained", "opus", f"-vn {OPUS}", {"video": None}),
    ("ogg-vorbis-chained", "ogg", f"-vn {VORBIS}", {"video": None}),
    ("ogg-flac-chained", "oga", "-vn -c:a flac", {"video": None}),
    ("ogv-theora-chained", "ogv", f"{THEORA} -an", {"audio": None}),
    ("h264-raw-joined", "h264", f"{H264_B} -an", {"audio": None, "restarts": False}),
    ("m4v-raw-joined", "m4v", f"{MPEG4} -an -f m4v", {"audio": None}),
    ("adts-aac-joined", "aac", f"-vn {AAC}", {"video": None, "restarts": False}),
    (
        "mp3-joined",
        "mp3",
        f"-vn {MP3} -write_xing 0",
        {"video": None, "restarts": False, "reported": "damage"},
    ),
):
    joined(_name, _suffix, _options, _options, **_details)
joined("ts-h264-joined-three", "ts", *[f"{H264_B} {AAC}"] * 3)
# With Ogg's usual pages of a second, ffmpeg would count on through recordings of one page.
joined("opus-chained-four", "opus", *[f"-vn {OPUS} -page_duration 100000"] * 4, video=None)
joined("ogg-vorbis-chained-four", "ogg", *[f"-vn {VORBIS} -page_duration 100000"] * 4, video=None)
joined("webm-vp9-joined", "webm", *[f"{VP9} {OPUS}"] * 2)
# A jump ahead by up to a minute and twice the file's length is a gap; a longer jump begins another recording.
_later = [f"{H264_B} {AAC}", f"{H264_B} {AAC} -output_ts_offset"]
joined("ts-h264-joined-later", "ts", _later[0], f"{_later[1]} 20", recordings=1)
joined("ts-h264-joined-much-later", "ts", _later[0], f"{_later[1]} 1000")
joined("ts-h264-joined-late-between", "ts", _later[0], f"{_later[1]} 1000", _later[0])
joined(
    "ts-mpeg2-joined-late-first",
    "ts",
    *[f"{MPEG2} {MP2} -output_ts_offset {seconds}" for seconds in (1000, 9000, 0, 9000)],
)
joined("ts-h264-joined-four", "ts", *[f"{H264_B} {AAC}"] * 4)
joined("mkv-h264-joined-much-later", "mkv", _later[0], f"{_later[1]} 1000")
# Of these formats, ffmpeg reads only the first recording; the package must report that.
joined("flv-h264-joined", "flv", *[f"{H264_B} {AAC}"] * 2, recordings=1)
joined("asf-wmv2-joined", "wmv", *["-c:v wmv2 -q:v 3 -c:a wmav2"] * 2, recordings=1)
joined("avi-mpeg4-joined", "avi", *[f"{MPEG4} {PCM}"] * 2, restarts=False)  # read as one
joined("aiff-pcm-joined", "aiff", "-vn", "-vn", recordings=1, video=None)
joined("caf-alac-joined", "caf", *["-vn -c:a alac"] * 2, recordings=1, video=None)
joined("w64-pcm-joined", "w64", "-vn", "-vn", recordings=1, video=None)
joined("wav-pcm-joined", "wav", "-vn", "-vn", recordings=1, video=None)
joined("wav-rf64-joined", "wav", *["-vn -rf64 always"] * 2, recordings=1, video=None)
joined("voc-pcm-joined", "voc", *["-vn -c:a pcm_u8"] * 2, recordings=1, video=None)
joined("tta-joined", "tta", "-vn", "-vn", recordings=1, video=None)
joined("wv-joined", "wv", *["-vn -c:a wavpack"] * 2, recordings=1, video=None)
joined("wtv-mpeg2-joined", "wtv", *[f"{MPEG2} {MP2}"] * 2, recordings=1)
joined("swf-flv1-joined", "swf", *[f"-c:v flv -q:v 3 -ar 44100 {MP3}"] * 2, recordings=1)
joined("apng-joined", "apng", "-an", "-an", recordings=1, audio=None)
joined("y4m-joined", "y4m", "-an", "-an", recordings=1, audio=None)
joined("ogv-theora-vorbis-chained", "ogv", *[f"{THEORA} {VORBIS}"] * 2, recordings=1)

# --- changes in midstream ----------------------------------------------------------------------------------------

LARGER = "-vf scale=384:128:flags=neighbor"
LATER = tuple(f"-output_ts_offset {10 + seconds}" for seconds in (0, round(COUNT / 2) / FPS))
for _name, _first, _second in (
    ("ts-h264-size", f"{H264_B} {AAC}", f"{LARGER} {H264_B} {AAC}"),
    ("ts-h264-audio-mono", f"{H264_B} {AAC}", f"{H264_B} {AAC} -ac 1"),
    ("ts-h264-audio-surround", f"{H264_B} {AAC}", f"{H264_B} {AAC} -ac 6"),
):
    joined(_name, "ts", f"{_first} {LATER[0]}", f"{_second} {LATER[1]}", restarts=False)
# libavcodec drops the last frame before the size changes.
_halves = f"{MPEG2} {MP2} {LATER[0]}", f"{LARGER} {MPEG2} {MP2} {LATER[1]}"
joined("ts-mpeg2-size", "ts", *_halves, restarts=False, reported="damage")
# ffmpeg counts samples of the second rate by the first rate, but not within one recording.
joined(
    "ts-h264-audio-rate",
    "ts",
    f"{H264_B} {AAC} {LATER[0]}",
    f"{H264_B} {AAC} -ar 44100 {LATER[1]}",
)
joined("ts-h264-size-restarts", "ts", f"{H264_B} {AAC}", f"{LARGER} {H264_B} {AAC}")
joined("h264-raw-size", "h264", f"{H264_B} -an", f"{LARGER} {H264_B} -an", audio=None, restarts=False)

# --- recordings cut in the middle --------------------------------------------------------------------------------


def cut(name: str, base: str, first: int, **details: Any) -> None:
    """Register a transport stream that begins with frame ``first`` in decoding order."""

    def make(shelf: Shelf, out: Path) -> None:
        out.write_bytes(cut_ts(shelf.bytes(base), first))

    combination(name, "ts", **details)(make)


cut("ts-h264-from-inside", "h264.ts", 5, reported="damage")
cut("ts-mpeg2-from-inside", "mpeg2.ts", 5, reported="damage")
cut("ts-h264-from-key", "h264.ts", 24)
cut("ts-hevc-from-inside", "hevc-opengop.ts", 24, reported="damage")
cut("ts-h264-from-open-group", "h264-opengop.ts", 21)
cut("ts-hevc-from-open-group", "hevc-opengop.ts", 21)
cut("ts-mpeg2-from-open-group", "mpeg2.ts", 22)


@combination("ts-h264-packets-lost", "ts", reported="damage")
def _(shelf: Shelf, out: Path) -> None:
    data = shelf.bytes("h264.ts")
    starts = [at for at, _ in ts_starts(data, VIDEO_PID)]
    out.write_bytes(data[: starts[30]] + data[starts[36] :])  # from inside a group to the next


cut("ts-h264-refresh-from-inside", "h264-refresh.ts", 30, reported="damage")

for _name, _source, _reported in (
    ("mp4-h264-frag-cut-off", "h264-fragments.mp4", "damage"),
    ("mkv-h264-cut-off", "h264.mkv", "damage"),
    ("ts-h264-cut-off", "h264.ts", "nothing"),
    ("webm-vp9-cut-off", "vp9.webm", "damage"),
    ("avi-mjpeg-cut-off", "mjpeg.avi", "damage"),
    ("flv-h264-cut-off", "h264.flv", "damage"),
    ("ogv-theora-cut-off", "theora.ogv", "nothing"),
    ("vob-mpeg2-cut-off", "mpeg2.vob", "damage"),
):

    def _cut_off(shelf: Shelf, out: Path, source: str = _source) -> None:
        data = shelf.bytes(source)
        out.write_bytes(data[: round(0.6 * len(data))])

    # Files whose header states no length may count as whole.
    combination(_name, Path(_source).suffix[1:], reported=_reported)(_cut_off)


# --- AVI: dropped and not-coded frames, packed B-frames ----------------------------------------------------------

DROPPED = "-vf select='if(between(n,20,49),not(mod(n,5)),1)' -fps_mode vfr"

table(
    f"""
avi-mjpeg-dropped      avi   {DROPPED} -c:v mjpeg -q:v 3 {PCM}
avi-mpeg4-dropped      avi   {DROPPED} {MPEG4} {PCM}
avi-xvid-dropped       avi   {DROPPED} {XVID} {MP3}
avi-h264-dropped       avi   {DROPPED} {H264} -bf 0 -g 12 {MP3}
avi-mpeg4-bframes      avi   {MPEG4} -bf 2 {PCM}
avi-xvid-packed        avi   {XVID} -bf 2 {PCM}
avi-h264-bframes       avi   {H264_B} {PCM}
avi-mpeg2-bframes      avi   {MPEG2} {MP2}
avi-mpeg4-15fps        avi   -r 15 {MPEG4} {PCM}
avi-mpeg4-vbr-mp3      avi   {MPEG4} {MP3} -q:a 4
"""
)


def with_frames(name: str, base: str, change: Callable[[list[bytes]], list[bytes]], **details: Any) -> None:
    """Register an AVI whose video chunks are changed."""

    def make(shelf: Shelf, out: Path) -> None:
        data = shelf.bytes(base)
        out.write_bytes(change_avi(data, change(avi_frames(data))))

    combination(name, "avi", **details)(make)


def each(change: Callable[[int, bytes], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    """Return a function that changes every chunk, given its number."""
    return lambda chunks: [change(k, chunk) for k, chunk in enumerate(chunks)]


INCREMENT_BITS = 5  # of MPEG-4's time within a second, at 25 fps


def is_frozen(k: int, frame: bytes) -> bool:
    """Return whether a frame of frozen.avi, or of frozen.mkv, repeats the frame before and is no key frame."""
    return k % 10 in range(6, 10) and frame_type(frame) == "P"


def as_not_coded(k: int, frame: bytes) -> bytes:
    return not_coded(frame, INCREMENT_BITS) if is_frozen(k, frame) else frame


def with_empty_chunks(frames: list[bytes]) -> list[bytes]:
    """Return packed chunks, each tenth of them followed by an empty one."""
    chunks = packed(frames, INCREMENT_BITS)
    return [c for k, chunk in enumerate(chunks) for c in ([chunk, b""] if k % 10 == 9 else [chunk])]


with_frames("avi-mpeg4-not-coded", "frozen.avi", each(as_not_coded))
with_frames("avi-mpeg4-empty-chunks", "frozen.avi", each(lambda k, p: b"" if is_frozen(k, p) else p))
with_frames("avi-mpeg4-one-byte", "frozen.avi", each(lambda k, p: b"\x7f" if is_frozen(k, p) else p))
with_frames("avi-mjpeg-empty-chunks", "mjpeg.avi", each(lambda k, p: b"" if k % 7 in (3, 4) else p))
with_frames("avi-mjpeg-empty-first", "mjpeg.avi", each(lambda k, p: b"" if k in (0, 1) else p))
with_frames("avi-mpeg4-packed", "mpeg4-b.avi", lambda frames: packed(frames, INCREMENT_BITS))
with_frames("avi-mpeg4-packed-dropped", "mpeg4-b.avi", with_empty_chunks)


for _name, _stream, _ticks in (("video", 0, 10), ("audio", 1, 24_000)):

    def _late_stream(shelf: Shelf, out: Path, stream: int = _stream, ticks: int = _ticks) -> None:
        out.write_bytes(start_later(shelf.bytes("mjpeg.avi"), stream, ticks))

    combination(f"avi-mjpeg-{_name}-starts-late", "avi")(_late_stream)


@combination("avi-mpeg4-no-index", "avi")
def _(shelf: Shelf, out: Path) -> None:
    data = shelf.bytes("mpeg4.avi")
    data = change_avi(data, avi_frames(data))
    out.write_bytes(data[: data.rindex(b"idx1")])


def remuxed(
    name: str, suffix: str, base: str, change: Callable[[int, av.Packet[Any]], bytes | None], **details: Any
) -> None:
    """Register a file whose video packets have other bytes, in decoding order; None drops a packet."""

    def make(shelf: Shelf, out: Path) -> None:
        with av.open(str(shelf.file(base))) as source, av.open(str(out), "w") as target:
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
            serial = 0
            for packet in source.demux():
                if packet.dts is None:
                    continue
                index = packet.stream.index
                if index == source.streams.video[0].index:
                    data = change(serial, packet)
                    serial += 1
                    if data is None:
                        continue
                    new = av.Packet(data)
                    new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
                    new.time_base, new.is_keyframe = packet.time_base, packet.is_keyframe
                    packet = new
                packet.stream = streams[index]
                target.mux(packet)

    combination(name, suffix, **details)(make)


for _suffix in ("mkv", "mp4"):
    remuxed(f"{_suffix}-mpeg4-not-coded", _suffix, "frozen.mkv", lambda k, p: as_not_coded(k, bytes(p)))
remuxed(
    "mkv-h264-from-inside", "mkv", "h264.mkv", lambda k, p: None if k < 5 else bytes(p), reported="damage"
)
remuxed(
    "mkv-h264-frames-missing",
    "mkv",
    "h264-nob.mp4",
    lambda k, p: None if 30 <= k < 36 else bytes(p),
)

# --- interlaced, telecine, display matrices, sizes ---------------------------------------------------------------

INTERLACED = "-flags +ilme+ildct -top 1"
table(
    f"""
ts-mpeg2-interlaced    ts    {MPEG2} {INTERLACED} {MP2}
vob-mpeg2-interlaced   vob   {MPEG2} {INTERLACED} {MP2}
mp4-h264-interlaced    mp4   {H264_B} {INTERLACED} {AAC}
ts-h264-interlaced     ts    {H264_B} {INTERLACED} {AAC}
mkv-mpeg4-interlaced   mkv   {MPEG4} -bf 2 {INTERLACED} {AAC}
mp4-h264-190x62        mp4   -vf scale=190:62 {H264_B} {AAC}
mkv-h264-191x63        mkv   -vf scale=191:63,format=yuv444p {H264_B.replace("yuv420p", "yuv444p")} {AAC}
webm-vp9-191x63        webm  -vf scale=191:63 {VP9} {OPUS}
webm-vp8-191x63        webm  -vf scale=191:63 {VP8} {OPUS}
mkv-ffv1-191x63        mkv   -vf scale=191:63,format=yuv444p -c:v ffv1 -c:a flac
avi-mjpeg-191x63       avi   -vf scale=191:63 -c:v mjpeg -q:v 3 {PCM}
mp4-mpeg4-190x62       mp4   -vf scale=190:62 {MPEG4} -bf 2 {AAC}
mp4-h264-anamorphic    mp4   -vf setsar=16/11 {H264_B} {AAC}
ts-hevc-fields         ts    {HEVC}:keyint=12:bframes=3:interlace=tff {AAC}
mp4-hevc-10bit         mp4   {HEVC}:keyint=12:bframes=3 -pix_fmt yuv420p10le {AAC}
"""
)


FIELD = 0.5 / FPS  # error of the demuxer's guess of when the last frame of a raw stream is shown


@combination("m2v-raw-telecine", "m2v", audio=None, rounding=FIELD)
def _(shelf: Shelf, out: Path) -> None:
    out.write_bytes(telecined(shelf.bytes("mpeg2.m2v")))


for _suffix in ("vob", "ts", "mkv"):

    def _telecined(shelf: Shelf, out: Path) -> None:
        raw = out.with_suffix(".m2v")
        raw.write_bytes(telecined(shelf.bytes("mpeg2.m2v")))
        ffmpeg("-fflags +genpts -i", raw, "-i", shelf.file("base"), f"-map 0:v -map 1:a -c:v copy {MP2}", out)

    combination(f"{_suffix}-mpeg2-telecine", _suffix)(_telecined)


def grey_images() -> list[np.ndarray]:
    """Return the base's images in grey."""
    return [(16 + numbered_frame(n).mean(axis=-1) * 219 / 255).astype(np.uint8) for n in range(COUNT)]


@combination("h264-raw-fields", "h264", audio=None)
def _(shelf: Shelf, out: Path) -> None:
    out.write_bytes(b"".join(h264_fields(grey_images())))


@combination("m2v-raw-fields", "m2v", audio=None)
def _(shelf: Shelf, out: Path) -> None:
    out.write_bytes(mpeg2_fields(grey_images()))


def in_fields(out: Path, *, together: bool) -> Path:
    """Write an MP4 of H.264 fields beside ``out``, one per packet, or two with ``together``; return its path."""
    packets = h264_fields(grey_images())
    if together:
        packets = [first + second for first, second in zip(packets[::2], packets[1::2], strict=True)]
    raw, path = out.with_suffix(".h264"), out.with_suffix(".fields.mp4")
    raw.write_bytes(b"".join(packets))
    duration = CLOCK * COUNT // FPS // len(packets)
    with av.open(str(raw)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for k, data in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = k * duration
            packet.duration, packet.time_base = duration, Fraction(1, CLOCK)
            packet.is_keyframe = k % (len(packets) // COUNT * 12) == 0
            packet.stream = stream
            target.mux(packet)
    return path


for _suffix, _together in (("ts", False), ("mp4", False), ("mkv", False), ("flv", False), ("mkv", True)):

    def _in_fields(shelf: Shelf, out: Path, together: bool = _together) -> None:
        path = in_fields(out, together=together)
        ffmpeg("-i", path, "-i", shelf.file("base"), f"-map 0:v -map 1:a -c:v copy {AAC}", out)

    _name = f"{_suffix}-h264-fields{'-together' if _together else ''}"
    combination(_name, _suffix, rounding=MILLISECOND if _suffix in ("mkv", "flv") else 0.0)(_in_fields)

for _suffix in ("vob", "ts", "mkv"):

    def _mpeg2_in_fields(shelf: Shelf, out: Path) -> None:
        raw = out.with_suffix(".m2v")
        raw.write_bytes(mpeg2_fields(grey_images()))
        ffmpeg("-fflags +genpts -i", raw, "-i", shelf.file("base"), f"-map 0:v -map 1:a -c:v copy {MP2}", out)

    combination(f"{_suffix}-mpeg2-fields", _suffix)(_mpeg2_in_fields)

_ONE, _UNIT = 1 << 16, 1 << 30
MATRICES = {
    # Debian's ffmpeg neither writes nor reads mirroring in Matroska: test_decode.py has it.
    # The filter applied to the frames before they are encoded, and the matrix that undoes it.
    "upright": ("null", (_ONE, 0, 0, 0, _ONE, 0, 0, 0, _UNIT)),
    "mirrored": ("hflip", (-_ONE, 0, 0, 0, _ONE, 0, 192 * _ONE, 0, _UNIT)),
    "flipped": ("vflip", (_ONE, 0, 0, 0, -_ONE, 0, 0, 64 * _ONE, _UNIT)),
    "turned-180": ("hflip,vflip", (-_ONE, 0, 0, 0, -_ONE, 0, 192 * _ONE, 64 * _ONE, _UNIT)),
    "turned-90": ("transpose=cclock", (0, _ONE, 0, -_ONE, 0, 0, 64 * _ONE, 0, _UNIT)),
    "turned-270": ("transpose=clock", (0, -_ONE, 0, _ONE, 0, 0, 0, 192 * _ONE, _UNIT)),
    "transposed": ("transpose=cclock_flip", (0, _ONE, 0, _ONE, 0, 0, 0, 0, _UNIT)),
    "antitransposed": ("transpose=clock_flip", (0, -_ONE, 0, -_ONE, 0, 0, 64 * _ONE, 192 * _ONE, _UNIT)),
}
for _name, (_filter, _matrix) in MATRICES.items():

    def _turned(shelf: Shelf, out: Path, chain: str = _filter, matrix: tuple[int, ...] = _matrix) -> None:
        ffmpeg("-i", shelf.file("base"), f"-vf {chain} {H264} -g 12 -an", out)
        out.write_bytes(set_matrix(out.read_bytes(), matrix))

    for _suffix in ("mp4", "mov"):
        combination(f"{_suffix}-h264-{_name}", _suffix, audio=None)(_turned)

# An SEI message instead of the container's matrix. FFmpeg applies it to its own frame only: to all of them with -g 1.
for _suffix in ("mp4", "mkv"):
    for _name, _filter, _how in (
        ("turned", "transpose=cclock", "rotate=270"),
        ("mirrored", "hflip", "flip=horizontal"),
    ):
        _sei = f"-bsf:v h264_metadata=display_orientation=insert:{_how}"
        table(f"{_suffix}-h264-sei-{_name}  {_suffix}  -vf {_filter} {H264} -g 1 -an {_sei}", audio=None)

# --- more streams, and holes in the audio ------------------------------------------------------------------------

HOLE = "-af aselect='not(between(t,1,1.6))'"
table(
    f"""
mkv-h264-audio-hole    mkv   {H264_B} {HOLE} {AAC}
mp4-h264-audio-hole    mp4   {H264_B} {HOLE} {AAC}
ts-h264-audio-hole     ts    {H264_B} {HOLE} {AAC}
flv-h264-audio-hole    flv   {H264_B} {HOLE} {AAC}
mov-h264-audio-hole    mov   {H264_B} {HOLE} {PCM}
webm-vp9-audio-hole    webm  {VP9} {HOLE} {OPUS}
vob-mpeg2-audio-hole   vob   {MPEG2} {HOLE} {MP2}
mp4-h264-audio-short   mp4   {H264_B} -af atrim=0:1.5 {AAC}
mkv-h264-video-short   mkv   -vf trim=0:1.48 {H264_B} {AAC}
mp4-h264-mono          mp4   {H264_B} {AAC} -ac 1
mp4-h264-surround      mp4   {H264_B} {AAC} -ac 6
mp4-h264-7.1           mp4   {H264_B} {AAC} -ac 8
mp4-h264-8khz          mp4   {H264_B} {AAC} -ar 16000
"""
)
table(f"mka-aac-hole  mka  -vn {HOLE} {AAC}", video=None)


def with_input(name: str, suffix: str, second: str, options: str, **details: Any) -> None:
    """Register a file made of the base and another input: ``srt`` (subtitles of 25 s), ``png`` or ffmpeg's options."""

    def make(shelf: Shelf, out: Path) -> None:
        extra: list[str | Path] = [second]
        if second == "srt":
            extra = ["-i", out.with_suffix(".srt")]
            out.with_suffix(".srt").write_text(SUBTITLES)
        elif second == "png":
            extra = ["-i", shelf.file("cover.png")]
        ffmpeg("-i", shelf.file("base"), *extra, options, out)

    combination(name, suffix, **details)(make)


SUBTITLES = "1\n00:00:00,500 --> 00:00:02,000\nhello\n\n2\n00:00:20,000 --> 00:00:25,000\nlate\n"
LONG_SINE = "-f lavfi -i sine=440:d=9"
with_input("mkv-h264-subtitles", "mkv", "srt", f"-map 0 -map 1 {H264_B} {AAC} -c:s srt")
with_input("mp4-h264-subtitles", "mp4", "srt", f"-map 0 -map 1 {H264_B} {AAC} -c:s mov_text")
with_input("webm-vp9-subtitles", "webm", "srt", f"-map 0 -map 1 {VP9} {OPUS} -c:s webvtt")
for _suffix, _options in (
    ("mp4", f"{H264_B} {AAC}"),
    ("mkv", f"{H264_B} {AAC}"),
    ("ts", f"{H264_B} {AAC}"),
    ("avi", f"{MPEG4} {PCM}"),
):
    with_input(f"{_suffix}-two-audio", _suffix, LONG_SINE, f"-map 0 -map 1 {_options}")
with_input(
    "mp4-h264-cover", "mp4", "png", f"-map 0 -map 1 {H264_B} {AAC} -c:v:1 png -disposition:v:1 attached_pic"
)
with_input(
    "mp3-cover", "mp3", "png", f"-map 0:a -map 1 {MP3} -c:v png -disposition:v attached_pic", video=None
)
table(
    f"""
mov-h264-timecode      mov   {H264_B} {PCM} -timecode 01:00:00:00
mxf-mpeg2-timecode     mxf   {MPEG2} -qmin 1 {PCM} -timecode 10:00:00:00
mkv-h264-two-videos    mkv   -map 0 -map 0:v {H264_B} -s:v:1 96x32 -disposition:v:0 default {AAC}
ts-h264-two-videos     ts    -map 0 -map 0:v {H264_B} -s:v:1 96x32 {AAC}
"""
)
