"""The scikit-learn transformer: scikit-learn's checks as far as they use paths, pipelines, one row per path."""

from __future__ import annotations

import pickle
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from make_media import make_media, sine
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn_checks import own_checks

from crisscross_zoo import FeatureExtractor, estimator, load_encoder
from crisscross_zoo.errors import (
    ConfigError,
    InputError,
    MediaNotFoundError,
    NoStreamError,
    UnreadableMediaError,
)
from crisscross_zoo.estimator import MediaFeatures
from crisscross_zoo.evaluate.probe import LinearProbe

OPTIONS = {"clips": 2, "device": "cpu", "workers": 0}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of a low tone and three of a high one, with video."""
    folder = tmp_path_factory.mktemp("estimator")
    return [
        make_media(
            folder / f"{hertz}_{k}.mp4",
            seconds=1.5,
            size=(96, 64),
            layout="mono",
            samples=sine(1.5, 44_100, 1, hertz + 10 * k),
        )
        for hertz in (200, 2000)
        for k in range(3)
    ]


LABELS = ["low"] * 3 + ["high"] * 3


@pytest.fixture(scope="module")
def fitted(files: list[Path]) -> MediaFeatures:
    return MediaFeatures("demo", "audio", **OPTIONS).fit(files)


class OnNumbers(MediaFeatures):
    """The transformer without the tag that it takes paths: with it scikit-learn skips the checks."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.no_validation = True, False
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags

    def _more_tags(self) -> dict[str, Any]:  # scikit-learn before 1.6
        return {"X_types": ["2darray"], "no_validation": False}


EXPECTED_FAILED_CHECKS = frozenset(
    (
        "check_complex_data",
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_dtype_object",
        "check_estimator_sparse_array",
        "check_estimator_sparse_data",
        "check_estimator_sparse_matrix",
        "check_estimator_sparse_tag",
        "check_estimators_dtypes",
        "check_estimators_empty_data_messages",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit2d_predict1d",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
    )
)
"""The transformer takes paths, and these checks pass it numbers. What they are about is tested below, with files."""


@pytest.mark.parametrize(("transformer", "check"), own_checks(OnNumbers("demo")))
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(transformer: MediaFeatures, check: Any) -> None:
    if check.func.__name__ not in EXPECTED_FAILED_CHECKS:
        check(transformer)
        return
    with pytest.raises((InputError, AssertionError)) as caught:
        check(transformer)
    errors = (caught.value, caught.value.__cause__, caught.value.__context__)
    assert any(
        isinstance(error, InputError) and re.search("; pass (one path|paths)", str(error)) for error in errors
    ), "it fails, but not because it takes paths"


@pytest.mark.filterwarnings("ignore")
def test_check_estimator_knows_that_it_takes_paths() -> None:
    estimator_checks.check_estimator(MediaFeatures("demo"))


@pytest.mark.parametrize("modality", ["video", "audio", "both"])
def test_a_row_is_the_mean_over_the_files_clips(files: list[Path], modality: str) -> None:
    transformer = MediaFeatures("demo", modality, pooling="avg", **OPTIONS)
    found = transformer.fit_transform(files[:2])
    extractor = FeatureExtractor("demo", modality, pooling="avg", **OPTIONS)
    for row, path in zip(found, files, strict=False):
        arrays = extractor(path).arrays()
        names = [name for name in ("video", "audio") if name in arrays]
        expected = np.concatenate([arrays[name].astype(np.float64).mean(0) for name in names])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    sizes = {name: {"video": 128, "audio": 192}[name] for name in names}
    assert transformer.sizes_ == sizes
    columns = [f"{name}{i}" for name, size in sizes.items() for i in range(size)]
    assert list(transformer.get_feature_names_out()) == columns


def test_rows_are_in_the_order_of_the_paths(fitted: MediaFeatures, files: list[Path]) -> None:
    rows = fitted.transform(files)
    assert len(np.unique(rows, axis=0)) == 6
    assert np.array_equal(fitted.transform(files[::-1]), rows[::-1])
    assert np.array_equal(fitted.transform([files[4], files[1], files[4]]), rows[[4, 1, 4]])
    assert np.array_equal(fitted.transform(files[:1]), rows[:1])


