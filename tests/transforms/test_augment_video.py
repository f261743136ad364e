from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from filler import ramps
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tvf

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.transforms import augment_video as module
from crisscross_zoo.transforms.augment import VIDEO_AUGMENTS, VideoAugment
from crisscross_zoo.transforms.augment_video import (
    VideoChoices,
    apply_choices,
    augment_video,
    draw_blur,
    draw_choices,
    draw_crop,
    draw_cutout,
    draw_jitter,
)

FLOAT_LEVELS = 0.05  # grey levels of 255, against torchvision in float: its luma has 0.2989 for red
UINT8_LEVELS = 1.01  # against torchvision in uint8, which cuts to whole levels
HUE_UINT8_LEVELS = 2.01
RELEASED_LEVELS = 1.01  # the golden blur: other versions of torchvision round where the released one cut
NORMALISED = 2e-6  # in standard deviations: float32 rounding
DRAWS = 3000
KS = 0.05  # distance of two distribution functions of 3000 draws each; chance reaches it once in 900 times
RATE = 0.03  # of 3000 draws: over three standard errors

OFF = VideoAugment(brightness=0, contrast=0, saturation=0, hue=0, flip=0, grey=0, blur=0, cutout=0)
SMALL = VideoConfig(size=56)


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(*shape, seed=1):
    return rng(seed).integers(0, 256, shape, dtype=np.uint8)


def choices(**changes):
    """Return choices that keep the whole 240x320 frame as it is, except for the changes."""
    plain = VideoChoices(
        crop=(0, 0, 240, 320), flip=False, jitter=(), grey=False, blur=None, cutout=(0, 0, 0, 0)
    )
    return dataclasses.replace(plain, **changes)


def levels(view, config):
    """Undo the normalisation: grey levels, 0 to 255."""
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (config.mean, config.std))
    return (view * std + mean) * 255


def ks(ours, theirs):
    """The largest distance between two empirical distribution functions."""
    ours, theirs = np.sort(ours), np.sort(theirs)
    at = np.concatenate([ours, theirs])
    below = [np.searchsorted(x, at, side="right") / len(x) for x in (ours, theirs)]
    return np.abs(below[0] - below[1]).max()


def uniform(low, high):
    return np.linspace(low, high, DRAWS)


