"""Functions that compiled code alone calls: no machine code is made of them by themselves.

Numba optimises and translates each function on its own, and then again within each of its callers,
which take it in: most of the time that a nest of small functions takes to compile. Here the code is
kept as it was written down until it is part of a loop that Python calls.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary as _JITCodeLibrary
from numba.core.compiler import Compiler as _Compiler

JITCodeLibrary: Any = _JITCodeLibrary  # Numba is typed in part only
Compiler: Any = _Compiler


class HelperCode(JITCodeLibrary):  # type: ignore[misc,unused-ignore]
    """The code of a function, and of those that it calls, for linking into its callers."""

    def _optimize_final_module(self) -> None:
        """Do nothing: the callers optimise this code."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0: there is no machine code."""
        return 0

    @property
    def codegen(self) -> Any:
        """Return what takes the function's environment, for which there is no use."""
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Forget a function's environment."""


class HelperCompiler(Compiler):  # type: ignore[misc,unused-ignore]
    """Numba's compiler, whose result is `HelperCode`."""

    def compile_extra(self, func: Any) -> Any:
        """Compile a function to `HelperCode`."""
        self.state.library = HelperCode(self.state.targetctx.codegen(), func.__qualname__)
        compiled: Any = super().compile_extra(func)
        return compiled


CALLEE = {
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": HelperCompiler,
}
"""Options of a function that is optimised as a part of its callers; what Python would call takes as
long to compile as the function."""
