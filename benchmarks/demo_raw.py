"""What no network is needed for: the mean colour and the mean spectrum of the demo's clips, by the demo's protocols.

crisscross-pretrain demo --out demo/       makes demo/data
python benchmarks/demo_raw.py demo/data    a table, beside that of demo/report.md
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
        clips = [news for news in read_clips(path, sampling) if isinstance(news, Clip)]
        frames = np.stack([clip.values for clip in clips if clip.modality == "video"])
        waves = np.stack([clip.values for clip in clips if clip.modality == "audio"])
        spectra = log_mel(torch.from_numpy(waves.astype(np.float32) / INT16_SCALE), audio)
        rows[NAMES[0]].append(frames.reshape(len(frames), -1, 3).mean(axis=1, dtype=np.float32))
        rows[NAMES[1]].append(spectra.mean(dim=(1, 3)).numpy())
    return {name: FileClips.of(found) for name, found in rows.items()}


def accuracies(fold: Fold) -> dict[str, float]:
    """Return the share of test files that a linear SVM, and that the nearest training file, gets right."""
    known, asked = (raw_features([s.path for s in side]) for side in (fold.train, fold.test))
    labels, truth = (np.array([s.label for s in side]) for side in (fold.train, fold.test))
    shares = {}
    for name in NAMES:
        probe = LinearProbe(seed=0).fit(known[name], labels, groups=[s.group for s in fold.train])
        shares[f"{name}, linear"] = top_k(probe.decision_function(asked[name]), truth, 1)
        places, _ = nearest(file_means(known[name]), file_means(asked[name]), 1)
        shares[f"{name}, retrieval"] = recall_at(labels[places], truth, [1])[1]
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with train/CLASS and test/CLASS")
    print("| raw input | % |\n| --- | --- |")
    for name, share in accuracies(read_dataset("folder", parser.parse_args().data).folds[1]).items():
        print(f"| {name} | {100 * share:.1f} |")


if __name__ == "__main__":
    main()
