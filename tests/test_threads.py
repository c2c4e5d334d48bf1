"""The CPU kernels on any number of threads, in several Python threads at once, and after a fork."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_fork

import agnostic_xent as ax
from agnostic_xent.core.operation import OPERATIONS, ROUTINES
from agnostic_xent.core.sparse import CSR
from agnostic_xent.operations.minirocket import Convolutions, positive_proportions
from agnostic_xent.operations.sparse import sparse_product, sparse_sums

numba = pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.toolchain import sharing  # noqa: E402
from agnostic_xent.kernels.cpu.toolchain.threads import recorded  # noqa: E402

MANY = 5

# --- work for every kernel, large enough for all threads -----------------------------------------


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def labels(classes: int, *shape: int) -> Any:
    return np.random.default_rng(1).integers(0, classes, shape)


def probabilities(*shape: int) -> Any:
    return np.random.default_rng(2).random(shape, dtype=np.float32) + np.float32(0.01)


def vectors(c: int) -> Any:
    return [probabilities(c) for _ in range(4)]


def gradients(operation: Any, *args: Any, **options: Any) -> Callable[[], list[Any]]:
    """Return what computes the value and all gradients of an operation."""

    def run() -> list[Any]:
        with ax.kernels("require"):
            value, pullback = operation.vjp(*args, **options)
        values = value if isinstance(value, tuple) else (value,)
        dy = np.random.default_rng(3).standard_normal(values[0].shape).astype(values[0].dtype)
        return [*values, *pullback(dy)]

    return run


def steps(optimizer: Any) -> Callable[[], list[Any]]:
    """Return what does two steps of an optimizer."""

    def run() -> list[Any]:
        params, grads = {"w": normal(700, 301)}, {"w": normal(700, 301)[::-1]}
        state = optimizer.init(params)
        with ax.kernels("require"):
            for _ in range(2):
                params, state = optimizer.update(params, grads, state)
        return [params["w"]]

    return run


def convolution(x: tuple[int, ...], w: tuple[int, ...], **options: Any) -> Callable[[], list[Any]]:
    operation = OPERATIONS[f"conv{len(x) - 2}d"]
    return gradients(operation, normal(*x), normal(*w), normal(w[0]), **options)


ENTRIES = 40  # a row
ROWS = CSR(
    normal(997 * ENTRIES),
    np.sort(labels(4003 // ENTRIES, 997, ENTRIES) + np.arange(ENTRIES) * (4003 // ENTRIES)).ravel(),
    np.arange(998) * ENTRIES,
    4003,
)

CONVOLUTIONS = Convolutions(
    normal(84 * 3), np.asarray([1, 5]), np.asarray([2, 1]), 2 * np.arange(169), labels(3, 336)
)

WORK: dict[str, list[Callable[[], list[Any]]]] = {
    **{
        name: [gradients(OPERATIONS[name], normal(101, 1003))]
        for name in ("relu", "sigmoid", "log_sigmoid", "softmax", "log_softmax", "logsumexp")
    },
    "conv2d": [
        convolution((9, 3, 29, 31), (8, 3, 3, 3), padding=1),
        convolution((6, 32, 28, 28), (48, 32, 3, 3), padding=1, activation="relu"),
        convolution((6, 16, 23, 21), (24, 16, 5, 5), stride=2),
        convolution((6, 16, 20, 20), (32, 16, 1, 1)),
        convolution((6, 16, 20, 20), (16, 1, 3, 3), groups=16),
    ],
    "max_pool2d": [
        gradients(ax.max_pool2d, normal(17, 9, 29, 31), 2),
        gradients(ax.max_pool2d, normal(17, 9, 29, 31), 3, stride=2, padding=1),
        gradients(ax.max_pool2d, normal(17, 9, 28, 30), 3, stride=2, padding=1),
        gradients(ax.max_pool2d, normal(65, 9, 8, 8), 3, stride=2, padding=1),
        gradients(ax.max_pool2d, normal(65, 9, 8, 8), 2),
    ],
    "avg_pool2d": [
        gradients(ax.avg_pool2d, normal(17, 9, 29, 31), 2),
        gradients(ax.avg_pool2d, normal(17, 9, 29, 31), 3, stride=2, padding=1),
        gradients(ax.avg_pool2d, normal(17, 9, 28, 30), 3, stride=2, padding=1),
        gradients(ax.avg_pool2d, normal(65, 9, 8, 8), 3, stride=2, padding=1),
        gradients(ax.avg_pool2d, normal(65, 9, 8, 8), 2),
    ],
    "global_avg_pool2d": [gradients(ax.global_avg_pool2d, normal(17, 9, 29, 31))],
    "global_avg_pool": [gradients(ax.global_avg_pool, normal(17, 9, 899))],
    "conv1d": [
        convolution((9, 16, 301), (24, 16, 5), stride=2, activation="relu"),
        convolution((17, 40, 301), (48, 40, 13), padding=6),
    ],
    "conv3d": [
        convolution((4, 8, 7, 13, 11), (16, 8, 3, 3, 3), padding=1),
        convolution((4, 8, 7, 13, 11), (16, 8, 3, 1, 1)),
        convolution((4, 32, 7, 13, 17), (32, 32, 3, 3, 3), padding=1, activation="relu"),
        convolution((4, 8, 7, 13, 11), (16, 8, 3, 3, 3), stride=(2, 1, 1)),
    ],
    **{
        f"{name}1d": [gradients(OPERATIONS[f"{name}1d"], normal(17, 9, 899), 3, stride=2)]
        for name in ("max_pool", "avg_pool")
    },
    **{
        f"{name}3d": [gradients(OPERATIONS[f"{name}3d"], normal(5, 9, 7, 13, 11), 2)]
        for name in ("max_pool", "avg_pool")
    },
    "add": [
        gradients(ax.add, *(normal(17, 9, 29, 31) for _ in range(2)), activation=activation)
        for activation in (None, "relu")
    ],
    "batch_norm": [
        gradients(ax.batch_norm, normal(17, channels, *image), *vectors(channels), **options)
        for channels, image in [(9, (29, 31)), (130, (8, 8))]
        for options in [{"train": True, "activation": "relu"}, {"train": False}]
    ],
    "dense": [gradients(ax.dense, normal(301, 403), normal(57, 403), normal(57))],
    "cross_entropy": [
        gradients(ax.cross_entropy, normal(1009, 101), labels(101, 1009)),
        gradients(ax.cross_entropy, normal(7001, 10), labels(10, 7001)),
        gradients(ax.cross_entropy, normal(5, 31, 37, 41), labels(31, 5, 37, 41), axis=1),
        gradients(ax.cross_entropy, normal(1009, 101), probabilities(1009, 101)),
    ],
    "linear_cross_entropy": [
        gradients(ax.linear_cross_entropy, normal(301, 64), normal(503, 64), labels(503, 301))
    ],
    "nll_loss": [gradients(ax.nll_loss, -probabilities(1009, 101), labels(101, 1009))],
    "categorical_cross_entropy": [
        gradients(ax.categorical_cross_entropy, probabilities(1009, 101), labels(101, 1009))
    ],
    "binary_cross_entropy": [
        gradients(ax.binary_cross_entropy, probabilities(1009, 31) / 2, probabilities(1009, 31))
    ],
    "binary_cross_entropy_with_logits": [
        gradients(ax.binary_cross_entropy_with_logits, normal(1009, 31), probabilities(1009, 31))
    ],
    "sparse_product": [lambda: [sparse_product([normal(n, 4003)], ROWS.arrays) for n in (1, 5)]],
    "sparse_sums": [
        lambda: [sparse_sums([normal(997, n)], ROWS.arrays, columns=4003) for n in (1, 5)]
    ],
    "moved_pixels": [lambda: [ax.RandomShift(20).vjp({}, normal(7, 3, 151, 153), rng=0)[0]]],
    "positive_proportions": [lambda: [positive_proportions([normal(41, 3, 70)], CONVOLUTIONS)]],
    "dropout": [gradients(ax.dropout, normal(301, 303), rate=0.3, rng=0)],
    "sgd_step": [steps(ax.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01))],
    "adamw_step": [steps(ax.AdamW(0.1))],
}
ONE_THREAD = {"linear_sgd", "sparse_sgd"}
"""Routines whose kernels have no parallel loop."""

ax.relu(np.ones(1))  # registers the kernels
KERNELS = sorted(
    name for name, entry in (OPERATIONS | ROUTINES).items() if entry._kernels.get("numpy")
)


def digest(name: str) -> str:
    """Return a hash of all that the work of a kernel computes, in bits."""
    made = hashlib.sha256()
    for work in WORK[name]:
        for x in work():
            if x is not None:
                made.update(np.ascontiguousarray(x).tobytes())
    return made.hexdigest()


def print_digests() -> None:
    """Print the hashes for three threads and more, in a process that has so many."""
    found = {}
    for n in range(3, MANY + 1):
        numba.set_num_threads(n)
        found[n] = {name: digest(name) for name in KERNELS if name not in ONE_THREAD}
    print(json.dumps(found))


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may import this module."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


# --- number of threads ---------------------------------------------------------------------------


def test_every_kernel_has_work():
    assert set(KERNELS) - ONE_THREAD <= set(WORK)


@pytest.mark.parametrize("name", KERNELS)
def test_results_do_not_depend_on_the_number_of_threads(name):
    if name in ONE_THREAD:
        pytest.skip("has no parallel loop")
    before = numba.get_num_threads()
    found = set()
    try:
        for n in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(n)
            found.add(digest(name))
    finally:
        numba.set_num_threads(before)
    assert len(found) == 1


def test_nor_on_more_threads_than_cores():
    done = run_python("import test_threads as t; t.print_digests()", NUMBA_NUM_THREADS=str(MANY))
    assert done.returncode == 0, done.stderr
    expected = {name: digest(name) for name in KERNELS if name not in ONE_THREAD}
    for found in json.loads(done.stdout).values():
        assert found == expected


# --- several Python threads ----------------------------------------------------------------------


def train() -> list[bytes]:
    """Train a small network for a few steps; return its parameters' bits."""
    model = ax.small_cnn(classes=3)
    x, y = normal(48, 1, 16, 16), labels(3, 48)
    params, _ = model.init(0, x.shape[1:])
    params, _ = ax.fit(
        model, params, (x, y), loss=ax.cross_entropy, optimizer=ax.SGD(0.05, momentum=0.9),
        epochs=3, batch_size=16, rng=0,
    )  # fmt: skip
    return [np.asarray(p).tobytes() for p in params.values()]


