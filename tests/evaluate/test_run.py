"""The command with every protocol on a small copy of its data set, with the demo weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from make_trees import make_tree

from crisscross_zoo.cli.evaluate import main
from crisscross_zoo.evaluate.protocols import TABLE
from crisscross_zoo.media.encode import write_clip

pytestmark = pytest.mark.integration

SMALL = ["--clips.size", "112", "--clips.train", "2", "--clips.test", "2", "--workers", "0"]
SETUPS = [(c.protocol, c.dataset, c.setup) for c in TABLE if c.dataset != "folder"]


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


def write_labelled(path: Path, label: int, number: int = 0) -> None:
    """Write a file whose label shows in video and audio, augmented or not; ``number`` varies the file in its class."""
    rng = np.random.default_rng([label, number])
    time = np.arange(35_200) / 16_000
    noise = rng.standard_normal(len(time))
    wave = (
        0.3 * np.sin(2 * np.pi * 400 * time),
        0.2 * noise,
        0.5 * noise * (time * 8 % 1 < 0.1),
        0.3 * np.sign(np.sin(2 * np.pi * 150 * time)),
    )[label % 4] + 0.003 * (1 + label // 4) * noise
    wave = wave.clip(-1, 1).astype(np.float32)
    y, x = np.mgrid[:48, :64]
    grey = (
        0 * x,
        255 * (x // 4 % 2),
        rng.integers(0, 256, (48, 64)),
        255 * ((x - 32) ** 2 + (y - 24) ** 2 < 256),
    )
    frames = np.repeat(grey[label % 4][None, :, :, None], 18, axis=0).repeat(3, axis=3)
    frames = (
        (frames * 0.8 + 5 * (label // 4) + rng.integers(0, 20, frames.shape)).clip(0, 255).astype(np.uint8)
    )
    if path.suffix == ".wav":
        import wave as wave_file

        with wave_file.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((wave * 32767).astype(np.int16).tobytes())
    else:
        write_clip(path.with_suffix(".mp4"), frames, wave, fps=8, sample_rate=16_000)
        if path.suffix != ".mp4":
            path.with_suffix(".mp4").rename(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Trees:
    """Trees by data set, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path:
        root = self.folder / name
        if not root.exists():
            seen: dict[int, int] = {}

            def make_file(path: Path, label: int) -> None:
                seen[label] = seen.get(label, 0) + 1
                write_labelled(path, label, seen[label])

            make_tree(name, root, files_per_class=2 if name == "kinetics-sound" else 3, make_file=make_file)
        return root


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    return Trees(tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "own"
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        for label in range(3):
            (root / split / f"class {label}").mkdir(parents=True)
            for number in numbers:
                write_labelled(root / split / f"class {label}" / f"{label}_{number}.mp4", label, number)
    return root


@pytest.fixture
def command(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: object, out: Path = tmp_path / "out", code: int = 0, small: bool = True) -> Any:
        argv = [str(w) for w in words] + ["--weights", "demo"] * ("--weights" not in words)
        argv += ["--cache", str(cache), "--out", str(out), "--json", "--quiet"] + SMALL * small
        assert main(argv) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize(("protocol", "dataset", "setup"), SETUPS, ids=["-".join(s) for s in SETUPS])
def test_every_protocol_runs_on_its_data_set(
    protocol: str, dataset: str, setup: str, trees: Trees, command: Any, tmp_path: Path
) -> None:
    fold = [] if dataset == "esc50" and protocol == "linear" and setup == "2s" else ["--fold", "1"]
    words = ["--root", trees(dataset), "--setup", setup, *fold]
    if protocol == "finetune":
        words += ["--finetune.epochs", "2", "--finetune.batch-size", "4"]
    if protocol == "linear" and (dataset, setup) in {
        ("ucf101", "32-frame"), ("hmdb51", "32-frame"), ("kinetics400", "8-frame"), ("dcase", "2s")
    }:  # fmt: skip
        words += ["--layer.epochs", "30", "--layer.lr", "0.01"]
        words += ["--clips.epochs", "2"] if dataset != "dcase" else []
    result = command(protocol, dataset, *words)
    assert (result["protocol"], result["dataset"], result["setup"]) == (protocol, dataset, setup)
    assert result["weights"][next(iter(result["weights"]))]["id"] == "demo"
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert result["published"] is None
    assert bool(result["incomplete"]) == (dataset != "kinetics-sound")  # whose release is unknown
    folds = result["folds"].values()
    assert all(f["test_files"] == f["of_test_files"] > 0 and not f["failed"] for f in folds)
    if protocol == "retrieval":
        recall = next(iter(result["recall"].values()))
        assert 0.5 < recall["1"]["mean"] <= recall["5"]["mean"] <= 1
        return
    if dataset == "kinetics-sound":
        assert result["top1"]["mean"] > 3 / 32
    elif protocol != "finetune":
        assert result["top1"]["mean"] >= (0.5 if "layer" in result["settings"] else 1)
    assert (tmp_path / "out" / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    assert len(table["path"]) == sum(f["test_files"] for f in folds)
    assert np.mean(table["correct"]) == pytest.approx(
        np.average([f["top1"] for f in folds], weights=[f["test_files"] for f in folds])
    )
    classes = json.loads(pq.read_schema(tmp_path / "out" / "predictions.parquet").metadata[b"classes"])
    assert [classes[np.argmax(s)] for s in table["scores"]] == table["prediction"]
    clips = pq.read_table(tmp_path / "out" / "clips.parquet").to_pydict()
    mean = np.mean(
        [s for p, s in zip(clips["path"], clips["scores"], strict=True) if p == table["path"][0]], axis=0
    )
    if len(folds) == 1:
        np.testing.assert_allclose(mean, table["scores"][0], rtol=1e-6)


def test_an_incomplete_data_set_is_reported_without_the_papers_number(
    trees: Trees,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = {"value": 90.0, "metric": "top-1 accuracy in %", "note": None}
    monkeypatch.setattr("crisscross_zoo.evaluate.run.published", lambda *_: number)
    argv = ["linear", "esc50", "--root", str(trees("esc50")), "--fold", "1", *SMALL, "--weights", "demo"]
    argv += ["--cache", str(cache), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    streams = capsys.readouterr()
    lacks = "2 of the 50 classes of ESC-50, without airplane, breathing, brushing_teeth, can_opening, "
    assert streams.err.count("not shown with the result: ") == 1
    assert f"not shown with the result: {lacks}" in streams.err
    assert "(and 2 more, listed with the result)" in streams.err
    assert "fold 1: choosing C: 0 of " in streams.err
    for line in (lacks, "fold 1 has 4 of 1600 training files and 2 of 400 test files"):
        assert f"incomplete data set: {line}" in streams.out
    assert "files of a class: dog 3 of 40, rooster 3 of 40" in streams.out
    assert " % (chance 50.0 %)\ntop-5: 100.0 % (chance 100.0 %); top-1 of single clips: " in streams.out
    assert "\npaper: " not in streams.out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["published"] is None
    assert len(result["incomplete"]["classes"]) == 48
    assert main(["report", str(tmp_path / "out"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["paper"], row["chance"]) == (None, 50.0)
    assert lacks in row["notes"]
    monkeypatch.setattr("crisscross_zoo.evaluate.run.find_missing", lambda *_: {})
    assert main([*argv, "--overwrite"]) == 0  # a complete data set has the paper's number
    assert "\npaper: 90.0 %" in capsys.readouterr().out


def test_a_second_run_takes_the_features_from_the_cache(
    folder: Path, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = command("linear", folder, "--setup", "audio")

    def no_decoding(*_: object, **__: object) -> None:
        raise AssertionError("a file was decoded again")

    monkeypatch.setattr("crisscross_zoo.extract.extractor.read_files", no_decoding)
    assert command("linear", folder, "--setup", "audio") == first
    assert (
        command("linear", folder, "--setup", "audio", "--svm.costs", 1, out=tmp_path / "other")["folds"]["1"][
            "cost"
        ]
        == 1
    )


def test_folds_of_a_plain_folder_and_every_modality(folder: Path, command: Any, tmp_path: Path) -> None:
    shutil.copytree(folder / "train", tmp_path / "plain")
    result = command("retrieval", tmp_path / "plain", "--setup", "both", "--clips.frames", 8)
    assert list(result["folds"]) == ["1", "2", "3", "4"]
    assert set(result["recall"]) == {"video-to-video", "audio-to-audio"}
    assert command("fusion", folder, "--clips.frames", 8, out=tmp_path / "f")["top1"]["mean"] == 1
    assert command("linear", folder, "--svm.costs", 1, out=tmp_path / "l")["top1"]["mean"] == 1


LAYER = ["linear", "kinetics400", "--layer.epochs", 3, "--layer.lr", 0.01, "--layer.batch-size", 4]


def drawn_epochs(patch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of the views that are extracted from now on, in order."""
    import crisscross_zoo.evaluate.store as module

    epochs: list[int] = []
    real = module.FeatureStore.extract

    def extract(store: Any, *args: Any, **options: Any) -> Any:
        views = store.extractor.settings.get("views")
        if views is not None:
            epochs.append(views.get("epoch", 0))
        return real(store, *args, **options)

    patch.setattr(module.FeatureStore, "extract", extract)
    return epochs


@pytest.mark.parametrize(
    ("draws", "expected"), [(0, [0, 1, 2]), (1, [0, 0, 0]), (2, [0, 1, 0]), (3, [0, 1, 2])]
)
def test_a_linear_layer_trains_on_new_clips_in_every_epoch(
    draws: int,
    expected: list[int],
    trees: Trees,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epochs = drawn_epochs(monkeypatch)
    argv = [str(w) for w in LAYER] + ["--root", str(trees("kinetics400")), "--clips.epochs", str(draws)]
    argv += [*SMALL, "--weights", "demo", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    assert main([*argv, "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert epochs == expected
    assert len(result["folds"]["1"]["accuracy_by_epoch"]) == 3
    assert result["settings"]["clips"]["epochs"] == draws
    kept = sorted(p.name for p in (tmp_path / "cache").iterdir())
    assert len(kept) == 1 + len(set(expected)) * bool(
        draws
    )  # that of the test clips, and those of draws that are kept
    assert not [name for name in kept if name.startswith("epoch-")]
    assert (tmp_path / "out" / "fold1" / "layer.pt").exists() == (draws != 1)


def test_as_many_draws_as_epochs_give_new_clips_in_every_epoch(
    trees: Trees, cache: Path, command: Any, tmp_path: Path
) -> None:
    words = [*LAYER, "--root", trees("kinetics400")]
    results = {n: command(*words, "--clips.epochs", n, out=tmp_path / str(n)) for n in (0, 2, 3)}
    layers = {
        n: torch.load(tmp_path / str(n) / "fold1" / "layer.pt", weights_only=True)["all"]["module"]
        for n in results
    }
    assert results[0]["folds"] == results[3]["folds"]
    assert all(torch.equal(value, layers[3][name]) for name, value in layers[0].items())
    assert not all(torch.equal(value, layers[2][name]) for name, value in layers[0].items())


@pytest.mark.parametrize("select", ["train", "test"])
def test_a_linear_layer_resumes(select: str, trees: Trees, command: Any, tmp_path: Path) -> None:
    words = [*LAYER, "--root", trees("kinetics400"), "--select", select, "--layer.dropout", 0.2]
    whole = command(*words, out=tmp_path / "whole")

    class Stop(Exception):  # noqa: N818
        pass

    import crisscross_zoo.evaluate.classify as module

    real = module.LayerTraining.train_epoch

    def stopped(training: Any, *args: Any) -> Any:
        if training.epoch == 2:  # before the third epoch
            raise Stop
        return real(training, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.LayerTraining, "train_epoch", stopped)
        with pytest.raises(Stop):
            command(*words, out=tmp_path / "resumed")
    with pytest.MonkeyPatch.context() as patch:
        epochs = drawn_epochs(patch)
        assert command(*words, out=tmp_path / "resumed") == whole
        assert epochs == [2]
        assert command(*words, out=tmp_path / "resumed") == whole
        assert epochs == [2]  # nothing is left to do


def test_draws_are_for_linear_layers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["linear", str(folder), "--clips.epochs", "3", "--weights", "demo", "--out", str(tmp_path / "out")]
    assert main(argv) == 2
    assert "--clips.epochs 3 is for linear layers; leave it out, or pass 1" in capsys.readouterr().err


def test_finetuning_resumes(folder: Path, command: Any, tmp_path: Path) -> None:
    words = [
        "finetune",
        folder,
        "--finetune.epochs",
        2,
        "--finetune.batch-size",
        6,
        "--finetune.dropout",
        0.2,
    ]
    whole = command(*words, out=tmp_path / "whole")

    class Stop(Exception):  # noqa: N818
        pass

    import crisscross_zoo.evaluate.classify_finetuned as module

    real = module.finetune

    def stopped(*args: Any, **kwargs: Any) -> Any:
        def on_step(step: int, *_: object) -> None:
            if step == 6:  # in the second epoch
                raise Stop

        return real(*args, **{**kwargs, "on_step": on_step})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "finetune", stopped)
        with pytest.raises(Stop):
            command(*words, out=tmp_path / "resumed")
    assert command(*words, out=tmp_path / "resumed") == whole
    states = [
        torch.load(tmp_path / n / "fold1" / "finetune.pt", weights_only=True)["model"]
        for n in ("whole", "resumed")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_finetuning_learns(folder: Path, command: Any) -> None:
    words = [
        "--finetune.epochs",
        "8",
        "--finetune.batch-size",
        "8",
        "--finetune.lr",
        "0.003",
        "--no-clips.augment",
    ]
    result = command("finetune", folder, *words)
    losses = result["folds"]["1"]["losses"]
    assert losses[-1] < losses[0] / 2
    assert result["top1"]["mean"] > 0.5


def test_finetuning_in_16_bits_on_a_cpu_is_refused_before_files_are_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", str(folder), "--weights", "demo", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*words, "--precision", "bf16"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "training in bf16 on a CPU gives wrong gradients" in line


@pytest.mark.parametrize(
    "words", [["linear"], ["finetune", "--finetune.epochs", "2", "--finetune.batch-size", "6"]]
)
def test_choosing_on_the_test_files_is_an_option_and_labelled(
    words: list[str], folder: Path, cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = [words[0], str(folder), *words[1:], *SMALL, "--weights", "demo", "--cache", str(cache), "--quiet"]
    assert main([*argv, "--select", "test", "--out", str(tmp_path / "out")]) == 0
    assert "chosen on the TEST files, as in the paper" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    fold = result["folds"]["1"]
    accuracies = fold["accuracy_by_cost" if words[0] == "linear" else "accuracy_by_epoch"]
    assert fold["top1"] == max(accuracies.values())
    assert main(["report", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["chosen on"] == "test"


def test_a_broken_file_is_named_and_the_others_count(
    folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "test" / "class 1" / "1_5.mp4").write_bytes(b"not media")
    argv = ["linear", str(tmp_path / "broken"), *SMALL, "--weights", "demo", "--cache", str(cache)]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 1
    streams = capsys.readouterr()
    assert "based on 5 of 6 test files" in streams.out
    assert "1_5.mp4" in streams.err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [Path(f["path"]).name for f in result["folds"]["1"]["failed"]] == ["1_5.mp4"]


def test_a_test_file_among_the_training_files_is_caught(
    folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "leak")
    leaked = tmp_path / "leak" / "train" / "class 0" / "leaked.mp4"
    shutil.copy(tmp_path / "leak" / "test" / "class 0" / "0_4.mp4", leaked)
    argv = [
        "retrieval",
        str(tmp_path / "leak"),
        "--setup",
        "audio",
        *SMALL,
        "--weights",
        "demo",
        "--cache",
        str(cache),
    ]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert "leak: 1 test file with the same bytes as a training file" in capsys.readouterr().out
    leaked.unlink()
    leaked.symlink_to(tmp_path / "leak" / "test" / "class 0" / "0_4.mp4")
    assert main([*argv, "--out", str(tmp_path / "other")]) == 2
    assert "0_4.mp4" in capsys.readouterr().err


def test_searching_an_unlabelled_folder(
    folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "train", tmp_path / "mine")
    query = folder / "test" / "class 2" / "2_4.mp4"
    argv = ["retrieval", str(tmp_path / "mine"), "--setup", "audio", "--query", str(query), "--top", "3"]
    assert main([*argv, *SMALL, "--weights", "demo", "--cache", str(cache), "--json", "--quiet"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["queries"]
    assert found["query"] == str(query)
    assert {Path(hit["path"]).parent.name for hit in found["hits"]} == {"class 2"}
    near = [hit["similarity"] for hit in found["hits"]]
    assert near == sorted(near, reverse=True)
    assert len(near) == 3
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"x")
    assert main([*argv[:4], "--query", str(broken), *SMALL, "--weights", "demo", "--cache", str(cache)]) == 1
    assert "no query can be used: " in capsys.readouterr().err


def test_retrieval_in_a_folder_without_classes_names_query(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "train" / "class 0", tmp_path / "flat")
    assert main(["retrieval", str(tmp_path / "flat"), "--weights", "demo"]) == 2
    assert "or search it without classes: --query FILE\n" in capsys.readouterr().err
    assert main(["linear", str(tmp_path / "flat"), "--weights", "demo"]) == 2
    assert "--query" not in capsys.readouterr().err


def test_a_gallery_lists_settings_that_differ_from_the_paper(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    argv = [
        "retrieval",
        str(folder / "train"),
        "--setup",
        "audio",
        "--query",
        str(folder / "test/class 2/2_4.mp4"),
    ]
    argv += [*SMALL, "--weights", "demo", "--cache", str(cache), "--gallery", str(tmp_path), "--quiet"]
    assert main(argv) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    (settings,) = re.findall(r'\["settings","(.*?)"\]', page)
    assert settings.startswith("audio, with clips.")
    assert "section" not in settings


def test_a_gallery_has_the_recall_of_the_result(folder: Path, command: Any, tmp_path: Path) -> None:
    words = ["--setup", "audio", "--gallery", tmp_path / "gallery", "--gallery-queries", 1]
    result = command("retrieval", folder, *words)
    page = (tmp_path / "gallery" / "index.html").read_text(encoding="utf-8")
    value = 100 * result["recall"]["audio-to-audio"]["1"]["mean"]
    assert f'"R@k, audio-to-audio","R@1 {value:.1f} % (chance ' in page
    assert '"queries shown","1 of 6"' in page


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["linear", "esc50"], "esc50 needs --root; pass the data set's folder: --root DIR"),
        (["linear", "esc51", "--root", "x"], "esc51: neither a data set nor a folder; did you mean 'esc50'?"),
        (
            ["finetune", "esc50", "--root", "x"],
            "the paper has no finetune on esc50; choose from ucf101, hmdb51",
        ),
        (["linear", "ucf101", "--root", "x", "--setup", "8"], "linear on ucf101 has no setup '8'"),
        (["linear", "ucf101", "--root", "x", "--layer.lr", "1"], "has no setting 'layer.lr'"),
        (
            ["linear", "ucf101", "--root", "x", "--clips.train", "0"],
            "--clips.train 0 is out of range; pass a whole number, at least 1",
        ),
        (["retrieval", "ucf101", "--root", "x", "--retrieval.ks", "0"], "--retrieval.ks 0 is out of range"),
        (["linear", "ucf101", "--root", "/nowhere"], "/nowhere: "),
        (["report", "/nowhere"], "/nowhere: has no result.json"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words)
    streams = capsys.readouterr()
    assert code == (1 if words[0] == "report" else 2)
    assert streams.err.startswith(f"crisscross-evaluate: error: {line}") or line in streams.err
    assert streams.err.count("\n") == 1
    assert streams.out == ""


def test_the_heads_of_a_run_give_retrieval_across_modalities(
    folder: Path, command: Any, tmp_path: Path
) -> None:
    from crisscross_zoo import CrissCross
    from crisscross_zoo.checkpoints.training import save_checkpoint
    from crisscross_zoo.encoders import AudioEncoder, VideoEncoder

    model = CrissCross(VideoEncoder(depth=10, width=16), AudioEncoder(depth=18, width=24), projection=16)
    run = tmp_path / "run"
    save_checkpoint(run, 1, {"model": model.state_dict()}, keep=1)
    model.video_backbone.save_pretrained(run / "video")
    model.audio_backbone.save_pretrained(run / "audio")
    words = ["retrieval", folder, "--setup", "both", "--clips.frames", 8]
    directions = {"video-to-video", "audio-to-audio", "video-to-audio", "audio-to-video"}
    result = command(*words, "--weights", run)
    assert (set(result["recall"]), result["run"]) == (directions, "run")
    other = command(*words, "--heads", run, out=tmp_path / "demo")
    assert set(other["recall"]) == directions
    assert other["recall"]["video-to-video"]["1"]["mean"] == 1  # the demo's own features, without heads


def test_heads_of_other_encoders_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from crisscross_zoo import CrissCross
    from crisscross_zoo.checkpoints.training import save_checkpoint
    from crisscross_zoo.encoders import AudioEncoder, VideoEncoder

    model = CrissCross(VideoEncoder(depth=10, width=3), AudioEncoder(depth=10, width=3), projection=16)
    save_checkpoint(tmp_path, 1, {"model": model.state_dict()}, keep=1)
    words = ["retrieval", str(folder), "--setup", "both", "--weights", "demo", "--heads", str(tmp_path)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "the heads take audio features of 24 channels, the encoder has 192" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["linear"], "pass --setup audio, or name a folder of videos"),
        (["retrieval", "--setup", "both"], "pass --setup audio, or name a folder of videos"),
        (["retrieval", "--query", "a/1.wav"], "pass --setup audio, or name a folder of videos"),
        (["finetune"], "name a folder of videos"),
    ],
)
def test_the_error_for_an_audio_folder_names_a_setup(
    words: list[str],
    remedy: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_labelled(tmp_path / name, len(name))
    monkeypatch.chdir(tmp_path)
    assert main([words[0], str(tmp_path), *words[1:], *SMALL, "--weights", "demo"]) == 2
    error = f"crisscross-evaluate: error: {tmp_path}: has audio files only; {remedy}\n"
    assert capsys.readouterr().err == error


def test_one_class_cannot_be_evaluated(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "train" / "class 0", tmp_path / "one" / "class 0")
    assert (
        main(["linear", str(tmp_path / "one"), *SMALL, "--weights", "demo", "--out", str(tmp_path / "out")])
        == 2
    )
    assert "has one class, 'class 0'; an evaluation needs two or more" in capsys.readouterr().err


def test_missing_files_of_a_list_are_reported(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tree("ucf101", tmp_path / "ucf101", files_per_class=6, make_file=write_labelled)
    sorted(root.rglob("*.avi"))[0].unlink()
    argv = ["retrieval", "ucf101", "--root", str(root), *SMALL, "--clips.frames", "8", "--weights", "demo"]
    argv += ["--fold", "2", "--cache", str(cache), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(argv) == 1
    assert "missing: 1 of 8 files of trainlist02.txt not found" in capsys.readouterr().out


def test_settings_that_differ_from_the_paper_are_in_the_result(
    folder: Path, command: Any, tmp_path: Path
) -> None:
    result = command("linear", folder, "--setup", "audio", "--svm.costs", 1)
    assert result["changed"] == {"clips.train": 2, "clips.test": 2, "clips.size": 112, "svm.costs": [1.0]}
    assert result["folds"]["1"]["chosen_on"] is None


def test_a_broken_training_file_is_named_in_finetuning(
    folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "train" / "class 1" / "1_3.mp4").write_bytes(b"not media")
    argv = ["finetune", str(tmp_path / "broken"), *SMALL, "--weights", "demo", "--cache", str(cache)]
    argv += ["--finetune.epochs", "1", "--finetune.batch-size", "4", "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["folds"]["1"]["train_files"] == 11
    assert [Path(f["path"]).name for f in result["folds"]["1"]["failed"]] == ["1_3.mp4"]
    assert "1_3.mp4" in capsys.readouterr().err


def test_finetuning_does_not_resume_from_a_checkpoint_of_other_weights(
    folder: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from crisscross_zoo.encoders import VideoEncoder

    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            VideoEncoder(depth=10, width=8, size=112).save_pretrained(tmp_path / str(seed))
    argv = ["finetune", str(folder), *SMALL, "--cache", str(cache), "--out", str(tmp_path / "out"), "--quiet"]
    argv += ["--finetune.epochs", "1", "--finetune.batch-size", "4", "--json"]
    assert main([*argv, "--weights", str(tmp_path / "0")]) == 0
    first = json.loads(capsys.readouterr().out)["folds"]["1"]["losses"]
    assert main([*argv, "--weights", str(tmp_path / "1")]) == 1
    assert "is the result of another evaluation (other weights)" in capsys.readouterr().err
    assert main([*argv, "--weights", str(tmp_path / "1"), "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["folds"]["1"]["losses"] != first


def test_another_evaluation_in_the_same_folder_is_refused(
    folder: Path, command: Any, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("linear", folder, "--setup", "audio", "--svm.costs", 1)
    argv = [
        "linear",
        str(folder),
        "--setup",
        "audio",
        "--weights",
        "demo",
        "--cache",
        str(cache),
        *SMALL,
        "--quiet",
    ]
    argv += ["--out", str(tmp_path / "out"), "--svm.costs", "0.1"]
    assert main(argv) == 1
    assert "is the result of another evaluation (other settings)" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0
