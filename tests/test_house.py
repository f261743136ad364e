"""Rules of the code base: imports point down and stay light, public names are documented, nothing private leaks."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import crisscross_zoo

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "crisscross_zoo"
MODULES = sorted(PACKAGE.rglob("*.py"))

HEAVY = ("torch", "torchvision", "torchaudio", "av", "librosa", "huggingface_hub")


# --- what a start imports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        "import crisscross_zoo",
        *(
            f"import crisscross_zoo.{room}"
            for room in ("checkpoints", "encoders", "pretrain", "transforms", "weights")
        ),
        "from crisscross_zoo.cli.evaluate import main; main(['--help'])",
        "from crisscross_zoo.cli.evaluate import main; main(['finetune', '--help'])",
        "from crisscross_zoo.cli.evaluate import main; main(['linear', 'esc50', '--settings'])",
        "from crisscross_zoo.cli.evaluate import main; main(['report', '--help'])",
        "from crisscross_zoo.cli.extract import main; main(['--help'])",
        "from crisscross_zoo.cli.extract import main; main(['--version'])",
        "from crisscross_zoo.cli.extract import main; main(['video.mp4', '--out', 'x.npz', '--modality', 'vidoe'])",
        "from crisscross_zoo.cli.weights import main; main(['--help'])",
        "from crisscross_zoo.cli.weights import main; main(['list'])",
        "from crisscross_zoo.cli.pretrain import main; main(['--help'])",
        "from crisscross_zoo.cli.pretrain import main; main(['kinetics400', '--help'])",
        "from crisscross_zoo.cli.pretrain import main; main(['prepare', '--help'])",
        "from crisscross_zoo.cli.pretrain import main; main(['generate', '--help'])",
        "from crisscross_zoo.cli.pretrain import main; main(['audioset', '--optim.lr', '1'])",
    ],
)
def test_starts_without_torch(start: str) -> None:
    script = f"{start}\nimport sys\nprint('heavy:', [m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_extraction_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    """Each of these takes longer to import than the example clip to extract."""
    needless = ("torch._dynamo", "torch._inductor", "torchvision", "torchaudio", "librosa")
    script = (
        "import sys; from crisscross_zoo.cli.extract import main;"
        "code = main(['examples/clip.mp4', '--weights', 'demo', '--out', sys.argv[1], '--quiet']);"
        f"print(code, [m for m in {needless} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines()[-1] == "0 []"


# --- which room uses which ---------------------------------------------------------------------------------------


def floors() -> dict[str, int]:
    """Read CONTRIBUTING.md's table of floors: room to floor."""
    rows = re.findall(r"^\| (\d) \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    return {
        room.removesuffix(".py"): int(floor)
        for floor, rooms in rows
        for room in re.findall(r"`([\w.]+)/?`", rooms)
    }


def room(module: str) -> str:
    """Return the room of a dotted module name: "media" of crisscross_zoo.media.decode, "" of the package itself."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names of all that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            if node.module == "crisscross_zoo":
                submodules = {p.stem for p in PACKAGE.iterdir()}
                yield from (
                    f"crisscross_zoo.{a.name}" if a.name in submodules else "crisscross_zoo"
                    for a in node.names
                )
            else:
                yield str(node.module)


def own_room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    here = own_room(path)
    if here == "__init__":
        return  # lazy, and for type checkers alone
    height = floors()
    used = {room(name) for name in imports(path) if name.split(".")[0] == "crisscross_zoo"} - {"", here}
    assert here in height, f"give {here!r} a floor in CONTRIBUTING.md"
    assert [r for r in sorted(used) if height[r] > height[here]] == []


def test_rooms_do_not_go_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        if (here := own_room(path)) != "__init__":
            used = {room(name) for name in imports(path) if name.split(".")[0] == "crisscross_zoo"}
            graph.setdefault(here, set()).update(used - {"", here})
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
    assert set(graph) == set(floors())


def foreign_private_names(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield the underscore names of other rooms that a file imports, or reads off an imported module."""
    here, modules = own_room(path), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                modules[alias.asname or alias.name] = full
                if full.startswith("crisscross_zoo.") and room(full) != here and is_private(alias.name):
                    yield full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            full = modules.get(ast.unparse(node.value), "")
            if full.startswith("crisscross_zoo.") and room(full) != here:
                yield f"{full}.{node.attr}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_room_uses_anothers_private_names(path: Path) -> None:
    assert list(foreign_private_names(path, ast.parse(path.read_text(encoding="utf-8")))) == []


def test_a_private_name_of_another_room_is_noticed() -> None:
    source = """
from crisscross_zoo import __version__
from crisscross_zoo.media.scan import _a
from crisscross_zoo.weights.load import _mine
from crisscross_zoo.media import scan as s
import crisscross_zoo.media.clips
s._b, s.c, crisscross_zoo.media.clips._d, self._e
"""
    found = foreign_private_names(PACKAGE / "weights" / "card.py", ast.parse(source))
    media = "crisscross_zoo.media"
    assert list(found) == [f"{media}.scan._a", f"{media}.scan._b", f"{media}.clips._d"]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_listed_names_are_there(path: Path) -> None:
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    listed = getattr(package, "__all__", [])
    assert [name for name in listed if not hasattr(package, name)] == []
    assert set(listed) >= set(getattr(package, "_HOMES", {}))
    # Which of the two a name gives would depend on what was imported before.
    assert [name for name in listed if (path.parent / f"{name}.py").exists()] == []


