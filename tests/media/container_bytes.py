"""Change the bytes of media files.

Timestamps of MPEG-TS, MPEG-PS and Ogg, edit lists, matrices and chunks of MP4, chunks of AVI, frames of MPEG-2 and
MPEG-4. Encode H.264 and MPEG-2 as single fields, which ``ffmpeg`` does not.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np

# --- MPEG-TS and MPEG-PS -----------------------------------------------------------------------------------------

VIDEO_PID, AUDIO_PID = 0x100, 0x101
TS_PACKET = 188
CLOCK = 90_000  # ticks per second

Stamps = tuple[int | None, int | None]
"""PTS and DTS in 1 / 90000 s; the DTS is None if it equals the PTS."""

ChangeStamps = Callable[[int, int | None, int | None], Stamps]
"""From the number of a PES packet, its PTS and its DTS to its new timestamps."""


def _read_stamp(data: bytes | bytearray, at: int) -> int:
    a, b, c = data[at], data[at + 1] << 8 | data[at + 2], data[at + 3] << 8 | data[at + 4]
    return (a >> 1 & 7) << 30 | (b >> 1) << 15 | c >> 1


def _stamp(mark: int, value: int) -> bytes:
    value &= (1 << 33) - 1
    return struct.pack(
        ">BHH", mark << 4 | value >> 30 << 1 | 1, (value >> 15 & 0x7FFF) << 1 | 1, (value & 0x7FFF) << 1 | 1
    )


def _change_pes(data: bytearray, at: int, serial: int, change: ChangeStamps) -> None:
    """Rewrite the timestamps of the MPEG-2 PES packet at ``at``; removed ones are replaced by stuffing."""
    flags, length = data[at + 7], data[at + 8]
    pts = _read_stamp(data, at + 9) if flags & 0x80 else None
    dts = _read_stamp(data, at + 14) if flags & 0x40 else None
    pts, dts = change(serial, pts, dts)
    header = b""
    if pts is not None:
        header = _stamp(2 if dts is None else 3, pts) + (b"" if dts is None else _stamp(1, dts))
    assert len(header) <= length, "no room for a timestamp"
    data[at + 7] = flags & 0x3F | (0 if pts is None else 0x80 if dts is None else 0xC0)
    data[at + 9 : at + 9 + length] = header + b"\xff" * (length - len(header))


def ts_starts(data: bytes | bytearray, pid: int) -> Iterator[tuple[int, int]]:
    """Yield the offsets of the TS packet and of the PES header at which the stream's PES packets start."""
    for at in range(0, len(data) - TS_PACKET + 1, TS_PACKET):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] != pid or not data[at + 1] & 0x40:
            continue
        header = at + 4 + (data[at + 4] + 1 if data[at + 3] & 0x20 else 0)
        if data[header : header + 3] == b"\0\0\1":
            yield at, header


def change_ts(data: bytes, pid: int, change: ChangeStamps) -> bytes:
    """Return the file with the timestamps of one stream changed."""
    changed = bytearray(data)
    for serial, (_, header) in enumerate(ts_starts(data, pid)):
        _change_pes(changed, header, serial, change)
    return bytes(changed)


def cut_ts(data: bytes, first: int, pid: int = VIDEO_PID) -> bytes:
    """Return the tables, and the recording from the stream's PES packet number ``first`` on."""
    tables = b"".join(
        data[at : at + TS_PACKET]
        for at in range(0, 3 * TS_PACKET, TS_PACKET)
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] not in (VIDEO_PID, AUDIO_PID)
    )
    return tables + data[[at for at, _ in ts_starts(data, pid)][first] :]


def recounted(data: bytes) -> bytes:
    """Return the packets with new continuity counters, as a recorder writes them."""
    changed, last = bytearray(data), dict[int, int]()
    for at in range(0, len(data), TS_PACKET):
        pid = (data[at + 1] & 0x1F) << 8 | data[at + 2]
        if data[at + 3] & 0x10:  # has payload
            last[pid] = (last.get(pid, -1) + 1) % 16
        changed[at + 3] = data[at + 3] & 0xF0 | last.get(pid, 0)
    return bytes(changed)


def change_ps(data: bytes, stream: int, change: ChangeStamps) -> bytes:
    """Return an MPEG-2 program stream with the timestamps of one stream (0xE0 video, 0xC0 audio) changed.

    PES packets without a timestamp, in which no frame starts, do not count.
    """
    changed = bytearray(data)
    at = serial = 0
    while at + 9 < len(data):
        assert data[at : at + 3] == b"\0\0\1", at
        if data[at + 3] == 0xBA:
            at += 14 + (data[at + 13] & 7)
            continue
        if data[at + 3] == 0xB9:
            break
        if data[at + 3] == stream and data[at + 7] & 0x80:
            _change_pes(changed, at, serial, change)
            serial += 1
        at += 6 + (data[at + 4] << 8 | data[at + 5])
    return bytes(changed)


