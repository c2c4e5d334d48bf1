"""Losses and small networks, written once for NumPy, CuPy, torch, JAX and dask arrays.

Shape letters used throughout: N batch, C channels in, K filters (channels out), H W image height
and width, KH KW window, OH OW output. Options are keyword-only.
"""

import importlib
import importlib.util
from typing import Any

from . import kernels as _kernels  # noqa: F401  (a package; the name is a function from here on)
from .core.communication import MPICommunicator, NCCLCommunicator
from .core.conversion import to_backend, to_numpy
from .core.modes import kernels
from .core.operation import explain
from .core.requirements import missing as _missing
from .evaluation.calibration import calibration_bins, expected_calibration_error, fit_temperature
from .evaluation.metrics import accuracy, brier_score, confusion_matrix, log_loss, top_k_accuracy
from .info import info
from .network.augmentation import Cutout, RandomCrop, RandomFlip, RandomShift
from .network.checkpoints import load_params, save_params
from .network.containers import Residual, Sequential
from .network.exchange import export_onnx, match_params
from .network.folding import fold_batch_norm
from .network.inference import compile_predictor
from .network.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    ReLU,
    Standardize,
)
from .network.models import convnet, lenet, logistic, resnet, small_cnn
from .network.synchronized import synchronize_batch_norm
from .network.transfer import transfer_params
from .operations.activations import log_sigmoid, log_softmax, logsumexp, relu, sigmoid, softmax
from .operations.addition import add
from .operations.binary_losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    binary_focal_loss,
)
from .operations.convolution import conv2d
from .operations.dense import dense
from .operations.divergences import jensen_shannon_divergence, kl_divergence
from .operations.linear_loss import linear_cross_entropy
from .operations.losses import categorical_cross_entropy, cross_entropy, nll_loss
from .operations.normalization import batch_norm, dropout
from .operations.pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from .operations.robust_losses import focal_loss, generalized_cross_entropy
from .training.callbacks import EarlyStopping, JsonLines, KeepBest, TensorBoard
from .training.clipping import ClipByNorm
from .training.divergence import DivergenceError
from .training.history import Callback, Epoch, History
from .training.layer_rates import LayerRates
from .training.loop import evaluate, fit, predict
from .training.mixing import CutMix, Mixup
from .training.moving_average import MovingAverage
from .training.optimizers import SGD, AdamW
from .training.progress import Progress
from .training.rate_finder import LearningRates, find_learning_rate
from .training.recipe import standardized
from .training.runs import load_checkpoint
from .training.schedules import constant, cosine, step_decay, warmup

__version__ = "0.1.0"


_OF_SCIKIT_LEARN = (
    "CNNClassifier",
    "LogisticRegression",
    "load_classifier",
    "save_classifier",
    "save_report",
)


def __dir__() -> list[str]:
    """Return all names, also those of what is not imported yet."""
    return sorted({*globals(), *_OF_SCIKIT_LEARN})


def __getattr__(name: str) -> Any:
    """Import the estimators where they are used: they need scikit-learn."""
    if name not in _OF_SCIKIT_LEARN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(".estimators", __name__), name)
    except ImportError as error:
        raise _missing(name, "scikit-learn") from error


__all__ = [
    "SGD",
    "AdamW",
    "AvgPool2d",
    "BatchNorm2d",
    "Callback",
    "ClipByNorm",
    "Conv2d",
    "CutMix",
    "Cutout",
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
    "LayerRates",
    "LearningRates",
    "MPICommunicator",
    "MaxPool2d",
    "Mixup",
    "MovingAverage",
    "NCCLCommunicator",
    "Progress",
    "RandomCrop",
    "RandomFlip",
    "RandomShift",
    "ReLU",
    "Residual",
    "Sequential",
    "Standardize",
    "TensorBoard",
    "accuracy",
    "add",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_focal_loss",
    "brier_score",
    "calibration_bins",
    "categorical_cross_entropy",
    "compile_predictor",
    "confusion_matrix",
    "constant",
    "conv2d",
    "convnet",
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
    "focal_loss",
    "fold_batch_norm",
    "generalized_cross_entropy",
    "global_avg_pool2d",
    "info",
    "jensen_shannon_divergence",
    "kernels",
    "kl_divergence",
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
    "standardized",
    "step_decay",
    "synchronize_batch_norm",
    "to_backend",
    "to_numpy",
    "top_k_accuracy",
    "transfer_params",
    "warmup",
]

for _name in __all__:  # so that a pickle names no file of the package, which may move
    globals()[_name].__module__ = __name__

if importlib.util.find_spec("sklearn"):  # else `import *` would fail
    __all__ += _OF_SCIKIT_LEARN
