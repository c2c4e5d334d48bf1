"""Losses and small networks, written once for NumPy, CuPy, torch, JAX and dask arrays.

Shape letters used throughout: N batch, C channels in, K filters (channels out), H W image height
and width, KH KW window, OH OW output. Options are keyword-only.
"""

from .activations import log_sigmoid, log_softmax, logsumexp, relu, sigmoid, softmax
from .arrays import to_backend, to_numpy
from .binary_losses import binary_cross_entropy, binary_cross_entropy_with_logits
from .calibration import calibration_bins, expected_calibration_error, fit_temperature
from .checkpoints import load_params, save_params
from .containers import Residual, Sequential
from .convolution import conv2d
from .dense import dense
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
from .normalization import batch_norm, dropout
from .operation import explain, kernels
from .optimizers import SGD, AdamW, constant, cosine, step_decay, warmup
from .pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from .progress import Progress
from .training import History, evaluate, fit, predict

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AdamW",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "History",
    "MaxPool2d",
    "Progress",
    "ReLU",
    "Residual",
    "Sequential",
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
    "fit",
    "fit_temperature",
    "global_avg_pool2d",
    "info",
    "kernels",
    "lenet",
    "linear_cross_entropy",
    "load_params",
    "log_loss",
    "log_sigmoid",
    "log_softmax",
    "logistic",
    "logsumexp",
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
    "to_backend",
    "to_numpy",
    "top_k_accuracy",
    "warmup",
]
