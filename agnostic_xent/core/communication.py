"""How the ranks of a distributed run talk: over MPI, over NCCL, or with nobody."""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .arrays import Array, array_namespace, device, library, narrow, widen
from .checks import generator
from .conversion import backend, to_backend
from .requirements import installing, missing

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MPICommunicator", "NCCLCommunicator"]

THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that tell libraries, when they are loaded, how many threads to start."""


class Communicator(Protocol):
    """What a distributed run needs; every rank makes the same calls in the same order.

    A sum has the same bits on every rank, and each time.
    """

    @property
    def rank(self) -> int:
        """Which of the ranks this is, from 0."""

    @property
    def size(self) -> int:
        """How many ranks there are."""

    def reads(self, x: Array) -> bool:
        """Tell whether `start_sum` reads arrays of this library where they are."""

    def start_sum(self, x: Array) -> Callable[[], Any]:
        """Begin to replace an array by its sum over the ranks; calling the result waits for it."""

    def sum(self, x: Array) -> Array:
        """Return the sum of an array over the ranks."""

    def maximum(self, x: Array) -> Array:
        """Return the elementwise maximum of an array over the ranks."""

    def broadcast(self, value: Any) -> Any:
        """Return what rank 0 passed, any object."""

    def gather(self, value: Any) -> list[Any]:
        """Return what each rank passed, in their order, on every rank."""


@dataclass(frozen=True)
class Alone:
    """The one rank of a run that is not distributed."""

    rank = 0
    size = 1

    def reads(self, x: Array) -> bool:
        """Return True: it does nothing to arrays."""
        return True

    def start_sum(self, x: Array) -> Callable[[], Any]:
        """Leave it: it is the sum."""
        return lambda: None

    def sum(self, x: Array) -> Array:
        """Return ``x``."""
        return x

    maximum = sum

    def broadcast(self, value: Any) -> Any:
        """Return ``value``."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return a list of ``value``."""
        return [value]


class MPICommunicator:
    """The ranks of an MPI job, by mpi4py: ``mpiexec -n 4 python -m mpi4py script.py``.

    Started like this, a rank that raises an error ends the whole job; without ``-m mpi4py`` the
    others would wait for it forever.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default all ranks of the job.
    device_arrays : bool
        Whether the MPI library reads arrays on a GPU ("CUDA-aware"); else they are summed in the
        memory of the host.

    Examples
    --------
    >>> communicator = MPICommunicator()  # doctest: +SKIP
    """

    def __init__(self, comm: Any = None, *, device_arrays: bool = False):
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library to load
            raise missing("MPICommunicator", "mpi4py", "mpich") from error
        self.comm = MPI.COMM_WORLD if comm is None else comm
        self.device_arrays = device_arrays
        self.rank: int = self.comm.rank
        self.size: int = self.comm.size
        self._mpi = MPI

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank {self.rank} of {self.size})"

    def __deepcopy__(self, memo: Any) -> MPICommunicator:
        return self  # of one job there is one; scikit-learn's clone copies parameters

    def reads(self, x: Array) -> bool:
        """Tell whether MPI reads arrays of this library: those on the host, or on a GPU too."""
        return self.device_arrays or library(x) == "numpy"

    def start_sum(self, x: Array) -> Callable[[], Any]:
        """Begin to replace an array, whose elements lie in order, by its sum over the ranks."""
        self._finish_device_work()
        wait: Callable[[], Any] = self.comm.Iallreduce(self._mpi.IN_PLACE, x).Wait
        return wait

    def sum(self, x: Array) -> Array:
        """Return the sum of an array over the ranks."""
        return self._reduced(x, self._mpi.SUM)

    def maximum(self, x: Array) -> Array:
        """Return the elementwise maximum of an array over the ranks."""
        return self._reduced(x, self._mpi.MAX)

    def broadcast(self, value: Any) -> Any:
        """Return what rank 0 passed, any object."""
        return self.comm.bcast(value)

    def gather(self, value: Any) -> list[Any]:
        """Return what each rank passed, in their order, on every rank."""
        found: list[Any] = self.comm.allgather(value)
        return found

    def gather_here(self, value: Any) -> list[Any]:
        """Return what each rank of this machine passed, in their order, on each of them."""
        here = self.comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        found: list[Any] = here.allgather(value)
        here.Free()
        return found

    def _reduced(self, x: Array, operation: Any) -> Array:
        xp, wide = array_namespace(x), widen(x)
        if self.device_arrays:
            result = xp.asarray(wide, copy=True)
            self._finish_device_work()
            self.comm.Allreduce(self._mpi.IN_PLACE, result, operation)
            return narrow(result, x)
        host = to_backend(wide, backend("numpy"))  # a copy
        self.comm.Allreduce(self._mpi.IN_PLACE, host, operation)
        return narrow(host if library(x) == "numpy" else to_backend(host, xp, device(x)), x)

    def _finish_device_work(self) -> None:
        """Wait for the kernels that write what MPI is to read: it knows nothing of streams."""
        if self.device_arrays:
            backend("cupy").cuda.get_current_stream().synchronize()


