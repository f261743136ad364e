from __future__ import annotations

import dataclasses
import inspect
import random
import re

import numpy as np
import pytest
import torch
from filler import seeded_normal, tones

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, AudioAugment
from crisscross_zoo.transforms.augment_audio import (
    Crop,
    augment_audio,
    canvas_size,
    draw_crop,
    draw_masks,
    draw_volume,
    draw_warp,
    fill_masks,
    resize_crop,
    warp_time,
)
from crisscross_zoo.transforms.mel import log_mel

CONFIG = AudioConfig()
TOLERANCE = 1e-5  # of resampled noise that spans about 8
MEAN_TOLERANCE = 1e-6  # of a mean taken in float64, stored as float32
DRAWS = 10_000
DEVIATIONS = 5  # a count may be this many standard deviations from what is expected; the seeds are fixed

PAPER = AudioAugment(time_warp=20)
RELEASED = AudioAugment(time_warp=20, released=True)
OFF = AudioAugment(volume=0, masks=0, crop=(0, 0))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wave_of(seconds: float) -> torch.Tensor:
    return torch.from_numpy(tones(int(seconds * 16_000), 301)).float()


def noise() -> torch.Tensor:
    return torch.from_numpy(seeded_normal(706, (1, 80, 201)))


def assert_uniform(drawn, first, last):
    """Assert that the integers from first to last, both inclusive, are equally frequent, and that there is no other."""
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == list(range(first, last + 1))
    fraction = 1 / len(values)
    deviation = np.sqrt(len(drawn) * fraction * (1 - fraction))
    assert np.abs(counts - len(drawn) * fraction).max() <= DEVIATIONS * deviation


# --- applying, against the released code -----------------------------------------------------------------


