"""The resampler that needs torch alone gives torchaudio's bits, and is used if torchaudio cannot be imported."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.transforms.mel import mono_at_rate
from crisscross_zoo.transforms.resample import resample, sinc_resample

try:
    from torchaudio.functional import resample as by_torchaudio
except (ImportError, OSError, RuntimeError) as error:
    by_torchaudio, WHY_NOT = None, f"torchaudio does not import: {error}"
else:
    WHY_NOT = ""

needs_torchaudio = pytest.mark.skipif(by_torchaudio is None, reason=WHY_NOT)

RATES = (
    8_000,
    11_025,
    12_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    96_000,
    1_000,
    12_250,
    16_050,
)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@needs_torchaudio
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", [(1,), (7,), (2_000,), (3, 901), (2, 2, 400)])
def test_the_bits_are_torchaudios(rate: int, shape: tuple[int, ...]) -> None:
    wave = noise(*shape)
    for pair in ((rate, 16_000), (16_000, rate)):
        expected, found = by_torchaudio(wave, *pair), sinc_resample(wave, *pair)
        assert found.shape == expected.shape
        assert torch.equal(found, expected), pair


@needs_torchaudio
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_bits_are_torchaudios_in_other_dtypes(dtype: torch.dtype) -> None:
    wave = noise(3, 2_000).to(dtype)
    assert torch.equal(sinc_resample(wave, 44_100, 16_000), by_torchaudio(wave, 44_100, 16_000))


@needs_torchaudio
def test_the_length_is_torchaudios_where_float32_rounds_it() -> None:
    wave = torch.zeros(2**24 // 3 + 2)
    expected = by_torchaudio(wave, 1, 3).shape
    assert expected != (3 * len(wave),)  # or the case is no longer one
    assert sinc_resample(wave, 1, 3).shape == expected


def test_a_tone_below_the_cut_off_is_kept_and_one_above_it_is_not() -> None:
    seconds = torch.arange(44_100, dtype=torch.float64) / 44_100
    for hertz, kept in ((1_000, True), (12_000, False)):
        found = sinc_resample(torch.sin(2 * math.pi * hertz * seconds), 44_100, 16_000)
        expected = torch.sin(2 * math.pi * hertz * torch.arange(16_000, dtype=torch.float64) / 16_000) * kept
        # The filter of 6 zero crossings: 6e-3 of ripple and -43 dB of leakage. The ends are padded with zeros.
        np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=7e-3)


def test_equal_rates_change_nothing() -> None:
    wave = noise(2, 50)
    assert torch.equal(sinc_resample(wave, 16_000, 16_000), wave)


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_without_torchaudio_preprocessing_gives_the_same_bits(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name.startswith("torchaudio"):
                raise error("of another CUDA version")

    wave = noise(2, 3, 4_410)
    expected = mono_at_rate(wave, AudioConfig(), sample_rate=44_100)
    for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(error):
        import torchaudio  # noqa: F401
    assert torch.equal(mono_at_rate(wave, AudioConfig(), sample_rate=44_100), expected)
    assert torch.equal(resample(wave, 8_000, 16_000), sinc_resample(wave, 8_000, 16_000))
