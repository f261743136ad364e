"""Read thousands of truncated and byte-flipped media files: none may crash, hang or raise what is not foreseen.

    python benchmarks/fuzz_media.py --rounds 10000

Prints how the files ended, the slowest, and exits with 1 if any crashed the decoder, hung, or raised an error that
:func:`crisscross_zoo.media.clips.file_news` had to catch unforeseen. Needs no weights.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from make_media import make_media

from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.errors import CrissCrossError, DecoderCrashError
from crisscross_zoo.media.clips import Clip, FileRead, Sampling
from crisscross_zoo.media.pool import read_files

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


def broken_files(folder: Path, rounds: int, seed: int) -> Iterator[Path]:
    originals = [make_media(folder / n, seconds=1, size=(96, 64), **o) for n, o in ORIGINALS.items()]
    data = {p: p.read_bytes() for p in originals}
    chance = random.Random(seed)
    for number in range(rounds):
        original = originals[number % len(originals)]
        path = folder / f"{number:06d}-{original.name}"
        path.write_bytes(mutate(data[original], chance))
        yield path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="copy files that crash, hang or surprise here")
    args = parser.parse_args()
    sampling = Sampling(video=VideoConfig(size=32), audio=AudioConfig())
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    clips = 0
    last = time.monotonic()
    slowest = (0.0, "")
    most = (0, "")
    rows: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        files = broken_files(Path(name), args.rounds, args.seed)
        for _, path, news in read_files(files, sampling, workers=args.workers):
            path = Path(path)
            if isinstance(news, Clip):
                clips += 1
                rows[path.name] += 1
                continue
            if not isinstance(news, FileRead | CrissCrossError):
                continue
            took, last = time.monotonic() - last, time.monotonic()
            slowest = max(slowest, (took, path.name))
            most = max(most, (rows.pop(path.name, 0), path.name))
            if isinstance(news, CrissCrossError):
                surprise = isinstance(news, DecoderCrashError) or "reading it failed" in news.reason
                outcomes[type(news).__name__] += 1
            else:
                surprise = False
                outcomes["read with a warning" if news.damage else "read"] += 1
            if surprise or took > HANG_SECONDS:
                bad.append(f"{path.name}: {news} ({took:.1f} s)")
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / path.name).write_bytes(path.read_bytes())
            path.unlink()
    print(f"{args.rounds} broken files, seed {args.seed}: {clips} clips read")
    for outcome, count in outcomes.most_common():
        print(f"  {count:6d}  {outcome}")
    print(
        f"  slowest: {slowest[1]}, {slowest[0]:.2f} s after the one before; most clips: {most[1]}, {most[0]}"
    )
    print(f"  crashes, hangs and surprises: {len(bad)}")
    for line in bad:
        print(f"    {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
