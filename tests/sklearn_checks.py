"""scikit-learn's own checks of an estimator, as parameters of a test, in any version of it that is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils import estimator_checks


def own_checks(estimator: Any) -> list[Any]:
    """Return ``(estimator, check)`` of each check."""
    if hasattr(estimator_checks, "estimator_checks_generator"):
        found = list(estimator_checks.estimator_checks_generator(estimator))
    else:  # scikit-learn before 1.6
        found = list(estimator_checks.check_estimator(estimator, generate_only=True))
    return [
        pytest.param(own, check, id=f"{number}-{check.func.__name__}")
        for number, (own, check) in enumerate(found)
    ]
