"""torchcodec returns the frames that PyAV returns, or an error. Most tests need torchcodec and a system FFmpeg."""

from __future__ import annotations

import dataclasses
import sys

import av
import make_media as media_maker
import needs
import numpy as np
import pytest
import torch
from combinations import MATRICES
from container_bytes import set_matrix, with_orientation

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.cli.extract import main
from crisscross_zoo.config import VideoConfig
from crisscross_zoo.errors import ConfigError, UnreadableMediaError
from crisscross_zoo.media import decode
from crisscross_zoo.media.clips import Clip, Sampling, Views, read_clips
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.torchcodec_frames import check_torchcodec, read_frames


def make_media(path, **options):
    return media_maker.make_media(path, **{"size": (64, 64), **options})


@pytest.fixture(scope="module")
def torchcodec():
    package = needs.package("torchcodec", extra="torchcodec")
    try:
        check_torchcodec()
    except ConfigError as error:
        needs.absent(str(error), extra="torchcodec")
    return package


needs_torchcodec = pytest.mark.usefixtures("torchcodec")
VIDEO = VideoConfig(size=56, crop_ratio=1.0)  # square frames uncropped: their numbers must be visible
TICKS = [0, 40, 100, 130, 300, 310, 700, 720, 900, 1500, 1540]


def read(path, device=None, **sampling):
    opened, *clips, last = read_clips(path, Sampling(video=VIDEO, audio=None, torchcodec=device, **sampling))
    return opened.windows["video"], [c.values for c in clips if isinstance(c, Clip)], last.damage


def assert_same(path, **sampling):
    windows, clips, damage = read(path, **sampling)
    others = read(path, "cpu", **sampling)
    np.testing.assert_array_equal(others[0], windows)
    np.testing.assert_array_equal(np.stack(others[1]), np.stack(clips))
    assert others[2] == damage
    assert len({c.tobytes() for c in clips}) == len(clips)
    return damage


@needs_torchcodec
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"video": "libx265"}),
        ("a.webm", {"video": "libvpx-vp9", "audio": None}),
        ("av1.mp4", {"video": "libsvtav1"}),
        ("ten.mp4", {"video": "libx265", "pix_fmt": "yuv420p10le"}),
        ("upright.mp4", {"rotation": 90}),
        ("upside.mp4", {"rotation": 180}),
        ("late.mp4", {"video_start": 1.5}),
        ("vfr.mp4", {"frame_ticks": TICKS}),
        ("vfr.mkv", {"frame_ticks": TICKS}),
        ("odd.mp4", {"size": (66, 62)}),
        ("open.mp4", {"options": {"x264-params": "open-gop=1"}, "seconds": 4}),
    ],
)
def test_clips_are_the_same_bytes(tmp_path, name, options):
    path = make_media(tmp_path / name, **options)
    assert_same(path, stride=0.25)
    assert_same(path, clips=3)


@needs_torchcodec
@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_and_mirrored_as_by_pyav(tmp_path, name):
    path = make_media(tmp_path / "a.mp4", size=(192, 64), seconds=0.6, audio=None)
    path.write_bytes(set_matrix(path.read_bytes(), MATRICES[name][1]))
    media, times = scan(path), np.array([0.44])
    ((_, wanted),) = decode.read_frames(media, times, on_damage=pytest.fail)
    ((_, found),) = read_frames(media, times)
    np.testing.assert_array_equal(found.numpy(), wanted)
    turned = [wanted[::-1], wanted[:, ::-1], wanted[::-1, ::-1]]
    assert all(np.abs(wanted.astype(int) - other).mean() > 20 for other in turned)


@needs_torchcodec
@pytest.mark.parametrize("how", [{"turns": 2}, {"turns": 1}, {"mirrored": True}, {"flipped": True}])
def test_frames_with_orientations_of_their_own_are_an_error(tmp_path, how):
    plain = make_media(tmp_path / "a.mp4", audio=None)
    media = scan(with_orientation(plain, tmp_path / "turned.mp4", **how))
    with pytest.raises(UnreadableMediaError, match=r"orientations of their own .*; decode it with 'pyav'"):
        list(read_frames(media, np.array([0.0])))


@needs_torchcodec
def test_a_matrix_that_torchcodec_does_not_find_is_an_error(tmp_path):
    media = scan(make_media(tmp_path / "a.mp4", audio=None))
    turned = dataclasses.replace(media.video, matrix=MATRICES["turned-90"][1])
    with pytest.raises(UnreadableMediaError, match="display matrix"):
        list(read_frames(dataclasses.replace(media, video=turned), np.array([0.0])))