@pytest.mark.parametrize(("centre", "position"), [(50, 62), (180, 181)])
def test_the_time_warp_agrees_with_the_released_code(golden, centre, position):
    released = golden("augment_audio")[f"timewarp.center{centre}.warped{position}.sub"]
    ours = warp_time(noise(), centre, position)
    assert ours.shape == (1, 80, 201)
    np.testing.assert_allclose(ours[:, ::8], released, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("crop", [Crop(0, 0, 80, 301), Crop(10, 40, 60, 150), Crop(0, 50, 80, 201)])
def test_the_random_resize_crop_agrees_with_the_released_code(golden, crop):
    released = golden("augment_audio")[f"rrc.i{crop.top}.j{crop.left}.h{crop.height}.w{crop.width}.sub"]
    canvas = canvas_size(80, 201, AudioAugment())
    assert canvas == (80, 301)
    ours = resize_crop(noise(), crop, canvas=canvas)
    assert ours.shape == (1, 80, 201)
    np.testing.assert_allclose(ours[:, ::8], released, rtol=0, atol=TOLERANCE)


def test_a_warp_that_moves_nothing_and_a_crop_of_the_middle_leave_all_as_it_was():
    assert torch.equal(warp_time(noise(), 77, 77), noise())
    assert torch.equal(resize_crop(noise(), Crop(0, 50, 80, 201), canvas=(80, 301)), noise())
    assert torch.equal(resize_crop(noise(), Crop(20, 50, 80, 201), canvas=(120, 301)), noise())


def test_nothing_of_one_side_of_the_warp_reaches_the_other():
    spectrogram = torch.cat([torch.full((1, 80, 60), -1.0), torch.full((1, 80, 140), 1.0)], dim=-1)
    expected = torch.cat([torch.full((1, 80, 75), -1.0), torch.full((1, 80, 125), 1.0)], dim=-1)
    torch.testing.assert_close(warp_time(spectrogram, 60, 75), expected, atol=TOLERANCE, rtol=0)


def test_the_canvas_around_the_spectrogram_is_zero():
    ours = resize_crop(torch.ones(1, 80, 200), Crop(0, 0, 80, 50), canvas=(80, 300))
    assert torch.equal(ours, torch.zeros(1, 80, 200))
    ours = resize_crop(torch.ones(1, 80, 200), Crop(0, 50, 80, 200), canvas=(80, 300))
    assert torch.equal(ours, torch.ones(1, 80, 200))


def test_masks_are_filled_with_the_mean_and_nothing_else_changes():
    spectrogram = noise() + 3
    before = spectrogram.clone()
    ours = fill_masks(spectrogram, [(3, 5), (70, 10), (40, 0)], axis=-2)
    rows = torch.zeros(80, dtype=torch.bool)
    rows[3:8] = rows[70:80] = True
    mean = before.double().mean().float()
    torch.testing.assert_close(ours[:, rows], mean.expand(1, 15, 201).clone(), atol=MEAN_TOLERANCE, rtol=0)
    assert torch.equal(ours[:, ~rows], before[:, ~rows])
    assert torch.equal(spectrogram, before)

    twice = fill_masks(ours, [(0, 2), (199, 2)], axis=-1)
    columns = torch.zeros(201, dtype=torch.bool)
    columns[[0, 1, 199, 200]] = True
    mean = ours.double().mean().float()  # includes the frequency masks
    torch.testing.assert_close(
        twice[..., columns], mean.expand(1, 80, 4).clone(), atol=MEAN_TOLERANCE, rtol=0
    )
    assert torch.equal(twice[..., ~columns], ours[..., ~columns])


# --- drawing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "range_"), [("pretraining", 0.2), ("linear", 0.2), ("standard", 0.1)])
def test_the_volume_factor_is_uniform_in_its_range(name, range_):
    rng = generator()
    factors = np.array([draw_volume(AUDIO_AUGMENTS[name], rng) for _ in range(DRAWS)])
    assert 1 - range_ <= factors.min() < 1 - 0.99 * range_
    assert 1 + 0.99 * range_ < factors.max() < 1 + range_
    tenths = np.floor((factors - (1 - range_)) / (2 * range_) * 10)
    assert_uniform(tenths, 0, 9)


@pytest.mark.parametrize(("size", "largest"), [(80, 10), (200, 20)])
def test_mask_widths_reach_the_papers_max_size(size, largest):
    rng = generator()
    masks = np.array([draw_masks(size, largest, PAPER, rng) for _ in range(DRAWS)])
    assert masks.shape == (DRAWS, 2, 2)
    starts, widths = masks[..., 0], masks[..., 1]
    assert_uniform(widths.ravel(), 0, largest)
    # Each start has its own range: one that keeps this mask inside, whatever the other's width.
    for width in (0, largest):
        here = starts[widths == width]
        assert here.min() < 5
        assert size - width - 5 < here.max() <= size - width
        assert_uniform(np.floor(10 * here / (size - width + 1)), 0, 9)
    assert (starts.min(), (starts + widths).max()) == (0, size)
    assert np.abs(np.corrcoef(widths.T)[0, 1]) < DEVIATIONS / np.sqrt(DRAWS)


@pytest.mark.parametrize(("size", "largest", "most"), [(80, 10, 18), (201, 20, 38)])
def test_released_masks_have_the_measured_sizes(size, largest, most):
    rng = generator()
    masks = np.array([draw_masks(size, largest, RELEASED, rng) for _ in range(DRAWS)])
    assert_uniform(masks[..., 1].ravel(), 0, largest - 1)
    covered = [len({row for start, width in pair for row in range(start, start + width)}) for pair in masks]
    assert (min(covered), max(covered)) == (0, most)
    assert np.abs(np.corrcoef(masks[..., 1].T)[0, 1]) < DEVIATIONS / np.sqrt(
        DRAWS
    )  # each mask has its own width
    larger = masks[..., 1].max(1)
    assert (masks[..., 0] < size - larger[:, None]).all()
    assert_uniform(masks[larger == largest - 1, :, 0].ravel(), 0, size - largest)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("size", [1, 5, 12])
def test_masks_stay_inside_a_short_axis(size, released):
    augment, rng = AudioAugment(released=released), generator()
    masks = np.array([draw_masks(size, 20, augment, rng) for _ in range(500)])
    assert masks.min() >= 0
    assert masks.sum(-1).max() == size


@pytest.mark.parametrize("columns", [200, 42])
def test_the_papers_warp_is_symmetric_and_stays_inside(columns):
    rng = generator()
    centres, positions = np.array([draw_warp(columns, PAPER, rng) for _ in range(DRAWS)]).T
    assert_uniform(centres, 21, columns - 21)
    assert_uniform(positions - centres, -20, 20)
    assert positions.min() >= 1
    assert positions.max() <= columns - 1


def test_the_released_warp_has_the_measured_range():
    rng = generator()
    centres, positions = np.array([draw_warp(201, RELEASED, rng) for _ in range(DRAWS)]).T
    assert_uniform(centres, 20, 180)
    assert_uniform(positions - centres, -19, 20)
    shortest = np.array([draw_warp(41, RELEASED, rng) for _ in range(DRAWS)])
    assert (shortest.min(), shortest[:, 1].max()) == (1, 40)


def test_the_warp_is_skipped_if_it_is_off_or_the_spectrogram_too_short():
    assert draw_warp(200, AudioAugment(), generator()) is None
    assert draw_warp(41, PAPER, generator()) is None
    assert draw_warp(42, PAPER, generator()) is not None
    assert draw_warp(40, RELEASED, generator()) is None
    assert draw_warp(41, RELEASED, generator()) is not None


@pytest.mark.parametrize("augment", [PAPER, RELEASED])
def test_crops_have_the_measured_sizes(augment):
    rng = generator()
    crops = np.array([draw_crop(80, 201, augment, rng) for _ in range(DRAWS)])
    top, left, height, width = crops.T
    assert (height.min(), height.max()) == (48, 80)
    assert (width.min(), width.max()) == (120, 301)
    fraction = 0.5 / 0.9  # of U(0.6, 1.5) not below 1; 0.55 was measured
    deviation = np.sqrt(fraction * (1 - fraction) / DRAWS)
    assert abs((height == 80).mean() - fraction) < DEVIATIONS * deviation
    assert crops.min() >= 0
    assert (top + height).max() == 80
    assert (left + width).max() == 301
    assert ((top + height == 80) & (height < 80)).any()
    assert ((left + width == 301) & (width < 301)).any()
    assert ((top == 0) & (left == 0) & (height < 80)).any()
    assert_uniform(np.floor(30 * left / (302 - width))[width < 200], 0, 29)


def test_a_crop_of_a_tall_canvas_may_be_taller_than_the_spectrogram():
    augment, rng = AudioAugment(canvas=(1.25, 1.0)), generator()
    crops = np.array([draw_crop(80, 200, augment, rng) for _ in range(1_000)])
    assert (crops[:, 2].max(), crops[:, 3].max()) == (100, 200)
    assert (crops[:, 0] + crops[:, 2]).max() == 100


# --- all together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0325, 0.4, 1, 2, 5])
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("name", AUDIO_AUGMENTS)
def test_any_length_gives_100_columns_per_second(name, released, seconds):
    augment = dataclasses.replace(AUDIO_AUGMENTS[name], released=released)
    wave = wave_of(seconds)
    for seed in range(5):
        ours = augment_audio(wave, augment, config=CONFIG, rng=generator(seed))
        assert ours.shape == (1, 80, len(wave) // 160)
        assert ours.dtype == torch.float32
        assert torch.isfinite(ours).all()


def test_with_all_off_it_is_the_log_mel_and_nothing_is_drawn():
    rng = generator()
    assert torch.equal(augment_audio(wave_of(2), OFF, config=CONFIG, rng=rng), log_mel(wave_of(2), CONFIG))
    assert rng.bit_generator.state == generator().bit_generator.state


def test_the_volume_changes_before_the_spectrogram_is_made():
    ours = augment_audio(wave_of(2), AUDIO_AUGMENTS["standard"], config=CONFIG, rng=generator(3))
    factor = draw_volume(AUDIO_AUGMENTS["standard"], generator(3))
    assert torch.equal(ours, log_mel(factor * wave_of(2), CONFIG))
    assert not torch.equal(ours, log_mel(wave_of(2), CONFIG))


@pytest.mark.parametrize("augment", [PAPER, RELEASED])
def test_the_order_is_volume_warp_frequency_masks_time_masks_crop(augment):
    rng = generator(5)
    spectrogram = log_mel(draw_volume(augment, rng) * wave_of(2), CONFIG)
    spectrogram = warp_time(spectrogram, *draw_warp(200, augment, rng))
    spectrogram = fill_masks(spectrogram, draw_masks(80, 10, augment, rng), axis=-2)
    spectrogram = fill_masks(spectrogram, draw_masks(200, 20, augment, rng), axis=-1)
    expected = resize_crop(spectrogram, draw_crop(80, 200, augment, rng), canvas=(80, 300))
    ours = augment_audio(wave_of(2), augment, config=CONFIG, rng=generator(5))
    assert torch.equal(ours, expected)


def test_masks_of_the_whole_are_filled_with_the_spectrograms_mean():
    augment = dataclasses.replace(OFF, masks=2, time_mask=0)
    plain = log_mel(wave_of(2), CONFIG)
    changed = 0
    for seed in range(20):
        ours = augment_audio(wave_of(2), augment, config=CONFIG, rng=generator(seed))
        rows = (ours != plain).any(-1)[0]
        changed += int(rows.sum())
        filled = ours[:, rows]
        torch.testing.assert_close(
            filled, torch.full_like(filled, float(plain.double().mean())), atol=MEAN_TOLERANCE, rtol=0
        )
    assert 0 < changed <= 20 * 20


def test_only_the_linear_set_warps():
    assert {name: a.time_warp for name, a in AUDIO_AUGMENTS.items()} == {
        "pretraining": 0,
        "linear": 20,
        "standard": 0,
    }
    same = dataclasses.replace(AUDIO_AUGMENTS["linear"], time_warp=0)
    assert same == AUDIO_AUGMENTS["pretraining"] == AudioAugment()
    warp = dataclasses.replace(OFF, time_warp=20)
    plain = log_mel(wave_of(2), CONFIG)
    assert not torch.equal(augment_audio(wave_of(2), warp, config=CONFIG, rng=generator()), plain)
    short = wave_of(0.41)  # 41 columns
    assert torch.equal(augment_audio(short, warp, config=CONFIG, rng=generator()), log_mel(short, CONFIG))


def test_silence_stays_silence():
    silent = float(np.log(CONFIG.log_offset) - CONFIG.mean) / CONFIG.std  # -2.3976
    augment = AudioAugment(time_warp=20, crop=(0, 0))
    ours = augment_audio(torch.zeros(32_000), augment, config=CONFIG, rng=generator())
    torch.testing.assert_close(ours, torch.full_like(ours, silent), atol=TOLERANCE, rtol=0)
    for seed in range(20):  # with the crop, zeros come in, and between the two the cubic overshoots
        ours = augment_audio(torch.zeros(32_000), PAPER, config=CONFIG, rng=generator(seed))
        assert 1.25 * silent < ours.min() <= silent + TOLERANCE
        assert ours.max() < -0.25 * silent


def test_the_same_generator_gives_the_same_and_another_something_else():
    def views(seed):
        rng = generator(seed)
        return [augment_audio(wave_of(2), PAPER, config=CONFIG, rng=rng) for _ in range(3)]

    one, again, other = views(1), views(1), views(2)
    for i in range(3):
        assert torch.equal(one[i], again[i])
        assert not torch.equal(one[i], other[i])
    assert not torch.equal(one[0], one[1])


def test_all_that_is_random_comes_from_the_generator_given():
    def states():
        numpy = np.random.get_state()  # noqa: NPY002
        return random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()

    before = states()
    augment_audio(wave_of(2), PAPER, config=CONFIG, rng=generator())
    assert states() == before


@pytest.mark.parametrize("seconds", [2, 5])
def test_the_bits_do_not_depend_on_the_number_of_threads(seconds):
    def views(count):
        torch.set_num_threads(count)
        return [augment_audio(wave_of(seconds), PAPER, config=CONFIG, rng=generator(s)) for s in range(4)]

    for one, two in zip(views(1), views(2), strict=True):
        assert torch.equal(one, two)


def test_the_bits_of_each_step_do_not_depend_on_the_number_of_threads():
    """With more threads than those with which the log-mel's matrix product is reproducible."""
    spectrogram = torch.from_numpy(seeded_normal(7, (1, 80, 1_000))) + 1

    def steps(count):
        torch.set_num_threads(count)
        yield warp_time(spectrogram, 481, 500)
        yield fill_masks(spectrogram, [(3, 9)], axis=-2)
        yield resize_crop(spectrogram, Crop(7, 11, 61, 1_234), canvas=(80, 1_500))

    for one, many in zip(steps(1), steps(8), strict=True):
        assert torch.equal(one, many)


def test_arrays_and_tensors_of_any_floating_dtype_do_and_are_not_changed():
    wave = (np.arange(16_000) % 16 / 16).astype(np.float32)  # exact in every dtype
    before = wave.copy()
    expected = augment_audio(wave, PAPER, config=CONFIG, rng=generator())
    for same in (
        torch.from_numpy(wave),
        wave.astype(np.float16),
        wave.astype(np.float64),
        torch.from_numpy(wave).requires_grad_(),
    ):
        ours = augment_audio(same, PAPER, config=CONFIG, rng=generator())
        assert torch.equal(ours, expected)
        assert not ours.requires_grad
    assert (wave == before).all()


def test_another_front_end_does():
    config = CONFIG.replace(n_mels=40, hop_length=320)
    ours = augment_audio(wave_of(2), PAPER, config=config, rng=generator())
    assert ours.shape == (1, 40, 100)


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(16_000, np.int16), "dtype int16; .*int16 / 32768"),
        (torch.zeros(16_000, dtype=torch.int32), "dtype torch.int32"),
        (np.zeros((2, 16_000), np.float32), r"the shape \(2, 16000\); pass \(samples,\)"),
        (torch.zeros(1, 16_000), r"the shape \(1, 16000\); pass \(samples,\)"),
        (np.zeros(()), r"the shape \(\)"),
        (np.zeros(0), r"the shape \(0,\)"),
        (np.full(16_000, np.nan), "not finite"),
        (np.full(16_000, 3000.0), "divide 16-bit samples by 32768"),
        (torch.zeros(512), "512 samples at 16000 Hz.*at least 513"),
        ([0.0] * 16_000, "the wave is a list"),
    ],
)
def test_what_is_no_wave_is_refused(wave, message):
    with pytest.raises(InputError, match=message):
        augment_audio(wave, PAPER, config=CONFIG, rng=generator())


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("volume", 1.0, "volume=1.0 is out of range; pass a number, at least 0 and below 1"),
        ("volume", -0.1, "volume=-0.1"),
        ("volume", float("nan"), "volume=nan"),
        ("volume", "0.2", "volume='0.2'"),
        ("volume", True, "volume=True"),
        ("frequency_mask", -1, "frequency_mask=-1 is out of range; pass a whole number, at least 0"),
        ("time_mask", 20.0, "time_mask=20.0 is not a whole number"),
        ("masks", None, "masks=None"),
        ("time_warp", True, "time_warp=True"),
        ("crop", (1.5, 0.6), r"crop=\(1.5, 0.6\) is out of range; pass the lower number first"),
        ("crop", (0.0, 1.0), r"crop=\(0.0, 1.0\)"),
        ("crop", (-1.0, -0.5), "crop="),
        ("crop", (0.6,), r"crop=\(0.6,\) is not 2 values; pass 2 values"),
        ("crop", None, "crop=None"),
        ("crop", (0.6, float("inf")), "crop="),
        ("canvas", (0.9, 1.5), "canvas=0.9 is out of range; pass a number, at least 1"),
        ("canvas", 1.5, "canvas=1.5"),
        ("canvas", ("1", "2"), "canvas='1' is not a number"),
        ("released", 1, "released=1 is not True or False"),
    ],
)
def test_impossible_settings_are_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        AudioAugment(**{field: value})


