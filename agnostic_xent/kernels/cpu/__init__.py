"""Kernels for NumPy arrays, compiled by Numba; importing a module registers its kernels."""

from . import convolution as convolution
from . import cross_entropy as cross_entropy
