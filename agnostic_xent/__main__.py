"""Run the command line: ``python -m agnostic_xent``."""

from .core.communication import share_cores

share_cores()  # before NumPy and Numba are loaded, which count the cores then

from .cli import main  # noqa: E402

raise SystemExit(main())
