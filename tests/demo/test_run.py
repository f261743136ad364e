"""The demo from end to end, on next to no data: its folder, its report, and that it goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crisscross_zoo.demo import run as demo
from crisscross_zoo.demo.data import CLASSES
from crisscross_zoo.demo.run import report_lines, run_demo
from crisscross_zoo.pretrain.presets import PRESETS, make_config

SHORT: dict[str, Any] = {
    "optim.batch_size": 8, "optim.epochs": 1, "optim.warmup_epochs": 0.5, "data.epoch_size": 16, "run.workers": 0,
    "run.tensorboard": False, "run.log_steps": 1, "run.device": "cpu",
}  # fmt: skip


def test_it_makes_data_pretrains_scores_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    config = make_config("demo", overrides=SHORT)
    report = run_demo(tmp_path, config, seeds=1, train_clips=3, test_clips=1, say=said.append)
    assert report is not None
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["clips"] == {"train": 3 * len(CLASSES), "test": len(CLASSES)}
    names = {f"{m}/{how}" for m in ("video", "audio", "both") for how in ("linear", "retrieval")}
    assert set(report["pretrained"]) == set(report["random"]) == names
    assert set(report["raw"]) == {
        f"mean-{x}/{how}" for x in ("colour", "spectrum") for how in ("linear", "retrieval")
    }
    for value in (*report["pretrained"].values(), *report["random"].values(), *report["raw"].values()):
        assert 0 <= value["mean"] <= 1
        # a share of the test clips
        assert value["mean"] * len(CLASSES) == pytest.approx(round(value["mean"] * len(CLASSES)))
    text = "\n".join(report_lines(report))
    assert (tmp_path / "report.md").read_text() == text + "\n"
    assert "| video/linear |" in text
    assert len(said) == 4

    # a second seed is all that is left to do
    monkeypatch.setattr(demo, "score_raw", lambda data: {"mean-colour/linear": 0.5})
    before = (tmp_path / "seed0" / "scores.json").read_bytes()
    again = run_demo(tmp_path, config, seeds=2, train_clips=3, test_clips=1)
    assert again is not None
    assert (tmp_path / "seed0" / "scores.json").read_bytes() == before
    assert len(again["pretrained"]["video/linear"]["values"]) == 2
    assert (tmp_path / "seed1" / "audio" / "model.safetensors").is_file()


def test_its_encoders_are_small_and_fit_the_default_pooling() -> None:
    config = PRESETS["demo"]
    assert (config.video.pooling, config.audio.pooling) == ("linear", "linear")
    assert config.video.size >= 97
    assert config.data.crop < config.video.size
