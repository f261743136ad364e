"""A small data set, and one thread for torch: several would compete for a busy machine's cores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from make_media import make_media, sine

from crisscross_zoo.media.scan import scan
from crisscross_zoo.media.tracks import Media


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Media]:
    """Six files of 2 to 3 s, each with its own pitch."""
    folder = tmp_path_factory.mktemp("clips")
    files = []
    for number in range(6):
        seconds = 2 + number / 6
        noise = np.random.default_rng(number).normal(0, 800, (round(seconds * 16_000), 1))
        wave = sine(seconds, 16_000, 1, hertz=220.0 * (number + 1)) + noise.astype(np.int16)
        path = folder / f"{number}.mp4"
        make_media(path, seconds=seconds, size=(64, 48), samples=wave, sample_rate=16_000, layout="mono")
        files.append(scan(path))
    return files
