"""From a Python function to machine code, threads and memory."""

from ....core.operation import NoKernels
from ...compiler import config

if config.DISABLE_JIT:
    raise NoKernels("Numba compiles nothing, because NUMBA_DISABLE_JIT is set")
