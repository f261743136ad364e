"""Predict the cost of each of the paper's protocols on the real data sets: clips, core-hours of decoding and network.

    python benchmarks/protocol_plan.py            about 3 minutes
    python benchmarks/protocol_plan.py --dataset esc50

The cost of a clip is measured on a generated file (`clips.py`) with the frame size and length of the data set, as
processor time of one thread. The numbers of files are those of the releases; for Kinetics, whose copies differ, about
those of the paper. Everything else is computed; nothing is measured on the data sets themselves.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from clips import make_clip
from plan import core_seconds
from report import Report, add_json_option, finish
from torch.utils.flop_counter import FlopCounterMode

from crisscross_zoo import load_encoder
from crisscross_zoo.config import Modality, VideoConfig
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.evaluate.datasets import LabelledFile
from crisscross_zoo.evaluate.finetune import ClipDataset
from crisscross_zoo.evaluate.protocols import TABLE, ProtocolConfig
from crisscross_zoo.evaluate.releases import release_of
from crisscross_zoo.media.clips import Sampling, Views, file_events
from crisscross_zoo.media.scan import scan
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS
from crisscross_zoo.workers.samples import SampleKey

SAMPLES = 8
"""Samples that are loaded to measure one."""


@dataclass(frozen=True)
class Data:
    """A data set: frame size, seconds per file, and the numbers of training and test files of one fold."""

    width: int
    height: int
    seconds: float
    train: int
    test: int


def _released(name: str, width: int, height: int, seconds: float) -> Data:
    release = release_of(name)
    assert release is not None
    train, test = release.files[1]
    return Data(width, height, seconds, train, test)


DATA = {
    "ucf101": _released("ucf101", 320, 240, 7.2),
    "hmdb51": _released("hmdb51", 320, 240, 3.2),
    "esc50": _released("esc50", 320, 240, 5.0),
    "dcase": _released("dcase", 320, 240, 30.0),
    "kinetics-sound": Data(340, 256, 10.0, 22_000, 1_500),
    "kinetics400": Data(340, 256, 10.0, 240_000, 20_000),
}
"""Frame sizes of esc50 and dcase are placeholders: only the audio is decoded."""

TRAINING_FACTOR = 3
"""A training step takes three times the arithmetic of a forward pass: forward and backward."""


class Costs:
    """What clips cost one core, in seconds, measured once for each kind."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self._folder, self._rounds = folder, rounds
        self._found: dict[object, float] = {}
        self._flops: dict[object, float] = {}
        self._files: dict[object, Path] = {}

    def file(self, data: Data) -> Path:
        """Return a file like those of the data set."""
        key = (data.width, data.height, data.seconds)
        if key not in self._files:
            self._files[key] = self._folder / f"{len(self._files)}.mp4"
            make_clip(self._files[key], data.width, data.height, data.seconds)
        return self._files[key]

    def decoding(self, data: Data, sampling: Sampling) -> float:
        """Return core-seconds to read one file's clips."""

        def read() -> None:
            for _ in file_events(self.file(data), sampling):
                pass

        return self._once((data.width, data.height, data.seconds, sampling), read)

    def sample(self, data: Data, config: VideoConfig) -> float:
        """Return core-seconds to load one finetuning sample: a clip of an opened file, with augmentation."""
        path = str(self.file(data))
        files = [(LabelledFile(path, 0, path), scan(path))]
        dataset = ClipDataset(files, config, VIDEO_AUGMENTS["finetuning"], seed=0)

        def load() -> None:
            for position in range(SAMPLES):
                dataset[SampleKey(0, position, 0)]

        return self._once((path, config), load) / SAMPLES

    def network(self, encoder: Encoder, *, training: bool) -> float:
        """Return core-seconds of the forward pass of one clip, as one of four."""
        config = encoder.config
        if config.modality == "video":
            clips = torch.zeros(4, 3, config.frames, config.size, config.size)
        else:
            clips = torch.zeros(4, 1, config.n_mels, config.clip_samples // config.hop_length)
        if config not in self._flops:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                encoder(clips)
            self._flops[config] = counter.get_total_flops() / 4
        network = encoder if training else encoder.optimize_for_inference()

        def encode() -> None:
            with torch.inference_mode():
                network(clips)

        return self._once((config, training), encode) / 4

    def flops(self, encoder: Encoder) -> float:
        """Return the arithmetic of one clip's forward pass, after :meth:`network` was called."""
        return self._flops[encoder.config]

    def _once(self, key: object, call: Callable[[], None]) -> float:
        if key not in self._found:
            self._found[key] = core_seconds(call, self._rounds)
        return self._found[key]


def _sampling(config: ProtocolConfig, encoders: dict[str, Encoder], *, train: bool) -> Sampling:
    video, audio = (encoders[m].config if m in encoders else None for m in ("video", "audio"))
    views = None
    if train and (config.svm or config.layer):
        views = Views(
            video=VIDEO_AUGMENTS["linear"] if video and config.clips.augment else None,
            audio=AUDIO_AUGMENTS["linear"] if audio and config.clips.augment else None,
        )
    number = config.clips.train if train else config.clips.test
    if config.retrieval:
        number = config.clips.test
    return Sampling(video=video, audio=audio, clips=number, views=views)


@functools.cache
def _encoder(modality: Modality) -> Encoder:
    return load_encoder(modality, "random:0")


def row(config: ProtocolConfig, costs: Costs) -> tuple[object, ...]:
    """Return a row of the table: one fold of a protocol."""
    data, clips = DATA[config.dataset], config.clips
    encoders: dict[str, Encoder] = {}
    for modality in ("video", "audio") if config.modality == "both" else (config.modality,):
        given = (
            {"frames": clips.frames, "fps": clips.fps, "size": clips.size}
            if modality == "video"
            else {"seconds": clips.seconds}
        )
        encoder = _encoder(modality)
        encoders[modality] = type(encoder)(encoder.config.replace(**given, pooling=clips.pooling)).eval()
    training = config.finetune is not None
    passes = 1
    if config.layer:
        passes = config.layer.epochs if clips.epochs == 0 else clips.epochs
    if config.finetune:
        passes = config.finetune.epochs
    of_train, of_test = (_sampling(config, encoders, train=train) for train in (True, False))
    seen_train, seen_test = data.train * passes * (of_train.clips or 0), data.test * (of_test.clips or 0)
    if training:
        decoding = seen_train * costs.sample(data, encoders["video"].config)
    else:
        decoding = data.train * passes * costs.decoding(data, of_train)
    decoding += data.test * costs.decoding(data, of_test)
    weight = TRAINING_FACTOR if training else 1
    network = flops = 0.0
    for encoder in encoders.values():
        network += weight * seen_train * costs.network(encoder, training=training)
        network += seen_test * costs.network(encoder, training=False)
        flops += (weight * seen_train + seen_test) * costs.flops(encoder)
    return (
        f"{config.protocol} {config.dataset}, {config.setup}",
        f"{seen_train:,}",
        f"{seen_test:,}",
        f"{decoding / 3600:.1f}",
        f"{network / 3600:.1f}",
        f"{(decoding + network) / 2 / 3600:.1f}",
        f"{flops / 1e15:.1f}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=[*DATA], help="default: all")
    parser.add_argument("--rounds", type=int, default=1)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(
        "One fold of each protocol",
        (
            "protocol",
            "training clips",
            "test clips",
            "decoding and augmentation, core-h",
            "network, core-h",
            "hours on two cores",
            "network, PFLOP",
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(Path(folder), options.rounds)
        for config in TABLE:
            if config.dataset in ([options.dataset] if options.dataset else DATA):
                report.add(*row(config, costs))
                print(report.rows[-1], file=sys.stderr, flush=True)
    report.notes.append(
        "Training clips count once for each epoch that draws them again. Finetuning counts three forward passes per"
        " training clip. Hours on two cores: decoding and network together, divided by two. Preprocessing of uniform"
        " clips (normalisation, log-mel) and the fit of the classifier are not included."
    )
    finish([report], options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
