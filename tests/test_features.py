import json
from pathlib import Path

import numpy as np
import pytest

from crisscross_zoo import Features
from crisscross_zoo.errors import InputError, OutputError
from crisscross_zoo.features import check_format, files_of, load_metadata


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


def test_wrong_names_and_missing_files_are_reported(both, tmp_path):
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
    with pytest.raises(InputError, match="has no fps"):
        _ = Features(rows, video, rows, audio).aligned
    with pytest.raises(InputError, match="has different numbers of video and audio rows; extract both with"):
        _ = Features(rows, video, rows[1:], audio[1:], both.metadata).aligned
    audio_only = Features(audio=rows, audio_windows=audio)
    np.testing.assert_allclose(audio_only.centres, audio.mean(1))
    assert audio_only.aligned.all()
    with pytest.raises(InputError, match="neither video nor audio"):
        _ = Features().centres


class Loaded:
    """A pickle can run code: this one makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("load", [Features.load, load_metadata])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_pickle_is_not_even_opened(both, tmp_path, load, suffix):
    path, made = tmp_path / f"feats{suffix}", tmp_path / "made"
    trap = np.array([Loaded(made)], dtype=object)
    if suffix == ".npz":
        np.savez(path, video=trap, metadata=trap)
    else:
        np.save(path, trap)
        (tmp_path / "feats.npy.json").write_text("{}")
    with pytest.raises(OutputError, match="does not hold features"):
        load(path)
    assert not made.exists()


def test_npy_written_again_is_never_beside_the_sidecar_of_another(both, tmp_path, monkeypatch):
    one = Features(video=both.video, video_windows=both.video_windows)
    other = Features(audio=both.audio, audio_windows=both.audio_windows, metadata={"n": 2})
    path = tmp_path / "feats.npy"
    one.save(path)
    replaced, replace = [], Path.replace

    def watch(self, target):
        replaced.append((target.name, path.exists(), (tmp_path / "feats.npy.json").exists()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    other.save(path)
    assert replaced == [("feats.npy.json", False, True), ("feats.npy", False, True)]
    same(Features.load(path), other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["feats.npy", "feats.npy.json"]


def test_a_sidecar_holds_what_the_array_cannot(both, tmp_path):
    path = tmp_path / "feats.npy"
    Features(audio=both.audio, audio_windows=both.audio_windows, metadata=both.metadata).save(path)
    sidecar = json.loads((tmp_path / "feats.npy.json").read_text())
    assert set(sidecar) == {"modality", "sha256", "windows", "metadata"}
    assert sidecar["modality"] == "audio"
    assert sidecar["metadata"] == both.metadata
    assert [p.name for p in files_of(path)] == ["feats.npy.json", "feats.npy"]
    assert files_of(path.with_suffix(".npz")) == [tmp_path / "feats.npz"]
    (tmp_path / "feats.npy.json").unlink()
    with pytest.raises(OutputError, match=r"feats\.npy\.json.*no such file; check the path"):
        Features.load(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".npy"])
def test_arrays_of_any_layout_and_without_rows_are_saved(both, tmp_path, suffix):
    path = tmp_path / f"feats{suffix}"
    wide = np.zeros((4, 6), np.float32) + np.arange(6, dtype=np.float32)
    for rows in (wide[::2, ::3], np.asfortranarray(wide), wide[:0]):
        one = Features(video=rows, video_windows=np.zeros((len(rows), 4))[:, ::2], metadata={"n": 1})
        one.save(path)
        same(Features.load(path), one)
        assert load_metadata(str(path)) == {"n": 1}


def test_what_cannot_be_saved_has_a_reason(both, tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"\.npy holds one modality, there are 0"):
        Features().save(tmp_path / "feats.npy")
    with pytest.raises(OutputError, match="'a name without suffix'"):
        check_format(tmp_path / "feats")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written \((File exists|Not a directory)\)"):
        both.save(tmp_path / "file" / "feats.npz")

    def fail(*_, **__):
        raise OSError("no number")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OutputError, match=r"cannot be written \(no number\)"):
        both.save(tmp_path / "feats.npz")
    for call in (both.save, Features.load, load_metadata):
        with pytest.raises(InputError, match="the path is of type bytes"):
            call(b"feats.npz")
    with pytest.raises(OutputError, match="no such file") as caught:
        load_metadata(tmp_path / "none.npz")
    assert caught.value.path == str(tmp_path / "none.npz")


def test_a_short_name_is_not_checked(both, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr("crisscross_zoo.features.longest_name", lambda folder: checked.append(folder) or 140)
    for length, suffix, longest in (
        (128, ".npz", None),
        (129, ".npz", 129),
        (123, ".npy", None),
        (140, ".npz", 140),
    ):
        both_or_one = (
            both if suffix == ".npz" else Features(audio=both.audio, audio_windows=both.audio_windows)
        )
        both_or_one.save(tmp_path / f"{'n' * (length - 4)}{suffix}")
        assert checked == ([] if longest is None else [tmp_path])
        checked.clear()
    with pytest.raises(
        OutputError, match="a file name of 141 bytes, where 140 are allowed; choose a shorter one"
    ):
        both.save(tmp_path / f"{'n' * 137}.npz")


def test_they_are_held_by_name_and_printed_without_rows(both):
    assert list(both.arrays()) == ["video", "video_windows", "audio", "audio_windows"]
    audio_only = Features(audio=both.audio[:0], audio_windows=both.audio_windows[:0])
    assert audio_only.arrays().keys() == {"audio", "audio_windows"}
    assert repr(audio_only) == "Features(audio: float32 (0, 7))"
    assert repr(Features()) == "Features()"
    assert Features().metadata == {}
    assert Features().metadata is not Features().metadata
    assert audio_only != Features(audio=audio_only.audio, audio_windows=audio_only.audio_windows)
    with pytest.raises(AttributeError):
        audio_only.audio = None  # type: ignore[misc]


def test_metadata_are_read_without_the_arrays(tmp_path):
    path = tmp_path / "feats.npz"
    np.savez(path, video=np.zeros((2, 3), np.float32), metadata=np.array('{"n": 1}'))
    assert load_metadata(path) == {"n": 1}
    with pytest.raises(OutputError, match="video and video_windows go together"):
        Features.load(path)
    path.write_bytes(b"text")
    with pytest.raises(OutputError, match="does not hold features") as caught:
        load_metadata(path)
    assert caught.value.path == str(path)
