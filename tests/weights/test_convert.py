from __future__ import annotations

import collections
import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from weights.fixtures import NARROW, pth_bytes, zip_bytes

from crisscross_zoo import load_encoder
from crisscross_zoo.checkpoints.files import read_checkpoint
from crisscross_zoo.config import VideoConfig
from crisscross_zoo.encoders import build_encoder
from crisscross_zoo.errors import CheckpointError, ConfigError, UnknownWeightsError
from crisscross_zoo.files.digest import file_sha256
from crisscross_zoo.weights import convert
from crisscross_zoo.weights.convert import convert_checkpoint, read_local, read_pth

State = dict[str, torch.Tensor]
States = dict[str, State]


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def full_model(states: States) -> State:
    """Return the full model's names: backbones, their aliases inside the encoders, and heads."""
    full: State = {}
    for modality, state in states.items():
        full |= {f"{modality}_backbone.{name}": value for name, value in state.items()}
        full |= {f"{modality}_encoder.0.{name}": value for name, value in state.items()}
        full[f"{modality}_predictor.layer2.weight"] = torch.zeros(2, 2)
    return full


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("zipped", [False, True], ids=["bare", "zipped"])
def test_every_form_of_a_release_file_gives_the_same_tensors(
    modality: str, legacy: bool, zipped: bool, narrow_states: States, tmp_path: Path
) -> None:
    state = narrow_states[modality]
    data = pth_bytes(collections.OrderedDict(state), legacy=legacy)
    path = tmp_path / ("x.pth.tar.zip" if zipped else "x.pth.tar")
    path.write_bytes(
        zip_bytes({"vid/": b"", "vid/x.pth.tar": data, "__MACOSX/vid/._x.pth.tar": b"\0\5"})
        if zipped
        else data
    )
    found, config = read_local(path, modality)  # type: ignore[arg-type]
    assert same(found, state)
    assert config == NARROW[modality]
    assert read_local(path, None)[1] == config


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize(
    "wrap", [lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}, lambda s: s]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_full_model_gives_the_requested_backbone(
    modality: str, wrap: Any, prefix: str, narrow_states: States, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    full = {prefix + name: value for name, value in full_model(narrow_states).items()}
    path.write_bytes(pth_bytes(wrap(full)))
    assert same(read_pth(path, modality), narrow_states[modality])  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="a full model, which holds a video and an audio backbone"):
        read_pth(path, None)


@pytest.mark.parametrize("depth", [10, 18, 34])
def test_depth_and_width_are_read_off_the_shapes(depth: int, tmp_path: Path) -> None:
    config = VideoConfig(depth=depth, width=2)
    path = tmp_path / "x.pth"
    path.write_bytes(pth_bytes(build_encoder(config).state_dict()))
    assert read_local(path, "video")[1] == config


def test_released_names_and_shapes_load_strictly(golden: Any, tmp_path: Path) -> None:
    released = golden("state_dicts.json")
    for modality in ("video", "audio"):
        entries = released[f"{modality}18"]["entries"]
        state = {name: torch.zeros(shape, dtype=getattr(torch, dtype)) for name, shape, dtype in entries}
        path = tmp_path / f"{modality}.pth.tar"
        path.write_bytes(pth_bytes(state))
        encoder = load_encoder(modality, path)  # type: ignore[arg-type]
        assert list(encoder.state_dict()) == [name for name, _, _ in entries]
        assert encoder.config.width == 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, narrow_states: States, tmp_path: Path) -> None:
    state = {n: v.to(dtype) if v.is_floating_point() else v for n, v in narrow_states["audio"].items()}
    path = tmp_path / "x.pth"
    path.write_bytes(pth_bytes(state))
    found = read_pth(path, "audio")
    assert {v.dtype for v in found.values()} == {torch.float32, torch.int64}
    assert torch.equal(found["conv1.0.weight"], state["conv1.0.weight"].float())


def test_float64_beyond_float32_is_refused(narrow_states: States, tmp_path: Path) -> None:
    state = {**narrow_states["audio"], "conv1.1.bias": torch.full((8,), 1e300, dtype=torch.float64)}
    path = tmp_path / "x.pth"
    path.write_bytes(pth_bytes(state))
    with pytest.raises(CheckpointError, match=r"conv1\.1\.bias holds values that are not finite"):
        load_encoder("audio", path)


def test_convert_writes_the_same_bytes_each_time(narrow_states: States, tmp_path: Path) -> None:
    source = tmp_path / "x.pth.tar"
    source.write_bytes(pth_bytes(narrow_states["video"]))
    reversed_source = tmp_path / "y.pth.tar"
    reversed_source.write_bytes(pth_bytes(dict(reversed(narrow_states["video"].items())), legacy=True))
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    sha256 = convert_checkpoint(source, a, "video")
    assert convert_checkpoint(reversed_source, b, "video") == sha256 == file_sha256(a)
    assert a.read_bytes() == b.read_bytes()
    found, config = read_checkpoint(a)
    assert same(found, narrow_states["video"])
    assert config == NARROW["video"]
    assert load_encoder("video", source).weights_sha256 == sha256


