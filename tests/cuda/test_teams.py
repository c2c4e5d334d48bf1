"""What the threads of a team find out together, against NumPy."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from agnostic_xent.core.conversion import to_numpy
from agnostic_xent.kernels.cuda.toolchain import teams
from agnostic_xent.kernels.cuda.toolchain.device import xp
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS, Kernel
from agnostic_xent.kernels.cuda.toolchain.ptx import get, put
from agnostic_xent.kernels.cuda.toolchain.teams import cuda
from tests.conftest import assert_close

TEAMS = [1, 2, 8, 32, 64, 256, 1024]


def made(functions, team, threads):
    """Return a kernel that writes each thread's sum, maximum, and softmax pair, twice."""
    team_sum, team_max, team_merge = functions.team_sum, functions.team_max, functions.team_merge

    def together(x: object, y: object) -> None:
        room = cuda.shared.array(32, np.float32)
        t = cuda.threadIdx.x
        n = cuda.blockIdx.x * threads + t
        for k in range(2):
            v, one = get(x, n), np.float32(1)
            top, rest = team_merge(v, np.float32(0), one, room, t, team)
            put(y, 8 * n + 4 * k, team_sum(v, room, t, team))
            put(y, 8 * n + 4 * k + 1, team_max(v, room, t, team))
            put(y, 8 * n + 4 * k + 2, top)
            put(y, 8 * n + 4 * k + 3, rest)

    together.__qualname__ = f"together_{team}"
    kernel = Kernel(together, "f4* f4*", threads, 1)
    KERNELS.remove(kernel)
    return kernel


def check(functions, team, x=None):
    threads = max(64, team)
    if x is None:
        x = np.round(3 * np.random.default_rng(team).standard_normal(2 * threads)).astype("f4")
    written = xp.empty((x.size, 8), np.float32)
    made(functions, team, threads)(x.size // threads, xp.asarray(x), written)
    y = to_numpy(written)
    assert np.array_equal(y[:, :4], y[:, 4:], equal_nan=True)
    y = y[:, :4].reshape(-1, team, 4)
    assert np.array_equal(y, np.broadcast_to(y[:, :1], y.shape), equal_nan=True)  # all know it
    parts = x.astype("f8").reshape(-1, team)
    top = np.max(parts, axis=1)
    with np.errstate(invalid="ignore"):
        rest = np.sum(np.exp(parts - top[:, None]), axis=1) - 1
    expected = np.stack([np.sum(parts, axis=1), top, top, rest], axis=1)
    assert_close(y[:, 0], expected, "float32", terms=32)


@pytest.mark.parametrize("team", TEAMS)
def test_all_threads_find_the_same(team):
    check(teams, team)


@pytest.mark.parametrize("team", [8, 64])
def test_infinite_numbers(team):
    x = np.ones(2 * 64, "f4")
    x[1::3] = -np.inf
    check(teams, team, x)
    x[:team] = -np.inf  # there is no greatest number
    check(teams, team, x)


def test_numbers_in_turn():
    rng = np.random.default_rng(0)
    z = np.concatenate([[-np.inf], 3 * rng.standard_normal(20), [-np.inf, 9, 9, -np.inf]])
    top, rest = -math.inf, 0.0
    for count, v in enumerate(z):
        top, rest = teams.absorb(top, rest, v, 0.5)
        if count:
            assert top == np.max(z[: count + 1])
            total = np.sum(np.exp(0.5 * (z[: count + 1] - top)))
            assert_close(1 + rest, total, "float64", terms=16)


MISTAKES = {
    "a number read before it is there": ("    cuda.syncthreads()\n    return", "    return", 64),
    "a number written while it is read": ("cuda.syncthreads()  # who", "pass  # who", 256),
    "a warp's number": ("t % (team // LANES)", "0", 64),
    "the last lanes": ("while step < min(team, LANES)", "while step < min(team, LANES) // 2", 32),
    "the last warps": ("while step < team // LANES", "while step < team // LANES // 2", 256),
    "both sums": ("(rest + other_rest) + one", "rest + one", 8),
    "a smaller maximum": ("(other_rest + one) * e", "(other_rest + one)", 8),
}  # fmt: skip


class Mistaken:
    """The functions of teams with other text."""

    def __init__(self, old: str, new: str):
        text = inspect.getsource(teams)
        assert old in text
        names = dict(vars(teams))
        functions = text[text.index("@device\ndef exchange") :]
        exec(compile(functions.replace(old, new), new, "exec"), names)
        vars(self).update(names)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(mistake):
    old, new, team = MISTAKES[mistake]
    with pytest.raises(AssertionError):
        check(Mistaken(old, new), team)
    check(Mistaken("LANES", "LANES"), team)
