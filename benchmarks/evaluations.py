"""Do the protocols distinguish pretrained weights from random ones, and how long does each stage take? On the demo's
clips, and on real sounds.

    crisscross-pretrain demo --out demo/                            makes demo/data
    python benchmarks/evaluations.py demo demo/data --out eval/     every protocol, 3 seeds
    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps/
    python benchmarks/evaluations.py sounds stamps/ --out eval/     real sounds, in ESC-50's layout
    python benchmarks/evaluations.py table eval/                    both tables, in Markdown
    python benchmarks/evaluations.py times demo/data --out eval/    seconds of every protocol's stages, on demo clips

The `demo` weights are compared with random weights of the same architecture. There is one pair of `demo` weights; the
seeds of their rows are those of clips, augmentation and new layers. Finished results are kept and not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.evaluate import Compute, evaluate
from crisscross_zoo.evaluate.datasets import LabelledData, read_dataset
from crisscross_zoo.evaluate.metrics import recall_at, top_k
from crisscross_zoo.evaluate.probe import FileClips, LinearProbe
from crisscross_zoo.evaluate.protocols import make_protocol
from crisscross_zoo.evaluate.retrieval import file_means, nearest
from crisscross_zoo.media.clips import Clip, Sampling, Views, read_clips
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS
from crisscross_zoo.transforms.mel import log_mel
from crisscross_zoo.weights.load import load_encoder

RUNS = {
    ("linear", "video"): {"clips.train": 3, "clips.test": 3, "clips.size": 112},
    ("linear", "audio"): {"clips.train": 3, "clips.test": 3},
    ("fusion", "2s"): {"clips.train": 3, "clips.test": 3, "clips.size": 112, "clips.frames": 8},
    ("finetune", "8-frame"): {
        "clips.train": 2, "clips.test": 3, "clips.size": 112, "finetune.epochs": 8, "finetune.lr": 0.01,
        "finetune.batch_size": 32, "finetune.milestones": (5, 7),
    },
    ("retrieval", "both"): {"clips.test": 3, "clips.size": 112, "clips.frames": 8},
}  # fmt: skip
"""Protocols and setups for any folder, and the settings changed for small encoders and a small machine."""

TRAIN_FILES, TEST_FILES = 40, 20
SOUND_KINDS = {
    "birds": ("animals/birds",),
    "mammals": ("animals/mammals", "animals/marsupials"),
    "things": ("household", "hobbies", "vehicles", "military"),
    "speech": ("symbols/alphabets/english/filled",),
}
LANGUAGES = ("be", "bg", "ca", "da", "el", "es", "fr", "ro", "ru")
SPEECH_FILES = 40


def random_like_demo(modality: str, seed: int) -> Encoder:
    """Return an encoder of the demo's architecture with torch's default initialisation."""
    shipped = load_encoder(modality, "demo")
    with torch.random.fork_rng():
        torch.manual_seed(1000 + seed)
        return type(shipped)(shipped.config).eval()


def weights_of(name: str, seed: int) -> object:
    if name == "demo":
        return "demo"
    return {m: random_like_demo(m, seed) for m in ("video", "audio")}


def numbers(result: dict) -> dict[str, float]:
    if "recall" in result:
        return {f"{d}, R@1": ks["1"]["mean"] for d, ks in result["recall"].items()}
    return {"top-1": result["top1"]["mean"]}


def demo_clips(data: Path, out: Path) -> LabelledData:
    """Return a data set with some of the demo's clips."""
    small = out / "clips"
    for split, most in (("train", TRAIN_FILES), ("test", TEST_FILES)):
        for folder in sorted((data / split).iterdir()):
            (small / split / folder.name).mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.iterdir())[:most]:
                link = small / split / folder.name / file.name
                if not link.exists():
                    link.symlink_to(file.resolve())
    return read_dataset("folder", small)


