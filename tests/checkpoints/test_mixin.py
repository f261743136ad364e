"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``, with a stand-in for the Hub's client."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, errors
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from crisscross_zoo import load_encoder
from crisscross_zoo.checkpoints import hub
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.errors import (
    CheckpointError,
    ConfigError,
    DownloadError,
    UnknownWeightsError,
    WeightsNotAvailableError,
)
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights.card import card_data
from crisscross_zoo.weights.manifest import find_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def encoder():
    return VideoEncoder(depth=10, width=2, pooling="max", size=112)


@pytest.fixture
def folder(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


class TestSaveAndLoad:
    def test_round_trip(self, encoder, folder):
        assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
        assert json.loads((folder / "config.json").read_text()) == encoder.config.to_dict()
        loaded = VideoEncoder.from_pretrained(folder)
        assert loaded.config == encoder.config
        assert not loaded.training
        clips = torch.randn(1, 3, 8, 32, 32)
        assert torch.equal(loaded(clips), encoder.eval()(clips))

    def test_encoders_know_their_weights(self, encoder, folder):
        assert (encoder.weights_id, encoder.weights_sha256) == ("unseeded", None)
        loaded = VideoEncoder.from_pretrained(str(folder))
        assert loaded.weights_id == str(folder)
        assert loaded.weights_sha256 == file_sha256(folder / "model.safetensors")

    def test_a_file_will_do(self, encoder, folder):
        loaded = VideoEncoder.from_pretrained(folder / "model.safetensors")
        assert torch.equal(loaded.conv1[0].weight, encoder.conv1[0].weight)

    def test_fields_may_be_changed(self, folder):
        assert VideoEncoder.from_pretrained(folder, pooling="fusion").config.pooling == "fusion"
        with pytest.raises(ConfigError, match="did you mean 'pooling'"):
            VideoEncoder.from_pretrained(folder, poolign="fusion")

    def test_the_architecture_may_not_be_changed(self, folder):
        with pytest.raises(CheckpointError, match="depth 10 and width 2"):
            VideoEncoder.from_pretrained(folder, depth=18)

    def test_loading_draws_no_random_numbers(self, folder):
        before = torch.get_rng_state()
        VideoEncoder.from_pretrained(folder)
        assert torch.equal(torch.get_rng_state(), before)

    def test_saving_again_gives_the_same_bytes(self, folder, tmp_path):
        VideoEncoder.from_pretrained(folder).save_pretrained(tmp_path / "again")
        for name in ("model.safetensors", "config.json", "README.md"):
            assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()

    def test_the_card_has_a_snippet_and_is_not_overwritten(self, encoder, folder):
        card = (folder / "README.md").read_text()
        assert 'load_encoder("video"' in card
        assert "R(2+1)D of depth 10 and width 2" in card
        (folder / "README.md").write_text("mine")
        encoder.save_pretrained(folder)
        assert (folder / "README.md").read_text() == "mine"


class TestRefused:
    def test_the_other_modality(self, folder):
        with pytest.raises(CheckpointError, match=r"this is a video checkpoint.*use VideoEncoder"):
            AudioEncoder.from_pretrained(folder)

    def test_a_pickle_beside_is_not_read(self, encoder, tmp_path):
        torch.save(encoder.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "config.json").write_text(json.dumps(encoder.config.to_dict()))
        with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
            VideoEncoder.from_pretrained(tmp_path)

    def test_a_pickle_of_the_right_name_is_not_read(self, encoder, folder):
        torch.save(encoder.state_dict(), folder / "model.safetensors")
        with pytest.raises(CheckpointError, match="a zip or pickle file"):
            VideoEncoder.from_pretrained(folder)

    def test_a_key_is_missing(self, encoder, folder):
        from safetensors.torch import save_file

        state_dict = encoder.state_dict()
        del state_dict["conv1.0.weight"]
        save_file(state_dict, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"1 missing of 105 keys \(conv1\.0\.weight\)"):
            VideoEncoder.from_pretrained(folder)

    def test_there_is_no_config(self, encoder, tmp_path):
        from safetensors.torch import save_file

        save_file(encoder.state_dict(), tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match="there is no config"):
            VideoEncoder.from_pretrained(tmp_path)

    @pytest.mark.parametrize("name", ["no/such/folder", "../no-such-folder", "x" * 300, ""])
    def test_what_is_neither_a_path_nor_a_repository_id(self, name):
        with pytest.raises(UnknownWeightsError, match="neither a path here nor a repository"):
            VideoEncoder.from_pretrained(name)


MissingEntryError = getattr(
    errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError
)  # the first since 1.0


def http_error(kind, status):
    # The fields of the transport's response that the client reads: requests, httpx or httpx2, by its version.
    return kind("the Hub's words", response=SimpleNamespace(status_code=status, headers={}, request=None))


def not_in_cache(cause):
    error = LocalEntryNotFoundError("the Hub's words")
    error.__cause__ = cause
    return error


class TestHub:
    @pytest.fixture(autouse=True)
    def network(self, monkeypatch):
        monkeypatch.setattr(hub, "resolution_error", lambda url: None)

    @pytest.fixture
    def hub(self, folder, monkeypatch, tmp_path):
        """Answers for the client: the saved files, in a snapshot folder; records its calls."""
        snapshot = tmp_path / "snapshots" / COMMIT
        snapshot.parent.mkdir()
        folder.rename(snapshot)
        calls = []

        def download(repo_id, filename, **options):
            calls.append((repo_id, filename, options))
            if not (snapshot / filename).exists():
                raise http_error(MissingEntryError, 404)
            return str(snapshot / filename)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        download.calls, download.snapshot = calls, snapshot
        return download

    def test_options_reach_the_client(self, encoder, hub):
        options = {"cache_dir": "c", "force_download": True, "local_files_only": False, "token": "t"}
        loaded = VideoEncoder.from_pretrained("org/name", revision="v1", **options)
        assert torch.equal(loaded.conv1[0].weight, encoder.conv1[0].weight)
        assert loaded.weights_id == f"org/name@{COMMIT}"
        assert hub.calls == [
            ("org/name", "model.safetensors", {"revision": "v1", **options, "cache_dir": Path("c")}),
            ("org/name", "config.json", {"revision": COMMIT, **options, "cache_dir": Path("c")}),
        ]

    def test_a_repository_needs_no_config_file(self, hub):
        (hub.snapshot / "config.json").unlink()
        assert VideoEncoder.from_pretrained("org/name").weights_id == f"org/name@{COMMIT}"

    def test_a_repository_of_pickles(self, hub):
        (hub.snapshot / "model.safetensors").rename(hub.snapshot / "pytorch_model.bin")
        with pytest.raises(UnknownWeightsError, match=r"the repository has no model\.safetensors"):
            VideoEncoder.from_pretrained("org/name")
        assert [filename for _, filename, _ in hub.calls] == ["model.safetensors"]

    @pytest.mark.parametrize(
        ("error", "kind", "message"),
        [
            (http_error(RepositoryNotFoundError, 404), UnknownWeightsError, "nor a repository"),
            (http_error(RevisionNotFoundError, 404), UnknownWeightsError, "no revision 'v9'"),
            (http_error(GatedRepoError, 403), WeightsNotAvailableError, "gated"),
            (http_error(HfHubHTTPError, 403), WeightsNotAvailableError, "refuses access"),
            (http_error(HfHubHTTPError, 401), WeightsNotAvailableError, "refuses access"),
            (http_error(HfHubHTTPError, 503), DownloadError, "the Hub's words"),
            (not_in_cache(None), WeightsNotAvailableError, "not in the cache"),
            (not_in_cache(OfflineModeIsEnabled("off")), WeightsNotAvailableError, "not in the cache"),
            (not_in_cache(ConnectionError("no route")), DownloadError, "no route"),
            (OSError(28, "No space left on device"), DownloadError, "No space left"),
            (RuntimeError("odd"), DownloadError, "odd"),
        ],
    )
    def test_the_clients_errors_become_ours(self, monkeypatch, error, kind, message):
        def download(*_args, **_options):
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(hub, "BACKOFF_SECONDS", 0.0)
        with pytest.raises(kind, match=message) as caught:
            VideoEncoder.from_pretrained("org/name", revision="v9")
        assert type(caught.value) is kind
        assert str(caught.value).startswith("org/name: ")
        assert caught.value.remedy

    def test_push_to_hub_uploads_what_save_pretrained_writes(self, encoder, monkeypatch):
        pushed = {}

        class Api:
            def __init__(self, **_options):
                pass

            def create_repo(self, repo_id, **_options):
                return huggingface_hub.RepoUrl(f"{huggingface_hub.constants.ENDPOINT}/{repo_id}")

            def upload_folder(self, *, repo_id, folder_path, **_options):
                pushed.update({p.name: p.read_bytes() for p in folder_path.iterdir()}, repo_id=repo_id)
                return "the commit"

        monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
        assert encoder.push_to_hub("org/name") == "the commit"
        assert pushed.keys() == {"repo_id", "README.md", "config.json", "model.safetensors"}
        assert pushed["repo_id"] == "org/name"


class TestCards:
    """Cards of save_pretrained, read back by the Hub's own ModelCard."""

    def test_weights_of_the_manifest_bring_its_facts(self, tmp_path):
        for modality, task in (("video", "video-classification"), ("audio", "audio-classification")):
            entry = find_weights("demo", modality)
            load_encoder(modality, "demo", pooling="max").save_pretrained(tmp_path / modality)
            card = ModelCard.load(tmp_path / modality / "README.md")
            data = card.data
            assert (data.library_name, data.pipeline_tag) == ("crisscross-zoo", "feature-extraction")
            assert (data.license, data.datasets, data.metrics) == (
                "apache-2.0",
                ["generated-clips"],
                ["accuracy"],
            )
            assert set(data.tags) >= {"crisscross", "self-supervised", modality}
            assert data.model_name == f"crisscross-demo-{modality}"
            assert [
                (r.task_type, r.dataset_name, r.metric_name, r.metric_value) for r in data.eval_results
            ] == [
                (task, f"{r.benchmark}, {r.protocol}", f"{r.metric} ({r.note})", r.value)
                for r in entry.results
            ]
            types = {r.metric_name.split()[0]: r.metric_type for r in data.eval_results}
            assert types == {"top-1": "accuracy", "R@1": "recall"}
            assert "`demo` of CrissCross Zoo" in card.text
            assert "no value was changed" in card.text

    def test_the_papers_results_name_the_paper(self):
        entry = find_weights("audioset", "video")
        data = ModelCard(f"---\n{card_data(entry).to_yaml()}\n---\n").data
        assert data.license == "cc-by-nc-4.0"
        assert data.datasets == ["audioset"]
        assert [(r.dataset_type, r.metric_value) for r in data.eval_results] == [
            ("ucf101", 92.4),
            ("hmdb51", 67.4),
        ]
        assert {r.source_url for r in data.eval_results} == {"https://arxiv.org/abs/2111.05329"}

    def test_changed_weights_bring_no_results(self, tmp_path):
        encoder = load_encoder("audio", "demo")
        with torch.no_grad():
            encoder.conv1[0].weight.mul_(1.001)
        encoder.save_pretrained(tmp_path)
        card = ModelCard.load(tmp_path / "README.md")
        assert (card.data.license, card.data.datasets) == ("apache-2.0", ["generated-clips"])
        assert (card.data.eval_results, card.data.metrics) == (None, None)
        assert "model-index" not in card.content
        assert "Trained further from `demo`" in card.text
        assert encoder.loaded.card_data.eval_results  # the card took them from a copy

    def test_other_weights_bring_no_license(self, folder):
        data = ModelCard.load(folder / "README.md").data
        assert (data.library_name, data.pipeline_tag) == ("crisscross-zoo", "feature-extraction")
        assert (data.license, data.datasets, data.eval_results) == (None, None, None)
        assert "video" in data.tags

    def test_an_error_of_the_card_is_not_the_hubs(self, encoder, monkeypatch):
        class Api:
            def __init__(self, **_options):
                pass

            def create_repo(self, repo_id, **_options):
                return huggingface_hub.RepoUrl(f"{huggingface_hub.constants.ENDPOINT}/{repo_id}")

        def fail(*_, **__):
            raise KeyError("no such key")

        monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
        monkeypatch.setattr(type(encoder), "generate_model_card", fail)
        with pytest.raises(KeyError, match="no such key"):
            encoder.push_to_hub("me/mine")

    def test_a_pushed_card_names_its_repository(self, encoder, monkeypatch):
        cards = []

        class Api:
            def __init__(self, **_options):
                pass

            def create_repo(self, repo_id, **_options):
                return huggingface_hub.RepoUrl(f"{huggingface_hub.constants.ENDPOINT}/{repo_id}")

            def upload_folder(self, *, folder_path, **_options):
                cards.append(ModelCard.load(folder_path / "README.md"))

        monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
        encoder.push_to_hub("me/mine")
        assert 'load_encoder("video", weights="me/mine")' in cards[0].text

    @pytest.mark.parametrize("modality", ["video", "audio"])
    def test_the_snippet_runs(self, tmp_path, modality):
        load_encoder(modality, "demo").save_pretrained(tmp_path)
        code = (tmp_path / "README.md").read_text().split("```python\n")[1].split("```")[0]
        scope = {"frames": torch.zeros(8, 130, 140, 3, dtype=torch.uint8), "wave": torch.zeros(32_000)}
        exec(code.replace("org/name", str(tmp_path)), scope)
        assert scope["features"].shape[0] == 1
