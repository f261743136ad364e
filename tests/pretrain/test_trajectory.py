"""The trainer reproduces the released code's training steps: golden/trajectory_*.npz, in float64.

``pytest -m integration tests/pretrain/test_trajectory.py -n 0 -s`` prints the differences of each step. Another
trajectory is compared as soon as it lies in golden/. What its settings have other than the ``kinetics400`` preset, by
dotted name, is its array ``settings`` or, if it has none, the JSON file of the same name beside it; without either,
whether it used LARC is seen from its gradients.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filler import fill_module, seeded_normal

from crisscross_zoo.pretrain.data import Batch
from crisscross_zoo.pretrain.distributed import World
from crisscross_zoo.pretrain.loop import _Trainer
from crisscross_zoo.pretrain.loss import VIEWS
from crisscross_zoo.pretrain.metrics import TERMS
from crisscross_zoo.pretrain.model import CrissCross
from crisscross_zoo.pretrain.presets import make_config

pytestmark = pytest.mark.integration

EXACT_STEPS = 4
"""Batch norm over 4 samples is chaotic: later steps of two released runs differ by more than 1e-6."""

RTOL, LOSS_ATOL = 1e-6, 1e-8

LATER_RTOL, LATER_LOSS_ATOL = 1e-2, 1e-5
"""Of the steps after these."""

STARTS, NUDGE = 12, 1e-15
"""In trajectory C an activation before a ReLU is within 1e-7 of zero in step 6. The side it falls on, and the later
steps with it, depends on the rounding of a processor's sums. So up to this many runs are compared, whose weights start
within this relative distance (a few units in the last place) of the file's: one has to meet the bounds of all steps.
The first starts from the file's weights and has to meet those of the exact steps in any case."""

COLUMNS = {
    "loss": "loss", "pairs": "pairs", "grad_norms": "gradient", "grad_norms_after_optimizer": "after LARC",
    "update_norms": "update", "buffer_norms": "statistics",
}  # fmt: skip
"""Compared arrays in the table, of losses and of norms."""

GROUPS = {
    "vid_base": "video_base", "vid_predictor": "video_predictor",
    "aud_base": "audio_base", "aud_predictor": "audio_predictor",
}  # fmt: skip

PAIRS = {"a1v2": "v2a1"}
"""The released code's name of a pair, if it differs from ours."""

ROUNDING_ONLY = tuple(
    f"{modality}_{head}.{bias}"
    for modality in ("video", "audio")
    for head, bias in (
        *(("projector", f"layer{n}.0.bias") for n in (1, 2, 3)),
        ("projector", "layer3.1.bias"),
        ("predictor", "layer1.0.bias"),
    )
)
"""Parameters with zero gradients except for rounding: batch norm or the normalised loss cancels what they add."""

GOLDEN = Path(__file__).parents[1] / "golden"

FILES = sorted(path.stem for path in GOLDEN.glob("trajectory_*.npz"))

SHAPES = ((4, 3, 8, 56, 56), (4, 3, 8, 56, 56), (4, 1, 80, 100), (4, 1, 80, 100))


def batch(step: int) -> Batch:
    """Return the inputs of a step, from 0: noise whose samples differ in scale and offset, rolled by one per step."""
    turn = (np.arange(4) - step) % 4
    views = {}
    for number, (name, shape) in enumerate(zip(VIEWS, SHAPES, strict=True)):
        x = seeded_normal(1000 + 10 * step + number, shape)
        over = (4, *[1] * (len(shape) - 1))
        scale = np.array([0.5, 1, 1.5, 2], np.float32)[turn].reshape(over)
        shift = np.array([-1, -0.3, 0.3, 1], np.float32)[turn].reshape(over)
        views[name] = torch.from_numpy(x * scale + shift)
    return Batch(views, [""] * 4, [])


def norms(values: Iterable[torch.Tensor]) -> np.ndarray:
    return np.array([float(value.norm()) for value in values])


def settings_of(reference: dict[str, np.ndarray], beside: Path) -> dict[str, Any]:
    """Return what a trajectory's settings have other than the preset, by dotted name."""
    if "settings" in reference:
        found: dict[str, Any] = json.loads(str(reference["settings"]))
    elif beside.exists():
        found = json.loads(beside.read_text())
    else:  # LARC changes the gradients in place, Adam does not
        changed = reference["float64.grad_norms"] != reference["float64.grad_norms_after_optimizer"]
        found = {"optim.larc": bool(changed.any())}
    return found


