"""Detect packets without a frame to show, placeholders and hidden frames, by their first bits.

MPEG-4 Part 2 (XviD, DivX) writes a "not coded" frame to repeat the frame before (ISO/IEC 14496-2, 6.2.3 and 6.2.5), or
after a packet that holds two frames. Theora has headers in the middle of chained files (Theora I specification, 6.1).
VP8 (RFC 6386, 9.1) and VP9 (bitstream specification, 6.2) have frames that are references only. H.264 may have one
field per packet (ITU-T H.264, 7.3.2.1.1 and 7.3.3); the decoder joins two fields to one frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import av

from crisscross_zoo.media.nal_units import Bits, length_bytes, nal_units, payload

_VOP = b"\x00\x00\x01\xb6"
_LONGEST_NOT_CODED = 64  # bytes, with headers that may precede it


class HiddenPackets:
    """Find the packets of a stream without a frame to show, packet by packet in the order of the file.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The stream's own header, which may hold the resolution of MPEG-4's time.

    Attributes:
        packed: Whether a packet held two frames.
        second: Whether the last packet was the second field of the frame that the packet before began.
        unseen: Whether the last packet's timestamps may lie anywhere: it is discarded, a header or a second field.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self.packed = self.second = self.unseen = False
        self._owed = 0  # frames of earlier packets that the decoder returns for placeholders that follow
        self._time_bits: int | None = None
        self._fields = _Fields(extradata or b"") if codec == "h264" else None
        if codec == "mpeg4" and extradata:
            self._time_bits = _time_bits(extradata)

    def shows(self, packet: av.Packet[Any]) -> bool:
        """Return whether the stream's next packet has a frame to show."""
        hidden = False
        if self._fields is not None:
            self.second = hidden = self._fields.must_parse(packet.is_keyframe) and self._fields.ends(
                bytes(packet)
            )
        elif self._codec in ("mpeg4", "theora", "vp8", "vp9"):
            hidden = self._hides(bytes(packet))
        self.unseen = packet.is_discard or self.second or (hidden and self._codec == "theora")
        return not (packet.is_discard or hidden)

    @classmethod
    def begin_inside(cls, packets: Sequence[av.Packet[Any]], codec: str, extradata: bytes | None) -> bool:
        """Return whether the first packet is, or may be, the second field of a frame whose first field is missing."""
        hidden = cls(codec, extradata)
        for packet in packets[:2]:
            hidden.shows(packet)
            if hidden._fields is None or not hidden._fields.open:
                return False
            if not hidden._fields.reference:  # the next frame's fields have the same frame_num
                return True
        return True

    def _hides(self, data: bytes) -> bool:
        if self._codec == "vp8":
            return len(data) > 0 and not data[0] >> 4 & 1
        if self._codec == "theora":
            return len(data) > 0 and data[0] >> 7 == 1  # a header, where another stream begins
        if self._codec == "vp9":
            return _vp9_hides(data)
        if self._time_bits is None:
            self._time_bits = _time_bits(data)
        if not self._is_placeholder(data):
            if more := max(0, data.count(_VOP) - 1):  # a B-frame behind another
                self._owed += more
                self.packed = True
            return False
        self._owed, owed = max(0, self._owed - 1), self._owed
        return owed == 0

    def _is_placeholder(self, data: bytes) -> bool:
        if len(data) < 8 and _VOP not in data:  # as DivX and VfW write to repeat the frame before
            return True
        short = len(data) <= _LONGEST_NOT_CODED and self._time_bits is not None
        return short and _not_coded(data, self._time_bits or 1)


def _vp9_hides(data: bytes) -> bool:
    bits = Bits(data[:2])
    if bits.take(2) != 2 or data[-1] & 0xE0 == 0xC0:  # no frame, or one with more behind it: a superframe
        return False
    profile = bits.take(1) | bits.take(1) << 1
    if profile == 3:
        bits.take(1)
    if bits.take(1):  # show_existing_frame
        return False
    bits.take(1)
    return not bits.take(1)


def _time_bits(data: bytes) -> int | None:
    """Return the number of bits of vop_time_increment by the video object layer's header, None without a header."""
    for code in range(0x20, 0x30):
        at = data.find(bytes((0, 0, 1, code)))
        if at >= 0:
            break
    else:
        return None
    bits = Bits(data[at + 4 : at + 68])
    bits.take(1 + 8)  # random_accessible_vol, video_object_type_indication
    version = 1
    if bits.take(1):
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == 15:  # aspect ratio by its own width and height
        bits.take(16)
    if bits.take(1):
        bits.take(2 + 1)
        if bits.take(1):  # VBV parameters: 15 + 15 + 15 + 3 + 11 + 15 bits, and five markers
            bits.take(79)
    if bits.take(2) == 3 and version != 1:  # grayscale
        bits.take(4)
    bits.take(1)
    resolution = bits.take(16)
    return None if bits.over or resolution == 0 else max(1, (resolution - 1).bit_length())