def train_in_threads(count: int) -> list[list[bytes]]:
    """Train in several threads at once."""
    found: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(train())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def print_whether_threads_agree() -> None:
    alone = train()
    print(train_in_threads(3) == [alone] * 3)


def test_python_threads_train_at_once():
    done = run_python("import test_threads as t; t.print_whether_threads_agree()")
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def call_at_once(seed: int, calls: int) -> None:
    """Compare calls of many sizes, from one of several threads, with NumPy."""
    rng = np.random.default_rng(seed)
    for size in rng.integers(65536, 300000, calls):
        x = rng.standard_normal(size).astype("f4")
        np.testing.assert_array_equal(ax.relu(x), np.maximum(x, 0))


def call_loops_at_once() -> None:
    """Call loops from three threads, a loop with an error among them; print what was raised."""
    bad = labels(10, 100_000)
    bad[77_777] = 10
    with ThreadPoolExecutor(3) as pool:
        right = [pool.submit(call_at_once, seed, 200) for seed in range(3)]
        for _ in range(20):
            with pytest.raises(ValueError, match="10"):
                ax.cross_entropy(normal(100_000, 10), bad)
        for future in right:
            future.result()
    print("done")


@pytest.mark.parametrize("count", ["2", "7"])
def test_loops_of_several_threads(count):
    """One of them has the board; the others do without."""
    program = "import test_threads as t; t.call_loops_at_once()"
    done = run_python(program, NUMBA_NUM_THREADS=count)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# --- forks ---------------------------------------------------------------------------------------

