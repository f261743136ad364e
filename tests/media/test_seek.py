"""Random access gives the same frames and audio as reading the whole file."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from make_media import make_media, read_number

from crisscross_zoo.errors import (
    InputError,
    MediaError,
    MediaNotFoundError,
    NoStreamError,
    UnreadableMediaError,
)
from crisscross_zoo.media import seek
from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.tracks import Finding, Media

SECONDS = 6
OPEN_GOP = "open-gop=1:keyint=12:log-level=none"
ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}
CODECS = {
    "h264.mp4": ("libx264", "aac", {"bf": "3", "b_strategy": "0"}),
    "h264-one-group.mp4": ("libx264", "aac", {"bf": "3", "g": "1000", "sc_threshold": "0"}),
    "h264-open-gop.mkv": ("libx264", "libopus", {"bf": "3", "x264-params": OPEN_GOP}),
    "h264-open-gop.mp4": ("libx264", None, {"bf": "3", "x264-params": OPEN_GOP}),
    "h264-open-gop.ts": ("libx264", None, {"bf": "3", "x264-params": OPEN_GOP}),
    "h264-10bit.mkv": ("libx264", None, {"bf": "2"}),
    "h264-refresh.mkv": ("libx264", None, {"bf": "0", "x264-params": "intra-refresh=1:keyint=12"}),
    "h264.ts": ("libx264", "aac", {"bf": "2"}),
    "h264.flv": ("libx264", "aac", {}),
    "h264.avi": ("libx264", "libmp3lame", {"bf": "0"}),
    "raw.h264": ("libx264", None, {"bf": "2"}),
    "hevc.mp4": ("libx265", "aac", {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}),
    "hevc.mkv": ("libx265", None, {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}),
    "vp8.webm": ("libvpx", "libopus", ALT_REF),
    "vp9.webm": ("libvpx-vp9", "libopus", ALT_REF),
    "av1.mp4": ("libsvtav1", "aac", {"preset": "8", "crf": "10", "svtav1-params": "keyint=12"}),
    "mpeg4.avi": ("mpeg4", "libmp3lame", {"bf": "2"}),
    "mpeg4.mp4": ("mpeg4", "aac", {"bf": "2"}),
    "mpeg2.mkv": ("mpeg2video", "mp2", {"bf": "2"}),
    "mpeg2.ts": ("mpeg2video", "mp2", {"bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", "mp2", {"bf": "2"}),
    "ffv1.mkv": ("ffv1", "flac", {}),
    "mjpeg.mkv": ("mjpeg", "pcm_s16le", {}),
}
SOUGHT = [n for n in CODECS if n.rsplit(".", 1)[1] in ("mp4", "mkv", "webm", "ts", "flv")]
"""Files whose frames are read by seeking: other formats are decoded from their start."""

AUDIO = {
    # name: codec, sample rate, largest difference of a sample
    "aac.mp4": ("aac", 44_100, 3),
    "aac.mkv": ("aac", 48_000, 3),
    "aac.ts": ("aac", 44_100, 3),
    "mp3.mp3": ("libmp3lame", 44_100, 0),
    "mp3.mp4": ("libmp3lame", 48_000, 0),
    "mp3.mkv": ("libmp3lame", 44_100, 0),
    "mp3.avi": ("libmp3lame", 48_000, 0),
    "opus.webm": ("libopus", 48_000, 16),
    "opus.ogg": ("libopus", 48_000, 16),
    "opus.mp4": ("libopus", 48_000, 16),
    "pcm.wav": ("pcm_s16le", 44_100, 0),
    "pcm.mkv": ("pcm_s16le", 48_000, 0),
    "pcm.mov": ("pcm_s16le", 22_050, 0),
    "flac.flac": ("flac", 44_100, 0),
    "flac.mkv": ("flac", 48_000, 0),
    "alac.mp4": ("alac", 44_100, 0),
    "mp2.mpg": ("mp2", 44_100, 3),
}


def ignore(phrase):
    pass


def whole_frames(path, times):
    """Return the reference: frames of one pass over the whole file, in the order of ``times``."""
    order = np.argsort(times, kind="stable")
    served = []
    for count, frame in read_frames(scan(path), np.asarray(times, float)[order], on_damage=ignore):
        served += [frame] * count
    return np.stack([served[k] for k in np.argsort(order, kind="stable")])


def whole_audio(path, rate=16_000):
    pieces = list(read_audio(scan(path), rate, on_damage=ignore))
    whole = np.zeros(max(first + len(s) for first, s in pieces), np.int16)
    for first, samples in pieces:
        whole[first : first + len(samples)] = samples
    return whole


def stretch(whole, start, n, rate=16_000):
    """Return ``n`` samples of ``whole`` from ``start`` seconds on, with silence beyond it."""
    first = round(start * rate)
    padded = np.concatenate(
        [np.zeros(max(0, -first), np.int16), whole[max(0, first) :], np.zeros(n, np.int16)]
    )
    return padded[:n]


def music(seconds, rate):
    """Return int16 (samples, 2): harmonics whose pitch wanders, so that a shift by one sample shows."""
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * 200 * k * t + 30 * np.sin(t * k)) / k for k in range(1, 6))
    return np.repeat((0.1 * 32767 * wave).astype(np.int16)[:, None], 2, axis=1)


@pytest.fixture(scope="module")
def codec_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codecs")
    for name, (video, audio, options) in CODECS.items():
        pix_fmt = {"h264-10bit.mkv": "yuv420p10le", "mjpeg.mkv": "yuvj420p"}.get(name, "yuv420p")
        make_media(
            folder / name, seconds=SECONDS, video=video, audio=audio, options=options, pix_fmt=pix_fmt,
            sample_rate=48_000 if audio == "libopus" else 44_100, gop=1000 if "one-group" in name else 12,
            container_format={"raw.h264": "h264"}.get(name),
        )  # fmt: skip
    return folder


@pytest.fixture
def from_the_start(monkeypatch):
    """Collect the calls that decode a file's frames from its start."""
    calls = []
    whole = seek.convert_frames
    monkeypatch.setattr(seek, "convert_frames", lambda *a, **k: calls.append(a) or whole(*a, **k))
    return calls


