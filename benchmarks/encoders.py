"""The encoders' forward pass: the plain path, ours, and the limit of the processor, in one run.

    python benchmarks/encoders.py                    float32 and bfloat16, eager
    python benchmarks/encoders.py --compile          also torch.compile (a minute per row)
    python benchmarks/encoders.py --device cuda

The plain path is the encoder itself: eager, contiguous, float32, batch norms not folded. Ours is what the extractor
runs: ``encoder.optimize_for_inference()``. Variants take turns, and each time is the minimum over all rounds. The limit
is the time that the convolutions' floating-point operations take at the rate of a large convolution or matrix product,
measured in the same run. Errors are relative to the largest value; for bfloat16 see the cosine similarity.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from report import Ratio, Report, add_json_option, finish
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from crisscross_zoo.config import AudioConfig
from crisscross_zoo.encoders import AudioEncoder, VideoEncoder
from crisscross_zoo.numerics import cpu_has_bfloat16, exact_float32
from crisscross_zoo.transforms.mel import log_mel

CASES = {
    "video 4 x 8 x 112²": (VideoEncoder, (4, 3, 8, 112, 112)),
    "video 4 x 8 x 224²": (VideoEncoder, (4, 3, 8, 224, 224)),
    "video 1 x 32 x 224²": (VideoEncoder, (1, 3, 32, 224, 224)),
    "audio 16 x 2 s, log-mel given": (AudioEncoder, (16, 1, 80, 200)),
}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


LIMITS = {"product": 2 * 2048**3, "convolution": 2 * 112**2 * 9 * 256**2}
"""Operations of a 2048³ matrix product and of a 3x3 convolution of 256 channels at 112²; the faster rate is used."""


def dtypes(device: torch.device) -> dict[torch.dtype, str]:
    """Return the dtypes of our path with their names, without bfloat16 on a processor without instructions for it."""
    ours = {torch.float32: "ours", torch.bfloat16: "ours, bfloat16"}
    if device.type == "cpu" and cpu_has_bfloat16() is False:
        del ours[torch.bfloat16]
    return ours


def limits(device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Return the calls that the limit is measured with."""
    a = torch.randn(2048, 2048, device=device).to(dtype)
    x = torch.randn(1, 256, 112, 112, device=device).to(dtype, memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(256, 256, 3, padding=1, device=device).to(dtype, memory_format=torch.channels_last)
    return {f"product, {dtype}": partial(torch.matmul, a, a), f"convolution, {dtype}": partial(conv, x)}


def measure(variants: dict[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the minimum time of each variant, in seconds. The variants take turns."""
    best = dict.fromkeys(variants, float("inf"))
    for number in range(rounds + 2):
        for name, call in variants.items():
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            if number >= 2:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


BOUNDS = {
    ("video 4 x 8 x 112²", "ours"): 2.0,
    ("video 4 x 8 x 112²", "ours, compiled"): 2.5,
    ("video 4 x 8 x 112²", "ours, bfloat16"): 4.0,
    ("video 4 x 8 x 224²", "ours"): 1.7,
    ("video 4 x 8 x 224²", "ours, compiled"): 2.0,
    ("video 4 x 8 x 224²", "ours, bfloat16"): 3.0,
}


def forward_report(options: argparse.Namespace) -> Report:
    device = torch.device(options.device)
    report = Report(
        "Forward pass of the encoders",
        ("clips", "variant", "ms", "speed-up", "error", "cosine", "limit, GFLOP/s", "time / limit"),
    )
    for name in options.cases or CASES:
        for row in case_rows(name, device, options):
            report.add(
                name, row["variant"], f"{row['ms']:.0f}", f"{row['ratio']:.2f}", f"{row['error']:.1e}",
                f"{row['cosine']:.5f}", f"{row['rate'] / 1e9:.0f}", f"{row['gap']:.2f}",
            )  # fmt: skip
            if row["variant"] != "plain":
                bound = BOUNDS.get((name, row["variant"])) if device.type == "cpu" else None
                report.ratios.append(Ratio(f"{name}, {row['variant']}", row["ratio"], bound))
    report.notes.append(
        "Speed-up is against the plain path. The limit is the time of the convolutions' arithmetic at the rate of a"
        " large convolution or matrix product of the same dtype, whichever is faster; all take turns."
    )
    if torch.bfloat16 not in dtypes(device):
        report.notes.append("This processor has no instructions for bfloat16, so it is not measured.")
    return report


def audio_report(options: argparse.Namespace) -> Report:
    """Compare log-mel with librosa's, without and with the audio encoder."""
    config = AudioConfig()
    report = Report("Audio on the CPU, 2 s clips", ("what", "plain, ms", "ours, ms", "speed-up", "error"))
    waves = torch.rand(16, config.clip_samples) - 0.5
    encoder = AudioEncoder().eval()
    network = encoder.optimize_for_inference()

    def by_librosa() -> Tensor:
        return torch.stack([log_mel(w, config, backend="librosa") for w in waves])

    def by_torch() -> Tensor:
        return log_mel(waves, config)

    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor], float]] = {
        "log-mel of 16 clips": (by_librosa, by_torch, 1.8),
        "log-mel and network, 16 clips": (lambda: encoder(by_librosa()), lambda: network(by_torch()), 1.4),
    }
    with torch.inference_mode():
        for name, (plain, ours, bound) in pairs.items():
            times = measure({"plain": plain, "ours": ours}, options.rounds, torch.device("cpu"))
            expected = plain()
            error = float((ours() - expected).abs().max() / expected.abs().max())
            ratio = times["plain"] / times["ours"]
            report.add(
                name,
                f"{1e3 * times['plain']:.1f}",
                f"{1e3 * times['ours']:.1f}",
                f"{ratio:.2f}",
                f"{error:.1e}",
            )
            report.ratios.append(Ratio(name, ratio, bound))
    return report


