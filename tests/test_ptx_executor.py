"""The executor of PTX: what it computes, and what it finds wrong, in kernels of a few lines."""

from __future__ import annotations

import ctypes
import re
from fractions import Fraction

import numpy as np
import pytest

from tests.ptx.operations import OPERATIONS
from tests.ptx.program import Fault, Program
from tests.ptx.text import UnknownPTX

THREADS = 64
KERNEL = """
.version 8.0
.target sm_90
.address_size 64
.shared .align 16 .b8 room[512];
.visible .entry kernel(.param .u64 x, .param .u64 y)
{{
    .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .f32 %f<16>;
    .reg .b64 %rd<16>; .reg .f64 %fd<8>;
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    mov.u32 %r1, %tid.x;
    mul.wide.s32 %rd5, %r1, 4;
    add.s64 %rd3, %rd1, %rd5;        // x[t]
    add.s64 %rd4, %rd2, %rd5;        // y[t]
    mov.u64 %rd6, room;
    add.s64 %rd7, %rd6, %rd5;        // room[t]
    xor.b64 %rd8, %rd7, 4;           // room of the lane beside t
    xor.b64 %rd9, %rd7, 128;         // room of a lane of the other warp
    xor.b32 %r2, %r1, 32;
    mul.wide.s32 %rd10, %r2, 4;
    add.s64 %rd10, %rd2, %rd10;      // y of a lane of the other warp
    shl.b32 %r2, %r1, 2;
    setp.lt.s32 %p1, %r1, 16;        // half a warp
    setp.lt.s32 %p2, %r1, 32;        // a warp
    setp.eq.s32 %p3, %r1, 7;
    setp.eq.s32 %p4, %r1, 1;
    {body}
    ret;
}}
"""


def run(body: str, x: np.ndarray, y: np.ndarray, blocks: int = 1, threads: int = THREADS) -> None:
    """Run a kernel of these instructions on two arrays."""
    addresses = [ctypes.c_uint64(a.ctypes.data) for a in (x, y)]
    parameters = [ctypes.addressof(a) for a in addresses]
    program = Program(KERNEL.format(body=body))
    program.launch((blocks, 1, 1), (threads, 1, 1), parameters, [x, y])


# --- what is wrong, and what is right -------------------------------------------------------------