def random_times():
    """Yield clips as training draws them, and single times, in and out of order, alone and far apart."""
    rng = np.random.default_rng(3)
    for _ in range(12):
        yield rng.uniform(0, SECONDS - 1) + np.arange(12) / 16
    for _ in range(4):
        yield rng.uniform(0, SECONDS, 1)
        yield rng.uniform(0, SECONDS, 5)
    yield np.concatenate([0.3 + np.arange(8) / 16, 4.4 + np.arange(8) / 16])
    yield np.array([0.0])
    yield np.array([2.0, 2.0, 0.04, 5.96])


# --- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_frames_are_those_of_the_whole_file_byte_for_byte(codec_files, name, from_the_start):
    path = codec_files / name
    info = scan(path)
    for times in random_times():
        frames, samples = read_moment(info, times=times)
        assert samples is None
        assert frames.dtype == np.uint8
        assert frames.shape == (len(times), 64, 192, 3)
        assert (frames == whole_frames(path, times)).all(), times
        if name != "mpeg2.mpg":  # its muxer omits the timestamps of two frames near the end
            late = name == "h264.avi"  # its muxer leaves a chunk empty after the first
            assert [read_number(f) for f in frames] == [max(0, int(t * 25 + 1e-6) - late) for t in times]
        if name in SOUGHT and "refresh" not in name and not (name.endswith(".ts") and times.min() < 1):
            assert from_the_start == []
        if name.endswith(".ts"):
            from_the_start.clear()  # a seek near the start of MPEG-TS lands after the first key frame
    if name not in SOUGHT:
        assert len(from_the_start) == len(list(random_times()))


