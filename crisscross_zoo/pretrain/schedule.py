"""The learning rate of each step: linear warm-up, then half a cosine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import ConfigError


def cosine_schedule(
    base: float, final: float, *, warmup_steps: int, total_steps: int, warmup_start: float = 0.0
) -> npt.NDArray[np.float64]:
    """Return the learning rate of every step, float64, shape (total_steps,); step k uses entry k.

    The warm-up rises from ``warmup_start`` to ``base``, both included. The cosine then begins with ``base`` once
    more and approaches ``final`` without reaching it. These are the values of the released code's own table. Its
    loop applied them one step late (the first step took 1e-3 in every group, the last entry was never used), which
    is not copied.

    Args:
        base: Highest rate.
        final: Rate that the cosine approaches.
        warmup_steps: Steps of warm-up; 0 for none.
        total_steps: All steps, including the warm-up.
        warmup_start: Rate of the first step of a warm-up.

    Raises:
        ConfigError: rates below 0, or more warm-up than steps.
    """
    if min(base, final, warmup_start) < 0:
        raise ConfigError(
            f"rates {base!r}, {final!r}, {warmup_start!r} are out of range", remedy="pass 0 or above"
        )
    if not 0 <= warmup_steps <= total_steps:
        raise ConfigError(
            f"{warmup_steps} steps of warm-up in {total_steps}",
            remedy="raise optim.epochs, or lower optim.warmup_epochs",
        )
    steps = total_steps - warmup_steps
    cosine = final + 0.5 * (base - final) * (1 + np.cos(np.pi * np.arange(steps) / max(steps, 1)))
    return np.concatenate([np.linspace(warmup_start, base, warmup_steps), cosine])
