"""Classification of one fold on frozen features, by an SVM or a linear layer."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from crisscross_zoo.checkpoints.training import load_progress, save_progress
from crisscross_zoo.evaluate.datasets import Fold
from crisscross_zoo.evaluate.extracted import ClipFeatures, Extracted
from crisscross_zoo.evaluate.layer import LayerTraining, TrainedLayer, module_scores
from crisscross_zoo.evaluate.metrics import Scores, file_scores, softmax, top_k
from crisscross_zoo.evaluate.plan import Plan
from crisscross_zoo.evaluate.probe import best, held_out_accuracies, held_out_folds, right_files
from crisscross_zoo.evaluate.reporter import Reporter
from crisscross_zoo.evaluate.results import Classified, labels_of, text_keys
from crisscross_zoo.evaluate.svm import Hyperplanes, fit_svm

LAYER_FILE = "layer.pt"


# --- an SVM --------------------------------------------------------------------------------------------------------


def classify_by_svm(plan: Plan, features: ClipFeatures, number: int, reporter: Reporter) -> Classified:
    """Train an SVM on a fold's training clips, and score its test files.

    Args:
        plan: The evaluation.
        features: The features of its clips.
        number: The fold's number.
        reporter: Gets the progress, and a message for each SVM that did not converge.

    Raises:
        ConfigError: the cost cannot be chosen because a class has only one training file.
        OutputError: no training file, or no test file, can be used.
    """
    fold = plan.folds[number]
    train = features.drawn(fold.train, f"fold {number}: training files")
    test = features.uniform(fold.test, f"fold {number}: test files")
    svm = plan.config.svm
    assert svm is not None
    passes = reporter.stage(f"fold {number}: training the SVM, passes over the clips")
    device = str(plan.device)
    classes = len(plan.data.classes)

    def fitted(costs: tuple[float, ...]) -> dict[float, Hyperplanes]:
        machines = fit_svm(
            train.clips.rows,
            train.labels,
            classes,
            costs,
            tolerance=svm.tolerance,
            device=device,
            on_pass=lambda done: passes(done, 0),
        )
        return {machine.cost: machine for machine in machines}

    accuracies: dict[float, float] = {}
    if plan.config.select == "test":
        machines, truth = fitted(svm.costs), labels_of(test.files)
        for cost, machine in machines.items():
            accuracies[cost] = right_files(machine, test.clips, truth) / len(truth)
        cost = best(accuracies)
    else:
        if len(svm.costs) > 1:
            accuracies = held_out_accuracies(
                train.clips,
                labels_of(train.files),
                classes,
                svm.costs,
                groups=[s.group for s in train.files],
                folds=svm.n_splits,
                seed=plan.config.seed,
                device=device,
                on_fit=reporter.stage(f"fold {number}: choosing C"),
            )
        cost = best(accuracies) if accuracies else svm.costs[0]
        machines = fitted((cost,))
    for machine in machines.values():
        if not machine.solved:
            reporter.message(
                f"the SVM of cost {machine.cost:g} did not converge to svm.tolerance"
                f" (gradient {machine.gradient:.1e})"
            )
    chosen = {"cost": cost, "accuracy_by_cost": text_keys(accuracies)}
    return _classified(
        train.failed, train.damaged, len(train.files), test, machines[cost].scores(test.clips.rows), chosen
    )


# --- a linear layer ------------------------------------------------------------------------------------------------


@dataclass
class _LayerFold:
    """The state of a fold's training besides the layer itself, as plain values and tensors.

    Attributes:
        accuracies: Accuracy by epoch, on the files on which the epoch is chosen.
        best: The layer's state dict after the epoch with the highest accuracy.
        failed: A row for each training file that failed, by path.
        damaged: A row for each training file that was only partly read, by path.
        files: The largest number of training files that an epoch used.
    """

    accuracies: dict[int, float] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    damaged: dict[str, dict[str, str]] = field(default_factory=dict)
    files: int = 0

    def add(self, drawn: Extracted) -> None:
        """Record which of an epoch's files failed, were damaged and were used."""
        self.failed |= {row["path"]: row for row in drawn.failed}
        self.damaged |= {row["path"]: row for row in drawn.damaged}
        self.files = max(self.files, len(drawn.files))

    def record(self, epoch: int, accuracy: float, layer: TrainedLayer) -> None:
        """Record an epoch's accuracy, and keep the layer if no earlier one was as good."""
        self.accuracies[epoch] = accuracy
        if best(self.accuracies) == epoch:
            self.best = copy.deepcopy(layer.module.state_dict())


