"""Packets that no frame to show comes of: placeholders and hidden frames, told by their first bits.

MPEG-4 Part 2 (XviD, DivX) writes a "not coded" frame where the one before is to stay (ISO/IEC 14496-2, 6.2.3 and
6.2.5), or behind a packet that holds two frames. Theora has headers in the middle of chained files (Theora I
specification, 6.1). VP8 (RFC 6386, 9.1) and VP9 (bitstream specification, 6.2) have frames that are only referred to.
"""

from __future__ import annotations

_VOP = b"\x00\x00\x01\xb6"
_LONGEST_NOT_CODED = 64  # bytes, with what may stand before it


class HiddenPackets:
    """Tells the hidden packets of a stream, in the order of the file.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The stream's own header, which may say how MPEG-4 counts time.

    Attributes:
        packed: Whether a packet held two frames.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self.packed = False
        self._owed = 0  # frames of earlier packets that the decoder gives for placeholders that follow
        self._time_bits: int | None = None
        if codec == "mpeg4" and extradata:
            self._time_bits = _time_bits(extradata)

    @property
    def looks(self) -> bool:
        """Whether packets of this codec need to be looked at."""
        return self._codec in ("mpeg4", "theora", "vp8", "vp9")

    def hides(self, data: bytes) -> bool:
        """Return whether the stream's next packet gives no frame to show."""
        if self._codec == "vp8":
            return len(data) > 0 and not data[0] >> 4 & 1
        if self._codec == "theora":
            return len(data) > 0 and data[0] >> 7 == 1  # a header, where another stream begins
        if self._codec == "vp9":
            return _vp9_hides(data)
        if self._codec != "mpeg4":
            return False
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
        if len(data) < 8 and _VOP not in data:  # as DivX and VfW write where the frame before is to stay
            return True
        short = len(data) <= _LONGEST_NOT_CODED and self._time_bits is not None
        return short and _not_coded(data, self._time_bits or 1)


class _Bits:
    """Reads bits from the most significant one on; beyond the end they are 0."""

    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        value = self._number >> self._left if self._left >= 0 else self._number << -self._left
        return value & ((1 << count) - 1)

    @property
    def over(self) -> bool:
        return self._left < 0


def _vp9_hides(data: bytes) -> bool:
    bits = _Bits(data[:2])
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
    """Bits of vop_time_increment by the video object layer's header, None where there is none."""
    for code in range(0x20, 0x30):
        at = data.find(bytes((0, 0, 1, code)))
        if at >= 0:
            break
    else:
        return None
    bits = _Bits(data[at + 4 : at + 68])
    bits.take(1 + 8)  # random_accessible_vol, video_object_type_indication
    version = 1
    if bits.take(1):
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == 15:  # aspect ratio by its own width and height
        bits.take(16)
    if bits.take(1):
        bits.take(2 + 1)
        if bits.take(1):  # of the buffer: 15 + 15 + 15 + 3 + 11 + 15 bits, and five markers
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
    bits = _Bits(data[at + 4 :])
    bits.take(2)
    while bits.take(1) and not bits.over:  # seconds
        pass
    bits.take(1 + time_bits + 1)
    coded = bits.take(1)
    return not bits.over and not coded and data.find(_VOP, at + 4) < 0
