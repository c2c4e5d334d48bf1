"""Instructions of PTX that only compute, in LLVM's IR, and LLVM's types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ARITHMETIC = Path(__file__).with_name("arithmetic.ll").read_text()
DEFINED = r"define internal (\w+) @([\w.]+)\((.*?)\)"

FLOATS = {"f16": "half", "f32": "float", "f64": "double"}
LLVM = FLOATS | {"pred": "i1"} | {f"{k}{n}": f"i{n}" for k in "bus" for n in (8, 16, 32, 64)}
"""LLVM's types of PTX's."""

ANY = tuple(LLVM)
INTEGERS = "s16", "u16", "s32", "u32", "s64", "u64"
SIGNED = "s16", "s32", "s64"
BITS = "pred", "b16", "b32", "b64"
REAL = "f16", "f32", "f64"


class Operation(NamedTuple):
    """An instruction without side effects: the LLVM types of operands and result, and its IR."""

    result: str
    operands: list[str]
    code: str


def call(name: str, result: str, operands: list[str]) -> Operation:
    """Return a call of a function."""
    given = ", ".join(f"{kind} {{{i}}}" for i, kind in enumerate(operands))
    return Operation(result, operands, f"call {result} @{name}({given})")


def operations() -> dict[str, Operation]:
    """Return the table of the instructions without side effects, by their opcodes."""
    rows = [
        ("add", INTEGERS, 2, "add {T} {0}, {1}"),
        ("sub", INTEGERS, 2, "sub {T} {0}, {1}"),
        ("mul.lo", INTEGERS, 2, "mul {T} {0}, {1}"),
        ("neg", SIGNED, 1, "sub {T} 0, {0}"),
        ("and", BITS, 2, "and {T} {0}, {1}"),
        ("or", BITS, 2, "or {T} {0}, {1}"),
        ("xor", BITS, 2, "xor {T} {0}, {1}"),
        ("not", BITS, 1, "xor {T} {0}, -1"),
        ("add", REAL, 2, "fadd {T} {0}, {1}"),
        ("sub", REAL, 2, "fsub {T} {0}, {1}"),
        ("mul", REAL, 2, "fmul {T} {0}, {1}"),
        ("add.rn", REAL, 2, "fadd {T} {0}, {1}"),
        ("sub.rn", REAL, 2, "fsub {T} {0}, {1}"),
        ("mul.rn", REAL, 2, "fmul {T} {0}, {1}"),
        ("div.rn", REAL, 2, "fdiv {T} {0}, {1}"),
        ("rcp.rn", REAL, 1, "fdiv {T} 1.0, {0}"),
        ("neg", REAL, 1, "fneg {T} {0}"),
    ]
    found = {
        f"{name}.{t}": Operation(LLVM[t], [LLVM[t]] * count, code.replace("{T}", LLVM[t]))
        for name, types, count, code in rows
        for t in types
    }
    for name, types, count, function in [
        ("min", SIGNED, 2, "smin"),
        ("max", SIGNED, 2, "smax"),
        ("min", REAL, 2, "minimumnum"),
        ("max", REAL, 2, "maximumnum"),
        ("abs", REAL, 1, "fabs"),
        ("sqrt.rn", REAL, 1, "sqrt"),
        ("fma.rn", REAL, 3, "fma"),
    ]:
        for t in types:
            suffix = t.replace("s", "i") if t in SIGNED else t
            found[f"{name}.{t}"] = call(f"llvm.{function}.{suffix}", LLVM[t], [LLVM[t]] * count)
    for t in ANY:
        kind = LLVM[t]
        code = f"select i1 {{2}}, {kind} {{0}}, {kind} {{1}}"
        found[f"selp.{t}"] = Operation(kind, [kind, kind, "i1"], code)
    for result, name, operands in re.findall(DEFINED, ARITHMETIC):
        found[name] = call(name, result, [each.split()[0] for each in operands.split(", ")])
    return found


OPERATIONS = operations()

COMPARISONS = {
    "eq": "oeq", "ne": "one", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "equ": "ueq",
    "neu": "une", "ltu": "ult", "leu": "ule", "gtu": "ugt", "geu": "uge", "num": "ord",
    "nan": "uno",
}  # fmt: skip
"""LLVM's names of the comparisons of floats."""


def size_of(kind: str) -> int:
    """Return the bits of an LLVM type."""
    return {"half": 16, "float": 32, "double": 64}.get(kind) or int(kind[1:])