def test_convert_overwrites_only_with_the_option(narrow_states: States, tmp_path: Path) -> None:
    source, out = tmp_path / "x.pth", tmp_path / "out.safetensors"
    source.write_bytes(pth_bytes(narrow_states["audio"]))
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists; choose another name"):
        convert_checkpoint(source, out, "audio")
    assert out.read_text() == "mine"
    convert_checkpoint(source, out, "audio", overwrite=True)
    assert read_checkpoint(out)[1] == NARROW["audio"]
    with pytest.raises(ConfigError, match=r"must be a \.safetensors file"):
        convert_checkpoint(source, tmp_path / "out.pth", "audio")


class Bomb:
    """Unpickled without limits, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("zipped", [False, True], ids=["bare", "zipped"])
def test_a_pickle_with_code_is_refused_and_not_run(
    legacy: bool, zipped: bool, narrow_states: States, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    data = pth_bytes({**narrow_states["video"], "conv1.0.weight": Bomb(made)}, legacy=legacy)
    path = tmp_path / ("x.pth.tar.zip" if zipped else "x.pth.tar")
    path.write_bytes(zip_bytes({"x.pth.tar": data}) if zipped else data)
    with pytest.raises(
        CheckpointError, match=r"more than tensors \(\w+\.mkdir\), which could run code"
    ) as caught:
        load_encoder("video", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert not made.exists()
    assert torch.load(io.BytesIO(data), weights_only=False) is not None  # it really is a bomb
    assert made.exists()


def damaged(state: State) -> dict[str, tuple[bytes, str]]:
    """Return hostile and broken files by name, with the expected messages."""
    good = pth_bytes(state)
    zipped = zip_bytes({"x.pth.tar": good})
    broken_crc = bytearray(zip_bytes({"x.pth.tar": good}, zipfile.ZIP_STORED))
    broken_crc[200] ^= 0xFF
    encrypted = bytearray(zip_bytes({"x.pth.tar": good}))
    encrypted[6] |= 1
    encrypted[encrypted.rindex(b"PK\1\2") + 8] |= 1
    bad_name = zip_bytes({"é.pth.tar": good}).replace("é".encode(), b"\xff\xff")
    bad_lzma = bytearray(zip_bytes({"x.pth.tar": good}, zipfile.ZIP_LZMA))
    bad_lzma[44:400] = b"\xff" * 356  # past the member's header and the decompressor's properties
    expanded = torch.zeros(1).expand(8, 1, 7, 7)
    return {
        "empty": (b"", "the file is empty"),
        "text": (b"hello, this is not a checkpoint\n" * 40, "a text file, not a checkpoint"),
        "html": (b"\n<!DOCTYPE html><html>not found</html>", "a web page, not a checkpoint"),
        "noise": (bytes(range(128, 256)) * 64, "not a whole PyTorch checkpoint"),
        "cut": (good[: len(good) // 2], "a damaged zip"),
        "cut legacy": (pth_bytes(state, legacy=True)[:5000], "not a whole PyTorch checkpoint"),
        "cut zip": (zipped[:-30], "a damaged zip"),
        "wrong crc": (bytes(broken_crc), "a damaged zip .*CRC"),
        "encrypted": (bytes(encrypted), "a damaged zip .*encrypted"),
        "zip slip": (zip_bytes({"../../x.pth.tar": good}), "a member that points outside it"),
        "zip slip, absolute": (zip_bytes({"/etc/x.pth.tar": good}), "a member that points outside it"),
        "zip slip, Windows": (zip_bytes({"..\\x.pth.tar": good}), "a member that points outside it"),
        "zip slip, other member": (
            zip_bytes({"x.pth.tar": good, "../y": b""}),
            "a member that points outside it",
        ),
        "member without a name": (zip_bytes({".": b"", "x.pth.tar": good}), r"points outside it or nowhere"),
        "member's name not UTF-8": (bad_name, "a damaged zip .*utf-8"),
        "bad LZMA": (bytes(bad_lzma), "a damaged zip"),
        "two members": (
            zip_bytes({"x.pth.tar": good, "y.pth.tar": good}),
            r"has 2 checkpoints \(x.pth.tar, y.pth.tar\)",
        ),
        "no member": (zip_bytes({"readme.txt": b"hello"}), r"the zip has no \.pth\.tar member"),
        "zip in zip": (zip_bytes({"x.pth.tar": zipped}), "a zip in a zip"),
        "text in zip": (zip_bytes({"x.pth.tar": b"hello"}), "not a whole PyTorch checkpoint"),
        "list": (pth_bytes([torch.zeros(2)]), "it holds a list, not a state dict"),
        "empty dict": (pth_bytes({}), "it holds an empty dict, not a state dict"),
        "number inside": (pth_bytes({**state, "epoch": 3}), "entry 'epoch' is a int, not a tensor"),
        "number as name": (
            pth_bytes({**state, 3: torch.zeros(2)}),
            "entry '3' is a Tensor, not a tensor under a name",
        ),
        "sparse": (
            pth_bytes({**state, "conv1.1.bias": torch.zeros(8).to_sparse()}),
            "conv1.1.bias is a sparse",
        ),
        "expanded": (pth_bytes({**state, "conv1.0.weight": expanded}), "claims 392 values and stores fewer"),
        "missing key": (
            pth_bytes({n: v for n, v in state.items() if n != "conv1.1.bias"}),
            "1 missing .*conv1.1.bias",
        ),
        "extra key": (pth_bytes({**state, "fc.weight": torch.zeros(2, 2)}), "1 unexpected .*fc.weight"),
        "wrong shape": (pth_bytes({**state, "conv1.1.bias": torch.zeros(9)}), "conv1.1.bias is \\(9,\\)"),
        "nan": (
            pth_bytes({**state, "conv1.1.bias": torch.full((8,), torch.nan)}),
            "values that are not finite",
        ),
        "inf": (
            pth_bytes({**state, "conv1.1.bias": torch.full((8,), torch.inf)}),
            "values that are not finite",
        ),
        "quantised": (
            pth_bytes({**state, "conv1.1.bias": torch.zeros(8, dtype=torch.int8)}),
            "has dtype torch.int8",
        ),
    }


CASES = sorted(damaged({"conv1.1.bias": torch.zeros(8), "x": torch.zeros(900)}))


@pytest.mark.parametrize("case", CASES)
def test_hostile_and_broken_files_are_refused_with_file_reason_and_remedy(
    case: str, narrow_states: States, tmp_path: Path
) -> None:
    data, reason = damaged(narrow_states["audio"])[case]
    path = tmp_path / "x.pth.tar"
    path.write_bytes(data)
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_encoder("audio", path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert caught.value.remedy
    assert "\n" not in message
    assert len(message) < 500
    assert sorted(p for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("is_", "requested"), [("video", "audio"), ("audio", "video")])
@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
def test_the_other_modality_is_refused_by_name(
    is_: str,
    requested: Any,
    suffix: str,
    narrow_states: States,
    safetensors_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    path = safetensors_files[is_]
    if suffix == ".pth.tar":
        path = tmp_path / "x.pth.tar"
        path.write_bytes(pth_bytes(narrow_states[is_]))
    with pytest.raises(
        CheckpointError, match=f"this is {'an audio' if is_ == 'audio' else 'a video'} checkpoint"
    ):
        load_encoder(requested, path)


def test_a_zip_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(convert, "MAX_BYTES", 1 << 20)
    path = tmp_path / "bomb.pth.tar.zip"
    path.write_bytes(zip_bytes({"x.pth.tar": bytes(2 << 20)}))
    assert path.stat().st_size < 4000
    with pytest.raises(
        CheckpointError,
        match=r"its member declares 2,097,152 bytes; .* at most 1,048,576 bytes",
    ):
        read_pth(path, "video")


def test_a_zip_that_lies_about_its_size_is_refused_while_reading(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(convert, "MAX_BYTES", 1 << 20)
    data = bytearray(zip_bytes({"x.pth.tar": bytes(2 << 20)}))
    directory = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, directory + 24, 1000)  # the declared size
    path = tmp_path / "bomb.pth.tar.zip"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a damaged zip|its member is longer than declared"):
        read_pth(path, "video")


def test_a_torch_zip_that_declares_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(convert, "MAX_BYTES", 1 << 20)
    for name, data in {"x.pth": zip_bytes({"a/data.pkl": b"", "a/data/0": bytes(2 << 20)})}.items():
        for path, content in ((name, data), (name + ".zip", zip_bytes({name: data}))):
            (tmp_path / path).write_bytes(content)
            with pytest.raises(
                CheckpointError,
                match=r"its tensors declare more bytes; .* at most 1,048,576 bytes",
            ):
                read_pth(tmp_path / path, "video")


def test_a_file_larger_than_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(convert, "MAX_BYTES", 1000)
    path = tmp_path / "x.pth"
    path.write_bytes(bytes(1001))
    with pytest.raises(CheckpointError, match=r"the file has 1,001 bytes; .* at most 1,000 bytes"):
        read_pth(path, "video")


def test_a_stem_that_promises_a_giant_is_refused_without_building_it(
    narrow_states: States, tmp_path: Path
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(pth_bytes({**narrow_states["audio"], "conv1.0.weight": torch.zeros(2_000_000, 1, 1, 1)}))
    with pytest.raises(CheckpointError, match=r"tensors have another shape|cannot be built here"):
        load_encoder("audio", path)


def test_a_missing_file_is_not_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownWeightsError, match="there is no such file"):
        read_pth(tmp_path / "x.pth", "video")
