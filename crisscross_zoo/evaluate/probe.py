"""Linear probes on features: a scikit-learn estimator that is trained on clips and predicts files."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import numpy.typing as npt

from crisscross_zoo.errors import ConfigError, InputError
from crisscross_zoo.evaluate.metrics import file_scores
from crisscross_zoo.evaluate.protocols import COSTS, Costs, Normalize, Tolerance
from crisscross_zoo.evaluate.rows import Rows
from crisscross_zoo.evaluate.svm import Hyperplanes, fit_svm
from crisscross_zoo.features import Features, uneven_rows
from crisscross_zoo.settings import Count, Range, check, check_choice, pick_device
from crisscross_zoo.text import counted

if TYPE_CHECKING:
    import torch

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d
except ImportError:
    raise ConfigError(
        "scikit-learn is not installed", remedy='run pip install "crisscross-zoo[evaluate]"'
    ) from None

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_Seed = Annotated[int, Range(0, 2**32 - 1)]  # as in scikit-learn

FOLDS = 5
"""Number of folds into which the training files are split to choose a hyperparameter."""

SELECTION_TOLERANCE = 1e-2
"""Tolerance of SVMs that are only fitted to choose the cost."""


@dataclass(frozen=True)
class FileClips:
    """Clips of files.

    Attributes:
        rows: The features of each clip, (n, D).
        owners: Index of each clip's file, ascending and without gaps, (n,).
    """

    rows: Rows
    owners: Ints

    @property
    def files(self) -> int:
        """The number of files."""
        return int(self.owners[-1]) + 1

    def take(self, files: Ints) -> FileClips:
        """Return the clips of some files (ascending indices), renumbered from 0."""
        number = np.full(self.files, -1)
        number[files] = np.arange(len(files))
        kept = np.flatnonzero(number[self.owners] >= 0)
        return FileClips(self.rows.take(kept), number[self.owners[kept]])

    @classmethod
    def of(cls, files: Any) -> FileClips:
        """Return the clips of any input that :class:`LinearProbe` takes.

        Raises:
            InputError: there are no files, or their features differ in length, are empty or are not finite.
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
        for number, array in enumerate(arrays):
            if not len(array):
                raise InputError("a file has no clips", remedy="leave it out")
            if not np.isfinite(array).all():
                raise InputError(
                    f"file {number} has NaN or infinity in its features",
                    remedy="leave it out, or extract it again",
                )
        owners = np.repeat(np.arange(len(arrays)), [len(a) for a in arrays])
        return cls(Rows.of(np.concatenate(arrays)), owners)


def _array(file: Any) -> Floats:
    """Return the features of one file as (clips, D); with both modalities, video and audio are concatenated."""
    if isinstance(file, Features):
        found = [a for a in (file.video, file.audio) if a is not None]
        if not found or len({len(a) for a in found}) != 1:
            raise uneven_rows(file)
        return np.concatenate(found, axis=1)
    array = np.asarray(file, np.float32)
    if array.ndim not in (1, 2):
        raise InputError(f"a file of shape {array.shape}", remedy="pass (clips, D), or (D,) for one clip")
    return array[None] if array.ndim == 1 else array


def _is_list_of_files(X: Any) -> bool:  # noqa: N803
    """Return whether ``X`` is a list of files' features, each of one clip or more, and not an array of numbers."""
    if isinstance(X, FileClips) or (isinstance(X, np.ndarray) and X.ndim == 3):
        return True
    if not isinstance(X, list | tuple) and not (
        isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
    ):
        return False
    return not len(X) or isinstance(X[0], Features) or hasattr(X[0], "ndim") or np.ndim(X[0]) == 2


