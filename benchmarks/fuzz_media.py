"""Read thousands of truncated and byte-flipped media files: none may crash, hang or raise what is not foreseen.

    python benchmarks/fuzz_media.py --rounds 10000

Each is read as extraction does, both modalities, and at moments as training does: scanned as it is, and by what was
known of it before it was damaged. Prints how each ended, the slowest, and exits with 1 if any crashed the decoder,
hung, or raised an unforeseen error. Needs no weights.
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

SURPRISE = "surprise"
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
    "sound.wav": {"video": None, "audio": "pcm_s16le"},
    "sound.mp3": {"video": None, "audio": "libmp3lame"},
    "sound.flac": {"video": None, "audio": "flac"},
    "sound.m4a": {"video": None, "audio": "aac"},
    "sound.opus": {"video": None, "audio": "libopus", "sample_rate": 48_000},
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
    """Read a file as extraction and as training do; yields what was done, and how it ended.

    Args:
        indexed: What was known of each original before it was broken, by name.
        path: The broken file, its original's name behind a dash.
    """
    sampling, known = (
        Sampling(video=VideoConfig(size=32), audio=AudioConfig()),
        indexed[Path(path).name.partition("-")[2]],
    )
    for news in file_events(path, sampling):
        if isinstance(news, Clip):
            yield "clips", "a clip"
        elif isinstance(news, FileRead):
            yield "clips", "read with a warning" if news.damage else "read"
        elif isinstance(news, CrissCrossError):
            unforeseen = "reading it failed" in news.reason
            yield "clips", f"{SURPRISE}: {news}" if unforeseen else type(news).__name__
    size = Path(path).stat().st_size
    moved = dataclasses.replace(known, path=path, size=size)
    for when, media in (
        ("damaged after indexing", lambda: moved),
        ("damaged before", lambda: scan(path).compact()),
    ):
        try:
            found = media()
            for start in (0.0, 0.6):
                times = None if found.video is None else start + np.arange(4) / 16
                sound = None if found.audio is None else (start, 4000)
                read_moment(found, times=times, sound=sound)
            yield when, "read"
        except MediaError as error:
            yield when, type(error).__name__
        except Exception as error:
            yield when, f"{SURPRISE}: {type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="copy files that crash, hang or surprise here")
    args = parser.parse_args()
    import fuzz_media  # this file, by a name that decoding processes can import

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
            if crashed or how.startswith(SURPRISE) or now - last > HANG_SECONDS:
                bad.append(f"{path.name}: {item} ({now - last:.1f} s)")
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / path.name).write_bytes(path.read_bytes())
            last = now
    print(f"{args.rounds} broken files, seed {args.seed}, each read as clips and at moments")
    for (what, how), count in sorted(outcomes.items()):
        print(f"  {count:6d}  {what}: {how}")
    print(f"  slowest: {slowest[1]}, {slowest[0]:.2f} s")
    print(f"  crashes, hangs and surprises: {len(bad)}")
    for line in bad:
        print(f"    {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
