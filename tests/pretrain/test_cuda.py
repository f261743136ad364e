"""The loop on a GPU: precisions, compilation, resuming. Run with ``pytest -m cuda``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pretrain_case import final_model, tiny_config

from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.metrics import read_log

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize(
    "options",
    [
        {"optim.precision": "fp32"},
        {"optim.precision": "bf16", "run.checkpoint_activations": True},
        {"optim.precision": "fp16", "optim.larc": True},
        {"optim.precision": "fp16", "optim.accumulate": 2},
        {"optim.precision": "bf16", "run.compile": True},
    ],
    ids=lambda o: " ".join(map(str, o.values())),
)
def test_it_trains_and_resumes(clips: list[Media], tmp_path: Path, options: dict[str, Any]) -> None:
    config = tiny_config(**options, **{"run.device": "cuda", "run.workers": 2})

    def fail(step: int, total: int, row: dict[str, float]) -> None:
        if step == 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pretrain(config, clips, tmp_path, on_progress=fail)
    assert pretrain(config, clips, tmp_path).finished
    rows = read_log(tmp_path)
    assert all(math.isfinite(row["total"]) for row in rows)
    assert rows[-1]["peak_memory_mb"] > 0
    assert all(bool(v.isfinite().all()) for v in final_model(tmp_path).values() if v.is_floating_point())


def test_float64_agrees_with_the_cpu(clips: list[Media], tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        options = {"run.device": device, "run.log_steps": 1, "optim.precision": "fp64"}
        pretrain(tiny_config(**options), clips, tmp_path / device)
    cpu, gpu = read_log(tmp_path / "cpu"), read_log(tmp_path / "cuda")
    for one, other in zip(cpu, gpu, strict=True):
        assert other["total"] == pytest.approx(one["total"], abs=1e-5)


@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("larc", [False, True])
def test_a_checkpoint_of_one_device_resumes_on_the_other(
    clips: list[Media], tmp_path: Path, first: str, then: str, larc: bool
) -> None:
    options = {"run.log_steps": 1, "optim.precision": "fp64", "optim.larc": larc}

    def fail(step: int, total: int, row: dict[str, float]) -> None:
        if step == 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pretrain(tiny_config(**options, **{"run.device": first}), clips, tmp_path / "run", on_progress=fail)
    assert pretrain(tiny_config(**options, **{"run.device": then}), clips, tmp_path / "run").finished
    pretrain(tiny_config(**options, **{"run.device": then}), clips, tmp_path / "whole")
    mine, whole = read_log(tmp_path / "run"), read_log(tmp_path / "whole")
    for one, other in zip(mine, whole, strict=True):
        assert one["total"] == pytest.approx(other["total"], abs=1e-5)
