"""Losses and small networks, written once for NumPy, CuPy, torch, JAX and dask arrays.

Shape letters used throughout: N batch, C channels in, K filters (channels out), L length of a
signal, H W image height and width, D depth of a volume, KH KW window, OH OW output and so on.
Options are keyword-only.
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
from .evaluation.conformal import ConformalSets, fit_conformal
from .evaluation.explanations import grad_cam, integrated_gradients, occlusion
from .evaluation.label_issues import confident_joint, label_issues
from .evaluation.metrics import accuracy, brier_score, confusion_matrix, log_loss, top_k_accuracy
from .evaluation.windows import Windows, recording_log_proba, windows
from .info import info
from .network.augmentation import Cutout, RandomCrop, RandomFlip, RandomShift
from .network.checkpoints import load_params, save_params
from .network.containers import Residual, Sequential
from .network.exchange import export_onnx, match_params
from .network.folding import fold_batch_norm
from .network.inference import compile_predictor
from .network.layers import (
    GELU,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalAvgPool2d,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    ReLU,
    SiLU,
    Standardize,
    Tanh,
)
from .network.models import convnet, lenet, logistic, resnet, signal_cnn, small_cnn, video_cnn
from .network.signal_augmentation import Jitter, RandomRotation3d, RandomScale
from .network.synchronized import synchronize_batch_norm
from .network.transfer import transfer_params
from .operations.activations import log_sigmoid, log_softmax, logsumexp, relu, sigmoid, softmax
from .operations.addition import add
from .operations.binary_losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    binary_focal_loss,
)
from .operations.convolution import conv1d, conv2d, conv3d
from .operations.dense import dense
from .operations.divergences import jensen_shannon_divergence, kl_divergence
from .operations.elementwise import gelu, leaky_relu, silu, tanh
from .operations.linear_loss import linear_cross_entropy
from .operations.losses import categorical_cross_entropy, cross_entropy, nll_loss
from .operations.normalization import batch_norm, dropout
from .operations.pooling import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    global_avg_pool,
    global_avg_pool2d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from .operations.robust_losses import focal_loss, generalized_cross_entropy
from .operations.sample_normalization import group_norm, layer_norm
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
    "ConformalClassifier",
    "LogisticRegression",
    "LogisticRegressionCV",
    "MiniRocket",
    "find_label_issues",
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
    "GELU",
    "SGD",
    "AdamW",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Callback",
    "ClipByNorm",
    "ConformalSets",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "CutMix",
    "Cutout",
    "Dense",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "Epoch",
    "Flatten",
    "GlobalAvgPool",
    "GlobalAvgPool2d",
    "GroupNorm",
    "History",
    "Jitter",
    "JsonLines",
    "KeepBest",
    "LayerNorm",
    "LayerRates",
    "LeakyReLU",
    "LearningRates",
    "MPICommunicator",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Mixup",
    "MovingAverage",
    "NCCLCommunicator",
    "Progress",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation3d",
    "RandomScale",
    "RandomShift",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Standardize",
    "Tanh",
    "TensorBoard",
    "Windows",
    "accuracy",
    "add",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_focal_loss",
    "brier_score",
    "calibration_bins",
    "categorical_cross_entropy",
    "compile_predictor",
    "confident_joint",
    "confusion_matrix",
    "constant",
    "conv1d",
    "conv2d",
    "conv3d",
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
    "fit_conformal",
    "fit_temperature",
    "focal_loss",
    "fold_batch_norm",
    "gelu",
    "generalized_cross_entropy",
    "global_avg_pool",
    "global_avg_pool2d",
    "grad_cam",
    "group_norm",
    "info",
    "integrated_gradients",
    "jensen_shannon_divergence",
    "kernels",
    "kl_divergence",
    "label_issues",
    "layer_norm",
    "leaky_relu",
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
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "nll_loss",
    "occlusion",
    "predict",
    "recording_log_proba",
    "relu",
    "resnet",
    "save_params",
    "sigmoid",
    "signal_cnn",
    "silu",
    "small_cnn",
    "softmax",
    "standardized",
    "step_decay",
    "synchronize_batch_norm",
    "tanh",
    "to_backend",
    "to_numpy",
    "top_k_accuracy",
    "transfer_params",
    "video_cnn",
    "warmup",
    "windows",
]

for _name in __all__:  # so that a pickle names no file of the package, which may move
    globals()[_name].__module__ = __name__

if importlib.util.find_spec("sklearn"):  # else `import *` would fail
    __all__ += _OF_SCIKIT_LEARN
