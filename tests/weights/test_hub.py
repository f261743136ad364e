"""The real client of the Hub, and the download of the authors' release, against a server on loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from weights.fixtures import NARROW, NOT_ON_HUB, pth_bytes, zip_bytes
from weights.hub_server import HubServer

from crisscross_zoo import load_encoder
from crisscross_zoo.checkpoints.files import write_checkpoint
from crisscross_zoo.checkpoints.hub import resolution_error
from crisscross_zoo.errors import (
    CheckpointError,
    ChecksumError,
    DownloadError,
    UnknownWeightsError,
    WeightsError,
    WeightsNotAvailableError,
)
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights import origin

pytestmark = pytest.mark.integration

States = dict[str, dict[str, torch.Tensor]]
Files = dict[str, Path]
Manifest = Callable[..., Path]

RELEASE = "vid.pth.tar.zip"


@pytest.fixture
def on_hub(server: HubServer, write_manifest: Manifest, safetensors_files: Files) -> str:
    """``tiny`` for video is on the Hub as org/tiny; the commit."""
    content = safetensors_files["video"].read_bytes()
    commit = server.repos["org/tiny"].commit({"model.safetensors": content})
    fields = {
        "repo": "org/tiny",
        "file": "model.safetensors",
        "revision": commit,
        "sha256": file_sha256(safetensors_files["video"]),
    }
    write_manifest(video={"hub": fields})
    return commit


@pytest.fixture
def released(server: HubServer, write_manifest: Manifest, narrow_states: States) -> Path:
    """``tiny`` for video has an origin on loopback; the folder that the cache will be in."""
    server.origins[RELEASE] = zip_bytes({"vid.pth.tar": pth_bytes(narrow_states["video"])})
    write_manifest(video=from_origin(server))
    return Path(os.fspath(origin.constants.HF_ASSETS_CACHE)) / "crisscross-zoo" / "weights" / "origin"


def from_origin(server: HubServer, **fields: str) -> dict[str, Any]:
    return {
        "hub": NOT_ON_HUB,
        "origin": {"url": server.origin(RELEASE), "member_suffix": ".pth.tar", "sha256": None, **fields},
    }


def one_line(error: WeightsError) -> str:
    message = str(error)
    assert "\n" not in message
    assert len(message) < 600
    assert error.remedy
    return message


# The Hub


def test_a_name_on_the_hub_is_downloaded_once_and_its_hash_checked(
    server: HubServer, on_hub: str, safetensors_files: Files
) -> None:
    encoder = load_encoder("video", "tiny")
    assert (encoder.weights_id, encoder.weights_sha256) == ("tiny", file_sha256(safetensors_files["video"]))
    assert encoder.config == NARROW["video"]
    assert server.count("GET") == 1
    server.requests.clear()
    load_encoder("video", "tiny")
    assert server.requests == []  # a pinned revision in the cache: not even a HEAD


def test_a_cached_checkpoint_needs_no_server(server: HubServer, on_hub: str) -> None:
    load_encoder("video", "tiny")
    load_encoder("video", "org/tiny")
    server.stop()
    assert load_encoder("video", "tiny").weights_id == "tiny"
    assert load_encoder("video", "org/tiny").weights_id == f"org/tiny@{on_hub}"
    assert load_encoder("video", "org/tiny", local_files_only=True).weights_id == f"org/tiny@{on_hub}"


def test_a_hub_id_takes_the_requested_revision(
    server: HubServer, safetensors_files: Files, narrow_states: States, tmp_path: Path
) -> None:
    other = {name: value + 1 for name, value in narrow_states["audio"].items()}
    write_checkpoint(tmp_path / "other.safetensors", other, NARROW["audio"])
    old = server.repos["org/aud"].commit(
        {"model.safetensors": safetensors_files["audio"].read_bytes()}, ref="v1"
    )
    new = server.repos["org/aud"].commit({"model.safetensors": (tmp_path / "other.safetensors").read_bytes()})
    assert load_encoder("audio", "org/aud").weights_id == f"org/aud@{new}"
    for encoder in (load_encoder("audio", "org/aud@v1"), load_encoder("audio", "org/aud", revision=old)):
        assert encoder.weights_id == f"org/aud@{old}"
        assert encoder.weights_sha256 == file_sha256(safetensors_files["audio"])


def test_weights_without_a_config_in_their_header_take_config_json(
    server: HubServer, narrow_states: States
) -> None:
    import json

    import safetensors.torch

    config = NARROW["audio"].replace(seconds=3.0)
    files = {
        "model.safetensors": safetensors.torch.save(narrow_states["audio"]),
        "config.json": json.dumps(config.to_dict()).encode(),
    }
    server.repos["org/bare"].commit(files)
    assert load_encoder("audio", "org/bare").config == config


def test_cache_dir_is_used_instead(server: HubServer, on_hub: str, tmp_path: Path) -> None:
    load_encoder("video", "tiny", cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine" / "models--org--tiny" / "snapshots").iterdir())
    assert not (tmp_path / "hf" / "hub").exists()
    with pytest.raises(WeightsNotAvailableError):
        load_encoder("video", "tiny", local_files_only=True)


def test_offline_with_nothing_cached_has_a_remedy(server: HubServer, on_hub: str) -> None:
    for weights in ("tiny", "org/tiny"):
        with pytest.raises(
            WeightsNotAvailableError, match="not in the cache, and the network may not be used"
        ) as caught:
            load_encoder("video", weights, local_files_only=True)
        assert one_line(caught.value).startswith("org/tiny: ")
        assert "load it once online" in caught.value.remedy
    assert server.requests == []


@pytest.mark.parametrize(
    ("weights", "kind", "reason"),
    [
        ("org/none", UnknownWeightsError, "neither a path here nor a repository on the Hub that you can see"),
        ("org/tiny@v9", UnknownWeightsError, "the repository has no revision 'v9'"),
        ("org/empty", UnknownWeightsError, r"the repository has no model\.safetensors"),
        ("org/private", WeightsNotAvailableError, r"the Hub refuses access \(401\)"),
        ("org/gated", WeightsNotAvailableError, "the repository is gated; accept its terms at http"),
        ("org/bad..name", UnknownWeightsError, "neither a path here nor a repository"),
        ("org/text", CheckpointError, "a text file, not safetensors"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    weights: str, kind: type[WeightsError], reason: str, server: HubServer, on_hub: str
) -> None:
    server.repos["org/empty"].commit({"README.md": b"hello"})
    server.repos["org/private"].commit({"model.safetensors": b""})
    server.repos["org/private"].token = "hf_reader"
    server.repos["org/gated"].commit({"model.safetensors": b""})
    server.repos["org/gated"].token = "hf_reader"
    server.repos["org/gated"].gated = True
    server.repos["org/text"].commit({"model.safetensors": b"hello"})
    with pytest.raises(kind, match=reason) as caught:
        load_encoder("video", weights)
    assert weights.split("@")[0].split("/")[1] in one_line(caught.value)


def test_a_token_opens_a_private_repository(
    server: HubServer, safetensors_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/private"].commit({"model.safetensors": safetensors_files["video"].read_bytes()})
    server.repos["org/private"].token = "hf_reader"
    with pytest.raises(WeightsNotAvailableError, match="401"):
        load_encoder("video", "org/private", token="hf_wrong")
    load_encoder("video", "org/private", token="hf_reader")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    load_encoder("video", "org/private", cache_dir=Path(str(origin.constants.HF_HUB_CACHE)) / "other")


def test_a_5xx_to_the_first_request_is_survived(server: HubServer, on_hub: str) -> None:
    server.faults.head_statuses = [503]
    assert load_encoder("video", "tiny").weights_id == "tiny"
    assert server.count("HEAD") > 1


def test_a_temporary_5xx_is_survived(
    server: HubServer, on_hub: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.statuses = [502, 503]
    assert load_encoder("video", "tiny").weights_id == "tiny"
    assert server.count("GET") == 3
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("crisscross_zoo")]
    assert len(ours) == 2  # one line per retry
    assert all("org/tiny: " in line and "; trying again in 0 s" in line for line in ours)


def test_a_permanent_5xx_is_one_line(server: HubServer, on_hub: str) -> None:
    server.faults.statuses = [503] * 20
    with pytest.raises(DownloadError, match=r"cannot download from http://127.*503") as caught:
        load_encoder("video", "tiny")
    assert one_line(caught.value).startswith("org/tiny: ")
    assert server.count("GET") == 3


def test_a_truncated_body_is_resumed(server: HubServer, on_hub: str) -> None:
    server.faults.truncate = [10_000]
    assert load_encoder("video", "tiny").weights_id == "tiny"
    assert server.count("GET") == 2


@pytest.mark.parametrize("weights", ["tiny", "org/tiny"])
def test_wrong_bytes_are_downloaded_again(
    weights: str, server: HubServer, on_hub: str, safetensors_files: Files
) -> None:
    server.faults.corrupt = 1
    encoder = load_encoder("video", weights)
    assert encoder.weights_sha256 == file_sha256(safetensors_files["video"])
    assert server.count("GET", "model.safetensors") == 2


@pytest.mark.parametrize("weights", ["tiny", "org/tiny"])
def test_bytes_that_stay_wrong_are_refused(weights: str, server: HubServer, on_hub: str) -> None:
    server.faults.corrupt = 9
    with pytest.raises(ChecksumError, match=r"has sha256 \w{12}\.\.\., it must be \w{12}") as caught:
        load_encoder("video", weights)
    assert one_line(caught.value).startswith("org/tiny: ")
    with pytest.raises(ChecksumError, match="load it once online"):  # cached files are not trusted either
        load_encoder("video", weights, local_files_only=True)
    server.faults.corrupt = 0
    load_encoder("video", weights)


def test_a_hub_that_is_not_there_is_one_line(
    server: HubServer, on_hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    # The client tries for half a minute; its waits are not what is tested here.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError, match=r"cannot download from http://127.*refused") as caught:
        load_encoder("video", "tiny")
    assert one_line(caught.value).startswith("org/tiny: ")


@pytest.fixture
def unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, as on a machine without a network."""

    def fail(*args: object, **kwargs: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", fail)


@pytest.mark.parametrize("weights", ["tiny", "org/tiny"])
def test_without_a_network_one_line_comes_at_once(
    weights: str, server: HubServer, on_hub: str, unresolved: None, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"the host 127.0.0.1 cannot be resolved \(Name or") as caught:
        load_encoder("video", weights)
    assert time.monotonic() - started < 3
    assert "weights='demo'" in one_line(caught.value)
    assert "HF_HUB_OFFLINE" in caught.value.remedy
    assert not caplog.records
    assert server.requests == []


def test_without_a_network_what_is_cached_is_used(
    server: HubServer, on_hub: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    load_encoder("video", "org/tiny")
    request.getfixturevalue("unresolved")
    assert load_encoder("video", "org/tiny").weights_id == f"org/tiny@{on_hub}"


def test_a_push_without_a_network_is_one_line(unresolved: None) -> None:
    with pytest.raises(DownloadError, match="cannot be resolved") as caught:
        load_encoder("video", "demo").push_to_hub("org/name", token="hf_x")
    assert str(caught.value).startswith("org/name: ")
    assert caught.value.remedy == "check the connection"


@pytest.mark.parametrize("proxy", ["https_proxy", "all_proxy"])
def test_a_proxy_resolves_names_itself(unresolved: None, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert resolution_error("https://hub.example/x") is not None
    monkeypatch.setenv(proxy, "http://10.0.0.1:3128")
    assert resolution_error("https://hub.example/x") is None
    monkeypatch.setenv("no_proxy", "hub.example")
    assert resolution_error("https://hub.example/x") is not None


def test_a_lookup_that_fails_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), []]

    def look_up(*args: object, **kwargs: object) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert resolution_error("https://hub.example/x") is None
    assert answers == []


def test_an_endpoint_without_a_host_is_not_looked_up(unresolved: None) -> None:
    assert resolution_error("hub.example") is None


# The authors' release


def test_the_release_is_downloaded_and_converted_once(
    server: HubServer, released: Path, safetensors_files: Files
) -> None:
    encoder = load_encoder("video", "tiny")
    assert (encoder.weights_id, encoder.weights_sha256) == ("tiny", file_sha256(safetensors_files["video"]))
    assert sorted(p.name for p in released.iterdir() if p.suffix != ".lock") == [
        "tiny-video.safetensors",
        "tiny-video.safetensors.sha256",
    ]
    server.stop()
    assert server.count("GET") == 1
    again = load_encoder("video", "tiny", local_files_only=True)
    assert again.weights_sha256 == encoder.weights_sha256


def test_the_release_goes_to_cache_dir(server: HubServer, released: Path, tmp_path: Path) -> None:
    load_encoder("video", "tiny", cache_dir=tmp_path / "mine")
    assert (tmp_path / "mine/crisscross-zoo/weights/origin/tiny-video.safetensors").is_file()
    assert not released.exists()


def test_offline_without_the_release_has_a_remedy(
    server: HubServer, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsNotAvailableError, match="not in the cache") as caught:
        load_encoder("video", "tiny", local_files_only=True)
    assert "crisscross-weights download tiny" in one_line(caught.value)
    monkeypatch.setattr(origin.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsNotAvailableError, match="not in the cache"):
        load_encoder("video", "tiny")
    assert server.requests == []


def test_no_token_is_sent_to_the_release(
    server: HubServer, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    load_encoder("video", "tiny", token="hf_secret")
    assert not any("hf_secret" in str(headers) for _, _, headers in server.requests)


def test_a_release_is_tried_again_after_server_errors(server: HubServer, released: Path) -> None:
    server.faults.statuses = [503, 429, 500]
    load_encoder("video", "tiny")
    assert server.count("GET") == 4


def test_the_server_may_name_the_wait(
    server: HubServer, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(origin.time, "sleep", waits.append)
    server.faults.statuses = [429, 429]
    server.faults.retry_after = "7"
    load_encoder("video", "tiny")
    assert waits == [7, 7]
    server.faults.statuses, server.faults.retry_after = [429], "86400"
    (released / "tiny-video.safetensors").unlink()
    load_encoder("video", "tiny")
    assert waits[-1] == origin.MAX_WAIT_SECONDS


@pytest.mark.parametrize(
    ("statuses", "reason", "tries"),
    [
        ([503] * 9, "5 tries failed: the server answers 503", 5),
        ([404], "the server answers 404; the release may", 1),
    ],
)
def test_a_release_that_cannot_be_downloaded_is_one_line(
    statuses: list[int], reason: str, tries: int, server: HubServer, released: Path
) -> None:
    server.faults.statuses = statuses
    with pytest.raises(DownloadError, match=reason) as caught:
        load_encoder("video", "tiny")
    assert one_line(caught.value).startswith(server.origin(RELEASE))
    assert server.count("GET") == tries


def test_a_release_server_that_is_not_there_is_one_line(server: HubServer, released: Path) -> None:
    server.stop()
    with pytest.raises(DownloadError, match=r"5 tries failed: .*refused") as caught:
        load_encoder("video", "tiny")
    assert one_line(caught.value).startswith(server.origin(RELEASE))


def test_a_release_without_a_network_is_one_line_at_once(
    server: HubServer, released: Path, unresolved: None, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DownloadError, match="cannot be resolved") as caught:
        load_encoder("video", "tiny")
    assert "HF_HUB_OFFLINE" in one_line(caught.value)
    assert not caplog.records


def test_an_interrupted_release_is_resumed(server: HubServer, released: Path) -> None:
    server.faults.truncate = [1000, 50_000]
    load_encoder("video", "tiny")
    assert [h.get("Range") for m, _, h in server.requests if m == "GET"] == [
        None,
        "bytes=1000-",
        "bytes=51000-",
    ]


def test_a_redirect_is_followed_and_resumed_through(
    server: HubServer, released: Path, write_manifest: Manifest
) -> None:
    write_manifest(video=from_origin(server, url=server.origin(f"moved/{RELEASE}")))
    server.faults.truncate = [1000]
    load_encoder("video", "tiny")
    ranges = [h.get("Range") for m, path, h in server.requests if m == "GET" and "moved" not in path]
    assert ranges == [None, "bytes=1000-"]


def test_a_download_that_was_given_up_is_resumed_by_the_next_call(server: HubServer, released: Path) -> None:
    server.faults.truncate = [1000, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"1,000 bytes are kept"):
        load_encoder("video", "tiny")
    server.requests.clear()
    load_encoder("video", "tiny")
    assert [h.get("Range") for m, _, h in server.requests if m == "GET"] == ["bytes=1000-"]


def test_a_release_that_changed_meanwhile_is_downloaded_whole(
    server: HubServer, released: Path, narrow_states: States
) -> None:
    server.faults.truncate = [1000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        load_encoder("video", "tiny")
    other = {name: value + 1 for name, value in narrow_states["video"].items()}
    server.origins[RELEASE] = zip_bytes({"vid.pth.tar": pth_bytes(other)})
    encoder = load_encoder("video", "tiny")
    assert torch.equal(encoder.state_dict()["conv1.0.weight"], other["conv1.0.weight"])


def test_a_partial_file_as_long_as_the_release_is_downloaded_again(server: HubServer, released: Path) -> None:
    load_encoder("video", "tiny")
    (released / "tiny-video.safetensors").unlink()
    partial = released / "tiny-video.zip.partial"
    partial.write_bytes(bytes(len(server.origins[RELEASE])))
    partial.with_suffix(".etag").write_text(f'"{hashlib.md5(server.origins[RELEASE]).hexdigest()}"')
    load_encoder("video", "tiny")


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"<html>sign in to the network</html>", CheckpointError, "a web page, not a checkpoint"),
        (b"", CheckpointError, "the file is empty"),
        (zip_bytes({"readme.txt": b"x"}), CheckpointError, r"no \.pth\.tar member"),
        (zip_bytes({"x.pth.tar": pth_bytes({"a": torch.zeros(1)})}), CheckpointError, "missing"),
    ],
    ids=["html", "empty", "no member", "other keys"],
)
def test_a_release_that_is_no_checkpoint_is_refused_and_not_kept(
    content: bytes,
    kind: type[WeightsError],
    reason: str,
    server: HubServer,
    released: Path,
    narrow_states: States,
) -> None:
    good, server.origins[RELEASE] = server.origins[RELEASE], content
    with pytest.raises(kind, match=reason) as caught:
        load_encoder("video", "tiny")
    assert one_line(caught.value).startswith(server.origin(RELEASE))
    assert [p for p in released.iterdir() if p.suffix != ".lock"] == []
    server.origins[RELEASE] = good
    load_encoder("video", "tiny")


def test_the_release_is_held_to_a_known_hash(
    server: HubServer, released: Path, write_manifest: Manifest
) -> None:
    write_manifest(video=from_origin(server, sha256="0" * 64))
    with pytest.raises(ChecksumError, match=r"it must be 000000000000") as caught:
        load_encoder("video", "tiny")
    assert one_line(caught.value).startswith(server.origin(RELEASE))
    write_manifest(video=from_origin(server, sha256=hashlib.sha256(server.origins[RELEASE]).hexdigest()))
    load_encoder("video", "tiny")


def test_a_release_larger_than_a_checkpoint_may_be_is_not_downloaded(
    server: HubServer, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="larger than 1,000 bytes"):
        load_encoder("video", "tiny")


def test_a_converted_file_that_was_altered_is_made_again(server: HubServer, released: Path) -> None:
    sha256 = load_encoder("video", "tiny").weights_sha256
    cached = released / "tiny-video.safetensors"
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(data)
    with pytest.raises(WeightsNotAvailableError):
        load_encoder("video", "tiny", local_files_only=True)
    assert load_encoder("video", "tiny").weights_sha256 == sha256
    assert server.count("GET") == 2


def test_a_cache_that_cannot_be_made_is_one_line(server: HubServer, released: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"the cache cannot be used: .*; free space or permit") as caught:
        load_encoder("video", "tiny", cache_dir=tmp_path / "file")
    assert "file" in one_line(caught.value)


# Other processes, which read the environment

LOAD = """
import sys, crisscross_zoo
from crisscross_zoo.errors import CrissCrossError
for weights in sys.argv[1:]:
    try:
        encoder = crisscross_zoo.load_encoder("video", weights)
        print(encoder.weights_id, encoder.weights_sha256)
    except CrissCrossError as error:
        print(type(error).__name__, error)
"""


def start(server: HubServer, home: Path, *weights: str, **environment: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, *weights], env={**kept, **own}, text=True, stdout=-1, stderr=-1
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def test_two_processes_at_once_and_then_one_offline(
    server: HubServer, released: Path, safetensors_files: Files, tmp_path: Path
) -> None:
    content = safetensors_files["video"].read_bytes()
    commit = server.repos["org/tiny"].commit({"model.safetensors": content})
    server.repos["org/tiny"].token = "hf_reader"
    server.faults.delay = 0.5
    sha256 = file_sha256(safetensors_files["video"])
    expected = [f"tiny {sha256}", f"org/tiny@{commit} {sha256}"]
    home = tmp_path / "home"
    both = [start(server, home, "tiny", "org/tiny", HF_TOKEN="hf_reader") for _ in range(2)]
    assert [finish(process) for process in both] == [expected, expected]
    assert server.count("GET", RELEASE) == 1
    assert (home / "hub" / "models--org--tiny").is_dir()
    assert (home / "assets/crisscross-zoo/weights/origin/tiny-video.safetensors").is_file()

    server.requests.clear()
    offline = start(server, home, "tiny", "org/tiny", "org/other", HF_HUB_OFFLINE="1")
    *cached, other = finish(offline)
    assert cached == expected
    assert other.startswith("WeightsNotAvailableError org/other: ")
    assert server.requests == []


def test_a_killed_download_is_resumed_by_another_process(
    server: HubServer, released: Path, tmp_path: Path
) -> None:
    whole = len(server.origins[RELEASE])
    partial = released / "tiny-video.zip.partial"
    server.faults.truncate = [whole // 2]
    first = start(server, tmp_path / "hf", "tiny")
    # The first request is cut in half; the process then waits a second before it resumes, and dies in between.
    while not (partial.is_file() and partial.stat().st_size == whole // 2):
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.communicate()
    server.requests.clear()
    assert load_encoder("video", "tiny").weights_id == "tiny"
    assert [h.get("Range") for m, _, h in server.requests if m == "GET"] == [f"bytes={whole // 2}-"]
