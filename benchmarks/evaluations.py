"""Do the protocols distinguish pretrained weights from random ones, and how long does each stage take? On the demo's
clips, and on real recordings and images.

    crisscross-pretrain demo --out demo/                            makes demo/data and demo/seed0
    python benchmarks/evaluations.py demo demo/data --weights demo/seed0 --out eval/     every protocol, 3 seeds
    for package in tuxpaint-stamps-default widelands-data wesnoth-1.16-data sonic-pi-samples openclipart-png; do
        apt-get download $package && dpkg -x ${package}_*.deb packages/; done
    python benchmarks/evaluations.py real packages/ --out eval/     real recordings and images; --set stamps: some
    python benchmarks/evaluations.py table eval/                    all tables, in Markdown
    python benchmarks/evaluations.py times demo/data --out eval/    seconds of every protocol's stages, on demo clips

Pretrained weights are compared with random weights of the same architecture, and on real recordings also with the mean
and deviation of the spectrum, or the colour histogram. There is one pair of pretrained weights; the seeds of their rows
are those of clips, augmentation and new layers. Finished results are kept and not repeated: use another `--out` for
other weights.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from torchvision.io import ImageReadMode, decode_image

from crisscross_zoo.encoders import Encoder
from crisscross_zoo.evaluate import Compute, evaluate
from crisscross_zoo.evaluate.datasets import LabelledData, read_dataset
from crisscross_zoo.evaluate.metrics import recall_at, top_k
from crisscross_zoo.evaluate.probe import FileClips, LinearProbe
from crisscross_zoo.evaluate.protocols import make_protocol
from crisscross_zoo.evaluate.retrieval import file_means, nearest
from crisscross_zoo.media.clips import Clip, Sampling, read_clips
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.media.encode import write_clip
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
CLIPS = 5
MOST_FILES = 40
"""Maximum number of files per class; they are spread evenly over the class's files."""


@dataclass(frozen=True)
class RealSet:
    """Real recordings or images in a Debian package, which is unpacked with ``dpkg -x``.

    Attributes:
        modality: Audio, or video: images that a camera moves over.
        root: The files' folder.
        classes: Patterns of each class's files, below ``root``.
    """

    modality: str
    root: str
    classes: Mapping[str, tuple[str, ...]]

    def files(self, folder: Path) -> Iterator[tuple[str, list[Path]]]:
        """Yield each class's name and files."""
        roots = [p for p in folder.rglob(self.root) if p.is_dir()]
        if len(roots) != 1:
            sys.exit(f"{folder}: {len(roots)} folders {self.root}; unpack the package there, or pass --set")
        (root,) = roots
        for name, patterns in self.classes.items():
            found = [f for p in patterns for f in sorted(root.glob(p)) if SPOKEN in p or SPOKEN not in f.name]
            picked = np.linspace(0, len(found) - 1, min(len(found), MOST_FILES)).round().astype(int)
            yield name, [found[n] for n in picked]


SPOKEN = "_desc"
"""In the names of Tux Paint's files in which a stamp's name is read aloud."""

_STAMPS = "tuxpaint/stamps"
REAL_SETS = {
    "stamps, kinds of sounds": RealSet("audio", _STAMPS, {
        "birds": ("animals/birds/**/*.ogg",),
        "mammals": ("animals/mammals/**/*.ogg", "animals/marsupials/**/*.ogg"),
        "things": tuple(f"{kind}/**/*.ogg" for kind in ("household", "hobbies", "vehicles", "military")),
        "speech": ("symbols/alphabets/english/filled/**/*.ogg",),
    }),
    "stamps, languages": RealSet("audio", _STAMPS, {
        name: (f"**/*_desc_{name}.ogg",) for name in ("be", "bg", "ca", "da", "el", "es", "fr", "ro", "ru")
    }),
    "stamps, images": RealSet("video", _STAMPS, {
        "birds": ("animals/birds/**/*.png",),
        "mammals": ("animals/mammals/**/*.png", "animals/marsupials/**/*.png"),
        "insects": ("animals/insects/**/*.png",),
        "food": ("food/**/*.png",),
        "plants": ("plants/**/*.png",),
        "vehicles": ("vehicles/**/*.png", "military/vehicles/**/*.png"),
        "buildings": ("town/houses/**/*.png", "town/monuments/**/*.png"),
        "things": ("household/**/*.png", "hobbies/**/*.png", "clothes/**/*.png"),
    }),
    "Widelands, sounds": RealSet("audio", "data/sound", {
        "animals": ("animals/*.ogg", "farm/*.ogg"),
        "music": ("../music/*.ogg",),
        "work": tuple(f"{what}/*.ogg" for what in ("*cutting", "smiths", "saw*", "metal", "hammering", "mill")),
    }),
    "Wesnoth, sounds": RealSet("audio", "core/sounds", {
        "voices": tuple(f"{who}*.*" for who in ("human", "orc", "dwarf", "ogre", "troll", "goblin", "elf")),
        "animals": tuple(f"{who}*.*" for who in ("wolf", "bat", "horse", "gryphon", "birds", "drake", "tusker")),
        "magic": ("magic*.*",),
        "weapons": tuple(
            f"{what}*.*" for what in ("bow", "sword", "throw", "sling", "spear", "dagger", "axe", "mace", "staff")
        ),
    }),
    "Sonic Pi, samples": RealSet("audio", "sonic-pi/samples", {
        "drums": ("drum_*.flac", "bd_*.flac", "sn_*.flac"),
        "tabla": ("tabla_*.flac",),
        "electric": ("elec_*.flac",),
        "loops": ("loop_*.flac",),
        "tones": ("ambi_*.flac", "bass_*.flac", "guit_*.flac"),
    }),
    "OpenClipart, images": RealSet("video", "openclipart/png", {
        name: (f"{name}/**/*.png",)
        for name in ("animals", "buildings", "electronics", "food", "people", "plants", "tools", "transportation")
    }),
}  # fmt: skip
"""Tux Paint's sets are for choosing settings; the others are to be evaluated once, at the end."""