PUT = "st.shared.f32 [%rd7], 0f3F800000;"
GET = "ld.shared.f32 %f2, [%rd8];"
FAR = "ld.shared.f32 %f2, [%rd9];"
BLOCK, WARP = "bar.sync 0;", "bar.warp.sync -1;"
SHUFFLE = "shfl.sync.bfly.b32 %r3, %r1, 1, 31, -1;"
START = "cp.async.ca.shared.global [%r2], [%rd3], 4;"
COMMIT, LAND = "cp.async.commit_group;", "cp.async.wait_group 0;"
OWN = "ld.shared.f32 %f2, [%rd7];"
FAULTS = {
    "behind the end": ("ld.global.f32 %f1, [%rd3+4];", "ld.global.f32 %f1, [%rd3];", "outside"),
    "before the start": (
        "ld.global.f32 %f1, [%rd3+-4];", "@%p1 ld.global.f32 %f1, [%rd3+4];", "byte -4"
    ),
    "write behind the end": (
        "st.global.f32 [%rd4+4], %f1;", "st.global.f32 [%rd4], %f1;", "a write of 4 .* is outside"
    ),
    "alignment": (
        "ld.global.v2.f32 {%f1, %f2}, [%rd3];", "ld.global.v2.f32 {%f1, %f2}, [%rd1+8];",
        "multiple",
    ),
    "behind shared memory": (
        "st.shared.f32 [%rd7+260], %f1;", "st.shared.f32 [%rd7+256], %f1;", "outside"
    ),
    "unwritten": (OWN, PUT + OWN, "nobody has written"),
    "read too early": (PUT + GET, PUT + BLOCK + GET, "wrote|nobody"),
    "a shuffle orders nothing": (PUT + SHUFFLE + GET, PUT + WARP + GET, "wrote"),
    "a warp's meeting is no block's": (PUT + WARP + FAR, PUT + BLOCK + FAR, "wrote|nobody"),
    "written too early": (
        PUT + BLOCK + GET + PUT, PUT + BLOCK + GET + WARP + PUT, "wrote|read"
    ),
    "written too early for the other warp": (
        PUT + BLOCK + FAR + WARP + PUT, PUT + BLOCK + FAR + BLOCK + PUT, "wrote|read"
    ),
    "written twice": (
        "st.shared.f32 [%rd6], 0f3F800000;", "@%p3 st.shared.f32 [%rd6], 0f3F800000;", "wrote"
    ),
    "global, written twice": (
        "st.global.f32 [%rd2], 0f3F800000;", "@%p3 st.global.f32 [%rd2], 0f3F800000;", "wrote"
    ),
    "global, read too early": (
        "st.global.f32 [%rd4], %f1; ld.global.f32 %f1, [%rd10];",
        "st.global.f32 [%rd4], %f1; bar.sync 0; ld.global.f32 %f1, [%rd10];",
        "wrote|read",
    ),
    "different shuffles": (
        f"@%p1 bra A; {SHUFFLE} bra B; A: {SHUFFLE} B:",
        f"@%p2 bra A; {SHUFFLE} bra B; A: {SHUFFLE} B:",
        "different instructions",
    ),
    "a lane has ended": (f"@%p1 ret; {SHUFFLE}", f"@%p2 ret; {SHUFFLE}", "different instructions"),
    "barrier in a branch": (
        f"@%p2 bra A; {BLOCK} A:", f"@%p2 bra A; A: {BLOCK}", "not all threads reach"
    ),
    "two barriers": (
        f"@%p2 bra A; {BLOCK} bra B; A: {BLOCK} B:", f"@%p2 bra A; A: {BLOCK}", "not all threads"
    ),
    "copy not waited for": (START + COMMIT + OWN + LAND, START + COMMIT + LAND + OWN, "not landed"),
    "group not closed": (START + LAND + OWN, START + COMMIT + LAND + OWN, "not landed"),
    "one group too few": (
        START + COMMIT + "cp.async.wait_group 1;" + OWN + LAND,
        START + COMMIT + COMMIT + "cp.async.wait_group 1;" + OWN, "not landed",
    ),
    "copy of others": (
        START + COMMIT + LAND + GET, START + COMMIT + LAND + BLOCK + GET, "wrote|nobody|not landed"
    ),
    "copy of others not waited for": (
        START + COMMIT + BLOCK + GET + LAND, START + COMMIT + LAND + BLOCK + GET, "not landed"
    ),
    "written while copied": (
        START + PUT + COMMIT + LAND, START + COMMIT + LAND + PUT, "not landed"
    ),
    "copied twice": (
        START + START + COMMIT + LAND, START + COMMIT + LAND + START + COMMIT + LAND, "not landed"
    ),
    "copy abandoned": (START + COMMIT, START + COMMIT + LAND, "under way"),
    "copy of 12 bytes": (
        "cp.async.ca.shared.global [%r2], [%rd3], 12;" + COMMIT + LAND, START + COMMIT + LAND,
        "copy of 12 bytes",
    ),
    "copy from an odd place": (
        "@%p4 cp.async.ca.shared.global [%rd6], [%rd3], 8;", START + COMMIT + LAND, "multiple"
    ),
    "nothing copied from outside": (
        START.replace("[%rd3]", "[%rd3+4]") + COMMIT + LAND,
        START.replace("[%rd3]", "[%rd3+4]").replace(" 4;", " 4, 0;") + COMMIT + LAND, "outside",
    ),
}  # fmt: skip
"""Instructions that are wrong, others that are right, and what is said of the wrong ones."""


