from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from crisscross_zoo.config import POOLINGS
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.encoders.pooling import pool, pooled_size
from crisscross_zoo.errors import ConfigError, InputError

# conv5x of the paper's inputs (N, 512, ...), and the dimension of the vector (the table in pooling.py)
MAPS = {
    "8x112": (1, 4, 4),
    "8x224": (1, 7, 7),
    "32x112": (4, 4, 4),
    "32x224": (4, 7, 7),
    "1 s": (3, 4),
    "2 s": (3, 7),
    "5 s": (3, 16),
}
LENGTHS = {
    "linear": (512, 8192, 2048, 32768, 1536, 4608, 10752),
    "linear-adaptive": (8192, 8192, 8192, 8192, 1536, 4608, 10752),
    "linear-strided": (512, 512, 2048, 2048, 1536, 4608, 10752),
    "fusion": (2048,) * 7,
    "avg": (512,) * 7,
    "max": (512,) * 7,
}
UNREAD = {  # every position that does not reach the vector; all others do
    ("linear-strided", "8x224"): lambda t, y, x: y > 3 or x > 3,
    ("linear-strided", "32x224"): lambda t, y, x: y > 3 or x > 3,
    **{
        (pooling, clip): lambda y, x, last=MAPS[clip][1] - 1: x == last
        for pooling in ("linear", "linear-adaptive", "linear-strided")
        for clip in ("1 s", "5 s")
    },
}

GOLDENS = [  # the map's file and key, the pooled features' key, our name
    ("video_backbone", "d18.in112x8.conv5x", "video.in112x8.maxpool144_defaultstride", "linear-strided"),
    ("video_backbone", "d18.in112x8.conv5x", "video.in112x8.maxpool144_stride1", "linear"),
    ("video_backbone", "d18.in112x8.conv5x", "video.in112x8.adaptivemax122", "fusion"),
    ("video_backbone", "d18.in112x8.conv5x", "video.in112x8.adaptivemax111", "max"),
    ("audio_backbone", "in80x200.conv5x", "audio.in80x200.maxpool13s12", "linear"),
    ("audio_backbone", "in80x500.conv5x", "audio.in80x500.maxpool13s12", "linear-adaptive"),
    ("audio_backbone", "in80x200.conv5x", "audio.in80x200.adaptivemax14", "fusion"),
    ("audio_backbone", "in80x500.conv5x", "audio.in80x500.adaptivemax14", "fusion"),
]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_vectors_have_the_lengths_of_the_table(pooling):
    lengths = tuple(pool(torch.randn(2, 512, *size), pooling).shape[1] for size in MAPS.values())
    assert lengths == LENGTHS[pooling]


