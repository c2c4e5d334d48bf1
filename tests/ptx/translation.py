"""From PTX to LLVM's IR: a kernel becomes a coroutine, which a thread runs to its next meeting.

Each register is a variable on the stack, which LLVM makes a value of. Where a thread has to meet
others, the coroutine suspends itself, and LLVM keeps in its frame what it needs afterwards. Each
access to memory asks the machine for the place first.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .layout import BARRIER, ENDED, FAILED, PRODUCT, SHUFFLE, THREAD, WARP
from .operations import ARITHMETIC, COMPARISONS, FLOATS, LLVM, OPERATIONS, size_of
from .text import (
    Function,
    Instruction,
    Label,
    Module,
    Register,
    Scope,
    UnknownPTX,
    elements,
    parts,
)


class Variable(NamedTuple):
    """Where a register is kept, and its LLVM type."""

    place: str
    kind: str


SPECIAL = {
    f"%{name}.{axis}": THREAD.fields[name][1] + 4 * place
    for name in ("tid", "ntid", "ctaid", "nctaid")
    for place, axis in enumerate("xyz")
} | {f"%{name}": THREAD.fields[name][1] for name in ("laneid", "dynamic_smem_size")}
"""Where in its record a thread finds the special registers."""

MMA = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"

DECLARATIONS = """
declare i64 @ptx_global(ptr, ptr, i32, i64, i64, i32)
declare i64 @ptx_shared(ptr, ptr, i32, i64, i64, i32)
declare i32 @ptx_copy(ptr, ptr, i32, i64, i64, i64, i64)
declare i32 @ptx_land(ptr, ptr, i32, i32)
"""
"""What the machine offers: see machine.py."""

ENTRY = """
define void @start(ptr %memory, ptr %thread, ptr %machine, ptr %parameters) presplitcoroutine {{
entry:
{variables}
  %id = call token @llvm.coro.id(i32 16, ptr null, ptr null, ptr null)
  %size = call i64 @llvm.coro.size.i64()
  %place = getelementptr i8, ptr %thread, i64 {frame}
  store i64 %size, ptr %place
  %asks = icmp eq ptr %memory, null
  br i1 %asks, label %told, label %made
told:
  ret void
made:
  %frame = call ptr @llvm.coro.begin(token %id, ptr %memory)
  %first = call i8 @llvm.coro.suspend(token none, i1 false)
  switch i8 %first, label %left [i8 0, label %body i8 1, label %left]
body:
{body}
failed:
  %failed.state = getelementptr i8, ptr %thread, i64 {state}
  store i32 {failed_state}, ptr %failed.state
  br label %end
returned:
  %ended.state = getelementptr i8, ptr %thread, i64 {state}
  store i32 {ended_state}, ptr %ended.state
  br label %end
end:
  %last = call i8 @llvm.coro.suspend(token none, i1 true)
  switch i8 %last, label %left [i8 0, label %never i8 1, label %left]
never:
  unreachable
left:
  call void @llvm.coro.end(ptr %frame, i1 false, token none)
  ret void
}}

define void @resume(ptr %frame) {{
  call void @llvm.coro.resume(ptr %frame)
  ret void
}}
"""

CALLED = """
define internal {result} @{name}({parameters}) {{
entry:
{variables}
  br label %body
body:
{body}
returned:
  %result = load {result}, ptr {result_variable}
  ret {result} %result
}}
"""


def translate(module: Module) -> str:
    """Return LLVM's IR of a module with one kernel."""
    return "\n".join(
        [ARITHMETIC, DECLARATIONS, *(Body(module, each).code() for each in module.functions)]
    )


