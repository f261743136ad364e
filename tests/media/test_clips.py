import dataclasses
import re
import struct

import av
import numpy as np
import pytest
from make_media import make_media, read_number, sine

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import MediaError, NoStreamError, TruncatedMediaError
from crisscross_zoo.media.clips import (
    Clip,
    FileOpened,
    FileRead,
    Sampling,
    _choose_windows,
    file_events,
    read_clips,
)
from crisscross_zoo.media.scan import scan
from crisscross_zoo.transforms.frames import resize_crop

VIDEO = VideoConfig(size=56)
AUDIO = AudioConfig()


def read(path, **sampling):
    sampling = {"video": None, "audio": None, **sampling}
    opened, *clips, last = read_clips(path, Sampling(**sampling))
    assert isinstance(opened, FileOpened)
    assert isinstance(last, FileRead)
    assert all(isinstance(c, Clip) for c in clips)
    for modality, windows in opened.windows.items():
        rows = [c.row for c in clips if c.modality == modality]
        assert rows == list(range(len(windows)))
    return opened, clips, last


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_media(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=4.2, size=(192, 64))


def test_a_clip_is_eight_frames_at_16_fps(clip):
    opened, clips, _ = read(clip, video=VIDEO.replace(crop_ratio=0.875))
    np.testing.assert_allclose(opened.windows["video"][:3], [[0, 0.5], [0.5, 1.0], [1.0, 1.5]], atol=1e-6)
    assert opened.windows["video"][-1] == pytest.approx([3.7, 4.2], abs=1e-3)
    assert len(clips) == 9
    assert all(c.values.shape == (8, 56, 56, 3) and c.values.dtype == np.uint8 for c in clips)


def test_clips_hold_the_evaluation_transform_of_the_frames_at_their_times(tmp_path):
    path = make_media(
        tmp_path / "wide.mkv", video="ffv1", pix_fmt="yuv444p", audio=None, size=(96, 64), seconds=2
    )
    _, clips, _ = read(path, video=VideoConfig(size=56, crop_ratio=0.875), stride=0.3)

    with av.open(str(path)) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    start = 0.3 * 2
    picked = [int((start + k / 16) * 25 + 1e-6) for k in range(8)]
    expected = resize_crop(frames[picked], size=56, crop_ratio=0.875).permute(1, 2, 3, 0).numpy()
    np.testing.assert_array_equal(clips[2].values, expected)


def test_overlapping_windows_share_their_frames(clip):
    config = VIDEO.replace(frames=16)
    _, alone, _ = read(clip, video=config, stride=1.0)
    _, dense, _ = read(clip, video=config, stride=0.25)
    for k in range(3):
        np.testing.assert_array_equal(alone[k].values, dense[4 * k].values)


def test_uniform_clips_are_as_many_as_requested(clip):
    opened, clips, _ = read(clip, video=VIDEO, clips=10)
    assert len(clips) == 10
    assert opened.windows["video"][0, 0] == 0
    assert opened.windows["video"][-1, 1] <= 4.2
    assert np.all(np.rint(opened.windows["video"][:, 0] * 16) == opened.windows["video"][:, 0] * 16)


