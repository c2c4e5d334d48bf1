"""Run scikit-learn's checks on the estimators and print, as JSON, how each of them went.

Usage: python estimator_checks.py NAME [LIBRARY ...], libraries that cannot be used here. In a
process of its own: the Array API checks need a variable that is set before SciPy is imported.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

from sklearn.utils.estimator_checks import check_estimator

from agnostic_xent import (
    CNNClassifier,
    ConformalClassifier,
    LogisticRegression,
    LogisticRegressionCV,
    MiniRocket,
)

ESTIMATORS = {
    "lbfgs": LogisticRegression(),
    # one batch of all samples: a check compares weights with repeated samples, to 7 digits
    "sgd": LogisticRegression(solver="sgd", batch_size=1000),
    "average": LogisticRegression(solver="sgd", batch_size=1000, average=True),
    "cv": LogisticRegressionCV(Cs=3, cv=2),
    "cnn": CNNClassifier(epochs=20),
    "rocket": MiniRocket(),
    "conformal": ConformalClassifier(LogisticRegression()),
}


EXPECTED = {
    "cnn": {
        "check_sample_weight_equivalence_on_dense_data": "batch normalization takes the statistics "
        "of all images of a batch, whatever their weights",
        "check_classifiers_train": "lists become float32, in which the logarithm of a probability "
        "near 1 is 0, while predict_log_proba is exact",
        "check_class_weight_classifiers": "20 steps on 50 rows of noise do not make a network of "
        "this size predict one class alone",
    },
    "conformal": {
        "check_array_api_same_namespace": "the error names the classifier within",
    },
}
"""Why a check fails, by estimator."""


class Hidden:
    """What says of a library that it is not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in sys.argv[2:]:
            raise ModuleNotFoundError(f"{name} is hidden")


if __name__ == "__main__":
    meta_path: list[Any] = sys.meta_path
    meta_path.insert(0, Hidden())
    warnings.simplefilter("ignore")  # such as of few samples a class; errors are what counts here
    results = check_estimator(
        ESTIMATORS[sys.argv[1]],
        expected_failed_checks=EXPECTED.get(sys.argv[1]),
        on_skip=None,
        on_fail=None,
    )
    keys = ("check_name", "status", "exception")
    print(json.dumps([{key: str(result[key]) for key in keys} for result in results]))
