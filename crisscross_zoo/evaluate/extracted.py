"""The clip features of labelled files, with a plan's settings: read from the cache, or extracted first."""

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
    """The clips of files.

    Attributes:
        clips: The clips' features.
        files: The files that could be used.
        failed: A row for each file that failed, see :func:`crisscross_zoo.files.failures.failure_row`.
        damaged: A row for each file that was only partly read: path and reason.
    """

    clips: FileClips
    files: list[LabelledFile]
    failed: list[dict[str, str]]
    damaged: list[dict[str, str]]

    @property
    def labels(self) -> Ints:
        """The label of each clip, (n,)."""
        return labels_of(self.files)[self.clips.owners]

    def split(self, held_out: Collection[str]) -> tuple[Extracted, Extracted]:
        """Return the files whose paths are not in ``held_out``, and those whose paths are.

        Raises:
            OutputError: one of the two is empty.
        """
        chosen = np.array([sample.path in held_out for sample in self.files])
        if not chosen.any() or chosen.all():
            raise OutputError(
                "no training file is left beside the held-out files"
                if chosen.any()
                else "no held-out file can be used",
                remedy="see the failures, or pass --layer.epochs 1, which needs no held-out files",
            )
        kept, validation = (
            Extracted(self.clips.take(indices), [self.files[k] for k in indices], [], [])
            for indices in (np.flatnonzero(~chosen), np.flatnonzero(chosen))
        )
        return kept, validation


class ClipFeatures:
    """The features of a plan's clips.

    Args:
        plan: The files, the weights and the settings.
        reporter: Gets the progress, and messages about failed files.

    Raises:
        ConfigError: an encoder has a classifier, or is for another modality.
        OutputError: the cache is damaged.
    """

    def __init__(self, plan: Plan, reporter: Reporter) -> None:
        self._plan, self._reporter = plan, reporter
        self._stores: dict[tuple[Pooling | None, int | None], FeatureStore] = {}
        self.store()  # settings that do not fit raise before anything is read

    def store(self, *, pooling: Pooling | None = None, draw: int | None = None) -> FeatureStore:
        """Return the feature store of uniform clips, or of one draw of clips with random windows.

        Args:
            pooling: Pooling of the features; default: that of the settings.
            draw: Number of the draw, from 0; each draw has other clips. None: uniform clips.
        """
        key = (pooling, draw)
        if key not in self._stores:
            plan = self._plan
            extractor = plan.extractor(pooling=pooling, views=None if draw is None else plan.views(draw))
            self._stores[key] = FeatureStore(plan.compute.cache, extractor, weights=plan.sha256)
        return self._stores[key]

    def uniform(self, samples: Sequence[LabelledFile], what: str) -> Extracted:
        """Return uniform clips of test files; ``what`` names the stage."""
        return self._extracted(self.store(), samples, what)

    def drawn(self, samples: Sequence[LabelledFile], what: str, *, draw: int = 0) -> Extracted:
        """Return one draw of clips of training files, with random windows; ``what`` names the stage."""
        return self._extracted(self.store(draw=draw), samples, what)

    @contextlib.contextmanager
    def epoch(self, number: int, epoch: int) -> Iterator[Extracted]:
        """Yield the training clips of one epoch of a fold; features that are not kept are removed after use.

        The folder's name is derived from the result's folder, so a resumed run reuses the features that an
        interrupted run left.

        Args:
            number: The fold's number.
            epoch: The epoch, from 1.
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
        found.clips.rows.matrices = ()  # Windows removes no file that is mapped
        shutil.rmtree(folder)

    def extract(
        self, store: FeatureStore, samples: Sequence[LabelledFile], what: str
    ) -> tuple[list[LabelledFile], list[dict[str, str]]]:
        """Extract the samples that are not in a store yet.

        Returns:
            The samples whose features are in the store now, and a row for each sample that failed.

        Raises:
            OutputError: all samples failed.
        """
        failures = store.extract(
            [s.path for s in samples], on_file=self._reporter.stage(what), on_wait=self._reporter.message
        )
        failures = {path: self._plan.in_settings(error) for path, error in failures.items()}
        self._reporter.report_failures(failures)
        used = [s for s in samples if s.path not in failures]
        if not used:
            raise OutputError(
                f"none of the {counted(len(samples), 'file')} can be used",
                remedy="see the failures",
                path=self._plan.data.root,
            )
        return used, [failure_row(path, error) for path, error in failures.items()]

    def _extracted(self, store: FeatureStore, samples: Sequence[LabelledFile], what: str) -> Extracted:
        files, failed = self.extract(store, samples, what)
        return Extracted(self._clips(store, files), files, failed, store.damage([s.path for s in files]))

    def _clips(self, store: FeatureStore, samples: Sequence[LabelledFile]) -> FileClips:
        """Return the normalised features of clips; with two modalities their features are concatenated."""
        picked = [store.rows(name, [s.path for s in samples]) for name in self._plan.weights]
        return FileClips(Rows([matrix for matrix, _ in picked], self._change()), picked[0][1])

    def _change(self) -> Callable[[Floats], Floats] | None:
        """Return the function that ``clips.normalize`` applies to a block of features; None for "none"."""
        normalize = self._plan.config.clips.normalize
        if normalize == "none":
            return None
        if normalize == "l2":
            return unit_length
        encoder = self._plan.weights["audio"].encoder
        assert isinstance(encoder.config, AudioConfig)
        channels = encoder.num_features * -(-encoder.config.n_mels // 32)  # each with its time steps in a row

        def change(block: Floats) -> Floats:
            maps = unit_length(block.reshape(len(block) * channels, -1))
            return maps.reshape(block.shape)

        return change
