"""Every instruction that Numba has no word for, by inline PTX or LLVM; in the simulator, stand-ins.

This is the one file that a successor of Numba-CUDA needs written anew. ``p`` is a bare pointer or a
shared array, ``i`` an index that is never negative.

Memory: ``get(p, i)``, ``put(p, i, v)``, ``load(p, i, n)``, ``store(p, i, values)``;
``ahead(p, i)``, ``below(i, n)``.
Arithmetic: ``fma(a, b, c)``, ``exp2(v)``, of float32.
Halves: ``widen(v)``, ``narrow(p, v)``; bfloat16 travels as uint16, the type of its bits.
Warps: ``shuffle_xor(v, step)``, ``sync_warp()``, ``tf32(v)``, ``mma_tf32(c, a, b)``.
Copies that nobody waits for: ``copy_async(dst, i, src, j, n, valid)``, ``commit_async()``,
``wait_async(groups)``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .device import SIMULATED

if SIMULATED:
    from .stand_ins import (
        ahead,
        below,
        commit_async,
        copy_async,
        exp2,
        fma,
        get,
        load,
        mma_tf32,
        narrow,
        put,
        shuffle_xor,
        store,
        sync_warp,
        tf32,
        wait_async,
        widen,
    )
else:
    ir: Any = importlib.import_module("llvmlite.ir")
    cgutils: Any = importlib.import_module("numba.cuda.cgutils")
    types: Any = importlib.import_module("numba.cuda.types")
    errors: Any = importlib.import_module("numba.core.errors")
    _intrinsic: Any = importlib.import_module("numba.cuda.extending").intrinsic

    FLOAT, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
    VOID = ir.VoidType()
    F4 = types.float32

    def intrinsic(function: Callable[..., Any]) -> Any:
        """Let kernels call the instructions that ``function`` writes for its types (decorator)."""
        return _intrinsic(function)

    def asm(builder: Any, result: Any, text: str, constraints: str, args: Any, pure: bool) -> Any:
        """Write inline PTX; what is not pure is neither moved, copied into branches nor left out.

        Lanes have to meet at one such instruction; of two copies in both arms of a branch, each
        would wait for lanes that are at the other.
        """
        kind = ir.FunctionType(result, [a.type for a in args])
        call = builder.asm(kind, text, constraints, args, side_effect=not pure)
        if not pure:
            call.attributes.add("convergent")
        return call

    def address(context: Any, builder: Any, kind: Any, p: Any, i: Any) -> Any:
        """Return the pointer to p[i]."""
        if not isinstance(kind, types.CPointer):
            p = context.make_array(kind)(context, builder, p).data
        return builder.gep(p, [i])

    def literal(n: Any, name: str) -> int:
        """Return the value of an argument that must be known when a kernel is compiled."""
        if not isinstance(n, types.IntegerLiteral):
            raise errors.RequireLiteralValue(name)
        return int(n.literal_value)

    # --- memory ----------------------------------------------------------------------------------

    @intrinsic
    def get(typing: Any, p: Any, i: Any) -> Any:
        """Return p[i], without the code by which Numba lets a signed index count from the end."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(address(context, builder, p, *args))

        return p.dtype(p, types.int64), code

    @intrinsic
    def put(typing: Any, p: Any, i: Any, v: Any) -> Any:
        """Set p[i] = v, without the code by which Numba lets a signed index count from the end."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[2], address(context, builder, p, *args[:2]))
            return context.get_dummy_value()

        return types.void(p, types.int64, p.dtype), code

    @intrinsic
    def ahead(typing: Any, p: Any, i: Any) -> Any:
        """Return the bare pointer to p[i] in global memory, from which short indices reach on.

        The compiler does not see that it is p and i, and so adds to it what lies within 32 bits, by
        one instruction. i may be negative, and so may indices from there.
        """

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            there = address(context, builder, p, *args)
            kind = ir.PointerType(there.type.pointee, 1)
            bits = builder.ptrtoint(builder.addrspacecast(there, kind), I64)
            bits = asm(builder, I64, "mov.b64 $0, $1;", "=l,l", [bits], True)
            return builder.addrspacecast(builder.inttoptr(bits, kind), there.type)

        return p(p, types.int64), code

    @intrinsic
    def below(typing: Any, i: Any, n: Any) -> Any:
        """Return whether 0 <= i < n, both of 32 bits, by one comparison."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.icmp_unsigned("<", *(builder.trunc(a, I32) for a in args))

        return types.boolean(types.int64, types.int64), code

    def vector(context: Any, kind: Any, n: int) -> tuple[Any, Any, int]:
        """Return the LLVM types of n elements, and of the words that hold them, and their bytes."""
        elements = words = ir.VectorType(context.get_data_type(kind), n)
        if kind.bitwidth == 16:  # else these would go four at a time
            words = ir.VectorType(I32, n // 2)
        return elements, words, min(n * kind.bitwidth // 8, 16)

    @intrinsic
    def load(typing: Any, p: Any, i: Any, n: Any) -> Any:
        """Return the tuple p[i:i+n], by 16 bytes at a time; i is a multiple of n, n a constant."""
        count = literal(n, "n")

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind, words, align = vector(context, p.dtype, count)
            there = address(context, builder, p, *args[:2])
            v = builder.load(builder.bitcast(there, words.as_pointer()), align=align)
            v = builder.bitcast(v, kind)
            elements = [builder.extract_element(v, ir.Constant(I32, k)) for k in range(count)]
            return cgutils.pack_array(builder, elements)

        return types.UniTuple(p.dtype, count)(p, types.int64, n), code

    @intrinsic
    def store(typing: Any, p: Any, i: Any, values: Any) -> Any:
        """Set p[i:i+n] = values, a tuple of n, by 16 bytes at a time; i is a multiple of n."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind, words, align = vector(context, p.dtype, values.count)
            v = ir.Constant(kind, ir.Undefined)
            for k in range(values.count):
                element = builder.extract_value(args[2], k)
                v = builder.insert_element(v, element, ir.Constant(I32, k))
            there = address(context, builder, p, *args[:2])
            where = builder.bitcast(there, words.as_pointer())
            builder.store(builder.bitcast(v, words), where, align=align)
            return context.get_dummy_value()

        return types.void(p, types.int64, types.UniTuple(p.dtype, values.count)), code

    # --- arithmetic ------------------------------------------------------------------------------

    @intrinsic
    def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c of float32, rounded once."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fma(*args)

        return F4(F4, F4, F4), code

    @intrinsic
    def exp2(typing: Any, v: Any) -> Any:
        """Return 2^v of a float32, with an error of 2^-22, and 0 in place of denormal numbers."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return asm(builder, FLOAT, "ex2.approx.ftz.f32 $0, $1;", "=f,f", args, True)

        return F4(F4), code

    # --- halves ----------------------------------------------------------------------------------

    @intrinsic
    def widen(typing: Any, v: Any) -> Any:
        """Return float16, or the bits of a bfloat16, as float32; other types as they are."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if v == types.float16:
                return builder.fpext(builder.bitcast(args[0], ir.HalfType()), FLOAT)
            if v == types.uint16:
                wide = builder.shl(builder.zext(args[0], I32), ir.Constant(I32, 16))
                return builder.bitcast(wide, FLOAT)
            return args[0]

        return (F4 if v in (types.float16, types.uint16) else v)(v), code

    @intrinsic
    def narrow(typing: Any, p: Any, v: Any) -> Any:
        """Return a number as the type that p points to; as bits of a bfloat16 for uint16."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if p.dtype == types.uint16:
                return asm(builder, I16, "cvt.rn.bf16.f32 $0, $1;", "=h,f", args[1:], True)
            if p.dtype == types.float16:
                return builder.bitcast(builder.fptrunc(args[1], ir.HalfType()), I16)
            return args[1]

        wide = F4 if p.dtype in (types.float16, types.uint16) else p.dtype
        return p.dtype(p, wide), code

    # --- warps -----------------------------------------------------------------------------------

    @intrinsic
    def shuffle_xor(typing: Any, v: Any, step: Any) -> Any:
        """Return what lane ^ step of the warp holds; every lane takes part."""
        word = "shfl.sync.bfly.b32 {}, {}, $2, 31, -1;"
        if v.bitwidth == 64:
            kind = "d" if v == types.float64 else "l"
            text = (
                "{ .reg .b32 lo, hi; mov.b64 {lo, hi}, $1; "
                f"{word.format('lo', 'lo')} {word.format('hi', 'hi')} mov.b64 $0, {{lo, hi}}; }}"
            )
        else:
            kind = "f" if v == F4 else "r"
            text = word.format("$0", "$1")

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return asm(builder, args[0].type, text, f"={kind},{kind},r", args, False)

        return v(v, types.int32), code

    @intrinsic
    def sync_warp(typing: Any) -> Any:
        """Let every lane see what the others have done to memory; every lane takes part."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            asm(builder, VOID, "bar.warp.sync -1;", "~{memory}", [], False)
            return context.get_dummy_value()

        return types.void(), code

    @intrinsic
    def tf32(typing: Any, v: Any) -> Any:
        """Return a float32 rounded to TF32, 10 bits of mantissa: to nearest, ties away from 0."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bits = asm(builder, I32, "cvt.rna.tf32.f32 $0, $1;", "=r,f", args, True)
            return builder.bitcast(bits, FLOAT)

        return F4(F4), code

    @intrinsic
    def mma_tf32(typing: Any, c: Any, a: Any, b: Any) -> Any:
        """Return c + a @ b of a warp, 16 x 8 x 8, in fragments of 4, 4 and 2 numbers a lane.

        Lane 4g + t holds c[g, 2t], c[g, 2t+1], c[g+8, 2t], c[g+8, 2t+1]; a[g, t], a[g+8, t],
        a[g, t+4], a[g+8, t+4]; b[t, g], b[t+4, g].
        """
        text = (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
        )

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            fragments = [
                [builder.extract_value(x, k) for k in range(n)]
                for x, n in zip(args, (4, 4, 2), strict=True)
            ]
            bits = [builder.bitcast(x, I32) for x in fragments[1] + fragments[2]]
            four = ir.LiteralStructType([FLOAT] * 4)
            constraints = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
            out = asm(builder, four, text, constraints, bits + fragments[0], False)
            return cgutils.pack_array(builder, [builder.extract_value(out, k) for k in range(4)])

        four, two = types.UniTuple(F4, 4), types.UniTuple(F4, 2)
        return four(four, four, two), code

    # --- copies that nobody waits for ------------------------------------------------------------

    @intrinsic
    def copy_async(typing: Any, dst: Any, i: Any, src: Any, j: Any, n: Any, valid: Any) -> Any:
        """Start dst[i:i+n] = src[j:j+n], to shared memory; zeros, with nothing read, if not valid.

        n is a constant: 4, 8 or 16 bytes, to which both sides are aligned.
        """
        size = literal(n, "n") * dst.dtype.bitwidth // 8
        way = "cg" if size == 16 else "ca"
        text = f"cp.async.{way}.shared.global [$0], [$1], {size}, $2;"

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            there = address(context, builder, dst, *args[:2])
            shared = builder.addrspacecast(there, ir.PointerType(there.type.pointee, 3))
            source = address(context, builder, src, *args[2:4])
            source = builder.addrspacecast(source, ir.PointerType(source.type.pointee, 1))
            source = builder.ptrtoint(source, I64)
            read = builder.select(args[5], ir.Constant(I32, size), ir.Constant(I32, 0))
            operands = [builder.ptrtoint(shared, I32), source, read]
            asm(builder, VOID, text, "r,l,r,~{memory}", operands, False)
            return context.get_dummy_value()

        return types.void(dst, types.int64, src, types.int64, n, types.boolean), code

    @intrinsic
    def commit_async(typing: Any) -> Any:
        """Close the group of copies that this thread has started."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            asm(builder, VOID, "cp.async.commit_group;", "~{memory}", [], False)
            return context.get_dummy_value()

        return types.void(), code

    @intrinsic
    def wait_async(typing: Any, groups: Any) -> Any:
        """Wait until at most so many of this thread's latest groups are under way; a constant."""
        text = f"cp.async.wait_group {literal(groups, 'groups')};"

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            asm(builder, VOID, text, "~{memory}", [], False)
            return context.get_dummy_value()

        return types.void(groups), code


__all__ = [
    "ahead",
    "below",
    "commit_async",
    "copy_async",
    "exp2",
    "fma",
    "get",
    "load",
    "mma_tf32",
    "narrow",
    "put",
    "shuffle_xor",
    "store",
    "sync_warp",
    "tf32",
    "wait_async",
    "widen",
]
