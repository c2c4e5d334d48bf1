"""Kernels for CuPy arrays, compiled by Numba-CUDA; importing a module registers its kernels."""

from . import activations as activations
from . import convolution as convolution
from . import cross_entropy as cross_entropy
from . import optimizers as optimizers
from . import pooling as pooling
from . import softmax as softmax
