"""The text of PTX, taken apart: functions, their parameters, and their statements by lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Instruction(NamedTuple):
    """An instruction; a ``guard`` such as "!%p1" says when it is executed."""

    number: int
    line: int
    text: str
    guard: str
    opcode: str
    operands: list[str]


class UnknownPTX(ValueError):
    """PTX that the executor does not know."""

    def __init__(self, i: Instruction, why: str):
        super().__init__(f"PTX line {i.line} is not known to the executor ({why}): {i.text}")


class Label(NamedTuple):
    """A place to branch to."""

    name: str


class Register(NamedTuple):
    """A register of a type such as "f32", or a parameter of a call."""

    name: str
    type: str


class Scope(NamedTuple):
    """A brace, which opens or closes a scope of names."""

    opens: bool


Statement = Instruction | Label | Register | Scope


class Function(NamedTuple):
    """A kernel (``entry``), or a function that kernels call."""

    name: str
    entry: bool
    parameters: list[Register]
    result: Register | None
    body: list[Statement]


class Module(NamedTuple):
    """A text of PTX: its functions, and the offsets of its arrays in shared memory.

    An array without a size, which the launch gives, lies behind all others.
    """

    functions: list[Function]
    instructions: list[Instruction]
    shared: dict[str, int]
    shared_size: int


FUNCTION = re.compile(
    r"\.(?P<kind>entry|func)\s*(?:\((?P<result>[^)]*)\))?\s*(?P<name>[\w$]+)\s*"
    r"\((?P<parameters>[^)]*)\)(?P<directives>[^{;]*)\{"
)
SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
STATEMENT = re.compile(
    r"\s*(?:(?P<brace>[{}])|(?P<label>[\w$]+):|(?P<text>(?:[^;{}]|\{[^{};]*\})+);)"
)
INSTRUCTION = re.compile(r"(?:@(?P<guard>!?[%\w]+)\s+)?(?P<opcode>[\w.]+)\s*(?P<operands>.*)", re.S)
REGISTERS = re.compile(r"\.(?:reg|param)\s+\.(?P<type>\w+)\s+(?P<names>.+)", re.S)
ADDRESS = re.compile(r"\[\s*(?P<base>[\w$%.]+)\s*(?:\+\s*(?P<offset>-?\d+))?\s*\]")
OPERAND = re.compile(r"(?:[^,{}()\[\]]|\{[^}]*\}|\([^)]*\)|\[[^\]]*\])+")


def parse(ptx: str) -> Module:
    """Take a text of PTX apart."""
    text = re.sub(r"//[^\n]*", "", ptx)
    shared, size = {}, 0
    for align, name, count in sorted(SHARED.findall(text), key=lambda found: not found[2]):
        shared[name] = -(-size // int(align)) * int(align)
        size = shared[name] + int(count or 0)
    instructions: list[Instruction] = []
    functions = [
        Function(
            found["name"],
            found["kind"] == "entry",
            parameters_of(found["parameters"]),
            next(iter(parameters_of(found["result"] or "")), None),
            list(statements(text, found.end(), instructions)),
        )
        for found in FUNCTION.finditer(text)
    ]
    return Module(functions, instructions, shared, size)


def parameters_of(text: str) -> list[Register]:
    """Return the parameters in a list such as ".param .u64 a, .param .u32 b"."""
    words = [each.split() for each in text.split(",") if each.strip()]
    return [Register(each[-1], each[1].removeprefix(".")) for each in words]


def statements(text: str, start: int, instructions: list[Instruction]) -> Iterator[Statement]:
    """Yield the statements of a body that starts behind its brace, and list its instructions."""
    depth = 1
    line, seen = 1 + text.count("\n", 0, start), start
    while True:
        found = STATEMENT.match(text, start)
        assert found, f"line {line}: {text[start : start + 80]}"
        start = found.end()
        kind = found.lastgroup or ""
        line, seen = line + text.count("\n", seen, found.start(kind)), found.start(kind)
        if kind == "brace":
            depth += 1 if found["brace"] == "{" else -1
            if not depth:
                return
            yield Scope(found["brace"] == "{")
        elif kind == "label":
            yield Label(found["label"])
        elif declared := REGISTERS.fullmatch(found["text"].strip()):
            yield from registers(**declared.groupdict())
        elif not found["text"].lstrip().startswith(".pragma"):
            instructions.append(instruction(len(instructions), line, found["text"]))
            yield instructions[-1]


def registers(type: str, names: str) -> Iterator[Register]:
    """Yield the registers of a declaration such as ".reg .f32 %f<3>"."""
    for name in map(str.strip, names.split(",")):
        stem, _, count = name.rstrip(">").partition("<")
        for each in [f"{stem}{i}" for i in range(int(count))] if count else [stem]:
            yield Register(each, type)


def instruction(number: int, line: int, text: str) -> Instruction:
    """Return an instruction, taken apart."""
    text = " ".join(text.split())
    found = INSTRUCTION.fullmatch(text)
    if not found:
        raise UnknownPTX(Instruction(number, line, text, "", "", []), "statement")
    operands = [each.strip() for each in OPERAND.findall(found["operands"])]
    return Instruction(number, line, text, found["guard"] or "", found["opcode"], operands)


def parts(address: str) -> tuple[str, int]:
    """Return the base of an address such as "[%rd1+16]", and what is added."""
    found = ADDRESS.fullmatch(address)
    if not found:
        raise ValueError(f"the address {address}")
    return found["base"], int(found["offset"] or 0)


def elements(operand: str) -> list[str]:
    """Return the elements of a vector such as "{%r1, %r2}", or the operand alone."""
    if operand.startswith(("{", "(")):
        return [each.strip() for each in operand[1:-1].split(",")]
    return [operand]
