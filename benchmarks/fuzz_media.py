"""Read thousands of truncated and byte-flipped media files: none may crash, hang or raise an unexpected error.

    python benchmarks/fuzz_media.py --rounds 10000

Each file is read as extraction does, with both modalities, and at single times as training does: with a scan of the
damaged file, and with a scan from before the damage. Prints the counts of outcomes and the slowest file, and exits with
1 if any file crashed the decoder, hung, or raised an unexpected error. It needs no weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from make_media import make_media

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import CrissCrossError, MediaError
from crisscross_zoo.media.clips import Clip, FileRead, Sampling, file_events
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.seek import read_moment
from crisscross_zoo.media.tracks import Media
from crisscross_zoo.workers.pool import work_on_files

UNEXPECTED = "unexpected error"
HANG_SECONDS = 30.0

ORIGINALS = {
    "h264.mp4": {},
    "h264-faststart.mp4": {"container_options": {"movflags": "faststart"}},
    "h264.mkv": {"audio": "libopus", "sample_rate": 48_000},
    "h264.ts": {},
    "h264.avi": {"audio": "libmp3lame"},
    "h264.flv": {},
    "hevc.mp4": {"video": "libx265", "options": {"x265-params": "log-level=none"}},
    "vp9.webm": {"video": "libvpx-vp9", "audio": "libopus", "sample_rate": 48_000},
    "mpeg4.avi": {"video": "mpeg4", "audio": "libmp3lame"},
    "mpeg2.mpg": {"video": "mpeg2video", "audio": "mp2"},
    "audio.wav": {"video": None, "audio": "pcm_s16le"},
    "audio.mp3": {"video": None, "audio": "libmp3lame"},
    "audio.flac": {"video": None, "audio": "flac"},
    "audio.m4a": {"video": None, "audio": "aac"},
    "audio.opus": {"video": None, "audio": "libopus", "sample_rate": 48_000},
}


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Cut the file, flip some bytes, overwrite a run of them, or cut a run out."""
    kind = chance.choice(("truncate", "flip", "flip", "overwrite", "remove"))
    if kind == "truncate":
        return data[: chance.randrange(1, len(data))]
    broken = bytearray(data)
    # Half the damage goes to the first kilobytes, where headers are.
    reach = len(data) if chance.random() < 0.5 else min(len(data), 2048)
    if kind == "flip":
        for _ in range(chance.choice((1, 1, 4, 32))):
            broken[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    else:
        first = chance.randrange(reach)
        last = min(len(data), first + chance.randrange(1, 200))
        broken[first:last] = chance.randbytes(last - first) if kind == "overwrite" else b""
    return bytes(broken)


def broken_files(originals: list[Path], folder: Path, rounds: int, seed: int) -> Iterator[Path]:
    data = {p: p.read_bytes() for p in originals}
    chance = random.Random(seed)
    for number in range(rounds):
        original = originals[number % len(originals)]
        path = folder / f"{number:06d}-{original.name}"
        path.write_bytes(mutate(data[original], chance))
        yield path


def read_one(indexed: Mapping[str, Media], path: str) -> Iterator[tuple[str, str]]:
    """Read a file as extraction and as training do; yield each kind of reading and its outcome.

    Args:
        indexed: The scan of each original before the damage, by name.
        path: The broken file; the name of its original follows after a dash.
    """
    sampling, original = (
        Sampling(video=VideoConfig(size=32), audio=AudioConfig()),
        indexed[Path(path).name.partition("-")[2]],
    )
    for event in file_events(path, sampling):
        if isinstance(event, Clip):
            yield "clips", "a clip"
        elif isinstance(event, FileRead):
            yield "clips", "read with a warning" if event.damage else "read"
        elif isinstance(event, CrissCrossError):
            unexpected = "reading it failed" in event.reason
            yield "clips", f"{UNEXPECTED}: {event}" if unexpected else type(event).__name__
    size = Path(path).stat().st_size
    damaged = dataclasses.replace(original, path=path, size=size)
    for when, media in (
        ("damaged after indexing", lambda: damaged),
        ("damaged before indexing", lambda: scan(path).compact()),
    ):
        try:
            found = media()
            for start in (0.0, 0.6):
                times = None if found.video is None else start + np.arange(4) / 16
                audio = None if found.audio is None else (start, 4000)
                read_moment(found, times=times, audio=audio)
            yield when, "read"
        except MediaError as error:
            yield when, type(error).__name__
        except Exception as error:
            yield when, f"{UNEXPECTED}: {type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, help="copy files that crash, hang or raise unexpected errors to this folder"
    )
    args = parser.parse_args()
    import fuzz_media  # this file, under a name that decoding workers can import

    outcomes: Counter[tuple[str, str]] = Counter()
    bad: list[str] = []
    last = time.monotonic()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        originals = [make_media(folder / n, seconds=1, size=(96, 64), **o) for n, o in ORIGINALS.items()]
        indexed = {p.name: scan(p).compact() for p in originals}
        files = broken_files(originals, folder, args.rounds, args.seed)
        job = functools.partial(fuzz_media.read_one, indexed)
        for _, given, item in work_on_files(files, job, workers=args.workers):
            path, now = Path(given), time.monotonic()
            slowest = max(slowest, (now - last, path.name))
            crashed = isinstance(item, CrissCrossError)
            what, how = ("any", type(item).__name__) if isinstance(item, CrissCrossError) else item
            outcomes[what, how.partition(":")[0]] += 1
            if crashed or how.startswith(UNEXPECTED) or now - last > HANG_SECONDS:
                bad.append(f"{path.name}: {item} ({now - last:.1f} s)")
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / path.name).write_bytes(path.read_bytes())
            last = now
    print(f"{args.rounds} broken files, seed {args.seed}, each read as clips and at single times")
    for (what, how), count in sorted(outcomes.items()):
        print(f"  {count:6d}  {what}: {how}")
    print(f"  slowest: {slowest[1]}, {slowest[0]:.2f} s")
    print(f"  crashes, hangs and unexpected errors: {len(bad)}")
    for line in bad:
        print(f"    {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
