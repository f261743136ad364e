"""Packets without a frame to show, on bytes made by hand."""

import av
import pytest
from container_bytes import not_coded

from crisscross_zoo.media.hidden import HiddenPackets

VOP = b"\0\0\1\xb6"


def packed_bits(text):
    """Return the bytes of bits written as text; blanks do not count, and zeros fill the last byte."""
    text = text.replace(" ", "")
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def layer(resolution, *, version=None, shape="00", aspect="0001", control="0"):
    """Return an MPEG-4 video object layer whose time is in units of 1 / ``resolution`` seconds."""
    identifier = "0" if version is None else f"1 {version:04b} 001"
    return b"\0\0\1\x20" + packed_bits(
        f"0 00000001 {identifier} {aspect} {control} {shape} 1 {resolution:016b} 1 0"
    ) + b"\xff"  # fmt: skip


def vop(kind, increment_bits, *, seconds=0, increment=0, coded=True, size=200):
    """Return a frame of kind 0 to 3 (I, P, B, S); its own bytes hold no other start code."""
    header = f"{kind:02b} {'1' * seconds} 0 1 {increment:0{increment_bits}b} 1 {int(coded)}"
    return VOP + packed_bits(header) + b"\xaa" * (size if coded else 0)


def hidden(codec, extradata, *packets):
    packets_of = HiddenPackets(codec, extradata)
    return [not packets_of.shows(av.Packet(p)) for p in packets]


I5, P5, B5 = (vop(kind, 5) for kind in (0, 1, 2))
N5 = vop(1, 5, increment=3, coded=False)


@pytest.mark.parametrize(
    ("header", "bits"),
    [
        (layer(25), 5),
        (layer(2), 1),
        (layer(1), 1),
        (layer(30_000), 15),
        (layer(65_535), 16),
        (layer(25, version=2), 5),
        (layer(25, version=2, shape="11 0000"), 5),
        (layer(25, aspect="1111 00001100 00001011"), 5),
        (layer(25, control="1 01 1 0"), 5),
        (layer(25, control=f"1 01 1 1 {'1' * 79}"), 5),
        (b"\0\0\1\xb0\x01" + layer(24_000), 15),
    ],
)
@pytest.mark.parametrize("seconds", [0, 1, 3])
def test_a_frame_that_is_not_coded_is_detected_by_its_own_bit(header, bits, seconds):
    coded, not_so = (vop(1, bits, seconds=seconds, increment=0, coded=c, size=8) for c in (True, False))
    assert hidden("mpeg4", header, coded, not_so, coded) == [False, True, False]


def test_the_header_may_be_in_the_first_packet():
    assert hidden("mpeg4", None, layer(25) + I5, N5, P5) == [False, True, False]
    assert hidden("mpeg4", b"no header", layer(25) + I5, N5, P5) == [False, True, False]


def test_without_a_header_no_frame_is_taken_as_not_coded():
    assert hidden("mpeg4", None, I5, N5, P5) == [False, False, False]


def test_the_frames_that_other_tests_write_are_not_coded():
    assert hidden("mpeg4", layer(25), P5, not_coded(P5, 5)) == [False, True]


@pytest.mark.parametrize("chunk", [b"", b"\x7f", b"\0" * 7])
def test_a_few_bytes_without_a_frame_are_a_placeholder(chunk):
    assert hidden("mpeg4", layer(25), I5, chunk, P5) == [False, True, False]


def test_a_long_packet_is_no_placeholder():
    assert hidden("mpeg4", layer(25), N5 + bytes(100)) == [False]


@pytest.mark.parametrize("placeholder", [N5, b"\x7f"])
def test_a_placeholder_after_a_packet_of_two_frames_shows_the_second(placeholder):
    packets_of = HiddenPackets("mpeg4", layer(25))
    assert packets_of.shows(av.Packet(I5))
    assert not packets_of.packed
    shown = [packets_of.shows(av.Packet(p)) for p in (P5 + B5, placeholder, P5, P5 + B5, B5, placeholder)]
    assert shown == [True] * 6
    assert packets_of.packed
    assert not packets_of.shows(av.Packet(placeholder))  # one more than there were second frames


def test_two_placeholders_after_a_packet_of_three_frames_show_frames():
    assert hidden("mpeg4", layer(25), P5 + B5 + B5, N5, N5, N5) == [False, False, False, True]


@pytest.mark.parametrize(
    ("first", "is_hidden"), [(0x10, False), (0x11, False), (0x00, True), (0x01, True), (0xEF, True)]
)
def test_vp8_by_its_bit(first, is_hidden):
    # RFC 6386, 9.1: from the least significant bit, key frame, version (3 bits), show_frame, size.
    assert hidden("vp8", None, bytes([first, 0, 0])) == [is_hidden]


@pytest.mark.parametrize(
    ("bits", "is_hidden"),
    [
        ("10 0 0 0 0 1 0", False),  # profile 0, a key frame that is shown
        ("10 0 0 0 0 0 0", True),
        ("10 0 0 0 1 0 0", True),
        ("10 0 0 1 000", False),  # shows an existing frame
        ("10 1 0 0 0 0 0", True),
        ("10 1 1 0 0 0 0 0", True),  # profile 3 has a reserved bit
        ("10 1 1 0 0 0 1 0", False),
        ("01 0 0 0 0 0 0", False),  # not VP9
    ],
)
def test_vp9_by_its_header(bits, is_hidden):
    assert hidden("vp9", None, packed_bits(bits) + bytes(4)) == [is_hidden]


def test_a_vp9_superframe_shows_its_last():
    index = b"\xc1\x04\x05\xc1"
    assert hidden("vp9", None, packed_bits("10 0 0 0 0 0 0") + bytes(8) + index) == [False]


@pytest.mark.parametrize(
    ("first", "is_hidden"), [(0x80, True), (0x81, True), (0x82, True), (0x00, False), (0x40, False)]
)
def test_headers_inside_theora(first, is_hidden):
    assert hidden("theora", None, bytes([first]) + b"theora") == [is_hidden]


def test_an_empty_packet_of_theora_repeats_a_frame():
    assert hidden("theora", None, b"") == [False]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_every_packet_of_other_codecs_shows_a_frame(codec):
    assert hidden(codec, None, b"\xff" * 40) == [False]
