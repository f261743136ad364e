"""The code blocks of the README and of the docs, and what CI does with each: reads the markers, prints or runs blocks.

Every bash and python block stands below one HTML comment:

    <!-- ci: install -->          README alone: makes .venv, installs, extracts
    <!-- ci: test -->             README alone: installs what tests need, runs them
    <!-- ci: run -->              runs offline, in the order of the file
    <!-- ci: skip (reason) -->    cannot run in CI

As a script: `python tests/readme_blocks.py install` prints that block of the README, `python tests/readme_blocks.py
run` runs all of the third kind on the pages of PAGES, or on those named behind it, in the working directory, with the
`python` and the commands that are on the path. Standard library only, so that it works before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = ("README.md", "docs/recipes.md", "docs/evaluation.md", "docs/pretraining.md")
"""Pages whose blocks the script runs; the tests run those of the other pages, and compare what they print."""

_FENCE = re.compile(
    r"(?:^<!-- ci: (?P<marker>.+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
_MARKER = re.compile(r"(?P<action>install|test|run|skip)(?: \((?P<reason>[^()]+)\))?")
_INTERPRETERS = {"bash": ["bash", "-euo", "pipefail"], "python": ["python", "-"]}


@dataclass(frozen=True)
class Block:
    """A code block: its language, text and first line's number, and its marker as written (None: it has none)."""

    language: str
    code: str
    line: int
    marker: str | None

    @property
    def action(self) -> str | None:
        """``install``, ``test``, ``run`` or ``skip``; None if the marker is missing or another one."""
        match = _MARKER.fullmatch(self.marker or "")
        if match is None or (match["action"] == "skip") != (match["reason"] is not None):
            return None
        return match["action"]


def read_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text."""
    return [
        Block(m["language"], m["code"], text.count("\n", 0, m.start("code")) + 1, m["marker"])
        for m in _FENCE.finditer(text)
    ]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a command and of its subcommands."""
    found = {
        option for action in parser._actions for option in action.option_strings if option.startswith("--")
    }
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options_of(command) for command in action.choices.values()))
    return found


def main() -> int | str:
    """Print the README's block of an action, or run the pages' blocks that are marked to run."""
    action, *pages = sys.argv[1:]
    if action != "run":
        blocks = [b for b in read_blocks(README.read_text(encoding="utf-8")) if b.action == action]
        print("".join(b.code for b in blocks), end="")
        return 0 if blocks else f"README.md has no block for {action!r}"
    for page in pages or PAGES:
        for block in read_blocks((ROOT / page).read_text(encoding="utf-8")):
            if block.action == "run":
                print(f"-- {page}, line {block.line}\n{block.code}", flush=True)
                code = subprocess.run(
                    _INTERPRETERS[block.language], input=block.code, text=True, check=False
                ).returncode
                if code:
                    return f"{page}, line {block.line}: exit code {code}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
