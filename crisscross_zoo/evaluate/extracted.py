"""The features of labelled files' clips, as a plan has them: extracted where they are not in the cache yet."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crisscross_zoo.config import AudioConfig, Pooling
from crisscross_zoo.errors import OutputError
from crisscross_zoo.evaluate.datasets import LabelledFile
from crisscross_zoo.evaluate.plan import Plan
from crisscross_zoo.evaluate.probe import FileClips, unit_length
from crisscross_zoo.evaluate.reporter import Reporter
from crisscross_zoo.evaluate.results import labels_of
from crisscross_zoo.evaluate.rows import Floats, Ints, Rows
from crisscross_zoo.evaluate.store import FeatureStore
from crisscross_zoo.files.failures import failure_row
from crisscross_zoo.text import counted


@dataclass(frozen=True)
class Extracted:
    """Clips of files: the files that are of use, and what is wrong with those that are not, or in part."""

    clips: FileClips
    files: list[LabelledFile]
    failed: list[dict[str, str]]
    damaged: list[dict[str, str]]

    @property
    def labels(self) -> Ints:
        """Of each clip."""
        return labels_of(self.files)[self.clips.owners]

    def split(self, held: Collection[str]) -> tuple[Extracted, Extracted]:
        """Return the files that are not in ``held``, and those that are."""
        chosen = np.array([sample.path in held for sample in self.files])
        if not chosen.any() or chosen.all():
            raise OutputError(
                f"no file {'is left to train on' if chosen.any() else 'that is held out can be used'}",
                remedy="see the failures, or pass --layer.epochs 1, which chooses nothing",
            )
        kept, asked = (
            Extracted(self.clips.take(places), [self.files[k] for k in places], [], [])
            for places in (np.flatnonzero(~chosen), np.flatnonzero(chosen))
        )
        return kept, asked


class ClipFeatures:
    """Features of a plan's clips.

    Args:
        plan: What is extracted, and with what.
        reporter: Told of progress, and of files that failed.

    Raises:
        ConfigError: an encoder has a classifier, or is one for another modality.
        OutputError: the cache is damaged.
    """

    def __init__(self, plan: Plan, reporter: Reporter) -> None:
        self._plan, self._reporter = plan, reporter
        self._stores: dict[tuple[Pooling | None, int | None], FeatureStore] = {}
        self.store()  # settings that do not fit are known before anything is read

    def store(self, *, pooling: Pooling | None = None, draw: int | None = None) -> FeatureStore:
        """Return the features of uniformly spread clips, or of a draw of clips at random places.

        Args:
            pooling: Default: the settings'.
            draw: From 0; another one gives other clips. None: spread ones.
        """
        key = (pooling, draw)
        if key not in self._stores:
            plan = self._plan
            extractor = plan.extractor(pooling=pooling, views=None if draw is None else plan.views(draw))
            self._stores[key] = FeatureStore(plan.compute.cache, extractor, weights=plan.sha256)
        return self._stores[key]

    def spread(self, samples: Sequence[LabelledFile], what: str) -> Extracted:
        """Return the clips of test files, uniformly spread; ``what`` names the stage."""
        return self._extracted(self.store(), samples, what)

    def drawn(self, samples: Sequence[LabelledFile], what: str, *, draw: int = 0) -> Extracted:
        """Return a draw of the clips of training files, at random places; ``what`` names the stage."""
        return self._extracted(self.store(draw=draw), samples, what)

    @contextlib.contextmanager
    def epoch(self, number: int, epoch: int) -> Iterator[Extracted]:
        """Give the training clips of an epoch of a fold; those that are not kept are removed once they were used.

        What a stopped run leaves is taken up by the next: the folder's name follows from that of the result.

        Args:
            number: Of the fold.
            epoch: From 1.
        """
        plan, what = self._plan, f"fold {number}: training files"
        samples = plan.folds[number].train
        kept = plan.config.clips.epochs
        if kept:
            draw = (epoch - 1) % kept
            yield self.drawn(samples, what + f", draw {draw + 1} of {kept}" if kept > 1 else what, draw=draw)
            return
        mine = hashlib.sha256(str(plan.folder(number).absolute()).encode()).hexdigest()[:24]
        folder = plan.compute.cache / f"epoch-{mine}"
        extractor = plan.extractor(views=plan.views(epoch - 1))
        store = FeatureStore(folder, extractor, weights=plan.sha256)
        found = self._extracted(store, samples, f"{what} of epoch {epoch}")
        yield found
        found.clips.rows.parts = ()  # Windows removes no file that is mapped
        shutil.rmtree(folder)

    def extract(
        self, store: FeatureStore, samples: Sequence[LabelledFile], what: str
    ) -> tuple[list[LabelledFile], list[dict[str, str]]]:
        """Extract what is not in a store yet.

        Returns:
            The samples whose features are there now, and what went wrong with the others.

        Raises:
            OutputError: that is all of them.
        """
        failures = store.extract(
            [s.path for s in samples], on_file=self._reporter.stage(what), on_wait=self._reporter.message
        )
        failures = {path: self._plan.in_settings(error) for path, error in failures.items()}
        self._reporter.report_failures(failures)
        used = [s for s in samples if s.path not in failures]
        if not used:
            raise OutputError(
                f"none of {counted(len(samples), 'file')} can be used",
                remedy="see the failures",
                path=self._plan.data.root,
            )
        return used, [failure_row(path, error) for path, error in failures.items()]

    def _extracted(self, store: FeatureStore, samples: Sequence[LabelledFile], what: str) -> Extracted:
        files, failed = self.extract(store, samples, what)
        return Extracted(self._clips(store, files), files, failed, store.damage([s.path for s in files]))

    def _clips(self, store: FeatureStore, samples: Sequence[LabelledFile]) -> FileClips:
        """Return the features of clips, normalised, both modalities side by side where there are both."""
        picked = [store.rows(name, [s.path for s in samples]) for name in self._plan.weights]
        return FileClips(Rows([part for part, _ in picked], self._change()), picked[0][1])

    def _change(self) -> Callable[[Floats], Floats] | None:
        """Return what ``clips.normalize`` does to a block of features."""
        normalize = self._plan.config.clips.normalize
        if normalize == "none":
            return None
        if normalize == "l2":
            return unit_length
        encoder = self._plan.weights["audio"].encoder
        assert isinstance(encoder.config, AudioConfig)
        channels = encoder.num_features * -(-encoder.config.n_mels // 32)  # of each, times one after another

        def change(block: Floats) -> Floats:
            maps = unit_length(block.reshape(len(block) * channels, -1))
            return maps.reshape(block.shape)

        return change
