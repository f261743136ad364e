"""Two ranks on gloo agree with one; batch norms over ranks are batch norms over the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pretrain_case import final_model, start_ranks, tiny_config

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.distributed import AllReduceBatchNorm, World
from crisscross_zoo.pretrain.loop import _check_division, pretrain
from crisscross_zoo.pretrain.metrics import read_log

pytestmark = pytest.mark.integration

TOLERANCE = 1e-6
EXACT = {"optim.precision": "fp64", "run.log_steps": 1, "optim.larc": True}


def two_processes(
    folder: Path, clips: list[Media], overrides: dict[str, object], *, stop_at: int = 0
) -> list[str]:
    """Train in two processes and return what each printed."""
    ended = start_ranks(2, clips, overrides, folder, stop_at=stop_at)
    printed = [text for _, text in ended]
    assert [code for code, _ in ended] == [130 if stop_at else 0] * 2, "\n".join(printed)
    return printed


def test_two_ranks_stop_at_the_same_step_resume_and_agree_with_one(
    clips: list[Media], tmp_path: Path
) -> None:
    """One of them receives the signal."""
    printed = two_processes(tmp_path, clips, EXACT, stop_at=2)
    assert all("step=2, total_steps=9, finished=False" in text for text in printed)
    two_processes(tmp_path, clips, EXACT)
    pretrain(tiny_config(**EXACT), clips, tmp_path / "one")
    one, two = final_model(tmp_path / "one"), final_model(tmp_path / "run")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=TOLERANCE)
    rows, others = read_log(tmp_path / "one"), read_log(tmp_path / "run")
    assert [r["step"] for r in others] == [r["step"] for r in rows]
    for row, other in zip(rows, others, strict=True):
        for name in ("total", "v1a2", "grad_norm"):
            assert other[name] == pytest.approx(row[name], rel=1e-5, abs=1e-6)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    world = World("cpu")
    world.size = 3
    with pytest.raises(ConfigError, match="does not divide into 3 ranks"):
        _check_division(tiny_config(), world)


def test_the_ranks_of_a_machine_split_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    world = World("cpu")
    assert (world.workers(0), world.workers(3), world.workers(-1)) == (0, 3, 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert world.workers(-1) == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert world.workers(-1) == 1


@pytest.mark.parametrize("shape", [(8, 5), (4, 5, 6), (4, 5, 3, 2), (4, 5, 2, 3, 2)])
def test_all_reduce_batch_norm_alone_is_batch_norm(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.distributed as dist

    from crisscross_zoo.pretrain import distributed

    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(distributed, "_sum", lambda x: x)
    kinds = {
        2: torch.nn.BatchNorm1d,
        3: torch.nn.BatchNorm1d,
        4: torch.nn.BatchNorm2d,
        5: torch.nn.BatchNorm3d,
    }
    plain, own = kinds[len(shape)](5).double(), kinds[len(shape)](5).double()
    own.__class__ = AllReduceBatchNorm
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weights = torch.randn(shape, dtype=torch.float64)
    (plain(x) * weights).sum().backward()
    (own(y) * weights).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-10, atol=1e-12)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(own.state_dict()[name], value, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(own.eval()(x), plain.eval()(x))
