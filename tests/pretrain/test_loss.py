"""The loss against the released code's values, and properties that hold for any input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from filler import seeded_normal
from hypothesis import given
from hypothesis import strategies as st

from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.pretrain.loss import PAIRS, VIEWS, crisscross_loss, embedding_std, needed_views

SEEDS = dict(zip(("pv1", "pv2", "pa1", "pa2", "zv1", "zv2", "za1", "za2"), range(501, 509), strict=True))
MIX = dict(zip(SEEDS, (0.9, 0.7, 0.5, 0.3, 0.8, -0.6, 0.4, 0.2), strict=True))
TOLERANCE = 1e-6  # in float64 against the float64 references, which are stored as float32
FLOAT32_TOLERANCE = 1e-5

GROUPS = {"joint": "intra", "cm": "sync", "ctcm": "async"}  # the released code's names


def views(dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return p and z of the case `correlated`."""
    shared = seeded_normal(509, (16, 2048))
    arrays = {
        name: torch.from_numpy(seeded_normal(seed, (16, 2048)) + np.float32(MIX[name]) * shared).to(dtype)
        for name, seed in SEEDS.items()
    }
    return tuple({v: arrays[kind + v].requires_grad_() for v in VIEWS} for kind in "pz")  # type: ignore[return-value]


def reference_name(pair: str) -> str:
    return {"v2a1": "La1v2"}.get(pair, f"L{pair}")


@pytest.mark.parametrize(
    ("dtype", "suffix", "tolerance"),
    [(torch.float64, ".float64ref", TOLERANCE), (torch.float32, "", FLOAT32_TOLERANCE)],
    ids=["float64", "float32"],
)
def test_terms_are_the_reference(
    golden: Callable[[str], Any], dtype: torch.dtype, suffix: str, tolerance: float
) -> None:
    reference = golden("loss_terms")
    p, z = views(dtype)
    paper = crisscross_loss(p, z)
    assert paper.total.dtype == dtype
    for pair in PAIRS:
        expected = float(reference[f"correlated.{reference_name(pair)}{suffix}"])
        assert getattr(paper, pair).item() == pytest.approx(expected, abs=tolerance)
    for term, name in (
        ("intra", "L_intra"),
        ("sync", "L_sync"),
        ("async_", "L_async"),
        ("total", "total_paper"),
    ):
        expected = float(reference[f"correlated.{name}{suffix}"])
        assert getattr(paper, term).item() == pytest.approx(expected, abs=tolerance)
    released = crisscross_loss(p, z, intra_weight=0.5)
    assert released.total.item() == pytest.approx(
        float(reference[f"correlated.total_released{suffix}"]), abs=tolerance
    )


@pytest.mark.parametrize("groups", ["joint", "cm", "ctcm", "joint+cm", "joint+ctcm", "cm+ctcm"])
def test_ablations_are_the_reference(golden: Callable[[str], Any], groups: str) -> None:
    on = {GROUPS[g] for g in groups.split("+")}
    weights = {
        f"{g}_weight": (0.5 if g == "intra" else 1.0) if g in on else 0.0 for g in ("intra", "sync", "async")
    }
    total = crisscross_loss(*views(torch.float64), **weights).total
    expected = float(golden("loss_terms")[f"correlated.total_released[{groups}]"])
    assert total.item() == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(("kind", "intra_weight"), [("paper", 1.0), ("released", 0.5)])
def test_gradients_are_the_reference(golden: Callable[[str], Any], kind: str, intra_weight: float) -> None:
    p, z = views(torch.float64)
    crisscross_loss(p, z, intra_weight=intra_weight).total.backward()
    expected = golden("loss_terms")[f"correlated.grad_pv1.{kind}"]
    assert p["v1"].grad is not None
    np.testing.assert_allclose(p["v1"].grad.numpy(), expected, atol=1e-6 * np.abs(expected).max())
    assert all(x.grad is None for x in z.values()), "the gradient stops at z"


def test_a_vector_of_zeros_has_no_direction() -> None:
    zeros = dict.fromkeys(VIEWS, torch.zeros(3, 5))
    ones = dict.fromkeys(VIEWS, torch.ones(3, 5))
    assert crisscross_loss(zeros, ones).total.item() == 0


