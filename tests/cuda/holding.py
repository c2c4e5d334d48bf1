"""Where CUDA kernels hold rows of classes: all of it can be tried on short rows."""

from __future__ import annotations

from agnostic_xent.kernels.cuda.toolchain import vectors

PLACES = "registers", "shared memory", "nowhere"


def hold_in(monkeypatch, place, threads=64):
    """Let rows be held in registers where they fit, or in shared memory, or nowhere.

    By fewer threads than outside of the tests, which take their time in the simulator.
    """
    if place != "registers":
        monkeypatch.setattr(vectors, "TEAMS", ())
        monkeypatch.setattr(vectors, "HELD", ((threads, 1 << 16),))
    if place == "nowhere":
        monkeypatch.setattr(vectors, "HELD", ())
        for code in vectors.MOST:
            monkeypatch.setitem(vectors.MOST, code, threads)
