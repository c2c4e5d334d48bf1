"""CuPy's capture of a stream, over watched arrays: what is recorded does not run before a replay.

What CuPy 14 refuses during a capture is refused here: cuBLAS, reads, and copies from the host. What
is new in a recording holds NaN until a replay has computed it, and at each replay again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import watched

from agnostic_xent.kernels.cuda import graphs
from agnostic_xent.kernels.cuda.toolchain import launching

Work = Callable[[], Any]


class Recording:
    """The state of the recording: what a capture has recorded so far, if there is one."""

    log: list[Work] | None = None
    private = False
    """Whether new arrays lie in memory of the graph."""
    asked = 0
    """How often the host has asked a GPU for something, but for a graph."""


def plain(x: Any) -> Any:
    """Return watched arrays, in lists as well, as NumPy's over the same memory."""
    if isinstance(x, (tuple, list)):
        return type(x)(map(plain, x))
    if isinstance(x, dict):
        return {name: plain(value) for name, value in x.items()}
    return np.asarray(x) if isinstance(x, watched.ndarray) else x


def do(work: Work) -> None:
    """Run or record ``work``, which writes to arrays that are there already."""
    Recording.asked += 1
    if Recording.log is None:
        work()
    else:
        Recording.log.append(work)


def computed(function: Callable[..., Any], args: Any, options: Any) -> Any:
    """Return what a function returns, and record it unless that is a view."""
    Recording.asked += 1
    args, options = plain(args), plain(options)
    found = watched.there(function(*args, **options))
    if Recording.log is not None and isinstance(found, watched.ndarray):
        given = [x for x in args if isinstance(x, np.ndarray)]
        if not any(np.may_share_memory(found, x) for x in given):
            assert Recording.private, "new memory from outside the graph's"
            target = plain(found)
            target.reshape(-1).view(np.uint8)[:] = 0xFF
            Recording.log.append(lambda: np.copyto(target, function(*args, **options)))
    return found


def refuse(reads: bool = False, sends: bool = False, multiplies: bool = False) -> None:
    """Raise what CuPy raises, if this is a capture."""
    if Recording.log is None:
        return
    if multiplies:
        raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
    if reads or sends:
        way = "D2H" if reads else "H2D"
        raise RuntimeError(f"the current stream is capturing, so {way} transfers are disallowed")


def of_host(x: Any) -> bool:
    """Return whether a value lies on the host, from where it has to be sent to a GPU."""
    return not isinstance(x, watched.ndarray) and bool(np.ndim(x))


class Namespace(watched.Namespace):
    """A namespace of NumPy whose functions are recorded."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if not callable(found) or isinstance(found, type):
            return found

        def function(*args: Any, **options: Any) -> Any:
            refuse(reads=name in watched.SIZE_DEPENDS_ON_VALUES, multiplies=name == "matmul")
            refuse(sends=name in ("array", "asarray") and of_host(args[0]))
            return computed(found, args, options)

        return function


# --- arrays --------------------------------------------------------------------------------------


def array_ufunc(self: Any, ufunc: Any, method: str, *args: Any, out: Any = None, **o: Any) -> Any:
    """Run or record a function of elements, an operator or a sum."""
    refuse(multiplies=ufunc is np.matmul)
    function = getattr(ufunc, method)
    if out is None:
        return computed(function, args, o)
    do(lambda: function(*plain(args), out=plain(out), **o))
    return out[0]


def setitem(self: Any, key: Any, value: Any) -> None:
    """Write elements of a watched array, or record it."""
    refuse(sends=of_host(value))
    do(lambda: np.ndarray.__setitem__(plain(self), key, plain(value)))


def method_of(name: str) -> Callable[..., Any]:
    """Return the method ``name`` of NumPy's arrays, recorded."""
    return lambda self, *args, **options: computed(
        getattr(np.ndarray, name), (self, *args), options
    )


def reading(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``method`` that reads from the device, which a capture refuses."""

    def read(self: Any, *args: Any) -> Any:
        refuse(reads=True)
        return method(self, *args)

    return read


# --- cupy.cuda -----------------------------------------------------------------------------------


class Graph:
    """A recording that can be replayed."""

    launches = 0

    def __init__(self, log: list[Work]):
        self.log = log

    def launch(self) -> None:
        assert Recording.log is None
        Graph.launches += 1
        for work in self.log:
            work()


class Stream:
    """A stream, which records while it is the current one."""

    current: Any = None

    def __init__(self, *, non_blocking: bool):
        assert non_blocking

    def __enter__(self) -> None:
        Stream.current = self

    def __exit__(self, *error: Any) -> None:
        Stream.current = None

    def begin_capture(self) -> None:
        assert Stream.current is self
        Recording.log = []

    def end_capture(self) -> Graph:
        log, Recording.log = Recording.log, None
        assert log is not None
        return Graph(log)


class Device:
    """The only device."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        pass


@contextmanager
def using_allocator(malloc: Any) -> Iterator[None]:
    Recording.private = True
    try:
        yield
    finally:
        Recording.private = False


def install(monkeypatch: Any) -> None:
    """Let the kernels run on watched arrays, and steps be captured by the code for CuPy."""
    watched.install(monkeypatch, Namespace)
    launch = launching.launch
    monkeypatch.setattr(launching, "launch", lambda *args: do(lambda: launch(*args)))
    for name in ("__bool__", "__float__", "__int__", "__index__", "__complex__", "item", "tolist"):
        monkeypatch.setattr(watched.ndarray, name, reading(getattr(watched.ndarray, name)))
    for name in ("astype", "copy", "reshape", "__getitem__"):
        monkeypatch.setattr(watched.ndarray, name, method_of(name), raising=False)
    monkeypatch.setattr(watched.ndarray, "__array_ufunc__", array_ufunc)
    monkeypatch.setattr(watched.ndarray, "__setitem__", setitem, raising=False)
    cuda = SimpleNamespace(
        Device=Device, Stream=Stream, using_allocator=using_allocator,
        MemoryPool=lambda allocate: SimpleNamespace(malloc=allocate),
    )  # fmt: skip
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    monkeypatch.setattr(graphs.xp, "cuda", cuda, raising=False)
    monkeypatch.setattr(graphs.xp, "get_default_memory_pool", lambda: pool, raising=False)
    monkeypatch.setattr(graphs, "record", graphs.record_on_gpu)
