"""Encoders are ordinary modules: the usual operations on modules work, and give the same output."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.utils.data

from crisscross_zoo.encoders import AudioEncoder, VideoEncoder

CASES = {
    "video": (VideoEncoder, (2, 3, 8, 112, 112)),
    "audio": (AudioEncoder, (2, 1, 80, 200)),
}


@pytest.fixture(params=CASES)
def small(request):
    """A small encoder in eval mode, whose batch norms have statistics, and a batch."""
    kind, shape = CASES[request.param]
    encoder, clips = kind(depth=10, width=8), torch.randn(shape)
    with torch.no_grad():
        encoder(clips)
    return encoder.eval(), clips


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def test_training_reaches_every_parameter(small):
    encoder, clips = small
    before = copy.deepcopy(encoder.state_dict())
    encoder.train()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(clips).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in encoder.parameters())
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_eval_mode_changes_nothing(small):
    encoder, clips = small
    before = copy.deepcopy(encoder.state_dict())
    first = encoder(clips)
    assert torch.equal(encoder(clips), first)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_clips_do_not_mix_in_eval_mode(small):
    encoder, clips = small
    with torch.no_grad():
        assert close(torch.cat([encoder(clips[:1]), encoder(clips[1:])]), encoder(clips), 1e-5)


def test_torch_compile_without_a_graph_break(small):
    encoder, clips = small
    with torch.no_grad():
        compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
        assert close(compiled(clips), encoder(clips), 1e-5)


@pytest.mark.parametrize("pooling", ["linear", "fusion", "avg"])
def test_torch_export_with_any_batch_size(small, pooling):
    encoder, clips = small
    encoder.config = encoder.config.replace(pooling=pooling)
    exported = torch.export.export(encoder, (clips,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    assert close(exported.module()(clips), encoder(clips), 1e-5)
    assert exported.module()(clips[:1]).shape == encoder(clips[:1]).shape


def test_channels_last(small):
    encoder, clips = small
    expected = encoder(clips)
    layout = torch.channels_last_3d if clips.ndim == 5 else torch.channels_last
    encoder.to(memory_format=layout)
    assert close(encoder(clips.contiguous(memory_format=layout)), expected, 1e-5)
    assert close(encoder(clips), expected, 1e-5)


def test_autocast_to_bfloat16(small):
    encoder, clips = small
    with torch.no_grad():
        expected = encoder(clips)
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder(clips)
    assert not close(features, expected, 1e-4)  # it did compute in bfloat16
    assert close(features, expected, 0.03)


def test_double_precision_agrees_with_single(small):
    encoder, clips = small
    single = encoder(clips)
    assert close(single.double(), encoder.double()(clips.double()), 1e-5)


def test_copies_and_pickles_are_the_same_encoder(small):
    encoder, clips = small
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert twin.config == encoder.config
        assert torch.equal(twin(clips), encoder(clips))


@pytest.mark.parametrize("modality", CASES)
def test_workers_of_a_data_loader_preprocess_on_the_cpu(modality):
    encoder = CASES[modality][0](depth=10, width=8).to("meta")  # in place of a GPU
    given = torch.zeros((8, 32, 32, 3), dtype=torch.uint8) if modality == "video" else torch.zeros(16_000)
    assert encoder.device.type == "meta"
    loader = torch.utils.data.DataLoader([given], collate_fn=_Preprocess(encoder), num_workers=1)
    (clip,) = loader
    assert clip.device.type == "cpu"
    torch.testing.assert_close(clip, CASES[modality][0](depth=10, width=8).preprocess(given), rtol=0, atol=0)


class _Preprocess:
    def __init__(self, encoder):
        self.encoder = encoder

    def __call__(self, batch):
        return self.encoder.preprocess(batch[0])
