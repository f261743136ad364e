"""Decoding and preprocessing inside a PyTorch DataLoader's workers; the encoder runs in the main process.

One clip from the middle of each file. Run it with `python examples/dataloader.py clips/train --workers 2`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from crisscross_zoo import load_encoder
from crisscross_zoo.config import VideoConfig
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.windows import frame_times, uniform_starts
from crisscross_zoo.transforms import normalize, resize_crop


class MiddleClips(Dataset[tuple[torch.Tensor, str]]):
    """Holds paths and the encoder's config, not the encoder: a worker needs no weights and no GPU."""

    def __init__(self, paths: list[Path], config: VideoConfig) -> None:
        self.paths, self.config = paths, config

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        info, config = scan(self.paths[index]), self.config
        starts = uniform_starts(info.video_span, config.window_seconds, 1, config.fps)
        times = frame_times(starts, info.video_span, config.frames, config.fps)
        frames = read_moment(info, times=times[0])[0]  # uint8 (T, H, W, 3)
        clip = resize_crop(frames, size=config.size, crop_ratio=config.crop_ratio)
        return normalize(clip, config), str(self.paths[index])  # float32 (3, T, size, size), on the CPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load_encoder("video", args.weights, device=device)
    clips = MiddleClips(sorted(args.folder.rglob("*.mp4")), encoder.config)
    with torch.inference_mode():
        for batch, paths in DataLoader(clips, batch_size=8, num_workers=args.workers):
            print(f"{tuple(encoder(batch.to(device)).shape)} of {', '.join(paths)}")


if __name__ == "__main__":
    main()
