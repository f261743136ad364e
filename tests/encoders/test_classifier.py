"""An encoder followed by a linear layer: what is trained, what is not, and that it is an ordinary module."""

from __future__ import annotations

import copy
import functools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from crisscross_zoo import load_encoder
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.encoders import AudioEncoder, Classifier, Encoder, VideoEncoder
from crisscross_zoo.encoders.head import linear_head
from crisscross_zoo.encoders.pooling import pool
from crisscross_zoo.errors import CheckpointError, ConfigError, InputError, UnknownWeightsError

CLASSES = 5
CONFIGS = {
    "video": VideoConfig(depth=10, width=8, size=112),
    "long video": VideoConfig(depth=10, width=8, frames=16, size=160),
    "audio": AudioConfig(depth=10, width=8),
}
POOLED = {
    # 64 channels times the positions of conv5x that each pooling keeps: (1, 4, 4), (2, 5, 5) and (3, 7)
    "video": {
        "linear": 64,
        "linear-adaptive": 1024,
        "linear-strided": 64,
        "fusion": 64 * 4,
        "avg": 64,
        "max": 64,
    },
    "long video": {
        "linear": 64 * 2 * 4,
        "linear-adaptive": 1024,
        "linear-strided": 64 * 2,
        "fusion": 64 * 4,
        "avg": 64,
        "max": 64,
    },
    "audio": {
        "linear": 64 * 9,
        "linear-adaptive": 64 * 9,
        "linear-strided": 64 * 9,
        "fusion": 64 * 4,
        "avg": 64,
        "max": 64,
    },
}


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


def make_encoder(kind: str) -> Encoder:
    config = CONFIGS[kind]
    encoder = VideoEncoder(config) if isinstance(config, VideoConfig) else AudioEncoder(config)
    return encoder.eval()


def make_clips(encoder: Encoder, n: int = 2) -> torch.Tensor:
    config = encoder.config
    if isinstance(config, VideoConfig):
        return torch.randn(n, 3, config.frames, config.size, config.size)
    return torch.randn(n, 1, 80, 200)


