"""H.264 with one field per packet: two packets are one frame, wherever it is read from."""

import shutil

import av
import needs
import numpy as np
import pytest
from combinations import in_fields
from make_media import read_number
from numbered import COUNT, FPS, ffmpeg

from crisscross_zoo.media import seek
from crisscross_zoo.media.decode import read_frames
from crisscross_zoo.media.hidden import HiddenPackets
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    if shutil.which("ffmpeg") is None:
        needs.absent("the command ffmpeg")
    folder = tmp_path_factory.mktemp("fields")
    files = {"mp4": in_fields(folder / "a.mp4", together=False)}
    for suffix, source in (("ts", "mp4"), ("mkv", "ts")):
        files[suffix] = folder / f"fields.{suffix}"
        ffmpeg("-i", files[source], "-c copy", files[suffix])
    return files


def whole(media, times):
    return [f for count, f in read_frames(media, times, on_damage=pytest.fail) for _ in range(count)]


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_two_fields_are_one_frame(files, suffix):
    media = scan(files[suffix])
    assert media.damage == ()
    assert media.video.frames == COUNT
    assert media.video.span == pytest.approx((0, COUNT / FPS), abs=1e-3)
    times = (np.arange(COUNT) + 0.25) / FPS
    assert [read_number(f) for f in whole(media, times)] == list(range(COUNT))


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_random_access_finds_both_fields_of_a_frame(files, suffix, monkeypatch):
    """Wherever a seek lands: every field is flagged as a key frame, and only each third frame is a reference."""
    media = scan(files[suffix])
    times = (np.arange(COUNT) + 0.75) / FPS  # nearer to the second field than to the first
    frames = whole(media, times)
    if suffix == "ts":  # other formats' flags are trusted, and then found to be wrong
        monkeypatch.setattr(seek, "convert_frames", lambda *a, **k: pytest.fail("read from the start"))
    for k in range(COUNT):
        sought, _ = read_moment(media.compact(), times=times[k : k + 1])
        np.testing.assert_array_equal(sought[0], frames[k], err_msg=str(k))


def test_fields_are_detected_behind_start_codes_and_behind_lengths(files):
    for suffix in ("ts", "mp4"):
        with av.open(str(files[suffix])) as container:
            stream = container.streams.video[0]
            hidden = HiddenPackets("h264", stream.codec_context.extradata)
            shown = [hidden.shows(packet) for packet in container.demux(stream) if packet.size]
        assert shown == [True, False] * COUNT


def test_packets_of_progressive_h264_are_not_parsed(tmp_path):
    path = tmp_path / "a.mp4"
    ffmpeg("-f lavfi -i testsrc2=d=1 -c:v libx264", path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        hidden = HiddenPackets("h264", stream.codec_context.extradata)
        assert hidden._fields is not None
        hidden._fields.ends = lambda data: pytest.fail("parsed")
        assert all(hidden.shows(packet) for packet in container.demux(stream) if packet.size)
