"""Features, encoders and preprocessing are the same bytes whatever another library has left torch's settings at."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from make_media import make_media

from crisscross_zoo import FeatureExtractor, Features, load_encoder
from crisscross_zoo.encoders import AudioEncoder, Encoder, VideoEncoder
from crisscross_zoo.hear import get_scene_embeddings, load_model
from crisscross_zoo.media.clips import Views
from crisscross_zoo.numerics import exact_float32, plain_torch
from crisscross_zoo.transforms import mel
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS

NEW_FLAGS = hasattr(torch.backends.cudnn, "conv")  # torch 2.9


@contextlib.contextmanager
def attribute(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default device": lambda: default_device("meta"),  # tensors on it have no values
    "device context": lambda: torch.device("meta"),
    "no grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "matmul precision": lambda: matmul_precision("medium"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no oneDNN": lambda: attribute(torch.backends.mkldnn, "enabled", False),
    "deterministic algorithms": deterministic,
    "cuDNN chooses": lambda: attribute(torch.backends.cudnn, "benchmark", True),
}
if NEW_FLAGS:
    for product in ("conv", "matmul"):
        SETTINGS[f"oneDNN {product} in bfloat16"] = lambda product=product: attribute(
            getattr(torch.backends.mkldnn, product), "fp32_precision", "bf16"
        )
    SETTINGS["deterministic oneDNN"] = lambda: attribute(torch.backends.mkldnn, "deterministic", True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("numerics")
    return str(make_media(folder / "clip.mp4", seconds=1.5, size=(96, 64), sample_rate=44_100))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("numerics") / "backbone.pth"
    torch.save(load_encoder("video", "demo").state_dict(), path)
    return str(path)


def extracted(clip: str, weights: str = "demo", **options: Any) -> Features:
    mel._window_and_filters.cache_clear()  # cached values of other settings would hide the effect of these
    return FeatureExtractor(weights, "both", device="cpu", workers=0, clips=2, **options)(clip)


def in_bytes(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def plain(clip: str) -> dict[str, bytes]:
    return in_bytes(extracted(clip).arrays())


@pytest.mark.parametrize("setting", SETTINGS)
def test_features_are_the_same_bytes(setting: str, clip: str, plain: dict[str, bytes]) -> None:
    with SETTINGS[setting]():
        found = extracted(clip)
    assert in_bytes(found.arrays()) == plain
    assert found.metadata["settings"]["precision"] == "fp32"
    mel._window_and_filters.cache_clear()


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_extractor_made_before_gives_the_same_bytes(
    setting: str, clip: str, plain: dict[str, bytes]
) -> None:
    extract = FeatureExtractor("demo", "both", device="cpu", workers=0, clips=2)
    with SETTINGS[setting]():
        assert in_bytes(extract(clip).arrays()) == plain


@pytest.mark.parametrize("setting", ["default dtype bfloat16", "default device", "autocast"])
def test_augmented_clips_are_the_same_bytes(setting: str, clip: str) -> None:
    views = Views(seed=0, video=VIDEO_AUGMENTS["linear"], audio=AUDIO_AUGMENTS["linear"])
    before = in_bytes(extracted(clip, views=views).arrays())
    with SETTINGS[setting]():
        assert in_bytes(extracted(clip, views=views).arrays()) == before


BUILDING = ("default dtype bfloat16", "default dtype float64", "default device", "no grad", "inference mode")


@pytest.fixture(scope="module", params=["demo", "random:3", None, "pth"])
def loading(request: pytest.FixtureRequest, checkpoint: str) -> tuple[Callable[[], Encoder], Encoder]:
    """A function that loads an encoder, and the encoder as loaded under torch's default settings."""

    def load() -> Encoder:
        torch.manual_seed(1)
        if request.param == "pth":
            return load_encoder("video", checkpoint)
        return load_encoder("audio", request.param)

    return load, load()


