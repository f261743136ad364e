"""Compare this package with every golden value: print a Markdown table, exit with 1 if a bound is broken.

python benchmarks/parity.py

Differences are relative to the largest golden value, unless the row names a unit. tests/golden/README.md describes
the origin of the golden values.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
sys.path[:0] = [str(ROOT), str(GOLDEN)]

from filler import fill_module, ramps, seeded_normal, tones  # noqa: E402

from crisscross_zoo import CrissCross  # noqa: E402
from crisscross_zoo.config import VideoConfig  # noqa: E402
from crisscross_zoo.encoders import AudioEncoder, Encoder, VideoEncoder  # noqa: E402
from crisscross_zoo.encoders.pooling import pool  # noqa: E402
from crisscross_zoo.transforms.mel import mel_filters  # noqa: E402

NETWORK_BOUND = 1e-4
LOGMEL_BOUND = 1e-4
GREY_BOUND = 2.0

VIDEO_INPUT = (101, (2, 3, 8, 112, 112))
AUDIO_INPUTS = {"in80x200": (201, (2, 1, 80, 200)), "in80x500": (203, (1, 1, 80, 500))}

POOLED = {  # our name: the golden name, by modality
    "video": {
        "linear": "maxpool144_stride1",
        "linear-strided": "maxpool144_defaultstride",
        "fusion": "adaptivemax122",
        "max": "adaptivemax111",
    },
    "audio": {"linear": "maxpool13s12", "fusion": "adaptivemax14"},
}


class Row(NamedTuple):
    """One line of the table."""

    golden: str
    what: str
    difference: float
    bound: float


def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a golden file by key."""
    with np.load(GOLDEN / f"{name}.npz") as opened:
        return dict(opened)


def relative(ours: np.ndarray | torch.Tensor, golden: np.ndarray, largest: float | None = None) -> float:
    """Return the largest difference, divided by the largest value."""
    largest = float(np.abs(golden).max()) if largest is None else largest
    return float(np.abs(np.asarray(ours, dtype=np.float64) - golden).max()) / largest


def names() -> Iterator[Row]:
    """Compare names, order, shapes, dtypes and parameter counts."""
    released = json.loads((GOLDEN / "state_dicts.json").read_text())
    for key, golden in released.items():
        if key == "crisscross":
            module: torch.nn.Module = CrissCross()
        else:
            module = (VideoEncoder if key.startswith("video") else AudioEncoder)(depth=int(key[-2:]))
        entries = [[name, list(v.shape), str(v.dtype)[6:]] for name, v in module.state_dict().items()]
        wrong = sum(ours != theirs for ours, theirs in zip(entries, golden["entries"], strict=False))
        wrong += abs(len(entries) - len(golden["entries"]))
        yield Row("state_dicts.json", f"{key}: entries that differ, of {len(golden['entries'])}", wrong, 0)
        parameters = sum(p.numel() for p in module.parameters())
        difference = abs(parameters - golden["trainable_parameters"])
        yield Row("state_dicts.json", f"{key}: parameters, of {parameters:,}", difference, 0)


def stages(file: str, key: str, encoder: Encoder, clips: tuple[int, tuple[int, ...]]) -> Iterator[Row]:
    """Compare the outputs of a network for a golden input, from the stem to the pooled vector."""
    golden, modality = arrays(file), encoder.config.modality
    with torch.no_grad():
        maps = encoder.forward_intermediates(torch.from_numpy(seeded_normal(*clips)))
    for stage, ours in maps.items():
        values, prefix = ours.double().numpy(), f"{key}.{stage}"
        if f"{prefix}.first32" not in golden:
            continue
        difference = relative(values.ravel()[:32], golden[f"{prefix}.first32"], np.abs(values).max())
        yield Row(f"{file}.npz", f"{prefix}: first 32 values", difference, NETWORK_BOUND)
        mean_std = relative(np.array([values.mean(), values.std()]), golden[f"{prefix}.mean_std"])
        yield Row(f"{file}.npz", f"{prefix}: mean and deviation", mean_std, NETWORK_BOUND)
        if prefix in golden:
            yield Row(f"{file}.npz", f"{prefix}: all", relative(values, golden[prefix]), NETWORK_BOUND)
    last = maps["conv5x"]
    average = golden[f"{key}.pool"].reshape(len(last), -1)
    yield Row(f"{file}.npz", f"{key}.pool: avg", relative(pool(last, "avg"), average), NETWORK_BOUND)
    pooled, name = arrays("pooled_features"), key.removeprefix("d18.")
    for pooling, theirs in POOLED[modality].items():
        full = f"{modality}.{name}.{theirs}.flat"
        if full in pooled:
            difference = relative(pool(last, pooling), pooled[full])
            yield Row("pooled_features.npz", f"{full}: {pooling}", difference, NETWORK_BOUND)


def log_mels() -> Iterator[Row]:
    """Compare the log-mel spectrograms of both back ends, and the filterbank."""
    golden, encoder = arrays("logmel"), AudioEncoder(depth=10, width=1)
    filters = relative(mel_filters(encoder.config), golden["mel_filterbank"])
    yield Row("logmel.npz", "mel_filterbank", filters, 1e-6)
    for key, wave in {"tone2s": tones(32_000, 301), "silent2s": np.zeros(32_000)}.items():
        for backend in ("torch", "librosa"):
            ours = encoder.preprocess(wave, backend=backend).numpy()
            difference = np.abs(ours - golden[f"{key}.reflect"][..., : ours.shape[-1]]).max()
            what = f"{key}.reflect: {backend}, absolute, {ours.shape[-1]} columns"
            yield Row("logmel.npz", what, float(difference), LOGMEL_BOUND)


def frames() -> Iterator[Row]:
    """Compare the evaluation transform, in grey levels of 255."""
    golden, encoder = arrays("video_val_transform"), VideoEncoder(VideoConfig(depth=10, width=1))
    clip = ramps(320, 240, frames=8, seed=701)
    std = np.array(encoder.config.std).reshape(3, 1, 1, 1)
    for size, key, step in ((112, "320x240.crop112.full", 1), (224, "320x240.crop224.sub4", 4)):
        ours = encoder.preprocess(clip, size=size).numpy()[:, :, ::step, ::step]
        difference = float(np.abs((ours - golden[key]) * std).max() * 255)
        yield Row("video_val_transform.npz", f"{key}: grey levels", difference, GREY_BOUND)


def rows() -> Iterator[Row]:
    """Compare everything."""
    yield from names()
    for depth in (10, 18, 34):
        video = fill_module(VideoEncoder(depth=depth)).eval()
        yield from stages("video_backbone", f"d{depth}.in112x8", video, VIDEO_INPUT)
    audio = fill_module(AudioEncoder()).eval()
    for key, clips in AUDIO_INPUTS.items():
        yield from stages("audio_backbone", key, audio, clips)
    yield from log_mels()
    yield from frames()


def main() -> int:
    """Print the table; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print("| golden | what | largest difference | bound |")
    print("| --- | --- | --- | --- |")
    broken = 0
    for row in rows():
        over = not row.difference <= row.bound  # also when it is NaN
        broken += over
        mark = " **over**" if over else ""
        print(f"| {row.golden} | {row.what} | {row.difference:.2g}{mark} | {row.bound:g} |", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
