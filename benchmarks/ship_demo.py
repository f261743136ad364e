"""Put encoders of pretraining runs into the package, as its `demo` weights.

    python benchmarks/ship_demo.py --audio run/ --video other/ --clips 8000
    python benchmarks/evaluations.py real packages/ --out eval/
    python benchmarks/ship_demo.py --audio run/ --video other/ --clips 8000 --scores eval/     with the scores

docs/demo-weights.md has the commands of the runs. A modality without a run keeps its encoder.

The weights go to ``crisscross_zoo/weights`` in half precision, log and config to ``docs/demo/weights/MODALITY``, and
the encoder's entry to ``weights_manifest.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from crisscross_zoo.checkpoints.files import read_checkpoint, write_checkpoint

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "crisscross_zoo" / "weights"
MANIFEST = ROOT / "weights_manifest.json"
DOCS = ROOT / "docs" / "demo" / "weights"
LIMIT_BYTES = 6_000_000

KINDS = {"video": "R(2+1)D-{depth}", "audio": "ResNet-{depth} on log-mel spectrograms"}
NOTE = (
    "Small encoders that need no download, pretrained by this package's own loop on generated clips"
    " (crisscross-pretrain generate), without recordings or labels."
)


def half(tensor: torch.Tensor) -> torch.Tensor:
    """Return weights in half precision; the statistics of batch norms, which can be large, stay as they are."""
    return tensor.half() if tensor.ndim > 1 else tensor


def scores(folder: Path, modality: str) -> list[dict[str, object]]:
    """Return the manifest's results from what ``evaluations.py real`` wrote, each with that of random weights."""
    found = []
    for file in sorted(folder.glob(f"*/{modality}-pretrained-0/numbers.json")):
        ours = json.loads(file.read_text())
        others = [
            json.loads(f.read_text()) for f in file.parents[1].glob(f"{modality}-random-*/numbers.json")
        ]
        (raw,) = (json.loads(f.read_text()) for f in file.parents[1].glob(f"{modality}-raw-0/numbers.json"))
        for key, protocol, metric in (
            ("linear", "linear probe", "top-1 accuracy in %"),
            ("R@1", "retrieval, R@1", "R@1 in %"),
        ):
            random = 100 * np.mean([other[key] for other in others])
            found.append(
                {
                    "benchmark": file.parents[1].name.replace("stamps", "Tux Paint").replace(", ", ": "),
                    "protocol": protocol,
                    "metric": f"{metric}, mean of five folds",
                    "value": round(100 * ours[key], 1),
                    "note": f"random initialisation {random:.1f}, without a network {100 * raw[key]:.1f}",
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for modality in KINDS:
        parser.add_argument(f"--{modality}", type=Path, metavar="RUN", help=f"run of the {modality} encoder")
    parser.add_argument("--clips", type=int, required=True, help="number of clips that they were trained on")
    parser.add_argument("--scores", type=Path, help="the folder that evaluations.py wrote")
    options = parser.parse_args()
    runs = {modality: run for modality in KINDS if (run := getattr(options, modality))}
    if not runs:
        parser.error("pass --audio or --video")
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    temporary = tempfile.TemporaryDirectory()
    written = Path(temporary.name)
    for entry in manifest["checkpoints"]:
        if entry["name"] != "demo" or (modality := entry["modality"]) not in runs:
            continue
        weights, config = read_checkpoint(runs[modality] / modality)
        assert config is not None
        target = written / f"demo_{modality}.safetensors"
        digest = write_checkpoint(target, {name: half(value) for name, value in weights.items()}, config)
        entry.update(
            status="released",
            arch=f"{KINDS[modality].format(depth=config.depth)}, width {config.width}",
            config=config.to_dict(),
            pretrained_on={"dataset": "generated clips", "size": f"{options.clips:,} clips"},
            results=scores(options.scores, modality) if options.scores else [],
            note=NOTE,
            bundled={"file": target.name, "sha256": digest},
        )
    kept = [f for f in WEIGHTS.glob("demo_*.safetensors") if not (written / f.name).exists()]
    total = sum(file.stat().st_size for file in (*written.iterdir(), *kept))
    if total > LIMIT_BYTES:
        sys.exit(f"{total:,} bytes of weights, more than {LIMIT_BYTES:,}; nothing was changed")
    shutil.copytree(written, WEIGHTS, dirs_exist_ok=True)
    MANIFEST.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for modality, run in runs.items():
        (DOCS / modality).mkdir(exist_ok=True)
        for name in ("log.csv", "config.json"):
            shutil.copyfile(run / name, DOCS / modality / name)
    print(f"{total:,} bytes of weights")


if __name__ == "__main__":
    main()
