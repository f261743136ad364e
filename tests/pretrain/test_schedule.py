"""The learning-rate schedule against the released code's own table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.pretrain.schedule import cosine_schedule


def test_it_is_the_reference_table(golden: Callable[[str], Any]) -> None:
    # 10 iterations an epoch, 100 epochs, 2 of warm-up; Kinetics400's rates
    table = cosine_schedule(2e-4, 1e-4, warmup_steps=20, total_steps=1000)
    for modality in ("video", "audio"):
        np.testing.assert_allclose(
            table, golden("lr_schedule")[f"k400.table.{modality}"], rtol=1e-12, atol=1e-19
        )


def test_step_k_uses_entry_k_and_not_the_one_before(golden: Callable[[str], Any]) -> None:
    used = golden("lr_schedule")["k400.lr_used_at_step.vid_base"]
    table = cosine_schedule(2e-4, 1e-4, warmup_steps=20, total_steps=1000)
    assert used[0] == 1e-3, "the released loop's first step is not on the table"
    np.testing.assert_allclose(used[1:], table[:-1], rtol=1e-12, atol=1e-19)


def test_warm_up_has_both_ends_and_the_cosine_begins_with_the_base() -> None:
    table = cosine_schedule(1.0, 0.0, warmup_steps=5, total_steps=15)
    assert list(table[:6]) == [0, 0.25, 0.5, 0.75, 1, 1]
    assert table[10] == pytest.approx(0.5)
    assert np.all(np.diff(table[5:]) < 0)
    assert table[-1] > 0
    assert len(table) == 15


def test_without_warm_up() -> None:
    assert cosine_schedule(1.0, 0.5, warmup_steps=0, total_steps=2).tolist() == [1.0, 0.75]


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="10 steps of warm-up in 5"):
        cosine_schedule(1.0, 0.0, warmup_steps=10, total_steps=5)
    with pytest.raises(ConfigError, match="out of range"):
        cosine_schedule(-1.0, 0.0, warmup_steps=0, total_steps=5)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_last_entry_is_one_step_before_the_final_rate(steps: int) -> None:
    table = cosine_schedule(3.0, 1.0, warmup_steps=4, total_steps=4 + steps, warmup_start=0.5)
    assert len(table) == 4 + steps
    assert table[0] == 0.5
    assert table[-1] == pytest.approx(2 + np.cos(np.pi * (steps - 1) / steps), rel=1e-12)


def test_it_may_be_all_warm_up_and_all_zero() -> None:
    assert cosine_schedule(1.0, 0.0, warmup_steps=3, total_steps=3).tolist() == [0, 0.5, 1]
    assert cosine_schedule(0.0, 0.0, warmup_steps=1, total_steps=2).tolist() == [0, 0]
    assert cosine_schedule(1.0, 0.0, warmup_steps=0, total_steps=0).tolist() == []


@pytest.mark.parametrize("rates", [(-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)])
def test_each_rate_is_checked(rates: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="out of range; pass 0 or above"):
        cosine_schedule(*rates[:2], warmup_steps=1, total_steps=5, warmup_start=rates[2])


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1 steps of warm-up in 5"):
        cosine_schedule(1.0, 0.0, warmup_steps=-1, total_steps=5)