def told(body: str, blocks: int = 1) -> str:
    """Return what is said of a kernel that runs on one array of 64 numbers and another."""
    x, y = np.ones(THREADS, "f4"), np.ones(THREADS, "f4")
    with pytest.raises(Fault) as caught:
        run(body, x, y, blocks)
    return str(caught.value)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_told(name):
    wrong, right, said = FAULTS[name]
    assert re.search(said, told(wrong))
    run(right, np.ones(THREADS, "f4"), np.ones(THREADS, "f4"))


def test_blocks_do_not_share_memory():
    right = "@!%p3 bra A; mov.u32 %r4, %ctaid.x; mul.wide.u32 %rd10, %r4, 4; "
    right += "add.s64 %rd10, %rd2, %rd10; st.global.f32 [%rd10], 0f40000000; A:"
    y = np.ones(THREADS, "f4")
    run(right, y.copy(), y, blocks=3)
    np.testing.assert_array_equal(y[:4], [2, 2, 2, 1])
    assert "of block 0 wrote" in told("@%p3 st.global.f32 [%rd2], 0f40000000;", blocks=2)
    assert "threads of several blocks read" in told(
        "ld.global.f32 %f1, [%rd2]; mov.u32 %r4, %ctaid.x; setp.eq.s32 %p5, %r4, 1;"
        "@%p5 st.global.f32 [%rd2], 0f40000000;", blocks=2,
    )  # fmt: skip
    written_by_the_first = "setp.eq.s32 %p5, %r4, 0; @%p5 st.shared.f32 [%rd7], 0f40000000; "
    assert "nobody has written" in told(
        f"mov.u32 %r4, %ctaid.x; {written_by_the_first} {OWN}", blocks=2
    )


def test_the_place_is_told():
    text = told("@%p3 ld.global.f32 %f1, [%rd3+1000];")
    assert text == (
        "kernel: a read of 4 bytes at byte 1028 of an array of 256 bytes is outside of the arrays "
        "of the launch (block (0, 0, 0), thread 7, PTX line 28: @%p3 ld.global.f32 %f1, "
        "[%rd3+1000])"
    )


def test_a_small_warp_does_not_shuffle():
    x = np.ones(THREADS, "f4")
    with pytest.raises(Fault, match="less than 32 lanes"):
        run(SHUFFLE, x, x, threads=40)


@pytest.mark.parametrize(
    "unknown",
    ["vote.sync.any.pred %p1, %p2, -1;", "add.cc.s32 %r1, %r1, 1;", "add.s32 %r1, %r99, 1;",
     "shfl.sync.up.b32 %r3, %r1, 1, 0, -1;", "shfl.sync.bfly.b32 %r3, %r1, 1, 31, 15;",
     "ld.local.f32 %f1, [%rd3];", "bar.sync 1;", "cvt.rni.s32.f32 %r1, %f1;", "bar.arrive 0, 64;",
     "cp.async.bulk.commit_group;", "atom.global.add.f32 %f1, [%rd3], %f1;"],
)  # fmt: skip
def test_what_is_not_known_is_told(unknown):
    with pytest.raises(UnknownPTX, match=r"^PTX line 28 ") as caught:
        run(unknown, np.ones(1), np.ones(1))
    assert str(caught.value).endswith(unknown.rstrip(";"))


# --- numbers -------------------------------------------------------------------------------------

REGISTERS = {
    "i16": ("b16", "%h"), "half": ("b16", "%h"), "i32": ("b32", "%r"), "float": ("f32", "%f"),
    "i64": ("b64", "%rd"), "double": ("f64", "%fd"),
}  # fmt: skip
DTYPES = {
    "i16": "u2", "half": "f2", "i32": "u4", "float": "f4", "i64": "u8", "double": "f8"
}  # fmt: skip


