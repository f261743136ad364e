"""The statements of docs/platforms.md about Windows and macOS that Linux can check, and about start methods."""

from __future__ import annotations

import json
import multiprocessing
import ntpath
import os
import subprocess
import sys
import types
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crisscross_zoo import FeatureExtractor, Features
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.extract.outputs import mirror
from crisscross_zoo.files import remote
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.find import common_folder, find_media
from crisscross_zoo.files.store import LocalFolder
from crisscross_zoo.pretrain import index
from crisscross_zoo.pretrain.metrics import read_log

pytestmark = pytest.mark.integration

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
CLIP = ROOT / "examples" / "clip.mp4"


def run(script: str, *arguments: str | Path, first_on_path: tuple[Path, ...] = ()) -> Any:
    """Run a script of this folder, on one thread, and return the JSON of its last line."""
    path = os.pathsep.join(map(str, (*first_on_path, ROOT, TESTS)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- what Windows lacks ------------------------------------------------------------------------------------------


def test_the_package_needs_nothing_that_is_missing_on_windows(tmp_path: Path) -> None:
    script = "like_windows/imports_and_runs.py"
    report = run(script, CLIP, tmp_path, first_on_path=(TESTS / "like_windows",))

    modules = [p.relative_to(ROOT).with_suffix("").parts for p in (ROOT / "crisscross_zoo").rglob("*.py")]
    names = {".".join(p[:-1] if p[-1] == "__init__" else p) for p in modules} - {"crisscross_zoo"}
    assert set(report["modules"]) == names

    assert report["extract"] == 0
    mine = FeatureExtractor("demo", "both", device="cpu")(CLIP).arrays()
    theirs = Features.load(tmp_path / "feats.npz").arrays()
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-5, atol=1e-5)  # other threads, other sums

    assert (report["steps"], report["finished"]) == (1, True)
    (row,) = read_log(tmp_path / "run")
    assert np.isnan(row["peak_memory_mb"])
    assert row["grad_norm"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="the column is empty there")
def test_peak_memory_is_that_of_this_process() -> None:
    ours = np.ones(600_000_000, np.uint8)  # is not theirs, though they are started from here
    script = (
        "import numpy as np, torch\n"
        "from crisscross_zoo.pretrain.metrics import peak_memory_mb\n"
        "before = peak_memory_mb(torch.device('cpu'))\n"
        "block = np.ones(300_000_000, np.uint8)\n"
        "print(before, peak_memory_mb(torch.device('cpu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    del ours
    before, after = map(float, done.stdout.split())
    assert before > 50  # torch alone
    assert after > max(before, 300)


# --- how processes start -----------------------------------------------------------------------------------------


def test_processes_give_the_same_bytes_however_they_start(tmp_path: Path) -> None:
    digests: dict[str, dict[str, str]] = run("start_methods.py", CLIP, tmp_path)
    here = digests.pop("in this process")
    assert set(here) == {"features", "samples", "finetuned"}
    assert digests == dict.fromkeys(multiprocessing.get_all_start_methods(), here)


# --- names of files ----------------------------------------------------------------------------------------------


@pytest.fixture
def windows_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WINDOWS", True)


@pytest.mark.usefixtures("windows_names")
@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("a.mp4", "a.mp4"),
        ("12:30.mp4", "12%3A30.mp4"),
        ('<a>|"b"?*\\.mp4', "%3Ca%3E%7C%22b%22%3F%2A%5C.mp4"),
        ("con.mp4", "co%6E.mp4"),
        ("NUL", "NU%4C"),
        ("com1 .x.mp4", "com%31 .x.mp4"),
        ("LPT².wav", "LPT%C2%B2.wav"),
        ("console.mp4", "console.mp4"),
        ("take 1.", "take 1%2E"),
        ("take ", "take%20"),
        ("..", ".."),
    ],
)
def test_names_that_windows_does_not_take_are_written_as_in_urls(name: str, here: str) -> None:
    assert remote.local_name(name) == here


@given(st.text(st.characters(exclude_characters="/%", exclude_categories=("Cs",)), min_size=1))
def test_windows_takes_every_name_and_it_can_be_read_back(name: str) -> None:
    reserved = getattr(ntpath, "isreserved", None) or (
        lambda n: PureWindowsPath(n).is_reserved()
    )  # Python 3.13
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_WINDOWS", True)
        here = remote.local_name(name)
    if name not in (".", ".."):
        assert not reserved(here)
        assert here[-1] not in ". "
        assert not set(here) & set('<>:"\\|?*') | {c for c in here if c < " "}
    assert unquote(here) == name


@pytest.mark.skipif(sys.platform == "win32", reason="names are changed there")
def test_elsewhere_names_stay() -> None:
    assert remote.local_name("con: 12:30?.mp4.") == "con: 12:30?.mp4."


@pytest.mark.usefixtures("windows_names")
def test_outputs_of_urls_have_such_names(tmp_path: Path) -> None:
    urls = ["s3://bucket/in/12:30.mp4", "s3://bucket/in/con.mp4", "s3://bucket/in/x./y.mp4"]
    outputs = mirror(urls, common_folder(urls), LocalFolder(tmp_path), ".npz")
    assert list(outputs.values()) == ["12%3A30.npz", "co%6E.npz", "x%2E/y.npz"]


@pytest.mark.usefixtures("windows_names")
def test_a_drive_follows_the_three_slashes_of_a_file_url() -> None:
    assert remote.without_file_scheme("file:///C:/in/a.mp4") == "C:/in/a.mp4"
    assert remote.without_file_scheme("file:///in/a.mp4") == "/in/a.mp4"
    assert remote.without_file_scheme("/C:/in") == "/C:/in"


def test_an_input_on_another_drive_is_not_under_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "relpath", ntpath.relpath)
    monkeypatch.setattr(remote, "absolute", lambda path: path)
    monkeypatch.setattr(os.path, "abspath", lambda path: os.fspath(path))
    with pytest.raises(ConfigError, match="is not under the root"):
        mirror([r"D:\in\a.mp4"], Path("C:/in"), LocalFolder(Path("out")), ".npz")


def test_an_index_has_slashes_and_finds_its_files_with_backslashes(monkeypatch: pytest.MonkeyPatch) -> None:
    there = types.SimpleNamespace(path=ntpath, sep="\\", fsdecode=os.fsdecode)
    monkeypatch.setattr(index, "os", there)
    for root, path, under in (
        (r"C:\set", r"C:\set\train\a.mp4", "train/a.mp4"),
        ("C:\\", r"C:\a.mp4", "a.mp4"),
        (r"C:\set", r"D:\other\a.mp4", r"D:\other\a.mp4"),
    ):
        assert index._under(root, path) == under
        assert index._path_of({"path": under, "path_bytes": None}, root) == path


@pytest.mark.skipif(sys.platform == "win32", reason="paths of 260 characters are the limit there")
def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    name = "é" * 125 + "x.npz"
    assert len(os.fsencode(name)) == 255
    for by in ("", "0-of-2"):
        write_atomically(tmp_path / name, b"whole", by=by)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    with pytest.raises(OSError, match="File name too long"):
        write_atomically(tmp_path / f"x{name}", b"")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_list_ends_lines_as_either_system_does(tmp_path: Path) -> None:
    names = ["a\u2028b.mp4", "c\x85d.mp4", "e.mp4"]
    (tmp_path / "list.txt").write_bytes("\r\n".join(["# files", *names, ""]).encode())
    assert find_media([], list_file=str(tmp_path / "list.txt")) == names
