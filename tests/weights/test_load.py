from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from weights.fixtures import NARROW, pth_bytes
from weights.hub_server import HubServer

from crisscross_zoo import FeatureExtractor, load_encoder
from crisscross_zoo.checkpoints.files import state_sha256
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import (
    CheckpointError,
    ChecksumError,
    ConfigError,
    UnknownWeightsError,
    WeightsNotAvailableError,
)
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights import load
from crisscross_zoo.weights.manifest import BUNDLED_FOLDER, find_weights

States = dict[str, dict[str, torch.Tensor]]

RANDOM_0 = {
    "video": "f10071d4fcbd24ef79feb428716c53d111d28fea42175cef4b43aeb1c6a348ae",
    "audio": "ac1b7805848c39eb59d21a2439064e0480c1c1621062747b95ba152547ac8afa",
}


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_random_weights_are_the_same_on_every_machine(modality: Any) -> None:
    before = torch.random.get_rng_state()
    encoder = load_encoder(modality, "random:0")
    assert torch.equal(before, torch.random.get_rng_state())
    assert (encoder.weights_id, encoder.weights_sha256) == ("random:0", RANDOM_0[modality])
    assert not encoder.training
    x = torch.randn(1, *((3, 8, 32, 32) if modality == "video" else (1, 80, 64)))
    with torch.inference_mode():
        maps = encoder.forward_intermediates(x)
    assert all(
        0.1 < float(m.std()) < 50 for m in maps.values()
    )  # He's variance: signals neither die nor explode


def test_random_weights_depend_on_the_seed_not_on_the_pooling() -> None:
    a, b = load_encoder("audio", "random:1"), load_encoder("audio", "random:1", pooling="avg")
    assert a.weights_sha256 == b.weights_sha256 != RANDOM_0["audio"]
    assert b.config.pooling == "avg"


def test_none_draws_from_the_global_generator() -> None:
    torch.manual_seed(3)
    a = load_encoder("audio", None)
    b = load_encoder("audio", None)
    torch.manual_seed(3)
    c = load_encoder("audio", None)
    assert a.weights_sha256 == c.weights_sha256 != b.weights_sha256
    assert a.weights_id == "random"
    assert a.weights_sha256 == state_sha256(a.state_dict(), AudioConfig())


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_an_encoder_keeps_the_pooling_that_it_was_saved_with(modality: Any, tmp_path: Path) -> None:
    load_encoder(modality, "random:0", pooling="fusion").save_pretrained(tmp_path / "saved")
    assert load_encoder(modality, tmp_path / "saved").config.pooling == "fusion"
    assert load_encoder(modality, tmp_path / "saved", pooling="avg").config.pooling == "avg"
    assert load_encoder(modality, "demo").config.pooling == "linear"
    extractor = FeatureExtractor(tmp_path / "saved", modality, device="cpu")
    assert extractor.settings[modality]["pooling"] == extractor.encoders[modality].config.pooling == "fusion"
    given = load_encoder(modality, tmp_path / "saved")
    extractor = FeatureExtractor(given, modality, device="cpu", pooling="max")
    assert extractor.settings[modality]["pooling"] == "max"
    assert extractor.sizes == {modality: 512}
    assert given.config.pooling == "fusion"


