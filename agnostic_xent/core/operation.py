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
import itertools
import operator
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from .arrays import Array, alike, device_number, has_known_device, library, quiet
from .cached import cached_property
from .checks import check_shape, float_namespace
from .forks import as_a_whole
from .modes import current_mode as current_mode
from .modes import kernels as kernels

__all__ = ["explain"]

P = ParamSpec("P")
R = TypeVar("R")
Pullback = Callable[[Array], tuple[Array | None, ...]]

OPERATIONS: dict[str, Operation[Any, Any]] = {}
"""Every operation by name; the decorator enters it."""

ROUTINES: dict[str, Routine] = {}

KERNEL_PACKAGES = {
    "numpy": "agnostic_xent.kernels.cpu",
    "cupy": "agnostic_xent.kernels.cuda",
}
"""Library -> the package that registers its kernels, imported when its first array is seen."""

SEEN = 1024
"""Calls that an operation remembers."""


class NoKernels(ImportError):
    """Raised by kernels that cannot run here; `explain` gives its message.

    A package of kernels raises it when it is imported, a kernel when it is first run, before it has
    written anything.
    """


SET_ASIDE: set[str] = set()
"""Libraries with an operation whose kernels were set aside: one warning is enough for each."""


def _no_vjp(*arrays: Any, **options: Any) -> Any:
    raise TypeError("a routine has no gradient")


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation: its value, and its value together with its pullback."""

    name: str
    value: Callable[..., Any]
    vjp: Callable[..., tuple[Any, Pullback]] = _no_vjp
    takes: Callable[..., str | None] = lambda *arrays, **options: None
    """Return None if these normalised arguments are taken, else the reason why not."""
    specialized: Callable[..., Implementation | None] = lambda check_values, *arrays, **options: (
        None
    )
    """Return the kernel for all calls whose arguments differ in arrays' values alone, if there is
    one: it gets the arrays, those among the options by name, and calls ``check_values`` with the
    arrays before anything is returned, where they may not pass."""
    describe: Callable[..., str] | None = None
    """Say which of its algorithms runs on these normalised arguments; `explain` asks."""
    options: Collection[str] = ()
    """The options that it knows: it receives these and no others, and runs only where every other
    option is at the operation's default."""

    @cached_property
    def sees_wrt(self) -> bool:
        """Whether the pullback asks which gradients are wanted, to leave out the others' work."""
        return "wrt" in inspect.signature(self.vjp).parameters


class Normalized(NamedTuple):
    """What a contract hands to the implementations: checked arrays, complete options."""

    arrays: tuple[Array | None, ...]
    options: dict[str, Any]
    repeats: bool = False
    """Whether types, dtypes, shapes and options decide alone what the contract says."""
    check_values: Callable[..., None] | None = None
    """Called with the arrays, where the contract repeats but for what it says of their values."""


def normalized(*arrays: Array | None, **options: Any) -> Any:
    """Return checked arrays and complete options."""
    return Normalized(arrays, options)


def repeatable(
    *arrays: Array | None, check_values: Callable[..., None] | None = None, **options: Any
) -> Any:
    """Return the same for a contract that changes no array and reads none, but in the check.

    It is not asked again about arguments of the same types, dtypes, shapes and options.
    """
    return Normalized(arrays, options, True, check_values)