@pytest.mark.parametrize("name", ["h264.mp4", "h264-open-gop.mkv", "h264.ts", "vp9.webm"])
def test_only_the_packets_that_are_needed_are_decoded(codec_files, name, monkeypatch):
    decoded = []
    original = seek.decode_video
    monkeypatch.setattr(
        seek, "decode_video", lambda packets, *a: original((decoded.append(p) or p for p in packets), *a)
    )
    info = scan(codec_files / name)
    decoded.clear()
    read_moment(info, times=np.array([4.0]))
    assert (
        0 < len(decoded) <= 3 * 12 + 33
    )  # the group and the one before; without an index, also the packets read ahead
    decoded.clear()
    read_moment(info, times=np.array([1.5, 5.8]))
    assert 0 < len(decoded) < 100  # the groups of two times, not all 150 frames


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rates_follow_the_timestamps(tmp_path, suffix):
    rng = np.random.default_rng(0)
    ticks = [0, *np.cumsum(rng.choice([10, 40, 41, 300, 900], 80)).tolist()]
    path = make_media(
        tmp_path / f"vfr.{suffix}",
        frame_ticks=ticks,
        audio=None,
        fps=25,
        options={"bf": "2", "b_strategy": "0"},
    )
    info = scan(path)
    assert not info.video.constant
    for _ in range(25):
        times = rng.uniform(0, info.duration) + np.arange(12) / 16
        frames, _ = read_moment(info, times=times)
        assert (frames == whole_frames(path, times)).all()
        assert [read_number(f) for f in frames] == [
            int(np.searchsorted(ticks, t * 1000 + 1e-3, "right")) - 1 for t in times
        ]


@pytest.mark.parametrize("fps", [Fraction(30_000, 1001), 30, 24, 10, 60])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_rounding_of_timestamps_is_undone_as_in_the_whole_file(tmp_path, fps, suffix):
    path = make_media(
        tmp_path / f"a.{suffix}", fps=fps, seconds=4, audio=None, options={"bf": "2", "preset": "ultrafast"}
    )
    info = scan(path)
    for number in range(0, int(3 * fps), 7):  # exactly when a frame begins
        times = float(number / Fraction(fps)) + np.arange(4) / float(fps)
        frames, _ = read_moment(info, times=times)
        assert [read_number(f) for f in frames] == [number, number + 1, number + 2, number + 3]
        assert (frames == whole_frames(path, times)).all()


@pytest.mark.parametrize("kwargs", [{"video_start": 1.0}, {"audio_start": 1.5}, {"audio_start": -0.5}])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_streams_that_begin_apart_keep_their_distance(tmp_path, kwargs, suffix):
    path = make_media(
        tmp_path / f"a.{suffix}",
        seconds=4,
        options={"bf": "2"},
        audio="libmp3lame",
        samples=music(3, 44_100),
        **kwargs,
    )
    info = scan(path)
    whole = whole_audio(path)
    for start in (0.0, 0.4, 0.9, 1.6, 2.2, 3.0):
        times = start + np.arange(8) / 16
        frames, samples = read_moment(info, times=times, audio=(start, 8000))
        assert (frames == whole_frames(path, times)).all()
        assert np.abs(samples.astype(int) - stretch(whole, start, 8000)).max() <= 3


def test_rotated_video_is_turned_upright(tmp_path):
    path = make_media(tmp_path / "r.mp4", rotation=90, audio=None, seconds=1)
    info = scan(path)
    frames, _ = read_moment(info, times=np.array([0.8, 0.2]))
    assert frames.shape == (2, 192, 64, 3)
    assert [read_number(np.rot90(f, -1)) for f in frames] == [20, 5]
    assert (info.video.width, info.video.height, info.video.frames) == (192, 64, 25)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "mpeg4.avi", "vp9.webm"])
