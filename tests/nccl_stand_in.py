"""A stand-in for CuPy with NCCL: arrays in host memory, sums by MPI, and streams that run late.

What is put on a stream runs when the computing one waits for it, so a wait that is missing shows
in the numbers; what NCCL forbids, or leaves undefined, is an error here.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np

TYPES = {7: "float32", 8: "float64"}
NAMES = {"NCCL_FLOAT32": 7, "NCCL_FLOAT64": 8, "NCCL_SUM": 0, "NCCL_MAX": 2}
OPERATIONS = {0: "SUM", 2: "MAX"}
IDENTITY = b"i" * 128


class ndarray(np.ndarray):
    """An array whose memory has an address, on the one device."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data, device_id=0)


ndarray.__module__ = "cupy"


class Namespace(ModuleType):
    """NumPy, but what it makes of arrays are those above."""

    def __getattr__(self, name):
        made = getattr(importlib.import_module("array_api_compat.numpy"), name)
        return _standing_in(made) if callable(made) and not isinstance(made, type) else made


def _standing_in(function):
    def call(*arguments, **options):
        result = function(*arguments, **options)
        return result.view(ndarray) if type(result) is np.ndarray else result

    return call


class Event:
    """A place on a stream."""

    def __init__(self, stream):
        self.stream, self.length = stream, len(stream.work)


class Stream:
    """Runs nothing until somebody waits for it."""

    def __init__(self, null=False, non_blocking=False):
        self.work, self.waited, self.ptr = [], False, id(self)
        STREAMS[self.ptr] = self

    def record(self):
        return Event(self)

    def wait_event(self, event):
        self.waited = True
        while len(event.stream.work) and event.length:
            event.stream.work.pop(0)()
            event.length -= 1


class Device:
    """One of the GPUs that a rank sees."""

    visible, current = (), None

    def __init__(self, number):
        self.pci_bus_id = self.visible[number]

    def use(self):
        Device.current = self.pci_bus_id


class NcclCommunicator:
    """Sums by MPI, in the order of the calls."""

    def __init__(self, number, identity, rank):
        from mpi4py import MPI

        self.mpi, world = MPI, MPI.COMM_WORLD
        assert (number, identity, rank) == (world.size, IDENTITY, world.rank)
        taken = world.allgather(Device.current)
        assert None not in taken
        assert len({*taken}) == number

    def allReduce(self, sent, received, count, dtype, operation, stream):
        assert sent == received
        own = STREAMS[stream]
        address = (ctypes.c_char * (count * np.dtype(TYPES[dtype]).itemsize)).from_address(sent)
        array = np.frombuffer(address, TYPES[dtype])

        def run():
            together = getattr(self.mpi, OPERATIONS[operation])
            self.mpi.COMM_WORLD.Allreduce(self.mpi.IN_PLACE, array, together)

        if own is COMPUTES:
            run()
        else:
            assert own.waited, "the sum may read what is not computed yet"
            own.waited = False
            own.work.append(run)


STREAMS = {}
COMPUTES = Stream(null=True)


def install(visible, *, available=True):
    """Make ``import cupy`` find the stand-in, which sees these GPUs."""
    Device.visible = visible
    nccl = SimpleNamespace(
        available=available,
        get_unique_id=lambda: IDENTITY,
        NcclCommunicator=NcclCommunicator,
        **NAMES,
    )
    cupy = Namespace("cupy")
    cupy.ndarray = ndarray
    cupy.cuda = SimpleNamespace(  # without nccl: CuPy loads that one on request
        runtime=SimpleNamespace(getDeviceCount=lambda: len(visible), is_hip=False),
        Device=Device,
        Stream=Stream,
        get_current_stream=lambda: COMPUTES,
    )
    sys.modules |= {"cupy": cupy, "array_api_compat.cupy": cupy, "cupy.cuda.nccl": nccl}
    sys.modules["cupy.cuda"] = cupy.cuda
    from agnostic_xent.core import arrays

    arrays._namespaces[ndarray] = cupy
    return cupy
