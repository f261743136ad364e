"""The error if a requested logger cannot start."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from crisscross_zoo.errors import ConfigError
from crisscross_zoo.pretrain.metrics import Log


def test_wandb_without_a_key_is_one_line(monkeypatch, tmp_path):
    class UsageError(Exception):
        pass

    def init(**_):
        raise UsageError("No API key configured. Use `wandb login` to log in.\nMore.")

    wandb = SimpleNamespace(init=init, errors=SimpleNamespace(UsageError=UsageError))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(
        ConfigError, match=r"No API key configured.*log in\.; run wandb login, set WANDB_MODE"
    ):
        Log(tmp_path, step=0, tensorboard=False, wandb="project", config={})
