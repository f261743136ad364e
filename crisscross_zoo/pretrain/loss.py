"""The loss of CrissCross (Algorithm 1): predict each view's embedding from every other view's.

With ``D(p, z) = -mean(cos(p, stop_gradient(z)))`` over the batch, a pair of views x and y contributes::

    L(x, y) = (D(p_x, z_y) + D(p_y, z_x)) / 2

and the three terms are::

    intra = L(v1, v2) + L(a1, a2)             within a modality (Eqn. 2)
    sync  = (L(v1, a1) + L(v2, a2)) / 2       across modalities, at the same time (Eqn. 3)
    async = (L(v1, a2) + L(v2, a1)) / 2       across modalities, at another time (Eqn. 4)
    total = (intra + sync + async) / 3        (Eqn. 5)

Algorithm 1 does not halve ``intra`` as it halves the other two. The released code takes the mean of all six
pairs, so that each pair has the same weight: that is ``intra_weight=0.5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crisscross_zoo.errors import ConfigError, InputError

VIEWS: tuple[str, ...] = ("v1", "v2", "a1", "a2")
"""The four views: two of video, two of audio; those with the same number are synchronous."""

PAIRS: dict[str, tuple[str, str]] = {
    "v1v2": ("v1", "v2"),
    "a1a2": ("a1", "a2"),
    "v1a1": ("v1", "a1"),
    "v2a2": ("v2", "a2"),
    "v1a2": ("v1", "a2"),
    "v2a1": ("v2", "a1"),
}
"""The six pairs of views."""


class LossTerms(NamedTuple):
    """The total loss and its terms, scalar tensors. Only ``total`` is meant for ``backward``.

    A term whose views were not given is NaN.

    Attributes:
        total: The loss to minimise; -1 if all views agree and the weights are ``intra_weight=0.5``, 1, 1.
        intra: Sum of the two pairs within a modality.
        sync: Mean of the two synchronous pairs across modalities.
        async_: Mean of the two asynchronous pairs across modalities.
        v1v2: Loss of this pair, in [-1, 1]; and so on.
        video_std: :func:`embedding_std` of ``z``, mean of the two video views; without gradient.
        audio_std: The same of the two audio views.
    """

    total: Tensor
    intra: Tensor
    sync: Tensor
    async_: Tensor
    v1v2: Tensor
    a1a2: Tensor
    v1a1: Tensor
    v2a2: Tensor
    v1a2: Tensor
    v2a1: Tensor
    video_std: Tensor
    audio_std: Tensor


def crisscross_loss(
    p: Mapping[str, Tensor],
    z: Mapping[str, Tensor],
    *,
    intra_weight: float = 1.0,
    sync_weight: float = 1.0,
    async_weight: float = 1.0,
    video_weight: float = 1.0,
    audio_weight: float = 1.0,
) -> LossTerms:
    """Compute Algorithm 1. Gradients flow through ``p`` alone: ``z`` is detached here.

    Args:
        p: Predictor outputs by view ("v1", "v2", "a1", "a2"), each (N, D), floating point.
        z: Projector outputs (embeddings) under the same names and of the same shape.
        intra_weight: Weight of the term within modalities; 0.5 gives the released code's loss.
        sync_weight: Weight of the synchronous term.
        async_weight: Weight of the asynchronous term.
        video_weight: Weight of (v1, v2) inside the intra-modal term; 0 drops the pair.
        audio_weight: Weight of (a1, a2) inside the intra-modal term; 0 drops the pair.

    Returns:
        The terms. ``total`` is the weighted sum of intra, sync and async over the number of those whose
        weight is not 0. Losses are computed in float32 under autocast, in float64 if the inputs are.

    Raises:
        ConfigError: a weight is negative, or nothing is left to minimise.
        InputError: a view that a weight needs is missing, or shapes differ.
    """
    weights = {"intra": intra_weight, "sync": sync_weight, "async": async_weight}
    inside = {"v1v2": video_weight, "a1a2": audio_weight}
    needed = needed_views(
        intra_weight=intra_weight,
        sync_weight=sync_weight,
        async_weight=async_weight,
        video_weight=video_weight,
        audio_weight=audio_weight,
    )
    _check_views(p, z, needed)

    some = next(iter(p.values()))
    nan = torch.full((), float("nan"), device=some.device)
    pairs = {
        name: _pair_loss(p[x], z[x], p[y], z[y]) if {x, y} <= p.keys() else nan
        for name, (x, y) in PAIRS.items()
    }
    terms = {
        "intra": _sum_of(inside[name] * pairs[name] for name in inside if inside[name] != 0),
        "sync": (pairs["v1a1"] + pairs["v2a2"]) / 2,
        "async": (pairs["v1a2"] + pairs["v2a1"]) / 2,
    }
    counted = [name for name in terms if weights[name] != 0]
    total = _sum_of(weights[name] * terms[name] for name in counted) / len(counted)
    stds = [
        (embedding_std(z[f"{m}1"]) + embedding_std(z[f"{m}2"])) / 2 if {f"{m}1", f"{m}2"} <= z.keys() else nan
        for m in "va"
    ]
    return LossTerms(total, terms["intra"], terms["sync"], terms["async"], *pairs.values(), *stds)


def needed_views(
    *,
    intra_weight: float = 1.0,
    sync_weight: float = 1.0,
    async_weight: float = 1.0,
    video_weight: float = 1.0,
    audio_weight: float = 1.0,
) -> frozenset[str]:
    """Return the views that a loss with these weights uses.

    Raises:
        ConfigError: a weight is negative, or nothing is left to minimise.
    """
    given = {
        "intra_weight": intra_weight,
        "sync_weight": sync_weight,
        "async_weight": async_weight,
        "video_weight": video_weight,
        "audio_weight": audio_weight,
    }
    for name, weight in given.items():
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"{name}={weight!r} is out of range", remedy="pass a number, 0 or above")
    needed: set[str] = set()
    if sync_weight or async_weight:
        needed.update(VIEWS)
    if intra_weight and video_weight:
        needed.update(("v1", "v2"))
    if intra_weight and audio_weight:
        needed.update(("a1", "a2"))
    if not needed or (intra_weight and not (video_weight or audio_weight)):
        raise ConfigError("the weights leave nothing of the loss", remedy="set one of its terms above 0")
    return frozenset(needed)


def embedding_std(z: Tensor) -> Tensor:
    """Return the std over the batch of each dimension of the l2-normalised embeddings, averaged over the dimensions.

    It measures the spread of the embeddings: those that fill the sphere evenly give ``1 / sqrt(D)``, collapsed ones
    give 0 (Chen and He 2021).

    Args:
        z: (N, D).

    Returns:
        A scalar, without gradient.
    """
    with torch.no_grad():
        return F.normalize(_full(z), dim=1).std(dim=0, correction=0).mean()


def _pair_loss(p_x: Tensor, z_x: Tensor, p_y: Tensor, z_y: Tensor) -> Tensor:
    return (_distance(p_x, z_y) + _distance(p_y, z_x)) / 2


def _distance(p: Tensor, z: Tensor) -> Tensor:
    """Return D of Eqn. 1: minus the mean cosine similarity, with the gradient stopped at ``z``."""
    return -F.cosine_similarity(_full(p), _full(z.detach()), dim=1).mean()


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _sum_of(values: object) -> Tensor:
    total: Tensor = sum(values)  # type: ignore[call-overload]
    return total


def _check_views(p: Mapping[str, Tensor], z: Mapping[str, Tensor], needed: frozenset[str]) -> None:
    if missing := sorted(needed - p.keys() | needed - z.keys()):
        raise InputError(
            f"the views {', '.join(missing)} are missing",
            remedy="pass p and z with the keys v1, v2, a1 and a2, or set the weights that need them to 0",
        )
    shapes = {tuple(x.shape) for views in (p, z) for x in views.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InputError(f"p and z have the shapes {sorted(shapes)}", remedy="pass (N, D), the same for all")
