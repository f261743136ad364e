"""LARC, layer-wise adaptive rate clipping (You, Gitman and Ginsburg 2017), around any torch optimizer (section G.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from crisscross_zoo.errors import ConfigError


class LARC:
    """Scale each tensor's gradient by the ratio of its norm to the gradient's, then let ``optimizer`` step.

    For a tensor p with gradient g, in a group with weight decay wd and rate lr::

        local = trust_coefficient * |p| / (|g| + wd * |p| + eps)
        g    <- (g + wd * p) * (min(local / lr, 1) if clip else local)

    and the optimizer steps without its own weight decay. Where |p| or |g| is zero, the tensor is stepped with its
    unchanged gradient and without weight decay. The norms stay on the device, so that no step waits for it.

    LARC has an optimizer's ``param_groups``, ``state_dict``, ``zero_grad`` and ``step``, and works with a gradient
    scaler's ``unscale_`` and ``step``.

    Args:
        optimizer: Any torch optimizer; its groups' ``lr`` and ``weight_decay`` are read at each step.
        trust_coefficient: See above.
        clip: Never exceed the optimizer's own learning rate (LARC); False scales without bound (LARS).
        eps: See above.

    Raises:
        ConfigError: ``trust_coefficient`` or ``eps`` is not above 0.
    """

    def __init__(
        self, optimizer: Optimizer, trust_coefficient: float = 1e-3, clip: bool = True, eps: float = 1e-8
    ) -> None:
        for name, value in (("trust_coefficient", trust_coefficient), ("eps", eps)):
            if not value > 0:
                raise ConfigError(f"{name}={value!r} is out of range", remedy="pass a number above 0")
        self.optimizer = optimizer
        self.trust_coefficient = trust_coefficient
        self.clip = clip
        self.eps = eps

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        """The optimizer's state by parameter."""
        return self.optimizer.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state; LARC has none of its own."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that :meth:`state_dict` returned."""
        self.optimizer.load_state_dict(state_dict)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Scale the gradients in place, then step the optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        decays = [group.get("weight_decay", 0.0) for group in self.param_groups]
        try:
            for group, decay in zip(self.param_groups, decays, strict=True):
                self._scale(group, decay)
                if "weight_decay" in group:
                    group["weight_decay"] = 0.0
            self.optimizer.step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                if "weight_decay" in group:
                    group["weight_decay"] = decay
        return loss

    @torch.no_grad()
    def _scale(self, group: dict[str, Any], decay: float) -> None:
        params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
        p_norms = torch.stack(torch._foreach_norm(params))
        g_norms = torch.stack(torch._foreach_norm(grads))
        counts = (p_norms != 0) & (g_norms != 0)
        scale = self.trust_coefficient * p_norms / (g_norms + decay * p_norms + self.eps)
        if self.clip:
            scale = (scale / group["lr"] if group["lr"] else torch.full_like(scale, torch.inf)).clamp(max=1)
        scale = torch.where(counts, scale, torch.ones_like(scale))
        if decay:
            # g <- g + wd * p, except where a norm is zero
            amounts = torch.where(counts, torch.full_like(scale, decay), torch.zeros_like(scale))
            torch._foreach_add_(grads, torch._foreach_mul(params, list(amounts.unbind())))
        torch._foreach_mul_(grads, list(scale.unbind()))
