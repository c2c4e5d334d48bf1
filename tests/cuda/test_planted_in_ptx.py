"""Mistakes in the PTX of kernels: the executor stops at them, or the numbers are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from agnostic_xent import conv2d, cross_entropy, kernels, relu
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.cuda import cross_entropy_case, test_convolution, test_normalization
from tests.ptx.gpu import Module
from tests.ptx.program import Program


def activation() -> None:
    x = np.random.default_rng(0).standard_normal(5001).astype("f4")
    np.testing.assert_array_equal(relu(x), np.maximum(x, 0))


def positive_products() -> None:
    """Whose errors, all of one sign, would not cancel."""
    rng = np.random.default_rng(0)
    x, w = rng.uniform(0.5, 1, (1, 64, 4, 8)), rng.uniform(0.5, 1, (70, 64, 1, 1))
    x, w = x.astype("f4"), w.astype("f4")
    exact = np.einsum("ncij,kc->nkij", x.astype(float), w[:, :, 0, 0].astype(float))
    with kernels("tf32"):
        assert np.abs(np.mean(conv2d(x, w) / exact - 1)) < 2**-15, "the errors do not cancel"


def products_of(way: str | None) -> Callable[[], None]:
    problem = test_convolution.case((2, 40, 7, 9), (70, 40, 3, 3), padding=1)
    return lambda: test_convolution.check(problem, way=way)


def loss() -> None:
    cross_entropy_case.check(*cross_entropy_case.draw((9, 40)))


def loss_in_place() -> None:
    logits, labels, _ = cross_entropy_case.draw((9, 40))
    _, expected = cross_entropy.vjp(logits, labels)
    _, found = cross_entropy.vjp(logits.copy(), labels, overwrite_logits=True)
    one = np.ones((), "f4")
    np.testing.assert_array_equal(found(one)[0], expected(one)[0])


def normalization(dtype: str) -> Callable[[], None]:
    arrays = test_normalization.draw((4, 3, 7, 9), dtype)
    return lambda: test_normalization.check(*arrays, train=True)


PROBLEMS = {
    "relu": activation,
    "tensor cores": products_of("tf32"),
    "tiles": products_of(None),
    "positive products": positive_products,
    "rows": loss,
    "rows in place": loss_in_place,
    "normalization": normalization("float32"),
    "normalization of float64": normalization("float64"),
}
"""What runs the kernels, and compares."""


class Mistake(NamedTuple):
    """What is written in place of a pattern in the PTX of a kernel, and what is said of it."""

    problem: str
    kernel: str
    pattern: str
    replacement: str
    said: str


BARRIER = r"bar\.sync\s+0;"
SHUFFLE = r"(shfl\.sync\.bfly\.b32\s+%f\d+, %f\d+), (%r\d+), 31, -1;"
SIXTEEN = r"cp\.async\.cg\.shared\.global (\[%r\d+\], \[%rd\d+\]), 16, %r\d+;"
FOUR = r"cp\.async\.ca\.shared\.global (\[%r\d+\], \[%rd\d+\]), 4, %r\d+;"
FRAGMENTS = r"(mma\.sync\S+ \{[^}]*\}, )\{(%r\d+),(%r\d+)"
HALF = "{{ .reg .pred %half; .reg .b32 %t; mov.u32 %t, %tid.x; setp.lt.u32 %half, %t, {}; {} }}"
NARROW = (
    "{ .reg .f32 %a, %b; cvt.rn.f32.f64 %a, \\2; cvt.rn.f32.f64 %b, \\3; add.f32 %a, %a, %b; "
    "cvt.f64.f32 \\1, %a; }"
)
MISTAKES = {
    "no barrier": Mistake("tensor cores", "staged", BARRIER, "", "race|nobody|has not landed"),
    "no barrier of few threads": Mistake("normalization", "moments", BARRIER, "", "race|nobody"),
    "no meeting of a warp": Mistake("rows in place", "rows", r"bar\.warp\.sync -1;", "", "race"),
    "waits for one group less": Mistake(
        "tensor cores", "staged", r"wait_group 1;", "wait_group 2;", "has not landed"
    ),
    "a group is not closed": Mistake(
        "tensor cores", "staged", r"cp\.async\.commit_group;", "", "has not landed"
    ),
    "copies 8 bytes of 16": Mistake(
        "tensor cores", "staged", SIXTEEN, r"cp.async.ca.shared.global \1, 8;", "nobody|outside"
    ),
    "copies what is outside of the image": Mistake(
        "tensor cores", "staged", FOUR, r"cp.async.ca.shared.global \1, 4;", "outside|is wrong"
    ),
    "swapped fragments": Mistake(
        "tensor cores", "staged", FRAGMENTS, r"\1{\3,\2", "is wrong by"
    ),
    "not rounded to TF32": Mistake(
        "positive products", "staged", r"cvt\.rna\.tf32\.f32", "mov.b32", "do not cancel"
    ),
    "another lane": Mistake("rows", "rows", SHUFFLE, r"\1, 0, 31, -1;", "Mismatch"),
    "half a warp shuffles": Mistake(
        "rows", "rows", SHUFFLE, HALF.format(16, r"@%half \1, \2, 31, -1;"), "different instr"
    ),
    "a barrier in a branch": Mistake(
        "normalization", "moments", BARRIER, HALF.format(32, "@%half bar.sync 0;"), "not all|nobody"
    ),
    "a bound that is one too far": Mistake(
        "relu", "relu", r"setp\.ge\.s64", "setp.gt.s64", "is outside"
    ),
    "no bound": Mistake("relu", "relu", r"@%p\d+ bra\s+\S+;", "", "race|outside"),
    "an address without its upper bits": Mistake(
        "relu", "relu", r"add\.s64(\s+)(%rd\d+), (%rd\d+), (%rd\d+);",
        r"add.s64\1\2, \3, \4; and.b64 \2, \2, 65535;", "is outside",
    ),
    "another thread's element": Mistake(
        "relu", "relu", r"st\.global\.f32\s+\[(%rd\d+)\]", r"st.global.f32 [\1+4]", "race|outside"
    ),
    "another block's elements": Mistake(
        "relu", "relu", r"%ctaid\.x", "0", "race"
    ),
    "a vector that is not aligned": Mistake(
        "tiles", "tiled", r"(ld\.global\.v4\.\w+\s+\{[^}]*\}, \[%rd\d+)\]", r"\1+4]", "multiple"
    ),
    "nothing in shared memory": Mistake(
        "normalization", "moments", r"st\.shared\.\w+\s+\[[^]]*\], %\w+;", "", "nobody has written"
    ),
    "another number from shared memory": Mistake(
        "tiles", "tiled", r"(ld\.shared\.v4\.\w+\s+\{%f\d+), (%f\d+)", r"\1, _", "is wrong by"
    ),
    "a narrower sum": Mistake(
        "normalization of float64", "moments", r"add\.f64\s+(%fd\d+), (%fd\d+), (%fd\d+);", NARROW,
        "Mismatch",
    ),
    "swapped choices": Mistake(
        "relu", "relu", r"(selp\.f32\s+%f\d+), (\S+), (\S+),", r"\1, \3, \2,", "Mismatch"
    ),
}  # fmt: skip


def plant(monkeypatch: pytest.MonkeyPatch, mistake: Mistake) -> list[int]:
    """Let a kernel be loaded with a mistake, all kernels anew; return how often it was made."""
    made = []

    def load(self: Module, code: bytes) -> None:
        text = code.decode()
        if re.search(rf"\.entry \w*\d{mistake.kernel}", text):
            text, count = re.subn(mistake.pattern, mistake.replacement, text)
            made.append(count)
        self.program = Program(text)

    monkeypatch.setattr(Module, "load", load)
    for kernel in KERNELS:
        monkeypatch.setattr(kernel, "_loaded", {})
    return made


@pytest.mark.parametrize("name", MISTAKES)
def test_it_is_noticed(monkeypatch, name):
    mistake = MISTAKES[name]
    check = PROBLEMS[mistake.problem]
    check()
    made = plant(monkeypatch, mistake)
    with pytest.raises(AssertionError, match=mistake.said):
        check()
    assert any(made)