def test_only_media_imports_av() -> None:
    users = {own_room(p) for p in MODULES if any(i.split(".")[0] == "av" for i in imports(p))}
    assert users == {"media"}


# --- text --------------------------------------------------------------------------------------------------------


def unstated_encodings(tree: ast.Module) -> Iterator[int]:
    """Yield the lines where text is read or written in the encoding that the system happens to have."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        stated = any(k.arg in ("encoding", None) for k in node.keywords)  # None: **settings
        if stated or called == "av.open":
            continue
        given = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
        texts = [str(a.value) for a in given if isinstance(a, ast.Constant)]
        modes = [text for text in texts if re.fullmatch("[rwaxbt+]+", text)]
        if name == "open" and all("b" not in mode for mode in modes) and (modes or not given):
            yield node.lineno
        if name in ("read_text", "write_text"):
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_text_has_a_stated_encoding(path: Path) -> None:
    assert list(unstated_encodings(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_an_unstated_encoding_is_noticed() -> None:
    bad = [
        "open('a', 'w')",
        "p.open()",
        "p.open('a')",
        "p.open(mode='r')",
        "p.read_text()",
        "p.write_text('x')",
    ]
    good = ["p.open('rb')", "p.open(**TEXT)", "p.open('a', encoding='utf-8')", "Image.open(file)"]
    lines = unstated_encodings(ast.parse("\n".join(bad + good)))
    assert sorted(lines) == [*range(1, len(bad) + 1)]


# --- documentation -----------------------------------------------------------------------------------------------


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield the public modules, classes, functions and methods without a docstring."""
    if not ast.get_docstring(tree):
        yield "module"
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        prefix, parent = stack.pop()
        for node in ast.iter_child_nodes(parent):
            if (
                isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name[0] != "_"
                and not any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
            ):
                if not ast.get_docstring(node):
                    yield prefix + node.name
                if isinstance(node, ast.ClassDef):
                    stack.append((f"{node.name}.", node))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_public_things_are_documented(path: Path) -> None:
    assert list(undocumented(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_lack_of_a_docstring_is_noticed() -> None:
    source = (
        '"""Doc."""\nclass A:\n    """Doc."""\n    def b(self): ...\n    def _c(self): ...\ndef d(): ...\n'
    )
    assert list(undocumented(ast.parse(source))) == ["d", "A.b"]


# --- the repository ----------------------------------------------------------------------------------------------

# Folders of one machine, absolute: of users, of temporary files, of build places. Not "/dev/null", not "./work/".
MACHINE_PATH = re.compile(
    r"(?<![\w.~)\]}*-])(?:/(?:home|root|work|tmp|mnt|Users|private)/\w|[A-Z]:\\\\?Users\b)"
)
MAY_NAME_ONE = {"tests/test_house.py"}


def repository_files() -> list[Path]:
    """Return the files that git tracks, or all files if this is not a clone (a source distribution)."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [p for name in listed.stdout.split("\0") if name and (p := ROOT / name).is_file()]
    return [
        p
        for p in ROOT.rglob("*")
        if p.is_file() and not any(part[0] == "." for part in p.relative_to(ROOT).parts)
    ]


def machine_paths(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    return [line.strip() for line in text.splitlines() if MACHINE_PATH.search(line)]


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {p.relative_to(ROOT).as_posix(): lines for p in repository_files() if (lines := machine_paths(p))}
    assert {name: lines for name, lines in found.items() if name not in MAY_NAME_ONE} == {}


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("open('/home/ann/clip.mp4')", True),
        ("cd /tmp/job1", True),
        (r"C:\Users\ann", True),
        ("PATH=/root/bin", True),
        ("https://example.org/work/of/art", False),
        ("> /dev/null", False),
        ("{folder}/tmp/x", False),
        ("examples/home/x", False),
    ],
)
def test_machine_paths_are_distinguished_from_others(tmp_path: Path, line: str, is_one: bool) -> None:
    file = tmp_path / "file.md"
    file.write_text(line)
    assert bool(machine_paths(file)) == is_one


def test_the_version_is_the_same_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.M)
    cited = re.search(r"^version: (\S+)$", citation, re.M)
    assert newest is not None
    assert cited is not None
    assert newest[1] == cited[1] == crisscross_zoo.__version__


# --- words ---------------------------------------------------------------------------------------------------------

RETIRED = re.compile(
    r"\b(pictures?|news|hired?|remarks?|time stamps?|cannot be had|(is|are|was|were|be) left out|goes? on from)\b",
    re.I,
)
FIELDS_OWN = re.compile(r"group of pictures|picture parameter set|the paper's remark", re.I)
"""Terms of video coding, and of the paper, that have a retired word in them."""


def retired_words(path: Path) -> list[str]:
    text = FIELDS_OWN.sub("", path.read_text(encoding="utf-8"))
    return [f"{path.name}: {line.strip()}" for line in text.splitlines() if RETIRED.search(line)]


def test_words_that_the_glossary_replaces_are_not_used() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    sources = [
        p for room in ("crisscross_zoo", "examples", "benchmarks") for p in (ROOT / room).rglob("*.py")
    ]
    assert [line for path in [*pages, *sources] for line in retired_words(path)] == []
