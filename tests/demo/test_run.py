"""The demo from end to end, on very little data: its folder, its report, and that it resumes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from crisscross_zoo.demo import run as demo
from crisscross_zoo.demo.data import CLASSES
from crisscross_zoo.demo.run import report_lines, run_demo
from crisscross_zoo.evaluate.plan import Compute
from crisscross_zoo.pretrain.presets import PRESETS, make_config
from crisscross_zoo.weights.load import load_encoder

pytestmark = pytest.mark.integration

SHORT: dict[str, Any] = {
    "optim.batch_size": 8, "optim.epochs": 1, "optim.warmup_epochs": 0.5, "data.epoch_size": 16, "run.workers": 0,
    "run.tensorboard": False, "run.log_steps": 1, "run.device": "cpu",
}  # fmt: skip


def test_it_makes_data_pretrains_scores_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    config = make_config("demo", overrides=SHORT)
    monkeypatch.setattr(demo, "CLIPS", 1)
    monkeypatch.setattr(
        demo, "Compute", functools.partial(Compute, workers=0)
    )  # few files: processes cost more
    report = run_demo(tmp_path, config, seeds=1, train_clips=2, test_clips=1, on_message=messages.append)
    assert report is not None
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["clips"] == {"train": 2 * len(CLASSES), "test": len(CLASSES)}
    names = ["video/linear", "video/retrieval", "audio/linear", "audio/retrieval", "both/fusion"]
    assert list(report["pretrained"]) == list(report["random"]) == names
    for value in (*report["pretrained"].values(), *report["random"].values()):
        assert 0 <= value["mean"] <= 1
        # a fraction of the test clips
        assert value["mean"] * len(CLASSES) == pytest.approx(round(value["mean"] * len(CLASSES)))
    text = "\n".join(report_lines(report))
    assert (tmp_path / "report.md").read_text() == text + "\n"
    assert "| video/linear |" in text
    assert len(messages) == 3

    # each accuracy is that of an evaluation of the run's encoders
    evaluations = tmp_path / "seed0" / "evaluations"
    fusion = json.loads((evaluations / "pretrained" / "fusion-2s" / "result.json").read_text())
    assert report["pretrained"]["both/fusion"]["values"] == [fusion["top1"]["mean"]]
    video = load_encoder("video", tmp_path / "seed0" / "video")
    assert fusion["weights"]["video"]["sha256"] == video.weights_sha256
    recall = json.loads((evaluations / "random" / "retrieval-both" / "result.json").read_text())["recall"]
    assert report["random"]["audio/retrieval"]["values"] == [recall["audio-to-audio"]["1"]["mean"]]

    # a second seed is all that is left to do
    accuracies = {name: value["mean"] for name, value in report["pretrained"].items()}
    evaluated: list[Path] = []
    monkeypatch.setattr(demo, "_evaluate", lambda *args, **_: evaluated.append(args[4]) or accuracies)
    before = (tmp_path / "seed0" / "scores.json").read_bytes()
    again = run_demo(tmp_path, config, seeds=2, train_clips=2, test_clips=1)
    assert evaluated == [tmp_path / "seed1" / "evaluations" / kind for kind in ("pretrained", "random")]
    assert again is not None
    assert (tmp_path / "seed0" / "scores.json").read_bytes() == before
    assert len(again["pretrained"]["video/linear"]["values"]) == 2
    assert (tmp_path / "seed1" / "audio" / "model.safetensors").is_file()


def test_its_encoders_are_small_and_fit_the_default_pooling() -> None:
    config = PRESETS["demo"]
    assert (config.video.pooling, config.audio.pooling) == ("linear", "linear")
    assert config.video.size >= 97
    assert config.data.crop < config.video.size
