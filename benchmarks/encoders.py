"""The encoders' forward pass: the plain path, ours, and the limit of the processor, in one run.

    python benchmarks/encoders.py                    float32 and bfloat16, eager
    python benchmarks/encoders.py --compile          also torch.compile (a minute a row)
    python benchmarks/encoders.py --device cuda

The plain path is the encoder itself: eager, contiguous, float32, batch norms apart. Ours is what the extractor runs:
``encoder.optimize_for_inference()``. Variants take turns; each time is the least of all rounds. The limit is the
floating-point operations of the convolutions over the rate of a large matrix product measured in the same run.
Errors are relative to the largest value; of bfloat16 the cosine is given.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from crisscross_zoo.encoders import AudioEncoder, VideoEncoder

CASES = {
    "video 4 x 8 x 112²": (VideoEncoder, (4, 3, 8, 112, 112)),
    "video 4 x 8 x 224²": (VideoEncoder, (4, 3, 8, 224, 224)),
    "video 1 x 32 x 224²": (VideoEncoder, (1, 3, 32, 224, 224)),
    "audio 16 x 2 s, log-mel given": (AudioEncoder, (16, 1, 80, 200)),
}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a 2048³ product, the best of several."""
    a = torch.randn(2048, 2048, device=device).to(dtype)
    best = float("inf")
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        a @ a
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def measure(variants: dict[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, float]:
    """The least time of each, in seconds; they take turns."""
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


def rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device(options.device)
    rates = {d: matrix_rate(device, d) for d in (torch.float32, torch.bfloat16)}
    print(
        f"matrix rate: {rates[torch.float32] / 1e9:.0f} GFLOP/s float32, {rates[torch.bfloat16] / 1e9:.0f} bfloat16"
    )
    return [row for name in CASES for row in case_rows(name, device, rates, options)]


def case_rows(
    name: str, device: torch.device, rates: dict[torch.dtype, float], options: argparse.Namespace
) -> list[dict[str, Any]]:
    kind, shape = CASES[name]
    torch.manual_seed(0)
    encoder = kind().to(device).eval()
    x = torch.randn(shape, device=device)
    networks: dict[str, tuple[torch.dtype, Callable[[Any], Any]]] = {
        "plain": (torch.float32, encoder.forward_features)
    }
    for dtype, label in ((torch.float32, "ours"), (torch.bfloat16, "ours, bfloat16")):
        network = encoder.optimize_for_inference(dtype).forward_features
        networks[label] = dtype, network
        if options.compile:
            networks[f"{label}, compiled"] = dtype, torch.compile(network, options={"freezing": True})
    found = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            encoder.forward_features(x)
        exact = copy.deepcopy(encoder).double().forward_features(x.double())
        times = measure({k: partial(call, x) for k, (_, call) in networks.items()}, options.rounds, device)
        for label, (dtype, call) in networks.items():
            value = call(x).double()
            error = float((value - exact).abs().max() / exact.abs().max())
            cosine = torch.nn.functional.cosine_similarity(value.flatten(1), exact.flatten(1)).min()
            limit = counter.get_total_flops() / rates[dtype]
            row = {
                "case": name,
                "variant": label,
                "ms": 1000 * times[label],
                "ratio": times["plain"] / times[label],
            }
            found.append({**row, "error": error, "cosine": float(cosine), "gap": times[label] / limit})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = rows(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print("\n| clips | variant | ms | over plain | error | cosine | time over the limit |\n|" + " --- |" * 7)
    for row in found:
        print(
            f"| {row['case']} | {row['variant']} | {row['ms']:.0f} | {row['ratio']:.2f} | {row['error']:.1e} |"
            f" {row['cosine']:.5f} | {row['gap']:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
