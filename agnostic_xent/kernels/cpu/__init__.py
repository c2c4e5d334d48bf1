"""Kernels for NumPy arrays, compiled by Numba; importing a module registers its kernels."""

from . import dense as dense
from . import minirocket as minirocket
from . import optimizers as optimizers
from . import plans as plans
from .activation import activations as activations
from .conv import convolution as convolution
from .conv import signals as signals
from .conv import volumes as volumes
from .linear import sgd as sgd
from .linear import sparse as sparse
from .linear import sparse_sgd as sparse_sgd
from .loss import binary_cross_entropy as binary_cross_entropy
from .loss import cross_entropy as cross_entropy
from .normalization import batch_norm as batch_norm
from .pool import pixels as pixels
from .pool import pooling as pooling
