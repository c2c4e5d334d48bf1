"""Arrays that lie in the package."""

from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packaged(name: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of a packaged ``.npz`` file."""
    path = resources.files("agnostic_xent") / "data" / name
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)
