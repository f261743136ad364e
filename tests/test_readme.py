"""The README: every block says what CI does with it, and what it says of options and tables is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from readme_blocks import README, Block, options_of, read_blocks
from tables import pretraining_of

from crisscross_zoo import list_weights
from crisscross_zoo.cli import evaluate, extract, pretrain, weights

TEXT = README.read_text(encoding="utf-8")
BLOCKS = read_blocks(TEXT)
CODE = [b for b in BLOCKS if b.language in ("bash", "python")]
PARSERS = {
    "crisscross-evaluate": evaluate.build_parser,
    "crisscross-extract": extract.build_parser,
    "crisscross-pretrain": pretrain.build_parser,
    "crisscross-weights": weights.build_parser,
}
OTHER_OPTIONS = {"--size", "--out", "--steps", "--nproc-per-node", "--index-url"}  # of examples/ and torchrun


def commands() -> list[list[str]]:
    """Return the words of every crisscross command in bash blocks of README and docs, without variables before it."""
    docs = [
        read_blocks(p.read_text(encoding="utf-8")) for p in sorted((README.parent / "docs").rglob("*.md"))
    ]
    blocks = [b for page in (BLOCKS, *docs) for b in page if b.language == "bash"]
    code = [b.code.replace("\\\n", " ") for b in blocks]
    lines = [line for text in code for line in re.split(r"\n|&&", text)]
    words = [shlex.split(line, comments=True) for line in lines]
    found = []
    for line in words:
        while line and "=" in line[0]:
            line.pop(0)
        if line and Path(line[0]).name in PARSERS:
            found.append([Path(line[0]).name, *line[1:]])
    return found


def table(first_header: str) -> dict[str, list[str]]:
    """Return the rows of the table whose first column is headed so, by their first cell without backquotes."""
    lines = TEXT[TEXT.index(f"| {first_header} |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.sub(r"`| \((default|installed)\)", "", row[0]): row[1:] for row in rows}


def test_the_first_block_installs_and_one_of_the_others_tests() -> None:
    assert CODE[0].action == "install"
    assert [b.action for b in CODE].count("install") == [b.action for b in CODE].count("test") == 1


def test_no_line_of_code_is_cut() -> None:
    shown = [line for b in CODE if b.action in ("install", "test") for line in b.code.splitlines()]
    assert max(map(len, shown)) <= 90


@pytest.mark.parametrize("block", CODE, ids=lambda b: f"line{b.line}")
def test_every_block_says_what_ci_does_with_it(block: Block) -> None:
    assert block.action in ("install", "test", "run", "skip"), (
        f"README.md, line {block.line}: {block.marker!r}"
    )


def test_no_fence_is_overlooked() -> None:
    assert 2 * len(BLOCKS) == len(re.findall(r"^\s*```", TEXT, re.M))
    assert {b.language for b in BLOCKS} <= {"bash", "python", "text", "bibtex"}


@pytest.mark.parametrize(
    ("marker", "action"),
    [
        ("run", "run"),
        ("skip (network)", "skip"),
        ("skip", None),
        ("run (offline)", None),
        ("rum", None),
        (None, None),
    ],
)
def test_a_marker_is_understood_or_refused(marker: str | None, action: str | None) -> None:
    comment = "" if marker is None else f"<!-- ci: {marker} -->\n"
    (block,) = read_blocks(f"text\n{comment}```bash\ntrue\n```\n")
    assert (block.marker, block.action, block.code) == (marker, action, "true\n")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_parses(words: list[str]) -> None:
    PARSERS[words[0]]().parse_args(words[1:])


def test_every_option_named_exists() -> None:
    known = set().union(OTHER_OPTIONS, *(options_of(build()) for build in PARSERS.values()))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT.replace("<!--", "")))
    assert len(named) > 12
    assert named <= known


@pytest.mark.parametrize("block", [b for b in CODE if b.language == "python"], ids=lambda b: f"line{b.line}")
def test_python_compiles(block: Block) -> None:
    compile(block.code, f"README.md:{block.line}", "exec")


def test_the_table_of_checkpoints_is_the_manifest() -> None:
    rows = table("name | pretrained on")
    benchmarks = ("UCF101", "HMDB51", "ESC-50", "DCASE")
    expected: dict[str, list[str]] = {}
    for entry in list_weights():
        if entry.status == "released":
            row = expected.setdefault(entry.name, [pretraining_of(entry.name), *[""] * 4])
            for result in entry.results:
                if result.value is not None and result.benchmark in benchmarks:
                    row[1 + benchmarks.index(result.benchmark)] = str(result.value)
    assert rows == expected


def test_links_lead_somewhere() -> None:
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", TEXT) if not t.startswith("https://")]
    assert len(targets) > 3
    for target in targets:
        path, _, anchor = target.partition("#")
        page = README.parent / path
        assert page.exists(), target
        if page.suffix == ".md" and anchor:
            titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}, target


def test_it_is_short() -> None:
    assert TEXT.count("\n") <= 150
