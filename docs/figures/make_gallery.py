"""Make the image of a retrieval gallery: `python docs/figures/make_gallery.py` (`pip install ".[evaluate]"`).

Takes a minute. The script generates the demo's clips, searches them with the demo weights by crisscross-evaluate, and
scales the image of the gallery down.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from PIL import Image

from crisscross_zoo.cli import evaluate
from crisscross_zoo.demo.data import make_demo_data

WIDTH, COLOURS = 900, 128
SEARCH = (
    "--setup both --weights demo --clips.size 112 --clips.frames 8 --clips.test 2 --gallery-queries 4 --quiet"
)


def main() -> int:
    """Write ``gallery.png``; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here, help="folder (default: docs/figures)")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        make_demo_data(f"{folder}/clips", train_clips=8, test_clips=2)
        places = {"--gallery": "gallery", "--out": "result", "--cache": "cache"}
        options = [word for option, name in places.items() for word in (option, f"{folder}/{name}")]
        code = evaluate.main(["retrieval", f"{folder}/clips", *shlex.split(SEARCH), *options])
        if code == 0:
            grid = Image.open(f"{folder}/gallery/video-to-video.png").convert("RGB")
            grid = grid.resize((WIDTH, round(grid.height * WIDTH / grid.width)), Image.Resampling.LANCZOS)
            grid.quantize(COLOURS).save(out / "gallery.png", optimize=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