def compute(opcode: str, operands: list[np.ndarray]) -> np.ndarray:
    """Return what an instruction makes of operands, elements of arrays."""
    operation = OPERATIONS[opcode]
    n = operands[0].size
    x = np.zeros((n, len(operands)), "u8")
    for place, (kind, given) in enumerate(zip(operation.operands, operands, strict=True)):
        x[:, place] = given.astype(DTYPES[kind]).view(f"u{given.astype(DTYPES[kind]).itemsize}")
    y = np.zeros(n, "u8")
    lines = ["mul.wide.s32 %rd10, %r1, 8;", "add.s64 %rd11, %rd2, %rd10;"]
    lines += [f"mul.lo.s64 %rd12, %rd10, {len(operands)};", "add.s64 %rd12, %rd1, %rd12;"]
    names = []
    for place, kind in enumerate(operation.operands):
        suffix, register = REGISTERS[kind]
        names.append(f"{register}{place + 3 if register != '%rd' else place + 13}")
        lines.append(f"ld.global.{suffix} {names[-1]}, [%rd12+{8 * place}];")
    suffix, register = REGISTERS[operation.result]
    lines.append(f"{opcode} {register}2, {', '.join(names)};".replace("%rd2", "%rd6"))
    lines.append(f"st.global.{suffix} [%rd11], {register}2;".replace("%rd2", "%rd6"))
    run("\n".join(lines), x, y, threads=n)
    size = np.dtype(DTYPES[operation.result]).itemsize
    return y.astype(f"u{size}").view(DTYPES[operation.result])


def signed(a: int, bits: int) -> int:
    """Return the number that bits stand for in two's complement."""
    return a - (1 << bits) if a >> (bits - 1) else a


def divided(a: int, b: int) -> int:
    """Return a quotient, rounded towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGERS = {
    "shl.b16": lambda a, n: a << min(n, 64),
    "shr.u16": lambda a, n: a >> n,
    "shr.s16": lambda a, n: signed(a, 16) >> n,
    "shl.b32": lambda a, n: a << min(n, 64),
    "shl.b64": lambda a, n: a << min(n, 64),
    "shr.u32": lambda a, n: a >> n,
    "shr.u64": lambda a, n: a >> n,
    "shr.s32": lambda a, n: signed(a, 32) >> n,
    "shr.s64": lambda a, n: signed(a, 64) >> n,
    "div.u32": lambda a, b: a // b if b else -1,
    "rem.u32": lambda a, b: a % b if b else -1,
    "div.s64": lambda a, b: divided(signed(a, 64), signed(b, 64)) if b else -1,
    "rem.s64": lambda a, b: (
        signed(a, 64) - divided(signed(a, 64), signed(b, 64)) * signed(b, 64) if b else -1
    ),
    "mul.wide.s32": lambda a, b: signed(a, 32) * signed(b, 32),
    "mul.wide.u32": lambda a, b: a * b,
    "mul.hi.s64": lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    "mul.hi.u32": lambda a, b: a * b >> 32,
    "mul.lo.s64": lambda a, b: a * b,
    "mad.lo.s32": lambda a, b, c: a * b + c,
    "mad.lo.u32": lambda a, b, c: a * b + c,
    "mad.lo.s64": lambda a, b, c: a * b + c,
    "mad.lo.u64": lambda a, b, c: a * b + c,
    "add.s32": lambda a, b: a + b,
    "sub.s64": lambda a, b: a - b,
    "max.s32": lambda a, b: max(signed(a, 32), signed(b, 32)),
    "min.s64": lambda a, b: min(signed(a, 64), signed(b, 64)),
    "neg.s64": lambda a: -a,
    "not.b32": lambda a: ~a,
    "xor.b64": lambda a, b: a ^ b,
}
"""What instructions of integers compute, but for what does not fit the result."""


ENDS = np.array([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1], "u8")


@pytest.mark.parametrize("opcode", INTEGERS)
def test_integers(opcode):
    rng = np.random.default_rng(0)
    operation = OPERATIONS[opcode]
    operands = []
    for place, kind in enumerate(operation.operands):
        x = rng.integers(0, 2**64, 256, dtype="u8") >> rng.integers(0, 64, 256, dtype="u8")
        x[:96] = np.roll(np.tile(ENDS, 16), 16 * place)
        if opcode.startswith("sh") and place:
            x = rng.integers(0, 70, 256, dtype="u8")
        operands.append(x.astype(DTYPES[kind]))
    found = compute(opcode, operands)
    size = 8 * found.itemsize
    expected = [
        INTEGERS[opcode](*map(int, each)) % (1 << size) for each in zip(*operands, strict=True)
    ]
    assert found.tolist() == expected


def to_float32(exact: Fraction, up: bool | None) -> np.float32:
    """Return a number rounded down or up, or towards zero (None)."""
    up = exact < 0 if up is None else up
    near = np.float32(float(exact))
    if up and Fraction(float(near)) < exact:
        return np.nextafter(near, np.float32(np.inf))
    if not up and Fraction(float(near)) > exact:
        return np.nextafter(near, np.float32(-np.inf))
    return near


def floats(code: str, seed: int) -> np.ndarray:
    """Return numbers of any bits, and numbers of moderate size, special ones among them."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**64, 256, dtype="u8").astype(code.replace("f", "u")).view(code)
    bits[64:] = rng.standard_normal(192) * 2.0 ** rng.integers(-12, 12, 192)
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 1e-7, -1e-7]
    bits[200:250] = rng.permutation(special * 5)
    return bits


