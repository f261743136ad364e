"""Check the contents of a wheel: the package and nothing else, its license, manifest, types and commands.

python .ci/check_wheel.py dist/crisscross_zoo-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import email
import json
import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "crisscross_zoo"
NEEDED = {f"{PACKAGE}/py.typed", f"{PACKAGE}/weights_manifest.json"}
COMMANDS = {"crisscross-extract", "crisscross-pretrain", "crisscross-weights"}


def problems(wheel: Path) -> list[str]:
    """Return the problems of a wheel, one line each."""
    found = []
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    about = next(name.split("/")[0] for name in files if name.endswith(".dist-info/METADATA"))
    inside = {name for name in files if not name.startswith(f"{about}/")}

    tree = {p.relative_to(ROOT).as_posix() for p in (ROOT / PACKAGE).rglob("*") if p.is_file()}
    wanted = {name for name in tree if "__pycache__" not in name} | NEEDED
    found += [f"{name} is missing" for name in sorted(wanted - inside)]
    found += [f"{name} does not belong there" for name in sorted(inside - wanted)]
    for name in sorted(wanted & inside):
        source = ROOT / ("weights_manifest.json" if name.endswith("/weights_manifest.json") else name)
        if files[name] != source.read_bytes():
            found.append(f"{name} is not the repository's")

    metadata = email.message_from_bytes(files[f"{about}/METADATA"])
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / PACKAGE / "__init__.py").read_text(), re.M)
    for field, value in {
        "Version": version[1] if version else "?",
        "License-Expression": "Apache-2.0",
        "License-File": "LICENSE",
        "Requires-Python": ">=3.11",
        "Description-Content-Type": "text/markdown",
    }.items():
        if metadata[field] != value:
            found.append(f"METADATA has {field}: {metadata[field]}, not {value}")
    if files.get(f"{about}/licenses/LICENSE") != (ROOT / "LICENSE").read_bytes():
        found.append("the license is not in it")
    entries = files.get(f"{about}/entry_points.txt", b"").decode()
    found += [f"the command {c} is missing" for c in sorted(COMMANDS) if f"{c} = " not in entries]

    machine = re.compile(re.escape(str(ROOT)) + r"\b|(?<![\w.])/(?:home|root|tmp|Users)/\w")
    for name, data in files.items():
        if machine.search(data.decode("utf-8", errors="replace")):
            found.append(f"{name} contains a path of one machine")
    json.loads(files.get(f"{PACKAGE}/weights_manifest.json", b"{}"))
    print(f"{wheel.name}: {len(files)} files, {wheel.stat().st_size:,} bytes")
    return found


def main() -> int:
    """Print the problems of the given wheels; return 1 if there are any, or if no wheel is given."""
    lines = [f"{name}: {line}" for name in sys.argv[1:] for line in problems(Path(name))]
    for line in lines:
        print(line, file=sys.stderr)
    return 1 if lines or len(sys.argv) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