def test_a_list_is_as_good_as_a_tuple():
    augment = AudioAugment(crop=[0.6, 1.5], canvas=[1.0, 1.5])
    assert augment == AudioAugment()
    assert hash(augment) == hash(AudioAugment())
    assert AudioAugment(crop=[0, 0]).crops is False
    assert AudioAugment(crop=(1, 1)).crops is True


def test_every_setting_is_described():
    """The command line's help is read from these lines."""
    described = re.findall(
        r"^ {4}(\w+): .+\.$", inspect.getdoc(AudioAugment).split("Attributes:")[1], re.MULTILINE
    )
    assert described == [field.name for field in dataclasses.fields(AudioAugment)]


@pytest.mark.parametrize(("rows", "columns"), [(83, 204), (82, 205), (80, 202)])
def test_an_odd_margin_of_the_canvas_has_one_more_at_the_end(rows, columns):
    spectrogram = noise()
    above, before = (rows - 80) // 2, (columns - 201) // 2
    canvas = torch.zeros(1, rows, columns)
    canvas[:, above : above + 80, before : before + 201] = spectrogram
    for top, left in ((above, before), (0, 0), (rows - 80, columns - 201)):
        ours = resize_crop(spectrogram, Crop(top, left, 80, 201), canvas=(rows, columns))
        assert torch.equal(ours, canvas[:, top : top + 80, left : left + 201])