@given(st.integers(2, 9), st.integers(1, 40), st.integers(0, 2**32))
def test_identical_views_give_the_lowest_loss(n: int, d: int, seed: int) -> None:
    same = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 1e-3
    terms = crisscross_loss(dict.fromkeys(VIEWS, same), dict.fromkeys(VIEWS, same), intra_weight=0.5)
    assert terms.total.item() == pytest.approx(-1)
    for name in (*PAIRS, "sync", "async_"):
        assert getattr(terms, name).item() == pytest.approx(-1)
    assert terms.intra.item() == pytest.approx(-2)


@given(*[st.floats(0, 5)] * 3)
def test_weights_scale_terms(intra: float, sync: float, async_: float) -> None:
    if not (intra or sync or async_):
        return
    p, z = views(torch.float64)
    terms = crisscross_loss(p, z, intra_weight=intra, sync_weight=sync, async_weight=async_)
    counted = sum(w != 0 for w in (intra, sync, async_))
    expected = (intra * terms.intra + sync * terms.sync + async_ * terms.async_) / counted
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_one_modality_alone() -> None:
    p, z = views(torch.float64)
    only = {"sync_weight": 0.0, "async_weight": 0.0}
    video = {v: p[v] for v in ("v1", "v2")}, {v: z[v] for v in ("v1", "v2")}
    terms = crisscross_loss(*video, audio_weight=0.0, **only)
    assert terms.total.item() == pytest.approx(crisscross_loss(p, z).v1v2.item())
    assert terms.a1a2.isnan()
    assert terms.sync.isnan()
    terms.total.backward()
    assert p["v1"].grad is not None
    assert bool(p["v1"].grad.isfinite().all())


def test_impossible_inputs_are_refused() -> None:
    p, z = views(torch.float32)
    with pytest.raises(ConfigError, match="leave nothing"):
        crisscross_loss(p, z, intra_weight=0, sync_weight=0, async_weight=0)
    with pytest.raises(ConfigError, match="leave nothing"):
        crisscross_loss(p, z, video_weight=0, audio_weight=0)
    with pytest.raises(ConfigError, match=r"sync_weight=-1"):
        crisscross_loss(p, z, sync_weight=-1)
    with pytest.raises(InputError, match="a1, a2 are missing"):
        crisscross_loss({v: p[v] for v in ("v1", "v2")}, z)
    with pytest.raises(InputError, match="shapes"):
        crisscross_loss({**p, "v1": p["v1"][:3]}, z)