def test_paths_come_in_any_form(fitted: MediaFeatures, files: list[Path]) -> None:
    expected, text = fitted.transform(files[:2]), [str(path) for path in files[:2]]
    for paths in (text, tuple(text), np.array(text), np.array(text, dtype=object)[:, None]):
        assert np.array_equal(fitted.transform(paths), expected)
    pandas = needs.package("pandas", extra="examples")
    assert np.array_equal(fitted.transform(pandas.Series(text)), expected)
    frame = clone(fitted).set_output(transform="pandas").fit_transform(pandas.DataFrame({"path": text}))
    assert np.array_equal(frame.to_numpy(), expected)
    assert list(frame.columns) == list(fitted.get_feature_names_out())


def test_fitting_changes_no_parameter_and_may_be_repeated(files: list[Path]) -> None:
    transformer = MediaFeatures("demo", "audio", **OPTIONS)
    before = transformer.get_params()
    first = transformer.fit(files).transform(files[:2])
    assert transformer.fit(files) is transformer
    assert transformer.get_params() == before
    assert np.array_equal(transformer.transform(files[:2]), first)


def test_clones_and_pickles(fitted: MediaFeatures, files: list[Path]) -> None:
    expected = fitted.transform(files[:2])
    twin = clone(fitted)
    with pytest.raises(NotFittedError):
        twin.transform(files)
    assert np.array_equal(twin.fit_transform(files[:2]), expected)
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 2000  # parameters, no weights
    assert np.array_equal(pickle.loads(pickled).transform(files[:2]), expected)


def test_an_encoder_goes_into_the_pickle(fitted: MediaFeatures, files: list[Path]) -> None:
    transformer = MediaFeatures(load_encoder("audio", "demo"), "audio", **OPTIONS).fit(files)
    twin = pickle.loads(pickle.dumps(clone(transformer).fit(files)))
    assert np.array_equal(twin.transform(files[:2]), fitted.transform(files[:2]))


def test_in_a_pipeline(files: list[Path]) -> None:
    model = make_pipeline(MediaFeatures("demo", "audio", **OPTIONS), StandardScaler(), LogisticRegression())
    assert model.fit(files, LABELS).score(files, LABELS) == 1
    assert list(pickle.loads(pickle.dumps(model)).predict(files[2:4])) == ["low", "high"]
    search = GridSearchCV(model, {"mediafeatures__clips": [1, 2]}, cv=3).fit(files, LABELS)
    assert search.best_score_ > 0.5


def test_with_the_probe(files: list[Path]) -> None:
    model = make_pipeline(MediaFeatures("demo", "audio", **OPTIONS), LinearProbe([1.0]))
    assert model.fit(files, LABELS).score(files, LABELS) == 1


def test_a_file_that_fails_is_named(fitted: MediaFeatures, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("not media")
    silent = make_media(tmp_path / "silent.mp4", audio=None, seconds=1)
    for path, error in (
        (tmp_path / "broken.mp4", UnreadableMediaError),
        (tmp_path / "none.mp4", MediaNotFoundError),
        (silent, NoStreamError),
    ):
        with pytest.raises(error) as caught:
            fitted.transform([files[0], path])
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(
        NoStreamError, match="has no audio stream that can be decoded; leave it out"
    ) as caught:
        MediaFeatures("demo", "both", **OPTIONS).fit_transform([silent])
    assert caught.value.path == str(silent)


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        ("a.mp4", "X has the shape (); pass one path or more"),
        ([], "X has the shape (0,)"),
        (np.zeros((3, 2)), "X has the shape (3, 2)"),
        ([1.5], "X holds float; pass paths"),
        (["a.mp4", None], "X holds NoneType"),
    ],
)
def test_what_are_no_paths_is_named(fitted: MediaFeatures, paths: object, line: str) -> None:
    for use in (MediaFeatures("demo").fit, fitted.transform):
        with pytest.raises(InputError) as caught:
            use(paths)
        assert str(caught.value).startswith(line)


@pytest.mark.parametrize("weights", [None, {"audio": None}])
def test_weights_that_are_others_each_time_are_refused(weights: object) -> None:
    with pytest.raises(ConfigError, match="weights=None draws new random weights"):
        MediaFeatures(weights, "audio").fit(["a.wav"])


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ConfigError) as caught:
        runpy.run_path(estimator.__file__, run_name="estimator")
    assert str(caught.value).endswith('run pip install "crisscross-zoo[evaluate]"')
