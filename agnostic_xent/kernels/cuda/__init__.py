"""Kernels for CuPy arrays, compiled by Numba-CUDA; importing a module registers its kernels."""

from . import activations as activations
from . import binary_cross_entropy as binary_cross_entropy
from . import convolution as convolution
from . import cross_entropy as cross_entropy
from . import dense as dense
from . import dropout as dropout
from . import graphs as graphs
from . import normalization as normalization
from . import optimizers as optimizers
from . import pooling as pooling
from . import soft_targets as soft_targets
from . import softmax as softmax
