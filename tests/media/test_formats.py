"""Streams without a decoder, frames with orientations of their own, and joined files."""

import io
import re
import struct

import av
import numpy as np
import pytest
from container_bytes import uninterleaved, with_orientation
from make_media import make_media
from PIL import Image

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import NoStreamError, TruncatedMediaError, UnreadableMediaError
from crisscross_zoo.media.clips import FileOpened, FileRead, Sampling, read_clips
from crisscross_zoo.media.codec_names import codec_name
from crisscross_zoo.media.decode import read_frames
from crisscross_zoo.media.encode import CopyOptions, reencode
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.media.turned import TurnedPackets

VIDEO, AUDIO = VideoConfig(size=32), AudioConfig()

# File, what to encode, the codec's name in the header and another one, the stream, how the finding names it.
UNKNOWN = {
    "a.mkv": ({"audio": "libopus", "sample_rate": 48_000}, b"A_OPUS", b"A_XPUS", "audio", "A_XPUS"),
    "v.mkv": ({"audio": "aac"}, b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX", "video", "V_MPEG4/ISO/AVX"),
    "a.mov": ({"audio": "pcm_s16le"}, b"sowt", b"qqqq", "audio", "qqqq"),
    "v.mov": (
        {"video": "prores_ks", "pix_fmt": "yuv422p10le", "audio": "pcm_s16le"},
        b"apch",
        b"qqqq",
        "video",
        "qqqq",
    ),
    "v.avi": ({"video": "ffv1", "audio": "pcm_s16le"}, b"FFV1", b"QQQQ", "video", "QQQQ"),
}


def unknown(folder, name):
    options, codec, other, stream, named = UNKNOWN[name]
    path = make_media(folder / name, seconds=1, size=(64, 64), **options)
    data = path.read_bytes()
    assert codec in data
    path.write_bytes(data.replace(codec, other))
    return path, stream, f"its codec '{named}' has no decoder"


def events(path, video=None, audio=None, **options):
    found = list(read_clips(path, Sampling(video=video, audio=audio, **options)))
    return (next(e for e in found if isinstance(e, kind)) for kind in (FileOpened, FileRead))


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_stream_without_a_decoder_is_damage_and_missing(tmp_path, name):
    path, stream, reason = unknown(tmp_path, name)
    opened, last = events(path, VIDEO, AUDIO)
    assert opened.missing == (stream,)
    assert last.damage == (f"{stream}: {reason}",)
    with pytest.raises(TruncatedMediaError, match="has a stream that cannot be decoded"):
        list(events(path, VIDEO, AUDIO, strict=True))
    alone, other = (
        ({"video": VIDEO}, {"audio": AUDIO}) if stream == "video" else ({"audio": AUDIO}, {"video": VIDEO})
    )
    for strict in (False, True):
        with pytest.raises(NoStreamError, match=f"{stream} stream cannot be decoded .{reason}.; use"):
            list(events(path, **alone, strict=strict))
        opened, last = events(path, **other, strict=strict)
        assert (opened.missing, last.damage) == ((), ())
    with pytest.raises(NoStreamError, match=re.escape(reason)):
        raise Media.from_row(scan(path).to_row()).lacks(stream)


def test_a_file_without_any_decoder_is_refused_with_the_codec(tmp_path):
    path = make_media(tmp_path / "a.mkv", video=None, audio="libopus", sample_rate=48_000, seconds=1)
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_XPUS"))
    with pytest.raises(UnreadableMediaError, match=r"nothing .* decoded; audio: its codec 'A_XPUS' has no"):
        scan(path)


def test_a_file_without_any_decoder_is_not_read_to_its_end(tmp_path, monkeypatch):
    path = make_media(tmp_path / "a.mkv", video=None, audio="libopus", sample_rate=48_000, seconds=1)
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_XPUS"))
    monkeypatch.setattr("crisscross_zoo.media.scan._Scan", lambda *_: pytest.fail("read"))
    with pytest.raises(UnreadableMediaError, match="A_XPUS"):
        scan(path)


def test_a_stream_header_of_avi_does_not_take_the_format_of_another():
    headers = [b"strh" + bytes(4) + kind + bytes(52) for kind in (b"vids", b"auds")]
    data = headers[0] + bytes(1000) + headers[1] + b"strf" + bytes(4) + b"\x34\x12" + bytes(18)
    assert codec_name(io.BytesIO(data), "avi", 0) == "0x1234"


def test_the_second_audio_stream_is_used_if_only_the_first_has_no_decoder(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=48_000) for codec in ("libopus", "flac")]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.full((1, 2 * 48_000), 999, np.int16), "s16", "stereo")
            frame.rate, frame.pts = 48_000, 0
            container.mux([*stream.encode(frame), *stream.encode(None)])
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_XPUS"))
    media = scan(path)
    assert (media.audio.codec, media.damage) == ("flac", ())


