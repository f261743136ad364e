from __future__ import annotations

import hashlib
import json
import pickle
import zipfile

import pytest
import safetensors.torch
import torch

from crisscross_zoo.checkpoints.files import apply_state_dict, read_checkpoint, state_sha256, write_checkpoint
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.errors import CheckpointError, UnknownWeightsError
from crisscross_zoo.files.digest import file_sha256


@pytest.fixture
def encoder():
    return VideoEncoder(depth=10, width=1)


@pytest.fixture
def file(encoder, tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, encoder.state_dict(), encoder.config)
    return path


def write_plain(path, state_dict, metadata=None):
    """Write a file as another program would, without our config in the header."""
    safetensors.torch.save_file(state_dict, path, metadata)


class TestWriteAndRead:
    def test_what_is_written_is_read(self, encoder, file):
        state_dict, config = read_checkpoint(file)
        assert config == encoder.config
        assert state_dict.keys() == encoder.state_dict().keys()
        assert all(torch.equal(state_dict[name], value) for name, value in encoder.state_dict().items())

    def test_the_sha256_is_the_files_and_needs_no_file(self, encoder, tmp_path):
        path = tmp_path / "made" / "too" / "x.safetensors"
        sha256 = write_checkpoint(path, encoder.state_dict(), encoder.config)
        assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert sha256 == file_sha256(path) == state_sha256(encoder.state_dict(), encoder.config)

    def test_the_bytes_do_not_depend_on_order_or_strides(self, encoder, file):
        shuffled = dict(reversed(encoder.to(memory_format=torch.channels_last_3d).state_dict().items()))
        assert {state_sha256(shuffled, encoder.config) for _ in range(5)} == {file_sha256(file)}
        assert state_sha256(shuffled, encoder.config.replace(size=112)) != file_sha256(file)

    def test_only_complete_files_appear(self, encoder, file, monkeypatch):
        before = file.read_bytes()

        def interrupted(_self, _target):
            raise KeyboardInterrupt

        monkeypatch.setattr("pathlib.Path.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(file, encoder.state_dict(), encoder.config.replace(size=112))
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        assert file.read_bytes() == before

    def test_a_folder_may_keep_the_config_beside(self, encoder, tmp_path):
        write_plain(tmp_path / "model.safetensors", encoder.state_dict())
        assert read_checkpoint(tmp_path)[1] is None
        (tmp_path / "config.json").write_text(json.dumps(encoder.config.to_dict()))
        assert read_checkpoint(tmp_path)[1] == encoder.config
        assert read_checkpoint(tmp_path / "model.safetensors")[1] is None

    def test_the_header_overrides_the_file_beside(self, encoder, file):
        (file.parent / "config.json").write_text(json.dumps(encoder.config.replace(size=64).to_dict()))
        assert read_checkpoint(file.parent)[1] == encoder.config


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "the file is empty"),
            (b"not what you wanted\n", "a text file"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
            (pickle.dumps({"conv1.0.weight": 1}), "a zip or pickle file"),
            (b"PK\x03\x04rest of a zip", "a zip or pickle file"),
            (bytes(range(255, 100, -1)), "not a whole safetensors file"),
            (b"\x10\0\0\0\0\0\0\0" + b"{" * 16, "not a whole safetensors file"),
        ],
    )
    def test_the_error_for_another_format_names_the_format(self, tmp_path, content, reason):
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=reason) as caught:
            read_checkpoint(path)
        assert caught.value.path == str(path)
        assert caught.value.remedy

    def test_a_torch_file_is_not_unpickled(self, tmp_path):
        path = tmp_path / "model.safetensors"
        torch.save({"conv1.0.weight": torch.zeros(1)}, path)
        assert zipfile.is_zipfile(path)
        with pytest.raises(CheckpointError, match="crisscross-weights convert"):
            read_checkpoint(tmp_path)

    @pytest.mark.parametrize("keep", [4, 100, 5000, -1])
    def test_a_truncated_file_is_refused(self, file, keep):
        file.write_bytes(file.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            read_checkpoint(file)

    def test_no_flipped_byte_of_the_header_gets_past(self, encoder, file):
        """Either the file is refused, or it has every key and shape that was written."""
        good = file.read_bytes()
        for position in range(0, 8 + int.from_bytes(good[:8], "little"), 37):
            file.write_bytes(good[:position] + bytes([good[position] ^ 0x11]) + good[position + 1 :])
            try:
                state_dict, _ = read_checkpoint(file)
                apply_state_dict(encoder, state_dict, source="x")
            except CheckpointError as error:
                assert error.reason and error.remedy  # noqa: PT017, PT018
            else:
                assert state_dict.keys() == encoder.state_dict().keys()

    def test_missing_files_and_folders(self, tmp_path):
        with pytest.raises(UnknownWeightsError, match="no such file"):
            read_checkpoint(tmp_path / "x.safetensors")
        with pytest.raises(UnknownWeightsError, match="no such file"):
            read_checkpoint(tmp_path / ("x" * 300))
        with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
            read_checkpoint(tmp_path)
        (tmp_path / "model.safetensors").mkdir()
        with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
            read_checkpoint(tmp_path)


class TestConfigs:
    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("[1, 2]", "not a JSON object"),
            ('{"modality": "smell"}', "modality='smell'"),
            ('{"modality": ["video"]}', "not one of this package"),
            ('{"modality": "video", "depth": 10, "width": 1, "evil": 1}', "no field 'evil'"),
            (
                '{"modality": "video", "depth": 10, "width": 1000000000}',
                "says width 1000000000, its tensors 1",
            ),
            ('{"modality": "video", "depth": 34, "width": 1}', "says depth 34, its tensors 10"),
            ('{"modality": "audio", "depth": 10, "width": 1}', "says modality audio, its tensors video"),
        ],
    )
    @pytest.mark.parametrize("location", ["header", "beside"])
    def test_a_config_that_cannot_be_is_refused(self, encoder, tmp_path, config, reason, location):
        metadata = {"config": config} if location == "header" else None
        write_plain(tmp_path / "model.safetensors", encoder.state_dict(), metadata)
        if location == "beside":
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(CheckpointError, match=reason):
            read_checkpoint(tmp_path)


