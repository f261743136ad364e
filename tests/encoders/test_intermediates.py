"""Feature maps and a classifier as in timm, and torchvision's feature extractor, checked against the real ones."""

from __future__ import annotations

import copy
import inspect
import pickle

import needs
import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.config import STAGES
from crisscross_zoo.encoders import AudioEncoder, Encoder, VideoEncoder
from crisscross_zoo.encoders.pooling import pool
from crisscross_zoo.errors import ConfigError, InputError

CASES = {"video": (VideoEncoder, (2, 3, 8, 112, 112)), "audio": (AudioEncoder, (2, 1, 80, 200))}


@pytest.fixture(params=CASES)
def small(request: pytest.FixtureRequest) -> tuple[Encoder, torch.Tensor]:
    """A small encoder in eval mode, whose batch norms have statistics, and a batch."""
    kind, shape = CASES[request.param]
    encoder, clips = (
        kind(depth=10, width=4, **({"size": 112} if request.param == "video" else {})),
        torch.randn(shape),
    )
    with torch.no_grad():
        encoder(clips)
    return encoder.eval(), clips


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# --- feature maps ------------------------------------------------------------------------------------------------


def test_without_indices_all_maps_by_name(small):
    encoder, clips = small
    maps = encoder.forward_intermediates(clips)
    assert list(maps) == list(STAGES)
    assert torch.equal(maps["conv5x"], encoder.forward_features(clips))
    assert same(encoder.forward_intermediates(clips, intermediates_only=True), list(maps.values()))


@pytest.mark.parametrize(
    ("indices", "names"),
    [
        (1, ["conv5x"]),
        (3, ["conv3x", "conv4x", "conv5x"]),
        ([0, -2], ["conv1", "conv4x"]),
        ([-1, 1], ["conv2x", "conv5x"]),  # in the network's order, as in timm
        ("conv3x", ["conv3x"]),
        (["conv3x", 2, -3], ["conv3x"]),
        (("conv4x", "conv2x"), ["conv2x", "conv4x"]),
    ],
)
def test_indices_choose_stages(small, indices, names):
    encoder, clips = small
    maps = encoder.forward_intermediates(clips)
    last, found = encoder.forward_intermediates(clips, indices)
    assert torch.equal(last, maps["conv5x"])
    assert same(found, [maps[name] for name in names])
    assert same(encoder.forward_intermediates(clips, indices, intermediates_only=True), found)


def test_stopping_early_runs_no_later_stage(small):
    encoder, clips = small
    ran = []
    for name, stage in zip(STAGES, encoder.stages(), strict=True):
        stage.register_forward_hook(lambda *_, name=name: ran.append(name))
    last, (found,) = encoder.forward_intermediates(clips, ["conv3x"], stop_early=True)
    assert ran == ["conv1", "conv2x", "conv3x"]
    assert last is found


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"indices": "conv6x"}, "indices='conv6x' is not known; did you mean 'conv"),
        ({"indices": [5]}, "indices has 5, and there are 5 stages; pass 0 to 4, or names"),
        ({"indices": [-6]}, "indices has -6"),
        ({"indices": 0}, "indices=0 is out of range; pass a whole number, at least 1"),
        ({"indices": 6}, "indices=6 is out of range; pass at most 5"),
        ({"indices": []}, "indices is empty"),
        ({"output_fmt": "NHWC"}, "output_fmt='NHWC' is not known; did you mean 'NCHW'?"),
    ],
)
def test_what_is_no_stage_is_named(small, options, line):
    encoder, clips = small
    with pytest.raises(ConfigError) as caught:
        encoder.forward_intermediates(clips, **options)
    assert str(caught.value).startswith(line)


# --- the classifier ----------------------------------------------------------------------------------------------


def test_a_classifier_gives_logits_and_can_be_removed(small):
    encoder, clips = small
    keys, features = list(encoder.state_dict()), encoder(clips)
    assert (encoder.num_classes, encoder.num_features) == (0, 32)
    assert isinstance(encoder.get_classifier(), nn.Identity)
    encoder.reset_classifier(7)
    layer = encoder.get_classifier()
    assert encoder.num_classes == 7
    assert not layer.training
    assert list(encoder.state_dict()) == [*keys, "fc.weight", "fc.bias"]
    torch.testing.assert_close(encoder(clips), features @ layer.weight.T + layer.bias)
    assert torch.equal(encoder.forward_head(encoder.forward_features(clips), pre_logits=True), features)
    encoder.reset_classifier(0)
    assert encoder.num_classes == 0
    assert list(encoder.state_dict()) == keys
    assert torch.equal(encoder(clips), features)


def test_a_classifier_may_bring_its_pooling(small):
    encoder, clips = small
    encoder.reset_classifier(3, "max")
    assert encoder.config.pooling == "max"
    assert encoder.get_classifier().in_features == encoder.num_features
    expected = encoder.fc(pool(encoder.forward_features(clips), "max"))
    assert torch.equal(encoder(clips), expected)


