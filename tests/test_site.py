"""The documentation site: it builds strictly, every page is in it, its code runs, its figures are the package's."""

from __future__ import annotations

import functools
import math
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import needs
import pytest
import readme_blocks
import torch
import yaml
from evaluate.headless import Browser
from PIL import Image
from readme_blocks import Block, options_of, read_blocks
from tables import pretraining_of

from crisscross_zoo import list_weights
from crisscross_zoo.cli import extract, weights
from crisscross_zoo.config import POOLINGS
from crisscross_zoo.encoders.pooling import pool

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))
RUN_ON = (
    "index.md", "choosing.md", "extraction.md", "getting-started.md", "recipes.md", "scale.md", "shapes.md", "time.md",
    "troubleshooting.md",
)  # fmt: skip
"""Pages whose blocks run here; readme_blocks.PAGES has those whose commands its script runs, in CI."""


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


# --- pages ---------------------------------------------------------------------------------------------------------


def leaves(nav: object) -> Iterator[str]:
    """Yield the pages that a navigation leads to."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(item)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(leaves(nav)) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_includes_is_there(page: str) -> None:
    included = set(re.findall(r'^--8<-- "(.+)"$', text(page), re.M))
    assert [name for name in included if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("api/")])
def test_an_api_page_lists_its_names_for_those_who_read_it_on_github(page: str) -> None:
    listed = set(re.findall(r"^\| `([\w.]+)` \| \S.* \|$", text(page), re.M))
    for block in re.split(r"^::: crisscross_zoo\.", text(page), flags=re.M)[1:]:
        name = block.split()[0]
        members = re.search(r"members: \[(.+)\]", block)
        if members:
            assert {f"{name}.{m}" for m in members[1].split(", ")} <= listed
        else:
            assert any(found == name or found.startswith(f"{name}.") for found in listed), name
    assert re.search(r"`help\(crisscross_zoo[\w.]*\)`", text(page))


def table(page: str, first_header: str) -> dict[str, list[str]]:
    """Return the rows of a page's table whose first column is headed so, by their first cell."""
    lines = text(page)[text(page).index(f"| {first_header} |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.sub(r"`| \((default|installed)\)", "", row[0]): row[1:] for row in rows}


def test_the_table_of_weights_is_the_manifest() -> None:
    rows = table("choosing.md", "name | pretrained on")
    lines = (
        text("demo-weights.md").partition("<!-- results: begin -->")[2].partition("<!-- results: end -->")[0]
    )
    measured = re.findall(r"^\|.*\| ([\d.]+) \| ([\d.]+) ± [\d.]+ \| ([\d.]+) \|$", lines, re.M)
    assert list(rows) == list(dict.fromkeys(entry.name for entry in list_weights()))
    for entry in list_weights():
        numbers = [str(r.value) for r in entry.results if r.value]
        if entry.name == "demo":  # this project's own numbers
            assert numbers
            for result in entry.results:
                assert (str(result.value), *re.findall(r"[\d.]+", result.note or "")) in measured
        else:
            assert set(numbers) <= set(rows[entry.name])
        assert rows[entry.name][0] == pretraining_of(entry.name)


# conv5x of 8 frames at 112 and 224, of 32 frames at both, of 1, 2 and 5 s
MAPS = [(1, 4, 4), (1, 7, 7), (4, 4, 4), (4, 7, 7), (3, 4), (3, 7), (3, 16)]


def test_the_table_of_poolings_is_what_pooling_gives() -> None:
    rows = table("choosing.md", "name | video")
    assert tuple(rows) == POOLINGS
    for name, row in rows.items():
        assert [int(cell) for cell in row[2:]] == [pool(torch.zeros(1, 512, *m), name).shape[1] for m in MAPS]


def test_the_table_of_cells_that_poolings_read_is_true() -> None:
    rows = {
        name: row
        for names, row in table("choosing.md", "positions read").items()
        for name in names.split(", ")
    }
    assert tuple(rows) == POOLINGS
    for name, row in rows.items():
        assert row == [f"{cells_read(name, m)} of {math.prod(m)}" for m in MAPS]


def cells_read(name: str, size: tuple[int, ...]) -> int:
    one_each = torch.eye(math.prod(size)).reshape(-1, 1, *size)
    return int(pool(one_each, name).any(1).sum())


# --- code ----------------------------------------------------------------------------------------------------------


def run(block: Block, page: str) -> None:
    """Run a block in this process: Python, or one of the package's commands a line."""
    if block.language == "python":
        exec(compile(block.code, f"{page}:{block.line}", "exec"), {"__name__": "__main__"})
        return
    for line in block.code.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        commands = {"crisscross-extract": extract.main, "crisscross-weights": weights.main}
        assert commands[program](arguments) == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_ci_does_with_it(page: str) -> None:
    blocks = [b for b in read_blocks(text(page)) if b.language in ("bash", "python")]
    assert [f"{page}:{b.line}" for b in blocks if b.action not in ("run", "skip")] == []


def test_every_block_that_is_marked_to_run_is_run() -> None:
    marked = {page for page in PAGES if "run" in {b.action for b in read_blocks(text(page))}}
    elsewhere = {Path(page).name for page in readme_blocks.PAGES} | {"interfaces.md"}  # test_interfaces.py
    assert marked <= {*RUN_ON, *elsewhere}
    assert set(RUN_ON) <= marked


@pytest.mark.integration
@pytest.mark.parametrize("page", RUN_ON)
def test_blocks_run_and_print_what_the_page_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "clip.mp4", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = read_blocks(text(page))
    lacking = False
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.action != "run" or (block.language == "bash" and f"docs/{page}" in readme_blocks.PAGES):
            continue
        if "import h5py" in block.code and find_spec("h5py") is None:
            lacking = True
            continue
        run(block, page)
        printed = sorted(capsys.readouterr().out.splitlines())  # files as they get ready
        lines = text(page).splitlines()
        if after is not None and after.language == "text":
            between = lines[block.line + block.code.count("\n") : after.line - 2]
            if not any(between):
                assert printed == sorted(after.code.splitlines())
    if lacking:
        needs.package("h5py", extra="examples")  # all other blocks have run


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles(page: str) -> None:
    for block in read_blocks(text(page)):
        if block.language == "python":
            compile(block.code, f"{page}:{block.line}", "exec")


def test_options_of_extraction_exist() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text("extraction.md") + text("getting-started.md")))
    assert len(named) > 20
    assert named <= options_of(extract.build_parser())


# --- figures -------------------------------------------------------------------------------------------------------


def frame(figure: Path) -> tuple[str | None, ...]:
    root = ET.parse(figure).getroot()
    return root.get("width"), root.get("height"), root.get("viewBox")


@pytest.mark.integration
def test_figures_are_those_that_the_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_figures.py", "--out", str(tmp_path)])
    runpy.run_path(str(DOCS / "figures" / "make_figures.py"), run_name="__main__")
    drawn = {p.name: frame(p) for p in tmp_path.iterdir()}
    assert drawn == {p.name: frame(p) for p in (DOCS / "figures").glob("*.svg")}
    shown = set(re.findall(r"\(figures/([\w-]+\.svg)#gh-", "".join(map(text, PAGES))))
    assert shown == set(drawn)


@pytest.mark.slow
def test_the_gallery_is_the_one_that_the_script_makes(tmp_path: Path) -> None:
    script = DOCS / "figures" / "make_gallery.py"
    subprocess.run([sys.executable, script, "--out", tmp_path], check=True)
    made, shown = (Image.open(folder / "gallery.png") for folder in (tmp_path, DOCS / "figures"))
    assert made.size == shown.size


# --- the site ------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects the anchors of a page, where it leads, and what a browser loads with it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("img", "script", "iframe", "source", "video") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") != "canonical" and "href" in values:
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site from a copy of what it is made of."""
    for name in ("zensical", "mkdocstrings"):
        needs.package(name, extra="docs")
    folder = tmp_path_factory.mktemp("site")
    for name in ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("docs", "crisscross_zoo", "benchmarks"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.mark.integration
def test_every_page_is_built_and_no_link_is_broken(site: Path) -> None:
    pages = {p: Page(p) for p in site.rglob("*.html")}
    built = {p.relative_to(site).with_suffix(".md").as_posix() for p in pages}
    assert built - {"404.md"} == set(PAGES)
    broken = []
    for file, page in pages.items():
        for target in [*page.links, *page.loaded]:
            link = urlsplit(target)
            if link.scheme or link.netloc or file.name == "404.html":  # its links start from the site's root
                continue
            to = (file.parent / unquote(link.path)).resolve() if link.path else file
            to = to / "index.html" if to.is_dir() else to
            if not to.exists() or (
                link.fragment and to in pages and unquote(link.fragment) not in pages[to].anchors
            ):
                broken.append((file.name, target))
    assert broken == []


@pytest.mark.integration
def test_pages_load_nothing_from_another_host(site: Path) -> None:
    for file in site.rglob("*.html"):
        assert [u for u in Page(file).loaded if urlsplit(u).netloc] == [], file.name


@pytest.mark.integration
def test_docstrings_lose_their_restructured_text(site: Path) -> None:
    found = [
        (p.name, m)
        for p in site.rglob("api/*.html")
        for m in re.findall(r":(?:class|func|meth|data|mod):", p.read_text())
    ]
    assert found == []
    assert "load_encoder" in (site / "api" / "index.html").read_text(encoding="utf-8")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.integration
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_finds_nothing_wrong(site: Path, tmp_path: Path, width: int, scheme: str) -> None:
    (tmp_path / "profile").mkdir()
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server,
        Browser(needs.chromium(), tmp_path / "profile") as browser,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        for page in PAGES:
            address = home + Path(page).with_suffix(".html").as_posix()
            browser.open(address, width=width, touch=width < 500, prefers_color_scheme=scheme)
            unseen = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src)"
            assert browser.run(f"location.href === '{address}'")
            assert browser.run(unseen) == [], page
            assert browser.run("document.scrollingElement.scrollWidth <= innerWidth"), page
        server.shutdown()
    assert [e for e in browser.errors if not e.startswith(f"requested {home}")] == []  # console, other hosts