def test_times_outside_the_file_get_its_first_or_last_frame(codec_files, name):
    info = scan(codec_files / name)
    frames, _ = read_moment(info, times=np.array([1e9, -5.0, 6.5, 5.99]))
    assert [read_number(f) for f in frames] == [149, 0, 149, 149]


def test_a_still_is_one_frame(tmp_path):
    path = tmp_path / "still.png"
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "rgb24"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.full((64, 192, 3), 7, np.uint8), format="rgb24"))
        )
    frames, _ = read_moment(scan(path), times=np.array([0.0, 3.0]))
    assert (frames == 7).all()
    assert len(frames) == 2


@pytest.mark.parametrize("codec", ["mpeg4", "libx265"])
def test_packets_wrongly_flagged_as_key_frames_are_not_decoded_alone(tmp_path, codec):
    path = make_media(tmp_path / "a.mp4", seconds=3, video=codec, audio=None, gop=100)
    data = path.read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))  # without a table of sync samples every sample is one
    with av.open(str(path)) as container:
        assert all(p.is_keyframe for p in container.demux(video=0) if p.size)
    for number in (8, 56):
        time = number / 25 + 0.01
        frames, _ = read_moment(scan(path), times=np.array([time]), audio=None)
        assert read_number(frames[0]) == number
        [(_, frame)] = read_frames(scan(path), np.array([time]), on_damage=ignore)
        assert read_number(frame) == number


# --- audio -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audio_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    for name, (codec, rate, _) in AUDIO.items():
        kind = name.rsplit(".", 1)[1]
        video = {"webm": "libvpx", "mpg": "mpeg2video"}.get(kind, "mpeg4")
        make_media(
            folder / name, seconds=8, video=None if kind in ("mp3", "ogg", "wav", "flac") else video,
            size=(96, 32), audio=codec, sample_rate=rate, samples=music(8, rate), gop=200,
        )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", AUDIO)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_audio_is_that_of_the_whole_file_in_position_and_value(audio_files, name, rate, monkeypatch):
    path = audio_files / name
    info = scan(path)
    whole = whole_audio(path, rate)
    assert np.abs(np.diff(whole.astype(int))).max() > 300  # a shift by one sample would show
    restarted = []
    original = seek.read_audio
    monkeypatch.setattr(
        seek, "read_audio", lambda *a, **k: restarted.append(a) or original(*a, **k), raising=True
    )
    rng = np.random.default_rng(1)
    for start in (*rng.uniform(1.0, 6.0, 10), 5.0, 7.5):
        n = 2 * rate
        frames, samples = read_moment(info, times=None, audio=(start, n), sample_rate=rate)
        assert frames is None
        assert samples.dtype == np.int16
        assert samples.shape == (n,)
        settled = slice(None) if start < 7 else slice(0, int(0.4 * rate))  # away from the end of the file
        difference = samples.astype(int) - stretch(whole, start, n, rate)
        assert np.abs(difference[settled]).max() <= AUDIO[name][2], start
    assert restarted == []


def test_wav_of_another_codec_than_pcm_is_read_without_seeking(tmp_path):
    path = make_media(
        tmp_path / "a.wav", seconds=4, video=None, audio="g722", sample_rate=16_000, layout="mono",
        samples=music(4, 16_000)[:, :1],
    )  # fmt: skip
    whole = whole_audio(path)
    for start in (0.7, 1.5, 3.0):
        _, samples = read_moment(scan(path), times=None, audio=(start, 8000))
        assert np.abs(samples.astype(int) - stretch(whole, start, 8000)).max() <= 32, start


def test_audio_near_the_start_is_read_without_seeking(audio_files):
    for name in AUDIO:
        info = scan(audio_files / name)
        whole = whole_audio(audio_files / name)
        for start in (0.0, 0.05, 0.2, -0.5):
            _, samples = read_moment(info, times=None, audio=(start, 8000))
            assert (samples == stretch(whole, start, 8000)).all(), (name, start)


