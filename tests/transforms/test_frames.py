from __future__ import annotations

import numpy as np
import pytest
import torch
from filler import ramps

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.errors import InputError
from crisscross_zoo.transforms.frames import _resize, normalize, resize_crop, resize_crop_frame

GREY_LEVELS = 1  # of 255; Pillow and torchvision round differently in 1 pixel of 100


@pytest.fixture(scope="module")
def clip():
    return ramps(320, 240, frames=8, seed=701)


@pytest.mark.parametrize(("size", "key", "step"), [(112, "crop112.full", 1), (224, "crop224.sub4", 4)])
def test_the_transform_agrees_with_the_released_code(golden, clip, size, key, step):
    released = golden("video_val_transform")
    assert clip.sum(dtype=np.int64) == released["clip.sum"]
    config = VideoConfig(size=size)
    ours = normalize(resize_crop(clip, size=size, crop_ratio=config.crop_ratio), config)
    std = torch.tensor(config.std).view(3, 1, 1, 1)
    difference = (ours[:, :, ::step, ::step] - torch.from_numpy(released[f"320x240.{key}"])) * std * 255
    assert difference.abs().max() < GREY_LEVELS + 0.01
    assert (difference.abs() > 0.5).float().mean() < 0.02


@pytest.mark.parametrize(  # what the released code resizes to and where it crops
    ("width", "height", "size", "resized", "corner"),
    [
        (320, 240, 112, (170, 128), (29, 8)),
        (320, 240, 224, (341, 256), (58, 16)),
        (240, 320, 112, (128, 170), (8, 29)),
        (240, 320, 224, (256, 341), (16, 58)),
        (171, 128, 112, (171, 128), (30, 8)),
        (171, 128, 224, (342, 256), (59, 16)),
        (128, 171, 112, (128, 171), (8, 30)),  # ours: the last but one on its side
    ],
)
def test_sizes_and_offsets_are_the_released_ones(monkeypatch, width, height, size, resized, corner):
    """An image of its own coordinates shows where the crop begins; the resize is a stand-in."""
    sizes = [(width, height)]

    def coordinates(w, h):
        x, y = np.meshgrid(np.arange(w), np.arange(h))
        return torch.from_numpy(np.stack([x % 256, y % 256, x // 256], axis=-1).astype(np.uint8))

    def resize(images, wanted):
        sizes.append((wanted[1], wanted[0]))
        return coordinates(*sizes[-1]).permute(2, 0, 1)[None].expand(len(images), -1, -1, -1)

    monkeypatch.setattr("crisscross_zoo.transforms.frames._resize", resize)
    cropped = resize_crop_frame(coordinates(width, height), size=size, crop_ratio=0.875)
    assert sizes[-1] == resized
    assert (int(cropped[0, 0, 0]), int(cropped[1, 0, 0])) == corner
    assert cropped.shape == (3, size, size)


def test_a_frame_of_the_right_size_is_only_cropped():
    frame = np.random.default_rng(0).integers(0, 256, (128, 171, 3), dtype=np.uint8)
    ours = resize_crop_frame(frame, size=112, crop_ratio=0.875)
    assert torch.equal(ours, torch.from_numpy(frame[8:120, 30:142]).permute(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(240, 320), (97, 33), (64, 64), (17, 400), (1, 1), (360, 202)])
def test_one_frame_at_a_time_gives_the_same_numbers(height, width):
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, height, width, 3), dtype=np.uint8)
    whole = resize_crop(clips, size=56, crop_ratio=0.875)
    assert whole.shape == (2, 3, 3, 56, 56)
    for n in range(2):
        for t in range(3):
            assert torch.equal(resize_crop_frame(clips[n, t], size=56, crop_ratio=0.875), whole[n, :, t])


def test_arrays_and_tensors_of_any_layout_give_the_same_numbers(clip):
    expected = resize_crop(clip, size=112, crop_ratio=0.875)
    read_only = clip.copy()
    read_only.flags.writeable = False
    channels_first = torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2))).permute(1, 2, 3, 0)
    for same in (torch.from_numpy(clip), read_only, channels_first, np.asfortranarray(clip)):
        assert torch.equal(resize_crop(same, size=112, crop_ratio=0.875), expected)
    flipped = resize_crop(clip[:, :, ::-1], size=112, crop_ratio=0.875)
    assert torch.equal(flipped, resize_crop(clip[:, :, ::-1].copy(), size=112, crop_ratio=0.875))


def test_the_memory_is_channels_last(clip):
    clips = resize_crop(clip[None], size=112, crop_ratio=0.875)
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    assert normalize(clips, VideoConfig()).is_contiguous(memory_format=torch.channels_last_3d)


def test_normalize_is_its_formula():
    clips = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 1, 16, 16)
    config = VideoConfig(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    for channel in range(3):
        expected = (torch.arange(256, dtype=torch.float64) / 255 - config.mean[channel]) / config.std[channel]
        ours = normalize(clips, config)[channel].flatten().double()
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    assert clips.dtype == torch.uint8


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((8, 32, 32, 3), np.float32), "dtype float32; pass RGB as uint8"),
        (torch.zeros(8, 32, 32, 3), "dtype torch.float32; pass RGB as uint8"),
        (np.zeros((32, 32, 3), np.uint8), r"the shape \(32, 32, 3\); pass \(\.\.\., T, H, W, 3\)"),
        (np.zeros((8, 3, 32, 32), np.uint8), "move the colours last"),
        (np.zeros((3, 8, 32, 32), np.uint8), "move the colours last"),
        (np.zeros((8, 32, 32, 4), np.uint8), "4 in the last axis instead of 3 colours; pass RGB"),
        (np.zeros((0, 32, 32, 3), np.uint8), "which is empty"),
        (np.zeros((8, 32, 0, 3), np.uint8), "which is empty"),
        ([[0]], "frames are a list"),
    ],
)
def test_what_is_no_clip_is_refused(frames, message):
    with pytest.raises(InputError, match=message):
        resize_crop(frames, size=16, crop_ratio=0.875)


@pytest.mark.usefixtures("resize_in_uint8")
@pytest.mark.parametrize(("height", "width"), [(240, 320), (97, 500), (719, 1279)])
def test_the_resize_is_torchvisions(height, width):
    from torchvision.transforms.v2 import functional as tvf

    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    images = torch.from_numpy(frame).permute(0, 3, 1, 2)
    assert torch.equal(_resize(images, (128, 190)), tvf.resize(images, [128, 190], antialias=True))