def encoder_of(weights: str, modality: str) -> Encoder:
    """Return the encoder of `demo`, or of a run of pretraining."""
    return load_encoder(modality, weights if weights == "demo" else Path(weights) / modality)


def weights_of(name: str, weights: str, seed: int) -> dict[str, Encoder]:
    """Return the encoders, or ("random") others of their architecture with torch's default initialisation."""
    encoders = {m: encoder_of(weights, m) for m in ("video", "audio")}
    if name != "random":
        return encoders
    with torch.random.fork_rng():
        torch.manual_seed(1000 + seed)
        return {m: type(encoder)(encoder.config).eval() for m, encoder in encoders.items()}


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


def run_demo(data: Path, out: Path, seeds: int, weights: str) -> None:
    found = demo_clips(data, out)
    for seed in range(seeds):
        for name in ("pretrained", "random"):
            for (protocol, setup), changes in RUNS.items():
                done = out / "demo" / f"{protocol}-{setup}-{name}-{seed}"
                config = make_protocol(protocol, "folder", setup=setup, overrides={**changes, "seed": seed})
                if not (done / "numbers.json").exists():
                    compute = Compute(device="cpu", cache=out / "cache")
                    result = evaluate(
                        config, found, weights_of(name, weights, seed), out=done, compute=compute
                    )
                    (done / "numbers.json").write_text(json.dumps(numbers(result)))
                print(done.name, (done / "numbers.json").read_text(), flush=True)


def lay_out(real: RealSet, folder: Path, out: Path) -> LabelledData:
    """Write ``out/CLASS/NAME``, sounds as WAV and images as clips, and return the data set with five folds."""
    for label, files in real.files(folder):
        for number, file in enumerate(files):
            path = out / label / f"{number:03d}-{file.stem}{'.wav' if real.modality == 'audio' else '.mp4'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                continue
            if real.modality == "audio":
                soundfile.write(path, librosa.load(file, sr=16_000)[0], 16_000)
            else:
                frames = moved(file, np.random.default_rng(zlib.crc32(path.name.encode())))
                silence = np.zeros(len(frames) * 1000, np.float32)
                write_clip(path, frames, silence, fps=16, sample_rate=16_000)
    return read_dataset("folder", out)


