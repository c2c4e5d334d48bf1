"""Classifiers with scikit-learn's conventions, on the arrays of any library, and their report."""

from .cnn import CNNClassifier
from .logistic import LogisticRegression
from .report import save_report

__all__ = ["CNNClassifier", "LogisticRegression", "save_report"]

for _made in (CNNClassifier, LogisticRegression, save_report):
    _made.__module__ = "agnostic_xent"