@pytest.fixture(params=["video", "audio"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return make_encoder(request.param)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_pooling_gives_logits(kind: str) -> None:
    encoder = make_encoder(kind)
    clips = make_clips(encoder, 1)
    with torch.inference_mode():
        features = encoder.forward_features(clips)
        for pooling, wanted in POOLED[kind].items():
            classifier = encoder.classifier(CLASSES, pooling=pooling).eval()
            linear = classifier.head[-1]
            assert (linear.in_features, linear.out_features) == (wanted, CLASSES)
            logits = classifier(clips)
            assert logits.shape == (1, CLASSES)
            expected = pool(features, pooling) @ linear.weight.T  # the biases are 0
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_the_pooling_is_the_classifiers_own(encoder: Encoder) -> None:
    assert encoder.config.pooling == "linear"
    classifier = encoder.classifier(CLASSES)
    assert classifier.config.pooling == "max"
    assert classifier.encoder is encoder
    assert encoder.config.pooling == "linear"


def test_the_head_starts_orthogonal_and_without_biases() -> None:
    head = linear_head(64, CLASSES)
    linear = head[-1]
    assert [type(layer).__name__ for layer in head] == ["Dropout", "Linear"]
    torch.testing.assert_close(linear.weight @ linear.weight.T, torch.eye(CLASSES), rtol=0, atol=1e-5)
    assert not linear.bias.any()
    many = linear_head(8, 20)[-1]  # more classes than features: orthogonal the other way
    torch.testing.assert_close(many.weight.T @ many.weight, torch.eye(8), rtol=0, atol=1e-5)


def test_batch_norm_and_dropout_come_before_the_layer(encoder: Encoder) -> None:
    head = encoder.classifier(CLASSES, dropout=0.25, batch_norm=True).head
    assert [type(layer).__name__ for layer in head] == ["BatchNorm1d", "Dropout", "Linear"]
    assert (head[0].num_features, head[1].p) == (64, 0.25)
    x = 10 + 3 * torch.randn(4000, 64)
    normed = head[0](x).detach()
    torch.testing.assert_close(normed.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    torch.testing.assert_close(normed.std(0), torch.ones(64), rtol=0, atol=1e-3)
    fraction = float((head[1](torch.ones(4000, 64)) == 0).float().mean())
    assert abs(fraction - 0.25) < 0.01


def test_making_it_draws_the_layers_random_numbers_alone(encoder: Encoder) -> None:
    torch.manual_seed(3)
    head = encoder.classifier(CLASSES, pooling="avg").head
    after = torch.rand(1)
    torch.manual_seed(3)
    expected = linear_head(64, CLASSES)
    assert torch.equal(head[-1].weight, expected[-1].weight)
    assert torch.equal(torch.rand(1), after)


def test_all_of_it_is_trained(encoder: Encoder) -> None:
    classifier = encoder.classifier(CLASSES)
    assert classifier.training
    assert encoder.training
    before = copy.deepcopy(classifier.state_dict())
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    F.cross_entropy(classifier(make_clips(encoder)), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert [n for n, value in classifier.state_dict().items() if torch.equal(value, before[n])] == []


def test_a_frozen_encoder_stays_as_it_is_while_the_head_is_trained(encoder: Encoder) -> None:
    classifier = encoder.classifier(CLASSES, batch_norm=True, frozen=True)
    before = copy.deepcopy(classifier.state_dict())
    trained = [p for p in classifier.parameters() if p.requires_grad]
    assert len(trained) == len(list(classifier.head.parameters())) == 4
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    clips = make_clips(encoder)
    for _ in range(2):
        classifier.train()
        assert classifier.head.training
        assert not any(module.training for module in encoder.modules())
        logits = classifier(clips)
        F.cross_entropy(logits, torch.tensor([0, 1])).backward()
        optimizer.step()
    assert all(p.grad is None for p in encoder.parameters())
    after = classifier.state_dict()
    same = {name for name in after if torch.equal(after[name], before[name])}
    assert same == {name for name in after if name.startswith("encoder.")}  # batch norms' statistics too
    classifier.eval()
    assert not classifier.head.training


def test_not_frozen_the_modes_go_together(encoder: Encoder) -> None:
    classifier = encoder.classifier(CLASSES)
    assert classifier.eval() is classifier
    assert not any(module.training for module in classifier.modules())
    assert classifier.train() is classifier
    assert all(module.training for module in classifier.modules())


def test_it_learns(encoder: Encoder) -> None:
    classifier = encoder.classifier(2, batch_norm=True, frozen=True)
    clips = torch.cat([make_clips(encoder), 3 * make_clips(encoder)])
    labels = torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.Adam(classifier.head.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(classifier(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 10
    assert classifier(clips).argmax(1).tolist() == [0, 0, 1, 1]


def test_the_head_is_where_the_encoder_is(encoder: Encoder) -> None:
    classifier = encoder.to("meta").classifier(CLASSES)
    assert {p.device.type for p in classifier.parameters()} == {"meta"}
    assert classifier(make_clips(encoder).to("meta")).shape == (2, CLASSES)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_state_goes_into_another_and_back(encoder: Encoder, frozen: bool) -> None:
    classifier = encoder.classifier(CLASSES, batch_norm=True, frozen=frozen).eval()
    other = copy.deepcopy(encoder)
    for value in other.state_dict().values():
        value.zero_()
    twin = other.classifier(CLASSES, batch_norm=True, frozen=frozen).eval()
    state = classifier.state_dict()
    prefixes = {name.split(".")[0] for name in state}
    assert prefixes == {"encoder", "head"}
    assert {n.removeprefix("encoder.") for n in state if n.startswith("encoder.")} == set(
        encoder.state_dict()
    )
    clips = make_clips(encoder)
    assert not torch.equal(twin(clips), classifier(clips))
    twin.load_state_dict(state)
    assert torch.equal(twin(clips), classifier(clips))


def test_copies_and_pickles_are_of_their_own(encoder: Encoder) -> None:
    classifier = encoder.classifier(CLASSES, pooling="fusion", frozen=True).eval()
    clips = make_clips(encoder)
    with torch.inference_mode():
        expected = classifier(clips)
        for twin in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
            assert isinstance(twin, Classifier)
            assert (twin.config.pooling, twin.config.frozen) == ("fusion", True)
            assert twin.encoder is not encoder
            assert torch.equal(twin(clips), expected)
            twin.train()
            assert not twin.encoder.training
            twin.head[-1].weight.zero_()
    assert torch.equal(classifier(clips), expected)


def test_torch_export_with_any_batch_size(encoder: Encoder) -> None:
    classifier = encoder.classifier(CLASSES, batch_norm=True).eval()
    clips = make_clips(encoder)
    exported = torch.export.export(
        classifier, (clips,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
    ).module()
    torch.testing.assert_close(exported(clips), classifier(clips), rtol=1e-5, atol=1e-5)
    assert exported(clips[:1]).shape == (1, CLASSES)


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"num_classes": 0}, ConfigError, "num_classes=0 is out of range; pass a whole number, at least 1"),
        ({"num_classes": 2.5}, ConfigError, "num_classes=2.5 is not a whole number"),
        ({"num_classes": True}, ConfigError, "num_classes=True is not a whole number"),
        ({"dropout": 1.0}, ConfigError, "dropout=1.0 is out of range; pass a number, at least 0 and below 1"),
        ({"dropout": -0.1}, ConfigError, "dropout=-0.1 is out of range"),
        ({"dropout": np.nan}, ConfigError, "dropout=nan is out of range"),
        ({"pooling": "mx"}, ConfigError, "pooling='mx' is not known; did you mean 'max'?"),
    ],
)
def test_a_value_out_of_range_is_refused(
    encoder: Encoder, options: dict[str, Any], error: type[Exception], line: str
) -> None:
    with pytest.raises(error) as caught:
        encoder.classifier(**{"num_classes": CLASSES, **options})
    assert str(caught.value).startswith(line)
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_clip_too_small_for_the_pooling_is_named() -> None:
    small = VideoEncoder(depth=10, width=8, size=64)
    with pytest.raises(InputError, match=r"smaller than the pooling kernel \(1, 4, 4\)"):
        small.classifier(CLASSES, pooling="linear")
    assert small.classifier(CLASSES).head[-1].in_features == 64


def test_what_is_no_batch_of_clips_is_named(encoder: Encoder) -> None:
    classifier = encoder.classifier(CLASSES)
    with pytest.raises(InputError, match=r"add the batch axis: x\[None\]"):
        classifier(make_clips(encoder)[0])


OPTIONS = {"pooling": "fusion", "dropout": 0.25, "batch_norm": True, "frozen": True}


@pytest.fixture
def saved(encoder: Encoder, tmp_path: Path) -> tuple[Classifier, Path]:
    classifier = encoder.classifier(CLASSES, **OPTIONS).eval()
    with torch.no_grad():
        classifier.head[-1].bias.normal_()
    classifier.save_pretrained(tmp_path / "saved")
    return classifier, tmp_path / "saved"


def test_a_saved_classifier_is_loaded_as_it_was(saved: tuple[Classifier, Path]) -> None:
    classifier, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    clips = make_clips(classifier.encoder)
    random = torch.get_rng_state()
    for path in (folder, str(folder / "model.safetensors")):
        loaded = Classifier.from_pretrained(path)
        assert loaded.config == classifier.config
        assert loaded.head[1].p == 0.25
        assert not loaded.training
        assert not any(p.requires_grad for p in loaded.encoder.parameters())
        with torch.inference_mode():
            assert torch.equal(loaded(clips), classifier(clips))
    assert torch.equal(torch.get_rng_state(), random)
    loaded.save_pretrained(folder.parent / "again")
    for path in folder.iterdir():
        assert (folder.parent / "again" / path.name).read_bytes() == path.read_bytes()


def test_it_is_loaded_onto_the_requested_device(saved: tuple[Classifier, Path]) -> None:
    loaded = Classifier.from_pretrained(saved[1], map_location="meta")
    assert {p.device.type for p in loaded.parameters()} == {"meta"}


def test_the_config_beside_will_do(saved: tuple[Classifier, Path]) -> None:
    classifier, folder = saved
    save_file(classifier.state_dict(), folder / "model.safetensors")
    assert Classifier.from_pretrained(folder).config == classifier.config
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config.*put the classifier's config\.json beside"):
        Classifier.from_pretrained(folder)


def test_encoders_and_classifiers_are_distinguished(saved: tuple[Classifier, Path], tmp_path: Path) -> None:
    classifier, folder = saved
    modality = classifier.encoder.config.modality
    for load in (type(classifier.encoder).from_pretrained, functools.partial(load_encoder, modality)):
        with pytest.raises(
            CheckpointError, match=r"a classifier's checkpoint; use Classifier\.from_pretrained"
        ):
            load(folder)
    classifier.encoder.save_pretrained(tmp_path / "encoder")
    with pytest.raises(CheckpointError, match=r"of an encoder alone; use load_encoder and classifier\(\)"):
        Classifier.from_pretrained(tmp_path / "encoder")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"num_classes": 7}, "2 tensors have another shape: head.2.weight is"),
        ({"num_classes": 0}, "its config is not one of this package (num_classes=0 is out of range"),
        ({"dropout": "much"}, "its config is not one of this package (dropout='much' is not a number"),
        ({"pooling": "mx"}, "its config is not one of this package (pooling='mx' is not known"),
        ({"pooling": "avg"}, "5 tensors have another shape: head.0.weight"),
        ({"batch_norm": False}, "2 missing of"),
        ({"frozen": "no"}, "its config is not one of this package (frozen='no' is not True or False"),
        ({"encoder": "audio"}, "its config is not one of this package (encoder is not a config"),
        ({"speed": 3}, "a classifier's config has the fields encoder, num_classes"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    saved: tuple[Classifier, Path], changed: dict[str, Any], line: str
) -> None:
    classifier, folder = saved
    save_file(classifier.state_dict(), folder / "model.safetensors")
    fields = {**classifier.config.to_dict(), **changed}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError) as caught:
        Classifier.from_pretrained(folder)
    assert str(caught.value).startswith(str(folder))
    assert line in str(caught.value)


def test_values_that_are_not_finite_are_refused(saved: tuple[Classifier, Path]) -> None:
    classifier, folder = saved
    with torch.no_grad():
        classifier.head[-1].weight[0, 0] = torch.nan
    classifier.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"head\.2\.weight holds values that are not finite"):
        Classifier.from_pretrained(folder)


def test_a_classifier_is_read_from_this_machine_alone(tmp_path: Path) -> None:
    with pytest.raises(UnknownWeightsError, match="there is no such file or folder"):
        Classifier.from_pretrained("org/name")
    with pytest.raises(InputError, match="not text"):
        Classifier.from_pretrained(b"bytes")  # type: ignore[arg-type]


def test_a_classifier_on_an_encoder_with_a_classifier_is_not_saved(tmp_path: Path) -> None:
    classifier = VideoEncoder(depth=10, width=8, size=32).classifier(3)
    classifier.encoder.reset_classifier(4, global_pool="max")
    with pytest.raises(ConfigError, match=r"has a classifier of its own; remove it"):
        classifier.save_pretrained(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_encoders_of_two_poolings_have_a_classifier_each() -> None:
    encoder = VideoEncoder(depth=10, width=8, size=32)
    other = encoder.with_pooling("avg")
    other.reset_classifier(3)
    assert (encoder.num_classes, other.num_classes) == (0, 3)
    assert other.conv2x is encoder.conv2x
