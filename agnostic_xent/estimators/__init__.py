"""Estimators with scikit-learn's conventions, on the arrays of any library; what judges them."""

from .cnn import CNNClassifier
from .conformal import ConformalClassifier
from .folder import load_classifier, save_classifier
from .label_issues import find_label_issues
from .logistic import LogisticRegression
from .logistic_cv import LogisticRegressionCV
from .minirocket import MiniRocket
from .report import save_report

__all__ = [
    "CNNClassifier",
    "ConformalClassifier",
    "LogisticRegression",
    "LogisticRegressionCV",
    "MiniRocket",
    "find_label_issues",
    "load_classifier",
    "save_classifier",
    "save_report",
]

for _name in __all__:
    globals()[_name].__module__ = "agnostic_xent"
