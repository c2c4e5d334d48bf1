"""Single instructions of the processor that LLVM is compiling for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils as _cgutils

cgutils: Any = _cgutils  # Numba is typed in part only


def emit_fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Emit ``x * y + z``, of numbers or of vectors; one rounding if the processor can, else two.

    To insist on one would call a function for each lane where there is no such instruction.
    """
    kind = x.type
    lanes = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    bits = 32 if getattr(kind, "element", kind) == ir.FloatType() else 64
    declared = ir.FunctionType(kind, [kind] * 3)
    name = f"llvm.fmuladd.{lanes}f{bits}"
    return builder.call(cgutils.get_or_insert_function(builder.module, declared, name), [x, y, z])
