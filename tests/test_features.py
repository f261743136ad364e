import json

import numpy as np
import pytest

from crisscross_zoo import Features
from crisscross_zoo.errors import InputError, OutputError
from crisscross_zoo.features import load_metadata


@pytest.fixture
def both():
    rng = np.random.default_rng(0)
    windows = np.array([[0.0, 0.5], [0.5, 1.0], [1.0, 1.25]])
    return Features(
        video=rng.standard_normal((3, 5)).astype(np.float32),
        video_windows=windows,
        audio=rng.standard_normal((3, 7)).astype(np.float32),
        audio_windows=windows + 1,
        metadata={"weights": {"id": "é"}, "n": 1.5},
    )


def same(one, other):
    assert one.metadata == other.metadata
    for name in ("video", "video_windows", "audio", "audio_windows"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_is_saved_is_loaded(both, tmp_path, suffix):
    path = tmp_path / f"feats{suffix}"
    both.save(path)
    same(Features.load(path), both)
    assert load_metadata(path) == both.metadata
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_npy_is_the_plain_array_with_its_windows_beside_it(both, tmp_path):
    one = Features(video=both.video, video_windows=both.video_windows, metadata=both.metadata)
    one.save(tmp_path / "feats.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "feats.npy"), both.video)
    same(Features.load(tmp_path / "feats.npy"), one)
    assert json.loads((tmp_path / "feats.npy.json").read_text())["windows"] == both.video_windows.tolist()
    with pytest.raises(OutputError, match="one modality"):
        both.save(tmp_path / "both.npy")


def test_an_array_beside_another_ones_sidecar_is_noticed(both, tmp_path):
    Features(video=both.video, video_windows=both.video_windows).save(tmp_path / "feats.npy")
    np.save(tmp_path / "feats.npy", both.video + 1)
    with pytest.raises(OutputError, match="is not the array"):
        Features.load(tmp_path / "feats.npy")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_same_features_are_the_same_bytes(both, tmp_path, suffix):
    both.save(tmp_path / f"a{suffix}")
    both.save(tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_an_interrupted_write_leaves_what_was_there(both, tmp_path, monkeypatch):
    path = tmp_path / "feats.npz"
    both.save(path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="cannot be written"):
        Features().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_urls_are_refused(both):
    for call in (both.save, Features.load):
        with pytest.raises(OutputError, match="features are saved at local paths"):
            call("s3://bucket/x.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".npy"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 not a zip"])
def test_other_files_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"feats{suffix}"
    path.write_bytes(content)
    with pytest.raises(OutputError) as caught:
        Features.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_pickle_is_loaded(tmp_path):
    np.savez(tmp_path / "feats.npz", video=np.array([print], dtype=object), metadata=np.array("{}"))
    with pytest.raises(OutputError):
        Features.load(tmp_path / "feats.npz")


def test_wrong_names_and_missing_files_are_said(both, tmp_path):
    with pytest.raises(OutputError, match=r"did you mean '\.npz'"):
        both.save(tmp_path / "feats.npx")
    with pytest.raises(OutputError, match="no such file"):
        Features.load(tmp_path / "none.npz")


def test_shapes_are_checked():
    rows, windows = np.zeros((2, 3), np.float32), np.zeros((2, 2))
    for bad in (
        {"video": rows},
        {"video": rows.astype(float), "video_windows": windows},
        {"video": rows[0], "video_windows": windows},
        {"audio": rows, "audio_windows": windows[:1]},
    ):
        with pytest.raises(InputError):
            Features(**bad)


def test_it_prints_shapes_not_data(both):
    assert repr(both) == (
        "Features(video: float32 (3, 5), 0.000 to 1.250 s; audio: float32 (3, 7), 1.000 to 2.250 s)"
    )


def windows_of(centres, length):
    return np.stack([np.array(centres) - length / 2, np.array(centres) + length / 2], axis=1)


def test_centres_are_those_of_the_video_and_aligned_is_within_half_a_frame():
    rows = np.zeros((4, 2), np.float32)
    video, audio = windows_of([0.25, 1.0, 2.0, 3.0], 0.5), windows_of([1.0, 1.0 + 0.5 / 16, 2.0, 2.96], 2.0)
    metadata = {"settings": {"video": {"fps": 16.0}}}
    both = Features(rows, video, rows, audio, metadata)
    np.testing.assert_allclose(both.centres, [0.25, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(both.aligned, [False, True, True, False])
    with pytest.raises(InputError, match="does not say the fps"):
        _ = Features(rows, video, rows, audio).aligned
    sound = Features(audio=rows, audio_windows=audio)
    np.testing.assert_allclose(sound.centres, audio.mean(1))
    assert sound.aligned.all()
    with pytest.raises(InputError, match="neither video nor audio"):
        _ = Features().centres