def test_it_is_computed_in_float32_under_autocast() -> None:
    p, z = views(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = crisscross_loss({v: x.bfloat16() for v, x in p.items()}, z).total
    assert total.dtype == torch.float32


def test_std_tells_spread_from_collapse() -> None:
    spread = torch.randn(4096, 64)
    assert embedding_std(spread).item() == pytest.approx(1 / 8, rel=0.02)
    assert embedding_std(torch.ones(32, 64) + 1e-6 * torch.randn(32, 64)).item() < 1e-5


def test_std_is_the_mean_of_both_views_of_a_modality() -> None:
    rows = torch.eye(4, dtype=torch.float64)  # 4 directions: each dimension is 1 in one row of four
    spread = 3**0.5 / 4
    same = torch.ones(4, 4, dtype=torch.float64)
    p = dict.fromkeys(VIEWS, rows.clone().requires_grad_())
    for z, video, audio in (
        ({"v1": rows, "v2": same, "a1": same, "a2": same}, spread / 2, 0),
        ({"v1": same, "v2": 5 * rows, "a1": same, "a2": rows}, spread / 2, spread / 2),
        ({"v1": rows, "v2": rows, "a1": 7 * rows, "a2": rows}, spread, spread),
    ):
        terms = crisscross_loss(p, z)
        assert (terms.video_std.item(), terms.audio_std.item()) == pytest.approx((video, audio), abs=1e-15)
        assert terms.video_std.dtype == torch.float64
        assert not terms.video_std.requires_grad


def test_std_is_without_gradient() -> None:
    assert not embedding_std(torch.randn(4, 8, requires_grad=True)).requires_grad


@pytest.mark.parametrize(("gone", "whole"), [("a1", "v2a2"), ("a2", "v1a1")])
def test_std_of_a_view_that_is_not_there_is_nan(gone: str, whole: str) -> None:
    p, z = views(torch.float64)
    only = {"sync_weight": 0.0, "async_weight": 0.0, "audio_weight": 0.0}
    terms = crisscross_loss(*({v: x for v, x in x_of.items() if v != gone} for x_of in (p, z)), **only)
    assert terms.audio_std.isnan()
    assert terms.video_std.item() == pytest.approx(crisscross_loss(p, z).video_std.item())
    assert getattr(terms, whole).isfinite()  # both views are there, whatever the weight
    assert sum(getattr(terms, pair).isnan() for pair in PAIRS) == 3


def test_modality_weights_scale_the_pairs_within() -> None:
    p, z = views(torch.float64)
    terms = crisscross_loss(p, z, video_weight=3.0, audio_weight=0.25)
    assert terms.intra.item() == pytest.approx(3 * terms.v1v2.item() + 0.25 * terms.a1a2.item())
    assert crisscross_loss(p, z, video_weight=0.0).intra.item() == pytest.approx(terms.a1a2.item())


def test_each_weight_needs_its_views() -> None:
    none = {"intra_weight": 0.0, "sync_weight": 0.0, "async_weight": 0.0}
    assert needed_views() == set(VIEWS)
    assert needed_views(**{**none, "sync_weight": 1.0}) == set(VIEWS)
    assert needed_views(**{**none, "async_weight": 1.0}) == set(VIEWS)
    assert needed_views(**{**none, "intra_weight": 1.0}) == set(VIEWS)
    assert needed_views(**{**none, "intra_weight": 1.0, "audio_weight": 0.0}) == {"v1", "v2"}
    assert needed_views(**{**none, "intra_weight": 1.0, "video_weight": 0.0}) == {"a1", "a2"}
    assert needed_views(intra_weight=0.0, video_weight=0.0, audio_weight=0.0) == set(VIEWS)


@pytest.mark.parametrize("name", ["intra", "sync", "async", "video", "audio"])
@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_each_weight_is_a_number_from_0(name: str, weight: float) -> None:
    p, z = views(torch.float32)
    with pytest.raises(
        ConfigError, match=rf"{name}_weight={weight} is out of range; pass a number, 0 or above"
    ):
        crisscross_loss(p, z, **{f"{name}_weight": weight})


def test_a_view_missing_from_z_alone_and_other_axes_are_refused() -> None:
    p, z = views(torch.float32)
    with pytest.raises(InputError, match="the views v2 are missing"):
        crisscross_loss(p, {v: x for v, x in z.items() if v != "v2"})
    three = {v: torch.ones(2, 3, 4) for v in VIEWS}
    with pytest.raises(InputError, match=r"shapes \[\(2, 3, 4\)\]; pass \(N, D\)"):
        crisscross_loss(three, three)


def test_the_cosine_is_that_of_rows() -> None:
    rows, other = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    p, z = dict.fromkeys(VIEWS, rows), dict.fromkeys(VIEWS, other)
    assert crisscross_loss(p, z).v1v2.item() == pytest.approx(-(0.5**0.5 + 1) / 2)


def test_std_is_over_the_batch_of_each_dimension() -> None:
    directions = torch.randn(4, 64, dtype=torch.float64)
    collapsed = directions[:1].expand(32, 64)  # one direction, whose dimensions differ
    assert embedding_std(collapsed).item() == pytest.approx(0.0, abs=1e-12)
    expected = torch.nn.functional.normalize(directions, dim=1).numpy().std(axis=0).mean()
    assert embedding_std(directions).item() == pytest.approx(expected, rel=1e-12)


def test_std_of_one_modality_without_the_other() -> None:
    rows = torch.eye(4)
    two = {"v1": rows, "v2": rows}
    terms = crisscross_loss(two, two, sync_weight=0, async_weight=0, audio_weight=0)
    assert terms.video_std.item() == pytest.approx(3**0.5 / 4)
    assert math.isnan(terms.audio_std.item())


def test_half_precision_is_computed_in_float32() -> None:
    p, z = views(torch.float32)
    half = [{v: x.detach().bfloat16() for v, x in views_.items()} for views_ in (p, z)]
    expected = crisscross_loss(*[{v: x.float() for v, x in views_.items()} for views_ in half])
    found = crisscross_loss(*half)
    assert found.total.dtype == torch.float32
    assert found.total.item() == expected.total.item()
    assert embedding_std(half[1]["v1"]).item() == embedding_std(half[1]["v1"].float()).item()
