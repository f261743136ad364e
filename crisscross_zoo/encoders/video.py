"""The video backbone: R(2+1)D with a full 3-D stem (section F, Table S5).

A block is four convolutions, spatial and temporal in turn, without biases::

    spatial 1x3x3 - BN - ReLU - temporal 3x1x1 - BN - ReLU -
    spatial 1x3x3 - BN - ReLU - temporal 3x1x1 - (+ shortcut) - BN - ReLU

The shortcut joins *before* the last batch norm; where channels or stride change it is a 1x1x1 convolution
without a batch norm of its own. The temporal convolution has as many channels as the spatial one: none are
added to match the parameters of a 3-D convolution, unlike in torchvision's R(2+1)D.

Module names are those of the released checkpoints.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from crisscross_zoo.config import BLOCKS_PER_STAGE, VideoConfig
from crisscross_zoo.encoders.encoder import Encoder
from crisscross_zoo.encoders.inference import InferenceVideoEncoder
from crisscross_zoo.transforms.frames import normalize, resize_crop


class VideoEncoder(Encoder):
    """R(2+1)D, from clips (N, 3, T, H, W) to features (N, D).

    T frames of H by W pixels; conv5x is (N, 8 * width, ceil(T / 8), ceil(H / 32), ceil(W / 32)). The
    released networks have depth 18, width 64 and 15,379,136 parameters. Weights are initialised with PyTorch's
    defaults, as in the paper.

    Args:
        config: Architecture and preprocessing; default: :class:`~crisscross_zoo.config.VideoConfig`'s.
        **fields: Fields of the config to change, as in ``VideoEncoder(depth=10, width=16)``.

    Raises:
        ConfigError: a field is unknown or out of range, or the config is not a video config.
    """

    architecture = "R(2+1)D"
    config_type = VideoConfig
    config: VideoConfig

    def __init__(self, config: VideoConfig | None = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        width = self.config.width
        blocks = BLOCKS_PER_STAGE[self.config.depth]
        self.conv1 = nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
        self.conv2x = _stage(width, width, blocks[0], stride=1)
        self.conv3x = _stage(width, 2 * width, blocks[1], stride=2)
        self.conv4x = _stage(2 * width, 4 * width, blocks[2], stride=2)
        self.conv5x = _stage(4 * width, 8 * width, blocks[3], stride=2)

    def stages(self) -> tuple[nn.Module, ...]:
        """Return conv1, conv2x, conv3x, conv4x and conv5x."""
        return self.conv1, self.conv2x, self.conv3x, self.conv4x, self.conv5x

    def preprocess(self, frames: np.ndarray | Tensor, *, size: int | None = None) -> Tensor:
        """Resize, crop and normalise frames as the evaluation transform of the paper does.

        Args:
            frames: RGB, uint8, (..., T, H, W, 3); a NumPy array or a tensor on any device. The shorter side
                is resized to ``int(size / crop_ratio)`` and the centre is cropped.
            size: Side of the crop in pixels; default: the config's.

        Returns:
            (..., 3, T, size, size), float32, normalised by the config's mean and std, on the encoder's
            device; on the CPU in a worker of a DataLoader. The memory format is channels-last, on which
            convolutions are fastest. Add the batch axis to a single clip:
            ``encoder(encoder.preprocess(frames)[None])``.

        Raises:
            InputError: ``frames`` is not a uint8 array of this form.
        """
        config = self.config if size is None else self.config.replace(size=size)
        clips = resize_crop(frames, size=config.size, crop_ratio=config.crop_ratio)
        return normalize(clips.to(self._preprocessing_device), config)

    def _inference_module(self) -> InferenceVideoEncoder:
        return InferenceVideoEncoder(self)


class _Block(nn.Module):
    """Spatial, temporal, spatial, temporal convolution, with the shortcut before the last batch norm."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.spt_conv1 = _spatial(in_channels, channels, stride)
        self.spt_bn1 = nn.BatchNorm3d(channels)
        self.tmp_conv1 = _temporal(channels, channels, stride)
        self.tmp_bn1 = nn.BatchNorm3d(channels)
        self.spt_conv2 = _spatial(channels, channels, 1)
        self.spt_bn2 = nn.BatchNorm3d(channels)
        self.tmp_conv2 = _temporal(channels, channels, 1)
        self.out_bn = nn.BatchNorm3d(channels)
        self.res_conv = (
            nn.Conv3d(in_channels, channels, 1, stride=stride, bias=False)
            if stride != 1 or in_channels != channels
            else None
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.res_conv is None else self.res_conv(x)
        x = self.relu(self.spt_bn1(self.spt_conv1(x)))
        x = self.relu(self.tmp_bn1(self.tmp_conv1(x)))
        x = self.relu(self.spt_bn2(self.spt_conv2(x)))
        x = self.tmp_conv2(x) + shortcut
        return cast("Tensor", self.relu(self.out_bn(x)))


def _spatial(in_channels: int, channels: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(
        in_channels, channels, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
    )


def _temporal(in_channels: int, channels: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False)


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Module:
    first = _Block(in_channels, channels, stride)
    if blocks == 1:
        return first  # depth 10: the names have no index, conv2x.spt_conv1 instead of conv2x.0.spt_conv1
    return nn.Sequential(first, *(_Block(channels, channels, 1) for _ in range(blocks - 1)))