def test_rows_of_both_modalities_have_the_same_centres(clip):
    opened, _, _ = read(clip, video=VIDEO, audio=AUDIO, stride=0.25)
    video, audio = opened.windows["video"], opened.windows["audio"]
    assert len(video) == len(audio)
    inside = (audio[:, 0] > 0) & (audio[:, 1] < 4.19)
    assert inside.sum() > 5
    np.testing.assert_allclose(video[inside].mean(axis=1), audio[inside].mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(np.diff(audio, axis=1), 2.0, atol=1e-6)


def test_uniform_clips_of_both_modalities_have_the_same_centres_everywhere(clip):
    opened, _, _ = read(clip, video=VIDEO, audio=AUDIO, clips=6)
    np.testing.assert_allclose(
        opened.windows["video"].mean(axis=1), opened.windows["audio"].mean(axis=1), atol=1e-6
    )


def test_a_missing_stream_is_reported(tmp_path):
    path = make_media(tmp_path / "mute.mp4", audio=None, seconds=1)
    opened, _, _ = read(path, video=VIDEO, audio=AUDIO)
    assert opened.missing == ("audio",)
    assert list(opened.windows) == ["video"]
    with pytest.raises(NoStreamError, match="has no audio stream; use modality 'video'"):
        read(path, audio=AUDIO)


def test_frames_of_a_short_video_are_repeated_and_the_window_is_the_real_interval(tmp_path):
    path = make_media(tmp_path / "short.mp4", audio=None, fps=16, seconds=3 / 16, size=(192, 192))
    opened, clips, _ = read(path, video=VideoConfig(size=192, crop_ratio=1.0))
    assert opened.windows["video"] == pytest.approx(np.array([[0, 3 / 16]]), abs=1e-3)
    assert [read_number(f) for f in clips[0].values] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_short_audio_is_filled_with_silence(tmp_path):
    path = make_media(
        tmp_path / "short.wav", video=None, audio="pcm_s16le", sample_rate=16_000, layout="mono",
        samples=sine(0.5, 16_000, 1),
    )  # fmt: skip
    opened, clips, _ = read(path, audio=AUDIO)
    np.testing.assert_allclose(opened.windows["audio"], [[0, 0.5]])
    np.testing.assert_array_equal(clips[0].values[:8000], sine(0.5, 16_000, 1)[:, 0])
    assert not clips[0].values[8000:].any()


def test_audio_windows_are_cut_to_the_sample(tmp_path):
    samples = np.arange(-16_000, 48_000, dtype=np.int16)[:, None]
    path = make_media(
        tmp_path / "ramp.wav",
        video=None,
        audio="pcm_s16le",
        sample_rate=16_000,
        layout="mono",
        samples=samples,
    )
    _, clips, _ = read(path, audio=AUDIO.replace(seconds=0.5), stride=0.3)
    for row in range(4):
        first = round(0.3 * row * 16_000)
        np.testing.assert_array_equal(clips[row].values, samples[first : first + 8000, 0])


def test_strict_refuses_what_is_damaged(tmp_path):
    path = make_media(tmp_path / "t.mkv", video="ffv1", audio=None, seconds=6)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _, clips, last = read(path, video=VIDEO)
    assert clips
    assert last.damage
    with pytest.raises(TruncatedMediaError, match="truncated or damaged"):
        read(path, video=VIDEO, strict=True)


def test_an_unforeseen_exception_is_an_error_of_the_file(clip, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("crisscross_zoo.media.clips.scan", broken)
    (event,) = file_events(clip, Sampling(video=VIDEO, audio=None))
    assert "ZeroDivisionError: surprise" in str(event)
    assert str(clip) in str(event)


def test_strict_refuses_damaged_packets_too(tmp_path):
    path = make_media(tmp_path / "d.mkv", seconds=4, video="mjpeg", pix_fmt="yuvj420p", audio=None)
    with av.open(str(path)) as container:
        packet = [bytes(p) for p in container.demux(video=0)][
            50
        ]  # a JPEG, which cannot be decoded without its head
    path.write_bytes(path.read_bytes().replace(packet, bytes(len(packet))))
    *_, last = read(path, video=VIDEO)
    packets, frames = last.damage
    assert packets == "video: some packets are damaged and cannot be decoded"
    assert re.fullmatch(r"video: 1 of \d+ frames could not be decoded", frames)
    with pytest.raises(TruncatedMediaError, match="packets are damaged"):
        read(path, video=VIDEO, strict=True)


@pytest.mark.parametrize("span", [(0.0, 4.2), (0.0, 2.1), (2.5, 4.2), (0.0, 3.0), (6.0, 9.0)])
def test_rows_where_there_is_no_audio_are_counted_in_a_note(clip, span):
    media = scan(clip)
    media = dataclasses.replace(media, audio=dataclasses.replace(media.audio, span=span))
    notes = []
    _, windows = _choose_windows(media, Sampling(video=VIDEO, audio=AUDIO, stride=0.5), notes.append)
    middles = windows["video"].mean(1)
    apart = int(((middles < span[0]) | (middles > span[1])).sum())
    assert (apart == 0) == (span == (0.0, 4.2))
    expected = (
        f"audio: {apart} of {len(middles)} rows lie outside the audio; they get the nearest audio window"
    )
    assert (expected in notes) == (apart > 0)


@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        ((0.0, 5.0), []),
        ((0.0, 6.0), []),
        ((2.0, 7.5), ["2.50 s after the last frame"]),
        ((-0.5, 5.0), ["1.50 s before the first frame"]),
        ((-1.0, 9.0), ["2.00 s before the first frame", "4.00 s after the last frame"]),
    ],
)
def test_audio_without_rows_is_reported_in_a_note_if_it_is_longer_than_a_second(clip, audio, expected):
    media = scan(clip)
    tracks = {
        "video": dataclasses.replace(media.video, span=(1.0, 5.0)),
        "audio": dataclasses.replace(media.audio, span=audio),
    }
    notes = []
    _choose_windows(dataclasses.replace(media, **tracks), Sampling(video=VIDEO, audio=AUDIO), notes.append)
    assert [n for n in notes if "have no rows" in n] == [
        f"audio: {text} have no rows; modality 'audio' includes them" for text in expected
    ]


