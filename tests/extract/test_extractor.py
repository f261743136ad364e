import copy
import dataclasses
import itertools
import json
import threading
import time

import numpy as np
import pytest
import torch
from make_media import make_media

from crisscross_zoo import FeatureExtractor, Features
from crisscross_zoo.checkpoints.mixin import Loaded
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import (
    ConfigError,
    CrissCrossError,
    MediaError,
    MediaNotFoundError,
    TruncatedMediaError,
)
from crisscross_zoo.extract.extractor import MAX_CONCURRENT_BATCHES
from crisscross_zoo.media.decode import read_audio
from crisscross_zoo.media.scan import scan


@pytest.fixture(scope="module")
def encoders():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        video = build_encoder(VideoConfig(width=8, depth=10, size=112))
        audio = build_encoder(AudioConfig(width=8, depth=10))
    return {"video": video.eval(), "audio": audio.eval()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract")
    return [make_media(folder / f"{k}.mp4", seconds=1.2 + k, size=(96, 64)) for k in range(4)]


def extractor(encoders, modality="both", **options):
    return FeatureExtractor(encoders, modality, device="cpu", workers=0, **options)


def same(one, other):
    assert one.metadata == other.metadata
    for name, array in one.arrays().items():
        assert array.tobytes() == getattr(other, name).tobytes(), name


def test_rows_are_what_the_encoder_gives_for_their_clips(encoders, tmp_path):
    path = make_media(
        tmp_path / "a.mkv", video="ffv1", pix_fmt="yuv444p", audio="pcm_s16le", sample_rate=16_000, seconds=3,
        size=(160, 120), layout="mono",
    )  # fmt: skip
    features = extractor(encoders, stride=0.5)(path)
    import av

    with av.open(str(path)) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    samples = np.concatenate([s for _, s in read_audio(scan(path), 16_000, on_damage=print)])
    for row, (start, end) in enumerate(features.video_windows):
        picked = [int((start + k / 16) * 25 + 1e-6) for k in range(8)]
        with torch.inference_mode():
            expected = encoders["video"](encoders["video"].preprocess(frames[picked])[None])[0]
        assert end - start == pytest.approx(0.5)
        np.testing.assert_allclose(features.video[row], expected, rtol=1e-4, atol=1e-5)
    for row, (start, end) in enumerate(features.audio_windows):
        clip = samples[round(start * 16_000) : round(end * 16_000)] / np.float32(32767)
        with torch.inference_mode():
            expected = encoders["audio"](encoders["audio"].preprocess(clip, sample_rate=16_000)[None])[0]
        np.testing.assert_allclose(features.audio[row], expected, rtol=1e-4, atol=1e-5)


def test_a_rows_bytes_do_not_depend_on_its_neighbours(encoders, files):
    one = extractor(encoders)
    alone = {str(p): one(p) for p in files}
    together = dict(one.stream([str(p) for p in files]))
    other_order = dict(one.stream([str(p) for p in reversed(files)]))
    for path in map(str, files):
        same(together[path], other_order[path])
        for name, array in alone[path].arrays().items():
            assert array.tobytes() == getattr(together[path], name).tobytes()


def test_processes_give_the_same_bytes_as_a_thread(encoders, files):
    paths = [str(p) for p in files]
    thread = dict(extractor(encoders).stream(paths))
    processes = dict(FeatureExtractor(encoders, "both", device="cpu", workers=2).stream(paths))
    for path in paths:
        same(thread[path], processes[path])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_an_error_among_the_results(encoders, files, tmp_path, workers):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video\n" * 100)
    stream = FeatureExtractor(encoders, "video", device="cpu", workers=workers).stream(
        [files[0], bad, files[1]]
    )
    results = {str(p): r for p, r in stream}
    assert isinstance(results[str(bad)], MediaError)
    assert isinstance(results[str(files[0])], Features)
    assert isinstance(results[str(files[1])], Features)
    with pytest.raises(MediaError, match=r"bad\.mp4: is not media"):
        extractor(encoders, "video")(bad)
    with pytest.raises(MediaNotFoundError):
        extractor(encoders, "video")(tmp_path / "none.mp4")


def test_metadata_describes_how_the_features_were_made(encoders, files):
    features = extractor(encoders, stride=0.25)(files[0])
    metadata = json.loads(json.dumps(features.metadata))
    assert metadata == features.metadata
    status = files[0].stat()
    source = {"path": str(files[0]), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    assert metadata["source"] == source
    assert metadata["settings"]["stride"] == 0.25
    assert metadata["settings"]["video"]["frames"] == 8
    assert metadata["settings"]["audio"]["seconds"] == 2.0
    assert metadata["shapes"] == {"video": list(features.video.shape), "audio": list(features.audio.shape)}
    assert {"crisscross_zoo", "torch", "av", "libavcodec"} <= set(metadata["versions"])
    assert metadata["missing"] == []


@pytest.mark.parametrize("options", [{"stride": 0.25}, {"clips": 7}, {"stride": 0.25, "window": 1.0}])
def test_rows_whose_windows_are_centred_apart_can_be_dropped(encoders, files, options):
    whole = extractor(encoders, **options)(files[3])
    inner = extractor(encoders, edges="drop", **options)(files[3])
    apart = np.abs(whole.video_windows.mean(1) - whole.audio_windows.mean(1)) > 1 / 32 + 1e-6
    assert apart.any() == (options == {"stride": 0.25})
    for name, array in inner.arrays().items():
        assert array.tobytes() == whole.arrays()[name][~apart].tobytes(), name
    assert inner.aligned.all()
    np.testing.assert_array_equal(whole.aligned, ~apart)
    assert inner.metadata["settings"] == {**whole.metadata["settings"], "edges": "drop"}


def test_a_file_without_a_row_centred_alike_fails_and_one_of_one_stream_keeps_its_rows(
    encoders, files, tmp_path
):
    drop = extractor(encoders, edges="drop", stride=0.25, audio_seconds=1.2)
    with pytest.raises(MediaError, match=r"no row has a video and an audio window .*; use edges 'keep'"):
        extractor(encoders, edges="drop", stride=5)(files[3])
    silent = make_media(tmp_path / "silent.mp4", audio=None, seconds=1.2, size=(96, 64))
    assert drop(silent).video.shape[0] == 4


def test_window_sets_both_lengths(encoders, files):
    features = extractor(encoders, window=1.0, stride=0.5)(files[2])
    np.testing.assert_allclose(np.diff(features.video_windows), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.diff(features.audio_windows), 1.0, atol=1e-6)
    assert features.metadata["settings"]["video"]["frames"] == 16


def test_the_number_of_clips_is_as_requested(encoders, files):
    assert extractor(encoders, "video", clips=7)(files[2]).video.shape[0] == 7


def test_bf16_is_close_and_still_float32(encoders, files):
    full = extractor(encoders, "video")(files[1]).video
    half = extractor(encoders, "video", precision="bf16")(files[1]).video
    assert half.dtype == np.float32
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.99
    assert np.abs(full - half).max() > 0


def test_truncated_files_warn_or_fail(encoders, tmp_path):
    path = make_media(tmp_path / "t.mkv", video="ffv1", audio=None, seconds=6, size=(96, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    features = extractor(encoders, "video")(path)
    assert features.metadata["warnings"]
    assert 3 < len(features.video) < 10
    with pytest.raises(TruncatedMediaError):
        extractor(encoders, "video", strict=True)(path)


def test_progress_counts_clips(encoders, files):
    seen = []
    results = list(extractor(encoders, "video").stream(files, on_progress=lambda *n: seen.append(n)))
    rows = sum(len(r.video) for _, r in results if not isinstance(r, CrissCrossError))
    opened = sum(not isinstance(r, CrissCrossError) for _, r in results)
    assert seen[-1] == (rows, rows, opened)
    assert all(a <= b for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "vidio"}, "did you mean 'video'"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"stride": 1, "clips": 2}, "exclude each other"),
        ({"window": 1, "frames": 8}, "exclude each other"),
        ({"edges": "cut"}, "edges='cut' is not known; choose from keep, drop"),
        ({"edges": "drop", "modality": "audio"}, "edges='drop' compares two modalities; use modality 'both'"),
        ({"stride": 0}, "stride=0 is out of range"),
        ({"frames": 0}, "frames=0"),
        ({"workers": -1}, "workers=-1"),
        ({"stride": float("inf")}, "stride=inf"),
        ({"clips": 2.5}, "clips=2.5"),
        ({"timeout": 0}, "timeout=0 is out of range; pass a number, above 0"),
        ({"timeout": 9, "workers": 0}, "timeout 9 with no decoding worker; use workers above 0"),
        ({"window": "3"}, "window='3' is not a number"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"size": 32}, "the video clip does not fit"),
        ({"size": 10**8}, "the video clip has 2e.17 values, more than 1e.09; use a smaller clip"),
        ({"audio_seconds": 1e9}, "the audio clip has 2e.13 values"),
        ({"audio_seconds": 0.02}, "too short"),
        ({"device": "quantum"}, "device='quantum' cannot be used"),
        ({"modality": "audio", "size": 112}, "size is for video"),
        ({"modality": "video", "audio_seconds": 5}, "audio_seconds is for audio"),
    ],
)
def test_bad_settings_are_refused_in_one_line(encoders, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        FeatureExtractor(encoders, **{"modality": "both", "device": "cpu", **options})
    assert "\n" not in str(caught.value)


def test_an_encoder_of_the_other_modality_is_refused(encoders):
    with pytest.raises(ConfigError, match="the video encoder is one for audio"):
        FeatureExtractor(encoders["audio"], "video", device="cpu")


def test_stream_takes_several_paths(encoders, files):
    with pytest.raises(ConfigError, match="stream takes several paths"):
        next(extractor(encoders, "video").stream(str(files[0])))


@pytest.mark.parametrize(
    ("names", "options", "workers"),
    [
        ("a", {}, 0),
        ("a", {"timeout": 9}, 1),
        ("ab", {}, 5),
        ("ab", {"gpu": True}, 0),
        ("ab", {"gpu": True, "timeout": 9}, 1),
    ],
)
def test_a_timeout_needs_a_worker_that_can_be_killed(encoders, monkeypatch, names, options, workers):
    used = []
    monkeypatch.setattr("crisscross_zoo.extract.extractor.default_workers", lambda device: 5)
    monkeypatch.setattr(
        "crisscross_zoo.extract.extractor.read_files",
        lambda *_, workers, **__: used.append(workers) or (x for x in ()),
    )
    extractor = FeatureExtractor(encoders, device="cpu", timeout=options.get("timeout"))
    if "gpu" in options:
        extractor._sampling = dataclasses.replace(extractor._sampling, torchcodec="cuda")
    assert list(extractor.stream(list(names))) == []
    assert used == [workers]


def test_a_missing_encoder_is_named(encoders):
    with pytest.raises(ConfigError, match="weights has no 'audio'"):
        FeatureExtractor({"video": encoders["video"]}, "both", device="cpu")


def test_what_an_encoder_holds_now_is_what_counts(files):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = build_encoder(VideoConfig(width=8, depth=10, size=112))
    first = extractor(encoder, "video").identity(files[0])["weights"]["video"]
    encoder.weights_id, encoder.weights_sha256 = "org/name@1", first["sha256"]
    encoder.loaded = Loaded(sha256=encoder.values_sha256())
    assert extractor(encoder, "video").identity(files[0])["weights"]["video"] == {
        "id": "org/name@1",
        "sha256": first["sha256"],
    }
    with torch.no_grad():
        encoder.conv1[0].weight.add_(1e-3)
    changed = extractor(encoder, "video").identity(files[0])["weights"]["video"]
    assert changed["id"] == "org/name@1 (changed)"
    assert changed["sha256"] != first["sha256"]


def test_cudnn_stays_on_and_is_left_as_it_was(encoders, files):
    cudnn, seen = torch.backends.cudnn, []
    # The precision is the convolutions' own since torch 2.9.
    owner, name, exact = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    extract = extractor(encoders, "video")
    hook = extract._networks["video"].register_forward_hook(
        lambda *_: seen.append((cudnn.enabled, cudnn.deterministic, getattr(owner, name)))
    )
    before = cudnn.deterministic, getattr(owner, name)
    extract(files[0])
    hook.remove()
    assert set(seen) == {(True, True, exact)}
    assert (cudnn.deterministic, getattr(owner, name)) == before


@pytest.mark.parametrize("threads", [2, 3, 24, 40])
def test_any_number_of_threads_gives_the_same_bytes(encoders, files, threads):
    torch.set_num_threads(1)
    alone = dict(extractor(encoders).stream(files))
    torch.set_num_threads(threads)
    used = set()
    extract = extractor(encoders)

    def record(*_):
        used.add((threading.current_thread(), torch.get_num_threads()))
        time.sleep(0.02)  # so that another thread takes the next batch

    hook = extract._networks["video"].register_forward_hook(record)
    for path, features in extract.stream(files):
        same(features, alone[path])
    hook.remove()
    assert 1 < len(used) <= min(threads, MAX_CONCURRENT_BATCHES)
    assert {number for _, number in used} == {-(-threads // MAX_CONCURRENT_BATCHES)}
    assert not any(thread.is_alive() for thread, _ in used)
    assert torch.get_num_threads() == threads


def test_other_threads_have_as_many_as_before(encoders, files):
    """Check also a thread that starts while files are extracted, and one after another thread has ended the stream."""
    torch.set_num_threads(3)
    seen = []

    def record():
        seen.append(torch.get_num_threads())

    def in_a_thread(call):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    stream = extractor(encoders).stream(files)
    next(stream)
    in_a_thread(record)
    in_a_thread(lambda: list(stream))
    in_a_thread(record)
    record()
    assert seen == [3, 3, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_goes_wrong_in_the_network_ends_the_run(encoders, files, threads):
    torch.set_num_threads(threads)
    extract = extractor(encoders, "video")

    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    extract._networks["video"].register_forward_hook(fail)
    before = threading.active_count()
    with pytest.raises(ConfigError, match="clips do not fit into memory, in batches of 1"):
        list(extract.stream(files))
    assert threading.active_count() == before


def test_a_batch_that_does_not_fit_into_memory_is_refused(encoders, files):
    message = "clips do not fit into memory, in batches of 1000000000; choose a smaller batch_size"
    with pytest.raises(ConfigError, match=message):
        extractor(encoders, "video", batch_size=10**9)(files[0])


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-2), ("fp16", 1e-2)])
def test_features_on_a_gpu_agree_with_the_cpu(encoders, files, precision, tolerance):
    on_cpu = extractor(encoders)(files[1])
    copies = {name: copy.deepcopy(encoder) for name, encoder in encoders.items()}  # the extractor moves them
    on_gpu = FeatureExtractor(copies, "both", device="cuda", precision=precision)(files[1])
    for name in ("video", "audio"):
        a, b = getattr(on_cpu, name), getattr(on_gpu, name)
        assert np.abs(a - b).max() <= tolerance * np.abs(a).max()


@pytest.mark.cuda
def test_files_decoded_by_processes_give_the_same_bytes_on_a_gpu(encoders, files):
    def run(workers):
        copies = {name: copy.deepcopy(encoder) for name, encoder in encoders.items()}
        by = FeatureExtractor(copies, "both", device="cuda", batch_size=2, workers=workers)
        return dict(by.stream(files))

    alone, others = run(0), run(2)
    assert alone.keys() == others.keys() == set(files)
    for path, features in alone.items():
        same(features, others[path])
