"""The time of a pretraining step by stage, and the speed of loading samples, at the real presets' shapes.

    python benchmarks/pretrain.py                     everything, on a GPU if there is one
    python benchmarks/pretrain.py --part step --batch-size 4

Prints Markdown tables. The step is the full model (R(2+1)D-18, ResNet-18, heads of 2048) on two views of 8x112x112 and
80x200. Loading is measured on one core, from generated clips: 640x360 and 1280x720, H.264 with a key frame every 150
frames, AAC. Times are medians; each table is one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clips import make_clip
from report import Ratio, Report, add_json_option, finish

from crisscross_zoo.media.scan import scan
from crisscross_zoo.pretrain.data import Batch, PretrainDataset
from crisscross_zoo.pretrain.distributed import World
from crisscross_zoo.pretrain.loop import _Trainer
from crisscross_zoo.pretrain.loss import VIEWS
from crisscross_zoo.pretrain.optim import LARC
from crisscross_zoo.pretrain.presets import PretrainConfig, make_config
from crisscross_zoo.transforms.augment_audio import augment_audio
from crisscross_zoo.transforms.augment_video import augment_video
from crisscross_zoo.workers.samples import SampleKey

GPU_BOUND = 2.5
"""Bound of the speed-up of a bf16 step over the plain step, fp16 by autocast, on a GPU."""

RATES = {f"{m}_{group}": 1e-4 for m in ("video", "audio") for group in ("base", "predictor")}


def views(n: int, config: PretrainConfig) -> dict[str, torch.Tensor]:
    video, audio = config.views, config.audio
    shapes = {
        "v": (3, video.frames, video.size, video.size),
        "a": (1, audio.n_mels, audio.clip_samples // audio.hop_length),
    }
    return {v: torch.randn(n, *shapes[v[0]]) for v in VIEWS}


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def step_times(trainer: _Trainer, batch: Batch, steps: int) -> dict[str, float]:
    """Return median seconds of each stage of a step, synchronised after each, and of the whole step without that."""
    device, config = trainer.world.device, trainer.config.optim
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    found: dict[str, list[float]] = {}
    for _ in range(2):
        trainer.step(batch, RATES, norm=False)
    for _ in range(steps):
        times = [clock(device)]
        trainer.optimizer.zero_grad()
        (moved,) = trainer._micro_batches(batch, 1)
        times.append(clock(device))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            total = trainer.forward(**moved).total
        times.append(clock(device))
        trainer.scaler.scale(total).backward()
        times.append(clock(device))
        if isinstance(trainer.optimizer, LARC):
            for group in trainer.optimizer.param_groups:
                trainer.optimizer._scale(group, group["weight_decay"])
        times.append(clock(device))
        inner = trainer.optimizer.optimizer if isinstance(trainer.optimizer, LARC) else trainer.optimizer
        inner.step()
        times.append(clock(device))
        for name, a, b in zip(
            ("move", "forward", "backward", "LARC", "Adam"), times[:-1], times[1:], strict=True
        ):
            found.setdefault(name, []).append(b - a)
        began = clock(device)
        trainer.step(batch, RATES, norm=False)
        found.setdefault("whole step", []).append(clock(device) - began)
    return {name: statistics.median(values) for name, values in found.items()}


COLUMNS = ("move", "forward", "backward", "LARC", "Adam", "whole step")
"""The keys of the result of :func:`step_times`."""


def variants(*, on_gpu: bool) -> dict[str, dict[str, Any]]:
    """Return settings by name; the others are compared with the first."""
    plain: dict[str, Any] = {"run.channels_last": False}
    if not on_gpu:
        return {
            "fp32, contiguous": {"optim.precision": "fp32", **plain},
            "fp32, channels-last": {"optim.precision": "fp32"},
        }
    bf16 = {"optim.precision": "bf16"}
    return {
        "fp16, contiguous": {"optim.precision": "fp16", **plain},
        "fp16, channels-last": {"optim.precision": "fp16"},
        "bf16, contiguous": {**bf16, **plain},
        "bf16, channels-last": bf16,
        "bf16, channels-last, checkpointing": {**bf16, "run.checkpoint_activations": True},
        "bf16, compiled": {**bf16, "run.compile": True},
    }


def measure_step(config: PretrainConfig, device: str, steps: int) -> tuple[dict[str, float], float]:
    """Return :func:`step_times` of a batch, and on a GPU the peak memory of torch in GiB."""
    world = World(device)
    on_gpu, size = world.device.type == "cuda", config.optim.batch_size
    batch = Batch(views(size, config), [""] * size, [])
    if on_gpu:
        batch = batch.pin_memory()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(world.device)
    times = step_times(_Trainer(config, world), batch, steps)
    return times, torch.cuda.max_memory_allocated(world.device) / 2**30 if on_gpu else 0.0


def step_table(device: str, batch_size: int, steps: int) -> Report:
    at = World(device).device
    on_gpu = at.type == "cuda"
    name = torch.cuda.get_device_name(at) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    report = Report(
        f"A step of {batch_size} samples, kinetics400 preset, on {name} (ms)",
        ("variant", *COLUMNS, "samples/s", "LARC, fraction of the step", *(("peak GiB",) if on_gpu else ())),
    )
    first, *others = variants(on_gpu=on_gpu).items()
    reference = 0.0
    for label, overrides in (first, *others):
        config = make_config("kinetics400", overrides={**overrides, "optim.batch_size": batch_size})
        times, peak = measure_step(config, device, steps)
        whole = times["whole step"]
        cells = [f"{1000 * times[c]:.1f}" for c in COLUMNS]
        cells += [f"{batch_size / whole:.1f}", f"{100 * times['LARC'] / whole:.1f} %"]
        report.add(label, *cells, *((f"{peak:.1f}",) if on_gpu else ()))
        if not reference:
            reference = whole
        else:
            report.ratios.append(step_ratio(first[0], label, reference / whole))
    return report


def step_ratio(first: str, label: str, value: float) -> Ratio:
    """Return how much faster a variant is than the first, with the bound that it should keep."""
    return Ratio(f"step, {first} over {label}", value, GPU_BOUND if label == "bf16, channels-last" else None)


def median_ms(call: Callable[[int], Any], rounds: int) -> float:
    times = []
    for k in range(rounds):
        began = time.perf_counter()
        call(k)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def loading_table(rounds: int) -> Report:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = make_config("kinetics400")
    random = np.random.default_rng(0)
    wave = random.uniform(-0.5, 0.5, config.audio.clip_samples).astype(np.float32)
    report = Report(
        "Loading samples on one core (ms per sample: 12 frames, 3 s of audio, two augmented views)",
        ("file", "read", "augment video", "augment audio", "whole sample", "samples/s per core"),
    )
    with tempfile.TemporaryDirectory() as folder:
        for width, height in ((640, 360), (1280, 720)):
            path = Path(folder) / f"{width}.mp4"
            make_clip(path, width, height)
            dataset = PretrainDataset([scan(path)], config)
            frames = random.integers(0, 255, (8, height, width, 3), np.uint8)
            video = 2 * median_ms(
                lambda _, f=frames: augment_video(f, config.video_augment, config=config.views, rng=random),
                rounds,
            )
            audio = 2 * median_ms(
                lambda _: augment_audio(wave, config.audio_augment, config=config.audio, rng=random), rounds
            )
            whole = median_ms(lambda k, d=dataset: d[SampleKey(0, k, 0)], rounds)
            cells = (whole - video - audio, video, audio, whole, 1000 / whole)
            report.add(f"{width}x{height}", *(f"{c:.1f}" for c in cells))
    torch.set_num_threads(threads)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("all", "step", "loading"), default="all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, help="default: 4 on a CPU, 256 on a GPU")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30)
    add_json_option(parser)
    options = parser.parse_args()
    on_gpu = World(options.device).device.type == "cuda"
    reports = []
    if options.part in ("all", "step"):
        size = options.batch_size or (256 if on_gpu else 4)
        reports.append(step_table(options.device, size, options.steps))
    if options.part in ("all", "loading"):
        reports.append(loading_table(options.rounds))
    finish(reports, options.json)


if __name__ == "__main__":
    main()
