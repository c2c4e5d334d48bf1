"""Digests of MiniRocket's biases and features, as aeon computes them.

Where aeon is installed, ``python tests/minirocket_features.py`` writes the file of digests anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("minirocket_features.json")
CASES = {
    "wearables": (40, 6, 200, 10_000),
    "one channel": (30, 1, 200, 10_000),
    "shortest": (25, 3, 9, 500),
    "more than nine channels": (33, 12, 77, 2000),
    "one signal": (1, 2, 50, 168),
    "long": (20, 2, 1000, 10_000),
    "a length of a power of two": (8, 4, 257, 3000),
    "one dilation": (8, 4, 100, 84),
}
"""Signals (N, C, L), and how many kernels."""


def signals(name: str) -> Any:
    """Return the signals of a case: random walks, in float32."""
    rng = np.random.default_rng(len(name))
    return np.cumsum(rng.standard_normal(CASES[name][:3]), axis=2).astype("float32")


def digest(x: Any) -> str:
    """Return what changes with any bit of an array of float32."""
    return hashlib.sha256(np.ascontiguousarray(x, "<f4").tobytes()).hexdigest()


def main() -> None:
    """Write the digests of all cases."""
    import aeon
    import numba
    from aeon.transformations.collection.convolution_based import MiniRocket

    made = {"made by": f"aeon {aeon.__version__}, numba {numba.__version__}"}
    for name, (*_, kernels) in CASES.items():
        x = signals(name)
        model = MiniRocket(n_kernels=kernels, random_state=len(name)).fit(x)
        made[name] = [digest(model.parameters[-1]), digest(model.transform(x))]
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
