"""Resample waveforms by windowed-sinc interpolation: with torchaudio if it can be imported, else bit for bit like it.

The compiled extension of torchaudio belongs to one version of CUDA, and torchaudio cannot be imported beside a torch
of another one. Its resampler does not need the extension.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ZERO_CROSSINGS = 6
"""Zero crossings of the sinc that the filter keeps on either side of its centre."""

ROLLOFF = 0.99
"""Cut-off of the low-pass filter, as a fraction of the lower of the two Nyquist frequencies."""


def resample(waves: Tensor, rate: int, new_rate: int) -> Tensor:
    """Resample waveforms along their last axis.

    Args:
        waves: (..., samples), floating point.
        rate: Sample rate of ``waves``, Hz.
        new_rate: Sample rate of the result, Hz.

    Returns:
        (..., ceil(samples * new_rate / rate)), of the dtype and on the device of ``waves``. A length above 2**24
        is rounded by float32.
    """
    try:
        from torchaudio.functional import resample as by_torchaudio
    except (ImportError, OSError, RuntimeError):  # the last two: torchaudio for another CUDA version
        return sinc_resample(waves, rate, new_rate)
    resampled: Tensor = by_torchaudio(waves, rate, new_rate)
    return resampled


def sinc_resample(waves: Tensor, rate: int, new_rate: int) -> Tensor:
    r"""Resample as :func:`resample` does, by torch alone; bit for bit as ``torchaudio.functional.resample``.

    Bandlimited interpolation (J. O. Smith, Digital Audio Resampling, https://ccrma.stanford.edu/~jos/resample/):

    .. math::
        y_j = \sum_i x_i \, \frac{c}{f} \, w(t_{ij}) \, \mathrm{sinc}(\pi t_{ij}), \quad
        t_{ij} = c \left(\frac{i}{f} - \frac{j}{g}\right), \quad c = 0.99 \min(f, g), \quad
        w(t) = \cos^2\left(\frac{\pi t}{2 \cdot 6}\right)

    with the rates :math:`f` and :math:`g` divided by their greatest common divisor, and :math:`t` held to
    :math:`\pm 6`, where the Hann window :math:`w` is 0. The weights of output :math:`j + g` are those of output
    :math:`j`, :math:`f` inputs later: a strided convolution with :math:`g` filters. Weights are computed in the dtype
    of ``waves``, in the order of torchaudio's operations, on which the last bits depend.
    """
    if rate == new_rate:
        return waves
    divisor = math.gcd(rate, new_rate)
    f, g = rate // divisor, new_rate // divisor
    cutoff = ROLLOFF * min(f, g)
    reach = math.ceil(ZERO_CROSSINGS * f / cutoff)  # inputs on either side of an output
    inputs = torch.arange(-reach, reach + f, dtype=waves.dtype, device=waves.device) / f
    outputs = torch.arange(0, -g, -1, dtype=waves.dtype, device=waves.device) / g  # -j / g
    t = ((outputs[:, None, None] + inputs) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(t * math.pi / ZERO_CROSSINGS / 2).square()
    angle = t * math.pi
    sinc = torch.where(angle == 0, 1.0, angle.sin() / angle)
    padded = F.pad(waves.reshape(-1, 1, waves.shape[-1]), (reach, reach + f))
    phases = F.conv1d(padded, sinc * (window * (cutoff / f)), stride=f)  # (waves, g, strides)
    samples = int(
        torch.tensor(g * waves.shape[-1] / f).ceil()
    )  # of float32, as torchaudio rounds it above 2**24
    return phases.transpose(1, 2).flatten(1)[:, :samples].reshape(*waves.shape[:-1], -1)
