"""The paper's evaluations (appendix E): linear, fusion, finetuning and retrieval, with tables and a gallery.

The public names are loaded on first use: importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.evaluate.datasets import Fold as Fold
    from crisscross_zoo.evaluate.datasets import LabelledData as LabelledData
    from crisscross_zoo.evaluate.datasets import LabelledFile as LabelledFile
    from crisscross_zoo.evaluate.datasets import read_dataset as read_dataset
    from crisscross_zoo.evaluate.gallery import write_gallery as write_gallery
    from crisscross_zoo.evaluate.plan import Compute as Compute
    from crisscross_zoo.evaluate.probe import LinearProbe as LinearProbe
    from crisscross_zoo.evaluate.protocols import ProtocolConfig as ProtocolConfig
    from crisscross_zoo.evaluate.protocols import make_protocol as make_protocol
    from crisscross_zoo.evaluate.report import find_results as find_results
    from crisscross_zoo.evaluate.report import report_rows as report_rows
    from crisscross_zoo.evaluate.report import write_report as write_report
    from crisscross_zoo.evaluate.retrieval import load_heads as load_heads
    from crisscross_zoo.evaluate.retrieval import nearest as nearest
    from crisscross_zoo.evaluate.run import evaluate as evaluate
    from crisscross_zoo.evaluate.run import search as search

_HOMES = {
    "Compute": "crisscross_zoo.evaluate.plan",
    "Fold": "crisscross_zoo.evaluate.datasets",
    "LabelledData": "crisscross_zoo.evaluate.datasets",
    "LinearProbe": "crisscross_zoo.evaluate.probe",
    "ProtocolConfig": "crisscross_zoo.evaluate.protocols",
    "LabelledFile": "crisscross_zoo.evaluate.datasets",
    "evaluate": "crisscross_zoo.evaluate.run",
    "find_results": "crisscross_zoo.evaluate.report",
    "load_heads": "crisscross_zoo.evaluate.retrieval",
    "make_protocol": "crisscross_zoo.evaluate.protocols",
    "nearest": "crisscross_zoo.evaluate.retrieval",
    "read_dataset": "crisscross_zoo.evaluate.datasets",
    "report_rows": "crisscross_zoo.evaluate.report",
    "search": "crisscross_zoo.evaluate.run",
    "write_gallery": "crisscross_zoo.evaluate.gallery",
    "write_report": "crisscross_zoo.evaluate.report",
}

__all__ = [
    "Compute",
    "Fold",
    "LabelledData",
    "LabelledFile",
    "LinearProbe",
    "ProtocolConfig",
    "evaluate",
    "find_results",
    "load_heads",
    "make_protocol",
    "nearest",
    "read_dataset",
    "report_rows",
    "search",
    "write_gallery",
    "write_report",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
