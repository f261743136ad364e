"""torch.hub: the two entry points, of this clone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


def test_entry_points_are_the_two_encoders() -> None:
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    assert spec is not None
    assert spec.loader is not None
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    offered = [
        n for n in dir(hubconf) if callable(getattr(hubconf, n)) and not n.startswith("_")
    ]  # hub's own rule
    assert sorted(offered) == ["audio_encoder", "video_encoder"]


def test_encoders_load_through_the_hub() -> None:
    audio = torch.hub.load(str(ROOT), "audio_encoder", source="local", weights="random:0", pooling="avg")
    video = torch.hub.load(str(ROOT), "video_encoder", source="local", weights="random:1")
    assert (audio.config.modality, audio.config.pooling, audio.weights_id) == ("audio", "avg", "random:0")
    assert (video.config.modality, video.weights_id, video.training) == ("video", "random:1", False)
