"""Kernels for CuPy arrays, compiled by Numba-CUDA; importing a module registers its kernels."""

from . import activations as activations
