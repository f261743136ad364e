"""Publishing through the real client, against a server on loopback that takes commits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from weights.fixtures import NARROW, NOT_ON_HUB, pth_bytes, zip_bytes
from weights.hub_server import HubServer

from crisscross_zoo import load_encoder
from crisscross_zoo.encoders import VideoEncoder
from crisscross_zoo.errors import (
    ConfigError,
    DownloadError,
    ManifestError,
    WeightsNotAvailableError,
)
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights.card import release_card
from crisscross_zoo.weights.manifest import Hub, find_weights
from crisscross_zoo.weights.publish import publish, write_folder

# Warnings of the Hub's client about its own transport are ignored.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_writer"

Manifest = Callable[..., Path]


@pytest.fixture
def manifest(
    server: HubServer, write_manifest: Manifest, narrow_states: dict[str, dict[str, torch.Tensor]]
) -> Path:
    """A manifest whose ``tiny`` video entry has its origin on loopback, and is not on the Hub."""
    server.origins["vid.zip"] = zip_bytes({"vid.pth.tar": pth_bytes(narrow_states["video"])})
    origin = {"url": server.origin("vid.zip"), "member_suffix": ".pth.tar", "sha256": None}
    return write_manifest(video={"origin": origin})


def test_publishing_pushes_one_commit_and_notes_it_in_the_manifest(
    server: HubServer, manifest: Path, safetensors_files: dict[str, Path]
) -> None:
    before = json.loads(manifest.read_text())
    hub = publish("tiny", "video", repo="org/tiny-video", token=TOKEN)

    repo = server.repos["org/tiny-video"]
    (commit,) = repo.commits
    files = repo.commits[commit]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert repo.messages == ["Add CrissCross tiny, video"]
    assert not repo.private
    assert files["model.safetensors"] == safetensors_files["video"].read_bytes()
    assert json.loads(files["config.json"]) == NARROW["video"].to_dict()
    sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert hub == Hub(repo="org/tiny-video", file="model.safetensors", revision=commit, sha256=sha256)

    after = json.loads(manifest.read_text())
    assert after["checkpoints"][0].pop("hub") == {
        "repo": "org/tiny-video",
        "file": "model.safetensors",
        "revision": commit,
        "sha256": sha256,
    }
    before["checkpoints"][0].pop("hub")
    assert after == before
    assert manifest.read_text().endswith("}\n")
    assert [p.name for p in manifest.parent.iterdir() if p.suffix == ".tmp"] == []

    # The published checkpoint is now loaded by name, by id and by from_pretrained.
    server.requests.clear()
    encoder = load_encoder("video", "tiny")
    assert server.count("GET", "resolve") == 1
    assert server.count("GET", "origin") == 0
    assert encoder.weights_sha256 == sha256
    by_id, pretrained = (
        load_encoder("video", "org/tiny-video"),
        VideoEncoder.from_pretrained("org/tiny-video"),
    )
    assert by_id.weights_sha256 == pretrained.weights_sha256 == sha256
    assert by_id.weights_id == pretrained.weights_id == f"org/tiny-video@{commit}"
    assert pretrained.config == NARROW["video"]


def test_the_repository_can_be_private_and_published_again(server: HubServer, manifest: Path) -> None:
    first = publish("tiny", "video", repo="org/tiny", private=True, token=TOKEN)
    assert server.repos["org/tiny"].private
    again = publish("tiny", "video", repo="org/tiny", token=TOKEN)
    assert again.sha256 == first.sha256
    assert find_weights("tiny", "video").hub == again


def test_a_dry_run_writes_the_folder_and_nothing_else(
    server: HubServer, manifest: Path, tmp_path: Path
) -> None:
    before = manifest.read_bytes()
    hub = write_folder(tmp_path / "out", "tiny", "video", repo="org/tiny")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert hub.sha256 == file_sha256(tmp_path / "out" / "model.safetensors")
    assert hub.revision is None
    assert server.count("POST") == 0
    assert manifest.read_bytes() == before
    assert load_encoder("video", tmp_path / "out").weights_sha256 == hub.sha256
    with pytest.raises(ConfigError, match="is not empty; name a new folder"):
        write_folder(tmp_path / "out", "tiny", "video", repo="org/tiny")


def test_a_refused_push_is_one_line_and_leaves_the_manifest(server: HubServer, manifest: Path) -> None:
    before = manifest.read_bytes()
    with pytest.raises(
        WeightsNotAvailableError, match=r"org/tiny: the Hub refuses access \(401\); pass token="
    ):
        publish("tiny", "video", repo="org/tiny", token="hf_reader")
    assert manifest.read_bytes() == before


def test_a_hub_that_fails_is_one_line(
    server: HubServer, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_encoder("video", "tiny")  # the release is in the cache
    server.stop()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError, match=r"^org/tiny: cannot push to http.*refused"):
        publish("tiny", "video", repo="org/tiny", token=TOKEN)


def test_two_checkpoints_need_two_repositories(
    server: HubServer, write_manifest: Manifest, manifest: Path
) -> None:
    taken = {"repo": "org/taken", "file": "model.safetensors", "revision": "0" * 40, "sha256": "0" * 64}
    write_manifest(audio={"hub": taken})
    with pytest.raises(ConfigError, match=r"org/taken holds tiny \(audio\)"):
        publish("tiny", "video", repo="org/taken", token=TOKEN)
    assert server.requests == []


def test_another_checkpoint_is_not_published_under_the_authors_card(
    write_manifest: Manifest, tmp_path: Path
) -> None:
    write_manifest(
        video={"origin": None, "bundled": {"file": "x.safetensors", "sha256": "0" * 64}, "hub": NOT_ON_HUB}
    )
    with pytest.raises(ConfigError, match="not of the authors' release"):
        write_folder(tmp_path / "out", "tiny", "video", repo="org/tiny")


def test_a_planned_checkpoint_is_not_published(tmp_path: Path, write_manifest: Callable[..., Path]) -> None:
    write_manifest(video={"status": "planned"})
    with pytest.raises(WeightsNotAvailableError, match="planned and not shipped yet"):
        write_folder(tmp_path / "out", "tiny", "video", repo="org/tiny")


def test_a_manifest_that_cannot_be_written_fails_before_the_push(
    server: HubServer, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ManifestError, match="is not writable; publish from a checkout"):
        publish("tiny", "video", repo="org/tiny", token=TOKEN)
    assert server.requests == []


@pytest.mark.parametrize("name", ["audioset", "kinetics400", "kinetics-sound"])
@pytest.mark.parametrize("modality", ["video", "audio"])
def test_the_card_has_data_license_results_limits_and_impact(name: str, modality: str) -> None:
    entry = find_weights(name, modality)  # type: ignore[arg-type]
    hub = Hub(repo="org/some-name", file="model.safetensors", revision=None, sha256="ab" * 32)
    card = release_card(entry, hub)
    data = card.data.to_dict()
    assert data["license"] == "cc-by-nc-4.0"
    assert data["library_name"] == "crisscross-zoo"
    assert data["pipeline_tag"] == "feature-extraction"
    assert modality in data["tags"]
    given = [r for r in entry.results if r.value is not None]
    assert [r.metric_value for r in card.data.eval_results] == [r.value for r in given]
    text = card.text
    for result in given:
        assert f"| {result.benchmark} | {result.protocol} | {result.metric} | {result.value} |" in text
    for phrase in (
        f"{entry.pretrained_on.dataset} ({entry.pretrained_on.size})",
        f'load_encoder("{modality}", weights="org/some-name")',
        "CC-BY-NC-4.0",
        "from a clone of the CrissCross Zoo repository: run `pip install .`",
        "## Limitations",
        "considerable gap",
        "## Broader impact",
        "harmful",
        "do not foresee any major negative impacts",
        "arXiv 2111.05329",
        "10.1609/aaai.v37i8.26162",
        "ab" * 32,
    ):
        assert phrase in " ".join(text.split()) or phrase in text, phrase
    assert "pypi" not in text.lower()  # the package is on no registry
    assert not {"{", "}"} & set(text.replace("@inproceedings{", "").split("## Citation")[0])


def test_the_snippet_of_the_card_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for modality, given in (
        ("video", {"frames": torch.zeros(8, 64, 48, 3, dtype=torch.uint8)}),
        ("audio", {"wave": torch.zeros(32_000)}),
    ):
        hub = Hub(repo="org/name", file="model.safetensors", revision=None, sha256="ab" * 32)
        card = str(release_card(find_weights("audioset", modality), hub))  # type: ignore[arg-type]
        code = card.split("```python\n")[1].split("```")[0].replace("org/name", "random:0")
        scope = dict(given)
        exec(code, scope)
        assert scope["features"].shape[0] == 1


def test_the_client_is_pointed_at_loopback(server: HubServer) -> None:
    assert server.url == constants.ENDPOINT  # nothing of this file may reach the real Hub
