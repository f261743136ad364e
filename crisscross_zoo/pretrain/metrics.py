"""The log of a run: ``log.csv``, TensorBoard, Weights and Biases; collected without making a GPU wait."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crisscross_zoo.errors import ConfigError, first_line
from crisscross_zoo.files.atomic import write_atomically, writing
from crisscross_zoo.pretrain.loss import LossTerms

LOG_FILE = "log.csv"

TERMS: tuple[str, ...] = LossTerms._fields

COLUMNS: tuple[str, ...] = (
    "step", "epoch", *TERMS, "grad_norm", "video_base_lr", "video_predictor_lr", "audio_base_lr", "audio_predictor_lr",
    "samples_per_second", "data_wait_fraction", "peak_memory_mb", "failed_files", "loss_scale",
)  # fmt: skip
"""Columns of ``log.csv``. Loss terms and embedding stds are means over the steps since the previous row."""


class Meter:
    """Sum the loss terms of the steps since the last row, on the device.

    Attributes:
        steps: Number of steps since the last row.
        waited: Seconds of these steps that were spent waiting for data.
        paths: The files of each step's batch, by step.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.clear()

    def clear(self) -> None:
        """Start over, for the next row."""
        self._sums = torch.zeros(len(TERMS), dtype=torch.float64, device=self._device)
        self._totals: list[Tensor] = []
        self.paths: dict[int, list[str]] = {}
        self.steps, self.waited, self._began = 0, 0.0, time.perf_counter()

    def add(self, step: int, terms: LossTerms, paths: list[str], *, waited: float) -> None:
        """Add a step's terms; nothing is read back from the device."""
        values = torch.stack([value.detach().double() for value in terms])
        self._sums += values
        self._totals.append(values[0])
        self.paths[step] = paths
        self.steps += 1
        self.waited += waited

    def bad_step(self) -> int | None:
        """Return the first step since the last row whose loss is not finite. Waits for the device."""
        if not self._totals:
            return None
        finite = torch.isfinite(torch.stack(self._totals)).tolist()
        return next((step for step, ok in zip(self.paths, finite, strict=True) if not ok), None)

    def means(self) -> dict[str, float]:
        """Return each term's mean over the steps; NaN where the loss does not compute it. Waits for the device."""
        return dict(zip(TERMS, (self._sums / max(self.steps, 1)).tolist(), strict=True))

    def seconds(self) -> float:
        """Return the seconds since the last row."""
        return time.perf_counter() - self._began


def mean_of_processes(means: list[dict[str, float]]) -> dict[str, float]:
    """Average the means of several ranks, whose parts of each batch have the same size."""
    return {name: sum(m[name] for m in means) / len(means) for name in means[0]}


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory used so far, in MB (1e6 bytes): of the GPU, or of this process.

    NaN for a process on Windows, which has no :mod:`resource`.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return math.nan
    if sys.platform == "linux":  # there, ru_maxrss begins at the peak of the parent process
        peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        if peak is not None:  # some sandboxes have no such line
            return int(peak[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Log:
    """Write rows to a run's folder. Rows after ``step``, which a killed run wrote, are removed first.

    Args:
        run: The run's folder.
        step: The step that the run resumes after; rows up to it are kept.
        tensorboard: Also write TensorBoard files.
        wandb: Weights and Biases project; empty: none.
        config: Settings that are logged with the run.

    Raises:
        ConfigError: TensorBoard or wandb is requested but not installed, or wandb cannot start.
    """

    def __init__(
        self, run: Path, *, step: int, tensorboard: bool, wandb: str, config: Mapping[str, Any]
    ) -> None:
        self._path = run / LOG_FILE
        text = _rows_up_to(self._path, step)
        write_atomically(self._path, text.encode())
        self._file = self._path.open("a", encoding="utf-8", newline="")
        self._tensorboard = _tensorboard(run, step) if tensorboard else None
        self._wandb = _wandb(run, wandb, config) if wandb else None

    def write(self, row: Mapping[str, float]) -> None:
        """Write a row of :data:`COLUMNS`; NaN becomes an empty cell."""
        cells = {k: v for k, v in row.items() if not math.isnan(v)}
        with writing(self._path.parent):
            csv.DictWriter(self._file, COLUMNS, lineterminator="\n").writerow(
                {k: _short(v) for k, v in cells.items()}
            )
            self._file.flush()
        if self._tensorboard is not None:
            for name, value in cells.items():
                if name != "step":
                    self._tensorboard.add_scalar(name, value, int(row["step"]))
        if self._wandb is not None:
            self._wandb.log(cells, step=int(row["step"]))

    def close(self) -> None:
        """Close the files."""
        with contextlib.ExitStack() as stack:
            if self._wandb is not None:
                stack.callback(self._wandb.finish)
            if self._tensorboard is not None:
                stack.callback(self._tensorboard.close)
            with writing(self._path.parent):
                self._file.close()


def read_log(run: Path) -> list[dict[str, float]]:
    """Return the rows of a run's ``log.csv``; empty cells are NaN."""
    with (run / LOG_FILE).open(encoding="utf-8", newline="") as file:
        return [{k: float(v) if v else math.nan for k, v in row.items()} for row in csv.DictReader(file)]


def _short(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.7g}"


def _rows_up_to(path: Path, step: int) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames == list(COLUMNS):
                writer.writerows(
                    row for row in rows if (row["step"] or "").isdecimal() and int(row["step"]) <= step
                )
    return text.getvalue()


def _tensorboard(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "TensorBoard is not installed",
            remedy='run pip install "crisscross-zoo[pretrain]", or pass --no-run.tensorboard',
        ) from None
    return SummaryWriter(run / "tensorboard", purge_step=step + 1)


def _wandb(run: Path, project: str, config: Mapping[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise ConfigError(
            "wandb is not installed",
            remedy='run pip install "crisscross-zoo[wandb]", or omit --run.wandb',
        ) from None
    id_file = run / "wandb.json"
    stored = json.loads(id_file.read_text(encoding="utf-8")) if id_file.is_file() else {}
    try:
        opened = wandb.init(
            project=project, dir=str(run), config=dict(config), resume="allow", id=stored.get("id")
        )
    except wandb.errors.UsageError as error:
        raise ConfigError(
            f"wandb: {first_line(error)}",
            remedy="run wandb login, set WANDB_MODE=offline, or omit --run.wandb",
        ) from None
    write_atomically(id_file, json.dumps({"id": opened.id}).encode())
    return opened
