"""Compare each combination of container, codec and property with Debian's ``ffmpeg``: wrong frames, shift of the audio.

    python benchmarks/clock.py [--only PATTERN] [--keep FOLDER]

Prints a Markdown table with a row per combination (tests/media/combinations.py makes the files,
tests/media/against_ffmpeg.py has the expected results), and exits with 1 if a row has problems. It needs the command
``ffmpeg`` and no weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "media")]

import combinations  # noqa: E402, F401  registers them
from against_ffmpeg import DIFFERS, Comparison, compare, complaints, expected  # noqa: E402
from numbered import COMBINATIONS, FfmpegError, Shelf  # noqa: E402

from crisscross_zoo.errors import CrissCrossError  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", help="combinations whose name matches, such as avi-*")
    parser.add_argument("--keep", type=Path, help="write the files to this folder, and keep them")
    args = parser.parse_args()
    print("| combination | frames compared | wrong frames | audio shift, ms | damage | notes | problems |")
    print("| --- | ---: | ---: | ---: | --- | --- | --- |")
    found: list[Comparison] = []
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        shelf = Shelf(folder)
        for combination in COMBINATIONS.values():
            if not fnmatch(combination.name, args.only):
                continue
            path = folder / f"{combination.name}.{combination.suffix}"
            name = combination.name + " (differs on purpose)" * (combination.name in DIFFERS)
            try:
                combination.make(shelf, path)
                comparison = compare(combination, path, expected(combination, path, shelf))
            except (FfmpegError, CrissCrossError) as error:
                bad += 1
                print(f"| {name} | | | | | | {str(error).splitlines()[-1]} |", flush=True)
                continue
            wrong = complaints(combination, comparison)
            found.append(comparison)
            bad += bool(wrong)
            row = (
                name,
                comparison.compared,
                len(comparison.wrong),
                "" if comparison.shift is None else f"{1000 * comparison.shift:+.2f}",
                "; ".join(dict.fromkeys(comparison.damage)),
                "; ".join(comparison.notes),
                "; ".join(wrong),
            )
            print("|", " | ".join(map(str, row)), "|", flush=True)
    shifts = [abs(c.shift) for c in found if c.shift is not None]
    print(
        f"\n{len(found)} combinations, {sum(c.compared for c in found)} frames compared, "
        f"{sum(len(c.wrong) for c in found)} wrong; largest audio shift "
        f"{1000 * max(shifts, default=0.0):.2f} ms; {bad} combinations have problems"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
