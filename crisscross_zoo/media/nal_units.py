"""Divide packets of H.264 and HEVC into NAL units, and read bits."""

from __future__ import annotations

from collections.abc import Iterator

_LENGTH_BYTES_AT = {
    "h264": 4,
    "hevc": 21,
}  # of a decoder configuration record (ISO/IEC 14496-15, 5.2.4.1, 8.3.2.1)


class Bits:
    """Read bits from the most significant one on; beyond the end they are 0."""

    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """Read a number of ``count`` bits."""
        self._left -= count
        value = self._number >> self._left if self._left >= 0 else self._number << -self._left
        return value & ((1 << count) - 1)

    def golomb(self) -> int:
        """Read an unsigned number in Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32 or self.over:
                return 0
        return (1 << zeros) - 1 + self.take(zeros)

    @property
    def over(self) -> bool:
        """Whether more bits were read than there are."""
        return self._left < 0


def length_bytes(codec: str, extradata: bytes) -> int:
    """Return the size of the length field before each NAL unit of a packet; 0: start codes, or another codec."""
    at = _LENGTH_BYTES_AT.get(codec)
    if at is None or extradata[:1] != b"\x01" or len(extradata) <= at:
        return 0
    return (extradata[at] & 3) + 1


def nal_units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield a packet's NAL units, each after its length in ``length_bytes`` bytes, or after a start code if 0."""
    if length_bytes:
        at = 0
        while at + length_bytes < len(data):
            size = int.from_bytes(data[at : at + length_bytes], "big")
            at += length_bytes
            if size:
                yield data[at : at + size]
            at += size
        return
    at = data.find(b"\0\0\1")
    while at >= 0:
        end = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : end if end >= 0 else len(data)]
        if unit:
            yield unit
        at = end


def payload(unit: bytes) -> bytes:
    """Return a NAL unit, or a part of it, without the bytes that prevent start codes in it."""
    return unit.replace(b"\0\0\3", b"\0\0")
