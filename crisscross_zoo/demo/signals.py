"""Building blocks of synthesised sound: noise, harmonic tones, envelopes, filters that change over time.

Sounds are float64 arrays (samples,) at 16 kHz; times are in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import signal

from crisscross_zoo.demo.knobs import Floats, Knobs

SAMPLE_RATE = 16_000
"""Sample rate of all sounds, Hz: that of the audio encoder."""

HIGHEST = 7600.0
"""Highest frequency of a partial, Hz."""

Rng = np.random.Generator

_WINDOW, _HOP = 512, 128
_HERTZ = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)


def samples(seconds: float) -> int:
    """Return the number of samples, 16 at least."""
    return max(16, round(seconds * SAMPLE_RATE))


def level(wave: Floats) -> Floats:
    """Bring the root mean square to 1; silence stays silence."""
    rms = math.sqrt(float(np.square(wave).mean()))
    return wave / rms if rms > 1e-9 else wave


def peak(wave: Floats) -> Floats:
    """Bring the largest value to 1; silence stays silence."""
    most = float(np.abs(wave).max())
    return wave / most if most > 1e-9 else wave


def gain(decibels: float) -> float:
    """Return the factor of a level in dB."""
    return float(10 ** (decibels / 20))


def walk(n: int, rng: Rng, hertz: float) -> Floats:
    """Return a smooth random curve (n,), standard deviation about 1, that changes about ``hertz`` times a second."""
    knots = max(2, math.ceil(n / SAMPLE_RATE * hertz) + 2)
    values = rng.standard_normal(knots)
    place = np.linspace(0, knots - 1, n)
    left = np.minimum(place.astype(int), knots - 2)
    part = place - left
    part = part * part * (3 - 2 * part)
    smooth: Floats = 1.2 * (values[left] * (1 - part) + values[left + 1] * part)
    return smooth


def line(n: int, *values: float) -> Floats:
    """Return a curve (n,) through equally spaced values."""
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(values)), values)


def fade(n: int, attack: float, release: float) -> Floats:
    """Return an envelope (n,) that rises in ``attack`` seconds and falls in ``release`` at its end."""
    t = np.arange(n) / SAMPLE_RATE
    envelope: Floats = np.minimum(
        (t / max(attack, 1e-3)).clip(0, 1), ((n / SAMPLE_RATE - t) / max(release, 1e-3)).clip(0, 1)
    )
    return np.sin(0.5 * np.pi * envelope) ** 2


def decay(n: int, seconds: float) -> Floats:
    """Return a decay (n,) that falls by 60 dB in ``seconds``."""
    falling: Floats = np.exp(np.arange(n) * (-6.9 / SAMPLE_RATE / seconds))
    return falling


def noise(n: int, rng: Rng, tilt: float = 0.0) -> Floats:
    """Return noise (n,) of root mean square 1, whose power changes by ``tilt`` dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE).clip(40)
    return level(np.fft.irfft(spectrum * (hertz / 1000) ** (tilt / 6.02), n))


def phase(hertz: Floats) -> Floats:
    """Return the phase (n,) in radians of a pitch (n,) in Hz."""
    turned: Floats = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    return turned


def buzz(hertz: Floats) -> Floats:
    """Return pulses (n,) of a pitch (n,) in Hz: all partials below :data:`HIGHEST` at the same level."""
    half = phase(hertz) / 2
    count = max(1, int(HIGHEST / max(float(hertz.max()), 1.0)))
    above, below = np.sin((2 * count + 1) * half), np.sin(half)
    sums = np.divide(above, below, out=np.full_like(half, 2 * count + 1), where=np.abs(below) > 1e-6)
    wave: Floats = (sums - 1) / math.sqrt(2 * count)
    return wave


def partials(
    hertz: Floats, ratios: Sequence[float] | Floats, levels: Sequence[float] | Floats, rng: Rng
) -> Floats:
    """Return a sum of sines at multiples of a pitch (n,); none goes above :data:`HIGHEST`."""
    turned, highest = phase(hertz), float(hertz.max())
    wave = np.zeros_like(hertz)
    for ratio, amount in zip(ratios, levels, strict=True):
        if ratio * highest < HIGHEST:
            wave += amount * np.sin(ratio * turned + rng.uniform(0, 2 * np.pi))
    return wave