def test_audio_beyond_the_stream_is_silence(audio_files):
    info = scan(audio_files / "pcm.wav")
    _, samples = read_moment(info, times=None, audio=(7.5, 16_000))
    assert np.abs(samples[:7900]).max() > 1000
    assert (samples[8000:] == 0).all()
    _, samples = read_moment(info, times=None, audio=(60.0, 1000))
    assert (samples == 0).all()
    _, samples = read_moment(info, times=None, audio=(-2.0, 16_000))
    assert (samples == 0).all()
    _, samples = read_moment(info, times=None, audio=(1.0, 0))
    assert samples.shape == (0,)


def test_gaps_in_the_audio_stay_gaps(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for first in [*range(0, 16_000, 1600), *range(32_000, 48_000, 1600)]:
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 1600), 9000, np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 16_000, first, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = scan(path)
    for start in (0.0, 0.75, 1.5, 1.95, 2.4):
        _, samples = read_moment(info, times=None, audio=(start, 24_000))
        position = np.arange(24_000) + round(start * 16_000)
        audible = ((position >= 200) & (position < 15_800)) | ((position >= 32_200) & (position < 47_800))
        silent = ((position > 16_100) & (position < 31_900)) | (position > 48_000)
        assert (samples[audible] == 9000).all()
        assert (samples[silent] == 0).all()


def test_surround_audio_is_cut_and_averaged_as_in_the_whole_file(tmp_path):
    rng = np.random.default_rng(0)
    samples = np.repeat(rng.integers(-9000, 9000, (4 * 44_100, 1)), 6, axis=1).astype(np.int16)
    samples *= np.arange(1, 4, dtype=np.int16).repeat(2) % 3
    path = make_media(
        tmp_path / "5.1.wav", video=None, audio="pcm_s16le", samples=samples, layout="5.1", seconds=4
    )
    whole = whole_audio(path)
    info = scan(path)
    for start in (1.1, 2.3456):
        _, cut = read_moment(info, times=None, audio=(start, 16_000))
        assert (cut == stretch(whole, start, 16_000)).all()


# --- bytes instead of a path ------------------------------------------------------------------------------------


def moved(path):
    """Return a file's media with a path that does not exist, and its bytes in an object without a name."""
    info = dataclasses.replace(scan(path), path="/gone/" + path.name)
    return info, io.BytesIO(path.read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        "h264.mp4",
        "h264-open-gop.mkv",
        "h264.ts",
        "h264.flv",
        "vp9.webm",
        "mpeg4.avi",
        "mpeg2.mpg",
        "raw.h264",
    ],
)
def test_bytes_give_what_the_path_gives(codec_files, name, monkeypatch):
    path = codec_files / name
    at_path, (info, source) = scan(path), moved(path)
    for start in (3.1, 0.2, 4.5):
        times = start + np.arange(12) / 16
        window = None if info.audio_span is None else (start, 16_000)
        frames, samples = read_moment(at_path, times=times, audio=window)
        frames_again, samples_again = read_moment(info, times=times, audio=window, source=source)
        assert (frames == frames_again).all()
        assert (samples == samples_again).all() if window else samples_again is None
    assert not source.closed
    if name in SOUGHT and info.audio_span is not None:
        # Seeking for audio fails: the file is opened again, and seeking for frames must still be right.
        def fail(*_):
            raise seek.NotAsIndexedError

        monkeypatch.setattr(seek, "_sought_audio", fail)
        frames_again, samples_again = read_moment(info, times=times, audio=(4.5, 16_000), source=source)
        assert (frames == frames_again).all()
        assert np.abs(samples_again.astype(int) - stretch(whole_audio(path), 4.5, 16_000)).max() == 0
        # Seeking for frames fails: the whole file is decoded.
        monkeypatch.setattr(seek, "_sought_frames", fail)
        frames_again, _ = read_moment(info, times=times, source=source)
        assert (frames == frames_again).all()


