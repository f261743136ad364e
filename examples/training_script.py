"""The encoders in an ordinary training script: two encoders, a linear head, gradients through all of them.

The data are synthetic, so that it runs anywhere: a bright square drifts right with a high tone (class 1), or
left with a low tone (class 0). Put your own frames and waveforms in `make_batch`.
Run it with `python examples/training_script.py --steps 5`.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crisscross_zoo import load_encoder


def make_batch(clips: int, length: int, size: int, samples: int, rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return uint8 frames (N, T, H, W, 3), waves (N, 1, samples) in [-1, 1], and labels (N,)."""
    labels = torch.arange(clips) % 2
    frames = torch.randint(0, 60, (clips, length, size, size, 3), dtype=torch.uint8)
    for clip, label in enumerate(labels.tolist()):
        for t in range(length):
            left = size // 2 - 8 + (3 if label else -3) * (t - length // 2)
            frames[clip, t, 20:36, left : left + 16] = 220
    hertz = torch.where(labels == 1, 1200.0, 300.0)[:, None, None]
    waves = 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / rate)
    return frames, waves + 0.02 * torch.randn_like(waves), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)

    video = load_encoder("video", args.weights, pooling="avg").train()
    audio = load_encoder("audio", args.weights, pooling="avg").train()
    head = nn.Linear(video.num_features + audio.num_features, 2)
    modules = nn.ModuleList([video, audio, head])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.01, momentum=0.9)

    size, rate = 64, audio.config.sample_rate  # small, to be quick on a CPU: the paper trains at 112 pixels
    for step in range(args.steps):
        frames, waves, labels = make_batch(4, video.config.frames, size, rate, rate)
        x_video = video.preprocess(frames, size=size)  # (N, 3, T, size, size)
        x_audio = audio.preprocess(waves, sample_rate=rate)  # (N, 1, 80, 100)
        loss = F.cross_entropy(head(torch.cat([video(x_video), audio(x_audio)], dim=1)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        without = [name for name, p in modules.named_parameters() if p.grad is None or not p.grad.abs().sum()]
        print(f"step {step}: loss {loss.item():.4f}, parameters without a gradient: {len(without)}")


if __name__ == "__main__":
    main()