def test_the_canvas_is_truncated_to_whole_rows_and_columns():
    augment = AudioAugment(canvas=(1.3, 1.501))
    assert canvas_size(81, 201, augment) == (105, 301)


def test_a_crop_has_at_least_one_row_and_column():
    rng = generator()
    small = AudioAugment(crop=(0.001, 0.002))
    assert {draw_crop(80, 201, small, rng)[2:] for _ in range(50)} == {(1, 1)}


def test_masks_that_are_off_draw_nothing():
    rng = generator()
    assert draw_masks(80, 0, PAPER, rng) == []
    assert draw_masks(80, 10, dataclasses.replace(PAPER, masks=0), rng) == []
    assert draw_volume(dataclasses.replace(PAPER, volume=0), rng) == 1
    assert draw_warp(200, AudioAugment(), rng) is None
    assert rng.bit_generator.state == generator().bit_generator.state


def test_masks_of_one_row_are_those_of_an_axis():
    rng = generator()
    masks = np.array([draw_masks(1, 1, PAPER, rng) for _ in range(200)])
    assert {tuple(m) for m in masks.reshape(-1, 2)} == {(0, 0), (1, 0), (0, 1)}


def test_the_mean_is_taken_in_float64():
    spectrogram = torch.full((1, 80, 100), 0.1)
    spectrogram[0, 0, 0], spectrogram[0, 79, 99] = 3e9, -3e9  # float32 has steps of 256 there
    ours = fill_masks(spectrogram, [(5, 1)], axis=-2)
    assert ours[0, 5, 0].item() == pytest.approx(0.1 * 7_998 / 8_000, rel=1e-6)


def test_released_masks_are_cut_at_the_end_of_the_axis():
    rng = generator()
    masks = np.array([draw_masks(12, 20, RELEASED, rng) for _ in range(DRAWS)])
    starts, widths = masks[..., 0], masks[..., 1]
    assert (starts + widths).max() == 12
    assert set(starts[widths.max(1) >= 11].ravel()) == {0}  # no room but at the start
