"""Machine code for NVIDIA GPUs, read: how many instructions a thread issues on its way through.

Which way a thread goes is not in the code. It is taken to be the one that does most of what kernels
are for (accesses to global memory of the widest kind, to shared memory by 16 bytes, powers of two),
and of several such ways the shortest: rows of whole vectors, and no options.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
"""Bytes of an access, by the suffix of the instruction; without one they are 4."""

LINE = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)(.*?)\s*;", re.M)


@dataclass
class Block:
    """Instructions that are issued together, and the places in code of those that may follow."""

    operations: list[str] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    loops: set[int] = field(default_factory=set)
    """The first blocks of the loops that it is in."""


def disassembled(cubin: bytes) -> str:
    """Return machine code as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = ["nvdisasm", "-c", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def blocks_of(text: str, name: str) -> list[Block]:
    """Return the blocks of the kernel of this name, in their order."""
    _, _, text = text.partition(f"\n.text.{name}:")
    text = re.split(r"\n//-{10}", text)[0]
    found, labels, jumps = [Block()], {}, {}
    for line in text.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            if found[-1].operations:
                found.append(Block())
            labels[label[1]] = len(found) - 1
        elif match := LINE.match(line):
            predicate, operation, operands = match.groups()
            if operation.startswith("NOP"):
                continue
            place = len(found) - 1
            found[-1].operations.append(operation)
            kind = operation.partition(".")[0]
            ends = kind in ("BRA", "EXIT", "RET") and "DIV" not in operation
            if ends:
                if kind == "BRA":
                    jumps[place] = re.search(r"\((\.L_\w+)\)", operands)[1]  # type: ignore[index]
                if predicate or re.match(r"\s*U?!?U?P\d,", operands):
                    found[-1].after.append(place + 1)
                found.append(Block())
            continue
    for place, block in enumerate(found):
        if place in jumps:
            block.after.append(labels[jumps[place]])
        elif block.operations and block.operations[-1].partition(".")[0] not in ("EXIT", "RET"):
            block.after.append(place + 1)
    for block in found:
        block.after = sorted({place for place in block.after if place < len(found)})
    return found


def mark_loops(blocks: list[Block]) -> None:
    """Note which loops each block is in; a loop is named by its first block."""
    before: dict[int, list[int]] = {}
    for place, block in enumerate(blocks):
        for other in block.after:
            before.setdefault(other, []).append(place)
    for place, block in enumerate(blocks):
        for head in [other for other in block.after if other <= place]:
            inside, ahead = {head}, [place]
            while ahead:
                other = ahead.pop()
                if other not in inside and other > head:
                    inside.add(other)
                    ahead += before.get(other, [])
            for other in inside:
                blocks[other].loops.add(head)


def access(operation: str) -> tuple[str, int]:
    """Return "LDG", "STG", "LDS" or "STS" and its bytes, or "" and 0 for another instruction."""
    kind, *suffixes = operation.split(".")
    if kind not in ("LDG", "STG", "LDS", "STS"):
        return "", 0
    return kind, next((BYTES[s] for s in suffixes if s in BYTES), 4)


@dataclass(frozen=True)
class Way:
    """What a thread issues: instructions in no loop, and in one pass of each loop."""

    instructions: dict[int | None, int]
    bytes: dict[int | None, dict[str, int]]
    """Of accesses by their kinds, likewise."""


def way_through(cubin: bytes, name: str) -> Way:
    """Return what a thread of a kernel issues."""
    blocks = blocks_of(disassembled(cubin), name)
    mark_loops(blocks)
    widest = Counter[str]()
    for kind, size in (access(o) for block in blocks for o in block.operations):
        widest[kind] = max(widest[kind], size)

    def worth(operation: str) -> int:
        kind, size = access(operation)
        if kind in ("LDG", "STG"):
            return int(size == widest[kind])
        return int(size == 16 or operation.startswith("MUFU.EX2"))

    @functools.cache
    def best(place: int) -> tuple[int, int, tuple[int, ...]]:
        block = blocks[place]
        onward = [other for other in block.after if other > place]
        if not onward and block.after:  # from the end of a loop to what follows it
            inside = [p for p, b in enumerate(blocks) if min(block.after) in b.loops]
            onward = [o for p in inside for o in blocks[p].after if o > max(inside)][:1]
        work, cost, way = max((best(other) for other in onward), default=(0, 0, ()))
        work += sum(map(worth, block.operations))
        return work, cost - len(block.operations), (place, *way)

    instructions: Counter[int | None] = Counter()
    moved: dict[int | None, Counter[str]] = {}
    for place in best(0)[2]:
        block = blocks[place]
        loop = max(block.loops, default=None)
        instructions[loop] += len(block.operations)
        for kind, size in map(access, block.operations):
            moved.setdefault(loop, Counter())[kind] += size
    return Way(dict(instructions), {loop: dict(sizes) for loop, sizes in moved.items()})