@pytest.mark.parametrize("clip", MAPS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_position_of_the_map_reaches_the_vector_except_those_listed(pooling, clip):
    """A map for each position, in which its value is the largest, so that its gradient is not 0 if it is read."""
    size = MAPS[clip]
    positions = list(itertools.product(*map(range, size)))
    maps = torch.zeros(len(positions), 1, *size)
    for number, position in enumerate(positions):
        maps[(number, 0, *position)] = 1.0
    maps.requires_grad_()
    pool(maps, pooling).sum().backward()
    read = {position for number, position in enumerate(positions) if maps.grad[(number, 0, *position)] > 0}
    unread = UNREAD.get((pooling, clip), lambda *position: False)
    assert read == {position for position in positions if not unread(*position)}


@pytest.mark.parametrize("pooling", ["linear", "linear-adaptive", "linear-strided"])
def test_the_last_column_of_audio_is_read_if_their_number_is_odd(pooling):
    for columns in range(3, 33):
        features = torch.zeros(1, 1, 3, columns)
        features[..., -1] = 1.0
        assert bool(pool(features, pooling).any()) == (columns % 2 == 1), columns


@pytest.mark.parametrize(("file", "map_key", "key", "pooling"), GOLDENS)
def test_pooled_features_agree_with_the_released_code(golden, file, map_key, key, pooling):
    ours = pool(torch.from_numpy(golden(file)[map_key]), pooling)
    np.testing.assert_allclose(ours, golden("pooled_features")[f"{key}.flat"], rtol=1e-6)


def test_what_the_three_linear_poolings_take_the_maximum_of():
    features = torch.randn(1, 2, 3, 7, 7)
    windows = features[0].unfold(2, 4, 1).unfold(3, 4, 1).amax((-1, -2))  # (2, 3, 4, 4)
    assert torch.equal(pool(features, "linear")[0], windows.flatten())
    assert torch.equal(pool(features, "linear-strided")[0], windows[:, :, 0, 0].flatten())
    # 7 positions in 4 bins: 0-1, 1-3, 3-5, 5-6
    bins = [slice(0, 2), slice(1, 4), slice(3, 6), slice(5, 7)]
    adaptive = [[features[0, :, :, y, x].amax((1, 2, 3)) for x in bins] for y in bins]
    expected = torch.stack([torch.stack(row, -1) for row in adaptive], -2)
    assert torch.equal(pool(features, "linear-adaptive")[0], expected.flatten())


@pytest.mark.parametrize("pooling", ["linear", "linear-strided"])
@pytest.mark.parametrize(
    ("encoder", "too_small", "enough"),
    [(VideoEncoder, (3, 8, 96, 200), (3, 8, 97, 97)), (AudioEncoder, (1, 80, 64), (1, 80, 65))],
)
def test_a_map_smaller_than_the_kernel_is_refused_with_the_size_that_would_do(
    encoder, too_small, enough, pooling
):
    network = encoder(depth=10, width=1, pooling=pooling).eval()
    with pytest.raises(InputError, match=rf"at least {enough[-1]}.*'avg', 'max' or 'fusion'"):
        network(torch.zeros(1, *too_small))
    assert network(torch.zeros(1, *enough)).ndim == 2


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        pool(torch.zeros(1, 2, 3, 7), "liner")


@pytest.mark.parametrize("shape", [(2, 4, 2, 5, 7), (2, 4, 3, 7)])
def test_fusion_is_computed_on_the_cpu_for_mps(shape):
    class OnMps(torch.Tensor):
        device = torch.device("mps")

        def cpu(self):
            moves.append("cpu")
            return self.as_subclass(OnCpu)

    class OnCpu(torch.Tensor):
        def to(self, device):
            moves.append(device.type)
            return self.as_subclass(OnMps)

    moves = []
    features = torch.randn(shape)
    pooled = pool(features.as_subclass(OnMps), "fusion")
    assert moves == ["cpu", "mps"]
    assert torch.equal(pooled.as_subclass(torch.Tensor), pool(features, "fusion"))


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (VideoEncoder, (3, 1, 97, 128)),
        (VideoEncoder, (3, 9, 33, 64)),
        (AudioEncoder, (1, 80, 64)),
        (AudioEncoder, (1, 33, 65)),
    ],
)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_can_be_pooled_is_known_from_the_size_of_the_clip(encoder, shape, pooling):
    bands = {"n_mels": shape[1]} if encoder is AudioEncoder else {}
    encoder = encoder(depth=10, width=2, pooling=pooling, **bands).eval()

    def length(call):
        try:
            return call()
        except InputError as error:
            return str(error)

    whole = length(lambda: encoder(torch.zeros(1, *shape)).shape[1])
    assert length(lambda: pooled_size(pooling, shape[1:], 16)) == whole


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_encoder_knows_the_length_of_its_vectors(pooling):
    for encoder, clip in (
        (VideoEncoder(depth=10, width=8, pooling=pooling), torch.zeros(1, 3, 8, 224, 224)),
        (AudioEncoder(depth=10, width=8, pooling=pooling), torch.zeros(1, 1, 80, 200)),
    ):
        assert encoder.feature_size == encoder.eval()(clip).shape[1]
