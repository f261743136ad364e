"""Encoders for inference: batch norms are folded into the convolutions, and 3-D convolutions run as 2-D ones.

A spatial convolution (1, 3, 3) works on each frame separately: with T moved into the batch it is a 2-D one. A temporal
convolution (3, 1, 1) works on each position separately: with channels last in memory, (N, T, H, W, C) is also an
"image" of T lines and H W columns, and the convolution is a 2-D one with a kernel (3, 1). Both are views; nothing is
copied. A batch norm y = s x + b after a convolution scales its weights by s and adds b. In a block of the video encoder
the shortcut joins before the last batch norm, so that s scales the shortcut too: s is folded into the shortcut's
convolution, or kept as a scale if there is none.

On a CPU the first layers take one clip after another if feature maps are large, so that these stay in the cache.

Use :meth:`Encoder.optimize_for_inference`. The output is the encoder's up to rounding (1e-6 of the largest value).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.encoders.inputs import check_batch
from crisscross_zoo.encoders.pooling import pool

if TYPE_CHECKING:
    from crisscross_zoo.encoders.audio import AudioEncoder
    from crisscross_zoo.encoders.encoder import Encoder
    from crisscross_zoo.encoders.video import VideoEncoder


_LARGE_BYTES = 2 << 20
"""A larger feature map of a clip does not stay in a processor's cache."""

_STEM_FRAMES = 8
"""Frames that the stem takes at once on a CPU: with 224² pixels its output has 26 MB before the max pool."""


class InferenceEncoder(nn.Module):
    """Base of both inference encoders: input and output are the encoder's; no batch norms, cannot be trained.

    Attributes:
        config: The encoder's config.
    """

    stem: nn.Conv2d

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.config = encoder.config
        self.pooling = encoder.config.pooling
        self.fc = copy.deepcopy(encoder.fc).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features (N, D), or logits, in the dtype of the weights.

        Args:
            x: Clips: video (N, 3, T, H, W), or audio (N, 1, F, T), of any floating point dtype but float64.

        Raises:
            InputError: ``x`` is not a batch of clips, has float64 or NaN or infinities, or is too small for the
                pooling.
        """
        y: Tensor = self.fc(pool(self.forward_features(x), self.pooling))
        return y

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, conv5x: (N, C, T', H', W') of video, (N, C, F', T') of audio.

        Raises:
            InputError: ``x`` is not a batch of clips, or has float64 or NaN or infinities.
        """
        mels = self.config.n_mels if isinstance(self.config, AudioConfig) else None
        return self._map(check_batch(x, self.stem.weight, mels=mels, converted=True))

    def _map(self, x: Tensor) -> Tensor:
        """Return the last feature map of clips that are checked."""
        raise NotImplementedError


