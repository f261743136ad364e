from __future__ import annotations

import numpy as np
import pytest
import torch
from filler import fill_module, seeded_normal

from crisscross_zoo.config import STAGES, AudioConfig
from crisscross_zoo.encoders import AudioEncoder, build_encoder
from crisscross_zoo.errors import InputError

TOLERANCE = 1e-5  # of the largest value; the goldens' own noise is 5e-6
INPUTS = {"in80x200": (201, (2, 1, 80, 200)), "in80x500": (203, (1, 1, 80, 500))}


@pytest.fixture(scope="module")
def encoder():
    return fill_module(AudioEncoder(pooling="avg")).eval()


def test_the_state_dict_is_the_released_one(golden):
    released = golden("state_dicts.json")["audio18"]
    encoder = AudioEncoder()
    entries = [[name, list(v.shape), str(v.dtype)[6:]] for name, v in encoder.state_dict().items()]
    assert entries == released["entries"]
    assert sum(p.numel() for p in encoder.parameters()) == released["trainable_parameters"]


@pytest.mark.parametrize("key", INPUTS)
def test_every_stage_agrees_with_the_released_code(golden, encoder, key):
    numbers = golden("audio_backbone")
    with torch.no_grad():
        maps = encoder.forward_intermediates(torch.from_numpy(seeded_normal(*INPUTS[key])))
        pooled = encoder(torch.from_numpy(seeded_normal(*INPUTS[key])))
    assert list(maps) == list(STAGES)
    for stage, ours in maps.items():
        ours = ours.double().numpy()
        assert ours.shape == tuple(numbers[f"{key}.{stage}.shape"])
        first = numbers[f"{key}.{stage}.first32"]
        np.testing.assert_allclose(ours.ravel()[:32], first, rtol=0, atol=TOLERANCE * np.abs(ours).max())
        mean_std = numbers[f"{key}.{stage}.mean_std"]
        np.testing.assert_allclose([ours.mean(), ours.std()], mean_std, rtol=TOLERANCE)
    released = numbers[f"{key}.conv5x"]
    np.testing.assert_allclose(maps["conv5x"], released, rtol=0, atol=TOLERANCE * released.max())
    released = numbers[f"{key}.pool"].reshape(pooled.shape)
    np.testing.assert_allclose(pooled, released, rtol=0, atol=TOLERANCE * released.max())


def test_the_network_takes_200_columns_or_the_201_of_a_centred_stft():
    encoder = AudioEncoder(depth=10, width=2).eval()
    for columns in (200, 201):
        assert encoder.forward_features(torch.randn(1, 1, 80, columns)).shape == (1, 16, 3, 7)


@pytest.mark.parametrize(("depth", "blocks"), [(10, 4), (18, 8), (34, 16)])
def test_depths_differ_in_blocks_alone(depth, blocks):
    encoder = build_encoder(AudioConfig(depth=depth, width=2))
    assert sum(name.endswith(".conv2.weight") for name in encoder.state_dict()) == blocks
    assert encoder.eval()(torch.randn(1, 1, 80, 200)).shape == (1, 3 * 3 * 16)


def test_convolutions_start_from_kaimings_normal_distribution():
    weight = AudioEncoder().block4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 80, 200), (1, 3, 80, 200), (80, 200)])
def test_what_is_no_batch_of_spectrograms_is_refused(shape):
    with pytest.raises(InputError, match=r"takes a batch \(N, 1, 80, T\)"):
        AudioEncoder(depth=10, width=2)(torch.zeros(shape))


def test_preprocess_takes_one_wave_or_many_of_any_length_and_channels():
    encoder = AudioEncoder(depth=10, width=2)
    stereo = np.random.default_rng(0).normal(0, 0.1, (2, 40_000))
    one = encoder.preprocess(stereo)
    assert one.shape == (1, 80, 250)  # 2.5 s: not cut to the clip's 2
    assert one.dtype == torch.float32
    torch.testing.assert_close(encoder.preprocess(stereo.mean(0)), one, atol=1e-5, rtol=0)
    many = encoder.preprocess(np.stack([stereo, stereo[::-1], 0.5 * stereo]))
    assert many.shape == (3, 1, 80, 250)
    torch.testing.assert_close(many[1], one, atol=1e-5, rtol=0)
    assert encoder.preprocess(stereo, sample_rate=8000).shape == (1, 80, 500)
    torch.testing.assert_close(encoder.preprocess(stereo, backend="librosa"), one, atol=1e-4, rtol=0)
