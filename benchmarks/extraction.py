"""The whole extractor: start-up, whole commands, waiting for the decoder, short files against a long file.

    python benchmarks/extraction.py                 the paper's networks, some minutes
    python benchmarks/extraction.py --weights demo --seconds 10 --files 5 --rounds 1
    python benchmarks/extraction.py --video film.mp4 clip.mkv      whole commands on files of your own

- Start-up: the time of ``crisscross-extract`` on a clip of 0.5 s with the ``demo`` weights, divided by the time of
  ``import torch, torchvision`` alone; both from the start of the process to its end.
- Whole commands: the time of ``crisscross-extract``, divided by that of a simple script (``homemade.py``, if torchcodec
  is installed), and divided by the sum of its start-up (the command on one clip) and of the network or the decoding,
  whichever takes longer alone, in this process. The table also has the processor time of network and
  decoding together, waiting threads of PyTorch included.
- Waiting: the fraction of the time in which the network has no clips because it waits for the decoder.
- Short files: many files of 2 s and one long file, per clip; the start of the decoding worker counts in both.
- The plain path: decode the whole file into memory, resize frames with Pillow, and pass one clip after another through
  the network, which is not optimised (``media.py`` and ``encoders.py`` measure both halves).
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from clips import make_clip
from media import plain
from report import Ratio, Report, add_json_option, finish

from crisscross_zoo import FeatureExtractor
from crisscross_zoo.extract import extractor as extract
from crisscross_zoo.media.clips import file_events
from crisscross_zoo.media.scan import scan

_IMPORT = [sys.executable, "-c", "import torch, torchvision"]
SHORT_SECONDS = 2


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def start_up(folder: Path, rounds: int) -> Report:
    clip = folder / "half.mp4"
    make_clip(clip, 320, 240, 0.5)
    command = [sys.executable, "-m", "crisscross_zoo.cli.extract", str(clip), "--weights", "demo", "--quiet"]
    command += ["--overwrite", "--device", "cpu", "--out", str(folder / "half.npy")]
    calls = {"import torch, torchvision": _IMPORT, "import torch": [*_IMPORT[:2], "import torch"]}
    calls["crisscross-extract"] = command
    calls["crisscross-extract --help"] = [*command[:3], "--help"]
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):
        for name, words in calls.items():
            took = seconds_of(lambda w=words: subprocess.run(w, check=True, stdout=subprocess.DEVNULL))
            least[name] = min(least[name], took)
    report = Report(
        "Start-up: one clip of 0.5 s", ("process", "seconds", "relative to import torch, torchvision")
    )
    for name, took in least.items():
        report.add(name, f"{took:.2f}", f"{took / least['import torch, torchvision']:.2f}")
    ratio = least["crisscross-extract"] / least["import torch, torchvision"]
    report.ratios.append(
        Ratio("whole command over `import torch, torchvision`", ratio, 1.3, more_is_better=False)
    )
    return report


class Waiting:
    """Measure the seconds that the extractor waits for events of its files."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._real = extract.read_files

    def read_files(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        events = self._real(*args, **kwargs)
        try:
            while True:
                start = time.perf_counter()
                try:
                    event = next(events)
                except StopIteration:
                    return
                finally:
                    self.seconds += time.perf_counter() - start
                yield event
        finally:
            events.close()


def run(extractor: FeatureExtractor, paths: list[Path]) -> tuple[float, float, int]:
    """Return the seconds, the seconds of waiting among them, and the number of clips."""
    waiting = Waiting()
    with mock.patch.object(extract, "read_files", waiting.read_files):
        start = time.perf_counter()
        clips = sum(len(features.video) for _, features in extractor.stream(paths))
    return time.perf_counter() - start, waiting.seconds, clips


def stages(extractor: FeatureExtractor, path: Path) -> tuple[float, float, float]:
    """Return the seconds of the network and of decoding, each alone, and the processor seconds of both."""
    start, processor = time.perf_counter(), time.process_time()
    events = [(0, path, event) for event in file_events(path, extractor._sampling)]
    decoding = time.perf_counter() - start

    def replay(*_: Any, **__: Any) -> Iterator[Any]:
        yield from events

    with mock.patch.object(extract, "read_files", replay):
        network = seconds_of(lambda: extractor(path))
    return network, decoding, time.process_time() - processor


def commands(folder: Path, options: argparse.Namespace) -> Report:
    """Compare whole commands with a simple script and with the sum of their stages."""
    scripted = importlib.util.find_spec("torchcodec") is not None and options.device == "cpu"
    report = Report(
        "Whole commands, seconds",
        (
            "input", "size", "clips", "crisscross-extract", "simple script", "start-up", "network", "decoding",
            "processor",
        ),
    )  # fmt: skip
    report.notes.append(
        "The simple script is benchmarks/homemade.py: torchcodec, torchvision's transforms, the plain network."
    )
    videos = options.video
    if not videos:
        videos = [folder / f"film{height}.mp4" for height in (360, 720)]
        for video, width, height in zip(videos, (640, 1280), (360, 720), strict=True):
            make_clip(video, width, height, options.seconds)
    half = folder / "half.mp4"
    parts = ("network", "decoding", "processor")
    for video in videos:
        for size in (112, 224):
            common = ["--weights", options.weights, "--size", str(size)]
            ours = [sys.executable, "-m", "crisscross_zoo.cli.extract", "--quiet", "--overwrite", *common]
            ours += ["--device", options.device, "--out", str(folder / "ours.npy")]
            calls = {"whole": [*ours, str(video)], "start": [*ours, str(half)]}
            if scripted:
                script = Path(__file__).with_name("homemade.py")
                calls["own"] = [sys.executable, str(script), str(video), str(folder / "own.npy"), *common]
            extractor = FeatureExtractor(options.weights, device=options.device, size=size, workers=0)
            clips = len(extractor(video).video)  # type: ignore[arg-type]
            least = dict.fromkeys((*calls, *parts), float("inf"))
            for _ in range(options.rounds):
                for name, words in calls.items():
                    took = seconds_of(
                        lambda w=words: subprocess.run(w, check=True, stdout=subprocess.DEVNULL)
                    )
                    least[name] = min(least[name], took)
                for name, took in zip(parts, stages(extractor, video), strict=True):
                    least[name] = min(least[name], took)
            own = f"{least['own']:.1f}" if scripted else "-"
            times = [f"{least[name]:.1f}" for name in ("start", *parts)]
            report.add(video.name, size, clips, f"{least['whole']:.1f}", own, *times)
            where = f"{video.name}, {size}"
            if scripted:
                most = {112: 0.7, 224: 0.65}[size]
                ratio = least["whole"] / least["own"]
                report.ratios.append(
                    Ratio(f"whole command over a simple script, {where}", ratio, most, more_is_better=False)
                )
            limit = least["start"] + max(least["network"], least["decoding"])
            name = f"whole command over start-up and its longer part, {where}"
            report.ratios.append(Ratio(name, least["whole"] / limit, 1.1, more_is_better=False))
    return report


def plain_path(encoder: Any, path: Path, config: Any, span: tuple[float, float]) -> None:
    with torch.inference_mode():
        for clip in plain(path, config, span):
            encoder(clip[None].to(encoder.device)).cpu()


def whole(folder: Path, options: argparse.Namespace) -> list[Report]:
    report = Report(
        f"Whole extraction, video, {options.device}, {torch.get_num_threads()} threads",
        ("input", "size", "clips", "seconds", "ms per clip", "waiting", "plain, ms per clip", "speed-up"),
    )
    short = Report(
        f"Many files of {SHORT_SECONDS} s against one long file, ms per clip",
        ("files", "size", "long", "short", "long / short"),
    )
    count = max(2, round(options.seconds / SHORT_SECONDS))
    for width, height, size in ((640, 360, 112), (1280, 720, 224)):
        extractor = FeatureExtractor(
            options.weights, device=options.device, size=size, workers=options.workers
        )
        encoder, config = extractor.encoders["video"], extractor._sampling.video  # type: ignore[attr-defined]
        long = folder / f"long{height}.mp4"
        make_clip(long, width, height, count * SHORT_SECONDS)
        make_clip(folder / "short.mp4", width, height, SHORT_SECONDS)
        many = [folder / f"{height}-{k}.mp4" for k in range(options.files)]
        for path in many:
            path.hardlink_to(folder / "short.mp4")
        (folder / "short.mp4").unlink()

        run(extractor, many[:1])
        longest = run(extractor, [long])
        shortest = run(extractor, many)
        span = scan(long).video.span  # type: ignore[union-attr]
        plainly = partial(plain_path, encoder, long, config, span)
        slow = seconds_of(plainly)
        for _ in range(options.rounds - 1):
            longest = min(longest, run(extractor, [long]))
            shortest = min(shortest, run(extractor, many))
            slow = min(slow, seconds_of(plainly))
        seconds, waited, clips = longest
        each, each_short = seconds / clips, shortest[0] / shortest[2]
        report.add(
            f"{width}x{height}, {count * SHORT_SECONDS} s", size, clips, f"{seconds:.1f}", f"{1e3 * each:.1f}",
            f"{100 * waited / seconds:.1f} %", f"{1e3 * slow / clips:.1f}", f"{slow / seconds:.2f}",
        )  # fmt: skip
        where = f"{width}x{height}, {size}"
        report.ratios.append(Ratio(f"whole extraction, plain over ours, {where}", slow / seconds))
        short.add(
            f"{options.files}, {width}x{height}",
            size,
            f"{1e3 * each:.1f}",
            f"{1e3 * each_short:.1f}",
            f"{each / each_short:.2f}",
        )
        short.ratios.append(
            Ratio(f"throughput of short files over one long file, {where}", each / each_short, 0.9)
        )
    return [report, short]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="decoding workers (default: 1)")
    parser.add_argument(
        "--video",
        type=Path,
        nargs="+",
        help="measure only start-up and whole commands, on these files of minutes: their clips are held in memory",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the long file")
    parser.add_argument("--files", type=int, default=120, help="how many short files")
    parser.add_argument("--rounds", type=int, default=2)
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        reports = [start_up(Path(name), options.rounds), commands(Path(name), options)]
        reports += [] if options.video else whole(Path(name), options)
    finish(reports, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