class InferenceVideoEncoder(InferenceEncoder):
    """The video encoder, from (N, 3, T, H, W) to conv5x (N, C, T', H', W')."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__(encoder)
        conv, norm = cast("nn.Conv3d", encoder.conv1[0]), cast("nn.BatchNorm3d", encoder.conv1[1])
        scale, shift = _scale_and_shift(norm)
        # A 2-D convolution on three consecutive frames as 9 channels.
        weight = _scaled(conv.weight, scale).transpose(1, 2).flatten(1, 2)
        self.stem = _conv2d(weight, shift, stride=2, padding=3)
        self.blocks = nn.ModuleList(_VideoBlock(block) for block in _blocks(encoder.stages()[1:]))
        self.large_blocks = len(_blocks(encoder.stages()[1:3]))  # conv2x and conv3x

    def _map(self, x: Tensor) -> Tensor:
        n, blocks = x.shape[0], list(self.blocks)
        if x.device.type != "cpu" or _is_exporting():
            x, early = self._begin(x, [], at_once=None), 0
        else:
            # Clip by clip while maps are large: filling new memory with them takes as long as convolving them.
            values = x[0, 0, :, ::4, ::4].numel() * self.stem.out_channels  # of conv2x, per clip
            early = self.large_blocks if values * self.stem.weight.itemsize > _LARGE_BYTES else 0
            x = _joined(
                [self._begin(clip, blocks[:early], at_once=_STEM_FRAMES) for clip in torch.split(x, 1)]
            )
        for block in blocks[early:]:
            x = block(x, n)
        return x.reshape(n, -1, *x.shape[1:]).movedim(1, 2)

    def _begin(self, x: Tensor, blocks: list[nn.Module], *, at_once: int | None) -> Tensor:
        """Return the output of the stem, which takes ``at_once`` frames at a time, and of the first blocks."""
        n, _, t, _, _ = x.shape
        x = x.to(self.stem.weight.dtype).permute(0, 2, 3, 4, 1)  # (N, T, H, W, 3)
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
        x = torch.cat([padded[:, k : k + t] for k in range(3)], dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        chunks = (x,) if at_once is None else torch.split(x, at_once)
        x = _joined(
            [F.relu(F.max_pool2d(self.stem(c), 3, stride=2, padding=1), inplace=True) for c in chunks]
        )
        for block in blocks:
            x = block(x, n)
        return x


# Before torch 2.7 this is also True in a compilation, where the batch may as well be run at once.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _joined(chunks: list[Tensor]) -> Tensor:
    """Concatenate rows; return a single chunk without the copy that ``torch.cat`` makes."""
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


class _VideoBlock(nn.Module):
    """Four 2-D convolutions and the shortcut, on frames (N T, C, H, W) with channels last in memory."""

    shortcut_scale: Tensor | None

    def __init__(self, block: Any) -> None:
        super().__init__()
        stride = block.tmp_conv1.stride[0]
        self.spatial1 = _folded(block.spt_conv1, block.spt_bn1, temporal=False)
        self.temporal1 = _folded(block.tmp_conv1, block.tmp_bn1, temporal=True)
        self.spatial2 = _folded(block.spt_conv2, block.spt_bn2, temporal=False)
        self.temporal2 = _folded(block.tmp_conv2, block.out_bn, temporal=True)
        scale, _ = _scale_and_shift(block.out_bn)
        self.stride = stride
        self.shortcut: nn.Conv2d | None = None
        if block.res_conv is not None:
            weight = _scaled(block.res_conv.weight, scale).squeeze(2)
            self.shortcut = _conv2d(weight, None, stride=stride)
        scale = scale.view(1, -1, 1, 1).to(block.tmp_conv1.weight.dtype)
        self.register_buffer("shortcut_scale", scale if block.res_conv is None else None)

    def forward(self, x: Tensor, n: int) -> Tensor:
        if self.shortcut is None:
            shortcut = x
        else:
            kept = x.reshape(n, -1, *x.shape[1:])[:, :: self.stride].flatten(0, 1)
            shortcut = self.shortcut(kept.contiguous(memory_format=torch.channels_last))
        x = F.relu(self.spatial1(x), inplace=True)
        x = F.relu(_over_time(self.temporal1, x, n), inplace=True)
        x = F.relu(self.spatial2(x), inplace=True)
        x = _over_time(self.temporal2, x, n)
        x = x.add_(shortcut) if self.shortcut_scale is None else x.addcmul_(shortcut, self.shortcut_scale)
        return F.relu(x, inplace=True)


def _over_time(conv: nn.Conv2d, x: Tensor, n: int) -> Tensor:
    """Convolve frames (N T, C, H, W) over time: views of the same memory, channels last."""
    _, c, h, w = x.shape
    lines = x.permute(0, 2, 3, 1).reshape(n, -1, h * w, c).permute(0, 3, 1, 2)  # (N, C, T, H W)
    y: Tensor = conv(lines)
    return y.permute(0, 2, 3, 1).reshape(-1, h, w, y.shape[1]).permute(0, 3, 1, 2)


class InferenceAudioEncoder(InferenceEncoder):
    """The audio encoder, from (N, 1, F, T) to conv5x (N, C, F', T')."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__(encoder)
        self.stem = _folded(encoder.conv1[0], encoder.conv1[1])
        self.blocks = nn.ModuleList(_AudioBlock(block) for block in _blocks(encoder.stages()[1:]))

    def _map(self, x: Tensor) -> Tensor:
        x = x.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = F.relu(F.max_pool2d(self.stem(x), 3, stride=2, padding=1), inplace=True)
        for block in self.blocks:
            x = block(x)
        return x


class _AudioBlock(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1 = _folded(block.conv1, block.bn1)
        self.conv2 = _folded(block.conv2, block.bn2)
        self.shortcut = (
            None if block.downsample is None else _folded(block.downsample[0], block.downsample[1])
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(x), inplace=True)
        return F.relu(self.conv2(x).add_(shortcut), inplace=True)


def _blocks(stages: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the residual blocks of the stages; a stage of one block is the block itself."""
    return [block for stage in stages for block in (stage if isinstance(stage, nn.Sequential) else [stage])]


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return s and b of a batch norm in eval mode, y = s x + b, in float64."""
    weight, bias, mean, var = (  # on the CPU: MPS has no float64
        t.detach().cpu().double() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = weight / (var + norm.eps).sqrt()
    return scale, bias - mean * scale


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    return weight.detach().cpu().double() * scale.view(-1, *[1] * (weight.ndim - 1))


def _folded(conv: Any, norm: Any, *, temporal: bool | None = None) -> nn.Conv2d:
    """Return a convolution and the batch norm after it as one 2-D convolution.

    A 3-D convolution is temporal, (3, 1, 1), if ``temporal`` is True, and spatial if False; None: it is 2-D.
    """
    scale, shift = _scale_and_shift(norm)
    weight, stride, padding = _scaled(conv.weight, scale), conv.stride, conv.padding
    if temporal is True:
        weight, stride, padding = weight.squeeze(-1), stride[:2], padding[:2]
    elif temporal is False:
        weight, stride, padding = weight.squeeze(2), stride[1:], padding[1:]
    return _conv2d(weight, shift, stride=stride, padding=padding)


def _conv2d(weight: Tensor, bias: Tensor | None, *, stride: Any, padding: Any = 0) -> nn.Conv2d:
    out_channels, in_channels, *kernel = weight.shape
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        cast("Any", tuple(kernel)),
        stride=stride,
        padding=padding,
        bias=False,
        device="meta",  # no random initialisation of values that are replaced
    )
    conv.weight = nn.Parameter(
        weight.float().contiguous(memory_format=torch.channels_last), requires_grad=False
    )
    if bias is not None:
        conv.bias = nn.Parameter(bias.float(), requires_grad=False)
    return conv