FORK = """
import os, threading, warnings
import numpy as np
import agnostic_xent as ax

warnings.simplefilter("ignore")  # of the fork itself
x, labels = np.zeros((64, 8, 32, 32), "float32"), np.zeros((64, 32, 32), int)
call = lambda: float({call})
if {early}:
    call()
child = os.fork()
if child == 0:
    print(call(), threading.active_count() > 1, flush=True)
    os._exit(0)
print("child:", os.waitpid(child, 0)[1], flush=True)
print("parent:", call(), threading.active_count() > 1)
"""
LOSS, POOL = "ax.cross_entropy(x, labels, axis=1) + 1", "ax.max_pool2d(x, 2).size"
VALUES = {LOSS: str(1 + math.log(8))[:6], POOL: "131072"}


def test_each_loop_of_a_plan_has_work_for_all_threads():
    """Nobody sets how many between two of them."""
    board = sharing.new_board()
    words = board.reshape(-1)
    words[sharing.WANTED // 8] = 2
    with recorded() as record:
        ax.relu(normal(1000))
    (call,) = record.calls
    for _ in range(2):
        words[sharing.SEATS // 8] = 0  # as those have left it who came
        call.loop(*call.args, 4, -board.ctypes.data)
        assert words[sharing.SEATS // 8] == 2


@needs_fork
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("call", VALUES)
def test_a_forked_child_has_threads_of_its_own(call, early):
    done = run_python(FORK.format(call=call, early=early), NUMBA_NUM_THREADS="2")
    child, end, parent = done.stdout.splitlines()
    assert child.startswith(VALUES[call])
    assert child.endswith(" True")
    assert parent == f"parent: {child}"
    assert end == "child: 0"
    assert (done.stderr, done.returncode) == ("", 0)


# --- Numba's setting -----------------------------------------------------------------------------

NUMBER = """
import numba
import agnostic_xent as ax

print(ax.info()["threads"]["number"])
try:
    numba.threading_layer()
except ValueError:
    print("Numba has started none")
numba.set_num_threads(2)
print(ax.info()["threads"]["number"])
"""


def test_their_number_is_what_numba_is_set_to():
    """To read it starts none of Numba's own threads, which nothing here uses."""
    done = run_python(NUMBER, NUMBA_NUM_THREADS="3")
    assert (done.stdout, done.stderr) == ("3\nNumba has started none\n2\n", "")