def test_a_file_opened_unprobed_that_gives_other_frames_than_indexed_is_probed(
    codec_files, monkeypatch, from_the_start
):
    info = scan(codec_files / "h264.mp4")
    times = 3.1 + np.arange(12) / 16
    opened, sought = [], seek._sought_frames
    plainly = seek.open_media
    monkeypatch.setattr(seek, "open_media", lambda *a, **k: opened.append(k["unprobed"]) or plainly(*a, **k))
    frames, samples = read_moment(info, times=times, audio=(3.1, 16_000))
    assert opened == [True]

    def fail_unprobed(*args):
        if opened[-1]:
            raise seek.NotAsIndexedError
        return sought(*args)

    monkeypatch.setattr(seek, "_sought_frames", fail_unprobed)
    frames_again, samples_again = read_moment(info, times=times, audio=(3.1, 16_000))
    assert opened == [True, True, False]
    assert from_the_start == []
    assert (frames == frames_again).all()
    assert (samples == samples_again).all()


@pytest.mark.parametrize("name", AUDIO)
def test_bytes_of_audio_give_what_the_path_gives(audio_files, name):
    at_path, (info, source) = scan(audio_files / name), moved(audio_files / name)
    for start in (3.3, 0.0, 7.5):
        _, samples = read_moment(at_path, times=None, audio=(start, 16_000))
        _, samples_again = read_moment(info, times=None, audio=(start, 16_000), source=source)
        assert (samples == samples_again).all()
        assert np.abs(samples_again[:4000]).max() > 1000


