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


def test_what_is_not_possible_is_refused() -> None:
    with pytest.raises(ConfigError, match="10 steps of warm-up in 5"):
        cosine_schedule(1.0, 0.0, warmup_steps=10, total_steps=5)
    with pytest.raises(ConfigError, match="out of range"):
        cosine_schedule(-1.0, 0.0, warmup_steps=0, total_steps=5)
