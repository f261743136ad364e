from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from filler import tones

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.transforms.mel import log_mel, mel_filters, mono_at_rate

CONFIG = AudioConfig()
TOLERANCE = 1e-4  # of normalised log-mel, whose values span about 7


def spectrogram(wave, backend="torch", **options):
    return log_mel(mono_at_rate(wave, CONFIG, **options), CONFIG, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "librosa"])
@pytest.mark.parametrize(("key", "wave"), [("tone2s", tones(32_000, 301)), ("silent2s", np.zeros(32_000))])
def test_log_mel_agrees_with_the_released_code(golden, backend, key, wave):
    released = golden("logmel")[f"{key}.reflect"]
    ours = spectrogram(wave, backend)
    assert ours.shape == (1, 80, 200)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours, released[..., :200], rtol=0, atol=TOLERANCE)


def test_the_filterbank_agrees_with_the_released_code(golden):
    released = golden("logmel")["mel_filterbank"]
    np.testing.assert_allclose(mel_filters(CONFIG), released, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "changes", [{}, {"n_mels": 40, "fmin": 50.0, "fmax": 7000.0}, {"n_fft": 400}, {"fmin": 1500.0}]
)
def test_the_filterbank_is_librosas(changes):
    import librosa

    config = CONFIG.replace(**changes)
    theirs = librosa.filters.mel(
        sr=16_000, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax
    )
    np.testing.assert_allclose(mel_filters(config), theirs, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "wave",
    [
        pytest.param(np.pad(tones(20_800, 301), (0, 11_200)), id="1.3 s padded to 2"),
        pytest.param(np.stack([tones(32_000, 301), 0.5 * tones(32_000, 302)]), id="stereo"),
        pytest.param(tones(80_000, 302)[:32_000], id="5 s cut to 2"),
        pytest.param(np.stack([tones(16_159, s) for s in (1, 2, 3)])[:, None], id="a batch of odd length"),
        pytest.param(tones(1_024, 1), id="one window"),
        pytest.param(1e-4 * tones(8_000, 5), id="quiet"),
    ],
)
def test_the_two_backends_agree(wave):
    ours, theirs = spectrogram(wave), spectrogram(wave, "librosa")
    assert ours.shape == theirs.shape == (*wave.shape[:-2], 1, 80, wave.shape[-1] // 160)
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


def test_edges_are_reflected_not_padded_with_zeros():
    wave = torch.from_numpy(tones(16_000, 301)).float()
    reflected = torch.cat([wave[1:513].flip(0), wave, wave[-513:-1].flip(0)])
    spectrum = torch.stft(
        reflected, 1024, 160, window=torch.hann_window(1024), center=False, return_complex=True
    )
    mel = torch.from_numpy(mel_filters(CONFIG)) @ spectrum.abs().square()
    expected = ((mel + CONFIG.log_offset).log() - CONFIG.mean) / CONFIG.std
    torch.testing.assert_close(log_mel(wave, CONFIG)[0], expected[:, :100], atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [513, 1_000, 15_999, 16_000, 16_159, 16_160])
def test_a_wave_has_100_columns_per_second(samples):
    assert log_mel(torch.zeros(samples), CONFIG).shape == (1, 80, samples // 160)


def test_ten_times_the_amplitude_adds_the_logarithm_of_a_hundred():
    wave = torch.from_numpy(tones(16_000, 301)).float()
    difference = log_mel(wave, CONFIG) - log_mel(0.1 * wave, CONFIG)
    torch.testing.assert_close(
        difference, torch.full_like(difference, np.log(100) / CONFIG.std), atol=5e-3, rtol=0
    )


def test_a_waves_values_do_not_depend_on_its_batch():
    waves = torch.randn(5, 16_000)
    batch = log_mel(waves, CONFIG)
    assert batch.shape == (5, 1, 80, 100)
    for wave, expected in zip(waves, batch, strict=True):
        assert torch.equal(log_mel(wave, CONFIG), expected)


def test_gradients_pass_through_even_after_inference_mode():
    config = CONFIG.replace(n_mels=20)  # not in the cache yet
    with torch.inference_mode():
        log_mel(torch.randn(2_000), config)
    wave = torch.randn(2_000, requires_grad=True)
    log_mel(wave, config).sum().backward()
    assert wave.grad is not None
    assert wave.grad.abs().max() > 0


def test_autocast_does_not_touch_the_front_end():
    wave = torch.from_numpy(tones(44_100, 301))
    expected = spectrogram(wave, sample_rate=44_100)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spectrogram(wave, sample_rate=44_100), expected)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_another_rate_is_resampled(rate):
    """A tone below every Nyquist frequency has the same spectrogram at any rate, away from the edges."""
    t = np.arange(2 * rate) / rate
    expected = spectrogram(0.5 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000))
    ours = spectrogram(0.5 * np.sin(2 * np.pi * 1000 * t), sample_rate=rate)
    assert ours.shape == (1, 80, 200)
    loud = expected > expected.amax() - 3
    loud[..., :10] = loud[..., -10:] = False
    assert loud.sum() > 180
    torch.testing.assert_close(ours[loud], expected[loud], atol=0.01, rtol=0)


