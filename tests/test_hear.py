"""HEAR 2021: its validator if it is installed, the validator's assertions, and properties that it does not check."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crisscross_zoo import hear, load_encoder
from crisscross_zoo.encoders import AudioEncoder
from crisscross_zoo.errors import InputError, UnknownWeightsError
from crisscross_zoo.extract.extractor import DEFAULT_BATCH

ROOT = Path(__file__).resolve().parents[1]
RATE = 16_000


@pytest.fixture(scope="module")
def model() -> hear.HearModel:
    return hear.load_model("demo")


def noise(sounds: int, seconds: float, rate: int = RATE) -> Tensor:
    return torch.rand(sounds, int(seconds * rate)) * 2 - 1


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@pytest.mark.skipif(find_spec("hearvalidator") is None, reason="docs/interfaces.md says how to install it")
def test_hear_validator(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("class Module: ...")  # it checks whether the model is a Module
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "hearvalidator.validate", "crisscross_zoo.hear", "-m", "demo", "-d", "cpu"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Looks good!\n")
    # It always warns, of the drift that test_nothing_drifts_over_an_hour is about, and of nothing else.
    assert done.stderr.count("UserWarning: ") == done.stderr.count("UserWarning:  IMPORTANT") == 1


def test_the_model_has_its_sample_rate_and_sizes(model: hear.HearModel) -> None:
    assert isinstance(model, nn.Module)
    assert model.sample_rate == RATE
    sizes = (model.scene_embedding_size, model.timestamp_embedding_size)
    assert [type(size) for size in sizes] == [int, int]
    assert sizes == (1728, 1728)
    assert hear.HearModel(AudioEncoder()).scene_embedding_size == 4608


@pytest.mark.parametrize("seconds", [0.001, 0.0499, 0.05, 1.07, 1.98, 4.0])
def test_timestamps(model: hear.HearModel, seconds: float) -> None:
    embeddings, timestamps = hear.get_timestamp_embeddings(noise(2, seconds), model)
    assert embeddings.dtype == timestamps.dtype == torch.float32
    assert embeddings.shape == (2, timestamps.shape[1], model.timestamp_embedding_size)
    assert timestamps.tolist() == [[50.0 * k for k in range(1 + int(seconds * 1000) // 50)]] * 2
    assert 1000 * seconds - 50 < timestamps.max() <= 1000 * seconds


def test_an_embedding_is_the_encoders_for_the_clip_around_its_timestamp(model: hear.HearModel) -> None:
    encoder, audio = load_encoder("audio", "demo"), noise(3, 2.3)
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    silence = torch.zeros(3, RATE)
    padded = torch.cat([silence, audio, silence], dim=1)
    for k in (0, 1, 23, 33, 46):
        first = round(float(timestamps[0, k]) * RATE / 1000)  # of the padded sound: a second earlier
        with torch.no_grad():
            expected = encoder(encoder.preprocess(padded[:, None, first : first + 2 * RATE]))
        assert close(embeddings[:, k], expected)


def test_an_event_is_in_the_embeddings_around_it_alone(model: hear.HearModel) -> None:
    quiet = 0.01 * noise(1, 6)
    loud = quiet.clone()
    loud[0, 3 * RATE : 3 * RATE + 160] += 0.5
    (first, timestamps), (second, _) = (hear.get_timestamp_embeddings(a, model) for a in (quiet, loud))
    changed = timestamps[0][(first != second).any(-1)[0]]
    # A clip reaches a second to both sides, its end is not in it, and the event is [3, 3.01) s.
    assert changed.min() == 2050
    assert changed.max() == 4000


def test_nothing_drifts_over_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1110 Hz a hop has 55.5 samples. Each sample holds its number, each embedding its clip's middle sample."""
    rate, scale = 1110, 2.0**22
    monkeypatch.setitem(DEFAULT_BATCH, "cpu", {"audio": 1024})
    model = hear.HearModel(AudioEncoder(depth=10, width=8, sample_rate=rate, pooling="avg"))
    model.timestamp_embedding_size = 1
    model.forward = lambda clips: scale * clips[:, clips.shape[1] // 2, None]  # type: ignore[method-assign]
    audio = torch.arange(3600 * rate)[None] / scale
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    assert timestamps.shape == (1, 72_001)
    assert np.array_equal(timestamps[0].numpy(), 50.0 * np.arange(72_001))
    off = embeddings[0, :-1, 0].double() - timestamps[0, :-1].double() * rate / 1000
    assert off.abs().max() <= 0.5  # samples


def test_a_scene_is_the_mean_over_its_clips(model: hear.HearModel) -> None:
    encoder, audio = load_encoder("audio", "demo"), noise(2, 4.6)
    clips = [audio[:, None, s : s + 2 * RATE] for s in (0, RATE, 2 * RATE, round(2.6 * RATE))]
    with torch.no_grad():
        expected = torch.stack([encoder(encoder.preprocess(clip)) for clip in clips]).mean(0)
    scenes = hear.get_scene_embeddings(audio, model)
    assert scenes.dtype == torch.float32
    assert close(scenes, expected)


def test_a_short_scene_is_padded_with_silence(model: hear.HearModel) -> None:
    audio = noise(2, 0.3)
    padded = torch.cat([audio, torch.zeros(2, 2 * RATE - audio.shape[1])], dim=1)
    assert close(hear.get_scene_embeddings(audio, model), hear.get_scene_embeddings(padded, model))


def test_sounds_do_not_mix(model: hear.HearModel) -> None:
    audio = noise(3, 2.74)
    together, alone = (hear.get_scene_embeddings(a, model) for a in (audio, audio[1:2]))
    assert close(together[1:2], alone)
    audio = audio[:, :RATE]
    together, alone = (hear.get_timestamp_embeddings(a, model)[0] for a in (audio, audio[1:2]))
    assert close(together[1:2], alone)
    assert not close(together[:1], alone)


def test_clips_go_through_in_batches_whatever_the_length(model: hear.HearModel) -> None:
    seen: list[int] = []
    hook = model.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    hear.get_timestamp_embeddings(noise(2, 2.2), model)
    hook.remove()
    most = DEFAULT_BATCH["cpu"]["audio"]
    assert seen == [most] * (90 // most) + [90 % most]


def test_embeddings_are_for_training_on_and_not_for_training_the_encoder(model: hear.HearModel) -> None:
    scenes = hear.get_scene_embeddings(noise(2, 1), model)
    layer = nn.Linear(1728, 2)
    layer(scenes).sum().backward()  # tensors of inference mode would refuse
    assert not scenes.requires_grad
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("audio", "line"),
    [
        (torch.zeros(16_000), "audio is of shape (16000,); pass a tensor (n_sounds, n_samples)"),
        (torch.zeros(1, 1, 16_000), "audio is of shape (1, 1, 16000)"),
        (np.zeros((1, 16_000), np.float32), "audio is ndarray"),
        (torch.zeros(1, 16_000, dtype=torch.int16), "the wave has dtype torch.int16"),
        (torch.full((1, 16_000), torch.nan), "the wave holds values that are not finite"),
        (torch.zeros(2, 0), "the wave has the shape (2, 1, 0)"),
    ],
)
def test_what_is_no_batch_of_sounds_is_refused(model: hear.HearModel, audio: object, line: str) -> None:
    for embed in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(InputError) as caught:
            embed(audio, model)
        assert str(caught.value).startswith(line)


def test_weights_are_named_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []

    def load(modality: str, weights: str) -> object:
        requested.append(weights)
        return load_encoder("audio", "demo")

    monkeypatch.setattr(hear, "load_encoder", load)
    hear.load_model()
    hear.load_model("")
    hear.load_model("kinetics400")
    assert requested == ["audioset", "audioset", "kinetics400"]
    monkeypatch.undo()
    with pytest.raises(UnknownWeightsError, match="did you mean 'demo'"):
        hear.load_model("dmeo")


@pytest.mark.cuda
def test_the_model_and_the_audio_may_be_on_different_devices() -> None:
    model, audio = hear.load_model("demo"), noise(2, 2.74)
    expected, (at_timestamps, _) = (
        hear.get_scene_embeddings(audio, model),
        hear.get_timestamp_embeddings(audio, model),
    )
    model.cuda()
    for waves in (audio, audio.cuda()):
        scenes = hear.get_scene_embeddings(waves, model)
        embeddings, timestamps = hear.get_timestamp_embeddings(waves, model)
        assert scenes.device == embeddings.device == timestamps.device == waves.device
        assert (scenes.cpu() - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert (embeddings.cpu() - at_timestamps).abs().max() <= 1e-4 * at_timestamps.abs().max()