class NCCLCommunicator(MPICommunicator):
    """The ranks of an MPI job that sum their CuPy arrays by NCCL, one GPU a rank.

    Of a machine's GPUs each rank makes its own the current one, on which arrays are then made. MPI
    carries what is small: numbers, settings, NCCL's own start. It has never run on a GPU.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default all ranks of the job.

    Raises
    ------
    ImportError
        If CuPy or NCCL is not installed.
    OSError
        If there is no GPU.
    ValueError
        If ranks would have to share a GPU, which NCCL cannot do.

    Examples
    --------
    >>> communicator = NCCLCommunicator()  # doctest: +SKIP
    """

    TYPES = {"float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64"}  # noqa: RUF012

    def __init__(self, comm: Any = None):
        super().__init__(comm)
        self._cuda = backend("cupy").cuda
        self._nccl = importlib.import_module("cupy.cuda.nccl")  # which CuPy loads on request only
        if not self._nccl.available:
            raise ImportError(
                f"NCCLCommunicator needs NCCL: {installing('nvidia-nccl-cu13')} "
                "(or -cu12, as the CuPy installed)"
            )
        self._take_device()
        identity = self.broadcast(self._nccl.get_unique_id() if self.rank == 0 else None)
        self._link = self._nccl.NcclCommunicator(self.size, identity, self.rank)
        self._stream = self._cuda.Stream(non_blocking=True)

    def _take_device(self) -> None:
        """Make a GPU of its own current: two ranks on one would wait for each other forever."""
        number = self._cuda.runtime.getDeviceCount()  # 1 where a launcher shows each its own
        own = self._cuda.Device(self.gather_here(self.rank).index(self.rank) % number)
        taken = self.gather_here(own.pci_bus_id)
        if len({*taken}) < len(taken):
            raise ValueError(
                f"NCCLCommunicator takes one GPU a rank, but {len(taken)} ranks of this machine "
                f"see {len({*taken})}; start fewer, or use MPICommunicator"
            )
        own.use()

    def reads(self, x: Array) -> bool:
        """Return True: NCCL reads arrays of CuPy, and MPI those of NumPy."""
        return True

    def start_sum(self, x: Array) -> Callable[[], Any]:
        """Begin to replace an array by its sum, on a stream beside the one that computes."""
        if library(x) == "numpy":
            return super().start_sum(x)
        computes = self._cuda.get_current_stream()
        self._stream.wait_event(computes.record())
        self._all_reduce(x, self._nccl.NCCL_SUM, self._stream)
        summed = self._stream.record()
        return lambda: computes.wait_event(summed)

    def _reduced(self, x: Array, operation: Any) -> Array:
        if library(x) == "numpy":
            return super()._reduced(x, operation)
        result = array_namespace(x).asarray(widen(x), copy=True)
        name = "NCCL_SUM" if operation == self._mpi.SUM else "NCCL_MAX"
        self._all_reduce(result, getattr(self._nccl, name), self._cuda.get_current_stream())
        return narrow(result, x)

    def _all_reduce(self, x: Array, operation: int, stream: Any) -> None:
        dtype = getattr(self._nccl, self.TYPES[str(x.dtype)])
        self._link.allReduce(x.data.ptr, x.data.ptr, x.size, dtype, operation, stream.ptr)


def world(library: str) -> Communicator:
    """Return the ranks of this job for arrays of a library: those of MPI, if there are several."""
    if not started_by_mpi():
        return Alone()
    found = MPICommunicator()
    if found.size == 1:
        return Alone()
    return NCCLCommunicator() if library == "cupy" else found


def started_by_mpi() -> bool:
    """Tell whether ``python -m mpi4py`` runs this process."""
    return "mpi4py" in sys.modules


def share_cores() -> None:
    """Let libraries that are not loaded yet start as many threads as there are cores for a rank.

    What the environment says already stays. A launcher may have given each rank cores of its own.
    """
    if not started_by_mpi() or not hasattr(os, "sched_getaffinity"):  # macOS does not tell
        return
    own = os.sched_getaffinity(0)
    sharing = MPICommunicator().gather_here(own)
    share = sum(1 / sum(core in other for other in sharing) for core in own)
    for name in THREADS:
        os.environ.setdefault(name, str(max(1, round(share))))


def same_generator(rng: Any, communicator: Communicator) -> np.random.Generator:
    """Return the generator that ``rng`` stands for; of None, one that is the same on all ranks."""
    return generator(communicator.broadcast(secrets.randbits(128)) if rng is None else rng)


def check_alike(communicator: Communicator, facts: Callable[[], dict[str, Any]]) -> None:
    """Raise ValueError on all ranks if a named fact of one is not that of rank 0."""
    if communicator.size == 1:
        return
    first, *others = communicator.gather(facts())
    for rank, other in enumerate(others, 1):
        differences = [
            f"its {name} is {other.get(name)}, there {value}"
            for name, value in first.items()
            if other.get(name) != value
        ]
        if differences:
            raise ValueError(f"rank {rank} differs from rank 0: {'; '.join(differences)}")


def first_rank_first(communicator: Communicator, action: Callable[[], Any]) -> None:
    """Do something on rank 0, then on the others, which may need what it wrote."""
    if communicator.rank == 0:
        action()
    communicator.gather(None)
    if communicator.rank > 0:
        action()
