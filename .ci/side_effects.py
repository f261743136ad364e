"""Check that installing this package into common environments changes no package that is already installed.

    python .ci/side_effects.py UV                 lists of packages, in seconds
    python .ci/side_effects.py UV --size          also the MB that are added to torch and torchvision

``UV`` is the path of uv. uv resolves each environment from the index. Of each package only the ``METADATA`` with its
name and version is written, so that uv sees it as installed and no 6 GB are downloaded. ``uv pip install --dry-run`` in
the environment may only add packages. Exits with 1 if it would remove or replace one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = {
    "torch 2.15": ["torch==2.15.*"],
    "torch 2.15, torchvision": ["torch==2.15.*", "torchvision"],
    "torch 2.6": ["torch==2.6.*"],
    "torch 2.6, torchvision, torchaudio": ["torch==2.6.*", "torchvision", "torchaudio"],
    "transformers 4.57, huggingface-hub 0.36": [
        "transformers==4.57.*", "huggingface-hub==0.36.*", "torch==2.9.*", "torchvision", "av==15.*",
    ],
}  # fmt: skip
"""Common environments, by name, and their requirements."""

MEASURED = "torch 2.15, torchvision"


def run(*words: object) -> tuple[str, str]:
    """Run a command and return its stdout and stderr; exit if it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def pinned(uv: str, wanted: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """Return name and version of every package that an environment with the requirements ``wanted`` has today."""
    requirements = folder / "wanted.txt"
    requirements.write_text("\n".join(wanted))
    listed, _ = run(uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", requirements)
    return re.findall(r"^([\w.-]+)==([\w.+!-]+)", listed, re.M)


def pretend(packages: Path, name: str, version: str) -> None:
    """Make a package look installed."""
    about = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "INSTALLER").write_text("uv\n")
    (about / "RECORD").write_text("")


def changes(uv: str, python: Path) -> tuple[list[str], list[str]]:
    """Return the packages that an install would add, and its changes to installed packages: ``-old`` and ``+new``."""
    _, output = run(uv, "pip", "install", "--dry-run", "--python", python, ROOT)
    done = re.findall(r"^ ([-+~]) (\S+)", output, re.M)
    installed = {what.split("==")[0] for sign, what in done if sign != "+"}
    added = [what for _, what in done if what.split("==")[0] not in installed]
    if not any(what.startswith("crisscross-zoo") for what in added):
        sys.exit(f"the list of changes cannot be read:\n{output}")
    return added, [sign + what for sign, what in done if what not in added]


def size(uv: str, python: Path, packages: Sequence[str], folder: Path) -> int:
    """Return the size in MB of ``packages`` when they are installed."""
    given = [str(ROOT) if name.startswith("crisscross-zoo") else name for name in packages]
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--target", folder, *given)
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6)


def main() -> int:
    """Print a table and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("uv")
    parser.add_argument(
        "--size", action="store_true", help="install the added packages, and print their size in MB"
    )
    parser.add_argument(
        "--over", type=Path, metavar="PYTHON", help="check the environment of this interpreter instead"
    )
    options = parser.parse_args()
    if options.over:
        added, changed = changes(options.uv, options.over)
        print(f"{len(added)} packages are added; changed: {' '.join(changed) or 'none'}")
        return int(bool(changed))
    wrong, note, started = 0, "", time.monotonic()
    print("| environment | packages | added | changed |\n| --- | ---: | ---: | --- |")
    for label, wanted in ENVIRONMENTS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            installed = pinned(options.uv, wanted, folder)
            run(options.uv, "venv", "--quiet", folder / "env")
            python = folder / "env" / "bin" / "python"
            packages = next((folder / "env").glob("lib/*/site-packages"))
            for package in installed:
                pretend(packages, *package)
            added, changed = changes(options.uv, python)
            wrong += bool(changed)
            print(
                f"| {label} | {len(installed)} | {len(added)} | {' '.join(changed) or 'none'} |", flush=True
            )
            if options.size and label == MEASURED:
                note = (
                    f"Over {label}: {size(options.uv, python, added, folder / 'added')} MB: {' '.join(added)}"
                )
    print(f"\n{note}\n{time.monotonic() - started:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
