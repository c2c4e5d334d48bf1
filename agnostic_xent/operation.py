"""The operation: a contract, a portable definition, its pullback, and kernels that may stand in.

An operation is written in three blocks, one after the other::

    @operation
    def relu(x: Array) -> Array:           # the contract: signature, docstring, checks
        '''Rectified linear unit ...'''
        float_namespace(x=x)
        return normalized(x)               # what the implementations below receive

    @relu.definition                       # the value, in the Array API standard alone
    def _(x): ...

    @relu.pullback                         # (value, cotangent -> gradients)
    def _(x): ...

A kernel is the same function, faster. ``kernels/`` registers it by the operation's name; this file
is the one place where an implementation is chosen.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from .arrays import Array, check_choice, check_shape, float_namespace, library, quiet
from .kernels import KERNEL_PACKAGES

__all__ = ["explain", "kernels"]

P = ParamSpec("P")
R = TypeVar("R")
Pullback = Callable[[Array], tuple[Array | None, ...]]

OPERATIONS: dict[str, Operation[Any, Any]] = {}
"""Every operation by name; the decorator enters it."""

MODES = ("auto", "portable", "require")
_mode: ContextVar[str | None] = ContextVar("kernels", default=None)


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation: its value, and its value together with its pullback."""

    name: str
    value: Callable[..., Any]
    vjp: Callable[..., tuple[Any, Pullback]]
    takes: Callable[..., str | None] = lambda *arrays, **options: None
    """Return None if these normalised arguments are taken, else the reason why not."""

    @functools.cached_property
    def sees_wrt(self) -> bool:
        """Whether the pullback asks which gradients are wanted, to leave out the others' work."""
        return "wrt" in inspect.signature(self.vjp).parameters


def normalized(*arrays: Array | None, **options: Any) -> Any:
    """Return what a contract hands to the implementations: checked arrays, complete options."""
    return arrays, options


class Operation(Generic[P, R]):
    """A function of arrays with a portable definition, a pullback and perhaps kernels."""

    def __init__(self, contract: Callable[P, R]):
        functools.update_wrapper(self, contract)
        self.name = contract.__name__
        self._contract: Callable[..., Any] = contract
        self._value: Callable[..., Any]
        self._portable: Implementation
        self._kernels: dict[str, list[Implementation]] = {}
        self._decisions: dict[Any, tuple[Implementation, str]] = {}

    def __repr__(self) -> str:
        return f"<operation {self.name}{inspect.signature(self._contract)}>"

    def __reduce__(self) -> str:
        return self.name  # pickled and copied by reference, as a function is

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value."""
        arrays, options = self._contract(*args, **kwargs)
        implementation = self._choose(arrays, options)[0]
        with quiet():
            result: R = implementation.value(*arrays, **options)
        return result

    def vjp(
        self, *args: Any, wrt: Iterable[int] | None = None, **options: Any
    ) -> tuple[Any, Pullback]:
        """Return the value and its pullback.

        Parameters
        ----------
        *args, **options
            As for the operation itself.
        wrt : iterable of int, optional
            Positions of the array arguments whose gradients are wanted; None means all.

        Returns
        -------
        value : array
            What the call returns.
        pullback : callable
            Takes the cotangent of the value (of its first array, where there are several) and
            returns one entry for each positional array argument: its gradient, or None where it
            was None, is not differentiable or is not in ``wrt``.
        """
        arrays, options = self._contract(*args, **options)
        wanted = _wanted(wrt, len(arrays))
        implementation = self._choose(arrays, options)[0]
        if implementation.sees_wrt:
            options["wrt"] = wanted
        with quiet():
            value, pullback = implementation.vjp(*arrays, **options)
        output = value[0] if isinstance(value, tuple) else value

        def checked(cotangent: Array) -> tuple[Array | None, ...]:
            float_namespace(value=output, cotangent=cotangent)
            check_shape("cotangent", cotangent, tuple(output.shape), "that of the value")
            with quiet():
                gradients = pullback(cotangent)
            return tuple(g if i in wanted else None for i, g in enumerate(gradients))

        return value, checked

    # --- how it is written -----------------------------------------------------------------------

    def definition(self, value: Callable[..., Any]) -> Callable[..., Any]:
        """Set the portable definition (decorator)."""
        self._value = value
        return value

    def pullback(self, vjp: Callable[..., Any]) -> Callable[..., Any]:
        """Set the portable value-and-pullback (decorator)."""
        self._portable = Implementation("portable", self._value, vjp)
        return vjp

    def add_kernel(self, library: str, kernel: Implementation) -> None:
        """Let a kernel stand in on arrays of a library; the first one that takes a call runs."""
        self._kernels.setdefault(library, []).append(kernel)
        self._decisions.clear()

    def implementation(self, *args: Any, **options: Any) -> tuple[Implementation, str]:
        """Return which implementation runs on these arguments, and why."""
        return self._choose(*self._contract(*args, **options))

    # --- which implementation runs ---------------------------------------------------------------

    def _choose(self, arrays: Any, options: Any) -> tuple[Implementation, str]:
        mode = _mode.get() or default_mode()
        key = (mode, *map(_signature, arrays), *map(_signature, options.values()))
        try:
            return self._decisions[key]
        except KeyError:
            decision = self._decisions[key] = self._decide(mode, arrays, options)
            return decision

    def _decide(self, mode: str, arrays: Any, options: Any) -> tuple[Implementation, str]:
        if mode == "portable":
            return self._portable, "kernels are switched off"
        name = library(arrays[0])
        load_kernels(name)
        reasons = []
        for kernel in self._kernels.get(name, ()):
            reason = kernel.takes(*arrays, **options)
            if reason is None:
                return kernel, "it takes these arguments"
            reasons.append(f"{kernel.name}: {reason}")
        why = "; ".join(reasons) or f"no kernel for {name} arrays"
        if mode == "require":
            raise RuntimeError(f'kernels("require"): {self.name} would run portably ({why})')
        return self._portable, why


def operation(contract: Callable[P, R]) -> Operation[P, R]:
    """Make an operation of its contract and enter it in the table."""
    made = OPERATIONS[contract.__name__] = Operation(contract)
    return made


def _signature(x: Any) -> Any:
    """Return what a decision may depend on: never an array's values or its shape."""
    return (type(x), x.dtype, x.ndim) if hasattr(x, "dtype") else x


