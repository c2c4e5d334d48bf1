"""Numba, without which there are no kernels: whoever imports this gets it, or a reason."""

from __future__ import annotations

import logging
from typing import Any

from ..core.operation import NoKernels

try:
    import numba as _numba
except Exception as error:  # of a missing, a damaged or an unsuitable package, each has its own
    why = f"the kernels need Numba, which cannot be imported ({type(error).__name__}: {error})"
    logging.getLogger("agnostic_xent").warning("slower portable definitions run: %s", why)
    raise NoKernels(why) from error

numba: Any = _numba  # Numba is typed in part only
config = numba.config
