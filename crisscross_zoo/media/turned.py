"""Detect packets of H.264 and HEVC that state how their frames are turned or mirrored."""

from __future__ import annotations

from typing import Any

import av

from crisscross_zoo.media.nal_units import Bits, length_bytes, nal_units, payload

_SLICE, _SEI, _OTHER = range(3)
_SEI_BEGINS = {"h264": b"\0\0\1\x06", "hevc": b"\0\0\1\x4e"}  # with a start code
_HEAD_BYTES = 4096  # of a packet, in which SEI messages lie: they precede the slices
_DISPLAY_ORIENTATION = 47  # type of an SEI message


class TurnedPackets:
    """Find the packets of H.264 and HEVC that state how their frames are turned or mirrored.

    They do so in a display orientation SEI message (ITU-T H.264, D.1.27; H.265, D.2.17).

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The stream's own header, which tells how packets are divided into NAL units.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self._length_bytes = length_bytes(codec, extradata or b"")

    def turns(self, packet: av.Packet[Any]) -> bool:
        """Return whether a packet states another orientation than upright."""
        if self._codec not in _SEI_BEGINS:
            return False
        head = bytes(memoryview(packet)[:_HEAD_BYTES])
        if self._length_bytes:
            if len(head) > self._length_bytes and self._kind(head[self._length_bytes]) == _SLICE:
                return False  # most packets
        elif _SEI_BEGINS[self._codec] not in head:
            return False
        for unit in nal_units(head, self._length_bytes):
            kind = self._kind(unit[0])
            if kind == _SLICE:
                return False
            if kind == _SEI and _turns(payload(unit[1 if self._codec == "h264" else 2 :])):
                return True
        return False

    def _kind(self, header: int) -> int:
        """Return :data:`_SLICE`, :data:`_SEI` or another number for the first byte of a NAL unit."""
        if self._codec == "h264":
            kind = header & 31
            return _SLICE if 1 <= kind <= 5 else _SEI if kind == 6 else _OTHER
        kind = header >> 1 & 63
        return _SLICE if kind < 32 else _SEI if kind == 39 else _OTHER


def _turns(messages: bytes) -> bool:
    """Return whether one of the SEI messages of a NAL unit states another orientation than upright."""
    at = 0
    while at + 2 < len(messages):
        numbers = []
        for _ in range(2):  # type and size
            number = 0
            while at < len(messages) and messages[at] == 255:
                number, at = number + 255, at + 1
            numbers.append(number + (messages[at] if at < len(messages) else 0))
            at += 1
        kind, size = numbers
        if kind == _DISPLAY_ORIENTATION:
            bits = Bits(messages[at : at + size])
            if not bits.take(1) and bits.take(18):  # not cancelled; two flips and 16 bits of rotation
                return True
        at += size
    return False