@pytest.fixture(autouse=True)
def _one_thread(_same_threads):
    """On a busy machine two threads spend more time waiting than working."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clip():
    return ramps(320, 240, frames=8, seed=701)


@pytest.fixture(scope="module")
def pixels():
    """Noise, and every mixture of 6 levels: greys, pure colours, ties of two channels. (3, 2, 36, 36) float32."""
    mixtures = np.array(list(itertools.product([0, 51, 102, 128, 200, 255], repeat=3)), np.uint8)
    frames = noise(2, 36, 36, 3)
    frames[0, :6] = mixtures.reshape(6, 36, 3)
    return torch.from_numpy(frames).permute(3, 0, 1, 2).float()


# --- settings ----------------------------------------------------------------------------------------------------


def test_the_defaults_are_table_s1():
    a = VIDEO_AUGMENTS["pretraining"]
    assert a == VideoAugment()
    assert (a.area, a.flip, a.grey, a.blur, a.cutout) == ((0.08, 1.0), 0.5, 0.2, 0.5, 20)
    assert (a.brightness, a.contrast, a.saturation, a.hue) == (0.4, 0.4, 0.4, 0.2)
    assert (a.aspect, a.blur_sigma, a.released) == ((3 / 4, 4 / 3), (0.1, 2.0), False)


def test_what_the_other_trainings_omit():
    assert set(VIDEO_AUGMENTS) == {"pretraining", "linear", "finetuning", "standard"}
    assert VIDEO_AUGMENTS["linear"] == VIDEO_AUGMENTS["finetuning"] == VideoAugment(blur=0.0)
    assert VIDEO_AUGMENTS["standard"] == VideoAugment(area=(0.7, 1.0), grey=0.0, blur=0.0, cutout=0)


def test_lists_of_json_are_the_same_setting():
    fields = {
        k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(VideoAugment()).items()
    }
    assert VideoAugment(**fields) == VideoAugment()
    assert hash(VideoAugment(**fields)) == hash(VideoAugment())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip", 1.1, "flip=1.1 is out of range; pass a number, 0 to 1"),
        ("grey", -0.1, "grey=-0.1 is out of range; pass a number, 0 to 1"),
        ("blur", math.nan, "blur=nan is out of range"),
        ("blur", True, "blur=True is not a number"),
        ("flip", "often", "flip='often' is not a number"),
        ("brightness", -0.4, "brightness=-0.4 is out of range; pass a number, at least 0"),
        ("contrast", math.inf, "contrast=inf is out of range"),
        ("saturation", None, "saturation=None is not a number"),
        ("hue", 0.6, "hue=0.6 is out of range; pass a number, 0 to 0.5"),
        ("area", (1.0, 0.08), r"area=\(1.0, 0.08\) is not a range; .* the smaller first"),
        ("area", (0.0, 1.0), "area=0.0 is out of range; pass a number, above 0 and at most 1"),
        ("area", (0.5, 1.5), "area=1.5 is out of range"),
        ("area", 0.08, "area=0.08 is not 2 values"),
        ("aspect", (0.5, 1.0, 2.0), "is not 2 values; pass 2 values"),
        ("aspect", (0.5, math.inf), "aspect=inf is out of range"),
        ("blur_sigma", (0.0, 2.0), "blur_sigma=0.0 is out of range; pass a number, above 0"),
        ("cutout", -1, "cutout=-1 is out of range; pass a whole number, at least 0"),
        ("cutout", 20.0, "cutout=20.0 is not a whole number"),
        ("cutout", True, "cutout=True is not a whole number"),
        ("released", 1, "released=1 is not True or False"),
    ],
)
def test_settings_out_of_range_are_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        VideoAugment(**{field: value})


def test_every_field_is_explained():
    documented = inspect.getdoc(VideoAugment).partition("Attributes:\n")[2]
    names = [line.strip().split(":")[0] for line in documented.splitlines() if line[:5].strip()]
    assert names == [f.name for f in dataclasses.fields(VideoAugment)]


# --- drawing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(240, 320), (360, 202), (60, 400)])
def test_crops_are_spread_as_torchvisions(height, width):
    ours = [
        draw_crop(VideoAugment(), height=height, width=width, rng=r) for r in [rng()] for _ in range(DRAWS)
    ]
    image = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(DRAWS)]

    def features(crops):
        top, left, h, w = np.array(crops, float).T
        assert (h >= 1).all()
        assert (w >= 1).all()
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + h <= height).all()
        assert (left + w <= width).all()
        return {"top": top, "left": left, "area": h * w, "aspect": w / h, "height": h, "width": w}

    ours, theirs = features(ours), features(theirs)
    assert {name: d for name in ours if (d := ks(ours[name], theirs[name])) > KS} == {}


def test_area_is_uniform_and_aspect_log_uniform():
    augment = VideoAugment(area=(0.1, 0.5))  # always fits into a square
    crops = [draw_crop(augment, height=1000, width=1000, rng=r) for r in [rng()] for _ in range(DRAWS)]
    top, left, h, w = np.array(crops, float).T
    assert ks(h * w / 1000**2, uniform(0.1, 0.5)) < KS
    assert ks(np.log(w / h), uniform(math.log(3 / 4), math.log(4 / 3))) < KS
    assert ks(top / (1000 - h), uniform(0, 1)) < KS
    assert ks(left / (1000 - w), uniform(0, 1)) < KS
    assert (h * w).min() / 1000**2 > 0.1 - 2e-3  # whole pixels
    assert (h * w).max() / 1000**2 < 0.5 + 2e-3
    assert abs(np.corrcoef(h * w, w / h)[0, 1]) < 0.06
    assert abs(np.corrcoef(top / (1000 - h), left / (1000 - w))[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (10, 300, (0, 143, 10, 13)),
        (300, 10, (143, 0, 13, 10)),
        (1, 64, (0, 31, 1, 1)),
        (64, 1, (31, 0, 1, 1)),
        (9, 301, (0, 144, 9, 12)),
    ],
)
def test_what_does_not_fit_is_cropped_in_the_centre(height, width, expected):
    image = torch.empty(3, height, width)
    crop = draw_crop(VideoAugment(area=(0.95, 1.0)), height=height, width=width, rng=rng())
    assert crop == expected
    assert crop == tuple(RandomResizedCrop.get_params(image, (0.95, 1.0), (3 / 4, 4 / 3)))


@pytest.mark.parametrize("aspect", [(3.0, 4.0), (0.1, 0.2)])
def test_a_crop_has_at_least_one_pixel(aspect):
    augment = VideoAugment(aspect=aspect)
    assert draw_crop(augment, height=1, width=1, rng=rng()) == (0, 0, 1, 1)


def test_jitter_is_uniform_in_its_ranges():
    drawn = [dict(draw_jitter(VideoAugment(), rng=r)) for r in [rng()] for _ in range(DRAWS)]
    for name in ("brightness", "contrast", "saturation"):
        values = np.array([d[name] for d in drawn])
        assert values.min() >= 0.6
        assert values.max() < 1.4
        assert ks(values, uniform(0.6, 1.4)) < KS
    turns = np.array([d["hue"] for d in drawn])
    assert np.abs(turns).max() <= 0.2
    assert ks(turns, uniform(-0.2, 0.2)) < KS
    columns = np.array([[d[name] for name in sorted(d)] for d in drawn]).T
    assert np.abs(np.corrcoef(columns) - np.eye(4)).max() < 0.06


def test_factors_do_not_go_below_zero():
    augment = VideoAugment(brightness=1.5)
    values = [dict(draw_jitter(augment, rng=r))["brightness"] for r in [rng()] for _ in range(DRAWS)]
    assert ks(values, uniform(0, 2.5)) < KS


def test_jitter_comes_in_every_order():
    drawn = [draw_jitter(VideoAugment(), rng=r) for r in [rng()] for _ in range(DRAWS)]
    orders = Counter(tuple(name for name, _ in d) for d in drawn)
    assert set(orders) == set(itertools.permutations(["brightness", "contrast", "saturation", "hue"]))
    assert max(abs(n - DRAWS / 24) for n in orders.values()) < 4 * math.sqrt(DRAWS / 24)


@pytest.mark.parametrize("augment", [VideoAugment(), VideoAugment(flip=0.1, grey=0.7, blur=0.9)])
def test_how_often_the_rest_happens(augment):
    drawn = [
        draw_choices(augment, height=24, width=32, size=112, rng=r) for r in [rng()] for _ in range(DRAWS)
    ]
    happens = np.array([(d.flip, d.grey, d.blur is not None) for d in drawn], float)
    assert np.abs(happens.mean(0) - (augment.flip, augment.grey, augment.blur)).max() < RATE
    assert np.abs(np.corrcoef(happens.T) - np.eye(3)).max() < 0.06


def test_never_and_always_are_exact():
    for chance in (0.0, 1.0):
        augment = VideoAugment(flip=chance, grey=chance, blur=chance)
        for d in [
            draw_choices(augment, height=9, width=9, size=9, rng=r) for r in [rng()] for _ in range(200)
        ]:
            assert (d.flip, d.grey, d.blur is not None) == (chance, chance, chance)


def test_sigma_is_uniform_and_the_same_both_ways():
    drawn = np.array([draw_blur(VideoAugment(blur=1.0), rng=r) for r in [rng()] for _ in range(DRAWS)])
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert drawn.min() >= 0.1
    assert drawn.max() < 2.0
    assert ks(drawn[:, 0], uniform(0.1, 2.0)) < KS


def test_the_released_sigma_is_always_the_same():
    drawn = {draw_blur(VideoAugment(released=True), rng=r) for r in [rng()] for _ in range(100)}
    assert drawn == {None, (0.1, 2.0)}


def test_the_geometry_of_the_cutout():
    cuts = np.array([draw_cutout(VideoAugment(), size=112, rng=r) for r in [rng()] for _ in range(4000)])
    top, bottom, left, right = cuts.T
    heights, widths = bottom - top, right - left
    nothing = heights * widths == 0
    assert cuts.min() >= 0
    assert max(bottom.max(), right.max()) == 112
    assert abs(nothing.mean() - 1 / 20) < 0.01  # a nominal side of 1
    assert abs(nothing.mean() - 0.056) < 0.01  # what the released code did in 4000 calls or so
    assert set(heights) == set(widths) == set(range(21))
    inside = (top > 0) & (bottom < 112) & (left > 0) & (right < 112) & ~nothing
    assert (heights[inside] == widths[inside]).all()
    sides = Counter(heights[inside])
    assert set(sides) == set(range(2, 21, 2))  # even; 2 to 18 from two nominal sides each, 20 from one
    assert 0.3 < sides[20] / np.mean([sides[s] for s in range(2, 19, 2)]) < 0.7
    for first, last in ((top, bottom), (left, right)):
        centre = (first + last)[~nothing] / 2
        assert ks(centre[(centre >= 11) & (centre <= 101)], uniform(11, 101)) < KS  # no border is near


def test_a_step_that_is_off_leaves_the_others_as_they_were():
    frame = {"height": 240, "width": 320, "size": 112}
    strong = VideoAugment(flip=1.0, grey=1.0, blur=1.0)
    for seed in range(20):
        all_on = draw_choices(strong, **frame, rng=rng(seed))
        for name, value in (("flip", False), ("grey", False), ("blur", None)):
            off = draw_choices(dataclasses.replace(strong, **{name: 0.0}), **frame, rng=rng(seed))
            assert off == dataclasses.replace(all_on, **{name: value})
        off = draw_choices(dataclasses.replace(strong, hue=0.0, cutout=0), **frame, rng=rng(seed))
        assert dict(off.jitter) == dict(all_on.jitter) | {"hue": 0.0}
        assert (off.crop, off.blur) == (all_on.crop, all_on.blur)


# --- applying: each step against torchvision ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 0.93, 1.0, 1.4, 2.5])
def test_a_factor_does_what_torchvisions_does(pixels, name, factor):
    reference = getattr(tvf, f"adjust_{name}")
    ours = pixels.clone()
    module._JITTER[name](ours, factor)
    frames = pixels.transpose(0, 1)
    in_float = reference(frames / 255, factor).transpose(0, 1) * 255
    in_uint8 = reference(frames.to(torch.uint8), factor).transpose(0, 1).float()
    assert (ours - in_float).abs().max() < FLOAT_LEVELS
    # torchvision truncates the result to whole levels, and before that the grey levels that |1 - factor| multiplies
    assert (ours - in_uint8).abs().max() < UINT8_LEVELS * (1 + abs(1 - factor))
    assert ((ours - pixels).abs().max() == 0) == (factor == 1)


@pytest.mark.parametrize("turn", [-0.5, -0.2, -0.07, -1e-4, 0.0, 0.1, 1 / 6, 0.2, 0.5])
def test_the_hue_turns_as_torchvisions(pixels, turn):
    ours = pixels.clone()
    module._hue(ours, turn)
    frames = pixels.transpose(0, 1)
    in_float = tvf.adjust_hue(frames / 255, turn).transpose(0, 1) * 255
    in_uint8 = tvf.adjust_hue(frames.to(torch.uint8), turn).transpose(0, 1).float()
    assert (ours - in_float).abs().max() < FLOAT_LEVELS
    assert (ours - in_uint8).abs().max() < HUE_UINT8_LEVELS
    assert torch.allclose(ours.amax(0), pixels.amax(0), atol=1e-3, rtol=0)
    assert torch.allclose(ours.amin(0), pixels.amin(0), atol=1e-3, rtol=0)


def test_a_third_of_a_turn_makes_red_green():
    colours = torch.tensor([[200.0, 30, 30], [30, 200, 30], [30, 30, 200], [70, 70, 70]]).T.reshape(
        3, 1, 1, 4
    )
    turned = colours.clone()
    module._hue(turned, 1 / 3)
    expected = colours[..., [1, 2, 0, 3]]
    torch.testing.assert_close(turned, expected, atol=1e-3, rtol=0)


def test_grey_is_torchvisions(pixels):
    ours = module._luma(pixels)
    theirs = tvf.rgb_to_grayscale(pixels.transpose(0, 1) / 255).transpose(0, 1) * 255
    assert ours.shape == (1, 2, 36, 36)
    assert (ours - theirs).abs().max() < FLOAT_LEVELS


@pytest.mark.parametrize("radius", [0, 1, 5, 11])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.3, 2.0])
def test_the_blur_is_torchvisions(pixels, radius, sigma):
    ours = module._blur(pixels, sigma, sigma, radius=radius, whole_levels=False)
    frames, kernel = pixels.transpose(0, 1), [2 * radius + 1] * 2
    in_float = tvf.gaussian_blur(frames, kernel, [sigma] * 2).transpose(0, 1)
    in_uint8 = tvf.gaussian_blur(frames.to(torch.uint8), kernel, [sigma] * 2).transpose(0, 1).float()
    assert (ours - in_float).abs().max() < FLOAT_LEVELS
    assert (ours - in_uint8).abs().max() < UINT8_LEVELS


def test_the_two_sigmas_are_horizontal_and_vertical(pixels):
    ours = module._blur(pixels, 0.7, 1.9, radius=5, whole_levels=False)
    theirs = tvf.gaussian_blur(pixels.transpose(0, 1), [11, 11], [0.7, 1.9]).transpose(0, 1)
    assert (ours - theirs).abs().max() < FLOAT_LEVELS


def test_the_crop_is_cut_out_and_then_resized(clip):
    from PIL import Image

    for top, left, height, width in [
        (0, 0, 240, 320),
        (31, 57, 150, 131),
        (100, 200, 40, 50),
        (239, 319, 1, 1),
    ]:
        ours = module._crop(torch.from_numpy(clip), (top, left, height, width), 112)
        assert ours.shape == (8, 3, 112, 112)
        for ours_frame, frame in zip(ours, clip, strict=True):
            cut = Image.fromarray(frame).crop((left, top, left + width, top + height))
            pillow = np.asarray(cut.resize((112, 112), Image.Resampling.BILINEAR), dtype=np.int16)
            assert np.abs(ours_frame.permute(1, 2, 0).numpy() - pillow).max() < UINT8_LEVELS


# --- applying: what the released code does -----------------------------------------------------------------------


def test_the_released_blur_is_the_golden_one(golden, clip):
    released = golden("augment_video")["blur.kernel11.clip701.frame0.sub4"]
    frame = torch.from_numpy(clip[:1]).permute(3, 0, 1, 2).float()
    ours = module._blur(frame, *VideoAugment().blur_sigma, radius=5, whole_levels=True)
    assert torch.equal(ours, ours.floor())
    ours = ours[:, 0, ::4, ::4].permute(1, 2, 0).numpy()
    difference = np.abs(ours - released)
    assert difference.max() < RELEASED_LEVELS
    assert (difference > 0).mean() < 0.01
    right = (
        module._blur(frame, 2.0, 2.0, radius=5, whole_levels=True)[:, 0, ::4, ::4].permute(1, 2, 0).numpy()
    )
    assert np.abs(right - released).max() > 5 * RELEASED_LEVELS  # the golden distinguishes the two


def test_the_released_blur_spreads_a_horizontal_line_only():
    """At 112 pixels the kernel is 11 wide; rows and columns 24 to 36 around a white line in row, or column, 30."""
    config, blurred = VideoConfig(size=112), choices(crop=(0, 0, 112, 112), blur=(0.1, 2.0))
    profiles = []
    for axis in (0, 1):
        frames = np.zeros((1, 112, 112, 3), np.uint8)
        np.moveaxis(frames[0], axis, 0)[30] = 255
        view = levels(apply_choices(frames, blurred, config=config, released=True), config)
        profiles.append(
            (view[0, 0, 24:37, 50] if axis == 0 else view[0, 0, 50, 24:37]).round().int().tolist()
        )
    assert profiles[0] == [0, 2, 6, 16, 31, 45, 51, 45, 31, 16, 6, 2, 0]
    assert profiles[1] == [0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0]


def test_the_kernel_grows_with_the_view():
    for size, reach in ((112, 5), (224, 11), (19, 0)):
        config = VideoConfig(size=size)
        frames = np.zeros((1, size, size, 3), np.uint8)
        frames[0, size // 2] = 255
        blurred = choices(crop=(0, 0, size, size), blur=(9.0, 9.0))
        row = levels(apply_choices(frames, blurred, config=config), config)[0, 0, :, size // 2]
        assert int((row > 0.01).sum()) == 2 * reach + 1


@pytest.mark.parametrize("released", [False, True])
def test_the_cutout_sets_or_in_the_released_code_multiplies(clip, released):
    config = VideoConfig(size=112)
    whole = apply_choices(clip, choices(), config=config)
    cut = apply_choices(clip, choices(cutout=(90, 112, 30, 50)), config=config, released=released)
    mean = whole[:, 0].double().mean().item()
    expected = whole.clone()
    expected[:, :, 90:112, 30:50] = whole[:, :, 90:112, 30:50] * mean if released else mean
    torch.testing.assert_close(cut, expected, atol=NORMALISED, rtol=0)
    assert not torch.allclose(cut, whole, atol=0.1, rtol=0)
    assert abs(mean - whole[:, -1].double().mean().item()) > 0.1  # so the last frame's mean would not do


# --- all steps ---------------------------------------------------------------------------------------------------


def test_with_all_off_it_is_resized_and_normalised(clip):
    config = VideoConfig(size=112, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    view = augment_video(clip[:, :240, :240], OFF, config=config, rng=rng(3))
    crop = draw_crop(OFF, height=240, width=240, rng=rng(3))
    resized = module._crop(torch.from_numpy(clip[:, :240, :240]), crop, 112).transpose(0, 1).double() / 255
    expected = (resized - torch.tensor(config.mean).view(3, 1, 1, 1)) / torch.tensor(config.std).view(
        3, 1, 1, 1
    )
    torch.testing.assert_close(view.double(), expected, atol=NORMALISED, rtol=0)


def in_torchvisions_hands(clip, chosen, config):
    """The same view by torchvision's functions, in float."""
    top, left, height, width = chosen.crop
    images = torch.from_numpy(clip[:, top : top + height, left : left + width]).permute(0, 3, 1, 2)
    images = tvf.resize(images, [config.size] * 2, antialias=True) / 255
    if chosen.flip:
        images = tvf.horizontal_flip(images)
    for name, amount in chosen.jitter:
        images = getattr(tvf, f"adjust_{name}")(images, amount)
    if chosen.grey:
        images = tvf.rgb_to_grayscale(images, 3)
    if chosen.blur:
        images = tvf.gaussian_blur(images, [2 * (config.size // 20) + 1] * 2, list(chosen.blur))
    view = tvf.normalize(images, config.mean, config.std).transpose(0, 1).contiguous()
    top, bottom, left, right = chosen.cutout
    view[:, :, top:bottom, left:right] = view[:, 0].mean()
    return view


@pytest.mark.usefixtures("resize_in_uint8")
def test_the_steps_come_in_order(clip):
    strong = VideoAugment(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5, blur=0.7, flip=0.5)
    config, clip = VideoConfig(size=60), clip[:3]
    told_apart = 0
    for seed in range(25):
        chosen = draw_choices(strong, height=240, width=320, size=60, rng=rng(seed))
        ours = apply_choices(clip, chosen, config=config)
        unit = torch.tensor(config.std).view(3, 1, 1, 1) * 255
        difference = ((ours - in_torchvisions_hands(clip, chosen, config)) * unit).abs()
        assert difference.max() < 4 * FLOAT_LEVELS  # four factors, each up to 1.8, on what came before
        backwards = dataclasses.replace(chosen, jitter=chosen.jitter[::-1])
        difference = ((apply_choices(clip, backwards, config=config) - ours) * unit).abs()
        told_apart += bool(difference.max() > 10)
    assert told_apart > 15


def test_augment_video_draws_and_then_applies(clip):
    for strong, released in itertools.product(VIDEO_AUGMENTS.values(), (False, True)):
        augment = dataclasses.replace(strong, released=released)
        chosen = draw_choices(augment, height=240, width=320, size=56, rng=rng(5))
        expected = apply_choices(clip, chosen, config=SMALL, released=released)
        assert torch.equal(augment_video(clip, augment, config=SMALL, rng=rng(5)), expected)


def test_every_frame_is_treated_alike():
    frames = np.repeat(noise(1, 60, 80, 3), 7, axis=0)
    for seed in range(20):
        view = augment_video(frames, VideoAugment(), config=SMALL, rng=rng(seed))
        assert torch.equal(view, view[:, :1].expand_as(view))


@pytest.mark.parametrize("released", [False, True])
def test_the_seed_decides(clip, released):
    augment = VideoAugment(released=released)
    before = clip.copy()
    first, again = (augment_video(clip, augment, config=SMALL, rng=rng(7)) for _ in range(2))
    other = augment_video(clip, augment, config=SMALL, rng=rng(8))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.1
    assert (clip == before).all()


def test_no_other_random_source_is_touched(clip):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    augment_video(clip, VideoAugment(), config=SMALL, rng=rng())
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize(
    "shape", [(8, 240, 320), (5, 97, 33), (5, 1, 64), (5, 64, 1), (1, 1, 1), (1, 17, 400), (33, 20, 20)]
)
@pytest.mark.parametrize("size", [7, 56])
def test_frames_of_any_form_make_a_view(shape, size):
    frames = noise(*shape, 3)
    frames.flags.writeable = False
    for seed in range(4):
        view = augment_video(frames, VideoAugment(), config=VideoConfig(size=size), rng=rng(seed))
        assert view.shape == (3, shape[0], size, size)
        assert view.dtype == torch.float32
        assert view.is_contiguous()
        assert view.isfinite().all()
        assert view.min() > -2.2  # black is -2.12
        assert view.max() < 2.7  # white is 2.64


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((8, 32, 32, 3), np.float32), "dtype float32; pass RGB as uint8"),
        (np.zeros((2, 8, 32, 32, 3), np.uint8), r"pass \(T, H, W, 3\)"),
        (np.zeros((32, 32, 3), np.uint8), r"pass \(T, H, W, 3\)"),
        (np.zeros((3, 8, 32, 32), np.uint8), "move the colours last"),
        (np.zeros((0, 32, 32, 3), np.uint8), "which is empty"),
    ],
)
def test_what_is_no_clip_is_refused(frames, message):
    with pytest.raises(InputError, match=message):
        augment_video(frames, VideoAugment(), config=SMALL, rng=rng())
    with pytest.raises(InputError, match=message):
        apply_choices(frames, choices(), config=SMALL)


# --- bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "size"), [(8, 112), (5, 111), (1, 225)])
@pytest.mark.parametrize("released", [False, True])
def test_the_number_of_threads_changes_no_bit(frames, size, released):
    """Odd sizes, so that the threads' chunks begin anywhere; one frame, so that a mean of all would be split."""
    augment, config = VideoAugment(blur=0.8, released=released), VideoConfig(size=size)
    clip, views = noise(frames, 150, 201, 3), {}
    for n in (1, 2):
        torch.set_num_threads(n)
        views[n] = [augment_video(clip, augment, config=config, rng=rng(seed)) for seed in range(4)]
    for one, two in zip(views[1], views[2], strict=True):
        assert torch.equal(one, two)


def test_the_size_of_the_blocks_changes_no_bit(clip, monkeypatch):
    views = []
    for pixels in (1, 3 * 56**2, 2**30):
        monkeypatch.setattr(module, "BLOCK_PIXELS", pixels)
        views.append([augment_video(clip, VideoAugment(), config=SMALL, rng=rng(seed)) for seed in range(6)])
    for a, b, c in zip(*views, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
