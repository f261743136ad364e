"""CrissCross Zoo: audio-visual encoders pretrained with relaxed cross-modal synchronicity (AAAI 2023).

The public names are loaded on first use: importing the package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crisscross_zoo.lazy import lazy_names

if TYPE_CHECKING:
    from crisscross_zoo.extract.extractor import FeatureExtractor as FeatureExtractor
    from crisscross_zoo.extract.run import extract_files as extract_files
    from crisscross_zoo.features import Features as Features
    from crisscross_zoo.pretrain.loss import crisscross_loss as crisscross_loss
    from crisscross_zoo.pretrain.model import CrissCross as CrissCross
    from crisscross_zoo.weights.load import load_encoder as load_encoder
    from crisscross_zoo.weights.manifest import list_weights as list_weights

__version__ = "0.1.0"

_HOMES = {
    "CrissCross": "crisscross_zoo.pretrain.model",
    "FeatureExtractor": "crisscross_zoo.extract.extractor",
    "Features": "crisscross_zoo.features",
    "crisscross_loss": "crisscross_zoo.pretrain.loss",
    "extract_files": "crisscross_zoo.extract.run",
    "list_weights": "crisscross_zoo.weights.manifest",
    "load_encoder": "crisscross_zoo.weights.load",
}

__all__ = [
    "CrissCross",
    "FeatureExtractor",
    "Features",
    "__version__",
    "crisscross_loss",
    "extract_files",
    "list_weights",
    "load_encoder",
]


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
