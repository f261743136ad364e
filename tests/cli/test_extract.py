import argparse
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from make_media import make_media
from make_trees import contents

from crisscross_zoo import Features
from crisscross_zoo.cli.extract import _Report, main
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.extract.report import Progress

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Save narrow encoders with ``save_pretrained``, and return their folder."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        build_encoder(VideoConfig(width=8, depth=10, size=64)).save_pretrained(folder / "video")
        build_encoder(AudioConfig(width=8, depth=10)).save_pretrained(folder / "audio")
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for name in ("a.mp4", "sub/b.mp4", "sub/deep/c.mkv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make_media(folder / name, seconds=1.5, size=(96, 64))
    make_media(folder / "audio.wav", video=None, audio="pcm_s16le", seconds=3)
    (folder / "notes.txt").write_text("not media")
    return folder


@pytest.fixture
def extract(weights, capsys):
    def run(*args, modality="video", workers=0):  # a process imports torch first; None: the default
        audio = [] if modality != "both" else ["--audio-weights", str(weights / "audio")]
        first = weights / ("audio" if modality == "audio" else "video")
        decoding = [] if workers is None or "--workers" in args else ["--workers", str(workers)]
        code = main([*map(str, args), *decoding, *audio, "--weights", str(first), "--modality", modality,
                     "--device", "cpu", "--pooling", "avg"])  # fmt: skip
        return code, *capsys.readouterr()

    return run


def test_one_file_to_npy(extract, tree, tmp_path):
    out = tmp_path / "new" / "feats.npy"
    code, stdout, stderr = extract(tree / "a.mp4", "--out", out)
    assert code == 0
    assert np.load(out).shape == (3, 64)
    assert "video 3 rows x 64, 0.0 to 1.5 s of" in stdout
    assert stderr == ""
    assert sorted(p.name for p in out.parent.iterdir()) == ["feats.npy", "feats.npy.json"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_one_file_to_a_container(extract, tree, tmp_path, suffix):
    code, _, _ = extract(
        tree / "a.mp4", "--out", tmp_path / f"feats{suffix}", "--stride", "0.25", modality="both"
    )
    assert code == 0
    features = Features.load(tmp_path / f"feats{suffix}")
    assert features.video.shape == features.audio.shape == (5, 64)


def test_a_folder_to_a_folder(extract, tree, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = extract(tree, "--out", out, modality="both", workers=None)
    assert code == 0
    assert sorted(contents(out)) == ["a.npz", "audio.npz", "index.csv", "sub/b.npz", "sub/deep/c.npz"]
    assert "4 files done, 0 already there, 0 failed" in stdout
    rows = {r["output"]: r for r in csv.DictReader((out / "index.csv").open())}
    assert rows["audio.npz"]["missing"] == "video"
    assert rows["a.npz"]["video_rows"] == rows["a.npz"]["audio_rows"] == "3"
    assert "has no video; its audio features are written" in stderr


def test_a_note_is_printed_for_three_files_and_then_counted(extract, tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(5):
        make_media(tmp_path / f"in/{n}.mp4", seconds=0.3, size=(96, 64), audio_seconds=2)
    make_media(tmp_path / "in/s.wav", video=None, audio="pcm_s16le", seconds=3)
    code, _, stderr = extract(tmp_path / "in", "--out", tmp_path / "out")
    assert code == 0
    lines = [line.removeprefix("crisscross-extract: note: ") for line in stderr.splitlines()]
    text = "the video is shorter than one clip; its frames are repeated"
    assert lines[0] == f"{tmp_path / 'in'}: 1 audio file skipped (--modality video)"
    assert [line.split(": ")[1] for line in lines[1:4]] == [text] * 3
    assert lines[4:] == [f"the same for 2 more files: {text}"]
    assert extract(tmp_path / "in", "--out", tmp_path / "out", "--overwrite", "--quiet")[2] == ""


def test_a_folder_of_audio_files_is_not_reported_as_empty(extract, tmp_path):
    (tmp_path / "in").mkdir()
    make_media(tmp_path / "in/s.wav", video=None, audio="pcm_s16le", seconds=1)
    code, _, stderr = extract(tmp_path / "in", "--out", tmp_path / "out")
    assert code == 2
    assert "has audio files only; use --modality audio" in stderr


def test_a_shard_names_the_list_of_its_failures_until_all_are_done(extract, tree, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    inputs = [tmp_path / "bad.mp4", tree / "a.mp4"]
    out = tmp_path / "out"
    bad, good = (sorted(map(str, inputs)).index(str(path)) for path in inputs)
    code, stdout, stderr = extract(*inputs, "--out", out, "--shard", f"{bad}/2")
    assert code == 1
    assert f"1 failed (see {out / '.parts' / f'{bad}-of-2' / 'failed.jsonl'})" in stdout
    assert "the last shard to finish writes index.csv and failed.jsonl" in stderr
    _, _, stderr = extract(*inputs, "--out", out, "--shard", f"{good}/2")
    assert "the last shard to finish" not in stderr
    assert (out / "failed.jsonl").exists()


def test_inputs_are_taken_in_the_order_given(extract, tree, tmp_path):
    paths = [str(tree / name) for name in ("sub/b.mp4", "a.mp4")]
    _, stdout, _ = extract(*paths, "--out", tmp_path, "--json")
    assert [output["input"] for output in json.loads(stdout)["outputs"]] == paths


def test_finished_outputs_are_skipped_and_others_redone(extract, tree, tmp_path):
    out = tmp_path / "out"
    extract(tree / "sub", "--out", out)
    before = contents(out)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.npz")}
    code, stdout, _ = extract(tree / "sub", "--out", out)
    assert (code, contents(out)) == (0, before)
    assert "0 files done, 2 already there" in stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.npz")} == times
    code, stdout, _ = extract(tree / "sub", "--out", out, "--clips", "2")
    assert "2 files done, 0 already there" in stdout
    assert Features.load(out / "b.npz").video.shape[0] == 2
    code, stdout, _ = extract(tree / "sub", "--out", out, "--clips", "2", "--overwrite")
    assert "2 files done, 0 already there" in stdout


def test_bad_inputs_fail_alone_and_are_listed(extract, tree, tmp_path):
    bad = tmp_path / "in"
    bad.mkdir()
    (bad / "empty.mp4").touch()
    (bad / "text.mp4").write_text("words " * 500)
    make_media(bad / "good.mp4", seconds=1, size=(96, 64))
    code, stdout, stderr = extract(bad, bad / "gone.mp4", "--out", tmp_path / "out")
    assert code == 1
    assert len([line for line in stderr.splitlines() if ": error: " in line]) == 3
    assert "Traceback" not in stderr
    failures = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert [Path(f["path"]).name for f in failures] == ["empty.mp4", "gone.mp4", "text.mp4"]
    assert all(f["modality"] == "video" and f["reason"] and f["remedy"] for f in failures)
    assert "1 file done, 0 already there, 3 failed" in stdout
    (bad / "empty.mp4").unlink()
    (bad / "text.mp4").unlink()
    code, _, _ = extract(bad, "--out", tmp_path / "out")
    assert code == 0
    assert not (tmp_path / "out" / "failed.jsonl").exists()


def test_on_error_stop_stops(extract, tree, tmp_path):
    (tmp_path / "0.mp4").touch()
    listing = tmp_path / "list.txt"
    listing.write_text(f"{tmp_path / '0.mp4'}\n{tree / 'a.mp4'}\n{tree / 'sub/b.mp4'}\n")
    code, _, _ = extract("--list", listing, "--out", tmp_path / "out", "--on-error", "stop", "--workers", "0")
    assert code == 1
    assert len(list((tmp_path / "out").rglob("*.npz"))) < 2


def test_json_is_the_whole_of_stdout(extract, tree, tmp_path):
    code, stdout, _ = extract(tree / "sub", "--out", tmp_path / "out", "--json")
    summary = json.loads(stdout)
    assert code == 0
    assert (summary["done"], summary["failed"], summary["clips"]) == (2, 0, 6)
    assert summary["outputs"][0]["shapes"] == {"video": [3, 64]}
    assert summary["outputs"][0].keys() >= {"warnings", "notes", "missing", "padded"}


def test_video_takes_the_files_of_a_folder_that_may_have_frames(extract, tree, tmp_path):
    code, stdout, _ = extract(tree, "--out", tmp_path / "out")
    assert code == 0
    assert "3 files done" in stdout


def test_a_mistyped_input_moves_no_output(extract, tree, tmp_path):
    code, _, _ = extract(tree / "sub" / "b.mp4", tmp_path / "gone.mp4", "--out", tmp_path / "out/")
    assert code == 1
    assert (tmp_path / "out" / "b.npz").exists()


def test_a_missing_input_is_in_the_json_too(extract, tmp_path):
    code, stdout, _ = extract(tmp_path / "gone.mp4", "--out", tmp_path / "x.npz", "--json")
    assert code == 1
    assert json.loads(stdout)["failures"][0]["error"] == "MediaNotFoundError"


def test_outputs_of_two_runs_are_in_one_index(extract, tree, tmp_path):
    extract(tree / "sub" / "b.mp4", "--root", tree, "--out", tmp_path / "out/")
    extract(tree / "a.mp4", "--root", tree, "--out", tmp_path / "out/")
    rows = list(csv.DictReader((tmp_path / "out" / "index.csv").open()))
    assert [r["output"] for r in rows] == ["a.npz", "sub/b.npz"]


def test_quiet_prints_nothing_but_errors(extract, tree, tmp_path):
    code, stdout, stderr = extract(tree / "a.mp4", tree / "audio.wav", "--out", tmp_path / "out", "--quiet")
    assert stdout == ""
    assert [line.split(": ")[1] for line in stderr.splitlines()] == ["error"]  # audio.wav has no frames
    assert code == 1


def test_nothing_of_the_users_is_replaced(extract, tree, tmp_path):
    np.save(tmp_path / "mine.npy", np.arange(3))
    code, _, stderr = extract(tree / "a.mp4", "--out", tmp_path / "mine.npy")
    assert code == 1
    assert "does not hold features made here" in stderr
    np.testing.assert_array_equal(np.load(tmp_path / "mine.npy"), np.arange(3))
    code, _, _ = extract(tree / "a.mp4", "--out", tmp_path / "mine.npy", "--overwrite")
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tree}", "--out", "{tmp}/x.npy"], "is for one input, there are 3"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.h5"], ".h5 is not supported"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npz", "--format", "npy"], "differ"),
        (["--out", "{tmp}/x.npy"], "no input"),
        (["{tree}/*.ogg", "--out", "{tmp}/x"], "matches no file"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--modality", "vide"], "did you mean 'video'"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--strid", "2"], "did you mean '--stride'"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--stride", "-2"], "not a number above 0"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--stride", "abc"], "'abc' is not a number above 0"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.NPY"], "write it as .npy"),
        (["{tree}/a.mp4", "--out", "{tmp}/x", "--root", "{tree}/sub"], "not under the root"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--weights", "audioste"], "did you mean 'audioset'"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--weights", "random:0", "--size", "32"], "does not fit"),
        ([], "--help"),
        (["{tree}/a.mp4", "--out", "x" * 300 + ".npy"], "a file name of 309 bytes"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--frames", "1.5"], "--frames"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--modality", "both"], "one modality"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--stride", "1", "--clips", "2"], "exclude each other"),
        (["{tree}/a.mp4", "--out", "{tmp}/x.npy", "--weights", "random:x"], "not 'x'"),
        (
            [
                "{tree}/a.mp4",
                "--out",
                "{tree}/notes.txt/x.npy",
                "--weights",
                "random:0",
                "--size",
                "64",
                "--pooling",
                "avg",
            ],
            "notes.txt",
        ),
    ],
)
def test_bad_usage_is_one_line(arguments, message, tree, tmp_path, capsys):
    code = main([a.format(tree=tree, tmp=tmp_path) for a in arguments])
    stderr = capsys.readouterr().err
    assert code == (1 if message in ("notes.txt", "a file name of 309 bytes") else 2)
    assert message in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())  # nothing half done