def test_cover_art_without_a_decoder_is_no_video(tmp_path):
    path = make_media(tmp_path / "a.mp3", video=None, audio="libmp3lame", seconds=1)
    picture = b"\0image/unknown\0\3\0" + bytes(500)
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + frame + path.read_bytes())
    media = scan(path)
    assert media.damage == ()
    assert isinstance(media.lacks("video"), NoStreamError)


# --- orientations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_frames_are_turned_by_their_own_matrices_to_the_shape_of_the_first(tmp_path, suffix, turns):
    plain = make_media(tmp_path / f"a{suffix}", audio=None, seconds=1, gop=10)
    path = with_orientation(plain, tmp_path / f"b{suffix}", turns=turns)
    times = np.array([0.0, 0.2, 0.4, 0.6])  # only the frames at 0 and 0.4 are key frames
    media = scan(path)
    before, after = (
        [frame for count, frame in read_frames(m, times, on_damage=pytest.fail) for _ in range(count)]
        for m in (scan(plain), media)
    )
    for k in (0, 2):
        np.testing.assert_array_equal(after[k], np.rot90(before[k], turns))
    assert len({frame.shape for frame in after}) == 1
    if turns == 2:
        np.testing.assert_array_equal(after[1], before[1])
    for known in (media, media.compact(), Media.from_row(media.to_row())):
        np.testing.assert_array_equal(read_moment(known, times=times[::-1])[0], np.stack(after[::-1]))
        np.testing.assert_array_equal(read_moment(known, times=times[1:2])[0][0], after[1])


@pytest.mark.parametrize("turns", [1, 2])
def test_a_copy_of_frames_with_orientations_of_their_own_has_the_shape_of_the_first(tmp_path, turns):
    path = with_orientation(
        make_media(tmp_path / "a.mp4", seconds=1, gop=10), tmp_path / "b.mp4", turns=turns
    )
    media, out = scan(path), tmp_path / "copy.mp4"
    assert media.video.turns
    reencode(media, out, CopyOptions(short_side=64, crf=5), on_damage=pytest.fail)
    times = np.array([0.0, 0.2, 0.4, 0.6])
    before, after = (read_moment(m, times=times)[0].astype(int) for m in (media, scan(out)))
    assert after.shape == before.shape
    assert abs(after - before).mean() < 3


H264_AVCC, HEVC_HVCC = b"\1\x64\0\x1f\xff\xe0\0", b"\1" + bytes(20) + b"\xff\0"
TURN, UPRIGHT, CANCEL = b"\x2f\3\x20\0\x14", b"\x2f\3\0\0\x14", b"\x2f\1\xc0"
OTHER = b"\5\xff\1" + bytes(256)  # 256 bytes of user data


