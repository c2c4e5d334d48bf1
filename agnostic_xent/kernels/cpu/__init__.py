"""Kernels for NumPy arrays, compiled by Numba; importing a module registers its kernels."""

from . import activations as activations
from . import binary_cross_entropy as binary_cross_entropy
from . import convolution as convolution
from . import cross_entropy as cross_entropy
from . import dense as dense
from . import linear_sgd as linear_sgd
from . import normalization as normalization
from . import optimizers as optimizers
from . import pooling as pooling
