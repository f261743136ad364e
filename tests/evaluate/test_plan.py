"""The plan of an evaluation: made, and its weights loaded, once, before any file is read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from crisscross_zoo import FeatureExtractor, load_encoder
from crisscross_zoo.config import Pooling
from crisscross_zoo.encoders import VideoEncoder
from crisscross_zoo.errors import ConfigError, MediaError, NoStreamError
from crisscross_zoo.evaluate.datasets import Fold, LabelledData, LabelledFile
from crisscross_zoo.evaluate.extracted import ClipFeatures
from crisscross_zoo.evaluate.plan import Compute, Plan, make_plan
from crisscross_zoo.evaluate.protocols import make_protocol
from crisscross_zoo.evaluate.reporter import Reporter
from crisscross_zoo.evaluate.store import FeatureStore

FILES = tuple(LabelledFile(f"{n}.mp4", n % 2, str(n)) for n in range(4))
DATA = LabelledData("folder", "own", ("a", "b"), {1: Fold(FILES[:2], FILES[2:])})
SMALL = {"clips.size": 112, "clips.train": 2, "clips.test": 2}


def plan_of(protocol: str, weights: Any, out: Path, setup: str | None = None, **changes: Any) -> Plan:
    config = make_protocol(protocol, "folder", setup=setup, overrides=SMALL | changes)
    compute = Compute(device="cpu", workers=0, cache=out / "cache")
    return make_plan(config, DATA, DATA.folds, weights, out=out, compute=compute)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modalities of the loaded encoders, in order."""
    seen: list[str] = []

    def load(modality: Any, *args: Any, **options: Any) -> Any:
        seen.append(modality)
        return load_encoder(modality, *args, **options)

    monkeypatch.setattr("crisscross_zoo.weights.loaded.load_encoder", load)
    return seen


def test_weights_are_loaded_once(loaded: list[str], tmp_path: Path) -> None:
    plan = plan_of("fusion", "demo", tmp_path, **{"clips.frames": 8})
    features = ClipFeatures(plan, Reporter())
    features.store(draw=0)
    features.store(pooling="avg")
    assert loaded == ["video", "audio"]
    assert plan.identity()["weights"] == FeatureExtractor("demo", "both", device="cpu").weights


def test_features_are_kept_under_the_sha256_of_the_file(tmp_path: Path) -> None:
    """They are then found again with any pooling; an encoder's own sha256 depends on its config."""
    plan = plan_of("linear", "demo", tmp_path)
    extractor = FeatureExtractor("demo", clips=2, size=112, pooling="linear", device="cpu")
    assert ClipFeatures(plan, Reporter()).store().folder == FeatureStore(tmp_path / "cache", extractor).folder


@pytest.mark.parametrize("pooling", [None, "avg"])
@pytest.mark.parametrize(
    "source", ["demo", "random:0", "a file in half precision", "a file of another program"]
)
def test_a_trained_encoder_is_distinguished_from_its_weights(
    source: str, pooling: Pooling | None, tmp_path: Path
) -> None:
    demo = load_encoder("video", "demo")
    if source.startswith("a file"):
        file = tmp_path / "weights.safetensors"
        weights = {name: value.half() if "half" in source and value.ndim > 1 else value.contiguous()
                   for name, value in demo.state_dict().items()}  # fmt: skip
        save_file(weights, file, {"config": json.dumps(demo.config.to_dict()), "program": "another"})
        source = str(file)
    encoder = load_encoder("video", source, pooling=pooling)
    before = plan_of("finetune", encoder, tmp_path).weights["video"]
    assert before.id == encoder.weights_id
    assert not encoder.double().is_changed()
    encoder.float()
    with torch.no_grad():
        next(encoder.parameters()).mul_(2)
    after = plan_of("finetune", encoder, tmp_path).weights["video"]
    assert after.id == f"{encoder.weights_id} (changed)"
    assert after.sha256 != before.sha256
    assert after.encoder is encoder


