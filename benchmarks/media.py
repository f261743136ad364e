"""Dense clips of a file, without the network: the plain path, ours, and the limit, pure decoding, in one run.

    python benchmarks/media.py                   60 s of 640x360 and 1280x720, crops of 112 and 224
    python benchmarks/media.py video.mp4         files of your own (the plain path holds a whole file in memory)

The plain path reads like the released code: it decodes the whole file to images in memory, then it resizes the frames
of one clip after another with Pillow, crops and normalises them. Ours is what the extractor's decoding workers do
(:func:`read_clips`): it decodes only the frames that are needed and keeps none. The limit decodes all frames once and
discards them. If torchcodec is installed, ours is also run with torchcodec instead of PyAV. Each variant has one
thread. Variants take turns, and each time is the minimum over all rounds, in CPU seconds of that thread, so that other
processes matter little.

Clips are compared: the tables have the largest difference in grey levels between ours and the plain path (Pillow's
resizing, within 1), and between torchcodec's and ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from clips import make_clip
from PIL import Image
from report import Ratio, Report, add_json_option, finish

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.media.clips import Clip, Sampling, read_clips
from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.windows import dense_starts, frame_times


def decode_alone(path: Path) -> int:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def ours(path: Path, config: VideoConfig, torchcodec: str | None = None) -> list[np.ndarray]:
    events = read_clips(path, Sampling(video=config, audio=None, torchcodec=torchcodec))
    return [event.values for event in events if isinstance(event, Clip)]


def plain(path: Path, config: VideoConfig, span: tuple[float, float]) -> list[torch.Tensor]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        decoded = [(f.time, f.to_image()) for f in container.decode(stream)]
    times = np.array([t for t, _ in decoded])
    starts = dense_starts(span, config.window_seconds, config.window_seconds)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.mean, config.std))
    short = int(config.size / config.crop_ratio)
    clips = []
    for wanted in frame_times(starts, span, config.frames, config.fps):
        frames = []
        for time_wanted in wanted:
            image = decoded[max(0, int(np.searchsorted(times, time_wanted + 1e-6, side="right")) - 1)][1]
            scale = short / min(image.size)
            size = tuple(short if side == min(image.size) else int(side * scale) for side in image.size)
            image = image.resize(size, Image.Resampling.BILINEAR)
            left, top = (round((side - config.size) / 2) for side in size)
            image = image.crop((left, top, left + config.size, top + config.size))
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
            frames.append((pixels - mean) / std)
        clips.append(torch.stack(frames, dim=1))
    return clips


def least(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            best[name] = min(best[name], time.thread_time() - start)
    return best


def difference(mine: list[np.ndarray], theirs: list[torch.Tensor], config: VideoConfig) -> float:
    """Return the largest difference in grey levels, over every tenth clip."""
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (config.mean, config.std))
    worst = 0.0
    for a, b in list(zip(mine, theirs, strict=True))[::10]:
        grey = (b * std + mean) * 255
        worst = max(worst, float((torch.from_numpy(a).permute(3, 0, 1, 2) - grey).abs().max()))
    return worst


def measure(options: argparse.Namespace) -> list[Report]:
    report = Report(
        "Dense clips of a file, without the network, one thread, CPU seconds",
        (
            "file", "crop", "pure decoding", "ours", "ours / pure decoding", "plain", "speed-up", "grey levels",
        ),
        notes=["Ours / pure decoding is below 1 if frames are skipped that no other frame refers to."],
    )  # fmt: skip
    other = Report(
        "torchcodec instead of PyAV, CPU seconds",
        ("file", "crop", "ours", "torchcodec", "torchcodec / ours", "grey levels"),
    )
    both = importlib.util.find_spec("torchcodec") is not None and shutil.which("ffmpeg") is not None
    with tempfile.TemporaryDirectory() as folder:
        made = [Path(folder) / f"{size}.mp4" for size in ("640x360", "1280x720")]
        for path in options.files or made:
            if path in made:
                width, height = map(int, path.stem.split("x"))
                make_clip(path, width, height, options.seconds)
            span = scan(path).video.span  # type: ignore[union-attr]
            for size in (112, 224):
                config = VideoConfig(size=size)
                calls: dict[str, Callable[[], Any]] = {
                    "decode": partial(decode_alone, path),
                    "ours": partial(ours, path, config),
                    "plain": partial(plain, path, config, span),
                }
                if both:
                    calls["torchcodec"] = partial(ours, path, config, "cpu")
                times = least(calls, options.rounds)
                clips = ours(path, config)
                apart = difference(clips, plain(path, config, span), config)
                limit, over = times["ours"] / times["decode"], times["plain"] / times["ours"]
                report.add(
                    path.stem, size, f"{times['decode']:.2f}", f"{times['ours']:.2f}", f"{limit:.2f}",
                    f"{times['plain']:.2f}", f"{over:.2f}", f"{apart:.1f}",
                )  # fmt: skip
                where = f"{path.stem}, {size}"
                report.ratios += [
                    Ratio(f"dense, ours over pure decoding, {where}", limit, 1.2, more_is_better=False),
                    Ratio(f"dense, plain over ours, {where}", over, 3.0 if path.stem == "1280x720" else None),
                ]
                if both:
                    pairs = zip(clips, ours(path, config, "cpu"), strict=True)
                    levels = max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs)
                    ratio = times["torchcodec"] / times["ours"]
                    other.add(
                        path.stem,
                        size,
                        f"{times['ours']:.2f}",
                        f"{times['torchcodec']:.2f}",
                        f"{ratio:.2f}",
                        levels,
                    )
    return [report, other] if both else [report]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    finish(measure(options), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
