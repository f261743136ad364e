from __future__ import annotations

import numpy as np
import pytest
import torch
from filler import fill_module, seeded_normal

from crisscross_zoo.config import STAGES, AudioConfig, VideoConfig
from crisscross_zoo.encoders import VideoEncoder, build_encoder
from crisscross_zoo.errors import ConfigError, InputError

TOLERANCE = 1e-5  # of the largest value; the goldens' own noise is 5e-6


@pytest.fixture(scope="module")
def maps():
    """All feature maps of depth 18 for the golden input."""
    encoder = fill_module(VideoEncoder()).eval()
    with torch.no_grad():
        return encoder.forward_intermediates(torch.from_numpy(seeded_normal(101, (2, 3, 8, 112, 112))))


@pytest.mark.parametrize("depth", [10, 18, 34])
def test_the_state_dict_is_the_released_one(golden, depth):
    released = golden("state_dicts.json")[f"video{depth}"]
    encoder = VideoEncoder(depth=depth)
    entries = [[name, list(v.shape), str(v.dtype)[6:]] for name, v in encoder.state_dict().items()]
    assert entries == released["entries"]
    assert sum(p.numel() for p in encoder.parameters()) == released["trainable_parameters"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_agrees_with_the_released_code(golden, maps, stage):
    numbers, ours = golden("video_backbone"), maps[stage].double().numpy()
    assert ours.shape == tuple(numbers[f"d18.in112x8.{stage}.shape"])
    largest = np.abs(ours).max()
    first = numbers[f"d18.in112x8.{stage}.first32"]
    np.testing.assert_allclose(ours.ravel()[:32], first, rtol=0, atol=TOLERANCE * largest)
    mean_std = numbers[f"d18.in112x8.{stage}.mean_std"]
    np.testing.assert_allclose([ours.mean(), ours.std()], mean_std, rtol=TOLERANCE)


def test_conv5x_agrees_with_the_released_code(golden, maps):
    released = golden("video_backbone")["d18.in112x8.conv5x"]
    np.testing.assert_allclose(maps["conv5x"], released, rtol=0, atol=TOLERANCE * released.max())


@pytest.mark.parametrize("depth", [10, 34])
def test_other_depths_agree_with_the_released_code(golden, depth):
    released = golden("video_backbone")[f"d{depth}.in112x8.pool"].reshape(2, 512)
    encoder = fill_module(VideoEncoder(depth=depth, pooling="avg")).eval()
    with torch.no_grad():
        ours = encoder(torch.from_numpy(seeded_normal(101, (2, 3, 8, 112, 112))))
    np.testing.assert_allclose(ours, released, rtol=0, atol=TOLERANCE * released.max())


def test_the_three_forwards_agree():
    encoder = VideoEncoder(depth=10, width=4, pooling="max").eval()
    clips = torch.randn(2, 3, 8, 64, 48)
    maps = encoder.forward_intermediates(clips)
    assert list(maps) == list(STAGES)
    assert [tuple(m.shape[1:]) for m in maps.values()] == [
        (4, 8, 16, 12),
        (4, 8, 16, 12),
        (8, 4, 8, 6),
        (16, 2, 4, 3),
        (32, 1, 2, 2),
    ]
    assert torch.equal(encoder.forward_features(clips), maps["conv5x"])
    assert torch.equal(encoder(clips), maps["conv5x"].amax((2, 3, 4)))
    assert encoder.num_features == 32


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((3, 8, 32, 32), torch.float32, r"add the batch axis: x\[None\]"),
        ((1, 8, 3, 32, 32), torch.float32, r"takes a batch \(N, 3, T, H, W\), not \(1, 8, 3, 32, 32\)"),
        ((1, 3, 8, 32, 32), torch.uint8, "floating point, not torch.uint8"),
    ],
)
def test_what_is_no_batch_of_clips_is_refused(shape, dtype, message):
    encoder = VideoEncoder(depth=10, width=2)
    for forward in (encoder, encoder.forward_features, encoder.forward_intermediates):
        with pytest.raises(InputError, match=message):
            forward(torch.zeros(shape, dtype=dtype))


def test_the_config_may_be_given_whole_or_by_field():
    assert VideoEncoder(VideoConfig(depth=10), width=4).config == VideoConfig(depth=10, width=4)
    assert isinstance(build_encoder(VideoConfig(depth=10, width=2)), VideoEncoder)
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        VideoEncoder(witdh=4)
    with pytest.raises(ConfigError, match="pass VideoConfig"):
        VideoEncoder(AudioConfig())
    with pytest.raises(ConfigError, match="AudioConfig has no field"):
        VideoEncoder(modality="audio")


def test_preprocess_belongs_to_the_checkpoint():
    frames = np.zeros((2, 8, 40, 30, 3), np.uint8)
    encoder = VideoEncoder(depth=10, width=2, size=16, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5))
    clips = encoder.preprocess(frames)
    assert clips.shape == (2, 3, 8, 16, 16)
    assert clips.dtype == torch.float32
    torch.testing.assert_close(clips[0, :, 0, 0, 0], torch.tensor([-0.1, -0.1, -0.6]))
    assert encoder.preprocess(frames, size=24).shape == (2, 3, 8, 24, 24)
    assert encoder.preprocess(frames[0]).shape == (3, 8, 16, 16)
    assert encoder.config.size == 16
