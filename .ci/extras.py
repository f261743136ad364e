"""Install a wheel with each of its extras alone, and with all of them, and run the commands that need each extra.

    python .ci/extras.py dist/*.whl          six minutes, 15 GB; prints a table

The wheel alone is installed into one environment, each extra into another on top of that, so that torch is installed
once, and ``[all]`` into a separate one. Without its extra, a command must end with exit code 1 or 2, and its last line
must name the extra to install. With the extra, and with ``[all]``, it must work. Exits with 1 if any check fails.
"""

from __future__ import annotations

import argparse
import http.server
import os
import subprocess
import sys
import tempfile
import threading
import venv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRACT = "crisscross-extract {clips}/test --weights demo --device cpu --out feats/"
TRAIN = (
    "crisscross-pretrain kinetics-sound --data {clips}/index.parquet --data.epoch-size 0 --data.crop 56"
    " --optim.epochs 1 --optim.warmup-epochs 0 --optim.batch-size 4 --optim.precision fp32"
    " --video.depth 10 --video.width 8 --audio.depth 10 --audio.width 8 --out run/"
)
INDEX = "crisscross-pretrain index {clips}/train --out {clips}/index.parquet"
USES: Mapping[str, Sequence[str]] = {
    "": [EXTRACT, "crisscross-weights verify demo"],
    "plot": ["{examples}/plot_features.py {examples}/clip.mp4 --out feats.png"],
    "pretrain": [INDEX, TRAIN],
    "evaluate": ["crisscross-evaluate retrieval {clips} --setup audio --weights demo --gallery g/ --out r/"],
    "ray": [f"{EXTRACT} --engine ray"],
    "remote": ["crisscross-extract {url}/clip.mp4 --weights demo --device cpu --out memory://feats.npz"],
    "shards": ["crisscross-pretrain pack {clips}/index.parquet --out shards/"],
    "wandb": [f"{TRAIN} --no-run.tensorboard --run.wandb try"],
    "onnx": ["{examples}/export_onnx.py {examples}/clip.mp4 --out video.onnx"],
    "torchcodec": [f"{EXTRACT} --decoder torchcodec"],
}
"""Commands that need each extra; the first fails without it. ``pretrain`` builds the index that later extras need."""

ON_TOP_OF = {"shards": "pretrain", "wandb": "pretrain"}
"""Extras that include another one: they are tested against an environment with the other one."""


class Environment:
    """A virtual environment, on top of another if ``base`` is given."""

    def __init__(self, folder: Path, base: Environment | None = None) -> None:
        venv.create(folder, with_pip=base is None)
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.packages = next(folder.glob("lib/*/site-packages"))
        self.pip = self.python if base is None else base.pip
        if base is not None:
            (self.packages / "base.pth").write_text(f"import site; site.addsitedir({str(base.packages)!r})\n")

    def install(self, what: str) -> int:
        """Install a requirement, and return the size of the environment in MB."""
        words = [self.pip, "-m", "pip", "--python", self.python, "install", "--quiet", what]
        subprocess.run(words, check=True)
        files = (p for p in self.packages.rglob("*") if p.is_file() and not p.is_symlink())
        return round(sum(p.stat().st_size for p in files) / 1e6)

    def run(self, command: str, values: Mapping[str, object]) -> tuple[int, str]:
        """Run a command in an empty folder, and return its exit code and the last line of its output."""
        words = command.format_map(values).split()
        if words[0].startswith("crisscross-"):
            words[:1] = ["-m", f"crisscross_zoo.cli.{words[0].removeprefix('crisscross-')}"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        with tempfile.TemporaryDirectory() as folder:
            environment |= {"WANDB_MODE": "offline", "HF_HOME": folder, "CRISSCROSS_CACHE": folder}
            done = subprocess.run(
                [self.python, *words], cwd=folder, env=environment, text=True, capture_output=True
            )
        lines = (done.stderr or done.stdout).strip().splitlines()
        traced = "Traceback (most recent call last):" in lines
        return done.returncode, "a traceback" if traced and done.returncode else (lines or [""])[-1]


def failures(environment: Environment, commands: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """Run commands and return the exit code and last line of each that failed."""
    done = [environment.run(command, values) for command in commands]
    return [f"**{code}: {line}**" for code, line in done if code]


def main() -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    options = parser.parse_args()
    wheel, wrong = options.wheel.resolve(), 0
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(ROOT / "examples"))
    with (
        tempfile.TemporaryDirectory() as name,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        folder, clips = Path(name), Path(name) / "clips"
        values = {
            "clips": clips,
            "examples": ROOT / "examples",
            "url": f"http://127.0.0.1:{server.server_port}",
        }
        base = Environment(folder / "base")
        size = base.install(str(wheel))
        make = "import sys; from crisscross_zoo.demo.data import make_demo_data as m; "
        make += "m(sys.argv[1], train_clips=6, test_clips=3)"
        subprocess.run([base.python, "-c", make, str(clips)], check=True, cwd=folder)
        print("| extra | MB | with it | without it, exit code and last line |\n| --- | ---: | --- | --- |")
        environments = {"": base}
        for extra, commands in USES.items():
            line = ""
            if extra:
                below = environments[ON_TOP_OF.get(extra, "")]
                code, line = below.run(commands[0], values)
                refused = code in (1, 2) and f"crisscross-zoo[{extra}]" in line
                line = f"{code}: {line}" if refused else f"**{code}: {line}**"
                wrong += not refused
                environments[extra] = Environment(folder / extra, base)
                size = environments[extra].install(f"{wheel}[{extra}]")
            wrongly = failures(environments[extra], [*commands, EXTRACT], values)
            wrong += len(wrongly)
            print(f"| {extra or 'none'} | {size} | {'; '.join(wrongly) or 'works'} | {line} |", flush=True)
        size = (whole := Environment(folder / "all")).install(f"{wheel}[all]")
        wrongly = failures(whole, [command for commands in USES.values() for command in commands], values)
        wrong += len(wrongly)
        print(f"| all, with the wheel | {size} | {'; '.join(wrongly) or 'works'} | |")
        server.shutdown()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
