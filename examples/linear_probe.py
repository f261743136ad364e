"""A linear probe on a folder of labelled videos, FOLDER/CLASS/FILE: which class is a file of, by sound or pictures?

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
except ConfigError as error:  # it says what to install
    raise SystemExit(str(error)) from None
from sklearn.model_selection import train_test_split


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modality", choices=("video", "audio", "both"), default="video")
    parser.add_argument("--weights", default="demo", help="'audioset' for the paper's")
    parser.add_argument("--clips", type=int, default=5, help="clips of each file (default: 5)")
    args = parser.parse_args()

    extractor = FeatureExtractor(args.weights, args.modality, clips=args.clips)
    files: dict[str, Features] = {}
    for path, result in extractor.stream(sorted(args.folder.glob("*/*"))):
        if isinstance(result, Features):
            files[str(path)] = result
        else:
            print(f"left out: {result}")
    paths = sorted(files)
    if not paths:
        raise SystemExit(f"{args.folder}: no files in folders of classes, CLASS/FILE")
    labels = [Path(path).parent.name for path in paths]
    train, test, known, truth = train_test_split(
        [files[path] for path in paths], labels, test_size=0.25, stratify=labels, random_state=0
    )
    probe = LinearProbe().fit(train, known)
    guesses = probe.predict(test)
    print(f"{len(test)} files held out, {sum(guesses == truth)} right; cost {probe.cost_:g}")
    for name in probe.classes_:
        asked = [guess for guess, label in zip(guesses, truth, strict=True) if label == name]
        print(f"  {name}: {asked.count(name)} of {len(asked)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
