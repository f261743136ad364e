"""Finetuning the video encoder on a folder of labelled videos, FOLDER/CLASS/FILE, in a plain PyTorch loop.

Every fourth file is held out. Run it with `python examples/finetune.py clips/train --epochs 3 --out finetuned/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from crisscross_zoo import load_encoder
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.media.windows import frame_times, random_starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", default="finetuned", help="folder for the encoder, which --weights accepts")
    args = parser.parse_args()
    rng, _ = np.random.default_rng(0), torch.manual_seed(0)
    files = sorted(p for p in args.folder.glob("*/*") if p.is_file())
    infos = [scan(p) for p in files]  # scanned once; clips are then read by seeking
    classes, labels = np.unique([p.parent.name for p in files], return_inverse=True)
    train, test = np.flatnonzero(np.arange(len(files)) % 4 < 3), np.arange(3, len(files), 4)
    model = (encoder := load_encoder("video", args.weights)).classifier(len(classes), dropout=0.5)
    encoder.eval()  # batch norms keep the statistics of pretraining: those of 8 clips are too noisy
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def clip(info: Media) -> torch.Tensor:  # at a random position
        starts = random_starts(info.video_span, encoder.config.window_seconds, 1, rng)
        times = frame_times(starts, info.video_span, encoder.config.frames, encoder.config.fps)
        return encoder.preprocess(read_moment(info, times=times[0])[0])  # (3, T, side, side)

    for epoch in range(args.epochs):
        for batch in np.split(rng.permutation(train), range(8, len(train), 8)):
            logits = model(torch.stack([clip(infos[i]) for i in batch]))
            loss = F.cross_entropy(logits, torch.from_numpy(labels[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.4f}")
    model.eval()
    with torch.inference_mode():  # the logits of three clips of each file are averaged
        found = [model(torch.stack([clip(infos[i]) for _ in range(3)])).mean(0).argmax().item() for i in test]
    print(f"{len(test)} files held out, {sum(np.array(found) == labels[test])} right")
    encoder.save_pretrained(args.out)


if __name__ == "__main__":
    main()