def classify_by_layer(plan: Plan, features: ClipFeatures, number: int, reporter: Reporter) -> Classified:
    """Train a linear layer on a fold, one epoch on each draw of the training clips, and score its test files.

    If the epoch is chosen on training files, a second layer is trained in parallel on the files that are not held
    out. Both layers see the same clips, which are extracted once.

    Args:
        plan: The evaluation.
        features: The features of its clips.
        number: The fold's number.
        reporter: Gets the progress, and a message if the checkpoint is damaged.

    Raises:
        ConfigError: the epoch cannot be chosen because a class has only one training file.
        OutputError: no training file, or no test file, can be used.
        TrainingError: the loss is no longer finite, or the checkpoint belongs to another run.
    """
    config = plan.config.layer
    assert config is not None
    fold = plan.folds[number]
    test = features.uniform(fold.test, f"fold {number}: test files")
    held_out = _held_out(plan, fold) if plan.config.select == "train" and config.epochs > 1 else set()
    size, classes = test.clips.rows.shape[1], len(plan.data.classes)
    trainings = {
        name: LayerTraining(size, classes, config, seed=plan.config.seed, device=plan.device)
        for name in ("all", *["kept"] * bool(held_out))
    }
    layer, reached = trainings["all"], _LayerFold()
    redrawn, checkpoint = plan.config.clips.epochs != 1, plan.folder(number) / LAYER_FILE
    identity = _layer_identity(plan, fold)
    if redrawn:
        keys = {*vars(reached), *trainings}
        before = load_progress(
            checkpoint, identity, keys, restart=plan.overwrite, on_message=reporter.message
        )
        if before is not None:
            reached = _LayerFold(**{name: before[name] for name in vars(reached)})
            for name, training in trainings.items():
                training.load_state_dict(before[name])
    progress = reporter.stage("linear layer: epochs")
    for epoch in range(layer.epoch + 1, config.epochs + 1):
        with features.epoch(number, epoch) as drawn:
            reached.add(drawn)
            trained = layer.train_epoch(drawn.clips.rows, drawn.labels)
            if held_out:
                kept, validation = drawn.split(held_out)
                kept_layer = trainings["kept"].train_epoch(kept.clips.rows, kept.labels)
                reached.record(epoch, _accuracy(kept_layer, validation), trained)
            elif plan.config.select == "test":
                reached.record(epoch, _accuracy(trained, test), trained)
            if redrawn:
                states = {name: training.state_dict() for name, training in trainings.items()}
                save_progress(checkpoint, identity, {**vars(reached), **states})
        progress(epoch, config.epochs)
    accuracies = reached.accuracies
    if accuracies:
        layer.module.load_state_dict(reached.best)
    chosen = {
        "epochs": int(best(accuracies)) if accuracies else config.epochs,
        "accuracy_by_epoch": text_keys(accuracies),
    }
    scores = softmax(module_scores(layer.module, test.clips.rows))
    failed, damaged = [*reached.failed.values()], [*reached.damaged.values()]
    return _classified(failed, damaged, reached.files, test, scores, chosen)


def _held_out(plan: Plan, fold: Fold) -> set[str]:
    """Return the paths of the training files on which the epoch is chosen: the first held-out fold."""
    groups = [s.group for s in fold.train]
    _, indices = next(held_out_folds(labels_of(fold.train), groups, seed=plan.config.seed))
    return {fold.train[k].path for k in indices}


def _layer_identity(plan: Plan, fold: Fold) -> str:
    return json.dumps(
        {
            "settings": plan.config.to_dict(),
            "precision": plan.compute.precision,
            "device": plan.device.type,
            "weights": plan.sha256,
            "files": [[s.path, s.label] for s in (*fold.train, *fold.test)],
        }
    )


def _accuracy(trained: TrainedLayer, evaluated: Extracted) -> float:
    """Return the fraction of files whose own class has the highest mean probability."""
    scores = file_scores(softmax(trained.scores(evaluated.clips.rows)), evaluated.clips.owners)
    return top_k(scores, labels_of(evaluated.files), 1)


def _classified(
    failed: list[dict[str, str]],
    damaged: list[dict[str, str]],
    train: int,
    test: Extracted,
    clip_scores: Scores,
    chosen: dict[str, Any],
) -> Classified:
    """Return the result of a fold: failed, damaged and used training files, and the scores of the test clips."""
    return Classified(
        train=train,
        test=test.files,
        failed=[*failed, *test.failed],
        damaged=[*damaged, *test.damaged],
        clip_scores=clip_scores,
        owners=test.clips.owners,
        chosen=chosen,
    )
