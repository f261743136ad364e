"""Audio in every form, read to its end, and what is reported if nothing of it can be decoded."""

import dataclasses
import shutil
import struct

import av
import numpy as np
import pytest
from make_media import make_media

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import NoStreamError, UnreadableMediaError
from crisscross_zoo.media.clips import FileRead, Sampling, read_clips
from crisscross_zoo.media.decode import read_audio, read_frames
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment

RATE = 16_000


def masked_wav(path, mask, channels):
    """Write a second of WAV whose channels are constant and belong to the speakers in ``mask``."""
    samples = np.repeat(1000 * np.arange(1, channels + 1, dtype="<i2")[None], RATE, axis=0)
    subtype = bytes.fromhex("0100000000001000800000aa00389b71")
    form = struct.pack(
        "<HHIIHHHHI", 0xFFFE, channels, RATE, 2 * RATE * channels, 2 * channels, 16, 22, 16, mask
    )
    data = samples.tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(form + subtype)) + form + subtype
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return samples.mean(1)


def audio_of(path, notes=None):
    notes = [] if notes is None else notes
    pieces = read_audio(scan(path), RATE, on_damage=pytest.fail, on_note=notes.append)
    return np.concatenate([samples for _, samples in pieces])


@pytest.mark.parametrize(("mask", "channels"), [(0x30, 2), (0x600, 2), (0x9, 2), (0x17, 4), (0, 4)])
def test_layouts_that_the_resampler_refuses_are_averaged(tmp_path, mask, channels):
    path = tmp_path / "a.wav"
    mean = masked_wav(path, mask, channels)
    np.testing.assert_allclose(audio_of(path), mean, atol=1)
    np.testing.assert_allclose(read_moment(scan(path), times=None, audio=(0.5, 100))[1], mean[:100], atol=1)


@pytest.mark.parametrize("sign", [1, -1])
def test_stereo_of_64_bits_is_read_and_its_phase_checked(tmp_path, sign):
    path = tmp_path / "a.wav"
    samples = (2.0**61 * np.sin(np.arange(2 * RATE) / 10)).astype("<i8")
    data = np.stack([samples, sign * samples], axis=1).tobytes()
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, RATE, 16 * RATE, 16, 64)
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert scan(path).audio.codec == "pcm_s64le"
    notes = []
    audio = audio_of(path, notes)
    assert len(audio) == 2 * RATE
    assert bool(notes) == (sign < 0)
    assert (abs(int(audio.max()) - 2**13) < 10) == (sign > 0)
    np.testing.assert_array_equal(
        read_moment(scan(path), times=None, audio=(1.0, 500))[1], audio[RATE:][:500]
    )


def test_audio_that_continues_after_the_last_row_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.mkv"
    wave = (9000 * np.sin(np.arange(4.5 * RATE) / 10)).astype(np.int16)
    make_media(
        path, seconds=4.0, samples=np.stack([wave, -wave], axis=1), sample_rate=RATE, audio="pcm_s16le"
    )
    config = VideoConfig(), AudioConfig()
    for sampling in (
        Sampling(video=config[0], audio=config[1]),
        Sampling(video=None, audio=config[1], clips=1),
    ):
        (*_, last) = read_clips(path, sampling)
        assert isinstance(last, FileRead)
        assert any("out of phase" in note for note in last.notes)


def test_random_access_to_audio_that_cannot_be_decoded_is_an_error(tmp_path):
    path = tmp_path / "a.mp4"
    make_media(path, seconds=4.0)
    media = scan(path)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    for start in (0.0, 2.0):
        with pytest.raises(UnreadableMediaError, match="audio cannot be decoded"):
            read_moment(media, times=None, audio=(start, 1600))


def test_a_file_that_lost_a_stream_since_it_was_indexed_has_changed(tmp_path):
    path, other = tmp_path / "a.avi", tmp_path / "b.avi"
    make_media(path, video="mpeg4", audio="libmp3lame", seconds=2.0)
    media = scan(path).compact()
    make_media(other, video=None, audio="libmp3lame", seconds=2.0)
    shutil.copy(other, path)
    with pytest.raises(UnreadableMediaError, match="has changed since it was indexed"):
        list(read_frames(media, np.array([0.5]), on_damage=str))
    make_media(other, video="mpeg4", audio=None, seconds=2.0)
    shutil.copy(other, path)
    with pytest.raises(UnreadableMediaError, match="has changed since it was indexed"):
        list(read_audio(media, RATE, on_damage=str))
    uneven = dataclasses.replace(media, audio=dataclasses.replace(media.audio, regular=False))
    with pytest.raises(UnreadableMediaError, match="has changed since it was indexed"):
        list(read_audio(uneven, RATE, on_damage=str))
    with pytest.raises(NoStreamError):
        list(read_audio(scan(path), RATE, on_damage=str))
