from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from weights.fixtures import (
    narrow_states,
    pth_bytes,
    safetensors_files,
    server,
    tiny_manifest,
    write_manifest,
    zip_bytes,
)
from weights.hub_server import HubServer

from crisscross_zoo import __version__, list_weights
from crisscross_zoo.cli.common import ArgumentParser, error_line, run
from crisscross_zoo.cli.weights import main
from crisscross_zoo.errors import CheckpointError, ConfigError, CrissCrossError
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights.manifest import MANIFEST_VARIABLE

__all__ = ["narrow_states", "safetensors_files", "server", "write_manifest"]  # fixtures

# The Hub's client causes this warning with its own transport; it cannot be fixed here.
CLIENTS_WARNING = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Capture = pytest.CaptureFixture[str]
States = dict[str, dict[str, torch.Tensor]]


@pytest.fixture
def released(server: HubServer, write_manifest: Callable[..., Path], narrow_states: States) -> HubServer:
    """Both modalities of ``tiny`` have their origin on loopback."""
    changes = {}
    for modality, state in narrow_states.items():
        server.origins[f"{modality}.zip"] = zip_bytes({f"{modality}.pth.tar": pth_bytes(state)})
        origin = {"url": server.origin(f"{modality}.zip"), "member_suffix": ".pth.tar", "sha256": None}
        changes[modality] = {"origin": origin}
    write_manifest(**changes)
    return server


def output(capsys: Capture) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_list_shows_every_checkpoint(capsys: Capture) -> None:
    assert main(["list"]) == 0
    out, err = output(capsys)
    assert err == ""
    header, *rows = out.splitlines()
    assert header.split()[:2] == ["NAME", "MODALITY"]
    assert [tuple(row.split()[:2]) for row in rows] == [(e.name, e.modality) for e in list_weights()]
    assert "UCF101 92.4, HMDB51 67.4" in rows[0]
    assert "authors' release" in rows[0]
    assert "installed" in rows[-1]
    for row, entry in zip(rows, list_weights(), strict=True):  # under the heading "top-1"
        shown = [r.benchmark for r in entry.results if r.value is not None and "R@1" not in r.metric]
        assert [row.count(f"{name} ") for name in shown] == [1] * len(shown)


