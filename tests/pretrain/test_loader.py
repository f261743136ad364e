"""Samples in flight: their bytes are bounded and checked before a run starts; 16 bits do not change the result."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_case import tiny_config

from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.pretrain import loader, loop
from crisscross_zoo.pretrain.data import BatchSampler, PretrainDataset
from crisscross_zoo.pretrain.incidents import NOTHING
from crisscross_zoo.pretrain.loader import available_bytes, make_loader, plan_flight
from crisscross_zoo.pretrain.loop import pretrain
from crisscross_zoo.pretrain.loss import VIEWS
from crisscross_zoo.pretrain.model import CrissCross
from crisscross_zoo.pretrain.presets import make_config
from crisscross_zoo.workers.samples import SampleKey

DEFAULT_BYTES = 16_000_000_000


@pytest.mark.parametrize(("nodes", "precision", "chunk", "pinned"), [
    (2, "fp16", 8, True), (1, "fp16", 16, True), (1, "fp32", 8, False),
])  # fmt: skip
def test_the_papers_batch_fits_the_default(nodes: int, precision: str, chunk: int, pinned: bool) -> None:
    config = make_config("kinetics400", overrides={"optim.precision": precision})
    assert config.run.data_bytes == DEFAULT_BYTES
    flight = plan_flight(config, batch_size=256 // nodes, workers=16, processes=8, pinned=True)
    assert (flight.chunk, flight.pinned, flight.slots) == (chunk, pinned, 32)
    assert flight.sample_bytes == (2 * 3 * 8 * 112**2 + 2 * 80 * 200) * (2 if precision == "fp16" else 4)
    assert 8 * flight.bytes <= DEFAULT_BYTES


def test_fewer_bytes_make_smaller_chunks_until_nothing_fits() -> None:
    def flight(data_bytes: int) -> loader.Flight:
        config = make_config(
            "kinetics400", overrides={"run.data_bytes": data_bytes, "optim.precision": "fp32"}
        )
        return plan_flight(config, batch_size=64, workers=4)

    sizes = [flight(size) for size in (10**9, 4 * 10**8, 36 * 10**7)]
    assert [f.chunk for f in sizes] == [16, 3, 1]
    assert all(f.bytes <= size for f, size in zip(sizes, (10**9, 4 * 10**8, 36 * 10**7), strict=True))
    with pytest.raises(
        ConfigError, match=r"hold [\d,]+ bytes of samples, more than run.data_bytes=300,000,000; raise"
    ):
        flight(3 * 10**8)


def test_a_run_that_does_not_fit_is_refused_before_it_starts(
    clips: list[Media], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "available_bytes", lambda: 1000)
    with pytest.raises(
        ConfigError, match=r"take [\d,]+ bytes of memory, this machine has 1,000 available; lower"
    ):
        pretrain(tiny_config(**{"run.workers": 2}), clips, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux")
def test_memory_that_cannot_be_allocated_is_an_error_and_not_a_bus_error(
    clips: list[Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    sampler = BatchSampler(seed=0, files=6, epoch_size=14, batch_size=4, steps=range(2))
    with pytest.raises(
        ConfigError, match=r"bytes of shared memory cannot be allocated \(No space left on device\); lower"
    ):
        next(iter(make_loader(clips, tiny_config(), sampler, workers=2, pin_memory=False)))


def test_available_bytes_is_the_least_of_machine_and_group(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert available_bytes(tmp_path) == 5000 << 10
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("7000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    assert available_bytes(tmp_path) == 5000 << 10
    (group / "memory.max").write_text("10000\n")
    assert available_bytes(tmp_path) == 10000 - 7000 + 500


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux")
def shared_maps() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line for line in lines if "memfd:crisscross" in line}


def test_samples_in_flight_do_not_grow(clips: list[Media]) -> None:
    """While no batch is taken, all slots fill, and then no more is read."""
    config = tiny_config(**{"data.epoch_size": 400, "optim.batch_size": 8})
    sampler = BatchSampler(seed=0, files=6, epoch_size=400, batch_size=8, steps=range(50))
    made = make_loader(clips, config, sampler, workers=2, pin_memory=False)
    earlier = shared_maps()
    batches = iter(made)
    first = next(batches)
    (mapped,) = shared_maps() - earlier
    low, high = (int(bound, 16) for bound in mapped.split()[0].split("-"))
    assert 0 < high - low - made.flight.shared_bytes <= 2 * 4096
    pool = batches.gi_frame.f_locals["pool"]
    for _ in range(600):
        if pool.taken * made.flight.chunk == 16 and (pool.slots.status["position"] == NOTHING).all():
            break
        threading.Event().wait(0.1)
    threading.Event().wait(0.5)  # a worker that continued would read many
    # one batch is taken, one is put together: the other chunks are in the slots
    in_slots = sum(len(chunk.keys) for chunk in pool.done.values())
    assert (len(first.paths), pool.taken * made.flight.chunk) == (8, 16)
    assert in_slots <= made.flight.slots * made.flight.chunk
    assert made.flight.bytes == made.flight.shared_bytes + 2 * made.flight.batch_bytes
    batches.close()
    assert not any(worker.process.is_alive() for worker in pool.workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_under_autocast_samples_have_its_dtype(clips: list[Media], workers: int) -> None:
    config = tiny_config(**{"optim.precision": "fp16"})
    sampler = BatchSampler(seed=0, files=6, epoch_size=14, batch_size=4, steps=range(1))
    (batch,) = make_loader(clips, config, sampler, workers=workers, pin_memory=False)
    (keys,) = sampler
    for number, key in enumerate(keys):
        for name, view in PretrainDataset(clips, config)[key][0].items():
            assert batch.views[name].dtype == torch.float16
            assert torch.equal(batch.views[name][number], view.half())


def test_rounding_what_autocast_rounds_changes_no_bit(clips: list[Media]) -> None:
    config = tiny_config()
    model: Any = CrissCross(
        VideoEncoder(config.video), AudioEncoder(config.audio), projection=16, prediction_hidden=8
    ).eval()
    dataset = PretrainDataset(clips, config)
    samples = [dataset[SampleKey(0, position, position)][0] for position in range(4)]
    views = [torch.stack([sample[name] for sample in samples]) for name in VIEWS]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        full = model(*views)
        rounded = model(*(view.bfloat16().float() for view in views))
    assert [bool(torch.equal(a, b)) or bool(a.isnan()) for a, b in zip(full, rounded, strict=True)] == [
        True
    ] * len(full)
    assert not torch.equal(views[0], views[0].bfloat16().float())
