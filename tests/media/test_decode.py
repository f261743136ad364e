import json
import os
import struct
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from container_bytes import CLOCK, VIDEO_PID, change_ogg, change_ts, reverse_chunks, set_matrix, ts_starts
from make_media import make_media, numbered_frame, read_number, sine

from crisscross_zoo.errors import MediaNotFoundError, NoStreamError, UnreadableMediaError
from crisscross_zoo.media import decode
from crisscross_zoo.media.audio import MonoAudio, channels_of, frame_of
from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.frames import DecodingPlan, RgbConverter
from crisscross_zoo.media.packets import AudioBreak, read_packets
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment

FRAME_PICKS = json.loads((Path(__file__).parents[1] / "golden" / "clip_selection.json").read_text())[
    "frame_pick"
]

CODECS = {
    "h264.mp4": ("libx264", "aac", {"bf": "3", "b_strategy": "0"}),
    "h264-open-gop.mkv": (
        "libx264",
        "libopus",
        {"bf": "3", "x264-params": "open-gop=1:keyint=12:log-level=none"},
    ),
    "h264-10bit.mkv": ("libx264", None, {"bf": "2"}),
    "h264.ts": ("libx264", "aac", {"bf": "2"}),
    "h264.flv": ("libx264", "aac", {}),
    "h264.avi": ("libx264", "libmp3lame", {"bf": "0"}),
    "raw.h264": ("libx264", None, {"bf": "2"}),
    "hevc.mp4": ("libx265", "aac", {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}),
    "vp8.webm": ("libvpx", "libopus", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "vp9.webm": ("libvpx-vp9", "libopus", {"auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", "aac", {"preset": "8", "crf": "10", "svtav1-params": "keyint=12"}),
    "mpeg4.avi": ("mpeg4", "libmp3lame", {"bf": "2"}),
    "mpeg4.mp4": ("mpeg4", "aac", {"bf": "2"}),
    "mpeg2.mkv": ("mpeg2video", "mp2", {"bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", "mp2", {"bf": "2"}),
    "ffv1.mkv": ("ffv1", "flac", {}),
    "mjpeg.mkv": ("mjpeg", "pcm_s16le", {}),
}


def no_damage(phrase):
    raise AssertionError(phrase)


def frame_numbers(path, times, **kwargs):
    """Return the number of the frame shown at each time."""
    numbers = []
    for count, frame in read_frames(scan(path), np.asarray(times, float), on_damage=no_damage, **kwargs):
        numbers += [read_number(frame)] * count
    return numbers


def remuxed(source, target, first=0):
    """Copy a file's video packets from number ``first`` on to another container."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in [p for p in old.demux(video=0) if p.size][first:]:
            packet.stream = stream
            new.mux(packet)
    return target


def wave(path, rate=16_000, on_damage=no_damage):
    """Return the whole audio from time 0, with silence in its gaps."""
    pieces = list(read_audio(scan(path), rate, on_damage=on_damage))
    whole = np.zeros(max(first + len(s) for first, s in pieces), np.int16)
    for first, samples in pieces:
        whole[first : first + len(samples)] = samples
    return whole


@pytest.mark.parametrize(
    "case", FRAME_PICKS, ids=lambda c: f"{c['source_fps']}fps-{c['start']}s-{c['duration']}s"
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_are_picked_as_the_reference_picks_them(tmp_path, case, suffix):
    fps = Fraction(case["source_fps"])
    path = make_media(
        tmp_path / f"a{suffix}",
        fps=fps,
        seconds=case["source_frames"] / fps,
        audio=None,
        options={"preset": "ultrafast"},
    )
    times = case["start"] + np.arange(len(case["picked"])) / case["target_fps"]
    assert frame_numbers(path, times) == case["picked"]


@pytest.fixture(scope="module")
def codec_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codecs")
    for name, (video, audio, options) in CODECS.items():
        pix_fmt = {"h264-10bit.mkv": "yuv420p10le", "mjpeg.mkv": "yuvj420p"}.get(name, "yuv420p")
        rate = 48_000 if audio == "libopus" else 44_100
        kind = {"raw.h264": "h264"}.get(name)
        make_media(
            folder / name, seconds=3, video=video, audio=audio, options=options, pix_fmt=pix_fmt, sample_rate=rate,
            container_format=kind,
        )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_gives_the_frame_of_each_time(codec_files, name):
    times = np.arange(0, 3, 1 / 16)
    late = (
        name == "h264.avi"
    )  # its muxer leaves a chunk empty after the first: that frame is shown twice as long
    assert frame_numbers(codec_files / name, times) == [max(0, int(t * 25 + 1e-6) - late) for t in times]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "times", [np.arange(0, 3, 1 / 16), [0.7, 0.75, 1.9], [2.5], [0.0], [0.44, 0.48, 0.52, 0.96]]
)
def test_frames_are_the_same_bytes_as_when_all_packets_are_decoded(codec_files, name, times, monkeypatch):
    media = scan(codec_files / name)

    def decoded():
        return [
            (n, p.tobytes()) for n, p in read_frames(media, np.asarray(times, float), on_damage=no_damage)
        ]

    fast = decoded()
    monkeypatch.setattr(decode, "INDEXED_FORMATS", frozenset())
    assert fast == decoded()


def test_packets_no_clip_needs_are_not_decoded(codec_files, monkeypatch):
    media = scan(codec_files / "h264.mp4")
    plan = DecodingPlan(media.video, np.array([2.5]))
    assert plan.needed.sum() == 1
    assert 0 < plan.decode.sum() <= 24
    assert plan.skips


def test_variable_frame_rates_follow_the_timestamps(tmp_path):
    ticks = [0, 40, 400, 410, 900, 1500, 1540]
    path = make_media(tmp_path / "vfr.mkv", frame_ticks=ticks, audio=None, fps=25)
    times = np.array([0.0, 0.039, 0.05, 0.399, 0.402, 0.5, 0.95, 1.499, 1.51, 1.6])
    assert frame_numbers(path, times) == [0, 0, 1, 1, 2, 3, 4, 4, 5, 6]


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotated_video_is_turned_upright(tmp_path, rotation, turns):
    path = make_media(tmp_path / "r.mp4", rotation=rotation, audio=None, seconds=0.4)
    ((_, frame),) = list(read_frames(scan(path), np.array([0.2]), on_damage=no_damage))
    assert frame.shape[:2] == ((192, 64) if turns % 2 else (64, 192))
    assert read_number(np.rot90(frame, -turns)) == 5


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("right", [-1, 1])
@pytest.mark.parametrize("down", [-1, 1])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_mirrored_video_is_turned_upright(tmp_path, suffix, transpose, right, down):
    source = make_media(tmp_path / "source.mp4", audio=None, seconds=0.4)
    (_, plain), *_ = read_frames(scan(source), np.array([0.2]), on_damage=no_damage)
    axes = [(0, right), (down, 0)] if transpose else [(right, 0), (0, down)]
    one = 1 << 16
    matrix = (*(one * v for v in axes[0]), 0, *(one * v for v in axes[1]), 0, 0, 0, 1 << 30)
    source.write_bytes(set_matrix(source.read_bytes(), matrix))
    path = remuxed(source, tmp_path / f"turned{suffix}")
    ((_, frame),) = read_frames(scan(path), np.array([0.2]), on_damage=no_damage)
    # A stored pixel (x, y) is shown at (a x + c y, b x + d y); by pixel, not as decode.py computes it.
    height, width = plain.shape[:2]
    y, x = np.mgrid[:height, :width]
    shown_x, shown_y = (axes[0][k] * x + axes[1][k] * y for k in (0, 1))
    expected = np.empty((np.ptp(shown_y) + 1, np.ptp(shown_x) + 1, 3), np.uint8)
    expected[shown_y - shown_y.min(), shown_x - shown_x.min()] = plain
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.swapaxes(0, 1)),
        (6, lambda p: np.rot90(p, 1)),
        (7, lambda p: p.swapaxes(0, 1)[::-1, ::-1]),
        (8, lambda p: np.rot90(p, -1)),
    ],
)
def test_a_photo_is_turned_as_its_exif_states(tmp_path, orientation, stored):
    pixels = np.ascontiguousarray(stored(numbered_frame(0b101100000001)))
    context = av.CodecContext.create("mjpeg", "w")
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt, context.time_base = "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    jpeg = b"".join(bytes(p) for p in (*context.encode(frame), *context.encode(None)))
    tag = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + tag + bytes(4)
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    assert frame_numbers(path, [0.0]) == [0b101100000001]


def test_odd_sizes_keep_every_pixel(tmp_path):
    path = make_media(
        tmp_path / "odd.mkv", size=(193, 67), video="ffv1", pix_fmt="yuv444p", audio=None, seconds=0.2
    )
    ((_, frame),) = list(read_frames(scan(path), np.array([0.1]), on_damage=no_damage))
    assert frame.shape == (67, 193, 3)
    assert np.abs(frame.astype(int) - numbered_frame(2, 193, 67)).max() <= 4


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux only")
def test_conversion_to_rgb_starts_no_thread(tmp_path):
    with av.open(str(path := make_media(tmp_path / "v.mp4", audio=None, seconds=0.4))) as container:
        frames = list(container.decode(video=0))
    convert, threads = RgbConverter(scan(path).video), len(os.listdir("/proc/self/task"))
    assert [read_number(convert(frame)) for frame in frames] == list(range(len(frames)))
    assert len(os.listdir("/proc/self/task")) == threads


def test_time_zero_is_the_first_frame(tmp_path):
    path = make_media(tmp_path / "ts.ts", seconds=2)  # MPEG-TS starts late by itself
    media = scan(path)
    assert media.video.origin > 0.01
    assert media.video.span == pytest.approx((0.0, 2.0), abs=1e-3)
    assert frame_numbers(path, [0.0, 1.0]) == [0, 25]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_late_audio_keeps_its_distance(tmp_path, suffix):
    path = make_media(
        tmp_path / f"late{suffix}", seconds=3, audio_start=1.5, audio_seconds=1.5, sample_rate=48_000
    )
    media = scan(path)
    assert media.video.span == pytest.approx((0.0, 3.0), abs=0.01)
    assert media.audio.span == pytest.approx((1.5, 3.0), abs=0.05)
    heard = np.abs(wave(path)) > 500
    assert np.flatnonzero(heard)[0] / 16_000 == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_late_video_keeps_its_distance(tmp_path, suffix):
    path = make_media(tmp_path / f"late{suffix}", seconds=2, video_start=1.0, audio_seconds=3)
    media = scan(path)
    # FFmpeg 7 writes Matroska with both streams moved by AAC's delay, 23 ms, so that nothing is before 0.
    assert media.video.span == pytest.approx((1.0, 3.0), abs=0.03)
    assert media.audio.span == pytest.approx((0.0, 3.0), abs=0.05)
    assert frame_numbers(path, [0.0, 1.0, 1.51]) == [0, 0, 12]


def test_codec_delay_does_not_move_the_video(tmp_path):
    path = make_media(tmp_path / "delay.mkv", seconds=1)  # AAC starts 23 ms early
    assert scan(path).video.origin == 0.0
    assert scan(path).audio.span[0] == 0.0


def test_files_without_a_stated_duration_are_measured(tmp_path):
    path = make_media(tmp_path / "live.mkv", seconds=2, container_options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert scan(path).duration == pytest.approx(2.0, abs=0.05)
    assert scan(path).damage == ()


def test_stereo_and_surround_are_averaged_as_ffmpeg_does_in_16_bit(tmp_path):
    left = sine(1.0, 16_000, 2)
    left[:, 1] = 0
    path = make_media(tmp_path / "left.wav", video=None, audio="pcm_s16le", sample_rate=16_000, samples=left)
    assert np.abs(wave(path).astype(int) - left[:, 0] // 2).max() <= 1
    everywhere = sine(1.0, 16_000, 6)
    path = make_media(
        tmp_path / "5.1.wav",
        video=None,
        audio="pcm_s16le",
        sample_rate=16_000,
        samples=everywhere,
        layout="5.1",
    )
    ratio = np.abs(wave(path)).max() / everywhere.max()
    assert 0.7 < ratio <= 1.01  # normalised: six equal channels do not add up to more than one


def test_eight_channels_are_averaged(tmp_path):
    rate = 48_000
    path = make_media(
        tmp_path / "a.m4a", video=None, layout="7.1", sample_rate=rate, samples=sine(2.0, rate, 8)
    )
    whole = wave(path)
    assert np.abs(whole[8000:24_000]).max() == pytest.approx(0.3 * 32767, rel=0.1)
    _, samples = read_moment(scan(path), times=None, audio=(1.0, 8000), sample_rate=16_000)
    assert np.abs(samples.astype(int) - whole[16_000:24_000]).max() <= 3


@pytest.mark.parametrize("form", ["s16p", "fltp", "s16"])
@pytest.mark.parametrize(("layout", "channels"), [("7.1", 8), ("hexadecagonal", 16), ("stereo", 2)])
def test_a_few_samples_of_many_channels_are_not_lost(tmp_path, form, layout, channels):
    track = scan(make_media(tmp_path / "a.wav", video=None, audio="pcm_s16le", sample_rate=48_000)).audio
    values = np.full(
        (channels, 6), 0.25 if form == "fltp" else 8192, np.float32 if form == "fltp" else np.int16
    )
    frame = frame_of(values, form, layout)
    frame.sample_rate = 48_000
    assert (channels_of(frame) == values).all()
    [(first, samples)] = MonoAudio(16_000, track, no_damage).of([frame])
    assert (first, len(samples)) == (0, 2)
    assert samples.max() > 1000


@pytest.mark.parametrize("suffix", [".opus", ".mkv", ".mp4"])
def test_of_ambisonic_audio_channel_w_is_used(tmp_path, suffix):
    path, rate = tmp_path / f"a{suffix}", 48_000
    tones = (440, 1000, 1500, 2000)  # Hz of channels W, Y, Z and X
    channels = np.stack([sine(1.0, rate, 1, hertz=hertz)[:, 0] for hertz in tones])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=rate, options={"mapping_family": "2", "b": "512000"})
        stream.layout = "ambisonic 1"
        for first in range(0, rate, 960):
            frame = frame_of(channels[:, first : first + 960], "s16", "ambisonic 1")
            frame.sample_rate, frame.pts = rate, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    heard = wave(path)[2000:14_000].astype(float)
    spectrum = np.abs(np.fft.rfft(heard)) * 2 / len(heard)
    levels = [spectrum[round(hertz * len(heard) / 16_000)] for hertz in tones]
    assert levels == pytest.approx([0.3 * 32767, 0, 0, 0], abs=100)


@pytest.mark.parametrize(("sign", "notes"), [(-1, 1), (1, 0)])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_u8", "pcm_f32le"])
def test_stereo_that_cancels_out_is_noted(tmp_path, sign, notes, codec):
    samples = sine(1.0, 16_000, 2)
    samples[:, 1] *= sign
    path = make_media(
        tmp_path / "a.wav", seconds=1, video=None, audio=codec, sample_rate=16_000, samples=samples
    )
    found = []
    for _ in read_audio(scan(path), 16_000, on_damage=no_damage, on_note=found.append):
        pass
    assert found == ["audio: the two channels are out of phase and cancel out in the average"] * notes


def test_audio_is_whole_and_in_position(tmp_path):
    path = make_media(tmp_path / "a.wav", video=None, audio="pcm_s16le", sample_rate=44_100, seconds=2)
    samples = wave(path).astype(float)
    assert len(samples) == 32_000
    expected = 0.3 * 32767 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(samples - expected)[100:-100].max() < 15


def test_gaps_in_the_audio_stay_gaps(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for first in [*range(0, 16_000, 1600), *range(32_000, 48_000, 1600)]:
            piece = np.full((1, 1600), 9000, np.int16)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, first, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples = wave(path)
    assert len(samples) == 48_000
    assert (samples[200:15_800] == 9000).all()
    assert (samples[16_100:31_900] == 0).all()
    assert (samples[32_200:47_800] == 9000).all()


def test_the_shortest_audio_is_not_lost(tmp_path):
    path = make_media(tmp_path / "s.wav", video=None, audio="pcm_s16le", sample_rate=48_000, seconds=0.001)
    assert len(wave(path)) == 16


def test_cover_art_is_not_video(tmp_path):
    path = tmp_path / "cover.mp3"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("libmp3lame", rate=44_100)
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        piece = np.ascontiguousarray(sine(1, 44_100, 2)).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
        frame.sample_rate = 44_100
        packets = audio.encode(frame) + audio.encode(None)
        container.mux(
            cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24"))
        )
        container.mux(packets)
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["audio", "video"]
    media = scan(path)
    assert media.video is None
    assert media.audio is not None


def test_a_still_is_one_frame(tmp_path):
    path = tmp_path / "still.png"
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(5), format="rgb24")))
    assert frame_numbers(path, [0.0, 0.5]) == [5, 5]
    assert scan(path).video.span == (0.0, 0.04)


def test_of_several_streams_the_best_is_taken(tmp_path):
    path = tmp_path / "many.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for size in ((96, 32), (192, 64)):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            streams.append(stream)
        for number in range(10):
            for stream in streams:
                image = numbered_frame(number, stream.width, stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    ((_, frame),) = list(read_frames(scan(path), np.array([0.2]), on_damage=no_damage))
    assert frame.shape == (64, 192, 3)


def truncated(path, fraction):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize(
    ("name", "options"), [("t.mkv", {}), ("t.mp4", {"movflags": "faststart"}), ("t.ts", {}), ("t.avi", {})]
)
def test_truncated_files_are_read_as_far_as_possible_and_reported(tmp_path, name, options):
    path = make_media(
        tmp_path / name, seconds=8, video="ffv1" if name == "t.mkv" else "mpeg4", container_options=options,
        audio=None if name != "t.ts" else "aac",
    )  # fmt: skip
    media = scan(truncated(path, 0.5))
    assert 2 < media.video.span[1] < 6
    if name != "t.ts":  # MPEG-TS states no duration, so the truncation cannot be detected
        assert media.damage
    damage = []
    times = np.arange(0, media.video.span[1], 0.25)
    served = sum(n for n, _ in read_frames(media, times, on_damage=damage.append))
    assert served == len(times)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_wav_from_a_pipe_is_not_damaged(tmp_path, length):
    path = make_media(tmp_path / "a.wav", seconds=1.3, video=None, audio="pcm_s16le")
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:at] + struct.pack("<I", length) + data[at + 4 :])
    assert scan(path).damage == ()
    assert scan(path).audio.span[1] == pytest.approx(1.3)
    path.write_bytes(data[:-1000])
    assert scan(path).damage == ("audio: 1 damaged packet",)


def test_damage_in_the_middle_affects_only_frames_near_it(tmp_path):
    path = make_media(tmp_path / "d.mkv", seconds=4, video="mpeg4", audio="aac", gop=5)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = os.urandom(300)
    path.write_bytes(data)
    media = scan(path)
    damage = []
    times = np.arange(0, 4, 1 / 16)
    numbers = []
    for count, frame in read_frames(media, times, on_damage=damage.append):
        numbers += [read_number(frame)] * count
    expected = [int(t * 25 + 1e-6) for t in times]
    right = [a == b for a, b in zip(numbers, expected, strict=True)]
    assert sum(right) > 0.6 * len(right)
    assert all(right[:16])
    assert all(right[-12:])


def test_a_broken_timestamp_does_not_fill_hours(tmp_path):
    path = tmp_path / "jump.mkv"
    with av.open(str(path), "w", options={"live": "1"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in stream.encode(frame):
                if number == 49:
                    packet.pts = packet.dts = 1_000_000
                container.mux(packet)
    with av.open(str(path)) as container:
        assert max(p.pts for p in container.demux() if p.pts is not None) > 10_000_000
    media = scan(path)
    assert media.duration == pytest.approx(50 / 25, abs=0.01)
    assert media.damage == (
        "video: 1 frame without a usable timestamp, placed between the others",
        "video: 1 timestamp far off, ignored",
    )
    assert frame_numbers(path, [0.0, 1.0, 1.9, 1.99]) == [0, 25, 47, 49]


@pytest.mark.parametrize("track", ["video", "audio"])
def test_clocks_too_far_apart_are_aligned_at_time_zero(tmp_path, track):
    start = {f"{track}_start": 5000.0}
    path = make_media(tmp_path / "clocks.mkv", container_options={"live": "1"}, **start)
    media = scan(path)
    assert "different clocks" in media.damage[0]
    assert media.video.span == pytest.approx((0.0, 2.0), abs=0.01)
    assert media.audio.span == pytest.approx((0.0, 2.0), abs=0.05)
    assert frame_numbers(path, [0.0, 1.0]) == [0, 25]
    assert np.abs(wave(path)[1000:-1000]).max() > 5000


def read_all(path, media=None):
    """Return the numbers of all frames, one per frame time of 25 fps, and the damage that reading them reports."""
    media = scan(path) if media is None else media
    damage, numbers = [], []
    times = np.arange(media.video.span[0] + 0.01, media.video.span[1], 0.04)
    for count, frame in read_frames(media, times, on_damage=damage.append):
        numbers += [read_number(frame)] * count
    return numbers, damage


def test_leading_frames_of_an_open_group_at_the_start_are_skipped_with_a_note(tmp_path):
    whole = make_media(tmp_path / "whole.mkv", video="mpeg2video", options={"bf": "2"}, audio=None)
    with av.open(str(whole)) as container:
        keys = [k for k, p in enumerate(container.demux(video=0)) if p.size and p.is_keyframe]
    path = remuxed(whole, tmp_path / "cut.mkv", keys[1])
    media = scan(path)
    note = "video: 2 frames skipped at the start (they refer to frames before the start)"
    assert (media.damage, media.notes) == ((), (note,))
    numbers, damage = read_all(path)
    assert (numbers, damage) == (list(range(12, 50)), [])


def test_later_frames_with_timestamps_before_the_first_frame_are_dropped(tmp_path):
    options = {"bf": "2", "b_strategy": "0"}
    path = make_media(tmp_path / "a.ts", seconds=0.6, fps=100, gop=60, options=options, audio=None)
    later, moved = 10 * CLOCK, 37  # so that no timestamp is below 0; a packet with a DTS of its own

    def change(k, pts, dts):
        back = CLOCK // 2 if k == moved else 0
        return pts + later - back, None if dts is None else dts + later

    path.write_bytes(change_ts(path.read_bytes(), VIDEO_PID, change))
    media = scan(path)
    assert media.damage == ("video: 1 frame skipped (timestamps before the first frame)",)
    assert media.video.span == pytest.approx((0.0, 0.6))
    numbers = []
    for count, frame in read_frames(media, np.arange(60) / 100 + 0.001, on_damage=no_damage):
        numbers += [read_number(frame)] * count
    assert numbers == [38 if k == 39 else k for k in range(60)]


def test_frames_out_of_order_are_skipped_and_reported(tmp_path):
    path = tmp_path / "swapped.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuv420p"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in stream.encode(frame):
                swapped = {10: 11, 11: 10}.get(number, number)
                packet.pts, packet.dts = swapped + 2, number
                container.mux(packet)
    numbers, damage = read_all(path)
    assert numbers == [{10: 9, 11: 10}.get(k, k) for k in range(25)]
    assert damage == ["video: 1 frame out of order, skipped"]


def test_frames_of_packets_that_were_added_after_the_scan_are_reported(tmp_path):
    path = make_media(tmp_path / "a.ts", video="mpeg4", audio=None, seconds=2)
    whole = path.read_bytes()
    starts = [at for at, _ in ts_starts(whole, VIDEO_PID)]
    path.write_bytes(whole[: starts[30]])
    media = scan(path)
    path.write_bytes(whole)
    numbers, damage = read_all(path, media)
    assert numbers == list(range(30))
    assert damage == ["video: 20 frames of packets that the scan did not find"]


def test_gaps_longer_than_a_second_are_noted(tmp_path):
    ticks = [*range(0, 400, 40), *range(1400, 1800, 40), *range(3000, 3400, 40), *range(5000, 5400, 40)]
    path = make_media(tmp_path / "gaps.mkv", frame_ticks=ticks[:20], audio=None)
    assert scan(path).notes == ()
    make_media(path, frame_ticks=ticks[:30], audio=None)
    assert (scan(path).damage, scan(path).notes) == ((), ("video: a gap of 1.20 s",))
    make_media(path, frame_ticks=ticks, audio=None)
    assert scan(path).notes == ("video: 2 gaps of 1.20 to 1.60 s",)


def test_chunks_in_any_order_are_no_edits(tmp_path):
    options = {"bf": "3", "x264-params": "open-gop=1:keyint=12:log-level=none"}
    path = make_media(tmp_path / "a.mp4", options=options, seconds=2)
    path.write_bytes(reverse_chunks(path.read_bytes()))
    assert scan(path).video.regular
    assert read_all(path) == (list(range(50)), [])


def change_audio(path, change):
    """Replace the audio packets of a file by what ``change`` makes of their numbers and bytes, None: no change."""
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(audio=0) if p.size]
    data = path.read_bytes()
    for number, packet in enumerate(packets):
        if (changed := change(number, packet)) is not None:
            assert data.count(packet) == 1
            data = data.replace(packet, changed)
    path.write_bytes(data)


def drop_audio(path, first, *, header=0):
    """Change 30 frames so that AAC's decoder returns neither audio nor an error: the only element is the end."""

    def change(number, packet):
        changed = packet[:header] + b"\xe0" + bytes(len(packet) - header - 1)
        return changed if first <= number < first + 30 else None

    change_audio(path, change)


def test_audio_that_the_decoder_drops_without_an_error_is_reported(tmp_path):
    path = make_media(tmp_path / "a.mp4", video=None, seconds=2)
    drop_audio(path, 30)
    damage = []
    samples = wave(path, on_damage=damage.append)
    assert damage == ["audio: 0.68 of 2.00 s could not be decoded"]
    assert not samples[round(0.75 * 16_000) : round(1.3 * 16_000)].any()


def test_audio_that_the_decoder_drops_at_the_beginning_is_reported(tmp_path):
    path = make_media(tmp_path / "a.aac", video=None, audio="aac", seconds=2)
    drop_audio(path, 0, header=7)
    damage = []
    wave(path, on_damage=damage.append)
    assert damage == ["audio: 0.70 of 2.04 s could not be decoded"]


@pytest.mark.parametrize(("step", "dropped"), [(1600, []), (1550, []), (1200, ["0.45"])])
def test_audio_that_overlaps_earlier_audio_is_dropped_and_reported(tmp_path, step, dropped):
    path = tmp_path / "overlap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 1600), 9000, np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.time_base = 16_000, Fraction(1, 16_000)
            for packet in stream.encode(frame):
                packet.pts = packet.dts = step * number
                packet.time_base = Fraction(1, 16_000)
                container.mux(packet)
    damage = []
    samples = wave(path, on_damage=damage.append)
    assert damage == [f"audio: {seconds} s overlap earlier audio and are dropped" for seconds in dropped]
    assert len(samples) / 16_000 == pytest.approx(2.0 - sum(map(float, dropped)), abs=0.005)


@pytest.mark.parametrize(("kind", "reported"), [(AudioBreak.LOST, True), (AudioBreak.EDIT, False)])
def test_only_the_last_frame_of_an_edit_may_overlap_unreported(tmp_path, kind, reported):
    path = make_media(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=2, sample_rate=16_000)
    frames = []
    for number in range(20):
        frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 9000, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 1200 * number
        frames += [kind, frame]
    damage = []
    list(MonoAudio(16_000, scan(path).audio, damage.append).of(frames))
    assert damage == ["audio: 0.47 s overlap earlier audio and are dropped"] * reported


def test_a_broken_timestamp_in_an_ogg_is_not_taken_for_a_chained_recording(tmp_path):
    path = make_media(
        tmp_path / "a.ogg",
        video=None,
        audio="libopus",
        sample_rate=48_000,
        seconds=3,
        container_options={"page_duration": "20000"},
    )
    assert scan(path).damage == ()
    path.write_bytes(change_ogg(path.read_bytes(), lambda page, stamp: stamp + 48_000 * (page == 80)))
    assert scan(path).damage == ("audio: 1 timestamp far off, ignored",)


def test_recordings_chained_in_ogg_begin_where_the_one_before_ends(tmp_path):
    whole, length = b"", 36_000  # samples of each recording, with a burst in the middle
    samples = sine(length / 48_000, 48_000, 2, hertz=1000)
    samples[: length // 2] = 0
    for number in range(4):
        path = make_media(
            tmp_path / f"{number}.ogg",
            video=None,
            audio="libopus",
            sample_rate=48_000,
            samples=samples,
            container_options={"page_duration": "100000"},
        )
        whole += path.read_bytes()
    path = tmp_path / "chained.ogg"
    path.write_bytes(whole)
    assert scan(path).damage == ("audio: the timestamps restart 3 times; time continues where they ended",)
    loud = np.abs(wave(path, 48_000).astype(int)) > 4000
    starts = [int(np.argmax(loud[k * length : (k + 1) * length])) for k in range(4)]
    assert max(starts) - min(starts) <= 24  # half a millisecond
    assert starts[0] == pytest.approx(length / 2, abs=100)


def test_a_stream_that_cannot_be_decoded_is_reported_and_the_other_is_used(tmp_path):
    path = make_media(tmp_path / "a.mkv", audio="libmp3lame", sample_rate=44_100, seconds=1)
    change_audio(path, lambda k, packet: bytes(len(packet)))
    media = scan(path)
    assert media.audio is None
    assert media.damage == ("audio: nothing in the stream can be decoded",)
    assert frame_numbers(path, [0.5]) == [12]


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (b"", UnreadableMediaError, "empty"),
        (b"these are words, not a video\n" * 50, UnreadableMediaError, "not media"),
        (bytes(range(256)) * 64, UnreadableMediaError, "not media"),
        (b"[00:10.00] la la la\n" * 9, NoStreamError, "neither video nor audio"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".bin"])
def test_other_files_than_media_are_refused_with_path_reason_and_remedy(
    tmp_path, content, error, reason, suffix
):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        scan(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    if suffix == ".mp4":
        assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


def test_names_with_a_colon_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_media("2024-01-01T12.mkv", seconds=0.2, audio=None)
    (tmp_path / "2024-01-01T12.mkv").rename("12:30.mkv")
    assert scan("12:30.mkv").path == "12:30.mkv"


def test_missing_files_folders_and_devices_are_refused(tmp_path):
    with pytest.raises(MediaNotFoundError, match="no such file"):
        scan(tmp_path / "nothing.mp4")
    with pytest.raises(UnreadableMediaError, match="folder"):
        scan(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UnreadableMediaError, match="not a regular file"):
        scan(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_missing_permission_is_named(tmp_path):
    path = make_media(tmp_path / "a.mp4", seconds=0.2)
    path.chmod(0)
    with pytest.raises(UnreadableMediaError, match="permission"):
        scan(path)


def test_a_truncated_mp4_without_its_index_is_refused(tmp_path):
    path = truncated(make_media(tmp_path / "a.mp4", seconds=2), 0.5)
    with pytest.raises(UnreadableMediaError, match="cut off"):
        scan(path)


def test_playlists_open_no_other_file(tmp_path):
    clip = make_media(tmp_path / "a.ts", seconds=1)
    playlist = tmp_path / "a.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises((UnreadableMediaError, NoStreamError)):
        scan(playlist)


def test_playlists_open_no_url(tmp_path):
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    make_media(tmp_path / "clip.ts", seconds=1)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/clip.ts"
        hls, concat = tmp_path / "a.m3u8", tmp_path / "a.ffconcat"
        hls.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n")
        concat.write_text(f"ffconcat version 1.0\nfile '{url}'\n")
        for playlist in (hls, concat):
            with pytest.raises(UnreadableMediaError):
                scan(playlist)
        assert requests == []
        # Due to the whitelist: with another one, FFmpeg sends requests.
        av.open(str(hls), container_options={"protocol_whitelist": "file,http,tcp"}).close()
        assert requests != []
        server.shutdown()


def test_a_packet_of_a_stream_added_after_opening_ends_the_reading_with_a_report() -> None:
    """PyAV raises IndexError for FLV, as benchmarks/fuzz_media.py found."""

    class Container:
        def demux(self, stream: object) -> Iterator[object]:
            yield SimpleNamespace(size=1, stream=stream)
            raise IndexError("list index out of range")

    damage: list[str] = []
    container: Any = Container()
    stream: Any = object()
    assert [p.size for p in read_packets(container, stream, damage.append)] == [1]
    assert damage == ["reading stops early (a stream begins in the middle of the file)"]
