"""Run all benchmarks, or some: write one page of results, and report regressions since the last results.

    python benchmarks/run.py                          everything: about 40 minutes on two idle cores
    python benchmarks/run.py encoders media           these benchmarks; the others keep their last results
    python benchmarks/run.py --smoke --out smoke/     tiny sizes, for CI, to check that everything runs

Writes RESULTS.md (machine, versions, date, every table, each bound kept or missed) and results.json beside it. The next
run is compared with results.json: a ratio that is worse by more than 20 % is printed, and the exit code is 1. Ratios
are of one run of a benchmark; keep the machine idle otherwise.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import Ratio, Report

HERE = Path(__file__).parent

PARTS: dict[str, tuple[list[str], list[str]]] = {
    # name: (script and options, script and options that take seconds)
    "encoders": (
        ["encoders.py"],
        ["encoders.py", "--rounds", "1", "--cases", "audio 16 x 2 s, log-mel given"],
    ),
    "media": (
        ["media.py", "--seconds", "20", "--rounds", "2"],
        ["media.py", "--seconds", "2", "--rounds", "1"],
    ),
    "extraction": (
        ["extraction.py", "--seconds", "30", "--files", "60", "--rounds", "1"],
        ["extraction.py", "--weights", "demo", "--seconds", "2", "--files", "2", "--rounds", "1"],
    ),
    "memory": (
        ["memory.py", "--minutes", "2", "60", "--size", "112"],
        ["memory.py", "--minutes", "0.1", "0.2", "--files", "2", "4", "--size", "112"],
    ),
    "training": (["training_data.py"], ["training_data.py", "--samples", "1", "--rounds", "1"]),
    "pretraining": (["pretrain.py"], ["pretrain.py", "--batch-size", "2", "--steps", "1", "--rounds", "2"]),
}
PACKAGES = ("torch", "torchvision", "torchaudio", "av", "numpy", "librosa")


def measure(part: str, *, smoke: bool) -> list[Report]:
    """Run a benchmark in a process of its own.

    Raises:
        CalledProcessError: it failed; it has printed the reason.
    """
    words = PARTS[part][smoke]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / words[0]), *words[1:], "--json", str(path)]
        print(f"== {part}: {' '.join(words)}", flush=True)
        code = subprocess.run(command, check=False).returncode
        if not path.exists():
            raise subprocess.CalledProcessError(code, command)
        return [Report.from_json(r) for r in json.loads(path.read_text(encoding="utf-8"))]


def machine() -> str:
    """Return the processor, cores and memory."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores; {platform.system()}, Python {platform.python_version()}"


def versions() -> str:
    def version(name: str) -> str:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            return f"no {name}"

    return ", ".join(map(version, PACKAGES))


def page(results: Mapping[str, Mapping[str, Any]], by: str = "benchmarks/run.py") -> str:
    """Return RESULTS.md, or the page of another script."""
    lines = [
        (
            f"Written by `python {by}`. Each ratio is from one run of its script on one machine. Bounds are the"
            " project's own goals."
        ),
    ]
    for part, found in results.items():
        lines += ["", f"## {part.capitalize()}", ""]
        lines += [
            f"`python benchmarks/{found['command']}`, {found['date']}. {found['machine']}; {found['versions']}."
        ]
        lines += [f"\n{Report.from_json(r).markdown().rstrip()}" for r in found["reports"]]
    return "\n".join(lines) + "\n"


def worse(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each ratio that is worse than before by more than 20 %."""
    old, new = (
        {r["name"]: Ratio(**r) for report in results.get("reports", ()) for r in report["ratios"]}
        for results in (before, after)
    )
    return [
        f"{name}: {old[name].value:.3f} before, {ratio.value:.3f} now"
        for name, ratio in new.items()
        if name in old and ratio.worse_than(old[name])
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], help=f"of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: the results mean nothing")
    parser.add_argument(
        "--out", type=Path, help="folder of RESULTS.md and results.json (default: benchmarks/)"
    )
    options = parser.parse_args(argv)
    if options.smoke and options.out is None:
        parser.error("--smoke: pass another --out, the results mean nothing")
    out = options.out or HERE
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    regressions: list[str] = []
    for part in options.parts or PARTS:
        found = {
            "command": " ".join(PARTS[part][options.smoke]),
            "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(),
            "reports": [r.to_json() for r in measure(part, smoke=options.smoke)],
        }
        regressions += worse(results.get(part, {}), found)
        results[part] = found
        results = {name: results[name] for name in PARTS if name in results}
        kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (out / "RESULTS.md").write_text(page(results), encoding="utf-8")
    print(f"results: {out / 'RESULTS.md'}")
    if regressions:
        print("worse by more than 20 % than the last results:", *regressions, sep="\n  ")
    return 1 if regressions else 0


if __name__ == "__main__":
    sys.exit(main())