def moved(file: Path, rng: np.random.Generator) -> np.ndarray:
    """Return frames (40, 96, 128, 3) of an image in front of a plain colour, over which a camera moves for 2.5 s."""
    height, width, count = 96, 128, 40
    rgba = decode_image(str(file), ImageReadMode.RGB_ALPHA).float() / 255
    behind = torch.from_numpy(rng.random(3)).float()[:, None, None]
    image = torch.cat([rgba[:3] * rgba[3:] + behind * (1 - rgba[3:]), torch.ones_like(rgba[:1])])[None]
    scale = 0.9 * min(height / rgba.shape[1], width / rgba.shape[2])
    if scale < 0.5:
        image = torch.nn.functional.interpolate(image, scale_factor=2 * scale, mode="area")
    t = torch.linspace(-1, 1, count)
    zoom, turn = 1 + rng.uniform(-0.25, 0.25) * t, rng.uniform(-0.15, 0.15) * t
    pan = torch.from_numpy(
        rng.uniform(-0.15, 0.15, (2, 1)) * t.numpy() + 0.01 * rng.standard_normal((2, count))
    )
    x, y = width / (rgba.shape[2] * scale) / zoom, height / (rgba.shape[1] * scale) / zoom
    aspect = height / width
    rows = [
        torch.stack([x * turn.cos(), -x * aspect * turn.sin(), pan[0]], -1),
        torch.stack([y / aspect * turn.sin(), y * turn.cos(), pan[1]], -1),
    ]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1).float(), [count, 4, height, width], False)
    seen = torch.nn.functional.grid_sample(image.expand(count, -1, -1, -1), grid, align_corners=False)
    frames = seen[:, :3] + behind * (1 - seen[:, 3:])
    return (255 * frames).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def raw_features(paths: list[str], modality: str) -> FileClips:
    """Return the mean and deviation of the log-mel spectra, or the colour histograms, of the clips of an evaluation."""
    config = encoder_of("demo", modality).config
    sampling = Sampling(**{"video": None, "audio": None, modality: config}, clips=CLIPS)
    files = []
    for path in paths:
        clips = np.stack([event.values for event in read_clips(path, sampling) if isinstance(event, Clip)])
        if modality == "audio":
            spectra = log_mel(torch.from_numpy(clips.astype(np.float32) / INT16_SCALE), config)[:, 0].numpy()
            files.append(np.concatenate([spectra.mean(axis=-1), spectra.std(axis=-1)], axis=-1))
        else:
            bins = (clips.reshape(len(clips), -1, 3) // 64) @ np.array([16, 4, 1])
            counts = np.stack([np.bincount(row, minlength=64) for row in bins])
            files.append(np.sqrt(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32))
    return FileClips.of(files)


def raw_accuracies(data: LabelledData, modality: str, seed: int) -> dict[str, float]:
    """Return the means over the folds of a linear SVM's accuracy and of R@1, without a network."""
    linear, recall = [], []
    for fold in data.folds.values():
        labels, truth = (np.array([s.label for s in side]) for side in (fold.train, fold.test))
        train, test = (raw_features([s.path for s in side], modality) for side in (fold.train, fold.test))
        probe = LinearProbe(seed=seed).fit(train, labels, groups=[s.group for s in fold.train])
        linear.append(top_k(probe.decision_function(test), truth, 1))
        neighbours, _ = nearest(file_means(train), file_means(test), 1)
        recall.append(recall_at(labels[neighbours], truth, [1])[1])
    return {"linear": float(np.mean(linear)), "R@1": float(np.mean(recall))}


def run_real(
    folder: Path, out: Path, seeds: int, weights: str, wanted: str, *, laid_out: Path | None = None
) -> None:
    """Evaluate weights, and with ``seeds`` the baselines, on the sets whose names begin with ``wanted``."""
    for name, real in REAL_SETS.items():
        if not name.startswith(wanted):
            continue
        data = lay_out(real, folder, (laid_out or out / "real") / name)
        m = real.modality
        baselines = [*(("random", s) for s in range(seeds)), ("raw", 0)] if seeds else []
        for kind, seed in [("pretrained", 0), *baselines]:
            done = out / name / f"{m}-{kind}-{seed}"
            if not (done / "numbers.json").exists():
                if kind == "raw":
                    found = raw_accuracies(data, m, seed)
                    done.mkdir(parents=True, exist_ok=True)
                else:
                    changes = {"seed": seed, "clips.train": CLIPS, "clips.test": CLIPS}
                    changes |= {"clips.size": 112} if m == "video" else {}
                    encoders = weights_of(kind, weights, seed)
                    compute, found = Compute(device="cpu", cache=out / "cache"), {}
                    for protocol, key in (("linear", "linear"), ("retrieval", "R@1")):
                        config = make_protocol(protocol, "folder", setup=m, overrides=changes)
                        result = evaluate(config, data, encoders, out=done / protocol, compute=compute)
                        found[key] = next(iter(numbers(result).values()))
                (done / "numbers.json").write_text(json.dumps(found))
            print(name, done.name, (done / "numbers.json").read_text(), flush=True)


def table(out: Path) -> None:
    for name in ("demo", *REAL_SETS):
        rows: dict[str, dict[str, list[float]]] = {}
        for file in sorted((out / name).glob("*/numbers.json")):
            what, weights, _ = file.parent.name.rsplit("-", 2)
            for key, value in json.loads(file.read_text()).items():
                rows.setdefault(f"{what}: {key}", {}).setdefault(weights, []).append(100 * value)
        if not rows:
            continue
        columns = [c for c in ("pretrained", "random", "raw") if any(c in row for row in rows.values())]
        print(f"\n| {name}, % | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
        for row, values in rows.items():
            cells = [
                f"{np.mean(v):.1f}" + (f" ± {np.std(v):.1f}" if len(v) > 1 else "")
                if (v := values.get(c))
                else ""
                for c in columns
            ]
            print(f"| {row} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("demo", "real", "table", "times"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("eval"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", default="demo", help="demo, or the folder of a run of pretraining")
    parser.add_argument("--set", default="", help="evaluate only the real sets whose names begin with this")
    options = parser.parse_args()
    if options.what == "table":
        table(options.folder)
    elif options.what == "times":
        run_times(options.folder, options.out)
    elif options.what == "demo":
        run_demo(options.folder, options.out, options.seeds, options.weights)
    else:
        run_real(options.folder, options.out, options.seeds, options.weights, options.set)
    return 0


if __name__ == "__main__":
    sys.exit(main())
