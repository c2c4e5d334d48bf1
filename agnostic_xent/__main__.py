"""Run the command line: ``python -m agnostic_xent``."""

from .cli import main

raise SystemExit(main())
