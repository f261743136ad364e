"""The log-mel front end of audio: from a waveform to a normalised spectrogram.

Mono, 16 kHz; centred STFT of 1024 samples every 160 with reflected edges and a periodic Hann window; power;
80 Slaney mel bands from 0 to 8000 Hz; ``(ln(mel + offset) - mean) / std``. These are the values that librosa
0.8.1 computed for the paper (later versions pad with zeros by default), on any device.

A centred STFT gives ``1 + samples // hop_length`` columns; the last is dropped, which leaves 100 per
second and, for 2 s, the 200 of Table S6.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.numerics import exact_float32
from crisscross_zoo.settings import check_choice
from crisscross_zoo.transforms.resample import resample

MAX_PEAK = 16.0
"""A wave with a larger peak is taken for one that was not scaled to [-1, 1]."""

MOST_CHANNELS = 8
"""A wave of two axes with more rows than 7.1 surround sound is taken for a batch of mono waves."""

Backend = Literal["torch", "librosa"]


def mono_at_rate(
    wave: np.ndarray | Tensor,
    config: AudioConfig,
    *,
    sample_rate: float | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Check a waveform, average its channels and resample it to ``config.sample_rate`` as torchaudio does.

    Audio from files should be resampled by the decoder, as in training: the two resamplers differ.

    Args:
        wave: Floating point, in [-1, 1]: (samples,), (channels, samples) or (N, channels, samples).
        config: Provides the target sample rate.
        sample_rate: Sample rate of ``wave``, a whole number of Hz; default: the config's.
        device: Device of the result; default: that of ``wave``.

    Returns:
        (samples,) or, of three axes, (N, samples), float32.

    Raises:
        InputError: ``wave`` has integers, values that are not finite or far beyond [-1, 1], another form, or two axes
            with more than :data:`MOST_CHANNELS` rows, which are probably a batch.
        ConfigError: ``sample_rate`` is not a whole number above 0.
    """
    rate = config.sample_rate if sample_rate is None else sample_rate
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate != rate // 1 or rate <= 0:
        raise ConfigError(f"sample_rate={sample_rate!r} is out of range", remedy="pass a whole number of Hz")
    mono = _as_waves(wave).to(device=device, dtype=torch.float32)
    if not bool(torch.isfinite(mono).all()):
        raise InputError("the wave holds values that are not finite", remedy="replace NaN and infinities")
    peak = float(mono.abs().max()) if mono.numel() else 0.0
    if peak > MAX_PEAK:
        raise InputError(
            f"the wave reaches {peak:g}, far beyond [-1, 1]", remedy="divide 16-bit samples by 32768"
        )
    if mono.ndim > 1:
        mono = mono.mean(-2)
    if rate != config.sample_rate:
        with exact_float32(), mono.device:  # torchaudio makes tensors on torch's default device
            mono = resample(mono, int(rate), config.sample_rate)
    return mono


def log_mel(wave: Tensor, config: AudioConfig, *, backend: Backend = "torch") -> Tensor:
    """Compute normalised log-mel spectrograms.

    Args:
        wave: (..., samples), floating point, mono, at ``config.sample_rate``.
        config: Every number of the front end.
        backend: ``"torch"``: on the wave's device. ``"librosa"``: by librosa itself, on the CPU.

    Returns:
        (..., 1, n_mels, T), float32, T = samples // hop_length. On the CPU the values of a wave do not
        depend on the rest of the batch.

    Raises:
        InputError: the wave is too short to be reflected at its edges: not above ``n_fft // 2`` samples.
        ConfigError: ``backend`` is unknown.
    """
    check_choice("backend", backend, get_args(Backend))
    samples = wave.shape[-1]
    least = max(config.n_fft // 2 + 1, config.hop_length)
    if samples < least:
        raise InputError(
            f"the wave has {samples} samples at {config.sample_rate} Hz, too few for one STFT window",
            remedy=f"pass at least {least}, padding with zeros",
        )
    if backend == "librosa":
        return _log_mel_librosa(wave, config)
    waves = wave.to(torch.float32).reshape(-1, samples)
    # On a CPU one wave at a time: its spectrum stays in the cache, and the order of its sums is fixed.
    chunks = torch.split(waves, 1) if waves.device.type == "cpu" else (waves,)
    with exact_float32():
        mels = torch.cat([_log_mel_torch(chunk, config) for chunk in chunks])
    return mels.reshape(*wave.shape[:-1], 1, *mels.shape[-2:])


def _log_mel_torch(waves: Tensor, config: AudioConfig) -> Tensor:
    window, filters = _window_and_filters(config, waves.device)
    spectrum = torch.stft(
        waves,
        config.n_fft,
        config.hop_length,
        window=window,
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )[..., :-1]
    power = spectrum.real.square() + spectrum.imag.square()
    return _normalize((filters @ power).add(config.log_offset).log(), config)


def _log_mel_librosa(wave: Tensor, config: AudioConfig) -> Tensor:
    import librosa

    spectrum = librosa.stft(
        wave.detach().cpu().numpy().astype(np.float32),
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        center=True,
        pad_mode="reflect",
    )[..., :-1]
    filters = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax
    )
    mel = filters @ np.square(np.abs(spectrum))
    return _normalize(torch.from_numpy(np.log(mel + np.float32(config.log_offset))), config).unsqueeze(-3)