def _not_coded(data: bytes, time_bits: int) -> bool:
    at = data.find(_VOP)
    if at < 0:
        return False
    bits = Bits(data[at + 4 :])
    bits.take(2)
    while bits.take(1) and not bits.over:  # seconds
        pass
    bits.take(1 + time_bits + 1)
    coded = bits.take(1)
    return not bits.over and not coded and data.find(_VOP, at + 4) < 0


_IN_SLICES, _SPS, _PPS = (1, 5), 7, 8  # types of H.264's NAL units
_LONGEST_HEADER = 32  # bytes of a slice that are parsed
_WITH_CHROMA = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})  # profiles


class _Fields:
    """Find the second fields among H.264's packets.

    Two successive fields with the same frame_num, one top and one bottom, are one frame.
    """

    def __init__(self, extradata: bytes) -> None:
        self._length_bytes = length_bytes("h264", extradata)
        self._sequences: dict[
            int, tuple[int, bool, bool]
        ] = {}  # bits of frame_num, colour planes, progressive
        self._sequence_of: dict[int, int] = {}  # by picture parameter set
        self.reference = True  # whether the last field is a reference
        self._open: tuple[int, bool] | None = None  # a first field's frame_num, and whether it is the bottom
        for unit in _avcc_units(extradata) if self._length_bytes else nal_units(extradata, 0):
            self._learn(unit)

    def must_parse(self, is_key: bool) -> bool:
        """Return whether the next packet must be parsed: not if all frames are progressive."""
        if all(progressive for _, _, progressive in self._sequences.values()) and self._sequences:
            return is_key and not self._length_bytes  # it may hold other parameter sets
        return True

    @property
    def open(self) -> bool:
        """Whether a first field waits for its second."""
        return self._open is not None

    def ends(self, data: bytes) -> bool:
        """Return whether the next packet holds nothing but the second field of a frame."""
        last: bool | None = None  # parity of the previous field in this packet
        second = False
        for unit in nal_units(data, self._length_bytes):
            kind = unit[0] & 31
            if kind in (_SPS, _PPS):
                self._learn(unit)
            if kind not in _IN_SLICES:
                continue
            field = self._field(unit)
            if field is None:  # a frame
                self._open = None
                return False
            self.reference = unit[0] >> 5 & 3 > 0
            if field[1] == last:  # another slice of the same field
                continue
            pairs = self._open is not None and self._open == (field[0], not field[1])
            second = pairs and last is None
            self._open, last = (None if pairs else field), field[1]
        return second

    def _learn(self, unit: bytes) -> None:
        kind = unit[0] & 31
        bits = Bits(payload(unit[1:]))
        if kind == _SPS:
            number, sequence = _sequence(bits)
            self._sequences[number] = sequence
        elif kind == _PPS:
            number = bits.golomb()
            self._sequence_of[number] = bits.golomb()

    def _field(self, unit: bytes) -> tuple[int, bool] | None:
        """Return a slice's frame_num and whether it belongs to a bottom field; None if it belongs to a frame."""
        bits = Bits(payload(unit[1:_LONGEST_HEADER]))
        bits.golomb()  # first_mb_in_slice
        bits.golomb()  # slice_type
        sequence = self._sequences.get(self._sequence_of.get(bits.golomb(), -1))
        if sequence is None or sequence[2]:
            return None
        number_bits, planes, _ = sequence
        bits.take(2 if planes else 0)
        number = bits.take(number_bits)
        return (number, bool(bits.take(1))) if bits.take(1) else None


def _avcc_units(extradata: bytes) -> Iterator[bytes]:
    """Yield the parameter sets of an AVC decoder configuration record (ISO/IEC 14496-15, 5.2.4.1)."""
    at = 5
    for mask in (31, 255):
        count, at = (extradata[at] & mask if at < len(extradata) else 0), at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            if unit := extradata[at + 2 : at + 2 + size]:
                yield unit
            at += 2 + size


def _sequence(bits: Bits) -> tuple[int, tuple[int, bool, bool]]:
    """Return a sequence parameter set's number; and frame_num's bits, separate colour planes, frames only."""
    profile = bits.take(8)
    bits.take(16)
    number, chroma, planes = bits.golomb(), 1, False
    if profile in _WITH_CHROMA:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.take(1))
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for k in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling(bits, 16 if k < 6 else 64)
    number_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    bits.golomb()
    bits.golomb()
    return number, (number_bits, planes, bits.over or bool(bits.take(1)))


def _skip_scaling(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + (-(code // 2) if code % 2 == 0 else code // 2 + 1)) % 256
        last = following or last
