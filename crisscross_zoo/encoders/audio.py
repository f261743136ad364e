"""The audio backbone: ResNet with basic blocks on a one-channel log-mel spectrogram (section F, Table S6).

Table S6 has stride 2 in every row. The sizes in the same table are right, and show where stride 2 is: in conv1,
the max pool, and the first convolution of conv3x, conv4x and conv5x.

Module names are those of the released checkpoints: the stages conv2x ... conv5x are called block1 ... block4.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from crisscross_zoo.config import BLOCKS_PER_STAGE, STAGES, AudioConfig
from crisscross_zoo.encoders.encoder import Encoder
from crisscross_zoo.encoders.inference import InferenceAudioEncoder
from crisscross_zoo.transforms.mel import Backend, log_mel, mono_at_rate


class AudioEncoder(Encoder):
    """ResNet, from log-mel clips (N, 1, 80, T) to features (N, D).

    T columns, 100 per second; conv5x is (N, 8 * width, 3, ceil(T / 32)). The released networks have depth 18,
    width 64 and 11,170,240 parameters. Convolutions are initialised with Kaiming's normal distribution
    (fan out), batch norms with 1 and 0.

    Args:
        config: Architecture and preprocessing; default: :class:`~crisscross_zoo.config.AudioConfig`'s.
        **fields: Fields of the config to change, as in ``AudioEncoder(depth=10, width=16)``.

    Raises:
        ConfigError: a field is unknown or out of range, or the config is not an audio config.
    """

    architecture = "ResNet"
    config_type = AudioConfig
    config: AudioConfig

    def __init__(self, config: AudioConfig | None = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        width = self.config.width
        blocks = BLOCKS_PER_STAGE[self.config.depth]
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.block1 = _stage(width, width, blocks[0], stride=1)
        self.block2 = _stage(width, 2 * width, blocks[1], stride=2)
        self.block3 = _stage(2 * width, 4 * width, blocks[2], stride=2)
        self.block4 = _stage(4 * width, 8 * width, blocks[3], stride=2)
        for name in STAGES[1:]:
            self.add_module(name, nn.Identity())  # so that the feature maps have these names as well
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> tuple[nn.Module, ...]:
        """Return conv1 and the four blocks, conv2x to conv5x."""
        return self.conv1, self.block1, self.block2, self.block3, self.block4

    def preprocess(
        self, wave: np.ndarray | Tensor, *, sample_rate: float | None = None, backend: Backend = "torch"
    ) -> Tensor:
        """Turn waveforms into normalised log-mel spectrograms; nothing is cut or padded to the clip's length.

        Args:
            wave: Floating point, in [-1, 1]: (samples,), (channels, samples) or (N, channels, samples); a
                NumPy array or a tensor on any device. Channels are averaged.
            sample_rate: Sample rate of ``wave``, Hz; default: the config's. Another rate is resampled as by torchaudio.
            backend: ``"torch"``: on the encoder's device. ``"librosa"``: by librosa itself, on the CPU.

        Returns:
            (1, 80, T) for one wave, (N, 1, 80, T) for N, float32 on the encoder's device; on the CPU in a
            worker of a DataLoader. T is the number of samples at 16 kHz over 160, rounded down: 100 per second.

        Raises:
            InputError: ``wave`` has integers, NaN, another form, or is too short for one STFT window.
            ConfigError: ``sample_rate`` or ``backend`` is not allowed.
        """
        device = self._preprocessing_device
        mono = mono_at_rate(wave, self.config, sample_rate=sample_rate, device=device)
        return log_mel(mono, self.config, backend=backend).to(device)

    def _inference_module(self) -> InferenceAudioEncoder:
        return InferenceAudioEncoder(self)


class _Block(nn.Module):
    """The basic residual block of He et al. (2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )
            if stride != 1 or in_channels != channels
            else None
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x)) + shortcut
        return cast("Tensor", self.relu(x))


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (_Block(channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Block(in_channels, channels, stride), *rest)
