"""Finetuning itself: from what it resumes, and the errors if it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from make_media import make_media
from pretrain_case import tiny_config

from crisscross_zoo.checkpoints.training import load_progress, save_progress
from crisscross_zoo.encoders import VideoEncoder
from crisscross_zoo.errors import MediaError, TrainingError
from crisscross_zoo.evaluate.datasets import LabelledFile
from crisscross_zoo.evaluate.finetune import CHECKPOINT_FILE, describe_files, finetune
from crisscross_zoo.evaluate.protocols import FinetuneConfig
from crisscross_zoo.media.tracks import Media


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[LabelledFile, Media]]:
    paths = [make_media(tmp_path / f"{n}.mp4", seconds=1, size=(64, 48)) for n in range(2)]
    files, failed = describe_files([LabelledFile(str(p), n, str(p)) for n, p in enumerate(paths)], workers=0)
    assert not failed
    return files


def train(files: list[tuple[LabelledFile, Media]], folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    video = tiny_config().video
    torch.manual_seed(0)
    classifier = VideoEncoder(video).classifier(2)
    finetune(
        classifier, files, FinetuneConfig(epochs=2, batch_size=2, milestones=()), video=video, augment=None,
        clips=1, seed=0, folder=folder, **options,
    )  # fmt: skip
    return classifier.state_dict()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_keeps_its_path_and_remedy(
    files: list[tuple[LabelledFile, Media]], tmp_path: Path, workers: int
) -> None:
    for sample, _ in files:
        Path(sample.path).unlink()
    with pytest.raises(MediaError, match="10 files in turn cannot be used: ") as caught:
        train(files, tmp_path / "out", workers=workers)
    assert type(caught.value) is MediaError
    assert caught.value.path in {sample.path for sample, _ in files}
    assert caught.value.remedy == "check the data set"
    assert str(caught.value).startswith(f"{caught.value.path}: 10 files in turn")


def test_a_video_stream_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = make_media(tmp_path / "a.mkv", seconds=1)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX"))
    _, (failed,) = describe_files([LabelledFile(str(path), 0, "a")], workers=0)
    assert "V_MPEG4/ISO/AVX" in str(failed)
    assert "leave it out" in str(failed)


def test_cudnn_chooses_algorithms_in_training_only(
    files: list[tuple[LabelledFile, Media]], tmp_path: Path
) -> None:
    chosen: list[tuple[str, bool]] = []

    def note(when: str) -> None:
        chosen.append((when, torch.backends.cudnn.benchmark))

    before = torch.backends.cudnn.benchmark
    train(
        files, tmp_path,
        on_step=lambda done, total: note("step"), after_epoch=lambda epoch: note("score"),
    )  # fmt: skip
    assert chosen == [("step", True), ("score", before)] * 2
    assert torch.backends.cudnn.benchmark is before is False


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_checkpoint_is_set_aside_and_training_restarts(
    files: list[tuple[LabelledFile, Media]], tmp_path: Path, damage: str
) -> None:
    whole = train(files, tmp_path / "whole")
    path = tmp_path / "out" / CHECKPOINT_FILE
    train(files, path.parent)
    written = path.read_bytes()
    if damage == "other":
        torch.save({"identity": "a"}, path)
    else:
        path.write_bytes(written[: len(written) // 2] if damage == "cut" else b"")
    damaged = path.read_bytes()
    said: list[str] = []
    found = train(files, path.parent, on_message=said.append)
    assert all(torch.equal(found[name], value) for name, value in whole.items())
    assert path.with_name(f"{CHECKPOINT_FILE}.damaged").read_bytes() == damaged
    (line,) = said
    assert line.startswith(f"{path}: is no checkpoint of a run, or damaged (")
    assert line.endswith(f"); it is kept as {CHECKPOINT_FILE}.damaged, training is restarted")
    assert (
        train(files, path.parent, on_message=said.append).keys() == whole.keys()
    )  # done: goes on from what is whole
    assert len(said) == 1


def test_progress_belongs_to_one_training(tmp_path: Path) -> None:
    path = tmp_path / "a" / "progress.pt"
    assert load_progress(path, "one", {"x"}) is None
    save_progress(path, "one", {"x": torch.arange(3), "y": [1.5]})
    state = load_progress(path, "one", {"x", "y"})
    assert state is not None
    assert torch.equal(state["x"], torch.arange(3))
    assert state["y"] == [1.5]
    with pytest.raises(
        TrainingError, match="is the checkpoint of a run with other files, weights or settings"
    ):
        load_progress(path, "two", {"x"})
    assert load_progress(path, "two", {"x"}, restart=True) is None
    assert path.exists()
    assert load_progress(path, "one", {"z"}) is None
    assert not path.exists()
