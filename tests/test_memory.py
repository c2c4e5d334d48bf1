"""Memory that is lent again: never while somebody still holds it."""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import fork, needs_fork

pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.toolchain import memory

BIG = (memory.SMALLEST // 4,)
"""The smallest float32 array that gets a block."""


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Let the collector pass over all objects that are there before these tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def pool():
    return memory.Pool()


def make(pool, shape=BIG, dtype="f4"):
    return pool.empty(shape, dtype)


def address(x):
    return x.__array_interface__["data"][0]


def block_of(pool, x):
    """Return the block that an array lies on."""
    (found,) = [block for block in pool.blocks if address(block.memory) == address(x)]
    return found


def lent(pool):
    """Return how many bytes are lent."""
    return sum(block.size for block in pool.blocks if not block.is_free())


# --- what is lent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i8", "?"])
@pytest.mark.parametrize("rows", [1, 3, 1021])
def test_arrays_are_plain(pool, dtype, rows):
    shape = rows, -(-memory.SMALLEST // rows), 1
    x = make(pool, shape, dtype)
    assert type(x) is np.ndarray
    assert (x.shape, x.dtype) == (shape, np.dtype(dtype))
    assert x.flags.c_contiguous
    assert x.flags.writeable
    assert x.flags.aligned
    assert address(x) % 64 == 0
    x[...] = 1
    assert x.sum(dtype="f8") == x.size


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 1 << 40), (5,), (BIG[0] - 1,)])
def test_small_arrays_are_numpys_own(pool, shape):
    x = make(pool, shape)
    assert (x.shape, x.base) == (shape, None)
    assert not pool.blocks


def test_arrays_do_not_overlap(pool):
    arrays = [make(pool, (BIG[0] + 1000 * i,)) for i in range(9)]
    for i, x in enumerate(arrays):
        x[...] = i
    for i, x in enumerate(arrays):
        assert (x == i).all()


COPIES = {
    "numpy": np.copy,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_are_independent(pool, duplicate):
    x = make(pool)
    x[...] = 3
    y = duplicate(x)
    x[...] = 4
    del x
    make(pool)[...] = 5
    assert (y == 3).all()


@needs_fork
def test_a_forked_child_writes_to_a_copy(pool):
    x = make(pool)
    x[...] = 3
    child = fork()
    if child == 0:
        x[...] = 4
        os._exit(0)
    os.waitpid(child, 0)
    assert (x == 3).all()


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here"
)
def test_the_system_may_use_huge_pages(pool):
    x = make(pool, (memory.HUGE_PAGE,))
    for mapping in re.split(r"(?m)^(?=\w+-\w+ )", Path("/proc/self/smaps").read_text())[1:]:
        first, last = (int(place, 16) for place in mapping.split()[0].split("-"))
        if first <= address(x) < last:
            eligible = re.search(r"THPeligible: +(\d)", mapping)
    assert eligible is None or eligible[1] == "1"  # an old kernel does not say


# --- when it comes back ---------------------------------------------------------------------------


def test_dropped_memory_is_lent_again(pool):
    x = make(pool)
    place = address(x)
    del x
    assert address(make(pool)) == place


@pytest.mark.parametrize("fewer", [0, 1000, int(BIG[0] / 6)])
def test_a_somewhat_larger_block_will_do(pool, fewer):
    x = make(pool, (2 * BIG[0],))
    place = address(x)
    del x
    assert address(make(pool, (2 * BIG[0] - fewer,), "f4")) == place


def test_a_far_larger_or_smaller_block_will_not(pool):
    x = make(pool, (2 * BIG[0],))
    place = address(x)
    del x
    assert address(make(pool)) != place
    assert address(make(pool, (3 * BIG[0],))) != place


def torch_of(x):
    return pytest.importorskip("torch").from_numpy(x)


HOLDERS = {
    "slice": lambda x: x[1000:1001],
    "reversed": lambda x: x[::-7],
    "transpose": lambda x: x.reshape(1024, -1).T,
    "reshape": lambda x: x.reshape(2, -1, 4),
    "other dtype": lambda x: x.view("u1")[5:],
    "view of a view": lambda x: x[5:].view("i4").reshape(-1, 1)[::3, 0],
    "broadcast": lambda x: np.broadcast_to(x[:1], (3, 4)),
    "new axis": lambda x: x[None, :, None],
    "flat": lambda x: x.flat,
    "iterator": lambda x: iter(x.reshape(2, -1)),
    "ravel": lambda x: x.reshape(2, -1).ravel(),
    "asarray": np.asarray,
    "subclass": lambda x: x.view(np.recarray),
    "masked": lambda x: np.ma.masked_array(x),
    "memoryview": memoryview,
    "cast memoryview": lambda x: memoryview(x).cast("B")[3:9],
    "frombuffer": lambda x: np.frombuffer(x, "u1"),
    "interface": lambda x: x.__array_interface__ and np.asarray(Wrapper(x)),
    "dlpack": np.from_dlpack,
    "torch": torch_of,
    "torch view": lambda x: torch_of(x)[3:5],
    "closure": lambda x: lambda: x,
}


class Wrapper:
    """Hands on the interface of an array that it holds."""

    def __init__(self, x):
        self.x, self.__array_interface__ = x, x.__array_interface__


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_what_is_held_is_not_lent(pool, hold):
    x = make(pool)
    block, place = block_of(pool, x), address(x)
    x[...] = 7
    held = hold(x)
    del x
    gc.collect()
    others = [make(pool) for _ in range(3)]
    assert place not in map(address, others)
    for other in others:
        other[...] = 8
    assert not block.is_free()
    del held
    gc.collect()
    assert block.is_free()
    del others, other
    assert place in {address(x) for x in [make(pool) for _ in range(4)]}