class Body:
    """The translation of a function."""

    def __init__(self, module: Module, function: Function):
        self.module, self.function = module, function
        self.variables: list[str] = []
        self.lines: list[str] = []
        self.scopes: list[dict[str, Variable]] = [{}]
        self.fresh = 0

    def code(self) -> str:
        """Return the IR of the function."""
        f = self.function
        if not f.entry:
            for each in filter(None, (*f.parameters, f.result)):
                self.declare(each)
            self.lines += [
                f"  store {LLVM[p.type]} %given.{i}, ptr {self.variable(p.name).place}"
                for i, p in enumerate(f.parameters)
            ]
        for each in f.body:
            match each:
                case Scope(opens):
                    self.scopes.append({}) if opens else self.scopes.pop()
                case Register():
                    self.declare(each)
                case Label(name):
                    self.begin(label_of(name))
                case Instruction():
                    self.guarded(each)
        if not self.ended():
            self.emit("br label %returned")
        filled = {"variables": "\n".join(self.variables), "body": "\n".join(self.lines)}
        if f.entry:
            return ENTRY.format(
                **filled, frame=offset("frame"), state=offset("state"),
                failed_state=FAILED, ended_state=ENDED,
            )  # fmt: skip
        assert f.result
        given = (f"{LLVM[p.type]} %given.{i}" for i, p in enumerate(f.parameters))
        return CALLED.format(
            **filled, result=LLVM[f.result.type], name=f.name, parameters=", ".join(given),
            result_variable=self.variable(f.result.name).place,
        )  # fmt: skip

    # --- lines -----------------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        """Add a line of IR."""
        self.lines.append(f"  {line}")

    def value(self, code: str) -> str:
        """Add a line that computes a value, and return its name."""
        self.fresh += 1
        self.emit(f"%v{self.fresh} = {code}")
        return f"%v{self.fresh}"

    def block(self, name: str) -> str:
        """Return a new name for a basic block."""
        self.fresh += 1
        return f"{name}{self.fresh}"

    def begin(self, block: str) -> None:
        """Begin a basic block, into which the one before runs on."""
        if not self.ended():
            self.emit(f"br label %{block}")
        self.lines.append(f"{block}:")

    def ended(self) -> bool:
        """Return whether the basic block has ended."""
        return bool(self.lines) and self.lines[-1].startswith(("  br ", "  switch "))

    # --- operands --------------------------------------------------------------------------------

    def declare(self, register: Register) -> None:
        """Make a register's variable."""
        self.fresh += 1
        place = f"%{re.sub(r'[^A-Za-z0-9]', '_', register.name)}.{self.fresh}"
        self.scopes[-1][register.name] = Variable(place, LLVM[register.type])
        self.variables.append(f"  {place} = alloca {LLVM[register.type]}")

    def variable(self, name: str) -> Variable:
        """Return the variable of a register or parameter."""
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise KeyError(f"no register {name}")

    def read(self, operand: str, kind: str) -> str:
        """Return an operand as a value of an LLVM type."""
        if operand in SPECIAL:
            place = self.value(f"getelementptr i8, ptr %thread, i64 {SPECIAL[operand]}")
            return self.cast(self.value(f"load i32, ptr {place}"), "i32", kind)
        if operand in self.module.shared:
            return str(self.module.shared[operand])
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}", operand):
            return self.cast(str(int(operand[2:], 16)), f"i{4 * len(operand[2:])}", kind)
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", operand):
            value = int(operand.rstrip("U"), 0)
            if kind == "i1":
                return str(int(value != 0))
            width = size_of(kind)
            return self.cast(str(value & ((1 << width) - 1)), f"i{width}", kind)
        place, stored = self.variable(operand)
        return self.cast(self.value(f"load {stored}, ptr {place}"), stored, kind)

    def read_all(self, operands: list[str], kinds: list[str]) -> list[str]:
        """Return operands as values of LLVM types."""
        return [self.read(each, kind) for each, kind in zip(operands, kinds, strict=True)]

    def cast(self, value: str, given: str, wanted: str, signed: bool = False) -> str:
        """Return the bits of a value as another type, those of an integer perhaps fewer or more."""
        if given == wanted:
            return value
        if "i1" in (given, wanted):
            raise KeyError("a predicate is no number")
        whole, goal = f"i{size_of(given)}", f"i{size_of(wanted)}"
        if given != whole:
            value = self.value(f"bitcast {given} {value} to {whole}")
        if size_of(given) > size_of(wanted):
            value = self.value(f"trunc {whole} {value} to {goal}")
        elif size_of(given) < size_of(wanted):
            value = self.value(f"{'sext' if signed else 'zext'} {whole} {value} to {goal}")
        return value if wanted == goal else self.value(f"bitcast {goal} {value} to {wanted}")

    def write(self, operand: str, value: str, kind: str, signed: bool = False) -> None:
        """Set a register to a value of an LLVM type."""
        if operand == "_":
            return
        place, stored = self.variable(operand)
        self.emit(f"store {stored} {self.cast(value, kind, stored, signed)}, ptr {place}")

    def address(self, operand: str) -> str:
        """Return an operand such as "[%rd1+16]" as a number of 64 bits."""
        base, added = parts(operand)
        kind = "i64" if base in self.module.shared else self.variable(base).kind
        start = self.cast(self.read(base, kind), kind, "i64")
        return self.value(f"add i64 {start}, {added}")

    def field(self, name: str, place: int = 0) -> str:
        """Return the address of a field of the thread's record."""
        return self.value(f"getelementptr i8, ptr %thread, i64 {offset(name) + 4 * place}")

    # --- instructions ----------------------------------------------------------------------------

    def guarded(self, i: Instruction) -> None:
        """Add an instruction, which its guard may skip."""
        if self.ended():  # nothing leads here
            self.begin(self.block("dead"))
        try:
            if not i.guard:
                self.instruction(i)
                return
            taken, skipped = self.block("taken"), self.block("skipped")
            ways = (skipped, taken) if i.guard.startswith("!") else (taken, skipped)
            if_ = self.read(i.guard.lstrip("!"), "i1")
            self.emit(f"br i1 {if_}, label %{ways[0]}, label %{ways[1]}")
            self.lines.append(f"{taken}:")
            self.instruction(i)
            self.begin(skipped)
        except UnknownPTX:
            raise
        except (KeyError, ValueError) as error:
            raise UnknownPTX(i, f"{type(error).__name__}: {error}") from error

    def instruction(self, i: Instruction) -> None:
        """Add an instruction."""
        name, *rest = i.opcode.split(".")
        if i.opcode in OPERATIONS:
            operation = OPERATIONS[i.opcode]
            target, *given = i.operands
            values = self.read_all(given, operation.operands)
            value = self.value(operation.code.format(*values))
            signed = rest[-1].startswith("s")
            self.write(target, value, operation.result, signed)
        elif handler := HANDLERS.get(name):
            handler(self, i, rest)
        else:
            raise UnknownPTX(i, "opcode")

    def move(self, i: Instruction, rest: list[str]) -> None:
        """Add a move: of a value, out of the parts of one, or into them."""
        target, source = i.operands
        kind = LLVM[rest[0]]
        if target.startswith("{"):
            parts = elements(target)
            width = size_of(kind) // len(parts)
            whole = self.read(source, f"i{size_of(kind)}")
            for place, part in enumerate(parts):
                shifted = self.value(f"lshr i{size_of(kind)} {whole}, {place * width}")
                self.write(part, self.cast(shifted, f"i{size_of(kind)}", f"i{width}"), f"i{width}")
        elif source.startswith("{"):
            parts = elements(source)
            width = size_of(kind) // len(parts)
            whole = "0"
            for place, part in enumerate(parts):
                wide = self.cast(self.read(part, f"i{width}"), f"i{width}", kind)
                shifted = self.value(f"shl {kind} {wide}, {place * width}")
                whole = self.value(f"or {kind} {whole}, {shifted}")
            self.write(target, whole, kind)
        else:
            self.write(target, self.read(source, kind), kind)

    def convert(self, i: Instruction, rest: list[str]) -> None:
        """Add a conversion, but for those of arithmetic.ll."""
        *how, to, of = rest
        target, source = i.operands
        kind, given = LLVM[to], LLVM[of]
        value = self.read(source, given)
        match how, of in FLOATS, to in FLOATS:
            case [], False, False:
                value = self.cast(value, given, kind, of.startswith("s"))
            case ["rn"], False, True:
                value = self.value(f"{of[0]}itofp {given} {value} to {kind}")
            case [], True, True if size_of(given) < size_of(kind):
                value = self.value(f"fpext {given} {value} to {kind}")
            case ["rn"], True, True if size_of(given) > size_of(kind):
                value = self.value(f"fptrunc {given} {value} to {kind}")
            case ["rzi"], True, True if given == kind:
                value = self.value(f"call {kind} @llvm.trunc.{to}({kind} {value})")
            case _:
                raise UnknownPTX(i, "conversion")
        self.write(target, value, kind, to.startswith("s"))

    def compare(self, i: Instruction, rest: list[str]) -> None:
        """Add a comparison."""
        how, of = rest
        target, *given = i.operands
        x, y = (self.read(each, LLVM[of]) for each in given)
        if of in FLOATS:
            code = f"fcmp {COMPARISONS[how]}"
        else:
            sign = "" if how in ("eq", "ne") else "s" if of.startswith("s") else "u"
            code = f"icmp {sign}{how}"
        self.write(target, self.value(f"{code} {LLVM[of]} {x}, {y}"), "i1")

    def branch(self, i: Instruction, rest: list[str]) -> None:
        """Add a branch."""
        self.emit(f"br label %{label_of(i.operands[0])}")

    def leave(self, i: Instruction, rest: list[str]) -> None:
        """Add the end of the function."""
        self.emit("br label %returned")

    def function_call(self, i: Instruction, rest: list[str]) -> None:
        """Add a call of a function that computes."""
        result, name, given = i.operands
        (f,) = (each for each in self.module.functions if each.name == name)
        (target,) = elements(result)
        kinds = [LLVM[p.type] for p in f.parameters]
        values = self.read_all(elements(given), kinds)
        shown = ", ".join(f"{kind} {value}" for kind, value in zip(kinds, values, strict=True))
        kind = LLVM[f.result.type]
        self.write(target, self.value(f"call {kind} @{name}({shown})"), kind)

    # --- memory ----------------------------------------------------------------------------------

    def load(self, i: Instruction, rest: list[str]) -> None:
        """Add a load of a parameter, or of one or more elements."""
        space, *_, of = rest
        target, source = i.operands
        kind = LLVM[of]
        if space == "param":
            self.write(target, self.parameter(source, kind), kind, of.startswith("s"))
            return
        targets = elements(target)
        place = self.place(i, space, source, kind, len(targets), writes=False)
        for n, each in enumerate(targets):
            there = self.value(f"getelementptr {kind}, ptr {place}, i64 {n}")
            self.write(each, self.value(f"load {kind}, ptr {there}"), kind, of.startswith("s"))

    def parameter(self, source: str, kind: str) -> str:
        """Return a parameter of the function, or the result of one that was called."""
        name = self.whole(source)
        names = [p.name for p in self.function.parameters]
        if not self.function.entry or name not in names:
            return self.read(name, kind)
        there = self.value(f"getelementptr ptr, ptr %parameters, i64 {names.index(name)}")
        place = self.value(f"load ptr, ptr {there}")
        return self.value(f"load {kind}, ptr {place}")

    def whole(self, operand: str) -> str:
        """Return the name of a parameter, which an address is that of."""
        name, added = parts(operand)
        if added:
            raise ValueError("a part of a parameter")
        return name

    def store(self, i: Instruction, rest: list[str]) -> None:
        """Add a store of a parameter for a call, of a result, or of one or more elements."""
        space, *_, of = rest
        target, source = i.operands
        kind = LLVM[of]
        if space == "param":
            name = self.whole(target)
            self.write(name, self.read(source, kind), kind)
            return
        values = [self.read(each, kind) for each in elements(source)]
        place = self.place(i, space, target, kind, len(values), writes=True)
        for n, each in enumerate(values):
            there = self.value(f"getelementptr {kind}, ptr {place}, i64 {n}")
            self.emit(f"store {kind} {each}, ptr {there}")

    def place(
        self, i: Instruction, space: str, operand: str, kind: str, count: int, writes: bool
    ) -> str:
        """Return the place of an access to memory, which the machine has checked."""
        if space not in ("global", "shared") or not self.function.entry:
            raise UnknownPTX(i, "memory")
        address, size = self.address(operand), size_of(kind) // 8 * count
        known = f"ptr %machine, ptr %thread, i32 {i.number}"
        code = f"@ptx_{space}({known}, i64 {address}, i64 {size}, i32 {int(writes)})"
        found = self.value(f"call i64 {code}")
        self.unless_failed(found, "i64")
        return self.value(f"inttoptr i64 {found} to ptr")

    def unless_failed(self, found: str, kind: str) -> None:
        """Go on unless the machine has found something wrong, and returned 0."""
        fine = self.block("fine")
        self.emit(f"br i1 {self.value(f'icmp ne {kind} {found}, 0')}, label %{fine}, label %failed")
        self.lines.append(f"{fine}:")

    def copy(self, i: Instruction, rest: list[str]) -> None:
        """Add a copy that nobody waits for, the end of a group of them, or the wait for groups."""
        known = f"ptr %machine, ptr %thread, i32 {i.number}"
        match rest:
            case ["async", "ca" | "cg", "shared", "global"]:
                target, source, size, *valid = i.operands
                places = self.address(target), self.address(source)
                (read,) = (self.cast(self.read(v, "i32"), "i32", "i64") for v in valid or [size])
                given = ", ".join(f"i64 {each}" for each in (*places, size, read))
                found = self.value(f"call i32 @ptx_copy({known}, {given})")
                self.unless_failed(found, "i32")
            case ["async", "commit_group"]:
                group = self.field("group")
                now = self.value(f"load i32, ptr {group}")
                self.emit(f"store i32 {self.value(f'add i32 {now}, 1')}, ptr {group}")
            case ["async", "wait_group"]:
                left = self.read(i.operands[0], "i32")
                found = self.value(f"call i32 @ptx_land({known}, i32 {left})")
                self.unless_failed(found, "i32")
            case _:
                raise UnknownPTX(i, "copy")

    # --- meetings --------------------------------------------------------------------------------

    def meet(self, i: Instruction, state: int) -> None:
        """Suspend the thread until those that it has to meet are there."""
        if not self.function.entry:
            raise UnknownPTX(i, "meeting in a function")
        self.emit(f"store i32 {i.number}, ptr {self.field('at')}")
        self.emit(f"store i32 {state}, ptr {self.field('state')}")
        woken = self.value("call i8 @llvm.coro.suspend(token none, i1 false)")
        on = self.block("on")
        self.emit(f"switch i8 {woken}, label %left [i8 0, label %{on} i8 1, label %left]")
        self.lines.append(f"{on}:")

    def give(self, words: list[str]) -> None:
        """Write what the thread gives to its warp."""
        for place, word in enumerate(words):
            self.emit(f"store i32 {self.read(word, 'i32')}, ptr {self.field('words', place)}")

    def get(self, targets: list[str]) -> None:
        """Read what the thread gets from its warp."""
        for place, target in enumerate(targets):
            word = self.value(f"load i32, ptr {self.field('words', place)}")
            self.write(target, word, "i32")

    def shuffle(self, i: Instruction, rest: list[str]) -> None:
        """Add an exchange between the lanes of a whole warp."""
        target, value, step, clamp, mask = i.operands
        if rest != ["sync", "bfly", "b32"] or (clamp, mask) != ("31", "-1"):
            raise UnknownPTX(i, "shuffle")
        self.give([value, step])
        self.meet(i, SHUFFLE)
        self.get([target])

    def multiply(self, i: Instruction, rest: list[str]) -> None:
        """Add a product of matrices on the tensor core."""
        if i.opcode != MMA:
            raise UnknownPTX(i, "product")
        d, *given = map(elements, i.operands)
        self.give([each for fragment in given for each in fragment])
        self.meet(i, PRODUCT)
        self.get(d)

    def barrier(self, i: Instruction, rest: list[str]) -> None:
        """Add a meeting of the block or of the warp."""
        match rest, i.operands:
            case ["sync"], ["0"]:
                self.meet(i, BARRIER)
            case ["warp", "sync"], ["-1"]:
                self.meet(i, WARP)
            case _:
                raise UnknownPTX(i, "barrier")

    def to_global(self, i: Instruction, rest: list[str]) -> None:
        """Add the conversion of a generic address, which a global one is."""
        if rest != ["to", "global", "u64"]:
            raise UnknownPTX(i, "address")
        self.write(i.operands[0], self.read(i.operands[1], "i64"), "i64")


HANDLERS = {
    "mov": Body.move, "cvt": Body.convert, "setp": Body.compare, "bra": Body.branch,
    "ret": Body.leave, "call": Body.function_call, "ld": Body.load, "st": Body.store,
    "cp": Body.copy, "shfl": Body.shuffle, "mma": Body.multiply, "bar": Body.barrier,
    "cvta": Body.to_global,
}  # fmt: skip
"""What translates the instructions that are not in the table, by their first words."""


def offset(field: str) -> int:
    """Return where a field is in the record of a thread."""
    return int(THREAD.fields[field][1])


def label_of(name: str) -> str:
    """Return the basic block of a label."""
    return f"label.{name}"
