"""Features of every video in a folder, in Python: one .npz per file in the same tree, index.csv and failed.jsonl.

A file that cannot be read is reported and does not stop the others; finished outputs are skipped.
Run it with `python examples/folder_features.py examples --out feats/`.
"""

from __future__ import annotations

import argparse

from crisscross_zoo import extract_files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--out", default="feats")
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--size", type=int, help="side of the crop in pixels (default: the checkpoint's)")
    args = parser.parse_args()

    summary = extract_files(
        args.folder, args.out, weights=args.weights, modality="both", size=args.size, on_event=print
    )
    return 1 if summary.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
