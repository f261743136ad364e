"""Install a wheel with each of its extras alone, and with all of them, and try what each is for.

    python .ci/extras.py dist/*.whl          six minutes, 15 GB; prints a table

The wheel alone goes into one environment, each extra into another on top of that, so that torch is installed once, and
``[all]`` into one of its own. Without its extra, a use must end with exit code 1 or 2 and one line that says what to
install; with it, and with all, it must work. Exit code 1 if anything was not so.
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
"""What each extra is for; the first of its commands fails without it."""


class Environment:
    """A virtual environment, on top of another if there is a ``base``."""

    def __init__(self, folder: Path, base: Environment | None = None) -> None:
        venv.create(folder, with_pip=base is None)
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.packages = next(folder.glob("lib/*/site-packages"))
        self.pip = self.python if base is None else base.pip
        if base is not None:
            (self.packages / "base.pth").write_text(f"import site; site.addsitedir({str(base.packages)!r})\n")

    def install(self, what: str) -> int:
        """Install, and return how many MB are in the environment then."""
        words = [self.pip, "-m", "pip", "--python", self.python, "install", "--quiet", what]
        subprocess.run(words, check=True)
        files = (p for p in self.packages.rglob("*") if p.is_file() and not p.is_symlink())
        return round(sum(p.stat().st_size for p in files) / 1e6)

    def run(self, command: str, places: Mapping[str, object]) -> tuple[int, str]:
        """Run a command in an empty folder, and return its exit code and the end of what it printed."""
        words = command.format_map(places).split()
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


class Server(http.server.ThreadingHTTPServer):
    """The examples' folder at a URL of this machine."""

    def __init__(self) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), partial(Quiet, directory=str(ROOT / "examples")))
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.server_port}"


def main() -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--extras", nargs="+", choices=[*filter(None, USES), "all"], default=[*USES, "all"])
    options = parser.parse_args()
    wheel, wrong = options.wheel.resolve(), 0
    server = Server()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = Environment(folder / "base")
        size = base.install(str(wheel))
        clips = folder / "clips"
        make = "import sys; from crisscross_zoo.pretrain.demo_data import make_demo_data as m; "
        make += "m(sys.argv[1], train_clips=6, test_clips=3)"
        subprocess.run([base.python, "-c", make, str(clips)], check=True, cwd=folder)
        places = {"clips": clips, "examples": ROOT / "examples", "url": server.url}

        def try_all(environment: Environment, commands: Sequence[str]) -> list[str]:
            nonlocal wrong
            said = []
            for command in commands:
                code, last = environment.run(command, places)
                wrong += code != 0
                said += [] if code == 0 else [f"**{code}: {last}**"]
            return said or ["works"]

        print("| extra | MB | with it | without it, exit code and line |\n| --- | ---: | --- | --- |")
        print(f"| none | {size} | {'; '.join(try_all(base, USES['']))} | |", flush=True)
        for extra in filter(None, options.extras):
            if extra == "all":
                whole = Environment(folder / "all")
                added = whole.install(f"{wheel}[all]") - size
                result = try_all(whole, [c for commands in USES.values() for c in commands])
                print(f"| all | +{added} | {'; '.join(result)} | |", flush=True)
                continue
            code, line = base.run(USES[extra][0], places)
            refused = code in (1, 2) and "pip install" in line
            wrong += not refused
            environment = Environment(folder / extra, base)
            added = environment.install(f"{wheel}[{extra}]")
            if not (clips / "index.parquet").exists() and "index.parquet" in "".join(USES[extra]):
                environment.run(INDEX, places)
            result = try_all(environment, [*USES[extra], EXTRACT])
            line = f"{code}: {line}" if refused else f"**{code}: {line}**"
            print(f"| `[{extra}]` | +{added} | {'; '.join(result)} | {line} |", flush=True)
    server.shutdown()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
