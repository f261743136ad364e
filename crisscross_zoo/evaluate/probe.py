"""Linear probes on features: a scikit-learn estimator that is trained on clips and answers for files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.evaluate.metrics import file_scores
from crisscross_zoo.evaluate.protocols import COSTS, Normalize
from crisscross_zoo.evaluate.store import Rows
from crisscross_zoo.evaluate.svm import Hyperplanes, fit_svm
from crisscross_zoo.features import Features

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ConfigError(
        "scikit-learn is not installed", remedy='run pip install "crisscross-zoo[evaluate]"'
    ) from None

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SELECTION_PARTS = 5
"""Parts that the training files are split into, to be held out when something is chosen."""

SELECTION_TOLERANCE = 1e-2
"""Tolerance of machines that only serve to choose the cost."""


@dataclass(frozen=True)
class FileClips:
    """Clips of files.

    Attributes:
        rows: One a clip, (n, D).
        owners: Number of each clip's file, ascending, none left out: (n,).
    """

    rows: Rows
    owners: Ints

    @property
    def files(self) -> int:
        """How many files there are."""
        return int(self.owners[-1]) + 1

    def take(self, files: Ints) -> FileClips:
        """Return the clips of some files, numbered anew in their order (ascending)."""
        number = np.full(self.files, -1)
        number[files] = np.arange(len(files))
        kept = np.flatnonzero(number[self.owners] >= 0)
        return FileClips(self.rows.take(kept), number[self.owners[kept]])

    @classmethod
    def of(cls, files: Any) -> FileClips:
        """Make clips of what :class:`LinearProbe` takes.

        Raises:
            InputError: there are none, or files differ in what they have.
        """
        if isinstance(files, FileClips):
            return files
        if isinstance(files, np.ndarray) and files.ndim == 2:
            return cls(Rows.of(files), np.arange(len(files)))
        arrays = [_array(file) for file in files]
        if not arrays or len({a.shape[1] for a in arrays}) != 1:
            raise InputError(
                f"files with features of lengths {sorted({a.shape[1] for a in arrays})}",
                remedy="pass one file or more, all extracted in the same way",
            )
        owners = np.repeat(np.arange(len(arrays)), [len(a) for a in arrays])
        if len(np.unique(owners)) < len(arrays):
            raise InputError("a file has no clips", remedy="leave it out")
        return cls(Rows.of(np.concatenate(arrays)), owners)


def _array(file: Any) -> Floats:
    """Features of one file as (clips, D): video and sound side by side where there are both."""
    if isinstance(file, Features):
        found = [a for a in (file.video, file.audio) if a is not None]
        if not found or len({len(a) for a in found}) != 1:
            raise InputError(
                f"{file!r} has not as many rows of video as of sound", remedy="extract both with clips=N"
            )
        return np.concatenate(found, axis=1)
    array = np.asarray(file, np.float32)
    return array[None] if array.ndim == 1 else array


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A linear SVM (one against all) on the features of clips, whose scores are averaged over the clips of a file.

    A scikit-learn classifier: it clones, goes into pipelines and grid searches. Where several costs are given, the
    best is chosen by cross-validation over the training *files* (section E.1 chooses it on the test files).

    >>> from crisscross_zoo.evaluate.probe import LinearProbe
    >>> probe = LinearProbe().fit(train_features, train_labels)     # lists of Features    # doctest: +SKIP
    >>> probe.predict(test_features), probe.score(test_features, test_labels)              # doctest: +SKIP

    Args:
        costs: C of the SVM, one or several to choose from.
        tolerance: Relative norm of the gradient at which it is solved.
        parts: How many of :data:`SELECTION_PARTS` parts are held out in turn to choose the cost.
        normalize: "none", or "l2" to bring each clip's features to length 1.
        seed: Of the parts that are held out.
        device: Where it is computed.

    Attributes:
        classes_: The labels, sorted.
        coef_: float32, (K, D).
        intercept_: float32, (K,).
        cost_: The cost that was chosen.
        accuracies_: Accuracy on held-out files by cost; empty with one cost.
    """

    def __init__(
        self,
        costs: Sequence[float] = COSTS,
        *,
        tolerance: float = 1e-4,
        parts: int = SELECTION_PARTS,
        normalize: Normalize = "none",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.costs = costs
        self.tolerance = tolerance
        self.parts = parts
        self.normalize = normalize
        self.seed = seed
        self.device = device

    def fit(self, X: Any, y: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Self:  # noqa: N803
        """Train.

        Args:
            X: Files: a list of :class:`~crisscross_zoo.Features` or of arrays (clips, D); an array (n, D) is n files
                of one clip.
            y: Label of each file.
            groups: Files of one group are never held out apart; default: each file is its own.

        Raises:
            InputError: ``X`` and ``y`` do not fit together.
            ConfigError: no cost can be chosen, since a class has one file alone.
        """
        clips = _normalized(FileClips.of(X), self.normalize)
        self.classes_, labels = np.unique(np.asarray(y), return_inverse=True)
        if len(labels) != clips.files or len(self.classes_) < 2:
            raise InputError(
                f"{clips.files} files, {len(labels)} labels of {len(self.classes_)} classes",
                remedy="pass a label for each file, and two classes or more",
            )
        costs = [float(c) for c in self.costs]
        self.accuracies_: dict[float, float] = {}
        if len(costs) > 1:
            self.accuracies_ = held_out_accuracies(
                clips,
                labels,
                len(self.classes_),
                costs,
                groups=groups,
                parts=self.parts,
                seed=self.seed,
                device=self.device,
            )
            costs = [best(self.accuracies_)]
        (self._planes,) = fit_svm(
            clips.rows,
            labels[clips.owners],
            len(self.classes_),
            costs,
            tolerance=self.tolerance,
            device=self.device,
        )
        self.cost_ = self._planes.cost
        self.coef_, self.intercept_ = self._planes.weights.T, self._planes.bias
        return self

    def clip_scores(self, X: Any) -> Floats:  # noqa: N803
        """Return decision values of clips, float32 (n, K)."""
        check_is_fitted(self)
        rows = _normalized(FileClips.of(X), self.normalize).rows
        if rows.shape[1] != self.coef_.shape[1]:
            raise InputError(
                f"clips of {rows.shape[1]} numbers; it was trained on {self.coef_.shape[1]}",
                remedy="extract both in the same way",
            )
        return self._planes.scores(rows)

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return decision values of files: float64 (files, K), the mean over the clips of each."""
        clips = FileClips.of(X)
        return file_scores(self.clip_scores(clips), clips.owners)

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the label of each file."""
        found: npt.NDArray[Any] = self.classes_[self.decision_function(X).argmax(axis=1)]
        return found


def held_out_parts(
    labels: Ints, groups: npt.ArrayLike | None = None, *, seed: int = 0
) -> Iterator[tuple[Ints, Ints]]:
    """Split files into parts with like shares of the classes; groups stay together.

    Yields:
        For each part the files to train on and the files held out, ascending.

    Raises:
        ConfigError: there are not two files, or groups, of each class.
    """
    own = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    smallest = min(len(np.unique(own[labels == k])) for k in np.unique(labels))
    parts = min(SELECTION_PARTS, smallest)
    if parts < 2:
        raise ConfigError(
            "nothing can be chosen on files held out: a class has one training file, or group, alone",
            remedy="pass one cost (or number of epochs), or add files",
        )
    alone = len(np.unique(own)) == len(own)  # then groups change nothing, and are slow
    splitter = (StratifiedKFold if alone else StratifiedGroupKFold)(parts, shuffle=True, random_state=seed)
    for train, held in splitter.split(labels, labels, None if alone else own):
        yield np.sort(train), np.sort(held)


def held_out_accuracies(
    clips: FileClips,
    labels: Ints,
    classes: int,
    costs: Sequence[float],
    *,
    groups: npt.ArrayLike | None = None,
    parts: int = SELECTION_PARTS,
    seed: int = 0,
    device: str = "cpu",
    on_pass: Callable[[int], None] | None = None,
) -> dict[float, float]:
    """Return the accuracy of each cost on files held out of training, over the first ``parts`` parts of them."""
    right = dict.fromkeys(sorted(costs), 0)
    total = 0
    for train, held in itertools.islice(held_out_parts(labels, groups, seed=seed), parts):
        known, asked = clips.take(train), clips.take(held)
        planes = fit_svm(
            known.rows,
            labels[train][known.owners],
            classes,
            costs,
            tolerance=SELECTION_TOLERANCE,
            device=device,
            on_pass=on_pass,
        )
        total += len(held)
        for machine in planes:
            right[machine.cost] += right_files(machine, asked, labels[held])
    return {cost: count / total for cost, count in right.items()}


def right_files(machine: Hyperplanes, clips: FileClips, labels: Ints) -> int:
    """Return how many files are given their own label."""
    scores = file_scores(machine.scores(clips.rows), clips.owners)
    return int((scores.argmax(axis=1) == labels).sum())


def best(accuracies: Mapping[Any, float]) -> Any:
    """Return the cost (or epoch) with the highest accuracy; of equal ones the lowest."""
    return max(sorted(accuracies), key=accuracies.__getitem__)


def _normalized(clips: FileClips, normalize: Normalize) -> FileClips:
    if normalize == "none":
        return clips
    if normalize != "l2":
        raise ConfigError(f"normalize={normalize!r} is not known", remedy="pass 'none' or 'l2'")
    return FileClips(Rows(clips.rows.parts, unit_length), clips.owners)


def unit_length(block: Floats) -> Floats:
    """Bring each row to length 1; one of zeros stays."""
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    unit: Floats = (block / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return unit
