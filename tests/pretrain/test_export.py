"""Exported encoders have the format of the released backbones: they load, and give the reference's values."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filler import fill_module, seeded_normal

from crisscross_zoo import load_encoder
from crisscross_zoo.errors import CheckpointError
from crisscross_zoo.pretrain.distributed import World
from crisscross_zoo.pretrain.export import export_encoders
from crisscross_zoo.pretrain.loop import _Trainer
from crisscross_zoo.pretrain.presets import make_config

pytestmark = pytest.mark.integration

RTOL = 1e-5  # of the largest value
CLIP = {
    "video": ("video_backbone", "d18.in112x8", 101, (2, 3, 8, 112, 112)),
    "audio": ("audio_backbone", "in80x200", 201, (2, 1, 80, 200)),
}


@pytest.mark.parametrize("preset", ["kinetics-sound", "kinetics400", "audioset"])
def test_the_six_backbones_of_finished_runs(
    golden: Callable[[str], Any], tmp_path: Path, preset: str
) -> None:
    config = make_config(preset, overrides={"run.device": "cpu", "optim.precision": "fp32"})
    trainer = _Trainer(config, World("cpu"))
    for modality in CLIP:
        fill_module(getattr(trainer.model, f"{modality}_backbone"))
    trainer.save(tmp_path, 48_828, {"data_id": ""})
    folders = export_encoders(tmp_path, tmp_path / "out")
    assert folders == {m: tmp_path / "out" / m for m in CLIP}
    for modality, (file, key, seed, shape) in CLIP.items():
        encoder = load_encoder(modality, folders[modality], pooling="avg")  # type: ignore[arg-type]
        state, released = encoder.state_dict(), golden("state_dicts.json")[f"{modality}18"]
        assert [
            [n, list(v.shape), str(v.dtype).removeprefix("torch.")] for n, v in state.items()
        ] == released["entries"]
        x = torch.from_numpy(seeded_normal(seed, shape))
        with torch.no_grad():
            conv5x, pooled = encoder.forward_features(x), encoder(x)
        for found, name in ((conv5x, "conv5x"), (pooled, "pool")):
            expected = golden(file)[f"{key}.{name}"]
            np.testing.assert_allclose(
                found.flatten(), expected.ravel(), rtol=0, atol=RTOL * np.abs(expected).max(), err_msg=name
            )

        # and in the format of the authors' release: a zip of a bare state dict
        pth = tmp_path / f"{modality}.pth.tar"
        torch.save(state, pth)
        with zipfile.ZipFile(tmp_path / f"{modality}.pth.tar.zip", "w") as archive:
            archive.write(pth, pth.name)
        again = load_encoder(modality, tmp_path / f"{modality}.pth.tar.zip", pooling="avg")  # type: ignore[arg-type]
        assert again.weights_sha256 == encoder.weights_sha256


def test_a_later_export_updates_the_step_in_the_card_and_keeps_the_users_text(tmp_path: Path) -> None:
    config = make_config(
        "kinetics-sound",
        overrides={"run.device": "cpu", "video.width": 2, "audio.width": 2, "optim.precision": "fp32"},
    )
    trainer = _Trainer(config, World("cpu"))
    for step in (1000, 2500):
        trainer.save(tmp_path, step, {"data_id": ""})
        export_encoders(tmp_path, tmp_path)
        card = tmp_path / "video" / "README.md"
        text = card.read_text()
        assert f"after {step:,} steps of" in text
        card.write_text(text + "\nMine: 1,000 steps.\n")
    assert text.endswith("\nMine: 1,000 steps.\n")
    assert "after 1,000 steps" not in text


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoints; name the folder of a pretraining run"):
        export_encoders(tmp_path, tmp_path)
