"""Compare the features of two runs: python .ci/same_features.py OLD.npz NEW.npz; exits with 1 if a bit differs.

Both must come from the same machine: torch and its BLAS choose their kernels by the processor.
"""

from __future__ import annotations

import sys

import numpy as np

from crisscross_zoo import Features


def main() -> int:
    """Print the largest difference by modality, and the versions; return the exit code."""
    old, new = (Features.load(path) for path in sys.argv[1:])
    same = True
    for name in ("video", "audio"):
        before, after = getattr(old, name), getattr(new, name)
        if before.shape != after.shape:
            sys.exit(f"{name}: {after.shape}, was {before.shape}")
        difference = float(np.abs(before - after).max())
        same = same and before.tobytes() == after.tobytes()
        print(f"{name} {before.shape}: largest difference {difference:g}")
    for features in (old, new):
        print(", ".join(f"{n} {v}" for n, v in features.metadata["versions"].items()))
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