class TestApply:
    def refused(self, encoder, state_dict):
        """Apply, check that nothing has changed, and return the message."""
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        with pytest.raises(CheckpointError) as caught:
            apply_state_dict(encoder, state_dict, source="somewhere")
        assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
        assert caught.value.path == "somewhere"
        return str(caught.value)

    def test_weights_arrive(self, encoder):
        other = VideoEncoder(depth=10, width=1)
        apply_state_dict(encoder, other.state_dict(), source="x")
        assert all(torch.equal(encoder.state_dict()[name], v) for name, v in other.state_dict().items())

    def test_half_precision_is_cast(self, encoder):
        half = {n: v.half() if v.is_floating_point() else v for n, v in encoder.state_dict().items()}
        apply_state_dict(encoder, half, source="x")
        assert encoder.conv1[0].weight.dtype == torch.float32
        assert torch.equal(encoder.conv1[0].weight, half["conv1.0.weight"].float())

    @pytest.mark.parametrize("prefix", ["module.", "video_backbone."])
    def test_prefixed_keys_are_refused(self, encoder, prefix):
        message = self.refused(encoder, {prefix + n: v for n, v in encoder.state_dict().items()})
        assert "105 missing of 105 keys (conv1.0.weight, conv1.1.weight, conv1.1.bias, ...)" in message
        assert f"105 unexpected of 105 keys ({prefix}conv1.0.weight" in message
        assert "bare backbone, without prefixes" in message

    def test_one_key_too_few_or_too_many(self, encoder):
        state_dict = encoder.state_dict()
        del state_dict["conv4x.out_bn.bias"]
        assert "1 missing of 105 keys (conv4x.out_bn.bias)" in self.refused(encoder, state_dict)
        more = {**encoder.state_dict(), "fc.weight": torch.zeros(2)}
        assert "1 unexpected of 105 keys (fc.weight)" in self.refused(encoder, more)

    def test_the_other_modality_is_recognised(self, encoder):
        audio = AudioEncoder(depth=10, width=1)
        assert "this is an audio checkpoint" in self.refused(encoder, audio.state_dict())
        assert "this is a video checkpoint" in self.refused(audio, encoder.state_dict())

    @pytest.mark.parametrize("kind", [VideoEncoder, AudioEncoder])
    @pytest.mark.parametrize(("depth", "width"), [(10, 2), (18, 1), (34, 1)])
    def test_another_width_or_depth_is_recognised(self, kind, depth, width):
        message = self.refused(kind(depth=10, width=1), kind(depth=depth, width=width).state_dict())
        assert f"checkpoint of depth {depth} and width {width}" in message
        assert "of depth 10 and width 1" in message

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_values_that_are_not_finite_are_refused(self, encoder, value):
        state_dict = {name: v.clone() for name, v in encoder.state_dict().items()}
        state_dict["conv5x.out_bn.running_var"][3] = value
        assert "conv5x.out_bn.running_var holds values that are not finite" in self.refused(
            encoder, state_dict
        )

    @pytest.mark.parametrize(
        "value", [3, "code", torch.zeros(1, device="meta"), torch.eye(2).to_sparse(), [torch.zeros(1)]]
    )
    def test_what_is_no_tensor_is_refused(self, encoder, value):
        message = self.refused(encoder, {**encoder.state_dict(), "conv1.1.bias": value})
        assert "plain tensors under names" in message
        assert "conv1.1.bias" in message

    def test_integer_weights_are_refused(self, encoder):
        state_dict = {**encoder.state_dict(), "conv1.1.bias": torch.zeros(1, dtype=torch.int8)}
        assert "conv1.1.bias has dtype torch.int8" in self.refused(encoder, state_dict)
