"""Run scikit-learn's checks on the estimators and print, as JSON, how each of them went.

In a process of its own: the Array API checks need a variable that is set before SciPy is imported.
"""

from __future__ import annotations

import json
import sys
import warnings

from sklearn.utils.estimator_checks import check_estimator

from agnostic_xent import CNNClassifier, LogisticRegression

ESTIMATORS = {
    "lbfgs": LogisticRegression(),
    # one batch of all samples: a check compares weights with repeated samples, to 7 digits
    "sgd": LogisticRegression(solver="sgd", batch_size=1000),
    "average": LogisticRegression(solver="sgd", batch_size=1000, average=True),
    "cnn": CNNClassifier(),
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # such as of few samples a class; errors are what counts here
    results = check_estimator(ESTIMATORS[sys.argv[1]], on_skip=None, on_fail=None)
    keys = ("check_name", "status", "exception")
    print(json.dumps([{key: str(result[key]) for key in keys} for result in results]))
