"""A run as small as it gets, for the tests of the loop and their child processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.pretrain.checkpoints import list_checkpoints, load_checkpoint
from crisscross_zoo.pretrain.presets import PretrainConfig, make_config


def tiny_config(**overrides: Any) -> PretrainConfig:
    """A run of 9 steps in 3 epochs, of networks as small as they get."""
    small: dict[str, Any] = {
        "video": VideoConfig(depth=10, width=8, frames=4, size=32),
        "audio": AudioConfig(depth=10, width=8, seconds=0.64),
        "heads.projection": 16,
        "heads.prediction_hidden": 8,
        "data.crop": 32,
        "data.epoch_size": 14,
        "optim.batch_size": 4,
        "optim.epochs": 3,
        "optim.warmup_epochs": 1.0,
        "optim.precision": "fp32",
        "run.device": "cpu",
        "run.workers": 0,
        "run.save_steps": 4,
        "run.log_steps": 2,
        "run.tensorboard": False,
    }
    return make_config("kinetics-sound", overrides={**small, **overrides})


def final_model(run: Path) -> dict[str, torch.Tensor]:
    """The model of a run's newest checkpoint."""
    state: dict[str, torch.Tensor] = load_checkpoint(list_checkpoints(run)[-1])["model"]
    return state