def _wanted(wrt: Iterable[int] | None, count: int) -> frozenset[int]:
    wanted = frozenset(range(count) if wrt is None else wrt)
    if not wanted <= frozenset(range(count)):
        raise ValueError(
            f"wrt must hold positions of array arguments, 0 to {count - 1}; got {sorted(wanted)}"
        )
    return wanted


@functools.cache
def load_kernels(library: str) -> None:
    """Import the package that registers the kernels of a library, once."""
    if library in KERNEL_PACKAGES:
        importlib.import_module(KERNEL_PACKAGES[library])


@functools.cache
def default_mode() -> str:
    """Return the mode that the environment asks for."""
    mode = os.environ.get("AGNOSTIC_XENT_KERNELS", "auto")
    check_choice("the environment variable AGNOSTIC_XENT_KERNELS", mode, MODES)
    return mode


@contextmanager
def kernels(mode: str) -> Iterator[None]:
    """Choose, within a ``with`` block of this thread, whether kernels run.

    Parameters
    ----------
    mode : {"auto", "portable", "require"}
        "auto": a kernel where one takes the arguments, else the portable definition.
        "portable": always the portable definition. "require": RuntimeError where "auto" would
        fall back, so that a benchmark cannot time the slow path unseen.
        Outside such a block the environment variable ``AGNOSTIC_XENT_KERNELS`` decides.

    Examples
    --------
    >>> with kernels("portable"):
    ...     y = relu(xp.asarray([-1.0, 2.0]))
    >>> float(y[1])
    2.0
    """
    check_choice("mode", mode, MODES)
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def explain(op: Operation[..., Any], *args: Any, **options: Any) -> str:
    """Say in a line which implementation of an operation runs on these arguments, and why.

    Examples
    --------
    >>> with kernels("portable"):
    ...     explain(relu, xp.asarray([1.0]))
    'relu: portable (kernels are switched off)'
    """
    if not isinstance(op, Operation):
        raise TypeError(f"op must be an operation such as relu or conv2d, got {op!r}")
    implementation, why = op.implementation(*args, **options)
    return f"{op.name}: {implementation.name} ({why})"
