"""Find the files of a folder that are most similar to a query file, by video, by audio, and by both.

A file's vector is the mean over its clips. Similarity is the cosine; by both, it is the mean of the two cosines.
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
except ConfigError as error:  # its message names the package to install
    raise SystemExit(str(error)) from None


def vectors(features: Features) -> dict[str, np.ndarray]:
    """Return a file's unit vector of each modality, and their concatenation."""
    found = {name: getattr(features, name).mean(axis=0) for name in ("video", "audio")}
    unit = {name: v / np.linalg.norm(v) for name, v in found.items()}
    return {**unit, "both": np.concatenate([unit["video"], unit["audio"]])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("query", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--clips", type=int, default=5, help="clips per file (default: 5)")
    parser.add_argument("-k", type=int, default=3, help="number of neighbours to print (default: 3)")
    args = parser.parse_args()
    extractor = FeatureExtractor(args.weights, modality="both", clips=args.clips)
    if (query := extractor(args.query)).metadata["missing"]:
        raise SystemExit(f"{args.query}: lacks a modality")
    queries = vectors(query)
    paths = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    gallery: dict[Path, dict[str, np.ndarray]] = {}
    for path, result in extractor.stream([p for p in paths if p.resolve() != args.query.resolve()]):
        if isinstance(result, Features) and not result.metadata["missing"]:
            gallery[Path(path)] = vectors(result)
        else:
            print(f"failed: {f'{path}: lacks a modality' if isinstance(result, Features) else result}")
    if not (names := sorted(gallery)):
        raise SystemExit(f"{args.folder}: no file to search")
    for by, vector in queries.items():
        indices, cosines = nearest(np.stack([gallery[n][by] for n in names]), vector[None], args.k)
        ranked = zip(indices[0], cosines[0], strict=True)
        print(f"by {by}: " + ", ".join(f"{names[i].relative_to(args.folder)} {c:.3f}" for i, c in ranked))


if __name__ == "__main__":
    main()