def _validate(estimator: Any, X: Any, *y: Any, reset: bool) -> Any:  # noqa: N803
    """Check an array as scikit-learn does, which stores the columns (``reset=True``) or compares them.

    Raises:
        InputError: not an array (n, D) of finite numbers, other columns than in training, or a ``y`` that does not fit.
    """
    try:
        try:
            from sklearn.utils.validation import validate_data
        except ImportError:  # scikit-learn before 1.6
            return estimator._validate_data(X, *y, reset=reset, dtype=np.float32)
        return validate_data(estimator, X, *y, reset=reset, dtype=np.float32)
    except ValueError as error:
        raise InputError(str(error)) from error


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A linear SVM (one against all) on the features of clips, whose scores are averaged over the clips of a file.

    A scikit-learn classifier: it can be cloned and used in pipelines and grid searches, and with arrays it passes
    scikit-learn's own checks (``check_estimator``). If several costs are given, the best is chosen by k-fold
    cross-validation over the training *files* (section E.1 chooses it on the test files).

    >>> from crisscross_zoo.evaluate.probe import LinearProbe
    >>> probe = LinearProbe().fit(train_features, train_labels)     # lists of Features    # doctest: +SKIP
    >>> probe.predict(test_features), probe.score(test_features, test_labels)              # doctest: +SKIP

    Args:
        costs: C of the SVM, one value or several to choose from.
        tolerance: Relative tolerance at which the SVM has converged, see :func:`crisscross_zoo.evaluate.svm.fit_svm`.
        n_splits: Number of folds on which the cost is chosen, each held out once, out of five (fewer if a class has
            fewer files or groups): 5 is five-fold cross-validation, 1 a single split.
        normalize: "none", or "l2" to scale each clip's features to length 1.
        seed: Seed of the split into folds.
        device: Where the SVM is computed: "auto", or a device of torch.

    Attributes:
        classes_: The labels, sorted.
        n_features_in_: D, the number of dimensions.
        feature_names_in_: Names of the columns, if the training data was a data frame with names.
        coef_: Weights, float32, (K, D).
        intercept_: Biases, float32, (K,).
        cost_: The cost that was chosen.
        accuracies_: Accuracy on held-out files by cost; empty with one cost.
    """

    def __init__(
        self,
        costs: Sequence[float] = COSTS,
        *,
        tolerance: float = 1e-4,
        n_splits: int = FOLDS,
        normalize: Normalize = "none",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.costs = costs
        self.tolerance = tolerance
        self.n_splits = n_splits
        self.normalize = normalize
        self.seed = seed
        self.device = device

    def fit(self, X: Any, y: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Self:  # noqa: N803
        """Train.

        Args:
            X: Files: a list of :class:`~crisscross_zoo.Features` or of arrays (clips, D); an array (n, D) is n files
                of one clip.
            y: Label of each file.
            groups: Group of each file; the files of a group stay in one fold. Default: each file is its own group.

        Raises:
            InputError: ``X`` is not finite, or ``X``, ``y`` and ``groups`` do not fit together.
            TypeError: ``X`` is sparse.
            ConfigError: a parameter has a value that is not allowed, or no cost can be chosen because a class has only
                one file.
        """
        costs, tolerance, n_splits, seed = self._parameters()
        device = pick_device(self.device)
        if _is_list_of_files(X):
            files = FileClips.of(X)
            classes, labels = self._labels(y)
            self.n_features_in_ = files.rows.shape[1]
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit
        else:
            array, truth = _validate(self, X, y, reset=True)
            files = FileClips.of(array)
            classes, labels = self._labels(truth)
        clips = _normalized(files, self.normalize)
        self.classes_ = classes
        if len(labels) != clips.files or len(classes) < 2:
            raise InputError(
                f"{counted(clips.files, 'file')}, {counted(len(labels), 'label')}"
                f" of {counted(len(self.classes_), 'class')}",
                remedy="pass a label for each file, and two classes or more",
            )
        if groups is not None and (shape := np.asarray(groups, object).shape) != (clips.files,):
            raise InputError(
                f"{counted(clips.files, 'file')}, groups of shape {shape}",
                remedy="pass a group for each file",
            )
        self.accuracies_: dict[float, float] = {}
        if len(costs) > 1:
            self.accuracies_ = held_out_accuracies(
                clips,
                labels,
                len(self.classes_),
                costs,
                groups=groups,
                folds=n_splits,
                seed=seed,
                device=device,
            )
            costs = (best(self.accuracies_),)
        (self._planes,) = fit_svm(
            clips.rows,
            labels[clips.owners],
            len(self.classes_),
            costs,
            tolerance=tolerance,
            device=device,
        )
        if not self._planes.solved:
            warnings.warn(
                f"the SVM of cost {self._planes.cost:g} did not converge to the tolerance {tolerance:g}"
                f" (gradient {self._planes.gradient:.1e}); scale the features, or pass a smaller cost",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.cost_ = self._planes.cost
        self.coef_, self.intercept_ = self._planes.weights.T, self._planes.bias
        return self

    def clip_scores(self, X: Any) -> Floats:  # noqa: N803
        """Return the decision values of clips, float32 (n, K)."""
        return self._scored_clips(X)[0]

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the decision values of files: the mean over the clips of each file.

        Args:
            X: As for :meth:`fit`.

        Returns:
            float64, (files, K); with two classes (files,), positive for the second class, as in scikit-learn.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            InputError: ``X`` is not finite, or has other columns than the training data.
        """
        scores = self._file_scores(X)
        return scores[:, 1] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the label of each file; raises as :meth:`decision_function`."""
        indices = self._file_scores(X).argmax(axis=1)
        found: npt.NDArray[Any] = self.classes_[indices]
        return found

    def _parameters(self) -> tuple[tuple[float, ...], float, int, int]:
        """Return costs, tolerance, n_splits and seed; raise a ConfigError unless all parameters are allowed."""
        costs = check("costs", _from_numpy(self.costs), Costs)
        if not costs:
            raise ConfigError("costs is empty", remedy="pass one value or more")
        check_choice("normalize", self.normalize, ("none", "l2"))
        return (
            tuple(map(float, costs)),
            check("tolerance", _from_numpy(self.tolerance), Tolerance),
            check("n_splits", _from_numpy(self.n_splits), Count),
            check("seed", _from_numpy(self.seed), _Seed),
        )

    def _labels(self, y: Any) -> tuple[npt.NDArray[Any], Ints]:
        """Return the classes, and the number of each label's class."""
        if y is None:
            raise InputError(
                "requires y to be passed, but the target y is None", remedy="pass a label for each file"
            )
        try:
            labels = column_or_1d(y, warn=True)
            found = _numbered("labels", labels)
            check_classification_targets(labels)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error), remedy="pass a class for each file") from error
        return found

    def _scored_clips(self, X: Any) -> tuple[Floats, Ints]:  # noqa: N803
        """Return the decision values of clips, (n, K), and their owners."""
        check_is_fitted(self)
        clips = FileClips.of(X if _is_list_of_files(X) else _validate(self, X, reset=False))
        if clips.rows.shape[1] != self.n_features_in_:
            raise InputError(
                f"clips of {clips.rows.shape[1]} dimensions, but the probe was trained on {self.n_features_in_}",
                remedy="extract both in the same way",
            )
        return self._planes.scores(_normalized(clips, self.normalize).rows), clips.owners

    def _file_scores(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        return file_scores(*self._scored_clips(X))


def _from_numpy(value: Any) -> Any:
    """Return NumPy's numbers and arrays, also those in a list, as Python's: grid searches pass them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [_from_numpy(one) for one in value] if isinstance(value, list | tuple) else value


def _numbered(name: str, values: npt.ArrayLike) -> tuple[npt.NDArray[Any], Ints]:
    """Return the different values, sorted, and the number of each value among them."""
    array = np.asarray(values)
    try:
        different, numbers = np.unique(array, return_inverse=True)
    except TypeError:
        kinds = ", ".join(sorted({type(value).__name__ for value in array.tolist()}))
        raise InputError(
            f"the {name} are of several types ({kinds})", remedy=f"pass {name} of one type, without None"
        ) from None
    return different, numbers


def held_out_folds(
    labels: Ints, groups: npt.ArrayLike | None = None, *, seed: int = 0
) -> Iterator[tuple[Ints, Ints]]:
    """Split files into folds with similar class proportions; groups stay together.

    The number of folds is :data:`FOLDS`, or that of the files (or groups) of the smallest class if it has fewer.

    Yields:
        For each fold the indices of the files to train on and of the held-out files, both ascending.

    Raises:
        ConfigError: a class has fewer than two files or groups.
    """
    own = np.arange(len(labels)) if groups is None else _numbered("groups", groups)[1]
    smallest = min(len(np.unique(own[labels == k])) for k in np.unique(labels))
    n_folds = min(FOLDS, smallest)
    if n_folds < 2:
        raise ConfigError(
            "no files can be held out to choose on: a class has only one training file or group",
            remedy="pass one cost (or number of epochs), or add files",
        )
    ungrouped = len(np.unique(own)) == len(own)  # then groups change nothing, and are slow
    splitter = (StratifiedKFold if ungrouped else StratifiedGroupKFold)(
        n_folds, shuffle=True, random_state=seed
    )
    for train, held_out in splitter.split(labels, labels, None if ungrouped else own):
        yield np.sort(train), np.sort(held_out)


def held_out_accuracies(
    clips: FileClips,
    labels: Ints,
    classes: int,
    costs: Sequence[float],
    *,
    groups: npt.ArrayLike | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_fit: Callable[[int, int], None] | None = None,
) -> dict[float, float]:
    """Return the accuracy of each cost on held-out files, over the first ``folds`` folds of :func:`held_out_folds`.

    ``on_fit`` is called at the start and after each SVM, with the number of SVMs that are fitted and their total.
    """
    right = dict.fromkeys(sorted(costs), 0)
    total = fitted = 0
    splits = list(itertools.islice(held_out_folds(labels, groups, seed=seed), folds))
    if on_fit is not None:
        on_fit(0, len(splits) * len(right))
    for train, held_out in splits:
        training, validation = clips.take(train), clips.take(held_out)
        planes = fit_svm(
            training.rows,
            labels[train][training.owners],
            classes,
            costs,
            tolerance=SELECTION_TOLERANCE,
            device=device,
        )
        total += len(held_out)
        for machine in planes:
            right[machine.cost] += right_files(machine, validation, labels[held_out])
            fitted += 1
            if on_fit is not None:
                on_fit(fitted, len(splits) * len(right))
    return {cost: count / total for cost, count in right.items()}


def right_files(machine: Hyperplanes, clips: FileClips, labels: Ints) -> int:
    """Return the number of files for which the right label is predicted."""
    scores = file_scores(machine.scores(clips.rows), clips.owners)
    return int((scores.argmax(axis=1) == labels).sum())


def best(accuracies: Mapping[Any, float]) -> Any:
    """Return the cost (or epoch) with the highest accuracy; the lowest one if several are equal."""
    return max(sorted(accuracies), key=accuracies.__getitem__)


def _normalized(clips: FileClips, normalize: Normalize) -> FileClips:
    if normalize == "none":
        return clips
    return FileClips(Rows(clips.rows.matrices, unit_length), clips.owners)


def unit_length(block: Floats) -> Floats:
    """Scale each row to length 1; a row of zeros remains zero."""
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    unit: Floats = (block / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return unit
