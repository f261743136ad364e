"""The command: index, pretrain, export; every option, and one line for what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from make_media import make_media

from crisscross_zoo import load_encoder
from crisscross_zoo.cli.config_options import config_overrides, field_docs
from crisscross_zoo.cli.pretrain import build_parser, main
from crisscross_zoo.errors import CheckpointError
from crisscross_zoo.pretrain.index import LAYOUTS
from crisscross_zoo.pretrain.presets import PRESETS, make_config

pytestmark = pytest.mark.integration

TINY = """
--video.depth 10 --video.width 8 --video.frames 4 --audio.depth 10 --audio.width 8 --audio.seconds 0.64
--heads.projection 16 --heads.prediction-hidden 8 --data.crop 32 --data.epoch-size 8 --optim.batch-size 4
--optim.epochs 2 --optim.warmup-epochs 0.5 --optim.precision fp32 --run.workers 0 --run.device cpu
--run.no-tensorboard --run.log-steps 1
""".replace("--run.no-tensorboard", "--no-run.tensorboard").split()


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        make_media(folder / f"{number}.mp4", seconds=2.2, size=(64, 48))
    make_media(folder / "silent.mp4", seconds=2.0, size=(64, 48), audio=None)
    (folder / "broken.mp4").write_bytes(b"no media")
    return folder


@pytest.fixture(scope="module")
def index(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "videos.parquet"
    assert main(["index", str(videos), "--out", str(path), "--workers", "1", "--quiet"]) == 0
    return path


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("crisscross-pretrain")]


def test_index_reports_which_files_are_not_usable_and_why(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(videos), "--out", str(tmp_path / "i.parquet"), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "4 of 6 files usable" in out
    assert "no audio" in out
    assert "broken.mp4" in out
    assert main(["index", str(videos), "--out", str(tmp_path / "i.parquet"), "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["usable"], report["total"]) == (4, 6)


def test_prepare_then_train_on_the_copies(
    index: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    command = [
        "prepare",
        str(index),
        "--out",
        str(out),
        "--short-side",
        "32",
        "--fps",
        "20",
        "--workers",
        "1",
    ]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{out / 'index.parquet'}: 4 of 4 files usable (4 written now), 0 MiB before")
    assert "4/4" in shown.err
    assert main([*command, "--quiet", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert json.loads(shown.out)["written"] == 0
    assert main([*command, "--no-fast-decode"]) == 2
    assert "was prepared with other options (fast_decode True, not False)" in capsys.readouterr().err
    for data in (out, out / "index.parquet"):
        run = [
            "kinetics-sound",
            "--data",
            str(data),
            "--out",
            str(tmp_path / f"run-{data.name}"),
            *TINY,
            "--quiet",
        ]
        assert main(run) == 0


def test_prepare_skips_what_fails_and_exits_with_1(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in (0, 1):
        (data / f"{number}.mp4").write_bytes((videos / f"{number}.mp4").read_bytes())
    assert main(["index", str(data), "--out", str(tmp_path / "i.parquet"), "--workers", "1", "--quiet"]) == 0
    (data / "1.mp4").unlink()
    out = tmp_path / "small"
    assert main(["prepare", str(tmp_path / "i.parquet"), "--out", str(out), "--workers", "1"]) == 1
    assert "1 of 2 files usable (1 written now)" in (shown := capsys.readouterr().out)
    assert "1 failed, see failed.jsonl beside it" in shown
    (failure,) = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    assert failure["path"] == str(data / "1.mp4")
    data.rename(tmp_path / "moved")
    again = [
        "prepare",
        str(tmp_path / "i.parquet"),
        "--out",
        str(out),
        "--data-root",
        str(tmp_path / "moved"),
    ]
    assert main([*again, "--workers", "1"]) == 1


def test_an_index_of_nothing_usable_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no media")
    command = ["index", str(tmp_path / "broken.mp4"), "--out", str(tmp_path / "i.parquet"), "--workers", "1"]
    assert main(command) == 1
    assert "0 of 1 file usable" in capsys.readouterr().out


def test_files_that_were_moved_are_found_by_their_root(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    for number in range(4):
        (tmp_path / "here" / f"{number}.mp4").write_bytes((videos / f"{number}.mp4").read_bytes())
    index = str(tmp_path / "i.parquet")
    assert main(["index", str(tmp_path / "here"), "--out", index, "--workers", "1", "--quiet"]) == 0
    (tmp_path / "here").rename(tmp_path / "there")
    command = ["kinetics-sound", "--data", index, "--out", str(tmp_path / "run"), *TINY, "--quiet"]
    assert main([*command, "--run.workers", "1"]) == 1
    (line,) = lines(capsys.readouterr().err)
    assert "here/" in line
    assert "no such file" in line
    assert "Traceback" not in line
    assert main([*command, "--data-root", str(tmp_path / "there")]) == 0


def test_a_run_of_one_modality_names_its_one_encoder(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert (
        main(["kinetics-sound", "--data", str(index), "--out", str(run), *TINY, "--objective", "a1a2"]) == 0
    )
    shown = capsys.readouterr()
    assert shown.out == f"{run}: 4 steps done; the encoder is in its folder audio\n"
    assert "nan" not in shown.err
    with pytest.raises(CheckpointError, match=r"no model\.safetensors of video; it has one of audio alone"):
        load_encoder("video", run)
    assert load_encoder("audio", run).num_features


def test_pretrain_and_export(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["kinetics-sound", "--data", str(index), "--out", str(run), *TINY]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{run}: 4 steps done; the encoders are in its folders video and audio\n"
    assert "samples/s" in shown.err
    (began,) = lines(shown.err)
    assert began.endswith("4 files; steps 0 to 4 of 4 samples, 2 per epoch; on 1 x cpu in fp32")
    assert main(["kinetics-sound", "--data", str(index.parent.parent), "--out", str(run), *TINY]) == 2
    assert "has no index.parquet" in capsys.readouterr().err
    settings = json.loads((run / "config.json").read_text())
    assert settings["optim"]["batch_size"] == 4
    assert settings["video"]["width"] == 8
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / m) for m in ("video", "audio")]
    assert load_encoder("audio", tmp_path / "out" / "audio").config.width == 8  # type: ignore[attr-defined]
    assert main(["kinetics-sound", "--data", str(index), "--out", str(run), *TINY, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "run": str(run),
        "step": 4,
        "total_steps": 4,
        "finished": True,
    }


@pytest.mark.parametrize(("workers", "whole_group"), [("0", False), ("2", True)])
def test_interrupted_it_writes_a_checkpoint_and_exits_with_130(
    index: Path, tmp_path: Path, workers: str, whole_group: bool
) -> None:
    command = [
        sys.executable, "-m", "crisscross_zoo.cli.pretrain", "audioset", "--data", str(index),
        "--out", str(tmp_path / "run"), *TINY, "--optim.epochs", "500", "--quiet",
        "--run.workers", workers,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        log = tmp_path / "run" / "log.csv"
        for _ in range(600):
            if log.is_file() and log.read_text().count("\n") > 2:
                break
            time.sleep(0.1)
        if whole_group:  # as torchrun and Slurm do: the data processes get the signal, too
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = lines(err)
    assert "of 1000, with a checkpoint; run the same command again to resume" in line
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["kinetics40"], 2, "did you mean 'kinetics400'"),
        (["kinetics400", "--out", "x"], 2, "--data"),
        (["kinetics400", "--data", "no.parquet", "--out", "x"], 2, "no.parquet"),
        (
            ["kinetics400", "--data", "x", "--out", "y", "--optim.lr", "1"],
            2,
            "there is no option '--optim.lr'",
        ),
        (["kinetics400", "--data", "x", "--out", "y", "--optim.batch-size", "many"], 2, "invalid int value"),
        (["kinetics400", "--data", "x", "--out", "y", "--optim.batch-size", "1"], 2, "at least 2"),
        (["kinetics400", "--data", "x", "--out", "y", "--objective", "syn"], 2, "did you mean 'sync'"),
        (["kinetics400", "--data", "x", "--out", "y", "--data.relaxation", "far"], 2, "choose from none"),
        (["kinetics400", "--data", "x", "--out", "y", "--video-augment.area", "1", "0.5"], 2, "area"),
        (["export", "nowhere"], 1, "has no checkpoints"),
        (["index", "--out", "i.parquet"], 2, "no input"),
        (["index", "nowhere", "--out", "i.parquet"], 2, "nowhere: no such file or folder"),
        (["prepare", "no.parquet", "--out", "x"], 2, "no.parquet"),
        (["prepare", "no.parquet", "--out", "x", "--fps", "0"], 2, "--fps"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], code: int, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    err = capsys.readouterr().err
    (line,) = lines(err)
    assert reason in line
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_every_field_has_an_option_with_help(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([preset, "--help"]) == 0
    text = capsys.readouterr().out
    for group in (f.name for f in dataclasses.fields(PRESETS[preset])):
        section = getattr(PRESETS[preset], group)
        if dataclasses.is_dataclass(section):
            for field in dataclasses.fields(section):
                assert field_docs(type(section)).get(field.name), (
                    f"{group}.{field.name} has no line under Attributes"
                )
                if field.name != "pooling":
                    flag = f"{group}.{field.name}".replace("_", "-")
                    assert f"--{flag} " in text or f"--{flag}\n" in text or f"--{flag}, --no-" in text


def test_options_become_overrides_of_the_right_types() -> None:
    given = (
        "kinetics400 --data i --out o --seed 3 --optim.betas 0.8 0.9 --no-run.channels-last --run.compile"
        " --video-augment.area 0.2 0.9 --data.relaxation medium --optim.video-lr 1e-3 --video.mean 0.1 0.2 0.3"
    )
    options = build_parser().parse_args(given.split())
    overrides: dict[str, Any] = config_overrides(
        options, PRESETS["kinetics400"], skip=("preset", "objective")
    )
    assert overrides == {
        "seed": 3, "optim.betas": (0.8, 0.9), "run.channels_last": False, "run.compile": True,
        "video_augment.area": (0.2, 0.9), "data.relaxation": "medium", "optim.video_lr": 1e-3,
        "video.mean": (0.1, 0.2, 0.3),
    }  # fmt: skip
    assert make_config("kinetics400", overrides=overrides).video.mean == (0.1, 0.2, 0.3)


def test_layouts_are_those_of_the_index() -> None:
    parser = build_parser()
    for layout in LAYOUTS:
        assert parser.parse_args(["index", "x", "--out", "y", "--layout", layout]).layout == layout


def test_the_demo_names_the_folders_of_its_encoders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("crisscross_zoo.demo.run.run_demo", lambda *args, **kwargs: {})
    monkeypatch.setattr("crisscross_zoo.demo.run.report_lines", lambda report: ["scores"])
    assert main(["demo", "--out", "demo", "--seeds", "2"]) == 0
    streams = capsys.readouterr()
    assert streams.out == "scores\n"
    folders = f"{Path('demo', 'seed0')}, {Path('demo', 'seed1')}"
    assert f"the encoders are in {folders}, for --weights; the report is in demo" in streams.err
    assert main(["demo", "--out", "demo", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


# --- generate ----------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_generate_writes_clips_and_reports_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--out", str(tmp_path / "clips"), "--clips", "2", "--workers", "1"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(tmp_path / "clips"), "clips": 2}
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == ["000000.mp4", "000001.mp4"]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'clips'}: 2 clips\n"


@pytest.mark.parametrize(("option", "value"), [("--clips", "0"), ("--seed", "-1")])
def test_generate_refuses_numbers_out_of_range(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"--out": str(tmp_path), "--clips": "1", option: value}
    assert main(["generate", *(word for pair in words.items() for word in pair)]) == 2
    assert value in capsys.readouterr().err


def test_generate_names_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert (
        main(["generate", "--out", str(tmp_path / "file"), "--clips", "1", "--workers", "1", "--quiet"]) == 1
    )
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert error.count("\n") == 1
