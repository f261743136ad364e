"""The full model against the released code's values in float64, and what its options change and do not change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from filler import fill_module, seeded_normal

from crisscross_zoo import CrissCross, crisscross_loss
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.pretrain.loss import VIEWS

SCALE, SHIFT = np.float32([0.5, 1, 1.5, 2]), np.float32([-1, -0.3, 0.3, 1])
RTOL, LOSS_TOLERANCE = 1e-6, 1e-7  # of float64; the references are stored as float32
SHAPES = {"v": (4, 3, 8, 112, 112), "a": (4, 1, 80, 200)}


def inputs() -> list[torch.Tensor]:
    views = []
    for seed, view in enumerate(VIEWS, 401):
        x = seeded_normal(seed, SHAPES[view[0]])
        column = (4, *[1] * (x.ndim - 1))
        views.append(torch.from_numpy(x * SCALE.reshape(column) + SHIFT.reshape(column)).double())
    return views


def test_names_and_sizes_are_the_released_ones(golden: Callable[[str], Any]) -> None:
    released = golden("state_dicts.json")["crisscross"]
    with torch.device("meta"):
        model = CrissCross()
    shapes = {name: list(x.shape) for name, x in model.state_dict().items()}
    assert shapes == {e[0]: e[1] for e in released["entries"]}
    assert sum(p.numel() for p in model.parameters()) == released["trainable_parameters"] == 49_662_080


def test_it_is_the_reference_in_float64(golden: Callable[[str], Any]) -> None:
    reference = golden("crisscross_forward")
    full = fill_module(CrissCross()).double().eval()
    with torch.no_grad():
        z, p = full.embed(*inputs())
    for kind, embedded in (("z", z), ("p", p)):
        for view in VIEWS:
            name, flat = f"eval.{kind}{view}.float64ref", embedded[view].flatten()
            np.testing.assert_allclose(flat[:32], reference[f"{name}.first32"], rtol=RTOL, atol=1e-7)
            moments = [flat.mean().item(), flat.std(correction=0).item()]
            np.testing.assert_allclose(moments, reference[f"{name}.mean_std"], rtol=RTOL, atol=1e-9)
            norms = embedded[view].norm(dim=1)
            np.testing.assert_allclose(norms, reference[f"{name}.row_norms"], rtol=RTOL)
    paper, released = crisscross_loss(p, z), crisscross_loss(p, z, intra_weight=0.5)
    values = {
        "Lv1v2": paper.v1v2, "La1a2": paper.a1a2, "Lv1a1": paper.v1a1, "Lv2a2": paper.v2a2, "Lv1a2": paper.v1a2,
        "La1v2": paper.v2a1, "L_intra": paper.intra, "L_sync": paper.sync, "L_async": paper.async_,
        "total_paper": paper.total, "total_released": released.total,
    }  # fmt: skip
    for name, value in values.items():
        expected = float(reference[f"eval.{name}.float64ref"])
        assert value.item() == pytest.approx(expected, abs=LOSS_TOLERANCE), name


def small(**options: Any) -> CrissCross:
    torch.random.default_generator.manual_seed(0)
    video, audio = VideoEncoder(depth=10, width=4), AudioEncoder(depth=10, width=4)
    return CrissCross(video, audio, projection=16, prediction_hidden=8, **options).double()


def small_views(n: int = 6) -> list[torch.Tensor]:
    torch.random.default_generator.manual_seed(1)
    return [
        torch.randn(n, *((3, 4, 32, 32) if v[0] == "v" else (1, 80, 64)), dtype=torch.float64) for v in VIEWS
    ]


def gradients(model: CrissCross) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(*small_views()).total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_changes_no_value() -> None:
    plain, frugal = small(), small(checkpoint_activations=True)
    expected, got = gradients(plain), gradients(frugal)
    assert expected.keys() == got.keys()
    for name in expected:
        assert torch.equal(got[name], expected[name]), name
    for name, value in plain.state_dict().items():
        assert torch.equal(frugal.state_dict()[name], value), name


def test_the_joint_pass_differs_in_training_and_nowhere_else() -> None:
    apart, joint = small(), small(joint_views=True)
    assert joint(*small_views()).total.item() != pytest.approx(apart(*small_views()).total.item(), abs=1e-6)
    apart, joint = small().eval(), small(joint_views=True).eval()
    assert joint(*small_views()).total.item() == pytest.approx(apart(*small_views()).total.item(), abs=1e-12)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_one_modality_computes_and_trains_no_other(modality: str) -> None:
    other = {"video": "audio", "audio": "video"}[modality]
    model = small(sync_weight=0.0, async_weight=0.0, **{f"{other}_weight": 0.0})
    assert {n.split("_")[0] for n in gradients(model)} == {modality}
    rates = {f"{m}{suffix}_lr": 0.1 for m in ("video", "audio") for suffix in ("", "_predictor")}
    assert [g["name"] for g in model.parameter_groups(**rates)] == [
        f"{modality}_base",
        f"{modality}_predictor",
    ]


def test_every_batch_norm_sees_each_view_separately() -> None:
    model = small()
    model(*small_views())
    counters = {n: int(b) for n, b in model.named_buffers() if n.endswith("num_batches_tracked")}
    assert len(counters) > 20
    assert set(counters.values()) == {2}


def test_the_four_groups_hold_every_parameter_once() -> None:
    model = small()
    groups = model.parameter_groups(video_lr=1, audio_lr=2, video_predictor_lr=3, audio_predictor_lr=4)
    assert [(g["name"], g["lr"]) for g in groups] == [
        ("video_base", 1), ("video_predictor", 3), ("audio_base", 2), ("audio_predictor", 4),
    ]  # fmt: skip
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert groups[0]["params"][-1] is model.video_projector.layer3[1].bias


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="projection=0"):
        CrissCross(projection=0)
    with pytest.raises(ConfigError, match="sync_weight=-1"):
        small(sync_weight=-1)
