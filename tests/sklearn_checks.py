"""scikit-learn's own checks of an estimator, as parameters of a test, in any version of it that is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sklearn.utils import estimator_checks


def own_checks(estimator: Any, expected_failed_checks: Mapping[str, str]) -> list[Any]:
    """Return ``(estimator, check)`` of each check; those that are expected to fail have to.

    Args:
        estimator: What is checked.
        expected_failed_checks: The reason by the name of the check.
    """
    if hasattr(estimator_checks, "estimator_checks_generator"):
        found = list(estimator_checks.estimator_checks_generator(estimator))
    else:  # scikit-learn before 1.6
        found = list(estimator_checks.check_estimator(estimator, generate_only=True))
    made = []
    for number, (own, check) in enumerate(found):
        name = check.func.__name__
        reason = expected_failed_checks.get(name)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
        made.append(pytest.param(own, check, marks=marks, id=f"{number}-{name}"))
    return made