def test_a_pretraining_runs_folder_stands_for_its_encoders(tmp_path: Path) -> None:
    for modality in ("video", "audio"):
        load_encoder(modality, "demo").save_pretrained(tmp_path / "run" / modality)  # type: ignore[arg-type]
    for modality in ("video", "audio"):
        encoder = load_encoder(modality, tmp_path / "run")  # type: ignore[arg-type]
        assert (encoder.config.modality, encoder.weights_id) == (modality, f"run/{modality}")
    assert list(FeatureExtractor(tmp_path / "run", "both", device="cpu").encoders) == ["video", "audio"]
    with pytest.raises(CheckpointError, match="modality 'both' needs weights of both") as caught:
        FeatureExtractor(tmp_path / "run" / "video", "both", device="cpu")
    assert caught.value.remedy == f"pass {tmp_path / 'run'}, which has both"
    shutil.rmtree(tmp_path / "run" / "audio")
    with pytest.raises(CheckpointError, match="pass weights for each modality"):
        FeatureExtractor(tmp_path / "run" / "video", "both", device="cpu")
    with pytest.raises(CheckpointError, match=r"the folder has no model\.safetensors"):
        load_encoder("audio", tmp_path / "run")


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_a_safetensors_file_and_a_saved_folder_give_the_same_encoder(
    modality: Any, safetensors_files: dict[str, Path], narrow_states: States, tmp_path: Path
) -> None:
    before = torch.random.get_rng_state()
    encoder = load_encoder(modality, safetensors_files[modality], pooling="max")
    assert torch.equal(before, torch.random.get_rng_state())
    assert encoder.config == NARROW[modality].replace(pooling="max")
    assert encoder.weights_id == f"{modality}.safetensors"
    assert encoder.weights_sha256 == file_sha256(safetensors_files[modality])
    assert not encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, narrow_states[modality][name])

    load_encoder(modality, str(safetensors_files[modality])).save_pretrained(tmp_path / "saved")
    again = load_encoder(modality, tmp_path / "saved")
    assert again.weights_sha256 == encoder.weights_sha256
    assert again.weights_id == "saved"