def _normalize(log_mels: Tensor, config: AudioConfig) -> Tensor:
    return (log_mels - config.mean) / config.std


@lru_cache(maxsize=16)
def _window_and_filters(config: AudioConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(mode=False):  # else the cached tensors could not be used in training
        window = torch.hann_window(config.n_fft, periodic=True, dtype=torch.float32, device=device)
        return window, torch.from_numpy(mel_filters(config)).to(device)


def mel_filters(config: AudioConfig) -> np.ndarray:
    """Return the mel filterbank, (n_mels, n_fft // 2 + 1), float32: triangles of equal area, Slaney scale.

    It is computed in float64, as by librosa: torchaudio's float32 is off by 3e-6 of the largest weight.
    """
    edges = _mel_to_hz(
        np.linspace(_hz_to_mel(config.fmin), _hz_to_mel(config.fmax), config.n_mels + 2, dtype=np.float64)
    )
    bins = np.fft.rfftfreq(config.n_fft, d=1 / config.sample_rate)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles: np.ndarray = np.minimum(
        (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    ).clip(min=0)
    filters: np.ndarray = triangles * (2 / (upper - lower))
    return filters.astype(np.float32)


# The Slaney mel scale: 3 mel per 200 Hz up to 1000 Hz, then 27 mel per factor of 6.4.
_HZ_PER_MEL = 200 / 3
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_START_HZ:
        return hz / _HZ_PER_MEL
    return float(_LOG_START_MEL + np.log(hz / _LOG_START_HZ) / _LOG_STEP)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    logarithmic: np.ndarray = _LOG_START_HZ * np.exp(_LOG_STEP * (mel - _LOG_START_MEL))
    hz: np.ndarray = np.where(mel < _LOG_START_MEL, mel * _HZ_PER_MEL, logarithmic)
    return hz


def _as_waves(wave: np.ndarray | Tensor) -> Tensor:
    forms = "(samples,), (channels, samples) or (N, channels, samples)"
    if not isinstance(wave, np.ndarray | Tensor):
        raise InputError(f"the wave is a {type(wave).__name__}", remedy="pass a NumPy array or a tensor")
    shape = tuple(wave.shape)
    floating = (
        wave.is_floating_point() if isinstance(wave, Tensor) else np.issubdtype(wave.dtype, np.floating)
    )
    if not floating:
        raise InputError(
            f"the wave has dtype {wave.dtype}", remedy="pass floats in [-1, 1]; int16 / 32768 gives them"
        )
    if not 1 <= len(shape) <= 3 or 0 in shape:
        raise InputError(f"the wave has the shape {shape}", remedy=f"pass {forms}")
    if len(shape) > 1 and shape[-2] > shape[-1]:
        raise InputError(
            f"the wave has the shape {shape}: more channels than samples", remedy=f"transpose it to {forms}"
        )
    if len(shape) == 2 and shape[0] > MOST_CHANNELS:
        raise InputError(
            f"the wave has the shape {shape}: {shape[0]} channels, which would be averaged",
            remedy="pass wave[:, None] for a batch of mono waves, or wave[None] for one wave of so many channels",
        )
    if isinstance(wave, np.ndarray):
        # also copies what torch cannot wrap: read-only, byte-swapped or of negative strides
        return torch.from_numpy(wave.astype(np.float32, order="C"))
    return wave
