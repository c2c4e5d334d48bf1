"""Kernels: faster ways to compute operations that have a portable definition.

A kernel plugs in like this::

    from agnostic_xent.core.operation import OPERATIONS, Implementation

    def value(x): ...             # the operation's normalised arguments
    def vjp(x): ...               # -> value, pullback
    def takes(x): ...             # -> None, or the reason why not

    kernel = Implementation("my kernel", value, vjp, takes, options=())
    OPERATIONS["relu"].add_kernel("numpy", kernel)

``options`` names the options that the kernel knows. It receives these alone; where another one is
not at the operation's default, the kernel does not run. It is not asked about arrays without
elements. ``takes`` may look at types, dtypes, numbers of dimensions and options, for which its
answer is remembered; never at shapes, strides, an array's values or a float's value, but for
whether that is the default. ``operation.portable`` may be called with the same options.
Where no kernel takes a call, the portable definition runs. A kernel whose NumPy code may warn of an
infinity or NaN silences it itself (``core.arrays.quiet``).
"""