def test_a_classifier_is_trained_exported_and_optimised_with_its_encoder(small):
    encoder, clips = small
    encoder.reset_classifier(3)
    logits = encoder(clips)
    network = encoder.optimize_for_inference()
    torch.testing.assert_close(network(clips), logits.detach(), rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in network.parameters())
    exported = torch.export.export(encoder, (clips,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    torch.testing.assert_close(exported.module()(clips[:1]), logits[:1], rtol=1e-4, atol=1e-5)
    logits.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(twin(clips), logits)


def test_a_classifier_is_on_the_device_of_the_encoder():
    encoder = AudioEncoder(depth=10, width=4).to("meta", torch.bfloat16)
    encoder.reset_classifier(3)
    assert {(p.device.type, p.dtype) for p in encoder.fc.parameters()} == {("meta", torch.bfloat16)}


def test_what_needs_features_refuses_a_classifier(small, tmp_path):
    encoder, _ = small
    encoder.reset_classifier(3)
    with pytest.raises(ConfigError, match=r"has a classifier; call its reset_classifier\(0\)"):
        FeatureExtractor(weights=encoder, modality=encoder.config.modality, device="cpu")
    with pytest.raises(ConfigError, match="has a classifier already"):
        encoder.classifier(3)
    with pytest.raises(ConfigError, match="a checkpoint holds a backbone"):
        encoder.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ((-1,), ConfigError, "num_classes=-1 is out of range; pass a whole number, at least 0"),
        ((2.5,), ConfigError, "num_classes=2.5 is not a whole number"),
        ((2, "mx"), ConfigError, "pooling='mx' is not known; did you mean 'max'?"),
    ],
)
def test_a_refused_classifier_changes_nothing(small, arguments, error, line):
    encoder, _ = small
    config = encoder.config
    with pytest.raises(error) as caught:
        encoder.reset_classifier(*arguments)
    assert str(caught.value).startswith(line)
    assert (encoder.config, encoder.num_classes) == (config, 0)


# --- the real timm -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm():
    return needs.package("timm", extra="dev")


@pytest.mark.parametrize(
    "name",
    ["forward_features", "forward_head", "forward_intermediates", "reset_classifier", "get_classifier"],
)
def test_signatures_are_timms(timm, name):
    theirs = inspect.signature(getattr(timm.models.ResNet, name)).parameters.values()
    ours = inspect.signature(getattr(Encoder, name)).parameters.values()
    assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs]


def test_a_timm_network_does_the_same(timm, small):
    """Both have the same maps in the same order, the same kind of classifier and the same outputs."""
    encoder, clips = small
    resnet, images = timm.create_model("resnet10t", pretrained=False).eval(), torch.randn(2, 3, 64, 64)
    for model, x in ((encoder, clips), (resnet, images)):
        every = model.forward_intermediates(x, intermediates_only=True)
        assert len(every) == 5
        for indices, numbers in ((2, [3, 4]), ([-1, 0], [0, 4]), ([1, 1], [1])):
            last, found = model.forward_intermediates(x, indices)
            assert torch.equal(last, model.forward_features(x))
            assert same(found, [every[n] for n in numbers])
        model.reset_classifier(6)
        assert (model.num_classes, model(x).shape) == (6, (2, 6))
        assert model.get_classifier(name_only=True) == "fc"
        assert model.get_submodule("fc") is model.get_classifier()
        assert isinstance(model.get_classifier(), nn.Linear)
        model.reset_classifier(0)
        assert isinstance(model.get_classifier(), nn.Identity)
        assert torch.equal(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
        assert [info["num_chs"] for info in model.feature_info] == [
            m.shape[1] for m in every
        ] or model is resnet


def test_timms_wrappers_take_an_encoder(timm, small):
    from timm.models._features import FeatureGetterNet, FeatureHookNet

    encoder, clips = small
    maps = encoder.forward_intermediates(clips)
    for wrap in (FeatureGetterNet, FeatureHookNet):
        network = wrap(encoder, out_indices=(1, 3))
        assert same(network(clips), [maps["conv2x"], maps["conv4x"]])
        assert network.feature_info.channels() == [4, 16]
        assert network.feature_info.reduction() == [4, 16]
        assert network.feature_info.module_name() == ["conv2x", "conv4x"]
    for info, m in zip(encoder.feature_info, maps.values(), strict=True):
        assert m.shape[-2] == -(-clips.shape[-2] // info["reduction"])


# --- torchvision's feature extractor -----------------------------------------------------------------------------


def test_create_feature_extractor_finds_the_stages(small):
    encoder, clips = small
    extractor = create_feature_extractor(encoder, [*STAGES, "fc"])
    expected = {**encoder.forward_intermediates(clips), "fc": encoder(clips)}
    found = extractor.eval()(clips)
    assert list(found) == list(expected)
    assert same(list(found.values()), list(expected.values()))
    assert same(
        list(extractor(clips[:1]).values()),
        [encoder.forward_intermediates(clips[:1])[s] for s in STAGES] + [encoder(clips[:1])],
    )


def test_an_extractor_of_one_stage_stops_there(small):
    encoder, clips = small
    extractor = create_feature_extractor(encoder, {"conv3x": "map"}).eval()
    assert torch.equal(extractor(clips)["map"], encoder.forward_intermediates(clips)["conv3x"])
    assert len(list(extractor.parameters())) < len(list(encoder.parameters()))
    extractor.train()(clips)["map"].sum().backward()
    assert encoder.conv1[0].weight.grad is not None
    with pytest.raises(InputError, match=r"add the batch axis: x\[None\]"):
        extractor(clips[0])


def test_an_extractor_can_be_converted(small):
    encoder, clips = small
    extractor = create_feature_extractor(encoder, {"conv2x": "map"}).eval().to(torch.bfloat16)
    assert extractor(clips.bfloat16())["map"].dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"weights are torch.bfloat16, its input is torch.float32"):
        extractor(clips)


def test_the_same_names_in_both_modes(small):
    encoder, _ = small
    train, evaluation = get_graph_node_names(encoder)
    assert train == evaluation
    assert {"pool", "fc"} <= set(train)
