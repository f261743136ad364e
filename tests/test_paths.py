"""Arguments that are not paths, names that are too long for a file system, and closed standard streams."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crisscross_zoo import FeatureExtractor, Features, load_encoder
from crisscross_zoo.encoders import VideoEncoder
from crisscross_zoo.errors import ConfigError, InputError, OutputError
from crisscross_zoo.files.atomic import atomic_path

pytestmark = pytest.mark.integration

CLIP = Path(__file__).parents[1] / "examples" / "clip.mp4"
DEMO = ["--weights", "demo", "--clips", "1", "--device", "cpu"]


class BytesPath(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return os.fsencode(CLIP)


@pytest.fixture(scope="module")
def extract() -> FeatureExtractor:
    return FeatureExtractor("demo", clips=1, device="cpu", workers=0)


@pytest.fixture(params=["bytes", "bytes in a PathLike", "open file", "number"])
def no_path(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    with CLIP.open("rb") as opened:
        yield {
            "bytes": (os.fsencode(CLIP), r"is of type bytes, not text; pass os.fsdecode\(...\) of it"),
            "bytes in a PathLike": (BytesPath(), r"is of type BytesPath, not text; pass os.fsdecode"),
            "open file": (
                opened,
                r"is of type BufferedReader \(an open file\), not text; pass the file's path",
            ),
            "number": (3, "is of type int, not text; pass a str or a pathlib.Path"),
        }[request.param]


def test_what_is_no_path_is_an_input_error(extract: FeatureExtractor, no_path: tuple[Any, str]) -> None:
    given, message = no_path
    for call in (
        extract,
        extract.identity,
        lambda path: load_encoder("video", path),
        lambda path: load_encoder("video", "demo", cache_dir=path),
        lambda path: FeatureExtractor(path, device="cpu"),
        VideoEncoder.from_pretrained,
        Features.load,
        Features().save,
    ):
        with pytest.raises(InputError, match=message):
            call(given)


@pytest.mark.parametrize("workers", [0, 1])
def test_in_a_stream_it_costs_itself_alone(no_path: tuple[Any, str], workers: int) -> None:
    extract = FeatureExtractor("demo", clips=1, device="cpu", workers=workers)
    found = list(extract.stream([no_path[0], CLIP]))
    assert [path for path, _ in found if path != CLIP] == [no_path[0]]
    results = {path == CLIP: result for path, result in found}
    assert isinstance(results[False], InputError)
    assert isinstance(results[True], Features)


def test_a_stream_of_one_path_or_of_an_open_file_is_refused(extract: FeatureExtractor) -> None:
    with pytest.raises(ConfigError, match="several paths"):
        next(extract.stream(str(CLIP)))
    with pytest.raises(InputError, match="paths is of type bytes"):
        next(extract.stream(b"clip.mp4"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"paths is of type StringIO \(an open file\)"):
        next(extract.stream(io.StringIO("clip.mp4\n")))


def test_several_paths_and_tensors_get_a_hint(extract: FeatureExtractor) -> None:
    with pytest.raises(
        InputError, match=r"FeatureExtractor takes one path, not a list; use stream\(\[...\]\)"
    ):
        extract([str(CLIP)])  # type: ignore[arg-type]
    for given in (torch.full((8, 3), 7.25), np.full((8, 3), 7.25)):
        for call in (extract, lambda x: next(extract.stream(x))):
            with pytest.raises(InputError, match=r"use load_encoder\(...\) for tensors") as caught:
                call(given)
            assert "of shape (8, 3)" in str(caught.value)
            assert "7.25" not in str(caught.value)
    assert dict(extract.stream(np.array([str(CLIP)])))[str(CLIP)].video is not None  # type: ignore[union-attr]


def test_paths_of_the_system_are_taken(extract: FeatureExtractor) -> None:
    (entry,) = (e for e in os.scandir(CLIP.parent) if e.name == CLIP.name)
    assert extract(entry).video is not None


# --- long names --------------------------------------------------------------------------------------------------


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"crisscross_zoo.cli.{name}", *map(str, arguments)]


@pytest.mark.parametrize("length", [5, 127, 128, 129, 250, 251, 255])
@pytest.mark.parametrize("by", ["", "0-of-8"])
def test_a_temporary_name_is_no_longer_than_the_name_may_be(tmp_path: Path, length: int, by: str) -> None:
    path = tmp_path / ("é" * (length // 2) + "x" * (length % 2))
    with atomic_path(path, by=by) as temporary:
        assert len(os.fsencode(temporary.name)) <= 255
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".tmp")
        temporary.write_bytes(b"1")
    with atomic_path(path, by=by) as again:
        assert again == temporary  # the file of a killed process is overwritten
        again.write_bytes(b"2")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_long_names_that_begin_alike_have_temporary_names_of_their_own(tmp_path: Path) -> None:
    with atomic_path(tmp_path / f"{'n' * 250}1") as one, atomic_path(tmp_path / f"{'n' * 250}2") as other:
        assert one != other
        one.touch()
        other.touch()


@pytest.mark.parametrize(("suffix", "longest"), [(".npz", 255), (".safetensors", 255), (".npy", 250)])
def test_features_have_names_as_long_as_the_file_system_takes(
    tmp_path: Path, suffix: str, longest: int
) -> None:
    features = Features(video=np.zeros((1, 2), np.float32), video_windows=np.array([[0, 0.5]]))
    path = tmp_path / (("n" * (longest - len(suffix))) + suffix)
    features.save(path)
    np.testing.assert_array_equal(Features.load(path).video, features.video)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        OutputError, match="a file name of 256 bytes, where 255 are allowed; choose a shorter"
    ):
        features.save(path.with_name(f"n{path.name}"))
    assert sorted(tmp_path.iterdir()) == before


def test_a_single_output_with_too_long_a_name_fails_before_any_work(tmp_path: Path) -> None:
    for name in (f"{'n' * 252}.npz", f"{'n' * 247}.npy"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *command("extract", CLIP, "--out", tmp_path / name, *DEMO)[1:]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert done.returncode == 1
        assert len(lines) == 1
        assert "a file name of 25" in lines[0]
        assert not any(line.endswith(" torch") for line in done.stderr.splitlines())


def test_of_a_folder_only_what_has_too_long_an_output_fails(tmp_path: Path) -> None:
    """The longest name fits as .npz, which is as long as .mp4, and not as .safetensors."""
    source = tmp_path / "in"
    source.mkdir()
    longest = source / f"{'n' * 251}.mp4"
    shutil.copy(CLIP, longest)
    shutil.copy(CLIP, source / "short.mp4")
    for form, code, files in (("npz", 0, 2), ("safetensors", 1, 1)):
        out = tmp_path / form
        done = subprocess.run(
            command("extract", source, "--out", out, "--format", form, "--workers", "0", "--overwrite", *DEMO),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert len(list(out.glob(f"*.{form}"))) == files
    (failure,) = map(json.loads, (tmp_path / "safetensors" / "failed.jsonl").read_text().splitlines())
    assert failure["path"] == str(longest)
    assert failure["reason"] == "a file name of 263 bytes, where 255 are allowed"


# --- standard streams --------------------------------------------------------------------------------------------

COMMANDS = {
    "extract": ("--version",),
    "weights": ("list",),
    "pretrain": ("--help",),
    "evaluate": ("linear", "esc50", "--settings"),
}
CLOSED = ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


def shell(words: list[str], redirected: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *words],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="a shell closes them")
@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_work_with_closed_streams(name: str, closed: str) -> None:
    done = shell(command(name, *COMMANDS[name]), closed)
    assert done.returncode == 0
    assert done.stderr == ""
    assert bool(done.stdout) == (">&- " not in f"{closed} ".replace("2>&-", ""))
    assert shell(command(name, "--no-such-option"), closed).returncode == 2


def written(folder: Path, redirected: str) -> dict[str, bytes]:
    """Extract a file and a missing one, both in ``folder``, and return the written files by name."""
    inputs, out = [folder / "in.mp4", folder / "gone.mp4"], folder / f"out{len(list(folder.iterdir()))}"
    done = shell(command("extract", *inputs, "--out", out, "--workers", "1", *DEMO), redirected)
    assert done.returncode == 1
    return {p.name: p.read_bytes() for p in out.iterdir()}


@pytest.fixture(scope="module")
def with_open_streams(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("streams")
    shutil.copy(CLIP, folder / "in.mp4")
    return folder, written(folder, "")


@pytest.mark.skipif(os.name == "nt", reason="a shell closes them")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_nothing_is_lost_with_closed_streams(
    with_open_streams: tuple[Path, dict[str, bytes]], closed: str
) -> None:
    """Without standard streams the first files to be opened have their numbers, and get what libraries print."""
    folder, found = with_open_streams
    assert written(folder, closed) == found
    assert set(found) == {"in.npz", "index.csv", "failed.jsonl"}


@pytest.mark.skipif(os.name == "nt", reason="a shell closes them")
def test_a_library_call_works_without_stderr(tmp_path: Path) -> None:
    script = (
        "import sys; from crisscross_zoo import FeatureExtractor;"
        "extract = FeatureExtractor('demo', clips=1, device='cpu', workers=1);"
        "print([type(result).__name__ for _, result in extract.stream(sys.argv[1:])])"
    )
    done = shell([sys.executable, "-c", script, str(CLIP)], "2>&-")
    assert done.stdout == "['Features']\n"


def with_reader_gone(words: list[str], *, stderr_too: bool = False) -> subprocess.CompletedProcess[str]:
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            words, stdout=write, stderr=write if stderr_too else subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)


@pytest.mark.skipif(os.name == "nt", reason="a broken pipe is POSIX's")
@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_went_away_ends_the_command_quietly(name: str, unbuffered: list[str]) -> None:
    python, *rest = command(name, *COMMANDS[name])
    done = with_reader_gone([python, *unbuffered, *rest])
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(os.name == "nt", reason="a broken pipe is POSIX's")
def test_work_continues_when_readers_went_away(tmp_path: Path) -> None:
    """As with ``2>&1 | head -1``: the error of the first file that fails finds no reader."""
    inputs = [tmp_path / "gone.mp4", tmp_path / "in.mp4"]
    shutil.copy(CLIP, inputs[1])
    words = command("extract", *inputs, "--out", tmp_path / "out", "--workers", "0", *DEMO)
    done = with_reader_gone(words, stderr_too=True)
    assert done.returncode == 1  # of the input that failed
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"in.npz", "index.csv", "failed.jsonl"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stdout_that_takes_nothing_is_one_line() -> None:
    done = shell(command("weights", "list"), "> /dev/full")
    assert done.returncode == 1
    assert done.stderr == "crisscross-weights: error: standard output: No space left on device\n"


def test_streams_are_restored(capfd: pytest.CaptureFixture[str]) -> None:
    from crisscross_zoo.cli.weights import main

    before = sys.stdout, sys.stderr
    assert main(["list"]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert "demo" in capfd.readouterr().out
