"""Classifiers with scikit-learn's conventions, on the arrays of any library, and their report."""

from .cnn import CNNClassifier
from .logistic import LogisticRegression
from .logistic_cv import LogisticRegressionCV
from .report import save_report

__all__ = ["CNNClassifier", "LogisticRegression", "LogisticRegressionCV", "save_report"]

for _made in (CNNClassifier, LogisticRegression, LogisticRegressionCV, save_report):
    _made.__module__ = "agnostic_xent"
