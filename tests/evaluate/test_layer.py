"""The linear layer on frozen features, compared with a plain loop in torch."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from crisscross_zoo.encoders.head import linear_head
from crisscross_zoo.errors import TrainingError
from crisscross_zoo.evaluate.layer import LayerTraining, TrainedLayer
from crisscross_zoo.evaluate.protocols import LayerConfig
from crisscross_zoo.evaluate.rows import Rows

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@pytest.fixture(autouse=True)
def _one_thread(_same_threads: None) -> None:
    torch.set_num_threads(1)


def make_problem(n: int = 60, dims: int = 8, classes: int = 3) -> tuple[Floats, Ints]:
    """Non-negative features of linearly separable classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    features = 2 * np.eye(classes, dims)[labels] + rng.uniform(0, 1, (n, dims))
    return (10 * features).astype(np.float32), labels


def plain_loop(
    features: Floats, labels: Ints, classes: int, config: LayerConfig, seed: int
) -> torch.nn.Module:
    """Adam with cross entropy; each epoch's learning rate is computed explicitly, and the same seed draws batches."""
    order = np.random.default_rng(seed)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    torch.manual_seed(seed)
    head = linear_head(
        features.shape[1], classes, dropout=config.dropout, batch_norm=config.batch_norm
    ).train()
    optimizer = torch.optim.Adam(head.parameters(), lr=1.0, weight_decay=config.weight_decay)
    for epoch in range(config.epochs):
        passed = sum(epoch >= milestone for milestone in config.milestones)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * config.gamma**passed
        indices = order.permutation(len(x))
        for step in range(len(x) // config.batch_size):
            batch = np.sort(indices[step * config.batch_size : (step + 1) * config.batch_size])
            optimizer.zero_grad()
            F.cross_entropy(head(x[batch]), y[batch]).backward()
            optimizer.step()
    return head.eval()


def train_layer(
    rows: Rows,
    labels: Ints,
    classes: int,
    config: LayerConfig,
    *,
    seed: int = 0,
    after_epoch: Callable[[TrainedLayer], None] = lambda _: None,
) -> TrainedLayer:
    training = LayerTraining(rows.shape[1], classes, config, seed=seed)
    for _ in range(config.epochs):
        layer = training.train_epoch(rows, labels)
        after_epoch(layer)
    return layer


def weights(layer: TrainedLayer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in layer.module.state_dict().items()}


@pytest.mark.parametrize(
    "config",
    [
        LayerConfig(lr=0.01, batch_size=16, epochs=5, milestones=(2, 4), gamma=0.1),
        LayerConfig(lr=0.01, batch_size=7, epochs=3, milestones=(1,), gamma=0.5, batch_norm=False),
        LayerConfig(lr=0.02, batch_size=20, epochs=3, milestones=(), dropout=0.3, weight_decay=0.1),
    ],
    ids=["milestones", "no batch norm", "dropout and weight decay"],
)
def test_it_is_a_plain_loop_of_adam_with_these_settings(config: LayerConfig) -> None:
    features, labels = make_problem()
    layer = train_layer(Rows.of(features), labels, 3, config, seed=5)
    expected = plain_loop(features, labels, 3, config, seed=5)
    assert layer.epoch == config.epochs
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(layer.module.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_each_setting_makes_a_difference() -> None:
    """Otherwise the comparison above would prove little."""
    features, labels = make_problem()
    base = LayerConfig(lr=0.01, batch_size=16, epochs=4, milestones=(2,), gamma=0.1)
    bias = weights(train_layer(Rows.of(features), labels, 3, base))["2.bias"]
    for changes in (
        {"milestones": (3,)}, {"gamma": 0.5}, {"lr": 0.02}, {"epochs": 5}, {"batch_size": 15},
        {"dropout": 0.5}, {"weight_decay": 1.0},
    ):  # fmt: skip
        config = dataclasses.replace(base, **changes)  # type: ignore[arg-type]
        other = weights(train_layer(Rows.of(features), labels, 3, config))["2.bias"]
        assert (other - bias).abs().max() > 1e-5, changes


def test_a_separable_problem_is_solved() -> None:
    features, labels = make_problem()
    losses: list[float] = []
    layer = train_layer(
        Rows.of(features), labels, 3, LayerConfig(lr=0.05, batch_size=20, epochs=15, milestones=(10,)),
        after_epoch=lambda trained: losses.append(trained.loss),
    )  # fmt: skip
    test, truth = make_problem(n=90)
    assert (layer.scores(Rows.of(test)).argmax(axis=1) == truth).all()
    assert len(losses) == 15
    assert losses[-1] == layer.loss < 0.2 * losses[0]


def test_the_same_seed_gives_the_same_weights() -> None:
    features, labels = make_problem()
    config = LayerConfig(lr=0.01, batch_size=16, epochs=2, dropout=0.5)
    first, same, other = (
        weights(train_layer(Rows.of(features), labels, 3, config, seed=s)) for s in (1, 1, 2)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["2.weight"], other["2.weight"])


def test_the_callers_random_numbers_are_left_alone() -> None:
    features, labels = make_problem()
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    train_layer(Rows.of(features), labels, 3, LayerConfig(batch_size=16, epochs=2, dropout=0.5))
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_after_each_epoch_the_layer_is_in_eval_mode() -> None:
    features, labels = make_problem()
    seen: list[tuple[int, bool, torch.Tensor]] = []

    def after_epoch(trained: TrainedLayer) -> None:
        seen.append((trained.epoch, trained.module.training, trained.module(torch.from_numpy(features[:2]))))

    config = LayerConfig(lr=0.01, batch_size=16, epochs=3, dropout=0.9)
    layer = train_layer(Rows.of(features), labels, 3, config, after_epoch=after_epoch)
    assert [(epoch, training) for epoch, training, _ in seen] == [(1, False), (2, False), (3, False)]
    assert not layer.module.training
    assert not torch.equal(seen[0][2], seen[1][2])
    np.testing.assert_array_equal(seen[2][2].detach().numpy(), layer.scores(Rows.of(features[:2])))


def test_the_loss_is_the_mean_over_the_batches_of_an_epoch() -> None:
    features, labels = make_problem(n=20)
    config = LayerConfig(lr=1e-12, batch_size=20, epochs=1, batch_norm=False)  # practically no step
    layer = train_layer(Rows.of(features), labels, 3, config)
    logits = layer.module(torch.from_numpy(features)).detach()
    assert layer.loss == pytest.approx(float(F.cross_entropy(logits, torch.from_numpy(labels))), rel=1e-5)


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    features, labels = make_problem(n=10)
    few = train_layer(Rows.of(features), labels, 3, LayerConfig(lr=0.01, batch_size=128, epochs=3))
    all_ = train_layer(Rows.of(features), labels, 3, LayerConfig(lr=0.01, batch_size=10, epochs=3))
    assert all(torch.equal(value, weights(all_)[name]) for name, value in weights(few).items())


def test_scores_are_the_modules_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = make_problem()
    layer = train_layer(Rows.of(features), labels, 3, LayerConfig(lr=0.01, batch_size=16, epochs=1))
    with torch.no_grad():
        expected = layer.module(torch.from_numpy(features)).numpy()
    whole = layer.scores(Rows.of(features))
    assert (whole.shape, whole.dtype) == ((60, 3), np.float32)
    np.testing.assert_array_equal(whole, expected)
    monkeypatch.setattr(Rows.blocks, "__defaults__", (7,))
    sizes = []
    layer.module.register_forward_hook(lambda _, x, y: sizes.append(len(y)))
    np.testing.assert_allclose(layer.scores(Rows.of(features)), expected, rtol=1e-5, atol=1e-5)
    assert sizes == [7] * 8 + [4]


def test_a_rate_at_which_it_diverges_is_an_error() -> None:
    features, labels = make_problem()
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in epoch 1; lower layer.lr"):
        train_layer(Rows.of(features), labels, 3, LayerConfig(lr=1e37, batch_size=16, epochs=3))
