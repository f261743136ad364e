"""Features for scikit-learn: a transformer from paths to an array, one row per file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from crisscross_zoo.config import Pooling
from crisscross_zoo.errors import ConfigError, CrissCrossError, InputError, NoStreamError
from crisscross_zoo.extract.extractor import FeatureExtractor
from crisscross_zoo.weights.loaded import Weights

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise ConfigError(
        "scikit-learn is not installed", remedy='run pip install "crisscross-zoo[evaluate]"'
    ) from None


class MediaFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Turn paths of media files into the mean of each file's clips, as the paper's retrieval does (section E.3).

    A scikit-learn transformer, which can be cloned, pickled and put into pipelines. It learns nothing; :meth:`fit`
    loads the weights. A pickle holds the parameters and not the weights, unless an :class:`Encoder` was passed as
    ``weights``.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> model = make_pipeline(MediaFeatures("demo"), StandardScaler(), LogisticRegression())
    >>> model.fit(train_paths, train_labels).predict(test_paths)    # doctest: +SKIP

    Args:
        weights: As for :class:`crisscross_zoo.FeatureExtractor`, except None, which would be new random weights at
            each fit.
        modality: "video", "audio", or "both": the video features, then the audio features.
        clips: Number of uniform clips to average over.
        pooling: As for the extractor, as are the arguments that follow.
        frames: Frames in a video clip.
        size: Side of the square crop in pixels.
        audio_seconds: Seconds of an audio clip.
        device: Where the encoders run.
        batch_size: Clips per batch.
        workers: Number of decoding processes.

    Attributes:
        sizes_: Dimensions of the features of each modality.
    """

    def __init__(
        self,
        weights: Weights | Mapping[str, Weights] = "audioset",
        modality: Literal["video", "audio", "both"] = "video",
        *,
        clips: int = 10,
        pooling: Pooling | None = None,
        frames: int | None = None,
        size: int | None = None,
        audio_seconds: float | None = None,
        device: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.weights = weights
        self.modality = modality
        self.clips = clips
        self.pooling = pooling
        self.frames = frames
        self.size = size
        self.audio_seconds = audio_seconds
        self.device = device
        self.batch_size = batch_size
        self.workers = workers

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803
        """Load the weights; no file is opened.

        Args:
            X: As for :meth:`transform`.
            y: Not used.

        Raises:
            InputError: ``X`` holds no paths.
            ConfigError: a parameter is not allowed.
            WeightsError: the weights cannot be loaded.
        """
        _paths(X)
        self._extractor = self._make_extractor()
        self.sizes_ = self._extractor.sizes
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """Extract the features of files; a path that is given twice is read once.

        Args:
            X: Paths, n of them: a list, an array or a column.

        Returns:
            float32, (n, D).

        Raises:
            InputError: ``X`` holds no paths.
            MediaError: a file cannot be used, or has no stream of a modality. The remaining files are not read.
        """
        check_is_fitted(self)
        paths = _paths(X)
        if not hasattr(self, "_extractor"):  # after unpickling
            self._extractor = self._make_extractor()
        means: dict[str, npt.NDArray[np.float32]] = {}
        for path, features in self._extractor.stream(list(dict.fromkeys(paths))):
            if isinstance(features, CrissCrossError):
                raise features
            arrays = features.arrays()
            if missing := [name for name in self.sizes_ if name not in arrays]:
                raise NoStreamError(
                    f"has no {missing[0]} stream that can be decoded",
                    remedy="leave it out, or use the other modality",
                    path=path,
                )
            clips = [arrays[name].mean(axis=0, dtype=np.float64) for name in self.sizes_]
            means[os.fspath(path)] = np.concatenate(clips).astype(np.float32)
        return np.stack([means[path] for path in paths])

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:  # noqa: ARG002
        """Return the names of the columns: ``video0``, ``video1``, ..."""
        check_is_fitted(self)
        names = [f"{name}{i}" for name, size in self.sizes_.items() for i in range(size)]
        return np.asarray(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _more_tags(self) -> dict[str, Any]:
        """Return the tags in the form of scikit-learn before 1.6."""
        return {"X_types": ["1darray", "string"], "no_validation": True, "preserves_dtype": []}

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_extractor"}

    def _make_extractor(self) -> FeatureExtractor:
        weights = self.weights
        if weights is None or (isinstance(weights, Mapping) and None in weights.values()):
            raise ConfigError(
                "weights=None draws new random weights at each fit", remedy="pass 'random:0' or a name"
            )
        return FeatureExtractor(**self.get_params(deep=False))


def _paths(X: Any) -> list[str]:  # noqa: N803
    """Return the paths in ``X`` as text."""
    column = np.asarray(X, dtype=object)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1 or not len(column):
        raise InputError(
            f"X has the shape {column.shape}", remedy="pass one path or more, in a list or a column"
        )
    if wrong := [type(x).__name__ for x in column if not isinstance(x, str | os.PathLike)]:
        raise InputError(f"X holds {wrong[0]}", remedy="pass paths: str or pathlib.Path")
    return [os.fspath(x) for x in column]