class Stopwatch:
    """Measure the seconds of each stage of an evaluation: the time until a stage reports is counted for that stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, stage: str, *_: int) -> None:
        self._add(re.sub(r"^fold \d+: ", "", stage))

    def stop(self) -> None:
        self._add("the rest")

    def _add(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def run_times(data: Path, out: Path) -> None:
    """Print a table of each protocol's stages. Features are extracted again for each protocol."""
    found = demo_clips(data, out)
    print("| protocol | stage | seconds |\n| --- | --- | --- |")
    for (protocol, setup), changes in RUNS.items():
        config = make_protocol(protocol, "folder", setup=setup, overrides=changes)
        with tempfile.TemporaryDirectory() as name:
            watch, compute = Stopwatch(), Compute(device="cpu", cache=Path(name) / "cache")
            evaluate(config, found, "demo", out=Path(name) / "out", compute=compute, on_progress=watch)
            watch.stop()
        for stage, seconds in watch.seconds.items():
            print(f"| {protocol}, {setup} | {stage} | {seconds:.1f} |", flush=True)


def run_demo(data: Path, out: Path, seeds: int) -> None:
    found = demo_clips(data, out)
    for seed in range(seeds):
        for name in ("demo", "random"):
            for (protocol, setup), changes in RUNS.items():
                done = out / "demo" / f"{protocol}-{setup}-{name}-{seed}"
                config = make_protocol(protocol, "folder", setup=setup, overrides={**changes, "seed": seed})
                if not (done / "numbers.json").exists():
                    weights = weights_of(name, seed)
                    result = evaluate(
                        config, found, weights, out=done, compute=Compute(device="cpu", cache=out / "cache")
                    )
                    (done / "numbers.json").write_text(json.dumps(numbers(result)))
                print(done.name, (done / "numbers.json").read_text(), flush=True)