@pytest.fixture(scope="module")
def long_audio(tmp_path_factory):
    return make_media(tmp_path_factory.mktemp("clips") / "a.mkv", video_start=1.5, seconds=3, audio_seconds=7)


@pytest.mark.parametrize("options", [{}, {"stride": 0.3}])
def test_video_and_both_give_the_same_rows_however_long_the_audio_is(long_audio, options):
    video, both = (read(long_audio, video=VIDEO, audio=a, **options)[0].windows for a in (None, AUDIO))
    np.testing.assert_allclose(both["video"], video["video"], rtol=0, atol=1e-9)
    assert len(both["audio"]) == len(video["video"]) > 5


def test_uniform_rows_of_both_lie_in_the_span_of_the_video(long_audio):
    start, end = scan(long_audio).video.span
    audio = read(long_audio, video=VIDEO, audio=AUDIO, clips=5)[0].windows["audio"]
    assert audio.min() >= start - 1e-6 > 1
    assert audio.max() <= end + 1e-6 < 6


def test_damage_counts_only_for_the_streams_that_are_used(tmp_path):
    path = make_media(tmp_path / "a.mkv", audio="libmp3lame", seconds=2)
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(audio=0) if p.size]
    data = path.read_bytes()
    for packet in packets:
        data = data.replace(packet, bytes(len(packet)))
    path.write_bytes(data)
    damage = "audio: nothing in the stream can be decoded"
    opened, _, last = read(path, video=VIDEO, audio=AUDIO)
    assert (opened.missing, last.damage) == (("audio",), (damage,))
    opened, _, last = read(path, video=VIDEO, strict=True)
    assert (opened.missing, last.damage) == ((), ())
    with pytest.raises(TruncatedMediaError, match=damage):
        read(path, video=VIDEO, audio=AUDIO, strict=True)


def test_timestamps_of_months_are_refused(tmp_path):
    path = make_media(tmp_path / "a.avi", video="mpeg4", audio=None, seconds=1)
    data = bytearray(path.read_bytes())
    scale = data.index(b"strh") + 28  # seconds per frame: scale / rate
    data[scale : scale + 8] = struct.pack("<II", 200_000, 1)
    path.write_bytes(data)
    with pytest.raises(
        MediaError, match=r"span \d+ s, which has more than 1,048,576 rows; repair its timestamps, or"
    ):
        read(path, video=VIDEO)
    assert len(read(path, video=VIDEO, clips=3)[1]) == 3