def bits_of(x: np.ndarray) -> list[int]:
    """Return the bits of numbers, those of all NaN the same."""
    return np.where(x != x, np.nan, x).astype(x.dtype).view(f"u{x.itemsize}").tolist()


def test_sums_and_products_that_are_not_rounded_to_nearest():
    rng = np.random.default_rng(0)
    a, b, c = (
        (rng.standard_normal(256) * 2.0 ** rng.integers(-30, 30, 256)).astype("f4")
        for _ in range(3)
    )
    c[:32] = -(a[:32] * b[:32])  # what is left is the error of the product
    c[32:64] = 0
    b[64:96] = -a[64:96] * np.float32(1 + 2**-20)
    exact = [Fraction(float(x)) + Fraction(float(y)) for x, y in zip(a, b, strict=True)]
    found = compute("add.rz.f32", [a, b])
    np.testing.assert_array_equal(found, [to_float32(x, None) for x in exact])
    exact = [
        Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        for x, y, z in zip(a, b, c, strict=True)
    ]
    found = compute("fma.rm.f32", [a, b, c])
    np.testing.assert_array_equal(found, [to_float32(x, up=False) for x in exact])


def rounded(x: np.ndarray, drop: int, even: bool) -> np.ndarray:
    """Return the bits of numbers, rounded to nearest, without so many of the last ones."""
    bits = x.view("u4").astype(object)
    unit = 1 << drop
    rest, whole = bits % unit, bits // unit
    up = (rest > unit // 2) | ((rest == unit // 2) & ((whole % 2 == 1) | (not even)))
    return np.where(np.isfinite(x), whole + up, whole)


def test_conversions_to_fewer_bits():
    x = floats("f4", 0)
    x[:8] = np.array([0x3F808000, 0x3F818000, 0x3F801000, 0x3F803000] * 2, "u4").view("f4")
    x = x[x == x]
    assert compute("cvt.rn.bf16.f32", [x]).tolist() == rounded(x, 16, even=True).tolist()
    found = compute("cvt.rna.tf32.f32", [x])
    assert found.tolist() == (rounded(x, 13, even=False) * 2**13).tolist()


def test_saturation():
    x = floats("f4", 0)
    expected = np.where(x > 0, np.minimum(x, 1), 0).astype("f4")
    np.testing.assert_array_equal(compute("cvt.sat.f32.f32", [x]), expected)


def test_approximations():
    x = np.concatenate([floats("f4", 0), np.float32([-130, -149, 127.5, 128, -1e-40])])
    x = x[-256:]
    with np.errstate(over="ignore"):
        expected = np.exp2(x.astype("f8")).astype("f4")
    expected[expected < 2.0**-126] = 0
    np.testing.assert_allclose(compute("ex2.approx.ftz.f32", [x]), expected, rtol=2.0**-22)
    x = floats("f8", 0)
    with np.errstate(divide="ignore", over="ignore"):
        expected = 1 / x
    np.testing.assert_allclose(compute("rcp.approx.ftz.f64", [x]), expected, rtol=2.0**-20)


REALS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div.rn": np.divide,
    "sqrt.rn": np.sqrt, "neg": np.negative, "abs": np.abs,
    "rcp.rn": lambda x: 1 / x,
    "min": lambda x, y: np.where((x == y) & np.signbit(y), y, np.fmin(x, y)),
    "max": lambda x, y: np.where((x == y) & np.signbit(x), y, np.fmax(x, y)),
}  # fmt: skip
"""What NumPy computes to the same bits."""


