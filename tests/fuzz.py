"""Random calls of all operations, with kernels and without, against float64.

``python tests/fuzz.py --seconds 3600 --seed 1`` runs for an hour. Arrays end beside pages that may
not be touched, so the calls run in a process of their own: if it dies, the seed of its last call is
shown, and ``python tests/fuzz.py --only SEED`` repeats it.
"""

from __future__ import annotations

import argparse
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from conftest import assert_close
from fuzz_cases import Arguments, draw
from fuzz_layouts import drawn

import agnostic_xent as ax
from agnostic_xent.core.operation import OPERATIONS

MOST_FAULTS = 10
"""After which the fuzzer gives up."""

SMALL = 3000
"""Numbers up to which the slow references are asked, too."""


def run_case(seed: int, fences: bool = True) -> str:
    """Make a call and compare it; return what was called."""
    rng = np.random.default_rng(seed)
    made = draw(rng)
    dtype = str(rng.choice(made.dtypes))
    layouts: dict[str, str] = {}

    def placed(name: str, x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        with np.errstate(over="ignore"):  # the ends of float32 are infinite in float16
            x = x.astype(dtype) if x.dtype.kind == "f" else x
        y, layouts[name] = drawn(rng, x, fences)
        return y

    arrays = [placed(f"array {i}", x) for i, x in enumerate(made.arrays)]
    options = {name: placed(name, x) for name, x in made.options.items()}
    shown = {n: x.shape if isinstance(x, np.ndarray) else x for n, x in options.items()}
    what = f"{made.operation} {dtype} {[np.shape(a) for a in arrays]} {made.extra} {shown}"
    try:
        compare(made, arrays, options, dtype, rng, fences)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {what}\nlayouts {layouts}\n{error}") from error
    return made.operation


def exact(x: Any) -> Any:
    """Return a float array as a plain one of float64, other things as they are."""
    return x.astype(float) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def compare(made: Arguments, arrays: Any, options: Any, dtype: str, rng: Any, fences: bool) -> None:
    """Compare value and pullback, in both modes, with the definition in float64."""
    operation = OPERATIONS[made.operation]
    wide = [exact(a) for a in arrays], {name: exact(x) for name, x in options.items()}
    before = [np.array(a) for a in arrays if a is not None]
    try:
        with ax.kernels("portable"):
            expected, back = operation.vjp(*wide[0], *made.extra, **wide[1])
    except ValueError as error:  # an argument that is refused is refused in every mode
        check_refused(operation, made, arrays, options, str(error))
        return
    check_oracle(made, wide, expected)
    dy = np.asarray(rng.standard_normal(first(expected).shape)).astype(dtype)
    dy, _ = drawn(rng, dy, fences)
    if options.get("activation") == "relu":  # whose side of 0 rounding may change
        dy = np.where(np.abs(first(expected)) < 1e-3, np.zeros((), dtype), dy)
    slopes = back(dy.astype(float))
    wrt = tuple(i for i in range(len(arrays)) if rng.random() < 0.8)
    for mode in ("portable", "auto"):
        with ax.kernels(mode), np.errstate(all="raise"):
            given = arrays
            if options.get("overwrite_logits"):
                given = [arrays[0].copy(order="K"), *arrays[1:]]
            value = operation(*given, *made.extra, **options)
            again, pullback = operation.vjp(*given, *made.extra, wrt=wrt, **options)
            gradients = pullback(dy)
        for found in (value, again):
            check_value(found, expected, dtype, made.terms)
        for i, (g, e) in enumerate(zip(gradients, slopes, strict=True)):
            assert g is None or i in wrt, f"{mode}: gradient {i} was not wanted"
            if i in wrt and e is not None:
                assert g.dtype == dtype, f"{mode}: gradient {i} is {g.dtype}"
                check_close(g, e, dtype, 4 * made.terms, f"{mode}: gradient {i}")
    kept = [np.array(a) for a in arrays if a is not None]
    for x, y in zip(before, kept, strict=True):
        np.testing.assert_array_equal(x, y, "an argument was written to")


def check_refused(operation: Any, made: Arguments, arrays: Any, options: Any, why: str) -> None:
    for mode in ("portable", "auto"):
        with ax.kernels(mode), pytest.raises(ValueError, match=re.escape(why)):
            operation(*arrays, *made.extra, **options)


def check_value(found: Any, expected: Any, dtype: str, terms: int) -> None:
    several = isinstance(expected, tuple)
    pairs = zip(found, expected, strict=True) if several else [(found, expected)]
    for f, e in pairs:
        assert f.dtype == dtype, f"the value is {f.dtype}"
        check_close(f, e, dtype, terms, "value")


def check_close(found: Any, expected: Any, dtype: str, terms: int, what: str) -> None:
    """Compare, where the expected number is one that the dtype holds."""
    with np.errstate(all="ignore"):
        expected = np.where(
            np.abs(expected) > np.finfo(dtype).max, np.sign(expected) * np.inf, expected
        )
    try:
        assert_close(found, expected, dtype, terms)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error


def first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def check_oracle(made: Arguments, wide: Any, expected: Any) -> None:
    """Compare the definition's value with the slow reference, if that knows the options."""
    arrays, options = wide
    oracle = getattr(oracles, made.operation)
    defaults = inspect.signature(OPERATIONS[made.operation]._contract).parameters
    changed = {name: x for name, x in options.items() if not same(x, defaults[name].default)}
    known = inspect.signature(oracle).parameters
    size = sum(np.size(a) for a in arrays) + np.size(first(expected))
    finite = all(a is None or np.all(np.isfinite(a)) for a in arrays)
    if changed.keys() <= known.keys() and size <= SMALL and finite and np.size(arrays[0]):
        check_value(oracle(*arrays, *made.extra, **changed), expected, "float64", made.terms)


def same(x: Any, default: Any) -> bool:
    return x is default or (not isinstance(x, np.ndarray) and x == default)


# --- processes -----------------------------------------------------------------------------------


def run_cases(seed: int, seconds: float) -> None:
    """Make calls for so long, and say the seed of each one before it."""
    end, count, faults = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end and faults < MOST_FAULTS:
        print(seed + count, flush=True)
        try:
            run_case(seed + count)
        except AssertionError as error:
            print(error, file=sys.stderr, flush=True)
            faults += 1
        count += 1
    print(f"{count} calls", flush=True)
    sys.exit(1 if faults else 0)


def in_a_process(seed: int, seconds: float) -> str:
    """Make calls in a process of their own; return how many, or raise AssertionError."""
    return run_in_a_process(
        [sys.executable, __file__, "--child", "--seed", str(seed), "--seconds", str(seconds)]
    )


def run_in_a_process(command: list[str]) -> str:
    """Return the last line that a command prints; if it fails that is the seed of its fault."""
    folder = str(Path(__file__).parent)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode:
        raise AssertionError(
            f"exit code {done.returncode}, last call: {last}\n{done.stderr[-6000:]}\n"
            "repeat a call by: python tests/fuzz.py --only SEED"
        )
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="make the call of this seed alone")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only is not None:
        print(run_case(given.only))
    elif given.child:
        run_cases(given.seed, given.seconds)
    else:
        print(in_a_process(given.seed, given.seconds))


if __name__ == "__main__":
    main()
