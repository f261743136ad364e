"""A simple script to compare with: torchcodec, torchvision's transforms and the plain network. See extraction.py.

python benchmarks/homemade.py video.mp4 feats.npy --size 224 [--weights random:0]
"""

import argparse

import numpy as np
import torch
from torchcodec.decoders import VideoDecoder
from torchvision.transforms import v2

from crisscross_zoo import load_encoder

parser = argparse.ArgumentParser()
parser.add_argument("video")
parser.add_argument("out")
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--weights", default="random:0")
options = parser.parse_args()

encoder = load_encoder("video", options.weights)
config = encoder.config
transform = v2.Compose([
    v2.Resize(int(options.size / config.crop_ratio), antialias=True),
    v2.CenterCrop(options.size),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize(config.mean, config.std),
])  # fmt: skip
decoder = VideoDecoder(options.video)
seconds = config.frames / config.fps
count = int(decoder.metadata.duration_seconds / seconds)
features = []
with torch.inference_mode():
    for first in range(0, count, 4):
        starts = seconds * np.arange(first, min(first + 4, count))
        times = (starts[:, None] + np.arange(config.frames) / config.fps).ravel()
        frames = transform(decoder.get_frames_played_at(times.tolist()).data)
        clips = frames.unflatten(0, (len(starts), config.frames)).transpose(1, 2)
        features.append(encoder(clips).numpy())
np.save(options.out, np.concatenate(features))