@pytest.mark.parametrize("code", ["f4", "f8"])
@pytest.mark.parametrize("name", REALS)
def test_reals(name, code):
    opcode = f"{name}.f{8 * int(code[1])}"
    operands = [floats(code, seed) for seed in range(len(OPERATIONS[opcode].operands))]
    with np.errstate(all="ignore"):
        expected = REALS[name](*operands).astype(code)
    assert bits_of(compute(opcode, operands)) == bits_of(expected)


def test_fused_products():
    """Whose error of a product, which NumPy rounds away, is exact."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(256).astype("f4") for _ in range(2))
    found = compute("fma.rn.f32", [a, b, -(a * b)])
    np.testing.assert_array_equal(found, (a.astype("f8") * b - (a * b)).astype("f4"))


COMPARISONS = {
    "eq": lambda x, y: x == y, "ne": lambda x, y: (x != y) & (x == x) & (y == y),
    "lt": lambda x, y: x < y, "le": lambda x, y: x <= y, "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y, "equ": lambda x, y: ~((x < y) | (x > y)),
    "neu": lambda x, y: x != y, "ltu": lambda x, y: ~(x >= y), "leu": lambda x, y: ~(x > y),
    "gtu": lambda x, y: ~(x <= y), "geu": lambda x, y: ~(x < y),
    "num": lambda x, y: (x == x) & (y == y), "nan": lambda x, y: (x != x) | (y != y),
}  # fmt: skip


def compared(how: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which elements of x and y fulfil a comparison such as "lt.f32"."""
    both, found = np.stack([x, y], axis=1), np.zeros(x.size, "u4")
    register = {"f": "%f", "s": "%r", "u": "%r"}[how.partition(".")[2][0]]
    run(
        "mul.wide.s32 %rd10, %r1, 8; add.s64 %rd10, %rd1, %rd10;"
        f"ld.global.b32 {register}5, [%rd10]; ld.global.b32 {register}6, [%rd10+4];"
        f"setp.{how} %p5, {register}5, {register}6; selp.u32 %r7, 1, 0, %p5;"
        "st.global.u32 [%rd4], %r7;",
        both, found, threads=x.size,
    )  # fmt: skip
    return found != 0


@pytest.mark.parametrize("how", COMPARISONS)
def test_comparisons_of_floats(how):
    x, y = floats("f4", 0), floats("f4", 1)
    y[::5] = x[::5]
    np.testing.assert_array_equal(compared(f"{how}.f32", x, y), COMPARISONS[how](x, y))


@pytest.mark.parametrize(("code", "dtype"), [("s32", "i4"), ("u32", "u4")])
@pytest.mark.parametrize("how", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons_of_integers(how, code, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2**32, (2, 256), dtype="u4").view(dtype)
    y[::5] = x[::5]
    np.testing.assert_array_equal(compared(f"{how}.{code}", x, y), COMPARISONS[how](x, y))


def test_every_function_of_arithmetic_is_tested():
    """Those of arithmetic.ll that are no instruction are what the others call."""
    by_hand = {name for name, o in OPERATIONS.items() if re.search(r"call \w+ @(?!llvm)", o.code)}
    tested = {*INTEGERS, "add.rz.f32", "fma.rm.f32", "cvt.rn.bf16.f32", "cvt.rna.tf32.f32"}
    tested |= {"cvt.sat.f32.f32", "ex2.approx.ftz.f32", "rcp.approx.ftz.f64"}
    assert by_hand - {"flushed", "error", "towards.zero"} <= tested