def stamps(folder: Path) -> Iterator[tuple[str, str, list[Path]]]:
    """Yield data set, class and files: the classes are kinds of sounds, and spoken languages."""
    (root,) = folder.rglob("tuxpaint/stamps")
    for kind, folders in SOUND_KINDS.items():
        files = [f for p in folders for f in sorted((root / p).rglob("*.ogg")) if "_desc" not in f.name]
        yield "kinds", kind, files[:SPEECH_FILES]
    for language in LANGUAGES:
        files = sorted(root.rglob(f"*_desc_{language}.ogg"))
        yield "languages", language, files[:: max(1, len(files) // SPEECH_FILES)][:SPEECH_FILES]


def lay_out(folder: Path, out: Path) -> list[Path]:
    """Write ESC-50 trees: audio/ and meta/esc50.csv with five folds. Whole files are converted to WAV."""
    import av

    rows: dict[str, list[list[object]]] = {}
    classes: dict[str, list[str]] = {}
    for name, label, files in stamps(folder):
        target = len(classes.setdefault(name, []))
        classes[name].append(label)
        for number, file in enumerate(files):
            stem = f"{number % 5 + 1}-{number}-A-{target}.wav"
            path = out / name / "audio" / stem
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.setdefault(name, []).append([stem, number % 5 + 1, target, label, "True", file.stem, "A"])
            if path.exists():
                continue
            with av.open(str(file)) as source, av.open(str(path), "w") as sink:
                stream = sink.add_stream("pcm_s16le", 16_000, layout="mono")
                resampler = av.AudioResampler("s16", "mono", 16_000)
                for frame in source.decode(audio=0):
                    for piece in resampler.resample(frame):
                        sink.mux(stream.encode(piece))
                for piece in resampler.resample(None):
                    sink.mux(stream.encode(piece))
                sink.mux(stream.encode(None))
    for name, lines in rows.items():
        (out / name / "meta").mkdir(exist_ok=True)
        with (out / name / "meta" / "esc50.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["filename", "fold", "target", "category", "esc10", "src_file", "take"], *lines]
            )
    return [out / name for name in rows]


def mean_spectra(paths: list[str], *, random: bool, clips: int, seed: int) -> FileClips:
    """Return the mean log-mel spectra of the clips that an encoder would get."""
    audio = AudioConfig()
    views = (
        Views(video=VIDEO_AUGMENTS["linear"], audio=AUDIO_AUGMENTS["linear"], seed=seed) if random else None
    )
    sampling = Sampling(video=None, audio=audio, clips=clips, views=views)
    files = []
    for path in paths:
        values = [event.values for event in read_clips(path, sampling) if isinstance(event, Clip)]
        if random:
            spectra = np.stack(values)[:, 0]
        else:
            waves = torch.from_numpy(np.stack(values).astype(np.float32) / INT16_SCALE)
            spectra = log_mel(waves, audio)[:, 0].numpy()
        files.append(spectra.mean(axis=-1))
    return FileClips.of(files)


def run_sounds(folder: Path, out: Path, seeds: int) -> None:
    for root in lay_out(folder, out / "sounds"):
        data = read_dataset("esc50", root)
        for seed in range(seeds):
            for name in ("demo", "random"):
                for protocol in ("linear", "retrieval"):
                    done = out / root.name / f"{protocol}-{name}-{seed}"
                    changes = {"seed": seed, "clips.train": 5, "clips.test": 5}
                    config = make_protocol(protocol, "esc50", overrides=changes)
                    if not (done / "numbers.json").exists():
                        compute = Compute(device="cpu", cache=out / "cache")
                        result = evaluate(config, data, weights_of(name, seed), out=done, compute=compute)
                        (done / "numbers.json").write_text(json.dumps(numbers(result)))
                    print(root.name, done.name, (done / "numbers.json").read_text(), flush=True)
            linear, recall = [], []
            for fold in data.folds.values():
                labels = [np.array([s.label for s in side]) for side in (fold.train, fold.test)]
                paths = [[s.path for s in side] for side in (fold.train, fold.test)]
                test = mean_spectra(paths[1], random=False, clips=5, seed=seed)
                train = mean_spectra(paths[0], random=True, clips=5, seed=seed)
                probe = LinearProbe(seed=seed).fit(train, labels[0], groups=[s.group for s in fold.train])
                linear.append(top_k(probe.decision_function(test), labels[1], 1))
                gallery = mean_spectra(paths[0], random=False, clips=5, seed=seed)
                neighbours, _ = nearest(file_means(gallery), file_means(test), 1)
                recall.append(recall_at(labels[0][neighbours], labels[1], [1])[1])
            for protocol, key, values in (
                ("linear", "top-1", linear),
                ("retrieval", "audio-to-audio, R@1", recall),
            ):
                done = out / root.name / f"{protocol}-mean spectrum-{seed}"
                done.mkdir(parents=True, exist_ok=True)
                (done / "numbers.json").write_text(json.dumps({key: float(np.mean(values))}))
                print(root.name, done.name, np.mean(values), flush=True)


def table(out: Path) -> None:
    for name in ("demo", "kinds", "languages"):
        rows: dict[str, dict[str, list[float]]] = {}
        for file in sorted((out / name).glob("*/numbers.json")):
            what, weights, _ = file.parent.name.rsplit("-", 2)
            for key, value in json.loads(file.read_text()).items():
                rows.setdefault(f"{what}: {key}", {}).setdefault(weights, []).append(100 * value)
        columns = sorted({c for row in rows.values() for c in row})
        print(f"\n| {name}, % | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
        for row, values in rows.items():
            cells = [f"{np.mean(v):.1f} ± {np.std(v):.1f}" if (v := values.get(c)) else "" for c in columns]
            print(f"| {row} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("demo", "sounds", "table", "times"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("eval"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "table":
        table(options.folder)
    elif options.what == "times":
        run_times(options.folder, options.out)
    else:
        (run_demo if options.what == "demo" else run_sounds)(options.folder, options.out, options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