def test_a_plan_does_not_change(tmp_path: Path) -> None:
    plan = plan_of("linear", "demo", tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.run = "other"  # type: ignore[misc]
    assert plan.run is None


def test_the_folder_of_a_pretraining_run_is_named(tmp_path: Path) -> None:
    VideoEncoder(depth=10, width=8).save_pretrained(tmp_path / "run" / "video")
    plan = plan_of("linear", tmp_path / "run", tmp_path)
    assert (plan.run, plan.weights["video"].id) == ("run", "run/video")


@pytest.mark.parametrize(
    ("protocol", "setup", "changes", "remedy"),
    [
        (
            "linear",
            "video",
            {"clips.size": 32},
            "pass --clips.size 97 or more, or another --clips.pooling (linear-a",
        ),
        (
            "linear",
            "audio",
            {"clips.seconds": 0.3},
            "pass --clips.seconds 0.65 or more, or another --clips.pooling (fus",
        ),
        (
            "finetune",
            None,
            {"clips.size": 8, "clips.pooling": "linear"},
            "pass --clips.size 97 or more, or another",
        ),
    ],
)
def test_the_error_for_a_clip_that_does_not_fit_names_settings(
    protocol: str, setup: str | None, changes: dict[str, Any], remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="clip does not fit: the conv5x map") as caught:
        plan_of(protocol, "demo", tmp_path, setup, **changes)
    assert caught.value.remedy.startswith(remedy)
    name, value = remedy.split()[1:3]
    plan_of(
        protocol,
        "demo",
        tmp_path,
        setup,
        **(changes | {name.removeprefix("--"): float(value) if "." in value else int(value)}),
    )


@pytest.mark.parametrize(
    ("protocol", "setup", "remedy"),
    [
        ("linear", "video", "pass --setup audio"),
        ("linear", "audio", "pass --setup video"),
        ("retrieval", "both", "leave it out"),
        ("finetune", None, "leave it out"),
    ],
)
def test_the_error_for_a_file_without_a_stream_names_setups(
    protocol: str, setup: str | None, remedy: str, tmp_path: Path
) -> None:
    plan = plan_of(protocol, "demo", tmp_path, setup)
    error = NoStreamError("has no such stream", remedy="use modality 'other'", path="a.wav")
    assert str(plan.in_settings(error)) == f"a.wav: has no such stream; {remedy}"
    other = MediaError("is broken", remedy="fetch it again", path="a.wav")
    assert plan.in_settings(other) is other


def test_a_file_that_fails_is_reported_once() -> None:
    lines: list[str] = []
    reporter = Reporter(lines.append)
    for path in ("a.mp4", "b.mp4", "a.mp4"):
        reporter.report_failures({path: MediaError("is broken")})
    assert lines == ["a.mp4: is broken", "b.mp4: is broken"]


def test_files_that_fail_alike_are_one_line() -> None:
    lines: list[str] = []
    failures = {f"{n}.wav": NoStreamError("has no video", remedy="pass --setup audio") for n in range(40)}
    reporter = Reporter(lines.append)
    reporter.report_failures({**failures, "b.mp4": MediaError("is broken")})
    reporter.report_failures(failures)
    assert lines == [
        "40 files, such as 0.wav: has no video; pass --setup audio",
        "b.mp4: is broken",
    ]


def test_progress_has_the_name_of_its_stage() -> None:
    calls: list[tuple[str, int, int]] = []
    Reporter(on_progress=lambda *values: calls.append(values)).stage("clips")(1, 2)
    Reporter().stage("clips")(2, 2)  # without a callback
    assert calls == [("clips", 1, 2)]


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_an_encoder_of_another_modality_is_refused(protocol: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the video encoder is one for audio"):
        plan_of(protocol, load_encoder("audio", "demo"), tmp_path)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision='bf61' is not known"):
        Compute(precision="bf61")  # type: ignore[arg-type]