@pytest.mark.parametrize(
    ("codec", "sei", "slices"), [("h264", b"\6", b"\x65\x88"), ("hevc", b"\x4e\1", b"\x26\1\xaf")]
)
@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        (TURN, True),
        (UPRIGHT, False),
        (CANCEL, False),
        (OTHER + TURN, True),
        (OTHER, False),
        (b"", False),
        (b"\x2f", False),
    ],
)
def test_a_turned_packet_is_found_by_its_message(codec, sei, slices, prefixed, messages, turns):
    extradata = {"h264": H264_AVCC, "hevc": HEVC_HVCC}[codec] if prefixed else None
    units = [sei + messages.replace(b"\0\0\0", b"\0\0\3\0") + b"\x80", slices + bytes(9)]
    heads = [len(u).to_bytes(4, "big") if prefixed else b"\0\0\0\1" for u in units]
    found = TurnedPackets(codec, extradata)
    assert found.turns(av.Packet(heads[0] + units[0] + heads[1] + units[1])) is turns
    assert not found.turns(av.Packet(heads[1] + units[1]))
    assert not TurnedPackets("vp9", None).turns(av.Packet(heads[0] + units[0]))


# --- joined files ------------------------------------------------------------------------------------------------


def chunk(name, data, size=">I"):
    return name + struct.pack(size, len(data)) + data + bytes(len(data) % 2)


def dsf():
    sound = b"data" + struct.pack("<Q", 12 + 8192) + b"\x69" * 8192
    form = b"fmt " + struct.pack("<Q6IQ2I", 52, 1, 0, 1, 1, 2_822_400, 1, 8 * 8192, 4096, 0)
    return b"DSD " + struct.pack("<3Q", 28, 28 + len(form) + len(sound), 0) + form + sound


def dsdiff():
    pairs = ((b"FS  ", struct.pack(">I", 2_822_400)), (b"CHNL", b"\0\1C   "), (b"CMPR", b"DSD \4none\0"))
    properties = b"SND " + b"".join(chunk(*pair, ">Q") for pair in pairs)
    pairs = ((b"FVER", b"\1\5\0\0"), (b"PROP", properties), (b"DSD ", b"\x69" * 8192))
    return chunk(b"FRM8", b"DSD " + b"".join(chunk(*pair, ">Q") for pair in pairs), ">Q")


def eight_svx():
    header = struct.pack(">3IH2BI", 8000, 0, 0, 8000, 1, 0, 1 << 16)
    return chunk(b"FORM", b"8SVX" + chunk(b"VHDR", header) + chunk(b"BODY", bytes(range(250)) * 32))


@pytest.mark.parametrize("make", [dsf, dsdiff, eight_svx])
def test_joined_audio_of_which_the_first_is_read_is_damage(tmp_path, make):
    path = tmp_path / "a"
    path.write_bytes(make())
    assert scan(path).damage == ()
    path.write_bytes(2 * make())
    assert scan(path).damage == ("another file is joined to its end and is not read",)


def test_media_data_in_several_boxes_is_no_joined_file(tmp_path):
    path = make_media(tmp_path / "a.mov", seconds=1)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0\0\0\x08wide\0\0\0\x10mdat" + bytes(8))
    assert scan(path).damage == ()
    path.write_bytes(2 * whole)
    assert scan(path).damage == ("another file is joined to its end and is not read",)


def test_a_joined_avi_that_is_not_interleaved_is_damage(tmp_path):
    data = make_media(tmp_path / "a.avi", video="mpeg4", audio="pcm_s16le", seconds=4).read_bytes()
    path = tmp_path / "b.avi"
    for order, damage in (
        (None, ()),
        (uninterleaved, ("another file is joined to its end and is not read",)),
    ):
        path.write_bytes(2 * (order(data) if order else data))
        assert scan(path).damage == damage


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_the_first_of_joined_images_is_used(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for level in (200, 50):
        Image.new("RGB", (64, 48), (level,) * 3).save(tmp_path / f"one.{suffix}")
        with path.open("ab") as file:
            file.write((tmp_path / f"one.{suffix}").read_bytes())
    media = scan(path)
    assert media.video.frames == 1
    assert media.damage == ()
    frames, _ = read_moment(media, times=np.zeros(1))
    assert abs(frames.mean() - 200) < 3
