"""Classifiers with scikit-learn's conventions, on the arrays of any library, and their report."""

from .cnn import CNNClassifier
from .folder import load_classifier, save_classifier
from .logistic import LogisticRegression
from .report import save_report

__all__ = [
    "CNNClassifier",
    "LogisticRegression",
    "load_classifier",
    "save_classifier",
    "save_report",
]

for _made in (CNNClassifier, LogisticRegression, load_classifier, save_classifier, save_report):
    _made.__module__ = "agnostic_xent"
