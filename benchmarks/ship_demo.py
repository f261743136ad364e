"""Add a run of ``crisscross-pretrain demo`` to the package: its weights, their entry in the manifest, its log.

    crisscross-pretrain demo --out demo/ --seeds 3
    python benchmarks/ship_demo.py demo/

Copies the encoders of seed 0 to ``crisscross_zoo/weights``, its log and the report over all seeds to ``docs/demo``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from crisscross_zoo.checkpoints.files import read_checkpoint
from crisscross_zoo.files.digest import file_sha256

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "crisscross_zoo" / "weights"
MANIFEST = ROOT / "weights_manifest.json"
DOCS = ROOT / "docs" / "demo"
LIMIT_BYTES = 6_000_000

NOTE = (
    "Small encoders for trying the package out, not for results: made by this package's own loop on generated clips"
    " (crisscross-pretrain demo)."
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path, help="the demo's folder")
    demo = parser.parse_args().demo
    report = json.loads((demo / "report.json").read_text())
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    total = 0
    for entry in manifest["checkpoints"]:
        if entry["name"] != "demo":
            continue
        modality = entry["modality"]
        source = demo / "seed0" / modality / "model.safetensors"
        _, config = read_checkpoint(source)
        assert config is not None
        target = WEIGHTS / f"demo_{modality}.safetensors"
        shutil.copyfile(source, target)
        total += target.stat().st_size
        kind = {
            "video": f"R(2+1)D-{config.depth}",
            "audio": f"ResNet-{config.depth} on log-mel spectrograms",
        }[modality]
        entry.update(
            status="released",
            arch=f"{kind}, width {config.width}",
            config=config.to_dict(),
            pretrained_on={"dataset": "generated clips", "size": f"{report['clips']['train']} clips"},
            results=[
                {
                    "benchmark": f"generated clips, {how}",
                    "protocol": {"linear": "linear probe", "retrieval": "retrieval, R@1"}[how],
                    "metric": f"accuracy on {report['clips']['test']} held-out clips in %, seed 0",
                    "value": round(100 * report["pretrained"][f"{modality}/{how}"]["values"][0], 1),
                    "note": f"random initialisation {100 * report['random'][f'{modality}/{how}']['values'][0]:.1f}",
                }
                for how in ("linear", "retrieval")
            ],
            note=NOTE,
            bundled={"file": target.name, "sha256": file_sha256(target)},
        )
    assert total <= LIMIT_BYTES, f"{total} bytes"
    MANIFEST.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    DOCS.mkdir(exist_ok=True)
    for name in ("report.json", "report.md"):
        shutil.copyfile(demo / name, DOCS / name)
    for name in ("log.csv", "config.json"):
        shutil.copyfile(demo / "seed0" / name, DOCS / name)
    print(f"{total:,} bytes of weights")


if __name__ == "__main__":
    main()
