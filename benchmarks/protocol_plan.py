"""What each of the paper's protocols costs on the real data set: clips, core-hours of decoding and of the network.

    python benchmarks/protocol_plan.py            about 5 minutes

What a clip costs is measured here, on a file of the data set's frame size and length made by ``clips.py``, as processor
time with one thread; how many files there are is the release's number, or of Kinetics, whose copies differ, about that
of the paper. The rest is arithmetic. Of the hours on two cores, nothing was measured on the data sets themselves.
"""

from __future__ import annotations

import argparse
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
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.evaluate.protocols import TABLE, ProtocolConfig
from crisscross_zoo.evaluate.releases import release_of
from crisscross_zoo.media.clips import Sampling, Views, file_events
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS


@dataclass(frozen=True)
class Data:
    """A data set: frame size, seconds a file, and files of one fold to train on and to test."""

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
    "dcase": Data(320, 240, 30.0, 100, 100),
    "kinetics-sound": Data(340, 256, 10.0, 22_000, 1_500),
    "kinetics400": Data(340, 256, 10.0, 240_000, 20_000),
}
"""Audio data sets have no frames: theirs are not decoded."""

EPOCHS_OF_TRAINING = 3
"""A step costs forward and backward: three times the arithmetic of the forward pass."""


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

    def network(self, encoder: Encoder) -> float:
        """Return core-seconds to encode one clip, as one of four."""
        config = encoder.config
        if config.modality == "video":
            clips = torch.zeros(4, 3, config.frames, config.size, config.size)
        else:
            clips = torch.zeros(4, 1, config.n_mels, config.clip_samples // config.hop_length)
        if config not in self._flops:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                encoder(clips)
            self._flops[config] = counter.get_total_flops() / 4

        def encode() -> None:
            with torch.inference_mode():
                encoder(clips)

        return self._once(config, encode) / 4

    def flops(self, encoder: Encoder) -> float:
        """Return the arithmetic of one clip, after :meth:`network` has seen it."""
        return self._flops[encoder.config]

    def _once(self, key: object, call: Callable[[], None]) -> float:
        if key not in self._found:
            self._found[key] = core_seconds(call, self._rounds)
        return self._found[key]


def _sampling(config: ProtocolConfig, encoders: dict[str, Encoder], *, train: bool) -> Sampling:
    video, audio = (encoders[m].config if m in encoders else None for m in ("video", "audio"))
    views = None
    if train and (config.svm or config.layer or config.finetune):
        views = Views(
            video=VIDEO_AUGMENTS["linear"] if video and config.clips.augment else None,
            audio=AUDIO_AUGMENTS["linear"] if audio and config.clips.augment else None,
        )
    number = config.clips.train if train else config.clips.test
    if config.retrieval:
        number = config.clips.test
    return Sampling(video=video, audio=audio, clips=number, views=views)


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
        encoder = load_encoder(modality, "random:0")
        encoders[modality] = type(encoder)(encoder.config.replace(**given, pooling=clips.pooling)).eval()
    passes = 1
    if config.layer:
        passes = config.layer.epochs if clips.epochs == 0 else clips.epochs
    if config.finetune:
        passes = config.finetune.epochs
    of_train, of_test = (_sampling(config, encoders, train=train) for train in (True, False))
    seen = {
        "train": data.train * passes * (of_train.clips or 0),
        "test": data.test * (of_test.clips or 0),
    }
    decoding = data.train * passes * costs.decoding(data, of_train) + data.test * costs.decoding(
        data, of_test
    )
    weight = EPOCHS_OF_TRAINING if config.finetune else 1
    each = sum(costs.network(encoder) for encoder in encoders.values())
    network = (weight * seen["train"] + seen["test"]) * each
    flops = (weight * seen["train"] + seen["test"]) * sum(costs.flops(e) for e in encoders.values())
    return (
        f"{config.protocol} {config.dataset}, {config.setup}",
        f"{seen['train']:,}",
        f"{seen['test']:,}",
        f"{decoding / 3600:.1f}",
        f"{network / 3600:.1f}",
        f"{(decoding + network) / 2 / 3600:.1f}",
        f"{flops / 1e15:.1f}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
            "decoding, core-h",
            "network, core-h",
            "hours on two cores",
            "network, PFLOP",
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(Path(folder), options.rounds)
        for config in TABLE:
            if config.dataset in DATA:
                report.add(*row(config, costs))
                print(report.rows[-1], flush=True)
    report.notes.append(
        "Finetuning counts three times the forward pass. Hours on two cores: both stages, perfectly shared."
    )
    finish([report], options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
