"""Quick scores of small encoders on recordings, images and shapes, to choose settings of the `demo` weights by.

    for package in tuxpaint-stamps-default hydrogen-drumkits hedgewars-data; do
        apt-get download $package && dpkg -x ${package}_*.deb packages/; done
    python benchmarks/quick_scores.py packages/ raw demo random:0 random:1 run/ run/checkpoints/step_000000400.pt

Takes a minute for each pair of encoders: a run's folder, a checkpoint of the preset `world`, `demo`, `random:SEED` (the
shapes of `world`), `random:SEED:RUN` (those of a run), `raw` (mean and deviation of the spectrum; colour histograms),
or `gradients` (video: histograms of oriented gradients, averaged over place). Linear scores are of logistic regression
on standardised features, with the best of three penalties; R@1 is by cosine of standardised features. In %:

- drums: five kinds of samples of the drum kits of Hydrogen, each kit tested apart from those trained on;
- voices: who speaks in Hedgewars, phrases tested apart; and the phrase, by the nearest neighbour among other speakers;
- kinds: Tux Paint's sounds of birds, mammals, things and speech; images: Tux Paint's images, moved by a camera;
- cameras: each of Tux Paint's images among all, by R@1, as another camera moves over it, before another colour;
- shapes: eight kinds of generated clips, each with its own outline and motion, those of `crisscross-pretrain demo`.

Inputs are kept in `--cache`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from evaluations import REAL_SETS, moved
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from crisscross_zoo.checkpoints.training import load_checkpoint
from crisscross_zoo.config import AudioConfig, VideoConfig
from crisscross_zoo.demo.data import make_demo_data
from crisscross_zoo.encoders import Encoder, build_encoder
from crisscross_zoo.errors import CrissCrossError
from crisscross_zoo.media.clips import Clip, Sampling, read_clips
from crisscross_zoo.media.decode import INT16_SCALE
from crisscross_zoo.pretrain.presets import PRESETS, PretrainConfig
from crisscross_zoo.transforms.mel import log_mel
from crisscross_zoo.weights.load import load_encoder

Labelled = Iterator[tuple[Path, str, str]]
"""Files with their class, and with the group that is tested as a whole ("": none)."""

CLIPS = 5
CAMERAS = ("0", "1")
SHAPES = 16  # clips of each kind
LEAST_SPEAKERS = 6
PENALTIES = (1e-4, 1e-3, 1e-2)
DRUMS = {
    "kick": "kick|bassdrum|^bd|bass ?drum|[ _]bd",
    "snare": "snare|^sd|[ _]sn",
    "hi-hat": "hat|hh|^[co]h$",
    "cymbal": "crash|splash|china|ride|cymb",
    "tom": "tom",
}
"""Patterns of the names of each kind's files; the first that fits counts."""


def drums(packages: Path) -> Labelled:
    for kit in sorted(packages.rglob("hydrogen/data/drumkits/*/")):
        for file in sorted(f for f in kit.rglob("*") if f.suffix.lower() in (".flac", ".wav", ".ogg")):
            for kind, pattern in DRUMS.items():
                if re.search(pattern, file.stem.lower()):
                    yield file, kind, kit.name
                    break


def voices(packages: Path) -> Labelled:
    for speaker in sorted(packages.rglob("hedgewars/Data/Sounds/voices/*/")):
        if not speaker.is_symlink() and "_" not in speaker.name:  # others are translations
            for file in sorted(f for f in speaker.glob("*.ogg") if not f.is_symlink()):
                yield file, speaker.name, file.stem.rstrip("0123456789")


def stamps(name: str) -> Callable[[Path], Labelled]:
    def files(packages: Path) -> Labelled:
        for kind, found in REAL_SETS[name].files(packages):
            yield from ((file, kind, "") for file in found)

    return files


def cameras(packages: Path) -> Labelled:
    for file, _, _ in stamps("stamps, images")(packages):
        for camera in CAMERAS:
            yield file, file.as_posix(), camera