def test_a_checkpoint_of_pytorch_has_the_hash_of_its_converted_form(
    narrow_states: States, safetensors_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "x.pth.tar"
    path.write_bytes(pth_bytes(narrow_states["video"]))
    assert load_encoder("video", path).weights_sha256 == file_sha256(safetensors_files["video"])


def test_wrong_arguments_are_refused_before_anything_is_looked_up() -> None:
    for arguments, message in (
        ({"modality": "vidoe"}, "did you mean 'video'"),
        ({"pooling": "linaer"}, "did you mean 'linear'"),
        ({"device": "gpu"}, "device='gpu' cannot be used"),
        ({"weights": "random:x"}, "random weights need a seed, not 'x'"),
        ({"weights": "random"}, "write random:0"),
        ({"weights": "random:-1"}, "need a seed"),
        ({"weights": "random:0", "revision": "main"}, "revision has no meaning for 'random:0'"),
        ({"weights": None, "revision": "main"}, "revision has no meaning for None"),
        ({"weights": "audioset", "revision": "main"}, "revision has no meaning for 'audioset'"),
        ({"weights": "org/name@v1", "revision": "v2"}, "'org/name@v1' and revision='v2' disagree"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_encoder(**{"modality": "video", "local_files_only": True, **arguments})  # type: ignore[arg-type]


def test_the_error_for_a_planned_checkpoint_has_an_alternative(write_manifest: Callable[..., Path]) -> None:
    write_manifest(audio={"status": "planned"})
    with pytest.raises(WeightsNotAvailableError, match=r"tiny: .*planned and not shipped yet; use 'demo'"):
        load_encoder("audio", "tiny")


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_demo_ships_with_the_package(modality: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = find_weights("demo", modality)
    encoder = load_encoder(modality, "demo", local_files_only=True)
    assert entry.bundled is not None
    assert (encoder.weights_id, encoder.weights_sha256) == ("demo", entry.bundled.sha256)
    assert encoder.config == entry.config
    random = load_encoder(modality, None)
    assert encoder.config.width < random.config.width
    counters = [v for n, v in encoder.state_dict().items() if n.endswith("num_batches_tracked")]
    assert len({int(v) for v in counters}) == 1
    assert int(counters[0]) > 100, "it was trained"


def test_demo_is_small() -> None:
    files = [BUNDLED_FOLDER / str(find_weights("demo", m).bundled.file) for m in ("video", "audio")]  # type: ignore[union-attr,arg-type]
    assert sum(f.stat().st_size for f in files) <= 6e6


def test_a_bundled_checkpoint_is_read_from_the_installation(
    write_manifest: Callable[..., Path], safetensors_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = safetensors_files["video"].parent
    monkeypatch.setattr(load, "BUNDLED_FOLDER", folder)
    sha256 = file_sha256(safetensors_files["video"])
    write_manifest(video={"origin": None, "bundled": {"file": "video.safetensors", "sha256": sha256}})
    encoder = load_encoder("video", "tiny", local_files_only=True)
    assert (encoder.weights_id, encoder.weights_sha256) == ("tiny", sha256)
    write_manifest(video={"origin": None, "bundled": {"file": "video.safetensors", "sha256": "0" * 64}})
    with pytest.raises(ChecksumError, match="missing or altered; install crisscross-zoo again"):
        load_encoder("video", "tiny", local_files_only=True)


def test_the_rule_that_distinguishes_names_paths_and_repositories(
    server: HubServer, write_manifest: Callable[..., Path], safetensors_files: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write_manifest()
    monkeypatch.chdir(tmp_path)
    content = safetensors_files["video"].read_bytes()
    for path in ("tiny", "runs/best", "plain"):
        Path(path).mkdir(parents=True)
        (Path(path) / "model.safetensors").write_bytes(content)
    commit = server.repos["runs/best"].commit({"model.safetensors": content})

    def found(weights: str | Path) -> str:
        return load_encoder("video", weights).weights_id

    assert found("plain") == found(Path("plain")) == found("./plain") == "plain"
    assert found("./tiny") == found(Path("tiny")) == "tiny"
    with pytest.raises(
        Exception, match=r"127\.0\.0\.1:9"
    ):  # the name precedes the folder: its origin is requested
        found("tiny")
    assert found("runs/best") == "best"  # an existing path precedes the Hub
    assert server.requests == []
    assert found("runs/best@main") == f"runs/best@{commit}"
    assert server.requests != []


@pytest.mark.parametrize(
    "weights",
    [
        "./none",
        "/none/at/all",
        "~/none-here",
        "none.safetensors",
        "org/x.pth.tar",
        "here/none",
        "a/b/c.zip",
        Path("org/x"),
    ],
    ids=str,
)
def test_a_missing_path_is_an_error_and_not_looked_up_on_the_hub(
    weights: Any, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    with pytest.raises(UnknownWeightsError, match="there is no such file or folder") as caught:
        load_encoder("video", weights)
    assert str(caught.value).startswith(f"{weights}: ")
    assert server.requests == []


def test_a_missing_file_gets_the_nearest_one_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "best.pth.tar").touch()
    with pytest.raises(UnknownWeightsError, match=r"did you mean '.*/best\.pth\.tar'"):
        load_encoder("video", tmp_path / "bset.pth.tar")


def test_a_word_that_is_nothing_gets_the_nearest_name(server: HubServer) -> None:
    with pytest.raises(
        UnknownWeightsError,
        match=r"'Audio_set'; did you mean 'audioset'.*or pass org/name, a path or random:SEED",
    ):
        load_encoder("video", "Audio_set")
    with pytest.raises(UnknownWeightsError, match="'a/b/c'"):
        load_encoder("video", "a/b/c")
    assert server.requests == []


def test_a_folder_without_weights_and_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the folder has no model\.safetensors"):
        load_encoder("video", tmp_path)
    path = tmp_path / "x.pth"
    path.symlink_to("/proc/self/mem")  # exists, opens, and cannot be read
    with pytest.raises((CheckpointError, UnknownWeightsError)) as caught:
        load_encoder("video", path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_same_random_weights_in_another_process_and_thread_count() -> None:
    code = (
        "import torch; torch.set_num_threads(1); torch.manual_seed(5)\n"
        "from crisscross_zoo import load_encoder\n"
        "print(load_encoder('audio', 'random:0').weights_sha256)"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == RANDOM_0["audio"]


def test_config_defaults_of_the_paper_are_kept(golden: Any) -> None:
    assert load_encoder("video", "random:0").config == VideoConfig()
