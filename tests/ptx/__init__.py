"""An executor of PTX on the CPU, which checks every step: compiled kernels run where no GPU is."""

from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".pytest_cache" / "ptx"
"""Where the tests of this checkout keep what they compile."""
