"""Import every module of the package, extract a file, make one pretraining step; print what came of it as JSON.

Arguments: a media file, a folder to write to. tests/test_platforms.py runs it as if on Windows.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import pkgutil
import sys
from pathlib import Path

import crisscross_zoo


def main(clip: str, folder: Path) -> None:
    multiprocessing.set_start_method("spawn")  # Windows has no other
    modules = [m.name for m in pkgutil.walk_packages(crisscross_zoo.__path__, "crisscross_zoo.")]
    for name in modules:
        importlib.import_module(name)

    from crisscross_zoo.pretrain import loader, metrics
    from crisscross_zoo.workers import pool

    assert not hasattr(pool.os, "sched_getaffinity")
    assert not hasattr(loader.signal, "SIGUSR1")
    try:
        exec("import resource", vars(metrics))
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError("this is no Windows: sitecustomize.py was not read")

    from pretrain_case import tiny_config

    from crisscross_zoo.cli.extract import main as extract
    from crisscross_zoo.media.scan import scan
    from crisscross_zoo.pretrain.loop import pretrain

    options = ["--modality", "both", "--weights", "demo", "--device", "cpu", "--workers", "1"]
    with contextlib.redirect_stdout(sys.stderr):
        code = extract([clip, *options, "--out", str(folder / "feats.npz")])
    one_step = {"data.epoch_size": 4, "optim.epochs": 1, "optim.warmup_epochs": 0.0, "run.workers": 1}
    outcome = pretrain(tiny_config(**one_step), [scan(clip)], folder / "run")
    print(
        json.dumps({"modules": modules, "extract": code, "steps": outcome.step, "finished": outcome.finished})
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