def shapes(_: Path) -> Labelled:
    with tempfile.TemporaryDirectory() as folder:
        make_demo_data(folder, train_clips=SHAPES, test_clips=0)
        for file in sorted(Path(folder).glob("train/*/*")):
            yield file, file.parent.name, ""


def values(file: Path, sampling: Sampling) -> torch.Tensor:
    """Return what is decoded of a file's clips."""
    clips = [event.values for event in read_clips(file, sampling) if isinstance(event, Clip)]
    return torch.from_numpy(np.stack(clips))


def waves(file: Path, _: str) -> torch.Tensor:
    """Return the audio of a file's clips, float32 (clips, 1, 32000)."""
    return values(file, Sampling(video=None, audio=AudioConfig(), clips=CLIPS))[:, None].float() / INT16_SCALE


def frames(file: Path, camera: str) -> torch.Tensor:
    """Return two clips of an image that a camera moves over, uint8 (2, 8, 96, 128, 3)."""
    seen = moved(file, np.random.default_rng([sum(file.name.encode()), *map(int, camera)]))
    return torch.from_numpy(np.stack([seen[first : first + 16 : 2] for first in (0, 24)]))


def clips(file: Path, _: str) -> torch.Tensor:
    """Return the clips of a video, uint8 (clips, 8, 112, 112, 3)."""
    return values(file, Sampling(video=VideoConfig(size=112), audio=None, clips=CLIPS))


SETS: dict[str, tuple[str, Callable[[Path], Labelled], Callable[[Path, str], torch.Tensor]]] = {
    "drums": ("audio", drums, waves),
    "voices": ("audio", voices, waves),
    "kinds": ("audio", stamps("stamps, kinds of sounds"), waves),
    "images": ("video", stamps("stamps, images"), frames),
    "cameras": ("video", cameras, frames),
    "shapes": ("video", shapes, clips),
}
"""The modality of each set, its files, and what is read from a file of a group."""