# --- MP4 ---------------------------------------------------------------------------------------------------------

_HOLDERS = {b"moov", b"trak", b"mdia"}


def boxes(
    data: bytes | bytearray, start: int = 0, end: int | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, offset and length of each box from ``start`` to ``end``, and of those inside moov, trak and mdia."""
    at, end = start, len(data) if end is None else end
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            size = struct.unpack_from(">Q", data, at + 8)[0]
        yield kind, at, size or end - at
        if kind in _HOLDERS:
            yield from boxes(data, at + 8, at + size)
        at += size or end - at


def _track(data: bytes, handler: bytes) -> tuple[int, int]:
    for kind, at, size in boxes(data):
        if kind == b"trak":
            inner = {k: a for k, a, _ in boxes(data, at + 8, at + size)}
            if data[inner[b"hdlr"] + 16 : inner[b"hdlr"] + 20] == handler:
                return at, size
    raise ValueError(f"no track of {handler!r}")


Edit = tuple[float | None, float]
"""Start in the track's own presentation, None for an empty edit, and duration; seconds."""


def set_edits(data: bytes, handler: bytes, edits: Iterable[Edit] | None, *, version: int = 0) -> bytes:
    """Replace a track's edit list (``vide`` or ``soun``) in a file whose moov comes last; None removes the list."""
    track, size = _track(data, handler)
    inner = {k: (a, s) for k, a, s in boxes(data, track + 8, track + size)}
    moov = next((a, s) for k, a, s in boxes(data) if k == b"moov")
    mvhd = next(a for k, a, _ in boxes(data) if k == b"mvhd")
    assert next(a for k, a, _ in boxes(data) if k == b"mdat") < moov[0], (
        "moving the moov's end breaks offsets"
    )
    movie = struct.unpack_from(">I", data, mvhd + 20)[0]
    media = struct.unpack_from(">I", data, inner[b"mdhd"][0] + 20)[0]
    first = 0
    old, old_size = inner.get(b"edts", (inner[b"mdia"][0], 0))
    if old_size:
        # Edts holds only elst; the last of its edits begins where the track's presentation does.
        count = struct.unpack_from(">I", data, old + 20)[0]
        first = struct.unpack_from(">i", data, old + 24 + 12 * (count - 1) + 4)[0]
    new = b""
    if edits is not None:
        rows = [(round(s * movie), -1 if t is None else first + round(t * media), 1 << 16) for t, s in edits]
        form = ">QqI" if version else ">IiI"
        body = struct.pack(">II", version << 24, len(rows)) + b"".join(struct.pack(form, *r) for r in rows)
        elst = struct.pack(">I4s", 8 + len(body), b"elst") + body
        new = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    changed = bytearray(data)
    changed[old : old + old_size] = new
    for at, length in ((track, size), moov):
        struct.pack_into(">I", changed, at, length + len(new) - old_size)
    return bytes(changed)


def set_matrix(data: bytes, matrix: tuple[int, ...]) -> bytes:
    """Return the file with another display matrix: nine values, the first six in 1 / 65536, the last in 1 / 2^30."""
    track, size = _track(data, b"vide")
    at = next(a for k, a, _ in boxes(data, track + 8, track + size) if k == b"tkhd")
    offset = at + 8 + (32 if data[at + 8] else 20) + 20
    return data[:offset] + struct.pack(">9i", *matrix) + data[offset + 36 :]


def with_orientation(
    source: Path, out: Path, *, turns: int = 0, mirrored: bool = False, flipped: bool = False
) -> Path:
    """Copy a file, with a display orientation SEI message at each key frame of H.264; return ``out``.

    Args:
        source: An MP4 or MPEG-TS file.
        out: A file of the same format.
        turns: Turns by 90 degrees, anticlockwise.
        mirrored: Whether columns are flipped.
        flipped: Whether rows are flipped.
    """
    # Not cancelled, the flips, 16 bits of rotation, repeated until the next message, no extension, the stop bit.
    bits = f"0{mirrored:b}{flipped:b}{turns << 14:016b}01001"
    unit = b"\x06\x2f\x03" + int(bits, 2).to_bytes(3, "big") + b"\x80"
    with av.open(str(source)) as old, av.open(str(out), "w") as new:
        stream = old.streams.video[0]
        copies = [new.add_stream_from_template(each) for each in old.streams]
        prefix = len(unit).to_bytes(4, "big") if stream.codec_context.extradata[:1] == b"\1" else b"\0\0\0\1"
        for packet in old.demux():
            if packet.size:
                sei = prefix + unit if packet.stream is stream and packet.is_keyframe else b""
                changed = av.Packet(sei + bytes(packet))
                changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
                changed.time_base, changed.is_keyframe = packet.time_base, packet.is_keyframe
                changed.stream = copies[packet.stream_index]
                new.mux(changed)
    return out


def pick_fragments(data: bytes, wanted: Callable[[int], bool]) -> bytes:
    """Return a fragmented file's header and those moof and mdat pairs whose number is wanted."""
    kept, fragment = [], -1
    for kind, at, size in boxes(data):
        if kind == b"moof":
            fragment += 1
        top = kind in {b"ftyp", b"moov"} or (kind in {b"moof", b"mdat"} and wanted(fragment))
        if top:
            kept.append(data[at : at + size])
    return b"".join(kept)


def reverse_chunks(data: bytes) -> bytes:
    """Return a file whose moov comes last, with the video's chunks once more at the end, the last one first."""
    track, size = _track(data, b"vide")
    tables = [data.index(b"stco", a, a + s) - 4 for k, a, s in boxes(data) if k == b"trak"]
    table = next(a for a in tables if track < a < track + size)
    counts = {a: struct.unpack_from(">I", data, a + 12)[0] for a in tables}
    offsets = {a: struct.unpack_from(f">{counts[a]}I", data, a + 16) for a in tables}
    media, length = next((a, s) for k, a, s in boxes(data) if k == b"mdat")
    edges = sorted({*itertools.chain(*offsets.values()), media + length})
    changed, more = bytearray(data), b""
    for number, offset in reversed(list(enumerate(offsets[table]))):
        struct.pack_into(">I", changed, table + 16 + 4 * number, len(data) + 8 + len(more))
        more += data[offset : edges[edges.index(offset) + 1]]
    return bytes(changed) + struct.pack(">I4s", 8 + len(more), b"mdat") + more


# --- Ogg ---------------------------------------------------------------------------------------------------------


def change_ogg(data: bytes, change: Callable[[int, int], int]) -> bytes:
    """Return the file with ``change(number, granule position)`` as each page's granule position."""
    changed, at, number = bytearray(data), 0, 0
    while at < len(data):
        count = data[at + 26]
        end = at + 27 + count + sum(data[at + 27 : at + 27 + count])
        struct.pack_into("<q", changed, at + 6, change(number, struct.unpack_from("<q", data, at + 6)[0]))
        struct.pack_into("<I", changed, at + 22, 0)
        check = 0
        for byte in changed[at:end]:
            check ^= byte << 24
            for _ in range(8):
                check = (check << 1 ^ (0x04C11DB7 if check & 1 << 31 else 0)) & 0xFFFFFFFF
        struct.pack_into("<I", changed, at + 22, check)
        at, number = end, number + 1
    return bytes(changed)


# --- AVI ---------------------------------------------------------------------------------------------------------


def _avi_chunks(data: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Return the offset of the LIST of chunks, and each chunk's kind and bytes."""
    movi = data.index(b"movi")
    end = movi + struct.unpack_from("<I", data, movi - 4)[0]
    at, chunks = movi + 4, []
    while at + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return movi - 8, chunks


def avi_frames(data: bytes) -> list[bytes]:
    """Return the chunks of the video stream, which is the first stream."""
    return [chunk for kind, chunk in _avi_chunks(data)[1] if kind == b"00dc"]


def change_avi(data: bytes, frames: list[bytes]) -> bytes:
    """Return the file with other video chunks, as many or more."""
    start, chunks = _avi_chunks(data)
    serials = [k for k, (kind, _) in enumerate(chunks) if kind == b"00dc"]
    assert len(frames) >= len(serials)
    for serial, frame in zip(serials, frames, strict=False):
        chunks[serial] = (b"00dc", frame)
    return _with_chunks(data[:start], [*chunks, *((b"00dc", frame) for frame in frames[len(serials) :])])


def uninterleaved(data: bytes) -> bytes:
    """Return the file with all video chunks before all audio chunks."""
    start, chunks = _avi_chunks(data)
    return _with_chunks(data[:start], sorted(chunks, key=lambda chunk: chunk[0] != b"00dc"))


def _with_chunks(header: bytes, chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return an AVI of these chunks, with their index."""
    body, index = b"movi", b""
    for kind, chunk in chunks:
        key = kind != b"00dc" or (bool(chunk) and frame_type(chunk) in "I?")
        index += struct.pack("<4sIII", kind, 0x10 * key, len(body), len(chunk))
        body += struct.pack("<4sI", kind, len(chunk)) + chunk + b"\0" * (len(chunk) % 2)
    whole = header + struct.pack("<4sI", b"LIST", len(body)) + body
    whole += struct.pack("<4sI", b"idx1", len(index)) + index
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def start_later(data: bytes, stream: int, ticks: int) -> bytes:
    """Return the file with the stream's ``dwStart`` set: the number of empty ticks before its first chunk."""
    at = -1
    for _ in range(stream + 1):
        at = data.index(b"strh", at + 1)
    return data[: at + 8 + 28] + struct.pack("<I", ticks) + data[at + 8 + 32 :]


# --- MPEG-2 and MPEG-4 frames ------------------------------------------------------------------------------------


def telecined(data: bytes) -> bytes:
    """Return an MPEG-2 stream in which every other frame, in presentation order, repeats a field (2:3 pulldown)."""
    changed = bytearray(data)
    before = done = shown = 0  # frames before the group, before this one in the file, and as shown
    for match in re.finditer(rb"\x00\x00\x01[\x00\xb5\xb8]", data):
        at, kind = match.start() + 4, data[match.start() + 3]
        if kind == 0xB8:
            before = done
        elif kind == 0:
            shown = before + (data[at] << 2 | data[at + 1] >> 6)
            done += 1
        elif data[at] >> 4 == 1:
            changed[at + 1] &= ~0x08  # the sequence is not progressive
        elif data[at] >> 4 == 8:
            # Top field first, and whether the first field is repeated.
            changed[at + 3] = changed[at + 3] & ~0x82 | (0x82, 0x00, 0x02, 0x80)[shown % 4]
    return bytes(changed)


_VOP = b"\0\0\1\xb6"


def frame_type(chunk: bytes) -> str:
    """Return I, P, B or S for an MPEG-4 frame, ``?`` for another codec's."""
    start = chunk.find(_VOP)
    return "?" if start < 0 else "IPBS"[chunk[start + 4] >> 6]


def not_coded(frame: bytes, increment_bits: int) -> bytes:
    """Return an MPEG-4 frame of the same time that is "not coded": it repeats the frame before."""
    start = frame.index(_VOP) + 4
    bits = "".join(f"{b:08b}" for b in frame[start : start + 8])
    # Coding type, whole seconds in unary, a marker, the fraction, a marker, whether it is coded.
    kept = bits[2:].index("0") + 3 + 1 + increment_bits + 1
    new = "01" + bits[2:kept] + "0"
    new += "0" + "1" * ((-len(new) - 1) % 8)
    return _VOP + bytes(int(new[i : i + 8], 2) for i in range(0, len(new), 8))


def packed(frames: list[bytes], increment_bits: int) -> list[bytes]:
    """Return MPEG-4 frames packed as DivX and XviD do.

    A frame shares its chunk with the first B-frame shown before it, and a frame that is not coded stands where it is to
    be shown itself.
    """
    groups: list[list[bytes]] = []
    for frame in frames:
        # "Lavc" keeps FFmpeg from looking for packed frames; the "p" after "DivX" announces them.
        frame = re.sub(rb"Lavc[0-9.]*", b"DivX503b1393p", frame)
        if frame_type(frame) == "B":
            groups[-1].append(frame)
        else:
            groups.append([frame])
    chunks: list[bytes] = []
    for reference, *between in groups:
        if between:
            chunks += [reference + between[0], *between[1:], not_coded(reference, increment_bits)]
        else:
            chunks.append(reference)
    return chunks


# --- fields ------------------------------------------------------------------------------------------------------

CODED_WIDTH, CODED_HEIGHT = 192, 64
_WIDE, _HIGH = CODED_WIDTH // 16, CODED_HEIGHT // 16  # macroblocks


class _Writer:
    """Write bits from the most significant one on."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def put(self, *pairs: tuple[int, int]) -> _Writer:
        """Append numbers, each with its number of bits."""
        self._bits += [f"{value:0{count}b}" for value, count in pairs if count]
        return self

    def golomb(self, *values: int) -> _Writer:
        for value in values:
            self.put((value + 1, 2 * (value + 1).bit_length() - 1))
        return self

    def aligned(self, fill: str = "0") -> bytes:
        bits = "".join(self._bits)
        bits += fill * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    def ended(self) -> bytes:
        """Return the bytes with H.264's stop bit."""
        return self.put((1, 1)).aligned()


def _unit(header: int, payload: bytes) -> bytes:
    return b"\0\0\0\1" + bytes([header]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


def h264_fields(images: Sequence[np.ndarray], *, group: int = 12) -> list[bytes]:
    """Encode grey images (64, 192) as H.264, one packet per field, top first; only every third frame is a reference.

    Each macroblock holds its samples uncompressed. The fields of a frame that is no reference have the frame_num of the
    next frame's fields. The first field of a group is IDR.
    """
    sps = (
        _Writer()
        .put((77, 8), (0, 8), (30, 8))
        .golomb(0, 0, 0, 4, 1)
        .put((0, 1))
        .golomb(_WIDE - 1, _HIGH // 2 - 1)
    )
    # Fields, no adaptive frames; no cropping. 50 fields per second; no reordering.
    sps.put((0, 1), (0, 1), (1, 1), (0, 1), (1, 1), (0, 4), (1, 1), (1, 32), (50, 32), (1, 1), (0, 1), (0, 1))
    sps.put((0, 1), (1, 1), (1, 1)).golomb(0, 0, 10, 10, 0, 1)
    pps = _Writer().golomb(0, 0).put((0, 2)).golomb(0, 0, 0).put((0, 1), (0, 2)).golomb(0, 0, 0).put((4, 3))
    head = _unit(0x67, sps.ended()) + _unit(0x68, pps.ended())
    packets: list[bytes] = []
    number = 0
    for k, image in enumerate(images):
        position = k % group
        reference = position % 3 == 0
        number = 0 if position == 0 else number
        for bottom in (0, 1):
            begins = position == 0 and not bottom
            header = _Writer().golomb(0, 7, 0).put((number % 16, 4), (1, 1), (bottom, 1))
            header.golomb(*([k // group % 2] if begins else []))
            header.put((2 * position + bottom, 8), *([(0, 2)] if begins else [(0, 1)] if reference else []))
            payload = header.golomb(0, 1, 25).aligned()
            blocks = image[bottom::2].reshape(_HIGH // 2, 16, _WIDE, 16).swapaxes(1, 2).reshape(-1, 256)
            payload += b"\x0d\0".join(bytes(block) + b"\x80" * 128 for block in blocks) + b"\x80"
            kind = 0x65 if begins else 0x61 if reference else 0x01
            packets.append(b"\0\0\0\1\x09\x10" + (head if begins else b"") + _unit(kind, payload))
        number += reference
    return packets


_DC_SIZES = ("100", "00", "01", "101", "110", "1110", "11110", "111110", "1111110")  # of luminance


def mpeg2_fields(images: Sequence[np.ndarray]) -> bytes:
    """Encode grey images (64, 192) as MPEG-2 intra field pictures, top first; each block of 8x8 has one level."""
    size, rate = (CODED_WIDTH, 12), (CODED_HEIGHT, 12)
    head = _Writer().put(size, rate, (1, 4), (3, 4), (1000, 18), (1, 1), (20, 10), (0, 3)).aligned()
    extension = _Writer().put(
        (1, 4), (0x48, 8), (0, 1), (1, 2), (0, 4), (0, 12), (1, 1), (0, 8), (0, 1), (0, 7)
    )
    sequence = b"\0\0\1\xb3" + head + b"\0\0\1\xb5" + extension.aligned()
    data = b""
    for k, image in enumerate(images):
        if k % 12 == 0:
            data += sequence + b"\0\0\1\xb8" + _Writer().put((1 << 12, 25), (1, 1), (0, 1), (0, 5)).aligned()
        for bottom in (0, 1):
            data += b"\0\0\1\0" + _Writer().put((k % 12, 10), (1, 3), (0xFFFF, 16), (0, 3)).aligned()
            coding = _Writer().put((8, 4), (0xFFFF, 16), (0, 2), (1 + bottom, 2), (0, 10), (0, 2))
            data += b"\0\0\1\xb5" + coding.aligned()
            levels = image[bottom::2].reshape(_HIGH, 8, 2 * _WIDE, 8).mean((1, 3)).astype(int)
            for row in range(_HIGH // 2):
                bits, before = "00001" + "0", 128
                for column in range(_WIDE):
                    bits += "11"
                    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
                        level = int(levels[2 * row + y, 2 * column + x])
                        step, before = level - before, level
                        length = abs(step).bit_length()
                        bits += _DC_SIZES[length]
                        bits += (
                            f"{step if step > 0 else step + (1 << length) - 1:0{length}b}" if length else ""
                        )
                        bits += "10"
                    bits += "0010" * 2  # no step in either chrominance
                bits += "0" * (-len(bits) % 8)
                data += b"\0\0\1" + bytes([row + 1]) + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return data
