"""Losses and small networks, written once for NumPy, CuPy, torch, JAX and dask arrays.

Shape letters used throughout: N batch, C channels in, K filters (channels out), H W image height
and width, KH KW window, OH OW output. Options are keyword-only.
"""

import importlib
from typing import Any

from .activations import log_sigmoid, log_softmax, logsumexp, relu, sigmoid, softmax
from .arrays import to_backend, to_numpy
from .binary_losses import binary_cross_entropy, binary_cross_entropy_with_logits
from .calibration import calibration_bins, expected_calibration_error, fit_temperature
from .callbacks import (
    EarlyStopping,
    JsonLines,
    KeepBest,
    LearningRates,
    TensorBoard,
    find_learning_rate,
)
from .checkpoints import load_params, save_params
from .communication import MPICommunicator, NCCLCommunicator
from .containers import Residual, Sequential
from .convolution import conv2d
from .dense import dense
from .distributed_layers import synchronize_batch_norm
from .divergence import DivergenceError
from .exchange import export_onnx, match_params
from .history import Callback, Epoch, History
from .info import info
from .layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    ReLU,
)
from .linear_loss import linear_cross_entropy
from .losses import categorical_cross_entropy, cross_entropy, nll_loss
from .metrics import accuracy, brier_score, confusion_matrix, log_loss, top_k_accuracy
from .models import lenet, logistic, resnet, small_cnn
from .modes import kernels
from .normalization import batch_norm, dropout
from .operation import explain
from .optimizers import SGD, AdamW
from .pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from .progress import Progress
from .runs import load_checkpoint
from .schedules import constant, cosine, step_decay, warmup
from .training import evaluate, fit, predict

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the estimators where they are used: they need scikit-learn."""
    if name not in ("CNNClassifier", "LogisticRegression", "save_report"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(".estimators", __name__), name)
    except ImportError as error:
        raise ImportError(
            f'{name} needs scikit-learn: pip install "agnostic-xent[sklearn]"'
        ) from error


__all__ = [
    "SGD",
    "AdamW",
    "AvgPool2d",
    "BatchNorm2d",
    "Callback",
    "Conv2d",
    "Dense",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "Epoch",
    "Flatten",
    "GlobalAvgPool2d",
    "History",
    "JsonLines",
    "KeepBest",
    "LearningRates",
    "MPICommunicator",
    "MaxPool2d",
    "NCCLCommunicator",
    "Progress",
    "ReLU",
    "Residual",
    "Sequential",
    "TensorBoard",
    "accuracy",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "brier_score",
    "calibration_bins",
    "categorical_cross_entropy",
    "confusion_matrix",
    "constant",
    "conv2d",
    "cosine",
    "cross_entropy",
    "dense",
    "dropout",
    "evaluate",
    "expected_calibration_error",
    "explain",
    "export_onnx",
    "find_learning_rate",
    "fit",
    "fit_temperature",
    "global_avg_pool2d",
    "info",
    "kernels",
    "lenet",
    "linear_cross_entropy",
    "load_checkpoint",
    "load_params",
    "log_loss",
    "log_sigmoid",
    "log_softmax",
    "logistic",
    "logsumexp",
    "match_params",
    "max_pool2d",
    "nll_loss",
    "predict",
    "relu",
    "resnet",
    "save_params",
    "sigmoid",
    "small_cnn",
    "softmax",
    "step_decay",
    "synchronize_batch_norm",
    "to_backend",
    "to_numpy",
    "top_k_accuracy",
    "warmup",
]

for _name in __all__:  # so that a pickle names no file of the package, which may move
    globals()[_name].__module__ = __name__
