"""Memory of pretraining's workers: samples in flight, and the memory that a large index takes in each worker.

    python benchmarks/pretrain_memory.py --rows 1800000 --workers 8

The first table has the planned memory of samples in flight (loaded, but not trained on yet) for the paper's batch on
several machines. For the second table the loader's workers read an index of many made-up rows (every row is another
name of one real clip) under each start method, and as many workers read an index of 100 rows. The difference of their
private memory is the cost of the rows per worker. The exit code is 1 if the samples of a machine take more than 16 GB,
or the rows more than 100 MB per worker. Linux only: private memory is read from ``/proc/PID/smaps_rollup``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.pretrain.index import build_index, read_index
from crisscross_zoo.pretrain.loader import make_loader, plan_flight
from crisscross_zoo.pretrain.presets import PretrainConfig, make_config

LIMIT_BYTES = 16_000_000_000
LIMIT_MB = 100
MACHINES = (  # nodes, GPUs of each, workers of each GPU, precision
    (2, 8, 16, "fp16"),
    (1, 8, 16, "fp16"),
    (1, 8, 16, "fp32"),
    (1, 1, 16, "fp16"),
)
CLIP = Path(__file__).parents[1] / "examples" / "clip.mp4"
METHODS = ("fork", "forkserver", "spawn")
FEW = 100


def flights(batch: int = 2048) -> bool:
    """Print the memory of samples in flight of each machine; return whether all fit."""
    print(
        f"| nodes x GPUs x workers | precision | sample MB | chunk | in flight, GB per machine (batch {batch}) |"
    )
    print("| --- | --- | --- | --- | --- |")
    fit = True
    for nodes, gpus, workers, precision in MACHINES:
        config = make_config(
            "kinetics400", overrides={"optim.precision": precision, "optim.batch_size": batch}
        )
        size = batch // (nodes * gpus)
        flight = plan_flight(config, batch_size=size, workers=workers, processes=gpus, pinned=True)
        fit &= flight.bytes * gpus <= LIMIT_BYTES
        print(
            f"| {nodes} x {gpus} x {workers} | {precision} | {flight.sample_bytes / 1e6:.2f} | {flight.chunk}"
            f" | {flight.bytes * gpus / 1e9:.1f} |",
            flush=True,
        )
    return fit


def name_of(number: int) -> str:
    """Return a different path of the clip for every number: its bits are written as ``./`` and ``.//``."""
    return "".join(".//" if number >> bit & 1 else "./" for bit in range(40)) + CLIP.name


def make_index(folder: Path, rows: int) -> Path:
    """Write an index that repeats one real clip's row under many names."""
    one, many = folder / "one.parquet", folder / f"{rows}.parquet"
    if not one.exists():
        build_index([str(CLIP)], one, workers=0)
    table = pq.read_table(one)
    with pq.ParquetWriter(many, table.schema, compression="zstd", version="2.6") as writer:
        for first in range(0, rows, 1 << 16):
            numbers = range(first, min(first + (1 << 16), rows))
            rows_table = pa.concat_tables([table] * len(numbers)).combine_chunks()
            at = rows_table.schema.get_field_index("path")
            names = pa.array(map(name_of, numbers))
            writer.write_table(rows_table.set_column(at, rows_table.schema.field(at), names))
    return many


def small_config(workers: int) -> PretrainConfig:
    return make_config(
        "kinetics-sound",
        overrides={
            "video": VideoConfig(frames=4, size=32), "audio": AudioConfig(seconds=0.64), "data.crop": 32,
            "optim.batch_size": 4 * workers, "optim.precision": "fp32", "run.device": "cpu",
        },
    )  # fmt: skip


def private_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_"))


def measure(path: Path, method: str, workers: int, steps: int) -> dict[str, Any]:
    """Read batches and return the private bytes of this process and of its workers."""
    from crisscross_zoo.pretrain.data import BatchSampler

    multiprocessing.set_start_method(method)
    config, index = small_config(workers), read_index(path)
    sampler = BatchSampler(
        seed=0, files=len(index), epoch_size=len(index) * 1000, batch_size=4 * workers, steps=range(steps + 2)
    )  # fmt: skip
    sampler.epoch_size = (
        min(len(index), 4 * workers * (steps + 2)) if len(index) > FEW else 4 * workers * (steps + 2)
    )
    loader = iter(make_loader(index, config, sampler, workers=workers, pin_memory=False))
    for _ in range(steps):
        batch = next(loader)
        assert not batch.failures, batch.failures[0]
    children = [child.pid for child in multiprocessing.active_children()]
    found = {"main": private_bytes(os.getpid()), "workers": [private_bytes(pid) for pid in children if pid]}
    loader.close()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_800_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12, help="batches read before memory is measured")
    parser.add_argument("--measure", nargs=2, metavar=("INDEX", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(
            json.dumps(measure(Path(options.measure[0]), options.measure[1], options.workers, options.steps))
        )
        return 0
    fits = flights()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, few = make_index(folder, options.rows), make_index(folder, FEW)
        print(
            f"\n{options.rows:,} rows: {many.stat().st_size / 1e6:.0f} MB of Parquet, {options.workers} workers,"
            " private MB (median of the workers)\n"
        )
        print(
            f"| start method | with {options.rows:,} rows | with {FEW} rows | the rows | largest difference |"
        )
        print("| --- | --- | --- | --- | --- |")
        for method in METHODS:
            found = {}
            for index in (many, few):
                done = subprocess.run(
                    [
                        sys.executable, __file__, "--workers", str(options.workers), "--steps", str(options.steps),
                        "--measure", str(index), method,
                    ],
                    stdout=subprocess.PIPE,
                    check=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": name},
                )  # fmt: skip
                found[index] = json.loads(done.stdout)["workers"]
            rows, without = median(found[many]) / 1e6, median(found[few]) / 1e6
            largest = max(found[many]) / 1e6 - min(found[few]) / 1e6
            fits &= largest < LIMIT_MB
            print(
                f"| {method} | {rows:.0f} | {without:.0f} | {rows - without:.0f} | {largest:.0f} |",
                flush=True,
            )
        for path in (folder / f"crisscross-zoo-{os.getuid()}").glob("*.arrow"):
            print(f"\nthe mapped file: {path.stat().st_size / 1e6:.0f} MB, shared by all workers")
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
