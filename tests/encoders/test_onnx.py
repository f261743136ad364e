"""ONNX: encoders, plain and for inference, have the same output in onnxruntime, with any batch size."""

from __future__ import annotations

from pathlib import Path

import needs
import pytest
import torch

from crisscross_zoo.encoders import AudioEncoder, VideoEncoder

pytestmark = pytest.mark.integration

onnxruntime = needs.package("onnxruntime", extra="onnx")
needs.package("onnxscript", extra="onnx")

CASES = {"video": (VideoEncoder, (2, 3, 8, 112, 112)), "audio": (AudioEncoder, (2, 1, 80, 200))}


@pytest.mark.parametrize("form", ["plain", "for inference", "with a classifier"])
@pytest.mark.parametrize("kind", CASES)
def test_onnxruntime_gives_the_same_output(kind: str, form: str, tmp_path: Path) -> None:
    make, shape = CASES[kind]
    encoder, clips = make(depth=10, width=8), torch.randn(shape)
    with torch.no_grad():
        encoder(clips)  # so that its batch norms have statistics
    if form == "with a classifier":
        encoder.reset_classifier(5, "max")
    network = encoder.eval().optimize_for_inference() if form == "for inference" else encoder.eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        network,
        (clips,),
        input_names=["clips"],
        output_names=["features"],
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    program.save(tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", *shape[1:]]
    for n in (1, 2, 3):
        clips = torch.randn(n, *shape[1:])
        (found,) = session.run(["features"], {"clips": clips.numpy()})
        with torch.no_grad():
            expected = network(clips)
        assert found.shape == expected.shape
        assert abs(found - expected.numpy()).max() <= 1e-5 * float(expected.abs().max())