def case_rows(name: str, device: torch.device, options: argparse.Namespace) -> list[dict[str, Any]]:
    kind, shape = CASES[name]
    torch.manual_seed(0)
    encoder = kind().to(device).eval()
    x = torch.randn(shape, device=device)
    networks: dict[str, tuple[torch.dtype, Callable[[Any], Any]]] = {
        "plain": (torch.float32, encoder.forward_features)
    }
    for dtype, label in dtypes(device).items():
        network = encoder.optimize_for_inference(dtype).forward_features
        networks[label] = dtype, network
        if options.compile:
            networks[f"{label}, compiled"] = dtype, torch.compile(network, options={"freezing": True})
    found = []
    with torch.inference_mode(), exact_float32():
        with FlopCounterMode(display=False) as counter:
            encoder.forward_features(x)
        exact = copy.deepcopy(encoder).double().forward_features(x.double())
        calls = {k: partial(call, x) for k, (_, call) in networks.items()}
        products = {k: call for dtype in dtypes(device) for k, call in limits(device, dtype).items()}
        times = measure({**calls, **products}, options.rounds, device)
        for label, (dtype, call) in networks.items():
            value = call(x).double()
            error = float((value - exact).abs().max() / exact.abs().max())
            cosine = torch.nn.functional.cosine_similarity(value.flatten(1), exact.flatten(1)).min()
            rate = max(work / times[f"{what}, {dtype}"] for what, work in LIMITS.items())
            limit = counter.get_total_flops() / rate
            found.append(
                {
                    "variant": label, "ms": 1000 * times[label], "ratio": times["plain"] / times[label], "error": error,
                    "cosine": float(cosine), "gap": times[label] / limit, "rate": rate,
                }
            )  # fmt: skip
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default: all")
    add_json_option(parser)
    options = parser.parse_args()
    finish([forward_report(options), audio_report(options)], options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