def test_a_rate_that_is_the_configs_is_not_resampled():
    wave = torch.randn(4_000)
    assert torch.equal(mono_at_rate(wave, CONFIG, sample_rate=16_000.0), wave)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_any_floating_point_will_do(dtype):
    wave = (np.arange(1_000) % 16 / 16).astype(dtype)  # exact in every dtype
    expected = torch.arange(1_000).remainder(16) / 16
    wave.flags.writeable = False
    assert torch.equal(mono_at_rate(wave, CONFIG), expected)
    assert torch.equal(mono_at_rate(wave[::-1], CONFIG), expected.flip(0))


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(16_000, np.int16), "dtype int16; .*int16 / 32768"),
        (torch.zeros(16_000, dtype=torch.int32), "dtype torch.int32"),
        (np.zeros(16_000, np.complex64), "dtype complex64"),
        (np.zeros((16_000, 2)), "more channels than samples; transpose it"),
        (np.zeros((1, 1, 1, 16_000)), r"the shape \(1, 1, 1, 16000\); pass \(samples,\)"),
        (np.zeros((2, 0)), r"the shape \(2, 0\)"),
        (np.zeros(()), r"the shape \(\)"),
        (np.full(16_000, np.nan), "not finite"),
        (torch.full((16_000,), torch.inf), "not finite"),
        ([0.0] * 16_000, "the wave is a list"),
        (torch.rand(200, 32_000), r"200 channels, which would be averaged; pass wave\[:, None\]"),
        (torch.rand(9, 32_000), "9 channels"),
    ],
)
def test_what_is_no_wave_is_refused(wave, message):
    with pytest.raises(InputError, match=message):
        mono_at_rate(wave, CONFIG)


def test_a_batch_of_mono_waves_and_a_wave_of_many_channels_are_distinguished():
    waves = torch.rand(9, 16_000) - 0.5
    assert torch.equal(mono_at_rate(waves[:, None], CONFIG), waves)
    assert torch.equal(mono_at_rate(waves[None], CONFIG), waves.mean(0)[None])
    assert torch.equal(mono_at_rate(waves[:8], CONFIG), waves[:8].mean(0))


@pytest.mark.parametrize("backend", ["torch", "librosa"])
def test_a_wave_too_short_to_reflect_is_refused(backend):
    with pytest.raises(InputError, match=r"512 samples at 16000 Hz.*at least 513"):
        log_mel(torch.zeros(512), CONFIG, backend=backend)


@pytest.mark.parametrize("rate", [0, -16_000, 44_100.5, float("nan"), True])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(ConfigError, match="sample_rate"):
        mono_at_rate(np.zeros(16_000), CONFIG, sample_rate=rate)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match=r"^backend='libros' is not known; did you mean 'librosa'"):
        log_mel(torch.zeros(16_000), CONFIG, backend="libros")


def test_librosa_is_imported_only_for_its_backend():
    code = (
        "import sys, torch; from crisscross_zoo.encoders import AudioEncoder;"
        "AudioEncoder(depth=10, width=1).preprocess(torch.zeros(8000)); print('librosa' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_audio_that_was_never_scaled_is_noticed():
    with pytest.raises(InputError, match="divide 16-bit samples by 32768"):
        mono_at_rate(np.full(16_000, 3000.0, np.float32), AudioConfig())
    with pytest.raises(ConfigError, match="sample_rate='16k'"):
        mono_at_rate(np.zeros(16_000, np.float32), AudioConfig(), sample_rate="16k")


def test_a_peak_of_16_is_still_taken_for_a_wave():
    wave = np.zeros(1_000, np.float32)
    wave[3] = -16.0
    assert mono_at_rate(wave, CONFIG).min() == -16
    wave[3] = -16.001
    with pytest.raises(InputError, match=r"the wave reaches 16\.001, far beyond"):
        mono_at_rate(wave, CONFIG)


def test_as_many_channels_as_samples_are_channels():
    assert torch.equal(mono_at_rate(torch.eye(8), CONFIG), torch.full((8,), 1 / 8))


@pytest.mark.parametrize("rate", [1, 1.0, 16_000])
def test_a_rate_is_a_whole_number_above_0(rate):
    config = CONFIG.replace(sample_rate=1) if rate == 1 else CONFIG
    assert mono_at_rate(torch.ones(8), config, sample_rate=rate).tolist() == [1] * 8


def test_the_librosa_backend_is_librosas_own_spectrogram(monkeypatch):
    import librosa

    called = []
    stft = librosa.stft
    monkeypatch.setattr(librosa, "stft", lambda *args, **options: called.append(1) or stft(*args, **options))
    spectrogram(tones(8_000, 5), "librosa")
    assert called
    spectrogram(tones(8_000, 5))
    assert len(called) == 1


def test_the_two_backends_agree_between_any_two_frequencies():
    config = CONFIG.replace(n_mels=40, fmin=300.0, fmax=5000.0)
    wave = mono_at_rate(tones(16_000, 7), config)
    ours, theirs = log_mel(wave, config), log_mel(wave, config, backend="librosa")
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


def test_double_precision_waves_are_computed_in_float32():
    wave = torch.from_numpy(tones(16_000, 3)).double()
    assert mono_at_rate(wave, CONFIG).dtype == torch.float32
    assert log_mel(wave, CONFIG).dtype == torch.float32
    assert torch.equal(log_mel(wave, CONFIG), log_mel(wave.float(), CONFIG))


def test_a_wave_of_many_rows_and_few_samples_is_refused_in_a_batch_too():
    with pytest.raises(InputError, match="more channels than samples"):
        mono_at_rate(torch.zeros(9, 16_000, 2), CONFIG)


def test_silence_has_no_peak_to_be_refused():
    assert float(mono_at_rate(np.zeros(800), CONFIG).abs().max()) == 0.0