def test_bytes_of_a_still(tmp_path):
    path = tmp_path / "still.png"
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 64, "rgb24"
        frame = av.VideoFrame.from_ndarray(np.full((64, 192, 3), 7, np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
    info, source = moved(path)
    frames, _ = read_moment(info, times=np.array([0.0]), source=source)
    assert (frames == 7).all()


def test_bytes_that_are_not_those_of_the_file(codec_files):
    info, source = moved(codec_files / "h264.mp4")
    size = len(source.getvalue())
    for wrong in (b"", source.getvalue()[:-1], source.getvalue() + b"more"):
        with pytest.raises(UnreadableMediaError, match=rf"\({size} bytes then, {len(wrong)} now\)") as caught:
            read_moment(info, times=np.zeros(1), source=io.BytesIO(wrong))
        assert caught.value.path == "/gone/h264.mp4"
    with pytest.raises(MediaError):
        read_moment(info, times=np.zeros(1), audio=(0.0, 100), source=io.BytesIO(os.urandom(size)))


# --- both, errors, rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264.mp4", "h264-open-gop.mkv", "h264.ts", "mpeg4.avi", "mpeg2.mpg"])
def test_one_call_returns_frames_and_audio(codec_files, name):
    path = codec_files / name
    info = scan(path)
    whole = whole_audio(path)
    for start in (3.1, 0.2, 2.0):
        times = start + 1 + np.arange(12) / 16
        frames, samples = read_moment(info, times=times, audio=(start, 48_000))
        assert (frames == whole_frames(path, times)).all()
        inside = slice(0, round((5.8 - start) * 16_000))
        assert np.abs(samples.astype(int) - stretch(whole, start, 48_000))[inside].max() <= 16


def test_rows_of_an_index_are_plain_values_and_survive_a_table(codec_files):
    findings = (
        Finding("one; thing"),
        Finding("another", "audio"),
        Finding("a third", "video", harmless=True),
    )
    info = dataclasses.replace(scan(codec_files / "h264.ts"), findings=findings)
    row = info.to_row()
    assert {type(v) for v in row.values()} <= {int, float, bool, str}
    assert row["damage"] == "one; thing\naudio: another"
    assert row["notes"] == "video: a third"
    assert Media.from_row(json.loads(json.dumps({**row, "label": "more"}))) == info
    silent = scan(codec_files / "raw.h264")
    assert Media.from_row(silent.to_row()) == silent
    assert silent.damage == ()
    assert silent.audio_span is None
    assert silent.video.counted
    assert info.video_span == pytest.approx((0.0, 6.0), abs=0.01)
    assert info.audio_span == pytest.approx((0.0, 6.0), abs=0.05)
    del row["video_tick"]
    with pytest.raises(InputError, match="video_tick"):
        Media.from_row(row)


def test_streams_that_are_missing_are_named(codec_files, audio_files):
    silent, blind = (scan(p) for p in (codec_files / "h264-10bit.mkv", audio_files / "flac.flac"))
    with pytest.raises(NoStreamError, match="no audio"):
        read_moment(silent, times=np.zeros(1), audio=(0.0, 100))
    with pytest.raises(NoStreamError, match="no video"):
        read_moment(blind, times=np.zeros(1))
    assert blind.video_span is None
    assert blind.audio_span is not None
    assert read_moment(blind, times=None) == (None, None)


def test_a_file_that_has_changed_must_be_indexed_again(tmp_path):
    path = make_media(tmp_path / "a.mp4", seconds=1)
    info = scan(path)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(UnreadableMediaError, match="changed") as caught:
        read_moment(info, times=np.zeros(1))
    assert caught.value.remedy == "index the folder again"
    path.unlink()
    with pytest.raises(MediaNotFoundError):
        read_moment(info, times=np.zeros(1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": np.zeros((2, 2))},
        {"times": np.zeros(0)},
        {"times": np.array([np.nan])},
        {"times": None, "audio": (np.inf, 10)},
        {"times": None, "audio": (0.0, -1)},
    ],
)
def test_arguments_are_checked(codec_files, wrong):
    with pytest.raises(InputError):
        read_moment(scan(codec_files / "h264.mp4"), **wrong)


@pytest.mark.parametrize(
    ("name", "options"),
    [("t.mkv", {}), ("t.mp4", {"movflags": "faststart"}), ("t.ts", {}), ("t.avi", {}), ("t.flv", {})],
)
def test_truncated_files_give_what_can_be_read(tmp_path, name, options):
    path = make_media(
        tmp_path / name, seconds=8, container_options=options, video="libx264" if name == "t.flv" else "mpeg4",
        audio="libmp3lame" if name == "t.avi" else "aac",
    )  # fmt: skip
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    info = scan(path)
    for start in (0.0, 1.0, 3.0, 7.5):
        times = start + np.arange(8) / 16
        frames, samples = read_moment(info, times=times, audio=(start, 16_000))
        assert len(samples) == 16_000
        assert (frames == whole_frames(path, times)).all()
        source = io.BytesIO(path.read_bytes())
        frames_again, samples_again = read_moment(info, times=times, audio=(start, 16_000), source=source)
        assert (frames == frames_again).all()
        assert (samples == samples_again).all()


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "vp9.webm", "hevc.mp4", "mpeg4.avi", "h264.flv"])
def test_damaged_files_are_read_or_raise_a_media_error(codec_files, tmp_path, name):
    data = (codec_files / name).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / name
    for _ in range(6):
        broken = bytearray(data)
        for _ in range(4):
            at = int(rng.integers(len(data) - 400))
            broken[at : at + 300] = rng.bytes(300)
        path.write_bytes(broken)
        try:
            info = scan(path)
            for start in (0.5, 4.0):
                wanted = {} if info.audio_span is None else {"audio": (start, 16_000)}
                times = None if info.video_span is None else start + np.arange(8) / 16
                frames, samples = read_moment(info, times=times, **wanted)
                assert times is None or len(frames) == 8
                assert not wanted or len(samples) == 16_000
        except MediaError:
            pass


def test_a_file_replaced_by_garbage_of_the_same_size_is_a_media_error(tmp_path):
    path = make_media(tmp_path / "a.mp4", seconds=2)
    info = scan(path)
    path.write_bytes(os.urandom(info.size))
    with pytest.raises(MediaError):
        read_moment(info, times=np.zeros(1), audio=(0.0, 100))