def walk(
    reference: dict[str, np.ndarray], settings: dict[str, Any], start: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Train with a file's rates. Yield the values of each step that the file has, by the file's keys.

    ``start`` above 0: the weights begin a relative ``NUDGE`` away, in directions drawn with this seed.
    """
    config = make_config(
        "kinetics400",
        released=True,
        overrides={
            **settings,
            "optim.batch_size": 4, "optim.precision": "fp64", "run.device": "cpu", "run.channels_last": False,
        },
    )  # fmt: skip
    trainer = _Trainer(config, World("cpu"))
    model: CrissCross = trainer.model
    fill_module(model.float()).double()
    if start:
        generator = torch.Generator().manual_seed(start)
        for p in model.parameters():
            p.data *= 1 + NUDGE * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    mine = [parameters[name] for name in reference["names.parameters"]]
    assert len(mine) == len(parameters)
    after_backward: list[np.ndarray] = []
    before: list[torch.Tensor] = []

    def keep(_: object) -> None:
        """Run between backward pass and update, when the activations, 1 GB, are freed."""
        after_backward.append(norms(p.grad for p in mine if p.grad is not None))
        before[:] = [p.detach().clone() for p in mine]

    trainer.scaler.unscale_ = keep
    names = [GROUPS[name] for name in reference["names.groups"]]
    for step, rates in enumerate(reference["float64.lr_used"]):
        terms, _ = trainer.step(batch(step), dict(zip(names, rates, strict=True)), norm=False)
        values = dict(zip(TERMS, terms, strict=True))
        tracked = [buffers[name] for name in reference["names.buffers"]]
        found = {
            "loss": np.array(float(values["total"])),
            "pairs": np.array(
                [float(values[PAIRS.get(n, n)]) for n in (str(n)[1:] for n in reference["names.pairs"])]
            ),
            "grad_norms": after_backward[-1],
            "grad_norms_after_optimizer": norms(p.grad for p in mine if p.grad is not None),
            "update_norms": norms(p.detach() - old for p, old in zip(mine, before, strict=True)),
            "buffer_norms": norms(tracked),
            "buffer_sums": np.array([float(b.sum()) for b in tracked]),
            "counters": np.array([int(buffers[name]) for name in reference["names.counters"]]),
        }
        before.clear()
        for name in reference["names.chosen"]:
            value = model.state_dict()[name].double().numpy().ravel()
            found[f"after{step + 1}.{name}"] = value if value.size <= 128 else value[:64]
            found[f"after{step + 1}.{name}|sum_l2"] = np.array([value.sum(), np.linalg.norm(value)])
        yield found


def compare(reference: dict[str, np.ndarray], settings: dict[str, Any], start: int) -> tuple[set[str], str]:
    """Print a run's differences by step. Return what was compared, and where it first differs by more than allowed."""
    meaningful = ~np.isin(reference["names.parameters"], ROUNDING_ONLY)
    compared = set()
    print(f"\nstart {start}: largest difference, of losses absolute, of norms relative")
    print("| step | " + " | ".join(COLUMNS.values()) + " |\n" + "| --- " * (1 + len(COLUMNS)) + "|")
    for step, found in enumerate(walk(reference, settings, start)):
        exact, row = step < EXACT_STEPS, {}
        rtol, loss_atol = (RTOL, LOSS_ATOL) if exact else (LATER_RTOL, LATER_LOSS_ATOL)
        for key, value in found.items():
            if (wanted := reference.get(f"float64.{key}")) is None:
                assert key.startswith("after"), key
                continue
            chosen = key.startswith("after")
            wanted = wanted if chosen else wanted[step]
            if key.startswith("grad_norms"):
                value, wanted = value[meaningful], wanted[meaningful]
            # a tensor's own scale: its values pass through zero, and so do sums
            scale = np.abs(wanted).max() if chosen or key == "buffer_sums" else np.abs(wanted)
            loss = key in ("loss", "pairs")
            difference = np.abs(value - wanted)
            row[key] = np.max(difference if loss else difference / np.where(scale == 0, 1, scale))
            if not np.all(difference <= (loss_atol if loss else 1e-12) + rtol * scale):
                assert start or not exact, f"step {step + 1}: {key}"
                return compared, f"step {step + 1}: {key} differs by {row[key]:.0e}"
            compared.add(key)
        print(f"| {step + 1} | " + " | ".join(f"{row[key]:.0e}" for key in COLUMNS) + " |", flush=True)
    return compared, ""


@pytest.mark.parametrize("name", FILES)
def test_the_trainer_reproduces_the_released_codes_steps(golden: Callable[[str], Any], name: str) -> None:
    reference = golden(name)
    settings = settings_of(reference, GOLDEN / f"{name}.json")
    print(f"\n{name}, {settings}")
    differs = []
    for start in range(STARTS):
        compared, where = compare(reference, settings, start)
        if not where:
            break
        differs.append(f"start {start}: {where}")
    else:
        pytest.fail("\n".join(differs))
    assert {"loss", "pairs", "grad_norms", "grad_norms_after_optimizer", "update_norms"} <= compared
    assert {"buffer_norms", "buffer_sums", "counters"} <= compared
    assert {f"after{step}.{chosen}" for step in (1, 4, 8) for chosen in reference["names.chosen"]} <= compared


def test_settings_come_with_the_trajectory_or_beside_it(golden: Callable[[str], Any], tmp_path: Path) -> None:
    reference, beside = golden("trajectory_C"), tmp_path / "trajectory_C.json"
    assert settings_of(reference, beside) == {"optim.larc": True, "optim.larc_trust": 1e-5}
    del reference["settings"]
    assert settings_of(reference, beside) == {"optim.larc": True}
    plain = {**reference, "float64.grad_norms_after_optimizer": reference["float64.grad_norms"]}
    assert settings_of(plain, beside) == {"optim.larc": False}
    beside.write_text('{"optim.larc_trust": 0.1}')
    assert settings_of(plain, beside) == {"optim.larc_trust": 0.1}
