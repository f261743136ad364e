"""One call for any protocol: features, classifier, scores, and everything that is needed to believe the number.

In the folder of a result::

    result.json           accuracies by fold, settings, weights, what was chosen, which files failed
    predictions.parquet   every test file: label, prediction, score of each class
    clips.parquet         every test clip: score of each class
    confusion.png         over all folds
    fold1/finetune.pt     finetuning alone: the checkpoint it goes on from
    fold1/layer.pt        the same of a linear layer whose clips are drawn anew in every epoch
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crisscross_zoo import __version__
from crisscross_zoo.checkpoints.files import state_sha256
from crisscross_zoo.config import MODALITIES, Pooling, VideoConfig
from crisscross_zoo.encoders import Encoder
from crisscross_zoo.errors import ConfigError, CrissCrossError, OutputError
from crisscross_zoo.evaluate.datasets import Fold, LabelledData, Sample, check_no_leak, shared_content
from crisscross_zoo.evaluate.finetune import describe_files, finetune
from crisscross_zoo.evaluate.gallery import Hit, Item, Query
from crisscross_zoo.evaluate.layer import LayerTraining, TrainedLayer
from crisscross_zoo.evaluate.metrics import (
    chance_at,
    file_scores,
    recall_at,
    softmax,
    top_k,
)
from crisscross_zoo.evaluate.probe import (
    FileClips,
    best,
    held_out_accuracies,
    held_out_parts,
    right_files,
    unit_length,
)
from crisscross_zoo.evaluate.progress import load_progress, save_progress
from crisscross_zoo.evaluate.protocols import ProtocolConfig, changed_settings
from crisscross_zoo.evaluate.releases import describe_missing, find_missing
from crisscross_zoo.evaluate.results import (
    RESULT_FILE,
    FoldResult,
    check_out,
    labels_of,
    published,
    summary,
    text_keys,
    write_tables,
)
from crisscross_zoo.evaluate.retrieval import Heads, file_means, nearest
from crisscross_zoo.evaluate.store import FeatureStore, Rows
from crisscross_zoo.evaluate.svm import Hyperplanes, fit_svm
from crisscross_zoo.extract.extractor import FeatureExtractor, default_workers, pick_device
from crisscross_zoo.extract.options import Precision
from crisscross_zoo.files.atomic import write_atomically
from crisscross_zoo.files.failures import failure_row
from crisscross_zoo.files.find import MEDIA_SUFFIXES, VIDEO_SUFFIXES, find_media
from crisscross_zoo.media.clips import Views
from crisscross_zoo.settings import check_path, check_training_precision
from crisscross_zoo.transforms.augment import AUDIO_AUGMENTS, VIDEO_AUGMENTS
from crisscross_zoo.weights.load import load_encoder

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Source = str | os.PathLike[str] | Encoder
Progress = Callable[[str, int, int], None]


LAYER_FILE = "layer.pt"

SHOWN_NEIGHBOURS = 5
"""Neighbours in a gallery, as in Figures S1 and S2."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How an evaluation is computed; but for the precision none of it is meant to change a number.

    Attributes:
        device: "auto", or a torch device.
        precision: Of the encoder: fp32, bf16 or fp16.
        batch_size: Clips a batch in extraction.
        workers: Processes that decode.
        cache: Folder of the features.
    """

    device: str = "auto"
    precision: Precision = "fp32"
    batch_size: int | None = None
    workers: int | None = None
    cache: Path = field(default_factory=lambda: default_cache())


def default_cache() -> Path:
    """Return where features are kept: ``$CRISSCROSS_CACHE``, else ``crisscross_zoo`` in the user's cache folder."""
    if named := os.environ.get("CRISSCROSS_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "crisscross_zoo" / "features"


def check_packages() -> None:
    """Raise a ConfigError unless the packages of the extra "evaluate" are there."""
    for package, name in (("sklearn", "scikit-learn"), ("pyarrow", "pyarrow"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{name} is not installed", remedy='run pip install "crisscross-zoo[evaluate]"')


def evaluate(
    config: ProtocolConfig,
    data: LabelledData,
    weights: Source | Mapping[str, Source],
    *,
    out: str | os.PathLike[str],
    folds: Sequence[int] | None = None,
    compute: Compute | None = None,
    heads: Mapping[str, Heads] | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
    on_queries: Callable[[Mapping[str, Sequence[Query]]], None] | None = None,
) -> dict[str, Any]:
    """Evaluate weights by a protocol, and write what comes of it.

    Args:
        config: The protocol's settings.
        data: Files, labels, folds.
        weights: As in :func:`crisscross_zoo.load_encoder`, or an encoder; or one for each modality.
        out: The result's folder, made if need be.
        folds: Which of the data set's; default: all.
        compute: Device and the like.
        heads: By modality, for retrieval across modalities, see :func:`~crisscross_zoo.evaluate.retrieval.load_heads`.
        overwrite: Replace the result of another evaluation that is there.
        say: Told of what may change how far the numbers are to be trusted, a line each.
        on_progress: Told what is done, how much of it, and how much there is.
        on_queries: Retrieval alone: given the queries of the first fold by direction, with their neighbours.

    Returns:
        What is in ``result.json``.

    Raises:
        ConfigError: a file is in training and test, folds that are not there, or settings that do not fit.
        WeightsError: the weights cannot be had.
        OutputError: the folder holds another evaluation, or no file could be used.
        OSError: it cannot be written.
    """
    check_packages()
    compute = compute or Compute()
    out = Path(out)
    say = say or (lambda _: None)
    for number in folds or ():
        if number not in data.folds:
            raise ConfigError(
                f"{data.name} has no fold {number}", remedy=f"choose from {', '.join(map(str, data.folds))}"
            )
    chosen = {number: data.folds[number] for number in folds or data.folds}
    if len(data.classes) < 2:
        raise ConfigError(
            f"{data.root}: has one class, {data.classes[0]!r}; an evaluation needs two or more",
            remedy="check that FOLDER/CLASS/FILE is a file, without a folder too many above",
        )
    run = _Run(config, data, weights, compute, out, heads, overwrite, say, on_progress)
    identity = run.identity(list(chosen))
    check_out(out / RESULT_FILE, identity, overwrite=overwrite)
    incomplete = find_missing(data, chosen)
    for line in describe_missing(data.name, incomplete):
        say(
            f"{data.root} is not the whole data set, so the paper's number is not put beside the result: {line}"
        )
    for fold in chosen.values():
        check_no_leak(fold)
    shared: dict[int, int] = {}
    digests: dict[str, str] = {}
    for number, fold in chosen.items():
        if same := shared_content(fold, digests):
            shared[number] = len(same)
            say(
                f"fold {number}: {len(same)} test files have the bytes of a training file, such as"
                f" {' and '.join(next(iter(same.items())))}"
            )
    done = []
    for number, fold in chosen.items():
        found = run.retrieve(fold) if config.retrieval else run.classify(number, fold)
        done.append(found)
        if config.retrieval and on_queries is not None and number == next(iter(chosen)):
            on_queries(found.queries)
    result = {
        **identity,
        **run.facts(),
        **({"published": None} if incomplete else {}),
        "incomplete": incomplete,
        "shared_content": shared,
        "absent": list(data.absent),
        **summary(config, data, chosen, done),
    }
    if not config.retrieval:
        write_tables(out, data, chosen, done)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / RESULT_FILE, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
    return result


def search(
    config: ProtocolConfig,
    folder: str | os.PathLike[str],
    queries: Sequence[str],
    weights: Source | Mapping[str, Source],
    *,
    top: int = 5,
    compute: Compute | None = None,
    heads: Mapping[str, Heads] | None = None,
    say: Callable[[str], None] | None = None,
    on_progress: Progress | None = None,
) -> tuple[dict[str, list[Query]], list[dict[str, str]]]:
    """Find the files of a folder that are most like some files; labels are not needed.

    Args:
        config: A retrieval protocol's settings.
        folder: Searched with all folders in it.
        queries: Files; one that lies in the folder is not its own neighbour.
        weights: As for :func:`evaluate`.
        top: Neighbours of each.
        compute: Device and the like.
        heads: As for :func:`evaluate`.
        say: Told of files that failed, a line each.
        on_progress: As for :func:`evaluate`.

    Returns:
        By direction the queries with their neighbours; and which files failed.

    Raises:
        ConfigError: a query is not there, or the folder holds no media.
        WeightsError: the weights cannot be had.
        OutputError: no query, or no file of the folder, can be used.
    """
    check_packages()
    for query in queries:
        if not Path(query).is_file():
            raise ConfigError(f"{query}: there is no such file", remedy="check --query")
    suffixes = MEDIA_SUFFIXES if config.modality == "audio" else VIDEO_SUFFIXES
    asked = {os.path.realpath(query) for query in queries}
    paths = [
        p for p in find_media([os.fspath(folder)], suffixes=suffixes) if os.path.realpath(p) not in asked
    ]
    if not paths:
        raise ConfigError(f"{folder}: has no other media", remedy="name a folder with files to search")
    known, sought = (tuple(Sample(str(p), 0, str(p)) for p in part) for part in (paths, queries))
    data = LabelledData("folder", os.fspath(folder), (), {1: Fold(known, sought)})
    run = _Run(
        config,
        data,
        weights,
        compute or Compute(),
        Path(),
        heads,
        False,
        say or (lambda _: None),
        on_progress,
    )
    done = run.retrieve(data.folds[1], top)
    return done.queries, done.failed


def resolve_weights(weights: Source | Mapping[str, Source], modality: str) -> dict[str, Source]:
    """Return the weights of each modality; the folder of a pretraining run stands for the encoders in it."""
    wanted = MODALITIES if modality == "both" else (modality,)
    if isinstance(weights, Mapping):
        if lacking := [m for m in wanted if m not in weights]:
            raise ConfigError(f"weights has no {lacking[0]!r}", remedy="add it, or use another modality")
        return {m: weights[m] for m in wanted}
    if isinstance(weights, Encoder):
        return dict.fromkeys(wanted, weights)
    found: dict[str, Source] = {}
    check_path("weights", weights)
    for m in wanted:
        inside = Path(weights) / m
        found[m] = inside if inside.is_dir() else weights
    return found


class _Run:
    """One evaluation: its settings, and the steps of a fold."""

    def __init__(
        self,
        config: ProtocolConfig,
        data: LabelledData,
        weights: Source | Mapping[str, Source],
        compute: Compute,
        out: Path,
        heads: Mapping[str, Heads] | None,
        overwrite: bool,
        say: Callable[[str], None],
        on_progress: Progress | None,
    ) -> None:
        self.config, self.data, self.compute, self.out = config, data, compute, out
        self.heads, self.say, self.on_progress = heads, say, on_progress
        self.device = pick_device(compute.device)
        if config.finetune is not None:  # known before anything is read
            check_training_precision(self.device.type, compute.precision)
        self.weights = resolve_weights(weights, config.modality)
        of_run = isinstance(weights, str | os.PathLike) and list(self.weights.values()) != [weights] * len(
            self.weights
        )
        self.run_name = Path(cast(Any, weights)).resolve().name if of_run else None
        self.known: dict[str, dict[str, str | None]] = {}
        self._told: set[str] = set()
        self.overwrite = overwrite
        self._stores: dict[tuple[bool, str, int], FeatureStore] = {}
        if config.finetune is None:
            self.store(random=False)  # weights that cannot be had are known before anything is read

    def identity(self, folds: list[int]) -> dict[str, Any]:
        """Return what the numbers depend on, besides the files."""
        config = self.config
        if config.finetune is not None:
            encoder = self._encoder("video", "max")
            sha256 = encoder.weights_sha256
            if isinstance(self.weights["video"], Encoder):  # it may have been trained since it was loaded
                sha256 = state_sha256(encoder.state_dict(), encoder.config)
            self.known = {"video": {"id": encoder.weights_id, "sha256": sha256}}
        settings = config.to_dict()
        return {
            "protocol": config.protocol,
            "dataset": config.dataset,
            "setup": config.setup,
            "weights": self.known,
            "run": self.run_name,
            "select": config.select,
            "released": config.released,
            "source": config.source,
            "root": str(Path(self.data.root).absolute()),
            "folds_evaluated": folds,
            "settings": {k: v for k, v in settings.items() if isinstance(v, dict)} | {"seed": config.seed},
            "changed": changed_settings(config),
            "precision": self.compute.precision,
        }

    def facts(self) -> dict[str, Any]:
        return {
            "published": published(self.config, self.weights),
            "device": self.device.type,
            "versions": {"crisscross_zoo": __version__, "torch": torch.__version__, "numpy": np.__version__},
        }

    def store(self, *, random: bool, pooling: Pooling | None = None, draw: int = 0) -> FeatureStore:
        """Return the features of clips at random places, augmented, or uniformly spread ones.

        Args:
            random: Which of the two.
            pooling: Default: the settings'.
            draw: Of the clips at random places: another one gives others.
        """
        key = (random, pooling or self.config.clips.pooling, draw)
        if key not in self._stores:
            extractor = self._extractor(*key)
            self.known = extractor.weights
            self._stores[key] = FeatureStore(self.compute.cache, extractor)
        return self._stores[key]

    def _extractor(self, random: bool, pooling: Pooling, draw: int) -> FeatureExtractor:
        clips, config = self.config.clips, self.config
        options: dict[str, Any] = {}
        if config.modality != "audio":
            options |= {"frames": clips.frames, "fps": clips.fps, "size": clips.size}
        if config.modality != "video":
            options |= {"audio_seconds": clips.seconds}
        if random:
            options["views"] = dataclasses.replace(self.views(), epoch=draw)
        return FeatureExtractor(
            self.weights,
            cast(Any, config.modality),
            device=self.device,
            pooling=pooling,
            precision=self.compute.precision,
            clips=clips.train if random else clips.test,
            batch_size=self.compute.batch_size,
            workers=self.compute.workers,
            **options,
        )

    def views(self) -> Views:
        """Return the augmentation of training clips: Tables S1 and S2, as Tables S3 and S4 tick them."""
        if not self.config.clips.augment:
            return Views(video=None, audio=None, seed=self.config.seed)
        video = dataclasses.replace(VIDEO_AUGMENTS["linear"], released=self.config.released)
        audio = dataclasses.replace(AUDIO_AUGMENTS["linear"], released=self.config.released)
        return Views(video=video, audio=audio, seed=self.config.seed)

    def _encoder(self, modality: str, pooling: Pooling) -> Encoder:
        source = self.weights[modality]
        if not isinstance(source, Encoder):
            return load_encoder(cast(Any, modality), source, pooling=pooling)
        return source.with_pooling(pooling)

    # --- classification ----------------------------------------------------------------------------------------

    def classify(self, number: int, fold: Fold) -> FoldResult:
        """Train on a fold and score its test files."""
        if self.config.finetune is not None:
            return self._finetune(number, fold)
        if self.config.layer is not None:
            return self._layer(number, fold)
        drawn = self._extracted(self.store(random=True), fold.train, f"fold {number}: training clips")
        tested = self._extracted(self.store(random=False), fold.test, f"fold {number}: test clips")
        done = FoldResult(len(drawn.files), tested.files, drawn.failed + tested.failed)
        done.damaged = drawn.damaged + tested.damaged
        done.clip_scores, done.chosen = self._svm(drawn.clips, drawn.files, tested.clips, tested.files)
        done.owners = tested.clips.owners
        done.scores = file_scores(done.clip_scores, done.owners)
        return done

    def _svm(
        self, known: FileClips, train: list[Sample], asked: FileClips, test: list[Sample]
    ) -> tuple[Floats, dict[str, Any]]:
        svm, labels = self.config.svm, labels_of(train)
        assert svm is not None
        classes = len(self.data.classes)

        def on_pass(passes: int) -> None:
            self._tell("SVM: passes over the training clips", passes, 0)

        machines = fit_svm(
            known.rows,
            labels[known.owners],
            classes,
            svm.costs,
            tolerance=svm.tolerance,
            device=self.device,
            on_pass=on_pass,
        )
        if self.config.select == "test":
            found = [(self._solved(m), right_files(m, asked, labels_of(test)) / len(test)) for m in machines]
            accuracies = {m.cost: accuracy for m, accuracy in found}
            cost = best(accuracies)
            machine = next(m for m, _ in found if m.cost == cost)
            return machine.scores(asked.rows), {"cost": cost, "accuracy_by_cost": text_keys(accuracies)}
        accuracies = {}
        cost = svm.costs[0]
        if len(svm.costs) > 1:
            accuracies = held_out_accuracies(
                known,
                labels,
                classes,
                svm.costs,
                groups=[s.group for s in train],
                parts=svm.parts,
                seed=self.config.seed,
                device=str(self.device),
                on_pass=on_pass,
            )
            cost = best(accuracies)
        (machine,) = fit_svm(
            known.rows,
            labels[known.owners],
            classes,
            [cost],
            tolerance=svm.tolerance,
            device=self.device,
            on_pass=on_pass,
        )
        return self._solved(machine).scores(asked.rows), {
            "cost": cost,
            "accuracy_by_cost": text_keys(accuracies),
        }

    def _solved(self, machine: Hyperplanes) -> Hyperplanes:
        if not machine.solved:
            self.say(
                f"the SVM of cost {machine.cost:g} is not solved to svm.tolerance (gradient {machine.gradient:.1e})"
            )
        return machine

    def _layer(self, number: int, fold: Fold) -> FoldResult:
        """Train a linear layer on a fold, an epoch on each draw of the training clips, and score its test files.

        Where the epoch is chosen among training files, a second layer is trained beside it on those that are not held
        out: both see the same clips, which are extracted once.
        """
        layer = self.config.layer
        assert layer is not None
        tested = self._extracted(self.store(random=False), fold.test, f"fold {number}: test clips")
        held: set[str] = set()
        if self.config.select == "train" and layer.epochs > 1:
            groups = [s.group for s in fold.train]
            _, places = next(held_out_parts(labels_of(fold.train), groups, seed=self.config.seed))
            held = {fold.train[k].path for k in places}
        size = tested.clips.rows.shape[1]
        trainings = {
            name: LayerTraining(
                size, len(self.data.classes), layer, seed=self.config.seed, device=self.device
            )
            for name in ("all", *["kept"] * bool(held))
        }
        state: dict[str, Any] = {"accuracies": {}, "best": {}, "failed": {}, "damaged": {}, "files": 0}
        folder = self.out / f"fold{number}"
        redrawn = self.config.clips.epochs != 1
        identity = json.dumps(
            {
                "settings": self.config.to_dict(),
                "precision": self.compute.precision,
                "device": self.device.type,
                "weights": {name: known["sha256"] for name, known in self.known.items()},
                "files": [[s.path, s.label] for s in (*fold.train, *fold.test)],
            }
        )
        if redrawn:
            before = load_progress(
                folder / LAYER_FILE, identity, {*state, *trainings}, restart=self.overwrite, say=self.say
            )
            if before is not None:
                state = {name: before[name] for name in state}
                for name, training in trainings.items():
                    training.load_state_dict(before[name])
        accuracies: dict[int, float] = state["accuracies"]

        def train_on(drawn: _Extracted, epoch: int) -> None:
            state["failed"] |= {row["path"]: row for row in drawn.failed}
            state["damaged"] |= {row["path"]: row for row in drawn.damaged}
            state["files"] = max(state["files"], len(drawn.files))
            trained = trainings["all"].train_epoch(drawn.clips.rows, drawn.labels)
            if held:
                kept, asked = drawn.split(held)
                judged = trainings["kept"].train_epoch(kept.clips.rows, kept.labels)
                accuracies[epoch] = _layer_accuracy(judged, asked)
            elif self.config.select == "test":
                accuracies[epoch] = _layer_accuracy(trained, tested)
            if accuracies and best(accuracies) == epoch:
                state["best"] = copy.deepcopy(trained.module.state_dict())

        for epoch in range(trainings["all"].epoch + 1, layer.epochs + 1):
            with self._drawn(number, fold.train, epoch) as drawn:
                train_on(drawn, epoch)
                if redrawn:
                    states = {name: training.state_dict() for name, training in trainings.items()}
                    save_progress(folder / LAYER_FILE, identity, {**state, **states})
            self._tell("linear layer: epochs", epoch, layer.epochs)
        module = trainings["all"].module
        if accuracies:
            module.load_state_dict(state["best"])
        done = FoldResult(state["files"], tested.files, [*state["failed"].values(), *tested.failed])
        done.damaged = [*state["damaged"].values(), *tested.damaged]
        done.clip_scores = softmax(_module_scores(module, tested.clips.rows, self.device))
        done.owners = tested.clips.owners
        done.scores = file_scores(done.clip_scores, done.owners)
        epochs = int(best(accuracies)) if accuracies else layer.epochs
        done.chosen = {"epochs": epochs, "accuracy_by_epoch": text_keys(accuracies)}
        return done

    @contextlib.contextmanager
    def _drawn(self, number: int, samples: Sequence[Sample], epoch: int) -> Iterator[_Extracted]:
        """Give the training clips of an epoch, from 1; those that are not kept are removed once they were used.

        What a stopped run leaves is taken up by the next: the folder's name follows from that of the result.
        """
        kept = self.config.clips.epochs
        if kept:
            what = f"fold {number}: training clips" + f", draw {(epoch - 1) % kept + 1} of {kept}" * (
                kept > 1
            )
            yield self._extracted(self.store(random=True, draw=(epoch - 1) % kept), samples, what)
            return
        mine = hashlib.sha256(f"{self.out.absolute()}/fold{number}".encode()).hexdigest()[:24]
        folder = self.compute.cache / f"epoch-{mine}"
        extractor = self._extractor(True, self.config.clips.pooling, epoch - 1)
        found = self._extracted(
            FeatureStore(folder, extractor), samples, f"fold {number}: training clips of epoch {epoch}"
        )
        yield found
        found.clips.rows.parts = ()  # Windows removes no file that is mapped
        shutil.rmtree(folder)

    def _finetune(self, number: int, fold: Fold) -> FoldResult:
        config, clips = self.config.finetune, self.config.clips
        assert config is not None
        encoder = copy.deepcopy(self._encoder("video", clips.pooling))  # the caller's is not trained
        own = encoder.config
        assert isinstance(own, VideoConfig)
        video = own.replace(frames=clips.frames, fps=clips.fps, size=clips.size)
        encoder.config = video
        with torch.random.fork_rng([]):
            torch.manual_seed(self.config.seed)
            classifier = encoder.classifier(
                len(self.data.classes), pooling=clips.pooling, dropout=config.dropout
            )
        augment = VIDEO_AUGMENTS["finetuning"] if clips.augment else None
        if augment is not None and self.config.released:
            augment = dataclasses.replace(augment, released=True)

        def test() -> FoldResult:
            extractor = FeatureExtractor(
                classifier.encoder,
                "video",
                device=self.device,
                precision=self.compute.precision,
                clips=clips.test,
                frames=clips.frames,
                fps=clips.fps,
                size=clips.size,
                batch_size=self.compute.batch_size,
                workers=self.compute.workers,
            )
            found: dict[str, Floats] = {}
            done = FoldResult(len(fold.train), [], [])
            for path, features in extractor.stream([s.path for s in fold.test]):
                if isinstance(features, CrissCrossError):
                    done.failed.append(failure_row(os.fspath(path), features))
                else:
                    assert features.video is not None
                    found[os.fspath(path)] = features.video
                    if phrases := features.metadata["warnings"]:
                        done.damaged.append({"path": os.fspath(path), "reason": "; ".join(phrases)})
                self._tell(f"fold {number}: test files", len(found) + len(done.failed), len(fold.test))
            done.test = [s for s in fold.test if s.path in found]
            if not done.test:
                raise OutputError("no test file can be used", remedy="see the failures", path=self.data.root)
            rows = Rows.of(np.concatenate([found[s.path] for s in done.test]))
            done.owners = np.repeat(np.arange(len(done.test)), [len(found[s.path]) for s in done.test])
            done.clip_scores = softmax(_module_scores(classifier.head, rows, self.device))
            done.scores = file_scores(done.clip_scores, done.owners)
            return done

        def after_epoch(_: int) -> float:
            done = test()
            assert done.scores is not None
            return top_k(done.scores, labels_of(done.test), 1)

        workers = default_workers(self.device) if self.compute.workers is None else self.compute.workers
        files, failed = describe_files(
            fold.train,
            workers=workers,
            on_file=lambda done, total: self._tell(f"fold {number}: scanning training files", done, total),
        )
        late: dict[str, dict[str, str]] = {}
        if not files:
            raise OutputError("no training file can be used", remedy="see the failures", path=self.data.root)
        losses, accuracies = finetune(
            classifier,
            files,
            config,
            video=video,
            augment=augment,
            clips=clips.train,
            seed=self.config.seed,
            folder=self.out / f"fold{number}",
            device=self.device,
            precision=self.compute.precision,
            workers=workers,
            on_step=lambda step, steps: self._tell(f"fold {number}: finetuning steps", step, steps),
            on_failure=lambda failure: late.update({failure["path"]: failure}),
            after_epoch=after_epoch if self.config.select == "test" else None,
            restart=self.overwrite,
            say=self.say,
        )
        epoch = int(best(accuracies)) if accuracies else config.epochs
        done = test()
        done.failed = [*failed, *late.values(), *done.failed]
        done.train = len(files)
        for failure in done.failed:
            self.say(f"{failure['path']}: {failure['reason']}")
        done.chosen = {"epochs": epoch, "accuracy_by_epoch": text_keys(accuracies), "losses": losses}
        return done

    # --- retrieval ---------------------------------------------------------------------------------------------

    def retrieve(self, fold: Fold, shown: int = SHOWN_NEIGHBOURS) -> FoldResult:
        """Query the training files of a fold with its test files, in every direction.

        Without classes there is nothing to be right or wrong: no recall.
        """
        both = fold.train + fold.test
        store = self.store(random=False)
        used, failed = self._extract(store, both, "clips")
        spaces = {f"{modality}-to-{modality}": store for modality in self.weights}
        if self.heads and len(self.weights) == 2:
            projected = self.store(random=False, pooling="avg")
            used, more = self._extract(projected, used, "clips, average-pooled")
            failed += more
            spaces |= {"video-to-audio": projected, "audio-to-video": projected}
        there = {s.path for s in used}
        train, test = ([s for s in part if s.path in there] for part in (fold.train, fold.test))
        for part, what in ((train, "file to search"), (test, "query")):
            if not part:
                raise OutputError(f"no {what} can be used: {failed[0]['reason']}", path=failed[0]["path"])
        done = FoldResult(len(train), test, failed, store.damage([s.path for s in used]))
        ks = self.config.retrieval.ks if self.config.retrieval else ()
        for direction, found in spaces.items():
            asker, known = direction.split("-to-")
            crossing = asker != known
            heads = self.heads if crossing and self.heads else {}
            places, cosines = nearest(
                file_means(self._clips_of(found, known, train), heads[known].projector if heads else None),
                file_means(self._clips_of(found, asker, test), heads.get(asker)),
                max(shown, *ks),
            )
            if self.data.classes:
                done.recall[direction] = recall_at(labels_of(train)[places], labels_of(test), ks)
                done.chance = chance_at(labels_of(train), labels_of(test), ks)
            done.queries[direction] = [
                Query(
                    self._item(sample),
                    tuple(Hit(self._item(train[p]), float(c)) for p, c in zip(near, close, strict=True)),
                )
                for sample, near, close in zip(test, places[:, :shown], cosines[:, :shown], strict=True)
            ]
        return done

    def _item(self, sample: Sample) -> Item:
        return Item(sample.path, self.data.classes[sample.label] if self.data.classes else None)

    # --- features ----------------------------------------------------------------------------------------------

    def _extract(
        self, store: FeatureStore, samples: Sequence[Sample], what: str
    ) -> tuple[list[Sample], list[dict[str, str]]]:
        """Return the samples whose features are there now, and what went wrong with the others."""
        failures = store.extract(
            [s.path for s in samples],
            on_file=lambda done, total: self._tell(what, done, total),
            on_wait=self.say,
        )
        used = [s for s in samples if s.path not in failures]
        for path, error in failures.items():
            if path not in self._told:  # it may be in several folds
                self.say(str(error) if error.path else f"{path}: {error}")
            self._told.add(path)
        if not used:
            raise OutputError(
                f"none of the {len(samples)} files can be used",
                remedy="see the failures",
                path=self.data.root,
            )
        return used, [failure_row(path, error) for path, error in failures.items()]

    def _clips_of(self, store: FeatureStore, modality: str, samples: Sequence[Sample]) -> FileClips:
        part, owners = store.rows(modality, [s.path for s in samples])
        return FileClips(Rows([part]), owners)

    def _extracted(self, store: FeatureStore, samples: Sequence[Sample], what: str) -> _Extracted:
        """Extract what is not in the store yet, and return what is of use."""
        files, failed = self._extract(store, samples, what)
        return _Extracted(self._clips(store, files), files, failed, store.damage([s.path for s in files]))

    def _clips(self, store: FeatureStore, samples: Sequence[Sample]) -> FileClips:
        """Return the features of clips, normalised, both modalities side by side where there are both."""
        picked = [store.rows(name, [s.path for s in samples]) for name in self.weights]
        change: Callable[[Floats], Floats] | None = None
        if self.config.clips.normalize == "l2":
            change = unit_length
        elif self.config.clips.normalize == "l2-time":
            encoder = store.extractor.encoders["audio"]
            bands = -(-store.extractor.encoders["audio"].config.to_dict()["n_mels"] // 32)
            channels = encoder.num_features * bands

            def change(block: Floats) -> Floats:
                maps = unit_length(block.reshape(len(block) * channels, -1))
                return maps.reshape(block.shape)

        return FileClips(Rows([part for part, _ in picked], change), picked[0][1])

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(what, done, total)


@dataclass(frozen=True)
class _Extracted:
    """Clips of files: the files that are of use, and what is wrong with those that are not, or in part."""

    clips: FileClips
    files: list[Sample]
    failed: list[dict[str, str]]
    damaged: list[dict[str, str]]

    @property
    def labels(self) -> Ints:
        """Of each clip."""
        return labels_of(self.files)[self.clips.owners]

    def split(self, held: Collection[str]) -> tuple[_Extracted, _Extracted]:
        """Return the files that are not in ``held``, and those that are."""
        chosen = np.array([sample.path in held for sample in self.files])
        if not chosen.any() or chosen.all():
            raise OutputError(
                f"no file {'is left to train on' if chosen.any() else 'that is held out can be used'}",
                remedy="see the failures, or pass --layer.epochs 1, which chooses nothing",
            )
        kept, asked = (
            _Extracted(self.clips.take(places), [self.files[k] for k in places], [], [])
            for places in (np.flatnonzero(~chosen), np.flatnonzero(chosen))
        )
        return kept, asked


def _layer_accuracy(trained: TrainedLayer, asked: _Extracted) -> float:
    """Return the share of files whose own class has the highest mean probability."""
    scores = file_scores(softmax(trained.scores(asked.clips.rows)), asked.clips.owners)
    return top_k(scores, labels_of(asked.files), 1)


def _module_scores(module: nn.Module, rows: Rows, device: torch.device) -> Floats:
    """Return logits of rows, float32 (n, K)."""
    with torch.inference_mode():
        found = [
            module(torch.from_numpy(block).to(device)).float().cpu().numpy() for _, block in rows.blocks()
        ]
    return np.concatenate(found)
