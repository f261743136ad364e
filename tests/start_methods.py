"""Features, training samples and a finetuned classifier under each start method of processes; prints JSON.

Arguments: a media file with video and audio, a folder to write to. tests/test_platforms.py runs it. Python 3.14
starts processes by ``forkserver`` on Linux, Windows and macOS by ``spawn``.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
from pathlib import Path

import torch
from pretrain_case import tiny_config

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.encoders import VideoEncoder
from crisscross_zoo.evaluate.datasets import LabelledFile
from crisscross_zoo.evaluate.finetune import describe_files, finetune
from crisscross_zoo.evaluate.protocols import FinetuneConfig
from crisscross_zoo.pretrain.data import BatchSampler
from crisscross_zoo.pretrain.index import build_index, read_index
from crisscross_zoo.pretrain.loader import make_loader


def digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()


def features(clip: str, workers: int) -> str:
    extractor = FeatureExtractor("demo", "both", workers=workers, device="cpu", clips=2)
    ((_, found),) = extractor.stream([clip])
    return digest(*(torch.from_numpy(array) for array in found.arrays().values()))


def samples(index: Path, workers: int) -> str:
    config = tiny_config()
    sampler = BatchSampler(seed=0, files=1, epoch_size=4, batch_size=2, steps=range(2))
    loader = make_loader(read_index(index), config, sampler, workers=workers, pin_memory=False)
    return digest(*(view for batch in loader for view in batch.views.values()))


def finetuned(clip: str, folder: Path, workers: int) -> str:
    video = tiny_config().video
    torch.manual_seed(0)
    classifier = VideoEncoder(video).classifier(2)
    files, _ = describe_files([LabelledFile(clip, label, clip) for label in (0, 1)], workers=0)
    finetune(
        classifier, files, FinetuneConfig(epochs=1, batch_size=2, milestones=()),
        video=video, augment=None, clips=1, seed=0, folder=folder, workers=workers,
    )  # fmt: skip
    return digest(*classifier.state_dict().values())


def main(clip: str, folder: Path) -> None:
    torch.set_num_threads(1)
    index = folder / "index.parquet"
    build_index([clip], index, workers=0)
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(["torch"])
    found = {}
    for method in ("in this process", *multiprocessing.get_all_start_methods()):
        workers = 0
        if method != "in this process":
            multiprocessing.set_start_method(method, force=True)
            workers = 1
        found[method] = {
            "features": features(clip, workers),
            "samples": samples(index, workers),
            "finetuned": finetuned(clip, folder / method, workers),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