@pytest.mark.parametrize("setting", BUILDING)
def test_loaded_encoders_are_the_same_and_can_be_trained(
    setting: str, loading: tuple[Callable[[], Encoder], Encoder]
) -> None:
    load, before = loading
    with SETTINGS[setting]():
        found = load()
    assert found.weights_sha256 == before.weights_sha256
    for (name, value), other in zip(found.state_dict().items(), before.state_dict().values(), strict=True):
        assert value.dtype == other.dtype, name
        assert value.device.type == "cpu"
        torch.testing.assert_close(value, other, rtol=0, atol=0)
    assert all(p.requires_grad and not p.is_inference() for p in found.parameters())


@pytest.mark.parametrize("setting", BUILDING)
def test_from_pretrained_is_the_same(setting: str, tmp_path: Any) -> None:
    VideoEncoder(depth=10, width=8).save_pretrained(tmp_path)
    before = VideoEncoder.from_pretrained(tmp_path).state_dict()
    with SETTINGS[setting]():
        found = VideoEncoder.from_pretrained(tmp_path).state_dict()
    for name, value in before.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("setting", SETTINGS)
def test_preprocessing_is_the_same_bytes(setting: str) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 60, 80, 3), np.uint8)
    wave = rng.uniform(-1, 1, 22_050).astype(np.float32)
    video, audio = VideoEncoder(depth=10, width=8), AudioEncoder(depth=10, width=8)

    def preprocess() -> tuple[bytes, bytes]:
        mel._window_and_filters.cache_clear()
        clip, spectrogram = video.preprocess(frames, size=48), audio.preprocess(wave, sample_rate=22_050)
        assert clip.dtype == spectrogram.dtype == torch.float32
        return clip.numpy().tobytes(), spectrogram.numpy().tobytes()

    before = preprocess()
    with SETTINGS[setting]():
        assert preprocess() == before
    mel._window_and_filters.cache_clear()


@pytest.mark.parametrize("setting", ["default dtype bfloat16", "default device", "inference mode"])
def test_hear_embeddings_are_the_same_bytes(setting: str) -> None:
    waves = torch.rand(1, 40_000, dtype=torch.float32) - 0.5
    before = get_scene_embeddings(waves, load_model("demo"))
    with SETTINGS[setting]():
        found = get_scene_embeddings(waves, load_model("demo"))
    assert found.dtype == torch.float32
    assert found.numpy().tobytes() == before.numpy().tobytes()


def test_settings_are_restored() -> None:
    def state() -> list[object]:
        cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
        flags = [cudnn.conv, torch.backends.cuda.matmul, mkldnn.conv, mkldnn.matmul] if NEW_FLAGS else []
        return [
            torch.get_default_dtype(), torch.get_float32_matmul_precision(), cudnn.enabled, cudnn.benchmark,
            cudnn.deterministic, mkldnn.enabled, torch.is_autocast_enabled("cpu"),
            torch.is_inference_mode_enabled(), torch.empty(0).device.type,
            *(flag.fp32_precision for flag in flags),
        ]  # fmt: skip

    with (
        default_dtype(torch.float64),
        default_device("meta"),
        matmul_precision("medium"),
        torch.autocast("cpu"),
        torch.inference_mode(),
        attribute(torch.backends.mkldnn, "enabled", False),
        attribute(torch.backends.cudnn, "benchmark", True),
    ):
        before = state()
        with plain_torch(), exact_float32():
            assert torch.empty(0).dtype == torch.float32
            assert torch.empty(0).device.type == "cpu"
            assert torch.backends.mkldnn.enabled
            assert not torch.backends.cudnn.benchmark
            assert not torch.is_autocast_enabled("cpu")
        assert state() == before


def test_threads_that_overlap_restore_the_settings_before_both() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with plain_torch(), exact_float32():
            inside.set()
            leave.wait(10)

    with default_dtype(torch.float64), attribute(torch.backends.mkldnn, "enabled", False):
        thread = threading.Thread(target=other)
        with plain_torch(), exact_float32():
            thread.start()
            assert inside.wait(10)
        assert torch.get_default_dtype() == torch.float32  # the other thread still runs
        assert torch.backends.mkldnn.enabled
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64
        assert not torch.backends.mkldnn.enabled