def test_list_as_json_is_the_manifest(capsys: Capture) -> None:
    assert main(["list", "--json", "--modality", "audio"]) == 0
    entries = json.loads(output(capsys)[0])
    assert [e["name"] for e in entries] == ["audioset", "kinetics400", "kinetics-sound", "demo"]
    assert entries[0]["config"]["modality"] == "audio"
    assert entries[0]["hub"] == {"repo": None, "file": None, "revision": None, "sha256": None}


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["download", "--help"], ["--version"]])
def test_help_and_list_do_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from crisscross_zoo.cli.weights import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsit"], "'lsit' is not known; did you mean 'list'?"),
        (["list", "--modality", "vidoe"], "argument --modality: 'vidoe' is not known; did you mean 'video'?"),
        (["list", "--modalty", "video"], "there is no option '--modalty'; did you mean '--modality'?"),
        (["list", "--mod", "video"], "there is no option '--mod'"),
        (
            ["list", "--repo", "a/b"],
            "there is no option '--repo'; choose from --help, --json, --modality, --quiet",
        ),
        (["convert", "a.pth", "--out", "b", "--oevrwrite"], "did you mean '--overwrite'?"),
        (["publish", "audioset"], "the following arguments are required: --modality, --repo"),
        ([], "the following arguments are required: COMMAND"),
        (["list", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    out, err = output(capsys)
    assert out == ""
    assert message in err
    assert err.startswith("crisscross-weights")
    assert err.count("\n") == 1


def test_download_prints_the_paths_and_stays_quiet_about_the_rest(
    released: HubServer, capsys: Capture
) -> None:
    assert main(["download", "tiny"]) == 0
    out, err = output(capsys)
    assert err == ""  # not a terminal: no progress bar
    video, audio = (Path(line) for line in out.splitlines())
    assert (video.name, audio.name) == ("tiny-video.safetensors", "tiny-audio.safetensors")
    assert main(["download", "tiny", "--modality", "audio", "--json", "--quiet"]) == 0
    (result,) = json.loads(output(capsys)[0])
    assert result == {
        "weights": "tiny",
        "modality": "audio",
        "path": str(audio),
        "sha256": file_sha256(audio),
    }
    assert released.count("GET") == 2


def test_download_takes_a_hub_id(
    server: HubServer, safetensors_files: dict[str, Path], capsys: Capture
) -> None:
    commit = server.repos["org/aud"].commit({"model.safetensors": safetensors_files["audio"].read_bytes()})
    assert main(["download", "org/aud", "--json"]) == 0
    (result,) = json.loads(output(capsys)[0])
    assert (result["weights"], result["modality"]) == (f"org/aud@{commit}", "audio")


def test_a_progress_bar_is_on_stderr_of_a_terminal(
    released: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["download", "tiny", "--modality", "video"]) == 0
    out, err = output(capsys)
    assert len(out.splitlines()) == 1
    assert "video.zip" in err
    assert "100%" in err


def test_quiet_hides_progress_and_retries(
    released: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    released.faults.statuses = [503]
    assert main(["download", "tiny", "--modality", "video", "--quiet"]) == 0
    assert output(capsys)[1] == ""
    assert caplog.records == []
    released.faults.statuses = [503]  # and what was hidden is back
    assert main(["download", "tiny", "--modality", "audio"]) == 0
    assert "100%" in output(capsys)[1]
    assert "trying again in" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "tinny"], "'tinny'; did you mean 'tiny'?"),
        (["download", "./none.pth"], "./none.pth: there is no such file or folder"),
        (["download", "org/none"], "org/none: neither a path here nor a repository"),
        (["convert", "none.pth.tar", "--out", "out.safetensors"], "none.pth.tar: there is no such file"),
    ],
)
def test_names_of_nothing_are_one_line_and_exit_2(
    arguments: list[str], message: str, released: HubServer, capsys: Capture
) -> None:
    assert main(arguments) == 2
    out, err = output(capsys)
    assert out == ""
    assert err.startswith("crisscross-weights: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_convert_makes_safetensors(narrow_states: States, tmp_path: Path, capsys: Capture) -> None:
    source, out = tmp_path / "x.pth.tar", tmp_path / "x.safetensors"
    source.write_bytes(pth_bytes(narrow_states["audio"]))
    assert main(["convert", str(source), "--out", str(out), "--modality", "video"]) == 1
    assert "this is an audio checkpoint" in output(capsys)[1]
    assert not out.exists()
    assert main(["convert", str(source), "--out", str(out), "--modality", "audio"]) == 0
    assert output(capsys)[0] == f"{file_sha256(out)}  {out}\n"
    assert main(["convert", str(source), "--out", str(out)]) == 2
    assert "exists; choose another name, or pass --overwrite" in output(capsys)[1]
    assert main(["convert", str(source), "--out", str(out), "--overwrite", "--json"]) == 0
    assert json.loads(output(capsys)[0]) == {"path": str(out), "sha256": file_sha256(out)}


def test_verify_lists_what_is_cached_and_what_is_not(released: HubServer, capsys: Capture) -> None:
    assert main(["verify"]) == 0  # nothing is there, nothing is wrong
    assert [line.split() for line in output(capsys)[0].splitlines()] == [
        ["absent", "tiny", "video"],
        ["absent", "tiny", "audio"],
    ]
    assert main(["verify", "tiny"]) == 1  # asked for by name, it should be there
    assert "crisscross-weights download tiny" in output(capsys)[0]
    main(["download", "tiny", "--modality", "video"])
    (path,) = (Path(line) for line in output(capsys)[0].splitlines())
    assert main(["verify", "--json"]) == 0
    ok, absent = json.loads(output(capsys)[0])
    assert ok == {
        "weights": "tiny",
        "modality": "video",
        "path": str(path),
        "sha256": file_sha256(path),
        "status": "ok",
    }
    assert absent["status"] == "absent"


def test_verify_lists_what_is_planned(write_manifest: Callable[..., Path], capsys: Capture) -> None:
    write_manifest(audio={"status": "planned"})
    assert main(["verify"]) == 0
    assert output(capsys)[0].splitlines() == ["absent  tiny  video", "planned tiny  audio"]
    assert main(["verify", "--json"]) == 0
    assert json.loads(output(capsys)[0])[1] == {"weights": "tiny", "modality": "audio", "status": "planned"}
    assert main(["verify", "tiny"]) == 1
    assert "planned and not shipped yet" in output(capsys)[0]


def test_verify_checks_files(
    safetensors_files: dict[str, Path], narrow_states: States, tmp_path: Path, capsys: Capture
) -> None:
    bad = tmp_path / "bad.pth"
    bad.write_bytes(pth_bytes({**narrow_states["video"], "conv1.1.bias": torch.full((8,), torch.nan)}))
    assert main(["verify", str(safetensors_files["audio"]), str(bad), str(tmp_path / "none.pth")]) == 1
    good, nan, missing = output(capsys)[0].splitlines()
    assert good.split() == [
        "ok",
        "audio.safetensors",
        "audio",
        file_sha256(safetensors_files["audio"]),
        str(safetensors_files["audio"]),
    ]
    assert nan.startswith("failed")
    assert "conv1.1.bias holds values that are not finite" in nan
    assert "there is no such file" in missing


def test_publish_dry_run(released: HubServer, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "out"
    arguments = ["publish", "tiny", "--modality", "video", "--repo", "org/tiny", "--dry-run", str(folder)]
    assert main(arguments) == 0
    assert output(capsys)[0].endswith("nothing was pushed\n")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert released.count("POST") == 0
    assert main(arguments) == 2
    assert "is not empty" in output(capsys)[1]


@CLIENTS_WARNING
def test_publish_pushes(released: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert main(["publish", "tiny", "--modality", "audio", "--repo", "org/a", "--private", "--json"]) == 0
    out, err = output(capsys)
    note = f"crisscross-weights: the Hub fields were written to {os.environ[MANIFEST_VARIABLE]}\n"
    assert err.endswith(note)  # after the client's progress bar
    hub = json.loads(out)
    assert list(released.repos["org/a"].commits) == [hub["revision"]]
    assert released.repos["org/a"].private
    main(["list"])
    assert "org/a" in output(capsys)[0]


@CLIENTS_WARNING
def test_publish_notes_that_the_installed_manifest_changed(
    released: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    monkeypatch.setattr("crisscross_zoo.cli.weights.PACKAGE_FOLDER", tmp_path)
    arguments = ["publish", "tiny", "--modality", "audio", "--repo", "org/a"]
    assert main(arguments) == 0
    assert f"{tmp_path / 'manifest.json'}: an installed copy" in output(capsys)[1]
    assert main([*arguments, "--quiet"]) == 0
    assert output(capsys)[1] == ""
    assert main(["publish", "--help"]) == 0
    assert "from a checkout with an editable install" in output(capsys)[0]


# What all commands share


def test_run_turns_what_is_raised_into_exit_codes(capsys: Capture) -> None:
    def raising(error: BaseException) -> Callable[[Any], int]:
        def main(argv: Any) -> int:
            raise error

        return main

    refused = CheckpointError("bad", remedy="do this", path="x.pth")
    assert run(raising(refused), [], prog="tool") == 1
    assert output(capsys) == ("", "tool: error: x.pth: bad; do this\n")
    assert run(raising(ConfigError("odd")), [], prog="tool") == 2
    assert output(capsys) == ("", "tool: error: odd\n")
    assert run(raising(KeyboardInterrupt()), [], prog="tool") == 130
    assert output(capsys) == ("", "tool: interrupted\n")
    assert run(lambda argv: 1, [], prog="tool") == 1
    with pytest.raises(ZeroDivisionError):  # a bug is not hidden
        run(raising(ZeroDivisionError()), [], prog="tool")


def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    code = (
        "import sys; from crisscross_zoo.cli.common import run\n"
        "def main(argv):\n    for i in range(100000): print(i)\n    return 0\n"
        "sys.exit(run(main, [], prog='tool'))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_a_misspelt_option_is_compared_with_all_of_the_parser(capsys: Capture) -> None:
    parser = ArgumentParser(prog="tool")
    parser.add_common_options(as_json="x")
    assert run(lambda argv: parser.parse_args(["--quite"]) and 0, [], prog="tool") == 2
    assert output(capsys)[1] == "tool: error: there is no option '--quite'; did you mean '--quiet'?\n"


@pytest.mark.parametrize(
    ("reason", "remedy", "line"),
    [
        (
            "audio_seconds=0 is out of range",
            "pass a number",
            "--audio-seconds 0 is out of range; pass a number",
        ),
        ("no video", "use modality 'audio' or 'both'", "no video; use --modality audio or both"),
        ("is damaged", "pass strict=False", "is damaged; leave out --strict"),
        ("no network", "weights='demo' is there; HF_X=1", "no network; --weights demo is there; HF_X=1"),
        ("clips.size=0", "clips=10", "--clips.size 0; --clips 10"),
    ],
)
def test_arguments_in_errors_are_options_of_the_command(reason: str, remedy: str, line: str) -> None:
    parser = ArgumentParser(prog="tool")
    for option in ("--audio-seconds", "--modality", "--strict", "--weights", "--clips", "--clips.size"):
        parser.add_argument(option)
    parser.parse_args([])
    assert (
        error_line(CrissCrossError(reason, remedy=remedy, path="clips=1/b.mp4")) == f"clips=1/b.mp4: {line}"
    )


def test_arguments_that_the_command_has_no_option_for_stay() -> None:
    parser = ArgumentParser(prog="tool")
    parser.add_common_options(as_json="x")
    parser.parse_args([])
    error = CrissCrossError("lr=0.1", remedy="use modality 'audio', or pass strict=False")
    assert error_line(error) == "lr=0.1; use modality 'audio', or pass strict=False"


def test_the_version_is_the_package_s(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert output(capsys)[0] == f"crisscross-zoo {__version__}\n"


def test_the_manifest_of_the_variable_is_used(write_manifest: Callable[..., Path], capsys: Capture) -> None:
    write_manifest()
    assert main(["list", "--json"]) == 0
    names = {e["name"] for e in json.loads(output(capsys)[0])}
    assert names == {e["name"] for e in tiny_manifest()["checkpoints"]} == {"tiny"}
