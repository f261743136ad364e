"""Which files of a folder are most like a query, by what is seen, by what is heard, and by both?

A file's vector is the mean over its clips; likeness is the cosine, and by both the mean of the two cosines.
`pip install ".[evaluate]"` first, then `python examples/retrieval.py examples/clip.mp4 clips/train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from crisscross_zoo import FeatureExtractor, Features
from crisscross_zoo.errors import ConfigError
from crisscross_zoo.files.find import VIDEO_SUFFIXES

try:
    from crisscross_zoo.evaluate.retrieval import nearest
except ConfigError as error:  # it says what to install
    raise SystemExit(str(error)) from None


def vectors(features: Features) -> dict[str, np.ndarray]:
    """One unit vector a file for each modality, and their concatenation."""
    found = {name: getattr(features, name).mean(axis=0) for name in ("video", "audio")}
    unit = {name: v / np.linalg.norm(v) for name, v in found.items()}
    return {**unit, "both": np.concatenate([unit["video"], unit["audio"]])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("query", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="demo", help="'audioset' for the paper's")
    parser.add_argument("--clips", type=int, default=5, help="clips of each file (default: 5)")
    parser.add_argument("-k", type=int, default=3, help="how many to show")
    args = parser.parse_args()
    extractor = FeatureExtractor(args.weights, modality="both", clips=args.clips)
    if (query := extractor(args.query)).metadata["missing"]:
        raise SystemExit(f"{args.query}: lacks a modality")
    asked = vectors(query)
    paths = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    known: dict[Path, dict[str, np.ndarray]] = {}
    for path, result in extractor.stream([p for p in paths if p.resolve() != args.query.resolve()]):
        if isinstance(result, Features) and not result.metadata["missing"]:
            known[Path(path)] = vectors(result)
        else:
            print(f"left out: {f'{path}: lacks a modality' if isinstance(result, Features) else result}")
    if not (names := sorted(known)):
        raise SystemExit(f"{args.folder}: no file to search")
    for by, vector in asked.items():
        places, cosines = nearest(np.stack([known[n][by] for n in names]), vector[None], args.k)
        ranked = zip(places[0], cosines[0], strict=True)
        print(f"by {by}: " + ", ".join(f"{names[p].relative_to(args.folder)} {c:.3f}" for p, c in ranked))


if __name__ == "__main__":
    main()
