"""Features of every video in a folder, in Python: one .npz a file, in the same tree.

A file that cannot be read is reported and does not stop the others.
Run it with `python examples/folder_features.py examples --out feats/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crisscross_zoo import FeatureExtractor, Features

SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("feats"))
    parser.add_argument("--weights", default="demo", help="'audioset' for the paper's")
    parser.add_argument("--size", type=int, default=224, help="side of the crop in pixels (default: 224)")
    args = parser.parse_args()

    extractor = FeatureExtractor(args.weights, modality="both", size=args.size)
    paths = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    failed = 0
    for path, result in extractor.stream(paths):  # as they get ready, which need not be their order
        if isinstance(result, Features):
            out = (args.out / Path(path).relative_to(args.folder)).with_suffix(".npz")
            result.save(out)
            print(f"{path} -> {out}: {result}")
        else:
            failed += 1
            print(f"failed: {result}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
