"""Fixtures of the tests about weights: narrow checkpoints, a loopback Hub, a manifest that points at it."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from weights.hub_server import HubServer, running_hub

from crisscross_zoo.checkpoints import hub
from crisscross_zoo.checkpoints.files import write_checkpoint
from crisscross_zoo.config import AudioConfig, EncoderConfig, VideoConfig
from crisscross_zoo.weights import origin
from crisscross_zoo.weights.manifest import MANIFEST_VARIABLE

NARROW: dict[str, EncoderConfig] = {
    "video": VideoConfig(depth=10, width=8),
    "audio": AudioConfig(depth=10, width=8),
}


NOT_ON_HUB = dict.fromkeys(("repo", "file", "revision", "sha256"))


@pytest.fixture(scope="session")
def narrow_states() -> dict[str, dict[str, torch.Tensor]]:
    """Seeded state dicts of narrow encoders, by modality. Copy before changing."""
    from crisscross_zoo.encoders import build_encoder

    states = {}
    for modality, config in NARROW.items():
        with torch.random.fork_rng():
            torch.manual_seed(7)
            states[modality] = build_encoder(config).state_dict()
    return states


@pytest.fixture(scope="session")
def safetensors_files(
    narrow_states: dict[str, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("safetensors")
    for modality, state in narrow_states.items():
        write_checkpoint(folder / f"{modality}.safetensors", state, NARROW[modality])
    return {modality: folder / f"{modality}.safetensors" for modality in NARROW}


def pth_bytes(value: object, *, legacy: bool = False) -> bytes:
    """Return the bytes of ``torch.save``, in its zip form or its legacy one."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def set_constants(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Set constants of the Hub's client, also in its modules that hold a copy; these depend on its version."""
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
        for module in [m for n, m in sys.modules.items() if n.startswith("huggingface_hub.")]:
            if name in vars(module):
                monkeypatch.setattr(module, name, value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A loopback Hub that the real client in this process talks to, with a fresh cache and short waits."""
    with running_hub() as running:
        set_constants(
            monkeypatch,
            ENDPOINT=running.url,
            HUGGINGFACE_CO_URL_TEMPLATE=running.url + "/{repo_id}/resolve/{revision}/{filename}",
            HF_HUB_CACHE=str(tmp_path / "hf" / "hub"),
            HF_ASSETS_CACHE=str(tmp_path / "hf" / "assets"),
            HF_TOKEN_PATH=str(tmp_path / "hf" / "token"),
            HF_HUB_DISABLE_XET=True,  # there is no Xet store on loopback
        )
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(hub, "BACKOFF_SECONDS", 0.01)
        monkeypatch.setattr(origin, "BACKOFF_SECONDS", 0.01)
        yield running


@pytest.fixture
def write_manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Write a manifest with narrow ``tiny`` entries and make it the one in use; fields can be changed."""

    def write(**changes: dict[str, Any]) -> Path:
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(tiny_manifest(**changes), indent=2) + "\n")
        monkeypatch.setenv(MANIFEST_VARIABLE, str(path))
        return path

    return write


def tiny_manifest(**changes: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with one ``tiny`` entry per modality; ``video={...}`` changes fields of that entry."""
    return {
        "schema": 1,
        "citations": {
            "key2023": {
                "authors": "A and B",
                "title": "T",
                "venue": "V",
                "year": 2023,
                "doi": "10.1/x",
                "arxiv": "2111.05329",
                "code": "https://example.org/code",
            }
        },
        "checkpoints": [
            {
                "name": "tiny",
                "modality": modality,
                "status": "released",
                "arch": "narrow",
                "config": config.to_dict(),
                "pretrained_on": {"dataset": "Noise", "size": "2 clips"},
                "license": "CC-BY-NC-4.0",
                "results": [
                    {
                        "benchmark": "UCF101",
                        "protocol": "linear",
                        "metric": "top-1",
                        "value": 50.5,
                        "note": None,
                    },
                    {
                        "benchmark": "HMDB51",
                        "protocol": "linear",
                        "metric": "top-1",
                        "value": None,
                        "note": "?",
                    },
                ],
                "citation": "key2023",
                "note": None,
                "hub": NOT_ON_HUB,
                "origin": {"url": "http://127.0.0.1:9/x.zip", "member_suffix": ".pth.tar", "sha256": None},
                "bundled": None,
                **changes.get(modality, {}),
            }
            for modality, config in NARROW.items()
        ],
    }
