"""One vector per event: features aligned in time with a transcript (.srt) or a table of events (.csv: start,end,label).

Each event gets the mean of the rows whose windows overlap it, weighted by the seconds of overlap; nan if none does.
Run it with `python examples/align_events.py examples/clip.mp4 events.csv --out events.npz`.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

import numpy as np

from crisscross_zoo import FeatureExtractor

CUE = re.compile(r"(\d+):(\d+):(\d+)[,.](\d+) --> (\d+):(\d+):(\d+)[,.](\d+).*\n((?:.*\S.*\n?)*)")


def read_events(path: Path) -> list[tuple[float, float, str]]:
    """Return ``(start, end, label)`` of each event, in seconds."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() != ".srt":
        return [(float(r["start"]), float(r["end"]), r["label"]) for r in csv.DictReader(text.splitlines())]
    events = []
    for cue in CUE.findall(text):
        h1, m1, s1, ms1, h2, m2, s2, ms2 = map(int, cue[:8])
        start, end = 3600 * h1 + 60 * m1 + s1 + ms1 / 1000, 3600 * h2 + 60 * m2 + s2 + ms2 / 1000
        events.append((start, end, " ".join(cue[8].split())))
    return events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clip")
    parser.add_argument("events", type=Path)
    parser.add_argument("--out", default="events.npz")
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--stride", type=float, default=0.25, help="seconds between windows (default: 0.25)")
    args = parser.parse_args()

    starts, ends, labels = map(np.array, zip(*read_events(args.events), strict=True))
    features = FeatureExtractor(args.weights, modality="both", stride=args.stride)(args.clip)
    arrays = {"start": starts, "end": ends, "label": labels}
    for name in (n for n in ("video", "audio") if n not in features.metadata["missing"]):
        rows, (first, last) = getattr(features, name), getattr(features, f"{name}_windows").T
        overlap = np.minimum.outer(ends, last) - np.maximum.outer(starts, first)  # seconds, (events, windows)
        weights = np.maximum(overlap, 0)
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            arrays[name] = (weights @ rows / total).astype(np.float32)
        print(f"{name}: {arrays[name].shape}, {(total == 0).sum()} events outside the file")
    np.savez(args.out, **arrays)


if __name__ == "__main__":
    main()
