"""Classification of one fold by full finetuning: the whole encoder is trained, with a new linear layer."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os

import numpy as np
import torch

from crisscross_zoo.config import VideoConfig
from crisscross_zoo.encoders.classifier import Classifier
from crisscross_zoo.errors import CrissCrossError, OutputError
from crisscross_zoo.evaluate.finetune import describe_files, finetune
from crisscross_zoo.evaluate.layer import module_scores
from crisscross_zoo.evaluate.metrics import softmax
from crisscross_zoo.evaluate.plan import Plan
from crisscross_zoo.evaluate.probe import best
from crisscross_zoo.evaluate.reporter import Reporter
from crisscross_zoo.evaluate.results import Classified, text_keys
from crisscross_zoo.evaluate.rows import Floats, Rows
from crisscross_zoo.extract.extractor import default_workers
from crisscross_zoo.files.failures import failure_row


def classify_by_finetuning(plan: Plan, number: int, reporter: Reporter) -> Classified:
    """Train a copy of the encoder and a new linear layer on a fold, and score the fold's test files.

    Args:
        plan: The evaluation.
        number: The fold's number.
        reporter: Gets the progress, and messages about failed files and a damaged checkpoint.

    Raises:
        OutputError: no training file, or no test file, can be used.
        TrainingError: the loss is no longer finite, or the checkpoint belongs to another run.
        MediaError: many files in a row cannot be used.
    """
    config = plan.config.finetune
    assert config is not None
    classifier = _new_classifier(plan)
    workers = default_workers(plan.device) if plan.compute.workers is None else plan.compute.workers
    files, failed = describe_files(
        plan.folds[number].train,
        workers=workers,
        on_file=reporter.stage(f"fold {number}: scanning training files"),
    )
    if not files:
        raise OutputError("no training file can be used", remedy="see the failures", path=plan.data.root)
    test = functools.partial(_tested, plan, classifier, number, reporter)
    late: dict[str, dict[str, str]] = {}
    video = classifier.encoder.config
    assert isinstance(video, VideoConfig)

    losses, accuracies = finetune(
        classifier,
        files,
        config,
        video=video,
        augment=plan.finetuning_augment,
        clips=plan.config.clips.train,
        seed=plan.config.seed,
        folder=plan.folder(number),
        device=plan.device,
        precision=plan.compute.precision,
        workers=workers,
        on_step=reporter.stage(f"fold {number}: finetuning steps"),
        on_failure=lambda failure: late.update({failure["path"]: failure}),
        after_epoch=(lambda _: test().top1) if plan.config.select == "test" else None,
        restart=plan.overwrite,
        on_message=reporter.message,
    )
    epochs = int(best(accuracies)) if accuracies else config.epochs
    tested = test()
    done = dataclasses.replace(
        tested,
        train=len(files),
        failed=[*failed, *late.values(), *tested.failed],
        chosen={"epochs": epochs, "accuracy_by_epoch": text_keys(accuracies), "losses": losses},
    )
    for failure in done.failed:
        reporter.message(f"{failure['path']}: {failure['reason']}")
    return done


def _new_classifier(plan: Plan) -> Classifier:
    """Return a copy of the encoder, set to the clips of the settings, with a new linear layer."""
    clips, config = plan.config.clips, plan.config.finetune
    assert config is not None
    encoder = copy.deepcopy(plan.weights["video"].encoder)
    encoder.config = plan.clip("video")
    with torch.random.fork_rng([]):
        torch.manual_seed(plan.config.seed)
        return encoder.classifier(len(plan.data.classes), pooling=clips.pooling, dropout=config.dropout)


def _tested(plan: Plan, classifier: Classifier, number: int, reporter: Reporter) -> Classified:
    """Score the test files with the classifier in its present state; the result's ``train`` is 0."""
    samples = plan.folds[number].test
    extractor = plan.extractor(encoders={"video": classifier.encoder})
    progress = reporter.stage(f"fold {number}: test files")
    found: dict[str, Floats] = {}
    failed, damaged = [], []
    for path, features in extractor.stream([s.path for s in samples]):
        if isinstance(features, CrissCrossError):
            failed.append(failure_row(os.fspath(path), plan.in_settings(features)))
        else:
            assert features.video is not None
            found[os.fspath(path)] = features.video
            if phrases := features.metadata["warnings"]:
                damaged.append({"path": os.fspath(path), "reason": "; ".join(phrases)})
        progress(len(found) + len(failed), len(samples))
    used = [s for s in samples if s.path in found]
    if not used:
        raise OutputError("no test file can be used", remedy="see the failures", path=plan.data.root)
    rows = Rows.of(np.concatenate([found[s.path] for s in used]))
    return Classified(
        train=0,
        test=used,
        failed=failed,
        damaged=damaged,
        clip_scores=softmax(module_scores(classifier.head, rows)),
        owners=np.repeat(np.arange(len(used)), [len(found[s.path]) for s in used]),
        chosen={},
    )
