"""Inputs of an encoder: anything that is not a batch of its clips is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from crisscross_zoo.encoders import AudioEncoder, Encoder, VideoEncoder
from crisscross_zoo.errors import InputError

SHAPES = {"video": (1, 3, 8, 112, 112), "audio": (1, 1, 80, 100)}


def make(modality: str) -> Encoder:
    kind = {"video": VideoEncoder, "audio": AudioEncoder}[modality]
    return kind(depth=10, width=2).eval()


def clips(modality: str) -> torch.Tensor:
    return torch.zeros(SHAPES[modality])


@pytest.fixture(params=["video", "audio"])
def modality(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.numpy(), "takes a tensor, not ndarray; pass what preprocess returns"),
        (lambda x: x.tolist(), "takes a tensor, not list"),
        (
            lambda x: x.double(),
            r"weights are torch.float32, its input is torch.float64; pass x.to\(torch.float32\)",
        ),
        (lambda x: x.half(), "weights are torch.float32, its input is torch.float16"),
        (lambda x: x.index_fill(2, torch.tensor(3), np.nan), "not finite; replace NaN"),
        (lambda x: x.index_fill(2, torch.tensor(3), -np.inf), "not finite; replace NaN"),
        (lambda x: x[0], r"takes a batch .*; add the batch axis: x\[None\]"),
        (lambda x: x.flatten(), "takes a batch .*; make it with preprocess"),
    ],
)
def test_what_is_no_batch_of_clips_is_refused(modality: Any, spoil: Any, message: str) -> None:
    encoder, x = make(modality), spoil(clips(modality))
    network = encoder.optimize_for_inference()
    calls = [encoder, encoder.forward_features, encoder.forward_intermediates]
    if getattr(x, "dtype", None) != torch.float16:  # it converts that
        calls += [network, network.forward_features]
    for call in calls:
        with pytest.raises(InputError, match=message):
            call(x)


def test_other_mel_bands_than_those_of_the_config_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"takes a batch \(N, 1, 80, T\), not \(1, 1, 64, 100\); make it with preprocess"
    ):
        make("audio")(torch.zeros(1, 1, 64, 100))
    assert AudioEncoder(depth=10, width=2, n_mels=64).eval()(torch.zeros(1, 1, 64, 100)).shape == (1, 32)


def test_the_remedy_is_the_one_that_helps() -> None:
    with pytest.raises(InputError, match=r"add the axis of channels: x\[:, None\]"):
        make("audio")(torch.zeros(2, 80, 200))
    with pytest.raises(InputError, match=r"preprocess, which takes waves \(N, channels, samples\)"):
        make("audio")(torch.zeros(2, 1, 32_000))


def test_a_network_in_half_precision_takes_its_own_dtype_and_autocast_any_but_float64(modality: Any) -> None:
    encoder, x = make(modality), clips(modality)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(x).shape[0] == 1
        with pytest.raises(InputError, match=r"its input is torch\.float64"):
            encoder(x.double())
    encoder.bfloat16()
    assert encoder(x.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"pass x.to\(torch.bfloat16\)"):
        encoder(x)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_a_network_for_inference_takes_any_dtype_but_float64(modality: Any, weights: torch.dtype) -> None:
    network, x = make(modality).optimize_for_inference(weights), clips(modality)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert network(x.to(dtype)).dtype == weights
    with pytest.raises(InputError, match=rf"weights are {weights}, its input is torch\.float64"):
        network(x.double())
    with pytest.raises(InputError, match=r"takes floating point, not torch\.uint8"):
        network(x.byte())


def test_training_checks_no_values(modality: Any) -> None:
    """In training the loss shows NaN, and a check would wait for the GPU."""
    encoder = make(modality).train()
    with torch.no_grad():
        assert encoder(clips(modality).expand(2, *SHAPES[modality][1:]) + np.nan).isnan().all()


def test_another_pooling_shares_the_parameters(modality: Any) -> None:
    encoder = make(modality)
    other = encoder.with_pooling("avg")
    assert (encoder.config.pooling, other.config.pooling) == ("linear", "avg")
    assert next(encoder.parameters()) is next(other.parameters())
    assert encoder.with_pooling("linear") is encoder.with_pooling(None) is encoder