def test_what_is_held_keeps_its_values(pool):
    x = make(pool)
    x[...] = np.arange(x.size)
    held = x[10:20], memoryview(x)[5:7]
    del x
    for _ in range(5):
        make(pool)[...] = -1
    np.testing.assert_array_equal(held[0], np.arange(10, 20))
    assert list(held[1]) == [5, 6]


def test_cycles_come_back_with_the_collector(pool):
    x = make(pool)
    block, place = block_of(pool, x), address(x)
    cycle = [x]
    cycle.append(cycle)
    del x, cycle
    assert address(make(pool)) != place or block.is_free()
    gc.collect()
    assert block.is_free()
    blocks = [make(pool), make(pool)]
    assert place in map(address, blocks)


class Last:
    """Looks once more at an array, in a cycle with which it ends."""

    def __init__(self, pool, x, seen):
        self.pool, self.x, self.seen, self.own = pool, x, seen, self

    def __del__(self):
        make(self.pool, self.x.shape)[...] = 9  # as another thread might do now
        self.seen.append(float(self.x.sum()))


def test_what_a_cycle_still_reads_as_it_ends_is_not_lent(pool):
    x, seen = make(pool), []
    x[...] = 0
    Last(pool, x, seen)
    del x
    gc.collect()
    assert seen == [0.0]


def test_a_collection_in_the_middle_of_an_allocation(pool, monkeypatch):
    """What comes back while the pool is busy, from its own thread, neither hangs nor is lost."""

    class Collecting(memory.Block):
        def __init__(self, size):
            cycle = [x.pop()] if x else []
            cycle.append(cycle)
            del cycle
            gc.collect()
            super().__init__(size)

    x = [make(pool)]
    place = address(x[0])
    monkeypatch.setattr(memory, "Block", Collecting)
    other = make(pool, (3 * BIG[0],))
    assert other.size == 3 * BIG[0]
    assert address(make(pool)) == place


# --- how much is kept -----------------------------------------------------------------------------


def held_bytes(pool):
    return sum(block.size for block in pool.blocks)


def test_free_blocks_are_bounded_by_the_peak(pool):
    rng = np.random.default_rng(0)
    held, now, peak = [], 0, 0
    for _ in range(300):
        if held and rng.random() < 0.5:
            now -= held.pop(int(rng.integers(len(held)))).nbytes
        else:
            held.append(make(pool, (int(BIG[0] * rng.uniform(1, 6)),)))
            now += held[-1].nbytes
        peak = max(peak, now)
    held.clear()
    last = make(pool)
    rounding = memory.SLACK * (peak + mmap.PAGESIZE * 300)
    assert pool.peak <= rounding
    assert held_bytes(pool) - lent(pool) <= memory.KEPT * pool.peak
    assert lent(pool) <= memory.SLACK * last.nbytes + mmap.PAGESIZE


def test_a_step_that_repeats_takes_no_more_memory(pool):
    def step():
        a, b = make(pool, (2 * BIG[0],)), make(pool, (3 * BIG[0],))
        c = make(pool)
        return {address(x) for x in (a, b, c)}

    first = step()
    for _ in range(10):
        assert step() == first


def test_nor_does_one_whose_sizes_fit_no_other(pool):
    def step():
        a = make(pool, (2 * BIG[0],))
        b = make(pool, (3 * BIG[0],))
        del a
        c = make(pool, (4 * BIG[0],))  # more than is kept, if no more is than was lent
        return {address(x) for x in (b, c)}

    first = step()
    for _ in range(10):
        assert step() == first


def test_what_is_lent_is_counted(pool):
    arrays = [make(pool) for _ in range(3)]
    assert lent(pool) == pool.peak == 3 * memory.SMALLEST
    arrays.clear()
    x = make(pool)
    assert (lent(pool), pool.peak) == (x.nbytes, 3 * memory.SMALLEST)


def test_what_is_free_can_be_given_back(pool):
    held, dropped = make(pool), make(pool, (9 * BIG[0],))
    held[...] = 3
    del dropped
    pool.give_back()
    assert held_bytes(pool) == pool.peak == held.nbytes
    assert (held == 3).all()


# --- several threads ------------------------------------------------------------------------------


def test_threads_never_share_memory(pool):
    """Each fills what it gets with its own number and finds that there later; some is passed on."""
    wrong, passed, rounds = [], [], 150
    start = threading.Barrier(4)

    def work(number):
        rng = np.random.default_rng(number)
        held = []
        start.wait()
        for turn in range(rounds):
            x = make(pool, (BIG[0] + int(rng.integers(0, 4)) * 1024,))
            mark = np.float32(number * rounds + turn)
            x[::512] = mark
            held.append((x[::512], mark))
            if len(held) > int(rng.integers(1, 5)):
                view, mark = held.pop(int(rng.integers(len(held))))
                if not (view == mark).all():
                    wrong.append(mark)
                passed.append((view, mark))  # somebody else drops it
            if passed and rng.random() < 0.5:
                view, mark = passed.pop()
                if not (view == mark).all():
                    wrong.append(mark)
        wrong.extend(mark for view, mark in held if not (view == mark).all())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all((view == mark).all() for view, mark in passed)
    passed.clear()
    last = make(pool)
    assert lent(pool) == block_of(pool, last).size


# --- a broken pool --------------------------------------------------------------------------------


def test_memory_that_is_lent_too_early_is_caught(pool, monkeypatch):
    monkeypatch.setattr(memory.Block, "is_free", lambda block: True)
    x = make(pool)
    assert address(make(pool)) == address(x)
