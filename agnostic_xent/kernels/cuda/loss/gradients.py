"""The pullback of losses whose scores and targets both have a gradient."""

from __future__ import annotations

from typing import Any

from ....core.operation import Pullback


def with_pullback(problem: Any, wrt: frozenset[int]) -> tuple[Any, Pullback]:
    """Return the loss of a problem, and its pullback to the scores and the targets in ``wrt``.

    Where the scores' gradient alone is wanted, it is written together with the value, for a
    cotangent of 1; the pullback then has to do nothing if that is what it gets.
    """
    each = problem.options.reduction == "none"
    ahead = [problem.new()] if wrt == {0} and not each else []
    loss = problem.run(*ahead)

    def pullback(dy: Any) -> tuple[Any, Any]:
        skips = bool(ahead)
        # The array goes out once, since its new owner may write to it.
        dx = ahead.pop() if ahead else problem.new() if 0 in wrt else None
        dt = problem.new() if 1 in wrt else None
        problem.launch(dy, skips=skips, dx=dx, dt=dt)
        return dx, dt

    return loss, pullback
