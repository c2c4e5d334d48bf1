"""Estimators with scikit-learn's conventions, on the arrays of any library, and their report."""

from .cnn import CNNClassifier
from .logistic import LogisticRegression
from .minirocket import MiniRocket
from .report import save_report

__all__ = ["CNNClassifier", "LogisticRegression", "MiniRocket", "save_report"]

for _made in (CNNClassifier, LogisticRegression, MiniRocket, save_report):
    _made.__module__ = "agnostic_xent"
