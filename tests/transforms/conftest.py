from __future__ import annotations

import pytest
import torch


@pytest.fixture
def resize_in_uint8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision resize uint8 as such, as current versions do: 0.19 converts to float with AVX-512."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
