"""A linear probe on a folder of labelled videos, FOLDER/CLASS/FILE, by video, audio or both.

A quarter of the files is held out. `pip install ".[evaluate]"` first, then
`python examples/linear_probe.py clips/train --modality audio`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crisscross_zoo import FeatureExtractor, Features
from crisscross_zoo.errors import ConfigError

try:
    from crisscross_zoo.evaluate.probe import LinearProbe
except ConfigError as error:  # its message names the package to install
    raise SystemExit(str(error)) from None
from sklearn.model_selection import train_test_split


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modality", choices=("video", "audio", "both"), default="video")
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--clips", type=int, default=5, help="clips per file (default: 5)")
    args = parser.parse_args()

    extractor = FeatureExtractor(args.weights, args.modality, clips=args.clips)
    files: dict[str, Features] = {}
    for path, result in extractor.stream(sorted(args.folder.glob("*/*"))):
        if isinstance(result, Features):
            files[str(path)] = result
        else:
            print(f"failed: {result}")
    paths = sorted(files)
    if not paths:
        raise SystemExit(f"{args.folder}: no files in folders of classes, CLASS/FILE")
    labels = [Path(path).parent.name for path in paths]
    train, test, train_labels, truth = train_test_split(
        [files[path] for path in paths], labels, test_size=0.25, stratify=labels, random_state=0
    )
    probe = LinearProbe().fit(train, train_labels)
    predictions = probe.predict(test)
    print(f"{len(test)} files held out, {sum(predictions == truth)} right; cost {probe.cost_:g}")
    for name in probe.classes_:
        predicted = [p for p, label in zip(predictions, truth, strict=True) if label == name]
        print(f"  {name}: {predicted.count(name)} of {len(predicted)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
