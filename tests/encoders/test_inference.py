"""Encoders for inference have the output of the encoders."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from crisscross_zoo.config import POOLINGS
from crisscross_zoo.encoders import AudioEncoder, Encoder, VideoEncoder
from crisscross_zoo.encoders.inference import InferenceEncoder

CLIPS = {"video": (2, 3, 8, 112, 128), "audio": (2, 1, 80, 201)}


def trained(kind: str, depth: int = 18, width: int = 8) -> Encoder:
    """Return an encoder whose batch norms have statistics, with affine parameters of every size and sign."""
    encoder = {"video": VideoEncoder, "audio": AudioEncoder}[kind](depth=depth, width=width)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 2)
            with torch.no_grad():
                module.weight.normal_(0.7, 0.4)
                module.bias.normal_(0, 0.2)
    return encoder.eval()


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("depth", [10, 18, 34])
def test_the_map_is_the_same(kind: str, depth: int) -> None:
    encoder, x = trained(kind, depth), torch.randn(CLIPS[kind])
    with torch.inference_mode():
        exact = copy.deepcopy(encoder).double().forward_features(x.double())
        found = encoder.optimize_for_inference().forward_features(x)
    assert found.shape == exact.shape
    assert found.dtype == torch.float32
    assert error(found, exact) < 1e-5


@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 33, 50), (3, 3, 5, 64, 64), (1, 3, 9, 113, 97), (2, 3, 32, 40, 40)]
)
def test_odd_clips(shape: tuple[int, ...]) -> None:
    encoder, x = trained("video", 10), torch.randn(shape)
    layout = x.to(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        expected = encoder.forward_features(x)
        network = encoder.optimize_for_inference()
        assert error(network.forward_features(x), expected) < 1e-5
        assert error(network.forward_features(layout), expected) < 1e-5


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings(kind: str, pooling: str) -> None:
    encoder, x = trained(kind, 10), torch.randn(*CLIPS[kind][:-1], 224)
    x = torch.randn(1, 3, 8, 128, 128) if kind == "video" else x
    encoder.config = encoder.config.replace(pooling=pooling)
    with torch.inference_mode():
        assert error(encoder.optimize_for_inference()(x), encoder(x)) < 1e-5


@pytest.mark.parametrize("kind", CLIPS)
def test_bfloat16_points_the_same_way(kind: str) -> None:
    encoder, x = trained(kind), torch.randn(CLIPS[kind])
    with torch.inference_mode():
        expected = encoder.forward_features(x).flatten(1)
        found = encoder.optimize_for_inference(torch.bfloat16).forward_features(x)
    assert found.dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(found.float().flatten(1), expected)
    assert 0.999 < cosine.min() < 1 - 1e-7


@pytest.mark.parametrize("kind", CLIPS)
def test_the_encoder_stays_as_it_was(kind: str) -> None:
    encoder, x = trained(kind, 10), torch.randn(CLIPS[kind])
    before, training = copy.deepcopy(encoder.state_dict()), encoder.train().training
    network = encoder.optimize_for_inference()
    assert encoder.training is training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not any(p.requires_grad for p in network.parameters())
    with torch.inference_mode():
        earlier = network(x)
        for parameter in encoder.parameters():
            parameter.zero_()
        assert torch.equal(network(x), earlier)


@pytest.mark.parametrize("kind", CLIPS)
def test_it_is_exported_compiled_and_copied(kind: str) -> None:
    network, x = trained(kind, 10).optimize_for_inference(), torch.randn(CLIPS[kind])
    with torch.no_grad():
        expected = network.forward_features(x)
        exported = torch.export.export(
            _Map(network), (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=1024)},)
        )
        assert error(exported.module()(x[:1]), expected[:1]) < 1e-5
        compiled = torch.compile(_Map(network), backend="aot_eager", fullgraph=True)
        assert error(compiled(x), expected) < 1e-5
        assert torch.equal(copy.deepcopy(network).forward_features(x), expected)


class _Map(nn.Module):
    def __init__(self, network: InferenceEncoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.forward_features(x)


def test_no_random_numbers_are_drawn() -> None:
    encoder, before = trained("video", depth=10), torch.get_rng_state()
    encoder.optimize_for_inference()
    assert torch.equal(torch.get_rng_state(), before)
