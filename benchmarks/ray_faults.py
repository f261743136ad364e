"""Check that extraction on a Ray cluster loses nothing when workers, nodes, files and the driver fail.

    python benchmarks/ray_faults.py                       60 clips on a cluster of two nodes, all on this machine

Prints a Markdown table, and exits with 1 if anything is lost. For each case the command runs with a new output folder
while a fault is injected:

- worker: a worker is killed (SIGKILL) in mid-run.
- node: a node is killed in mid-run (its raylet, by SIGKILL, which ends its workers too), and is added again later.
- poison: three more files. One aborts the process that decodes it, as a decoder's bug would; one kills the worker
  that extracts it, as the out-of-memory killer would; one hangs the decoder (``--timeout`` ends it).
- driver: the driver is killed in mid-run and restarted.
- all: all of these in one run.

*Redone* counts the good files that were read more than once, *lost* those whose features are not byte for byte those
of a run on one machine, *doubled* the inputs that were listed, or reported by a worker, more than once. Since no FFmpeg
bug can be relied on, the poison files are good files with special names. A ``sitecustomize`` module on the path of the
workers, and nothing in the package, causes the fault when a decoding worker opens one. It also logs the files that are
read.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from make_media import make_media

CASES = ("none", "worker", "node", "poison", "driver", "all")
POISON = ("abort.mp4", "kill.mp4", "hang.mp4")
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}

HARM = """
import os, pathlib, signal, sys, time

if "crisscross_zoo.workers.worker" in sys.orig_argv:
    stat, last = pathlib.Path.stat, [None]

    def harmful_stat(path, **kwargs):
        if path.suffix == ".mp4" and path.name != last[0]:  # stat is called several times for a file
            last[0] = path.name
            with open(os.path.join(os.environ["RAY_FAULTS_LOG"], str(os.getpid())), "a") as log:
                log.write(f"{os.getppid()} {path.name}\\n")
            if path.name == "abort.mp4":
                os.abort()
            if path.name == "kill.mp4":
                os.kill(os.getppid(), signal.SIGKILL)
            while path.name in ("kill.mp4", "hang.mp4"):
                time.sleep(1)
        return stat(path, **kwargs)

    pathlib.Path.stat = harmful_stat
