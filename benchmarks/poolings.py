"""Linear accuracy and R@1 of each pooling, on a folder of labelled files or on real sounds.

    python benchmarks/poolings.py clips/ --modality video      FOLDER/CLASS/FILE, or train/ and test/ of such
    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps/
    python benchmarks/poolings.py stamps/ --stamps --modality audio

The encoder computes the feature maps of five uniform clips per file once; each pooling is applied to the same maps.
The SVM and the search are those of `crisscross-evaluate linear` and `retrieval`, over the data set's folds, but clips
are not augmented.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from evaluations import REAL_SETS, lay_out
from report import Report, add_json_option, finish

from crisscross_zoo import load_encoder
from crisscross_zoo.config import POOLINGS
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.encoders.pooling import pool
from crisscross_zoo.errors import InputError
from crisscross_zoo.evaluate.datasets import LabelledData, read_dataset
from crisscross_zoo.evaluate.metrics import recall_at, top_k
from crisscross_zoo.evaluate.probe import FileClips, LinearProbe
from crisscross_zoo.evaluate.retrieval import file_means, nearest
from crisscross_zoo.media.clips import Clip, Sampling, read_clips
from crisscross_zoo.media.decode import INT16_SCALE

CLIPS = 5


def feature_maps(path: str, encoder: Encoder) -> torch.Tensor:
    """Return the feature maps of uniform clips of a file."""
    own = {name: encoder.config if encoder.config.modality == name else None for name in ("video", "audio")}
    sampling = Sampling(clips=CLIPS, **own)
    values = [
        torch.from_numpy(event.values) for event in read_clips(path, sampling) if isinstance(event, Clip)
    ]
    if encoder.config.modality == "audio":
        values = [wave.float() / INT16_SCALE for wave in values]
    with torch.inference_mode():
        return encoder.forward_features(torch.stack([encoder.preprocess(value) for value in values]))


def measure(data: LabelledData, encoder: Encoder) -> Report:
    """Return a table of the poolings."""
    files = {s.path: s for fold in data.folds.values() for s in (*fold.train, *fold.test)}
    maps = {path: feature_maps(path, encoder) for path in files}
    report = Report(
        f"{encoder.config.modality}, {encoder.weights_id} weights: {len(files)} files, {len(data.classes)} classes,"
        f" {len(data.folds)} folds",
        ("pooling", "D", "linear, %", "R@1, %"),
    )
    for pooling in POOLINGS:
        try:
            vectors = {path: pool(found, pooling).numpy() for path, found in maps.items()}
        except InputError:  # the map is smaller than the pooling's kernel
            continue
        linear, recall = [], []
        for fold in data.folds.values():
            train, test = (FileClips.of([vectors[s.path] for s in side]) for side in (fold.train, fold.test))
            labels = [np.array([s.label for s in side]) for side in (fold.train, fold.test)]
            probe = LinearProbe().fit(train, labels[0], groups=[s.group for s in fold.train])
            linear.append(top_k(probe.decision_function(test), labels[1], 1))
            neighbours, _ = nearest(file_means(train), file_means(test), 1)
            recall.append(recall_at(labels[0][neighbours], labels[1], [1])[1])
        size = next(iter(vectors.values())).shape[1]
        report.add(pooling, size, f"{100 * np.mean(linear):.1f}", f"{100 * np.mean(recall):.1f}")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stamps", action="store_true", help="the folder has Tux Paint's stamps, unpacked")
    parser.add_argument("--modality", choices=("video", "audio"), default="video")
    parser.add_argument("--weights", default="demo")
    add_json_option(parser)
    options = parser.parse_args()
    encoder = load_encoder(options.modality, options.weights)
    with tempfile.TemporaryDirectory() as name:
        if options.stamps:
            sets = [
                lay_out(real, options.folder, Path(name) / title)
                for title, real in REAL_SETS.items()
                if title.startswith("stamps") and real.modality == options.modality
            ]
        else:
            sets = [read_dataset("folder", options.folder)]
        finish([measure(data, encoder) for data in sets], options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