class Gradients(torch.nn.Module):
    """Histograms of oriented gradients (Dalal and Triggs 2005) of the middle frame, averaged over place."""

    cells, bins = (8, 16, 24), 9

    def preprocess(self, clips: torch.Tensor) -> torch.Tensor:
        return clips[:, clips.shape[1] // 2].float().mean(-1) / 255

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return means and deviations of the blocks of 2 x 2 cells, (N, 216), of grey images (N, H, W)."""
        dy, dx = (torch.gradient(images, dim=d)[0] for d in (1, 2))
        size, turn = torch.hypot(dx, dy), torch.atan2(dy, dx) % torch.pi
        kind = (turn / torch.pi * self.bins).long().clamp(max=self.bins - 1)
        each = (torch.nn.functional.one_hot(kind, self.bins) * size[..., None]).permute(0, 3, 1, 2)
        found = []
        for cell in self.cells:
            cells = torch.nn.functional.avg_pool2d(each, cell)
            blocks = torch.nn.functional.unfold(cells, 2)
            for largest in (0.2, torch.inf):  # L2-Hys: normalised, cut off, normalised
                blocks = torch.nn.functional.normalize(blocks, dim=1, eps=1e-5).clamp(max=largest)
            found += [blocks.mean(2), blocks.std(2)]
        return torch.cat(found, 1)


def read(name: str, packages: Path, cache: Path) -> tuple[list[torch.Tensor], np.ndarray, np.ndarray]:
    """Return the inputs, the labels and the groups of a set."""
    kept = cache / f"{name}.pt"
    if not kept.exists():
        _, files, inputs = SETS[name]
        found = []
        for file, label, group in files(packages):
            try:
                found.append((inputs(file, group), label, group))
            except (CrissCrossError, ValueError) as error:
                print(f"{file}: {error}", file=sys.stderr)
        if not found:
            sys.exit(f"{packages}: no files of the set {name}; unpack its package there")
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(found, kept)
    held, labels, groups = zip(*torch.load(kept, weights_only=True), strict=True)
    return list(held), np.array(labels), np.array(groups)


def encoder_of(
    name: str, modality: str, preset: PretrainConfig = PRESETS["world"]
) -> Encoder | Gradients | None:
    """Return an encoder by its name on the command line; None for `raw`."""
    config: AudioConfig | VideoConfig = getattr(preset, modality)
    if name == "raw":
        return None
    if name == "gradients":
        return Gradients() if modality == "video" else sys.exit("gradients: of video only; pass --sets")
    if name.startswith("random:"):
        _, seed, *run = name.split(":", 2)
        config = load_encoder(modality, Path(run[0]) / modality).config if run else config  # type: ignore[call-overload]
        torch.manual_seed(1000 + int(seed))
        return build_encoder(config).eval()
    if not name.endswith(".pt"):
        return load_encoder(modality, name if name == "demo" else Path(name) / modality)  # type: ignore[arg-type]
    prefix = f"{modality}_backbone."
    weights = load_checkpoint(Path(name))["model"]
    encoder = build_encoder(config)
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return encoder.eval()


def features(encoder: Encoder | Gradients | None, inputs: list[torch.Tensor]) -> np.ndarray:
    """Return a row for each file: the mean over its clips."""
    if encoder is None and inputs[0].ndim == 5:
        bins = [(x.reshape(-1, 3) // 64).long() @ torch.tensor([16, 4, 1]) for x in inputs]
        return np.stack([(torch.bincount(b, minlength=64) / len(b)).sqrt().numpy() for b in bins])
    if encoder is None:
        spectra = [log_mel(x[:, 0], AudioConfig()) for x in inputs]
        return np.stack([torch.cat([x.mean((0, 1, 3)), x.std((0, 1, 3))]).numpy() for x in spectra])
    rate = {} if inputs[0].ndim == 5 else {"sample_rate": AudioConfig().sample_rate}
    with torch.inference_mode():
        rows = [encoder(encoder.preprocess(some, **rate)) for some in torch.cat(inputs).split(32)]
    return np.stack([r.mean(0).numpy() for r in torch.cat(rows).split([len(x) for x in inputs])])


def linear(x: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Return the accuracy of logistic regression, cross-validated over the groups if there are any."""
    grouped = len(set(groups)) > 1
    folds = GroupKFold(8) if grouped else StratifiedKFold(5, shuffle=True, random_state=0)
    machines = (
        make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=200)) for penalty in PENALTIES
    )
    scores = [
        cross_val_score(m, x, labels, cv=folds, groups=groups if grouped else None).mean() for m in machines
    ]
    return 100 * float(max(scores))


def recall(x: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Return R@1 among the files of other groups."""
    z = StandardScaler().fit_transform(x)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similar = z @ z.T
    similar[(groups[:, None] == groups) & (groups != "")[:, None]] = -np.inf
    np.fill_diagonal(similar, -np.inf)
    return 100 * float((labels[similar.argmax(1)] == labels).mean())


Sets = dict[str, tuple[list[torch.Tensor], np.ndarray, np.ndarray]]


def score(encoder: Callable[[str], Encoder | Gradients | None], sets: Sets) -> dict[str, float]:
    """Return the scores on the sets, in %; ``encoder`` gives that of a modality, or None for no network."""
    found = {}
    for key, (inputs, labels, groups) in sets.items():
        x = features(encoder(SETS[key][0]), inputs)
        if key != "cameras":  # each image is a class of its own
            found[f"{key}, linear"] = linear(x, labels, groups)
        found[f"{key}, R@1"] = recall(x, labels, groups)
        if key == "voices":
            often = np.array([len(set(labels[groups == phrase])) >= LEAST_SPEAKERS for phrase in groups])
            found["phrases, R@1"] = recall(x[often], groups[often], labels[often])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", type=Path, help="where the packages are unpacked")
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--cache", type=Path, default=Path("quick_scores"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # logistic regression stops after max_iter
    sets = {name: read(name, options.packages, options.cache) for name in options.sets}
    for number, name in enumerate(options.encoders):
        found = score(partial(encoder_of, name), sets)
        if number == 0:
            print(f"| encoders | {' | '.join(found)} |\n|{' --- |' * (1 + len(found))}")
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in found.values())} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