def shaped(wave: Floats, gains: Floats) -> Floats:
    """Filter a sound by gains (parts, 257), whose columns are frequencies from 0 to 8 kHz.

    The parts are equally spaced in time, from 16 ms before the sound to about 24 ms after it.
    """
    n = len(wave)
    padded = np.pad(wave, (_WINDOW, _WINDOW + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    window = np.sin(np.pi * (np.arange(_WINDOW) + 0.5) / _WINDOW)
    spectra = np.fft.rfft(frames * window, axis=-1)
    if len(gains) == 1:
        spectra *= gains
    else:
        place = np.linspace(0, len(gains) - 1, len(spectra))
        left = np.minimum(place.astype(int), len(gains) - 2)
        part = (place - left)[:, None]
        spectra *= gains[left] * (1 - part) + gains[left + 1] * part
    pieces = np.fft.irfft(spectra, _WINDOW, axis=-1) * window * (_HOP / _WINDOW * 2)
    total = np.zeros((len(pieces) + _WINDOW // _HOP - 1) * _HOP)
    for shift in range(_WINDOW // _HOP):
        some = pieces[shift :: _WINDOW // _HOP].ravel()
        total[shift * _HOP : shift * _HOP + len(some)] += some
    return total[_WINDOW : _WINDOW + n]


def bumps(centres: Floats, widths: Floats, levels: Floats, *, floor: float = 0.0) -> Floats:
    """Return gains (parts, 257) with resonances (parts, count): Hz, Hz, and gain at the centre."""
    centres, widths, levels = (np.atleast_2d(v)[..., None] for v in (centres, widths, levels))
    found: Floats = (levels / np.sqrt(1 + ((_HERTZ - centres) / (widths / 2)) ** 2)).sum(axis=1) + floor
    return found


def tilted(decibels: float) -> Floats:
    """Return gains (1, 257) that change by so many dB an octave, 1 at 1 kHz."""
    return ((_HERTZ.clip(40) / 1000) ** (decibels / 6.02))[None]


def band(low: Floats | float, high: Floats | float, *, slope: float = 4.0) -> Floats:
    """Return gains (parts, 257) of a band between two frequencies (parts,), in Hz."""
    low, high = (np.atleast_1d(np.asarray(v, dtype=np.float64))[:, None] for v in (low, high))
    hertz = _HERTZ.clip(10)
    found: Floats = 1 / np.sqrt((1 + (low / hertz) ** (2 * slope)) * (1 + (hertz / high) ** (2 * slope)))
    return found


def curve(knobs: Knobs, name: str, decibels: float, points: int = 8) -> Floats:
    """Return gains (1, 257) of a random smooth response, whose values have this standard deviation in dB."""
    octaves = np.log2(_HERTZ.clip(60) / 60)
    values = decibels * knobs.normal(name, points)
    return (10 ** (np.interp(octaves, np.linspace(0, 7.1, points), values) / 20))[None]


def ring(excitation: Floats, hertz: Floats, seconds: Floats, levels: Floats) -> Floats:
    """Send a sound through resonators in parallel, each with a frequency, a decay by 60 dB and a level."""
    wave = np.zeros_like(excitation)
    for f, t60, amount in zip(hertz, seconds, levels, strict=True):
        if f < HIGHEST:
            radius = math.exp(-6.9 / SAMPLE_RATE / t60)
            angle = 2 * np.pi * f / SAMPLE_RATE
            wave += signal.lfilter(
                [amount * math.sin(angle)], [1, -2 * radius * math.cos(angle), radius**2], excitation
            )
    return wave


def sparse(n: int, rng: Rng, rate: Floats | float, spread: float) -> Floats:
    """Return impulses (n,), ``rate`` a second, whose levels vary by ``spread`` dB."""
    wave = (rng.random(n) < np.asarray(rate) / SAMPLE_RATE).astype(np.float64)
    at = np.flatnonzero(wave)
    wave[at] = rng.choice([-1.0, 1.0], len(at)) * 10 ** (spread * rng.standard_normal(len(at)) / 20)
    return wave


def place(total: Floats, wave: Floats, at: float) -> None:
    """Add a sound at a time, in place; what goes beyond the end is cut."""
    first = round(at * SAMPLE_RATE)
    if 0 <= first < len(total):
        part = wave[: len(total) - first]
        total[first : first + len(part)] += part


def room(wave: Floats, knobs: Knobs) -> Floats:
    """Return the sound in a room, (samples,): early reflections and a coloured decay, mixed with the dry sound."""
    seconds = knobs.log("room seconds", 0.08, 2.5)
    n = samples(min(seconds, 2.0))
    rng = knobs.seed("room")
    tail = noise(n, rng) * decay(n, seconds)
    tail = shaped(tail, band(np.full(2, 80.0), np.array([7000.0, knobs.log("room damping", 500, 5000)])))
    for _ in range(knobs.integer("reflections", 0, 8)):
        tail[int(rng.integers(16, max(17, n // 8)))] += rng.uniform(-1, 1) * 4
    tail /= math.sqrt(float(np.square(tail).sum()))
    wet: Floats = signal.fftconvolve(wave, tail)[: len(wave)]
    return wave + knobs.log("wet", 0.03, 1.2) * wet


def crush(wave: Floats, knobs: Knobs) -> Floats:
    """Return the sound with soft clipping, (samples,), as a poor device records it."""
    driven: Floats = np.tanh(peak(wave) * knobs.log("drive", 1, 8))
    return driven
