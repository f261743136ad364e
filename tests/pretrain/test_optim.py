"""LARC against the released setup's values, around Adam and SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from filler import seeded_normal

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.pretrain.optim import LARC

NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
RTOL = 1e-6  # of an array's largest value


def parameters(reference: dict[str, np.ndarray]) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.from_numpy(reference[f"init.{n}"].copy())) for n in NAMES]


@pytest.mark.parametrize("larc", [True, False], ids=["larc", "without"])
def test_it_is_the_reference_around_adam(golden: Callable[[str], Any], larc: bool) -> None:
    reference = golden("larc_adam")
    variant = "adam_clip_true" if larc else "adam_no_larc"
    params = parameters(reference)
    adam = torch.optim.Adam(params, lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4)
    optimizer = LARC(adam) if larc else adam
    for step in range(3):
        for p, name in zip(params, NAMES, strict=True):
            p.grad = torch.from_numpy(reference[f"grad.step{step}.{name}"].copy())
        optimizer.step()
        for p, name in zip(params, NAMES, strict=True):
            expected = reference[f"{variant}.param_after_step{step}.{name}"]
            np.testing.assert_allclose(
                p.detach(), expected, rtol=0, atol=RTOL * np.abs(expected).max() + 1e-12
            )
            expected = reference[f"{variant}.grad_after_larc_step{step}.{name}"]
            np.testing.assert_allclose(p.grad, expected, rtol=0, atol=RTOL * np.abs(expected).max() + 1e-20)
    assert adam.param_groups[0]["weight_decay"] == 1e-4, "the optimizer's weight decay is restored"


def test_the_golden_gradients_are_the_formula(golden: Callable[[str], Any]) -> None:
    reference = golden("larc_adam")
    for step, scale in enumerate((1, 0.01, 3)):
        for index, name in enumerate(NAMES):
            grad = reference[f"grad.step{step}.{name}"]
            if not (step == 1 and name == "0.bias"):
                expected = seeded_normal(600 + 10 * step + index, grad.shape) * np.float32(scale)
                np.testing.assert_allclose(grad, expected, rtol=1e-6)
    assert not reference["grad.step1.0.bias"].any()


def plain_step(p: np.ndarray, g: np.ndarray, lr: float, decay: float, *, clip: bool) -> np.ndarray:
    """Return the result of the formula for one tensor, around SGD."""
    p_norm, g_norm = np.linalg.norm(p), np.linalg.norm(g)
    if p_norm == 0 or g_norm == 0:
        return p - lr * g
    local = 1e-3 * p_norm / (g_norm + decay * p_norm + 1e-8)
    return p - lr * (g + decay * p) * (min(local / lr, 1) if clip else local)


@pytest.mark.parametrize("clip", [True, False])
def test_every_group_has_its_own_rate(clip: bool) -> None:
    random = np.random.default_rng(0)
    values = [random.normal(size=s) * k for s, k in (((5, 4), 100), ((7,), 1e-3), ((3, 3), 0), ((6,), 1))]
    grads = [random.normal(size=v.shape) for v in values]
    params = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]
    groups = [
        {"params": params[:2], "lr": 1e-2, "weight_decay": 0.1},
        {"params": params[2:], "lr": 1e-4, "weight_decay": 0.0},
    ]
    optimizer = LARC(torch.optim.SGD(groups), clip=clip)
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g.copy())
    optimizer.step()
    for i, (p, v, g) in enumerate(zip(params, values, grads, strict=True)):
        lr, decay = (1e-2, 0.1) if i < 2 else (1e-4, 0.0)
        np.testing.assert_allclose(p.detach(), plain_step(v, g, lr, decay, clip=clip), rtol=1e-12, atol=1e-15)


def test_a_rate_of_zero_moves_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    LARC(torch.optim.SGD([p], lr=0.0, weight_decay=1.0)).step()
    assert p.tolist() == [1, 1, 1]
    assert p.grad.tolist() == [2, 2, 2]  # whole, for the optimizer's momentum


def test_parameters_without_gradients_are_left_alone() -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    q.grad = torch.ones(3)
    LARC(torch.optim.SGD([p, q], lr=1.0, weight_decay=1.0)).step()
    assert p.tolist() == [1, 1, 1]
    assert q.tolist() != [1, 1, 1]


def test_the_scaler_of_mixed_precision_takes_it() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = LARC(torch.optim.SGD([p], lr=0.1))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    assert p.grad is not None
    assert p.grad.tolist() == [1, 1, 1]
    scaler.step(optimizer)
    assert p.tolist() != [1, 1, 1]


def test_bad_constants_are_refused() -> None:
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ConfigError, match="trust_coefficient=0"):
        LARC(sgd, trust_coefficient=0)
    with pytest.raises(ConfigError, match="eps=-1"):
        LARC(sgd, eps=-1)


def test_the_public_names() -> None:
    from crisscross_zoo import pretrain
    from crisscross_zoo.pretrain import LARC as PUBLIC_LARC
    from crisscross_zoo.pretrain import cosine_schedule, schedule

    assert PUBLIC_LARC is LARC
    assert cosine_schedule is schedule.cosine_schedule
    assert dir(pretrain) == pretrain.__all__ == ["LARC", "cosine_schedule"]
    with pytest.raises(AttributeError, match="no attribute 'SGD'"):
        pretrain.SGD  # noqa: B018


def test_groups_without_weight_decay_are_scaled_as_if_it_were_0() -> None:
    p = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    inner = torch.optim.Rprop([p], lr=0.01)
    assert "weight_decay" not in inner.param_groups[0]
    p.grad = torch.tensor([6.0, 8.0], dtype=torch.float64)
    LARC(inner).step()
    local = 1e-3 * 5 / (10 + 1e-8)
    assert p.grad.tolist() == pytest.approx([6 * local / 0.01, 8 * local / 0.01], rel=1e-12)
    assert "weight_decay" not in inner.param_groups[0]


def test_the_constants_are_those_given() -> None:
    p = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    p.grad = torch.tensor([6.0, 8.0], dtype=torch.float64)
    LARC(torch.optim.SGD([p], lr=1.0), trust_coefficient=0.5, eps=10.0).step()
    assert p.tolist() == pytest.approx([3 - 6 * 0.5 * 5 / 20, 4 - 8 * 0.5 * 5 / 20], rel=1e-12)


def test_gradients_are_cleared_as_the_optimizer_does() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = LARC(torch.optim.SGD([p], lr=0.1))
    p.grad = torch.ones(3)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0, 0, 0]
    optimizer.zero_grad()
    assert p.grad is None


def test_its_state_is_the_optimizers() -> None:
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    one, other = (LARC(torch.optim.Adam([p], lr=lr)) for p, lr in zip(params, (0.1, 0.2), strict=True))
    params[0].grad = torch.ones(3)
    one.step()
    assert one.state is one.optimizer.state
    assert one.state[params[0]]["step"] == 1
    other.load_state_dict(one.state_dict())
    assert other.param_groups[0]["lr"] == 0.1
    torch.testing.assert_close(other.state[params[1]]["exp_avg"], one.state[params[0]]["exp_avg"])


def test_a_closure_is_computed_with_gradients_and_its_loss_returned() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = LARC(torch.optim.SGD([p], lr=0.1))

    def closure() -> float:
        loss = (2 * p).sum()
        loss.backward()
        return loss.item()

    with torch.no_grad():
        assert optimizer.step(closure) == 6
    assert p.tolist() != [1, 1, 1]
    assert optimizer.step() is None


def test_weight_decay_is_restored_if_the_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    sgd = torch.optim.SGD([p], lr=0.1, weight_decay=0.5)
    seen: list[float] = []

    def fail() -> None:
        seen.append(sgd.param_groups[0]["weight_decay"])
        raise RuntimeError("no step")

    monkeypatch.setattr(sgd, "step", fail)
    p.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="no step"):
        LARC(sgd).step()
    assert seen == [0]
    assert sgd.param_groups[0]["weight_decay"] == 0.5
