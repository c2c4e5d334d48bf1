"""Kernels for CuPy arrays, compiled by Numba-CUDA; importing a module registers its kernels."""

from . import activations as activations
from . import dropout as dropout
from . import graphs as graphs
from . import optimizers as optimizers
from .conv import convolution as convolution
from .conv import dense as dense
from .conv import ranks as ranks
from .loss import binary_cross_entropy as binary_cross_entropy
from .loss import cross_entropy as cross_entropy
from .loss import scored as scored
from .loss import soft_targets as soft_targets
from .normalization import batch_norm as batch_norm
from .pool import pooling as pooling
from .softmax import softmax as softmax
