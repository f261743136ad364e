"""Predict, without a GPU, the memory of a training step on a GPU and the largest batch that fits.

    python benchmarks/gpu_plan.py                                  kinetics400: two minutes on one core
    python benchmarks/gpu_plan.py --preset audioset --gpus 24 48 --usable 0.95

The real step of the preset (forward, backward, LARC, Adam) runs on fake tensors, which have sizes but no memory, while
torch's ``MemTracker`` adds up the tensors that are alive. That needs torch 2.14 or newer. The peak is affine in the
batch size: a line through the smallest and the largest of ``--batches`` predicts all others, and the line's error at
those in between is printed.

The step runs as on a CPU, because autograd has no fake CUDA streams. The prediction does not include CUDA's context,
cuDNN's workspaces and the allocator's fragmentation, for which ``--usable`` leaves room, nor what ``torch.compile``
saves. fp16 takes as much as bf16. With several GPUs, a batch here is the part of one GPU.

``--check N`` runs a real step of N samples in fp32 on this CPU and compares the peak of its allocations, as torch's
profiler counts them inside and outside of kernels, with the prediction.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable
from typing import Any, cast

import torch
from pretrain import RATES, views
from report import Report, add_json_option, finish
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from crisscross_zoo.pretrain.data import Batch
from crisscross_zoo.pretrain.distributed import World
from crisscross_zoo.pretrain.loop import _Trainer
from crisscross_zoo.pretrain.optim import LARC
from crisscross_zoo.pretrain.presets import PRESETS, PretrainConfig, make_config

try:
    from torch.distributed._tools.mem_tracker import MemTracker
except ImportError:
    sys.exit(
        f"gpu_plan: torch {torch.__version__} has no MemTracker for fake tensors; install torch 2.14 or newer"
    )

GIB = 2**30


class PeakTracker(MemTracker):
    """Track the peak of the whole step, but not of single modules, which would take half of the time."""

    def _nothing(self, *_: object) -> None: ...

    _pre_fw_hook = _post_fw_hook = _pre_bw_hook = _post_bw_hook = _nothing


class Arriving(dict[str, Tensor]):
    """Views that are created on access, like the copies on a GPU, and that nothing else refers to."""

    def __init__(self, n: int, config: PretrainConfig) -> None:
        self.n, self.config = n, config

    def __missing__(self, name: str) -> Tensor:
        return views(self.n, self.config)[name]


def step(trainer: _Trainer, n: int) -> None:
    trainer.step(Batch(Arriving(n, trainer.config), [""] * n, []), RATES, norm=False)


def adam(trainer: _Trainer) -> Optimizer:
    return trainer.optimizer.optimizer if isinstance(trainer.optimizer, LARC) else trainer.optimizer


def ready_trainer(preset: str, precision: str, frugal: bool, mode: FakeTensorMode | None) -> _Trainer:
    """Return a trainer whose Adam is fused, as on a GPU, and has its state. With a ``mode`` all tensors are fake."""
    overrides = {"optim.precision": precision, "run.checkpoint_activations": frugal}
    trainer = _Trainer(make_config(preset, overrides=overrides), World("cpu"))
    if mode is not None:
        fakes: dict[Any, Any] = {}
        for module in trainer.model.modules():
            for held in (module._parameters, module._buffers):
                for name, real in held.items():
                    if real is not None:
                        held[name] = fakes[real] = fakes[real] if real in fakes else mode.from_tensor(real)
        for group in trainer.optimizer.param_groups:
            group["params"] = [fakes[real] for real in group["params"]]
    with mode or contextlib.nullcontext():
        for group in trainer.optimizer.param_groups:
            group["fused"] = True
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        adam(trainer).step()
    trainer.optimizer.zero_grad()
    return trainer


def predict(trainer: _Trainer, mode: FakeTensorMode, n: int) -> int:
    """Return the peak of bytes alive in a step of ``n`` samples, including weights and Adam's state."""
    tracker = PeakTracker()
    tracker.track_external(trainer.model, adam(trainer))
    with mode, tracker:
        step(trainer, n)
    trainer.optimizer.zero_grad()
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def measure(trainer: _Trainer, n: int) -> int:
    """Return the peak of a real step on this CPU."""
    states = [v for state in adam(trainer).state.values() for v in state.values() if isinstance(v, Tensor)]
    held = [*trainer.model.parameters(), *trainer.model.buffers(), *states]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(trainer, n)
    trainer.optimizer.zero_grad()
    found: Any = profiler.profiler
    events = sorted(
        (e for e in found.kineto_results.events() if e.name() == "[memory]"),
        key=cast("Callable[[Any], int]", lambda e: e.start_ns()),
    )
    alive = peak = sum(tensor.untyped_storage().nbytes() for tensor in held)
    for event in events:
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def plan(options: argparse.Namespace) -> list[Report]:
    few, *between, many = sorted(options.batches)
    peaks = Report(
        f"Peak memory of a training step, preset {options.preset}, predicted (GiB)",
        (
            "precision", "checkpointing", *(f"{n} samples" for n in options.batches), "per sample", "fixed",
            "error of the line",
        ),
    )  # fmt: skip
    largest = Report(
        f"Largest batch on one GPU, preset {options.preset}, predicted",
        ("precision", "checkpointing", *(f"{gpu} GB" for gpu in options.gpus)),
        notes=[
            f"{options.usable:.0%} of the GPU's memory is used; the rest is for memory that is not predicted."
        ],
    )
    for precision, frugal in itertools.product(options.precision, (False, True)):
        mode = FakeTensorMode()
        trainer = ready_trainer(options.preset, precision, frugal, mode)
        found = {n: predict(trainer, mode, n) for n in (few, *between, many)}
        each = (found[many] - found[few]) / (many - few)
        fixed = found[few] - each * few
        error = max(abs(fixed + each * n - found[n]) / found[n] for n in between)
        setting = ("bf16, fp16" if precision == "bf16" else precision, "yes" if frugal else "no")
        peaks.add(
            *setting, *(f"{found[n] / GIB:.2f}" for n in options.batches), f"{each / GIB:.4f}",
            f"{fixed / GIB:.2f}", f"{100 * error:.2f} %",
        )  # fmt: skip
        largest.add(
            *setting, *(max(0, int((gpu * GIB * options.usable - fixed) / each)) for gpu in options.gpus)
        )
    return [peaks, largest]