"""


@dataclass
class Bench:
    """The folders, the cluster, and the counts."""

    root: Path
    timeout: str
    names: list[str]
    cluster: Any = None
    second_node: Any = None

    @property
    def log(self) -> Path:
        return self.root / "log"

    def command(self, out: Path, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "crisscross_zoo.cli.extract", str(self.root / "in"), "--out", str(out),
            "--weights", "demo", "--device", "cpu", "--workers", "1", "--json", *more,
        ]  # fmt: skip

    def reads(self) -> list[tuple[int, str]]:
        """Return (process id of the worker, file) of every file that a decoding worker started to read."""
        lines = [line.split() for p in self.log.iterdir() for line in p.read_text().splitlines()]
        return [(int(pid), name) for pid, name in lines]

    def kill_worker(self) -> None:
        os.kill(self.reads()[-1][0], signal.SIGKILL)

    def kill_node(self) -> None:
        self.cluster.remove_node(self.second_node, allow_graceful=False)

    def add_node(self) -> None:
        self.second_node = self.cluster.add_node(**NODE)

    def run(self, case: str) -> dict[str, Any]:
        for log in self.log.iterdir():
            log.unlink()
        poison = POISON if case in ("poison", "all") else ()
        for name in POISON:
            (self.root / "in" / name).unlink(missing_ok=True)
        for name in poison:
            (self.root / "in" / name).write_bytes((self.root / "in" / self.names[0]).read_bytes())
        out = self.root / case
        command = self.command(
            out, "--engine", "ray", "--address", self.cluster.address, "--timeout", self.timeout
        )
        started = time.monotonic()
        n = len(self.names)
        harm: list[tuple[int, Callable[[], None]]] = []  # number of outputs at which the fault is injected
        if case in ("worker", "all"):
            harm.append((n // 6, self.kill_worker))
        if case in ("node", "all"):
            harm.append((n // 3, self.kill_node))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for outputs, inject in harm:
            wait_for(out, outputs, process)
            inject()
        if case in ("driver", "all"):
            wait_for(out, n // 2, process)
            process.kill()
            process.wait()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stdout, _ = process.communicate()
        seconds = time.monotonic() - started
        print(f"{case}: exit code {process.returncode} after {seconds:.0f} s", file=sys.stderr)
        if case in ("node", "all"):
            self.add_node()
        return self.count(case, out, json.loads(stdout), poison, seconds, process.returncode)

    def count(
        self,
        case: str,
        out: Path,
        summary: dict[str, Any],
        poison: tuple[str, ...],
        seconds: float,
        code: int,
    ) -> dict[str, Any]:
        right = sum(
            same(out / f"{Path(n).stem}.npz", self.root / "alone" / f"{Path(n).stem}.npz") for n in self.names
        )
        inputs = Counter(row["input"] for row in csv.DictReader((out / "index.csv").open()))
        # The summary adds up the clips of every outcome that was reported; all files have the same number of clips.
        reported = summary["clips"] / summary["outputs"][0]["shapes"]["video"][0]
        failed = out / "failed.jsonl"
        failures = [json.loads(line) for line in failed.read_text().splitlines()] if failed.exists() else []
        reads = Counter(name for _, name in self.reads())
        unexpected = {Path(f["path"]).name for f in failures} ^ set(poison)
        left = list(out.rglob(".*"))
        return {
            "case": case,
            "files": len(self.names) + len(poison),
            "done": right,
            "failed": len(failures),
            "redone": sum(reads[n] > 1 for n in self.names),
            "lost": len(self.names) - right,
            "doubled": sum(k > 1 for k in inputs.values()) + round(reported - summary["done"]),
            "exit code": code,
            "seconds": round(seconds),
            "good": right == len(self.names) and not unexpected and not left and code == bool(poison),
        }


def same(one: Path, other: Path) -> bool:
    return one.exists() and one.read_bytes() == other.read_bytes()


def wait_for(out: Path, outputs: int, process: subprocess.Popen[str]) -> None:
    while len(list(out.rglob("[!.]*.npz"))) < max(1, outputs):
        if process.poll() is not None:
            raise SystemExit("the run ended before the fault could be injected: pass more --files")
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=2, help="length of a clip")
    parser.add_argument(
        "--timeout", default="10", help="seconds without a clip after which a worker counts as hung"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("in", "log", "path"):
            (root / name).mkdir()
        (root / "path" / "sitecustomize.py").write_text(HARM)
        package = str(Path(__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(root / "path"), package, os.environ.get("PYTHONPATH", "")]
        )
        os.environ.update(
            RAY_FAULTS_LOG=str(root / "log"),
            RAY_USAGE_STATS_ENABLED="0",
            RAY_memory_monitor_refresh_ms="0",  # others may use this machine's memory
            OMP_NUM_THREADS="1",
        )
        names = [f"{k:03}.mp4" for k in range(args.files)]
        for name in names:
            make_media(root / "in" / name, seconds=args.seconds, size=(96, 64), audio=None)

        from ray.cluster_utils import Cluster

        bench = Bench(root, args.timeout, names)
        alone = subprocess.Popen(bench.command(root / "alone"), stdout=subprocess.DEVNULL)
        bench.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            bench.add_node()
            if alone.wait():
                raise SystemExit("the run on one machine failed")
            rows = [bench.run(case) for case in args.cases]
        finally:
            bench.cluster.shutdown()
    columns = [c for c in rows[0] if c != "good"]
    print("| " + " | ".join(columns) + " |")
    print("| --- " + "| ---: " * (len(columns) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(str(row[c]) for c in columns) + " |")
    bad = [row["case"] for row in rows if not row["good"] or row["doubled"]]
    if bad:
        print(f"failed: {', '.join(bad)}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