@needs_torchcodec
def test_frames_that_an_edit_list_discards_are_not_counted(tmp_path):
    whole, cut = make_media(tmp_path / "whole.mp4", audio=None, gop=50), tmp_path / "cut.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.pts -= round(0.4 / packet.time_base)
                packet.dts -= round(0.4 / packet.time_base)
                packet.stream = stream
                out.mux(packet)
    video = scan(cut).video
    assert video is not None
    assert (video.packets.stamps < 0).sum() == 10  # they are in the file
    assert video.span == pytest.approx((0, 1.6), abs=0.001)
    assert_same(cut)


@needs_torchcodec
def test_a_truncated_file_gives_what_can_be_read(tmp_path):
    path = make_media(tmp_path / "a.mkv", seconds=6)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "can be read" in assert_same(path)[0]


@needs_torchcodec
def test_augmented_clips_are_the_same(tmp_path):
    from crisscross_zoo.transforms.augment import VideoAugment

    path = make_media(tmp_path / "a.mp4")
    assert_same(path, clips=2, views=Views(video=VideoAugment()))


@needs_torchcodec
@pytest.mark.parametrize(
    ("name", "video", "reason"),
    [
        ("a.avi", "mpeg4", "has timestamps"),
        ("a.ts", "libx264", "other frames"),
        ("a.mpg", "mpeg2video", "other frames"),
    ],
)
def test_formats_that_it_cannot_seek_exactly_are_an_error(tmp_path, name, video, reason):
    path = make_media(tmp_path / name, video=video, audio="mp2" if name == "a.mpg" else "aac")
    with pytest.raises(UnreadableMediaError, match=rf"{name}: .*{reason}.*; decode it with 'pyav'"):
        read(path, "cpu")
    assert read(path)[1]


@needs_torchcodec
def test_a_file_that_changed_since_it_was_scanned_is_an_error(tmp_path):
    media = scan(make_media(tmp_path / "a.mp4"))
    video = media.video
    assert video is not None
    make_media(tmp_path / "a.mp4", seconds=1)
    with pytest.raises(UnreadableMediaError, match="torchcodec"):
        list(read_frames(media, np.array([0.0, 1.5])))
    with pytest.raises(UnreadableMediaError, match=r"cannot decode it \([^/]*\); decode"):
        list(read_frames(dataclasses.replace(media, video=dataclasses.replace(video, index=1)), np.zeros(1)))
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(UnreadableMediaError, match="torchcodec cannot decode it"):
        list(read_frames(media, np.array([0.0])))


@needs_torchcodec
@pytest.mark.parametrize("workers", [0, 1])
def test_features_are_the_same_and_their_metadata_name_the_decoder(tmp_path, workers):
    paths = [make_media(tmp_path / f"{name}.mp4", seconds=1.5) for name in "ab"]
    by_pyav, by_torchcodec = (
        FeatureExtractor(
            "demo", "both", size=64, pooling="avg", device="cpu", workers=workers, decoder=decoder
        )
        for decoder in ("pyav", "torchcodec")
    )
    expected = {path: result.arrays() for path, result in by_pyav.stream(paths)}
    for path, result in by_torchcodec.stream(paths):
        for name, array in result.arrays().items():
            np.testing.assert_array_equal(array, expected[path][name])
        assert result.metadata["settings"]["decoder"] == "torchcodec"
        assert result.metadata["versions"].keys() >= {"torchcodec", "system FFmpeg", "av"}
    assert "decoder" not in by_pyav.settings  # so that outputs made before the option stay valid
    assert by_pyav.identity(paths[0]) != by_torchcodec.identity(paths[0])


@pytest.mark.cuda
@needs_torchcodec
def test_a_gpu_decodes_nearly_the_same(tmp_path):
    path = make_media(tmp_path / "a.mp4", size=(256, 256))
    expected, found = np.stack(read(path)[1]), np.stack(read(path, "cuda")[1])
    assert np.abs(found.astype(float) - expected).mean() < 3
    (_, frame), *_ = read_frames(scan(path), np.array([0.0]), device="cuda")
    assert frame.device == torch.device("cuda", 0)


def test_a_missing_package_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    path = make_media(tmp_path / "a.mp4", seconds=0.5)
    command = [str(path), "--weights", "demo", "--decoder", "torchcodec", "--out", str(tmp_path / "x.npy")]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('torchcodec is not installed; run pip install "crisscross-zoo[torchcodec]"')


def test_a_missing_ffmpeg_is_named(monkeypatch):
    torchcodec = needs.package("torchcodec", extra="torchcodec")
    monkeypatch.setattr(torchcodec, "ffmpeg_major_version", None)
    with pytest.raises(ConfigError, match="finds no FFmpeg it can load; install FFmpeg 4 to 9"):
        FeatureExtractor("demo", decoder="torchcodec")


def test_an_unknown_decoder_or_one_without_video_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'torchcodec'"):
        FeatureExtractor("demo", decoder="torchcodecs")
    with pytest.raises(ConfigError, match="is for video"):
        FeatureExtractor("demo", "audio", decoder="torchcodec")