class Kernelized:
    """What kernels may stand in for: the choice among them."""

    portable: Implementation

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        parameters = inspect.signature(function).parameters.values()
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._kernels: dict[str, list[Implementation]] = {}
        self._decisions: dict[Any, tuple[Implementation, str]] = {}
        self._failures: dict[str, str] = {}

    def set_aside(self, library: str, error: NoKernels) -> None:
        """Let no kernel run any more on arrays of a library, and remember why."""
        self._failures[library] = str(error)
        self._decisions.clear()
        if library not in SET_ASIDE:
            SET_ASIDE.add(library)
            warnings.warn(
                f"{self.name} runs portably on {library} arrays, which is slower: {error}",
                RuntimeWarning,
                stacklevel=4,
            )

    def add_kernel(self, library: str, kernel: Implementation) -> None:
        """Let a kernel stand in on arrays of a library; the first one that takes a call runs."""
        self._kernels.setdefault(library, []).append(kernel)
        self._decisions.clear()

    def _choose(self, arrays: Any, options: Any) -> tuple[Implementation, str]:
        mode = current_mode()
        key = (mode, *map(_signature, arrays), *itertools.starmap(self._form, options.items()))
        try:
            return self._decisions[key]
        except KeyError:
            decision = self._decisions[key] = self._decide(mode, arrays, options)
            return decision

    def _decide(self, mode: str, arrays: Any, options: Any) -> tuple[Implementation, str]:
        if mode == "portable":
            return self.portable, "kernels are switched off"
        name = library(arrays[0]) if arrays else "no"
        missing = load_kernels(name) or self._failures.get(name)
        reasons: list[str] = []
        for kernel in () if missing else self._kernels.get(name, ()):
            reason = self._why_unknown(kernel, options)
            if reason is None:
                reason = kernel.takes(*arrays, **self._known(kernel, options))
            if reason is None:
                return kernel, "it takes these arguments"
            reasons.append(f"{kernel.name}: {reason}")
        why = "; ".join(dict.fromkeys(reasons)) or missing or f"no kernel for {name} arrays"
        if mode == "require":
            raise RuntimeError(f'kernels("require"): {self.name} would run portably ({why})')
        return self.portable, why

    # --- options that a kernel knows -------------------------------------------------------------

    def _known(self, chosen: Implementation, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options that an implementation knows; the others are at their defaults."""
        if chosen is self.portable:
            return options
        return {name: x for name, x in options.items() if name in chosen.options}

    def _why_unknown(self, kernel: Implementation, options: dict[str, Any]) -> str | None:
        """Say which option keeps a kernel from running: unknown to it, and not at its default."""
        for name, x in options.items():
            if name not in kernel.options and not self._at_default(name, x):
                return f"it does not know the option {name}"
        return None

    def _at_default(self, name: str, x: Any) -> bool:
        default = self._defaults.get(name, REQUIRED)
        return x is default or (not hasattr(x, "dtype") and bool(x == default))

    def _form(self, name: str, x: Any) -> Any:
        """Return what a decision may depend on: of a float only whether it is the default.

        Of floats there is no end, such as the rates of a schedule.
        """
        return (float, self._at_default(name, x)) if isinstance(x, float) else _signature(x)


REQUIRED = object()
"""In place of the default of an option that has none."""


class Routine(Kernelized):
    """A part of the training that kernels may stand in for, without checks and gradient."""

    def __init__(self, definition: Callable[..., Any]):
        super().__init__(definition)
        self.portable = Implementation("portable", _quietly(definition))
        ROUTINES[self.name] = self

    def __call__(self, *lists: Iterable[Array | None], **options: Any) -> Any:
        """Return the value for lists of arrays: one call is for all parameters of a model."""
        arrays = [x for arrays in lists for x in arrays]
        chosen, _ = self._choose(arrays, options)
        try:
            return chosen.value(*lists, **self._known(chosen, options))
        except NoKernels as error:
            self.set_aside(library(arrays[0]), error)
        return self.portable.value(*lists, **options)

    def kernel(self, *arrays: Array | None, **options: Any) -> Implementation | None:
        """Return the kernel that takes these arguments, if one does."""
        chosen = self._choose(arrays, options)[0]
        return None if chosen is self.portable else chosen


class Operation(Kernelized, Generic[P, R]):
    """A function of arrays with a portable definition, a pullback and perhaps kernels."""

    def __init__(self, contract: Callable[P, R]):
        super().__init__(contract)
        functools.update_wrapper(self, contract)
        self._contract: Callable[..., Any] = contract
        self._names: Collection[str] = ()
        """The options that implementations receive: what the contract answers with."""
        self._value: Callable[..., Any]
        self._seen: dict[Any, Seen] = {}

    @property
    def options(self) -> Collection[str]:
        """The names of the parameters that have a default."""
        return self._defaults.keys()

    def __repr__(self) -> str:
        return f"<operation {self.name}{inspect.signature(self._contract)}>"

    def __reduce__(self) -> str:
        return self.name  # pickled and copied by reference, as a function is

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value."""
        arrays, options, implementation = self._prepare(args, kwargs)
        try:
            result: R = implementation.value(*arrays, **options)
        except NoKernels as error:
            self.set_aside(library(arrays[0]), error)
            return self(*args, **kwargs)
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
        wrt = wrt if wrt is None else tuple(wrt)
        arrays, known, implementation = self._prepare(args, options)
        wanted = _wanted(wrt, len(arrays))
        if implementation.sees_wrt:
            known["wrt"] = wanted
        try:
            value, pullback = implementation.vjp(*arrays, **known)
        except NoKernels as error:
            self.set_aside(library(arrays[0]), error)
            return self.vjp(*args, wrt=wrt, **options)
        output = value[0] if isinstance(value, tuple) else value

        def checked(cotangent: Array) -> tuple[Array | None, ...]:
            if not alike(output, cotangent):
                float_namespace(value=output, cotangent=cotangent)
                check_shape("cotangent", cotangent, tuple(output.shape), "that of the value")
            gradients = pullback(cotangent)
            if wrt is None:
                return gradients
            return tuple([g if i in wanted else None for i, g in enumerate(gradients)])

        return value, checked

    # --- how it is written -----------------------------------------------------------------------

    def definition(self, value: Callable[..., Any]) -> Callable[..., Any]:
        """Set the portable definition (decorator)."""
        self._value = value
        return value

    def pullback(self, vjp: Callable[..., Any]) -> Callable[..., Any]:
        """Set the portable value-and-pullback (decorator)."""
        self.portable = Implementation(
            "portable", self._completed(self._value), self._completed(vjp)
        )
        return vjp

    def _completed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a portable function that kernels, too, may call with the options they know."""
        quietly = _quietly(function)

        @functools.wraps(function)
        def completed(*arrays: Any, **options: Any) -> Any:
            for name in self._names:
                if name not in options and name in self._defaults:
                    options[name] = self._defaults[name]
            return quietly(*arrays, **options)

        return completed

    def add_kernel(self, library: str, kernel: Implementation) -> None:
        """Let a kernel stand in on arrays of a library; the first one that takes a call runs."""
        super().add_kernel(library, kernel)
        self._seen.clear()

    def set_aside(self, library: str, error: NoKernels) -> None:
        """Let no kernel run any more on arrays of a library, and remember why."""
        super().set_aside(library, error)
        self._seen.clear()

    def _choose(self, arrays: Any, options: Any) -> tuple[Implementation, str]:
        if any(x is not None and 0 in x.shape for x in arrays):
            return self.portable, "there is nothing to compute"
        return super()._choose(arrays, options)

    def implementation(self, *args: Any, **options: Any) -> tuple[Implementation, str]:
        """Return which implementation runs on these arguments, and why."""
        called = self._ask_contract(args, options)
        return self._choose(called.arrays, called.options)

    def _ask_contract(self, args: Any, options: Any) -> Normalized:
        called: Normalized = self._contract(*args, **options)
        self._names = called.options.keys()
        return called

    # --- which implementation runs ---------------------------------------------------------------

    def _prepare(self, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any], Implementation]:
        """Return checked arrays, complete options, and the implementation that takes them."""
        key: Any = (current_mode(), *map(_form, args), *kwargs)
        if kwargs:
            key += tuple(map(_form, kwargs.values()))
        try:
            seen = self._seen.get(key)
        except TypeError:  # an option that is a list
            key = seen = None
        if seen is None or not (seen.device is None or _all_on(seen.device, args, kwargs)):
            return self._ask(key, args, kwargs)
        arrays = args[: seen.given] + seen.absent
        if seen.check_values is not None:
            seen.check_values(*arrays)
        options = seen.options.copy()
        for name in seen.named:
            options[name] = kwargs[name]
        return arrays, options, seen.chosen

    def _ask(self, key: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any], Implementation]:
        """Ask the contract, and remember what it says where that repeats."""
        arrays, options, repeats, check_values = self._ask_contract(args, kwargs)
        if check_values is not None:
            check_values(*arrays)
        chosen = self._choose(arrays, options)[0]
        options = self._known(chosen, options)
        absent = arrays[len(args) :]
        given = min(len(args), len(arrays))
        others = args[given:]  # options, such as the window of a pool
        arrays_first = all(map(operator.is_, arrays, args)) and all(x is None for x in absent)
        as_given = arrays_first and not any(hasattr(x, "dtype") for x in others)
        if repeats and as_given and key is not None and has_known_device(arrays[0]):
            named = tuple([name for name, x in options.items() if hasattr(x, "dtype")])
            kept, device = options | dict.fromkeys(named), device_number(arrays[0])
            seen = Seen(given, absent, kept, named, check_values, chosen, device)
            special = chosen.specialized(check_values, *arrays, **options)
            if special is not None:
                seen = seen._replace(options={}, check_values=None, chosen=special)
            if len(self._seen) >= SEEN:
                self._seen.clear()
            self._seen[key] = seen
        return arrays, options, chosen


class Seen(NamedTuple):
    """What was found for arguments of some types, dtypes, shapes and options."""

    given: int
    """How many of the positional arguments are arrays, or stand for one."""
    absent: tuple[None, ...]
    """In place of the arrays that were not given."""
    options: dict[str, Any]
    """The options, with None for arrays; none for a kernel that knows them."""
    named: tuple[str, ...]
    """The options that are arrays."""
    check_values: Callable[..., None] | None
    chosen: Implementation
    device: int | None
    """Where CuPy's arrays lie, which their types do not say."""


def operation(contract: Callable[P, R]) -> Operation[P, R]:
    """Make an operation of its contract and enter it in the table."""
    made = OPERATIONS[contract.__name__] = Operation(contract)
    return made


def _form(x: Any) -> Any:
    """Return what a repeatable contract may depend on: all but the values of an array.

    Types count: 1, 1.0 and True are equal, and contracts tell them apart.
    """
    if isinstance(x, tuple):
        kinds = tuple(map(type, x))
        return (kinds, x) if tuple not in kinds else (kinds, *map(_form, x))
    shape = getattr(x, "shape", ())
    return (type(x), x.dtype, shape) if shape else (type(x), x)


def _signature(x: Any) -> Any:
    """Return what a decision may depend on: not an array's shape or values, nor a float's value."""
    if hasattr(x, "dtype"):
        return type(x), x.dtype, x.ndim
    return float if isinstance(x, float) else x


def _quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Silence NumPy's warnings in a portable function, and in the pullback that it returns."""

    @functools.wraps(function)
    def silenced(*args: Any, **options: Any) -> Any:
        with quiet():
            found = function(*args, **options)
        if isinstance(found, tuple) and callable(found[-1]):
            return *found[:-1], _quietly(found[-1])
        return found

    return silenced


def _all_on(device: int, args: Any, kwargs: Any) -> bool:
    """Tell whether all arrays of CuPy among arguments lie on the device of this number."""
    return {device, None}.issuperset(map(device_number, (*args, *kwargs.values())))


@functools.cache
def _wanted(wrt: tuple[int, ...] | None, count: int) -> frozenset[int]:
    every = frozenset(range(count))
    wanted = every if wrt is None else frozenset(wrt)
    if not wanted <= every:
        raise ValueError(
            f"wrt must hold positions of array arguments, 0 to {count - 1}; got {sorted(wanted)}"
        )
    return wanted


@functools.cache
def load_kernels(library: str) -> str | None:
    """Import the package that registers the kernels of a library, once; return why it cannot be."""
    try:
        if library in KERNEL_PACKAGES:
            as_a_whole(lambda: importlib.import_module(KERNEL_PACKAGES[library]))
    except NoKernels as error:
        return str(error)
    return None


def explain(op: Any, *args: Any, **options: Any) -> str:
    """Say in a line which implementation of an operation runs on these arguments, and why.

    Of what `compile_predictor` returns: a line for each step, and how long it takes.

    Examples
    --------
    >>> with kernels("portable"):
    ...     explain(relu, xp.asarray([1.0]))
    'relu: portable (kernels are switched off)'
    """
    if hasattr(op, "explained"):
        return str(op.explained(*args, **options))
    if not isinstance(op, Operation):
        raise TypeError(f"op must be an operation such as relu or conv2d, got {op!r}")
    arrays, settings = op._ask_contract(args, options)[:2]
    implementation, why = op._choose(arrays, settings)
    name = implementation.name
    if implementation.describe is not None:
        name = implementation.describe(*arrays, **op._known(implementation, settings))
    return f"{op.name}: {name} ({why})"
