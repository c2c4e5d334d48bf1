"""Schedules against their formulas, step by step and all at once; copies; what is refused."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from conftest import assert_close

from agnostic_xent import SGD, constant, cosine, step_decay, warmup
from agnostic_xent.training.schedules import rates_of

SCHEDULES = [
    constant(0.3),
    step_decay(0.7, every=3, factor=0.3),
    cosine(0.3, steps=17, final=0.1),
    warmup(cosine(0.3, steps=17), steps=4),
    warmup(lambda step: 0.1 / math.sqrt(step + 1), steps=4),
]
NAMES = ["constant", "step-decay", "cosine", "warmup-cosine", "warmup-function"]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant(0.3), {0: 0.3, 10**9: 0.3}),
        (step_decay(1.0, every=10, factor=0.5), {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.25}),
        (step_decay(2.0, every=1), {0: 2, 1: 0.2, 3: 0.002}),
        (cosine(1.0, steps=3), {0: 1, 1: 0.75, 2: 0.25, 3: 0, 4: 0, 100: 0}),
        (cosine(0.3, steps=1, final=0.1), {0: 0.3, 1: 0.1, 2: 0.1}),
        (cosine(0.1, steps=2, final=0.5), {0: 0.1, 1: 0.3, 2: 0.5}),
        (warmup(constant(2.0), steps=4), {0: 0.5, 1: 1, 2: 1.5, 3: 2, 4: 2, 400: 2}),
        (warmup(constant(2.0), steps=1), {0: 2, 1: 2}),
        (warmup(cosine(1.0, steps=3), steps=2), {0: 0.5, 1: 0.75, 2: 0.25, 3: 0}),
    ],
    ids=[
        "constant",
        "step-decay",
        "every-step",
        "cosine",
        "one-step",
        "rising",
        "warmup",
        "no-warmup",
        "warmup-cosine",
    ],
)
def test_schedules(schedule, expected):
    assert_close([schedule(t) for t in expected], list(expected.values()), "float64")


@each_schedule
@pytest.mark.parametrize("first", [0, 16])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_an_array_of_steps_gives_the_same_as_each_step(schedule, first, count):
    steps = first + np.arange(count)
    expected = [schedule(int(step)) for step in steps]
    assert all(type(rate) is float for rate in expected)
    for found in (schedule(steps), rates_of(schedule, steps), rates_of(SGD(schedule).rate, steps)):
        assert found.shape == (count,)
        assert found.dtype == "float64"
        assert_close(found, expected, "float64")


def test_numbers_and_functions_of_all_kinds():
    table, steps = np.linspace(1, 0, 100), np.arange(100)
    functions = {
        "array": lambda step: table[step],
        "list": lambda step: table.tolist()[step],
        "math": lambda step: 0.1 / math.sqrt(step + 1),
        "comparison": lambda step: 0.1 if step < 50 else 0.01,
        "number": lambda step: 0.1,
        "integers that overflow": lambda step: 0.1 / 2**step,
        "the first of all": lambda step: np.full(np.shape(step), np.min(step) / 2 + 1),
    }
    for function in functions.values():
        expected = [float(function(step)) for step in range(100)]
        assert_close(rates_of(function, steps), expected, "float64")
    np.testing.assert_array_equal(rates_of(2, steps), np.full(100, 2.0))


def test_an_error_of_a_function_is_its_own():
    with pytest.raises(ZeroDivisionError):
        rates_of(lambda step: 1 / (20 - int(step)), np.arange(40))


def test_a_function_of_arrays_is_called_few_times():
    calls = []

    def rate(step):
        calls.append(step)
        return 0.1 * (step + 1.0) ** -0.5

    assert len(rates_of(rate, np.arange(10_000))) == 10_000
    assert len(calls) <= 3


@pytest.mark.parametrize("schedule", SCHEDULES[:-1], ids=str)
def test_copies_are_equal_and_what_is_shown_makes_them(schedule):
    names = {"constant": constant, "cosine": cosine, "step_decay": step_decay, "warmup": warmup}
    for made in (
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
        eval(repr(schedule), names),
    ):
        assert made == schedule
        assert hash(made) == hash(schedule)
        assert made(5) == schedule(5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: step_decay(0.1, every=0), r"every .* 0"),
        (lambda: step_decay(0.1, every=2.5), r"every .* 2.5"),
        (lambda: cosine(0.1, steps=-1), r"steps .* -1"),
        (lambda: warmup(constant(0.1), steps=0), r"steps .* 0"),
        (lambda: warmup(constant(0.1), steps=True), r"steps .* True"),
        (lambda: warmup(0.1, steps=3), r"schedule must be a function .* got 0.1"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()
