"""Baseline without a network: the mean colour and the mean spectrum of the demo's clips, by the demo's protocols.

crisscross-pretrain demo --out demo/       makes demo/data
python benchmarks/demo_raw.py demo/data    prints a table to compare with that of demo/report.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.demo.run import CLIPS
from crisscross_zoo.evaluate.datasets import Fold, read_dataset
from crisscross_zoo.evaluate.metrics import recall_at, top_k
from crisscross_zoo.evaluate.probe import FileClips, LinearProbe
from crisscross_zoo.evaluate.retrieval import file_means, nearest
from crisscross_zoo.media.clips import Clip, Sampling, read_clips
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.pretrain.presets import PRESETS
from crisscross_zoo.transforms.mel import log_mel

NAMES = ("mean colour", "mean spectrum")


def raw_features(paths: Sequence[str]) -> dict[str, FileClips]:
    """Return the mean RGB colour (3,) and the mean log-mel spectrum (80,) of uniformly spread clips of each file."""
    audio = AudioConfig()
    sampling = Sampling(video=PRESETS["demo"].video, audio=audio, clips=CLIPS)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    for path in paths:
        clips = [event for event in read_clips(path, sampling) if isinstance(event, Clip)]
        frames = np.stack([clip.values for clip in clips if clip.modality == "video"])
        waves = np.stack([clip.values for clip in clips if clip.modality == "audio"])
        spectra = log_mel(torch.from_numpy(waves.astype(np.float32) / INT16_SCALE), audio)
        rows[NAMES[0]].append(frames.reshape(len(frames), -1, 3).mean(axis=1, dtype=np.float32))
        rows[NAMES[1]].append(spectra.mean(dim=(1, 3)).numpy())
    return {name: FileClips.of(found) for name, found in rows.items()}


def accuracies(fold: Fold) -> dict[str, float]:
    """Return the accuracies of a linear SVM and of the nearest training file on the test files."""
    gallery, query = (raw_features([s.path for s in side]) for side in (fold.train, fold.test))
    labels, truth = (np.array([s.label for s in side]) for side in (fold.train, fold.test))
    found = {}
    for name in NAMES:
        probe = LinearProbe(seed=0).fit(gallery[name], labels, groups=[s.group for s in fold.train])
        found[f"{name}, linear"] = top_k(probe.decision_function(query[name]), truth, 1)
        neighbours, _ = nearest(file_means(gallery[name]), file_means(query[name]), 1)
        found[f"{name}, retrieval"] = recall_at(labels[neighbours], truth, [1])[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with train/CLASS and test/CLASS")
    print("| raw input | % |\n| --- | --- |")
    for name, accuracy in accuracies(read_dataset("folder", parser.parse_args().data).folds[1]).items():
        print(f"| {name} | {100 * accuracy:.1f} |")


if __name__ == "__main__":
    main()
