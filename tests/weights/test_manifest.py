from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from weights.fixtures import tiny_manifest

from crisscross_zoo import list_weights
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import ConfigError, ManifestError, UnknownWeightsError
from crisscross_zoo.weights.manifest import find_weights, manifest_path, parse_manifest

RELEASE = "https://github.com/pritamqu/CrissCross/releases/download/model_weights/"


def test_the_six_released_checkpoints_and_the_demo_are_listed() -> None:
    entries = {(e.name, e.modality): e for e in list_weights()}
    names = ("audioset", "kinetics400", "kinetics-sound", "demo")
    assert list(entries) == [(n, m) for n in names for m in ("video", "audio")]
    for (name, modality), entry in entries.items():
        if name == "demo":
            assert (entry.status, entry.origin, entry.license) == ("released", None, "Apache-2.0")
            assert entry.bundled is not None
            assert entry.config is not None
            continue
        assert entry.status == "released"
        assert entry.license == "CC-BY-NC-4.0"
        assert entry.config == (VideoConfig() if modality == "video" else AudioConfig())
        assert entry.hub.repo is entry.hub.file is entry.hub.revision is entry.hub.sha256 is None
        assert entry.origin is not None
        data = {"audioset": "audioset", "kinetics400": "kinetics_400", "kinetics-sound": "kinetics_sound"}[
            name
        ]
        assert entry.origin.url == f"{RELEASE}{modality[:3]}_crisscross_{data}.pth.tar.zip"
        assert entry.origin.sha256 is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("kinetics-sound", (88.3, 60.5, 82.8, 93.0)),
        ("kinetics400", (91.5, 64.7, 86.8, 96.0)),
        ("audioset", (92.4, 67.4, 90.5, 97.0)),
    ],
)
def test_results_are_the_published_ones_and_gaps_have_notes(name: str, values: tuple[float, ...]) -> None:
    results = [r for m in ("video", "audio") for r in find_weights(name, m).results]
    assert tuple(r.value for r in results if r.value is not None) == values
    assert [r.benchmark for r in results if r.value is not None] == ["UCF101", "HMDB51", "ESC-50", "DCASE"]
    gaps = [r for r in results if r.value is None]
    assert gaps
    assert all(r.note for r in gaps)


def test_the_shipped_file_is_in_the_form_that_publish_writes() -> None:
    text = manifest_path().read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_listing_by_modality() -> None:
    assert {e.modality for e in list_weights("audio")} == {"audio"}
    with pytest.raises(ConfigError, match="did you mean 'audio'"):
        list_weights("aduio")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("AudioSet", "audioset"), ("kinetics_400", "kinetics400"), ("kinetic-sounds", "kinetics-sound")],
)
def test_a_misspelt_name_gets_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UnknownWeightsError, match=f"did you mean '{meant}'"):
        find_weights(typed, "video")


def test_entries_become_json_and_their_configs_come_back() -> None:
    for entry in list_weights():
        plain = json.loads(json.dumps(entry.to_dict()))
        assert plain["config"] == (None if entry.config is None else entry.config.to_dict())


def change(manifest: dict[str, Any], where: str, value: Any) -> None:
    """Set the field at ``a.b.0.c``; ``...`` deletes it."""
    *path, last = [int(key) if key.isdigit() else key for key in where.split(".")]
    target: Any = manifest
    for key in path:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value


C0 = "checkpoints.0"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("schema", 2, "its schema is 2, this version of crisscross-zoo reads 1"),
        ("schema", ..., "its schema is None"),
        ("checkpoints", {}, "field 'checkpoints' is {}, it must be a list"),
        (C0, [], r"checkpoints\[0\]: must be an object"),
        (f"{C0}.name", ..., r"checkpoints\[0\]: field 'name' is missing"),
        (f"{C0}.name", "Tiny One", r"Tiny One \(video\): field 'name' .* lower-case words"),
        (f"{C0}.modality", "vidoe", r"tiny \(vidoe\): field 'modality' is 'vidoe'; did you mean 'video'"),
        (f"{C0}.status", "done", r"tiny \(video\): field 'status' is 'done'"),
        (f"{C0}.citation", "other", r"tiny \(video\): field 'citation' is 'other'"),
        (f"{C0}.license", "", r"tiny \(video\): field 'license' is empty"),
        (f"{C0}.licence", "x", r"unknown field 'licence'; did you mean 'license'"),
        (f"{C0}.config", None, "field 'config' is null, only planned"),
        (f"{C0}.config.depth", 17, r"tiny \(video\): config: depth=17"),
        (f"{C0}.config.depht", 18, r"no field 'depht'; did you mean 'depth'"),
        (f"{C0}.config.fps", ..., r"config: field 'fps' is missing"),
        (f"{C0}.modality", "audio", "config: field 'modality' is 'video', the entry's is 'audio'"),
        (
            f"{C0}.results.0.value",
            "50",
            r"results\[0\]: field 'value' is '50', it must be a whole number or a number",
        ),
        (f"{C0}.results.0.value", True, r"results\[0\]: field 'value' is True"),
        (f"{C0}.pretrained_on.size", 3, "pretrained_on: field 'size' is 3, it must be text"),
        (f"{C0}.hub.repo", "org/name", "hub: field 'file' is null: give all four, or none"),
        (f"{C0}.hub.repo", "name", "hub: field 'repo' is 'name', it must be org/name"),
        (f"{C0}.hub.sha256", "abc", "hub: field 'sha256' is 'abc', it must be 64 hexadecimal"),
        (f"{C0}.hub.revision", "main", "hub: field 'revision' is 'main', it must be a commit"),
        (f"{C0}.origin.url", "ftp://x/y", "origin: field 'url' is 'ftp://x/y', it must be an http"),
        (f"{C0}.origin", None, "is released, but hub, origin and bundled are all empty"),
        (f"{C0}.bundled", {"file": "../x.safetensors", "sha256": None}, "bundled: field 'file'"),
        (f"{C0}.bundled", {"file": "x.safetensors", "sha256": None}, "bundled: field 'sha256' is null"),
    ],
)
def test_a_wrong_manifest_is_refused_by_entry_and_field(where: str, value: Any, message: str) -> None:
    manifest = copy.deepcopy(tiny_manifest())
    change(manifest, where, value)
    with pytest.raises(ManifestError, match=message) as caught:
        parse_manifest(manifest, path=Path("m.json"))
    assert str(caught.value).startswith("m.json: ")


def test_an_entry_listed_twice_is_refused() -> None:
    manifest = tiny_manifest()
    manifest["checkpoints"].append(manifest["checkpoints"][0])
    with pytest.raises(ManifestError, match=r"tiny \(video\): is listed twice"):
        parse_manifest(manifest, path=Path("m.json"))


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema": NaN}', "[" * 100_000], ids=["empty", "cut", "nan", "deep"]
)
def test_a_file_that_is_not_json_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    monkeypatch.setenv("CRISSCROSS_MANIFEST", str(path))
    with pytest.raises(ManifestError, match="cannot be read as JSON"):
        list_weights()


def test_the_variable_must_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRISSCROSS_MANIFEST", str(tmp_path / "none.json"))
    with pytest.raises(ManifestError, match="CRISSCROSS_MANIFEST names no file"):
        list_weights()


def test_listing_does_not_import_torch_or_the_hub() -> None:
    code = (
        "import sys, crisscross_zoo, crisscross_zoo.cli.weights; crisscross_zoo.list_weights();"
        "sys.exit(bool({'torch', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