def test_the_bar_moves_before_the_first_file_is_done(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    report = _Report(argparse.Namespace(quiet=False, json=False))
    report(Progress(files=1, of=4, clips=0, known=0, opened=0))  # one was already there
    report(Progress(files=1, of=4, clips=50, known=100, opened=2))
    report.close()
    last = terminal.getvalue().splitlines()[-1].split("\r")[-1]
    assert " 50% |" in last
    assert "1 of 4 files, 50 clips" in last


def command(weights, *args):
    return [
        sys.executable, "-m", "crisscross_zoo.cli.extract", *map(str, args), "--weights", str(weights / "video"),
        "--audio-weights", str(weights / "audio"), "--modality", "both", "--device", "cpu", "--pooling", "avg",
        "--workers", "1", "--stride", "0.1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for k in range(8):
        make_media(folder / f"{k}.mp4", seconds=4, size=(96, 64))
    return folder


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_a_killed_run_started_again_ends_in_the_same_bytes(weights, many, tmp_path, seed):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(weights, many, "--out", whole)[3:]) == 0
    delays = random.Random(seed)
    kills = 0
    while kills < 2:
        process = subprocess.Popen(command(weights, many, "--out", killed), stdout=subprocess.DEVNULL)
        have = len(list(killed.rglob("*.npz")))
        while process.poll() is None and len(list(killed.rglob("*.npz"))) <= have:
            time.sleep(0.01)
        time.sleep(delays.uniform(0, 0.15))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
    assert kills
    assert main(command(weights, many, "--out", killed)[3:]) == 0
    assert contents(killed) == contents(whole)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_soon_and_the_message_says_how_to_resume(weights, many, tmp_path, number):
    out = tmp_path / "out"
    process = subprocess.Popen(command(weights, many, "--out", out), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.rglob("*.npz")):
        time.sleep(0.01)
    started = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - started < 6  # a second or two when the machine is not busy with other tests
    assert process.returncode == 130
    assert "run the same command again to resume" in stderr
    assert "Traceback" not in stderr
    assert (out / "index.csv").exists()
    assert not list(out.rglob("*.tmp"))
