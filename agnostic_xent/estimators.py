"""Classifiers with scikit-learn's conventions, on the arrays of any library."""

from .cnn_classifier import CNNClassifier
from .logistic_regression import LogisticRegression

__all__ = ["CNNClassifier", "LogisticRegression"]
