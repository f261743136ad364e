"""Show that installing this package over what people have changes no package that is there already.

    python .ci/side_effects.py UV                 seconds: the lists
    python .ci/side_effects.py UV --size          and how many MB are added where torch and torchvision are

``UV`` is uv's path. Each environment is resolved by uv from the index, and stands for itself by nothing but the
``METADATA`` of its packages, name and version: uv sees them as installed, and no 6 GB are downloaded. ``uv pip install
--dry-run`` over it must add packages only. Exit code 1 where it would remove or replace one.
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
"""What people have, and how it is asked for."""

MEASURED = "torch 2.15, torchvision"


def run(*words: object) -> tuple[str, str]:
    """Run a command and return what it prints on stdout and on stderr; what fails ends this one."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def pinned(uv: str, wanted: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """Return name and version of every package that an environment with ``wanted`` has today."""
    asked = folder / "wanted.txt"
    asked.write_text("\n".join(wanted))
    listed, _ = run(uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", asked)
    return re.findall(r"^([\w.-]+)==([\w.+!-]+)", listed, re.M)


def pretend(packages: Path, name: str, version: str) -> None:
    """Make a package look installed."""
    about = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "INSTALLER").write_text("uv\n")
    (about / "RECORD").write_text("")


def changes(uv: str, python: Path) -> tuple[list[str], list[str]]:
    """Return what an install would add, and what it would do to packages that are there: ``-old`` and ``+new``."""
    _, said = run(uv, "pip", "install", "--dry-run", "--python", python, ROOT)
    done = re.findall(r"^ ([-+~]) (\S+)", said, re.M)
    there = {what.split("==")[0] for sign, what in done if sign != "+"}
    added = [what for _, what in done if what.split("==")[0] not in there]
    if not any(what.startswith("crisscross-zoo") for what in added):
        sys.exit(f"the list of changes cannot be read:\n{said}")
    return added, [sign + what for sign, what in done if what not in added]


def size(uv: str, python: Path, packages: Sequence[str], folder: Path) -> int:
    """Return how many MB ``packages`` have when they are installed."""
    given = [str(ROOT) if name.startswith("crisscross-zoo") else name for name in packages]
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--target", folder, *given)
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6)


def main() -> int:
    """Print a table and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("uv")
    parser.add_argument("--size", action="store_true", help="install what is added, and count its MB")
    parser.add_argument("--over", type=Path, metavar="PYTHON", help="a real environment's, instead")
    options = parser.parse_args()
    if options.over:
        added, changed = changes(options.uv, options.over)
        print(f"{len(added)} packages are added; changed: {' '.join(changed) or 'none'}")
        return int(bool(changed))
    wrong, note, begun = 0, "", time.monotonic()
    print("| over | packages there | added | changed |\n| --- | ---: | ---: | --- |")
    for label, wanted in ENVIRONMENTS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            there = pinned(options.uv, wanted, folder)
            run(options.uv, "venv", "--quiet", folder / "env")
            python = folder / "env" / "bin" / "python"
            packages = next((folder / "env").glob("lib/*/site-packages"))
            for package in there:
                pretend(packages, *package)
            added, changed = changes(options.uv, python)
            wrong += bool(changed)
            print(f"| {label} | {len(there)} | {len(added)} | {' '.join(changed) or 'none'} |", flush=True)
            if options.size and label == MEASURED:
                note = (
                    f"Over {label}: {size(options.uv, python, added, folder / 'added')} MB: {' '.join(added)}"
                )
    print(f"\n{note}\n{time.monotonic() - begun:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
