"""Export an encoder to ONNX for any batch size, run it in onnxruntime, and compare with torch.

Preprocessing is not exported. `pip install ".[examples]"` first, then
`python examples/export_onnx.py examples/clip.mp4 --modality video --out video.onnx`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from crisscross_zoo import load_encoder
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment

try:
    import onnxruntime
    import onnxscript  # noqa: F401 - torch needs it to export
except ImportError as error:
    raise SystemExit(f'{error.name} is not installed: pip install "crisscross-zoo[onnx]"') from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clip", nargs="?", default="examples/clip.mp4")
    parser.add_argument("--modality", choices=("video", "audio"), default="video")
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--out", default="encoder.onnx")
    args = parser.parse_args()

    encoder = load_encoder(args.modality, args.weights)
    info, config, clips = scan(args.clip), encoder.config, []
    for start in (0.0, 1.0, 2.0):  # seconds
        if args.modality == "video":
            frames, _ = read_moment(info, times=start + np.arange(config.frames) / config.fps)
            clips.append(encoder.preprocess(frames))  # (3, T, size, size)
        else:
            _, samples = read_moment(info, times=None, audio=(start, config.clip_samples))
            clips.append(encoder.preprocess(samples.astype(np.float32) / INT16_SCALE))  # (1, 80, columns)
    x = torch.stack(clips).contiguous()

    network = encoder.optimize_for_inference()  # batch norms are folded into the convolutions
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.onnx.export(network, (x,), dynamic_shapes=shapes, verbose=False)
    program.save(args.out)
    session = onnxruntime.InferenceSession(args.out, providers=["CPUExecutionProvider"])
    for n in (3, 1):
        with torch.inference_mode():
            expected = encoder(x[:n]).numpy()
        (found,) = session.run(None, {session.get_inputs()[0].name: x[:n].numpy()})
        error = np.abs(found - expected).max() / np.abs(expected).max()
        print(f"batch of {n}: {found.shape}, largest difference {error:.1e} of the largest value")


if __name__ == "__main__":
    main()
