"""Plot how the video and audio features of a clip change over time, on one time axis.

Both modalities share one grid: row i of each is centred on the same instant. The upper plot shows how far
each row is from the row before (1 - cosine), the lower plot the first principal component.
Run it with `python examples/plot_features.py examples/clip.mp4 --out feats.png`.
"""

import argparse

import numpy as np

from crisscross_zoo import FeatureExtractor

try:
    from matplotlib.figure import Figure
except ImportError:
    raise SystemExit('matplotlib is not installed: pip install "crisscross-zoo[plot]"') from None


def change(rows: np.ndarray) -> np.ndarray:
    """Return 1 - cosine between each row and the row before; (n, D) to (n - 1,)."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return 1 - (unit[1:] * unit[:-1]).sum(axis=1)


def first_component(rows: np.ndarray) -> np.ndarray:
    """Return the projection on the first principal component, scaled to unit variance; (n, D) to (n,)."""
    centred = rows - rows.mean(axis=0)
    projection = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    return projection / projection.std()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clip", nargs="?", default="examples/clip.mp4")
    parser.add_argument("--out", default="feats.png")
    parser.add_argument("--weights", default="demo", help="checkpoint; 'audioset' for the paper's")
    parser.add_argument("--stride", type=float, default=0.5, help="seconds between rows")
    args = parser.parse_args()

    # Audio windows of 1 s, not 2, have a finer resolution in time.
    features = FeatureExtractor(args.weights, modality="both", stride=args.stride, audio_seconds=1)(args.clip)
    print(features)
    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for name in ("video", "audio"):
        rows, windows = getattr(features, name), getattr(features, f"{name}_windows")
        centres = windows.mean(axis=1)
        above.plot(centres[1:], change(rows), marker=".", label=name)
        below.plot(centres, first_component(rows), marker=".", label=name)
    above.set(ylabel="1 - cosine to the row before", title=f"{args.clip} ({args.weights})")
    below.set(ylabel="first component", xlabel="centre of the window, s")
    above.legend()
    figure.savefig(args.out, dpi=120)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