def check(options: argparse.Namespace) -> Report:
    report = Report(
        f"The prediction against a real step of {options.check} samples on this CPU, fp32 (GiB)",
        ("checkpointing", "predicted", "measured", "error"),
    )
    for frugal in (False, True):
        mode = FakeTensorMode()
        predicted = predict(ready_trainer(options.preset, "fp32", frugal, mode), mode, options.check)
        measured = measure(ready_trainer(options.preset, "fp32", frugal, None), options.check)
        error = 100 * (predicted - measured) / measured
        report.add(
            "yes" if frugal else "no", *(f"{v / GIB:.3f}" for v in (predicted, measured)), f"{error:+.1f} %"
        )
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="kinetics400")
    parser.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024], help="three or more")
    parser.add_argument("--gpus", type=int, nargs="+", default=[24, 40, 80, 141], help="memory, GB")
    parser.add_argument(
        "--usable", type=float, default=0.9, help="fraction of the memory to use (default: 0.9)"
    )
    parser.add_argument(
        "--check", type=int, metavar="N", help="also run a real step of N samples on this CPU"
    )
    add_json_option(parser)
    options = parser.parse_args()
    if len(set(options.batches)) < 3:
        parser.error("--batches: two sizes define the line and the others test it; pass three or more")
    finish([*plan(options), *([check(options)] if options.check else [])], options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
