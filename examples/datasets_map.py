"""Extraction inside a Hugging Face `datasets` pipeline: a column of paths in, columns of features out.

A file that cannot be read gets its error in the column `error`, and no rows. `pip install ".[examples]"` first, then
`python examples/datasets_map.py examples --out features/`; `datasets.load_from_disk` reads the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from crisscross_zoo import FeatureExtractor, Features

try:
    from datasets import Dataset, List, Value
except ImportError:
    raise SystemExit("datasets is not installed: pip install datasets") from None

SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", default="features")
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    args = parser.parse_args()

    extractor = FeatureExtractor(args.weights, modality="video")

    def add_features(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        results = dict(extractor.stream(batch["path"]))  # in any order, so they are looked up by path
        columns: dict[str, list[Any]] = {"video": [], "windows": [], "error": []}
        for result in map(results.get, batch["path"]):
            read = isinstance(result, Features)
            columns["video"].append(result.video.tolist() if read else [])
            columns["windows"].append(result.video_windows.tolist() if read else [])
            columns["error"].append(None if read else str(result))
        return columns

    paths = sorted(str(p) for p in args.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    dataset = Dataset.from_dict({"path": paths})
    columns = dataset.features.copy()
    columns.update(
        video=List(List(Value("float32"))), windows=List(List(Value("float64"))), error=Value("string")
    )
    dataset = dataset.map(add_features, batched=True, batch_size=64, features=columns)
    dataset.save_to_disk(args.out)
    for row in dataset.with_format("numpy"):
        print(f"{row['path']}: {row['error'] or row['video'].shape}")


if __name__ == "__main__":
    main()
