"""Classifiers with scikit-learn's conventions, on the arrays of any library, and their report."""

from .cnn_classifier import CNNClassifier
from .estimator_report import save_report
from .logistic_regression import LogisticRegression

__all__ = ["CNNClassifier", "LogisticRegression", "save_report"]

for _made in (CNNClassifier, LogisticRegression, save_report):
    _made.__module__ = "agnostic_xent"
