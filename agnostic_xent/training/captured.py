"""Training steps that are captured once, in a CUDA graph, and replayed for the batches after it.

A graph reads and writes where it did when it was captured: batch, parameters and the optimizer's
state are copied to places of its own when it is entered, and from there when it is left. So nothing
that was passed in, or handed out, is written to.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.arrays import Array, array_namespace, device
from ..core.modes import current_mode
from ..core.operation import Implementation, Routine
from ..network.layers import Params, split_statistics
from .accumulation import grouped
from .batches import Batch
from .linear_epochs import Steps
from .optimizers import SGD, AdamW, State
from .steps import Task
from .totals import Totals

SHAPES = 4
"""Shapes of batches whose steps are captured, each with memory of its own."""

TOGETHER = 64
"""Replays between two copies of what they trained."""


@Routine
def captured_step(arrays: Sequence[Array], step: Callable[[], Any]) -> Callable[[float, int], None]:
    """Take a step on the arrays' device, and return what takes it again.

    Parameters
    ----------
    arrays : sequence of array
        The parameters.
    step : callable
        Reads and writes the same arrays each time.

    Returns
    -------
    callable
        ``again(rate, later)``: the learning rate, and how many steps after the first one it is.
    """
    raise NotImplementedError("where no kernel takes the arrays, `fit` takes the steps one by one")


def captured_steps(task: Task, params: Params) -> CapturedSteps:
    """Return what takes the steps of an epoch.

    Raises
    ------
    ValueError
        If nothing captures steps on arrays of this library.
    """
    kernel, why = captured_step._choose([*params.values()], {})
    if kernel is captured_step.portable:
        raise ValueError(f"capture=True needs parameters that lie on a GPU, in CuPy; here, {why}")
    return CapturedSteps(task, kernel)


class CapturedSteps:
    """Takes the steps of an epoch, the first one of each shape of batches as it is.

    Where a step cannot be captured, it says why in a warning, and takes all steps as they are.
    """

    def __init__(self, task: Task, kernel: Implementation):
        self._given, self._kernel = task, kernel
        self._task = replace(task, mixing=None)  # batches are mixed before a step takes them
        self._captured: dict[Any, CapturedStep | None] = {}
        self._why_not = ""
        if type(task.optimizer) not in (SGD, AdamW):
            self._decline(f"the optimizer is neither SGD nor AdamW, but {task.optimizer!r}")

    def __call__(self, params: Params, state: State, rng: Any) -> Steps:
        """Yield parameters, state and the samples' totals after one or several steps."""
        inside: CapturedStep | None = None
        for group in grouped(self._given.batches(rng), self._task.accumulate):
            group = [self._given.mixed(batch, params, rng) for batch in group]
            key = current_mode(), *[(x.shape, x.dtype) for batch in group for x in batch]
            step = self._captured.get(key)
            if inside and (inside is not step or inside.taken == TOGETHER):
                params, state, done = inside.leave()
                inside = None
                yield params, state, done
            if step is None and key in self._captured:
                inside = self._captured[key] = self._capture(params, state, group)
            elif step is not None:
                if inside is None:
                    step.enter(params, state)
                step.take(group)
                inside = step
            if inside is None:
                params, state, done = self._ordinary_step(key, group, params, state, rng)
                yield params, state, done
        if inside:
            yield inside.leave()

    def _ordinary_step(
        self, key: Any, group: list[Batch], params: Params, state: State, rng: Any
    ) -> Any:
        """Take a step; see whether the next one of its shape can be captured."""
        before = repr(rng.bit_generator.state)
        (after,) = self._task.steps(group, params, state, rng)
        if repr(rng.bit_generator.state) != before:
            self._decline("the model draws random numbers, on the host")
        if len(self._captured) < SHAPES:
            self._captured.setdefault(key)
        return after

    def _capture(self, params: Params, state: State, group: list[Batch]) -> CapturedStep | None:
        """Take a step and capture it, if that is possible; nothing is changed elsewhere."""
        if self._why_not:
            return None
        try:
            return CapturedStep(self._task, self._kernel, params, state, group)
        except Exception as error:  # of a device or driver, whatever its type
            self._decline(f"{type(error).__name__}: {error}")
            return None

    def _decline(self, why: str) -> None:
        if not self._why_not:
            warnings.warn(f"capture=True: steps are not captured ({why})", stacklevel=2)
        self._why_not = why


class CapturedStep:
    """A step on batches of some shapes, in arrays that stay where they are; one has been taken."""

    def __init__(
        self,
        task: Task,
        kernel: Implementation,
        params: Params,
        state: State,
        group: list[Batch],
    ):
        self._task, self._first = task, state["step"]
        self._params, self._state = copied(params), copied(state)
        self._group = copied([[*batch] for batch in group])
        self._sums: list[Any] = []
        self._again = kernel.value([*params.values()], self._step)
        self.taken = 1

    def _step(self) -> None:
        """Take a step that writes its results where it found its arguments: what is captured."""
        found, totals = self._task.gradients(self._params, self._group, None)
        grads, statistics = split_statistics(found)
        after = self._task.optimizer.update(self._params, grads, self._state)
        if not same((self._params, self._state), after):
            raise RuntimeError("the optimizer's step made new arrays")
        for name, new in statistics.items():
            self._params[name][...] = new
        self._add([totals.loss, totals.correct, totals.terms, totals.divisor])

    def _add(self, found: list[Any]) -> None:
        """Add to the sums that are arrays; a number is the same in each step."""
        self._sums = self._sums or [zeros(x) if hasattr(x, "dtype") else x for x in found]
        for place, x in zip(self._sums, found, strict=True):
            if hasattr(place, "dtype"):
                place[...] = place + x

    def enter(self, params: Params, state: State) -> None:
        """Go on from here."""
        written(self._params, params)
        self._state = written(self._state, state)

    def take(self, group: list[Batch]) -> None:
        """Take a step on batches."""
        written(self._group, [[*batch] for batch in group])
        step = self._state["step"] + self.taken
        self._again(self._task.optimizer.rate(step), step - self._first)
        self.taken += 1

    def leave(self) -> tuple[Params, State, Totals]:
        """Return copies of parameters and state, and the totals since it was entered."""
        count, self.taken = self.taken, 0
        sums = [copied(x) if hasattr(x, "dtype") else x * count for x in self._sums]
        written(self._sums, [zeros(x) if hasattr(x, "dtype") else x for x in sums])
        totals = Totals(count * sum(x.shape[0] for x, _ in self._group), *sums)
        return copied(self._params), copied(self._state, count), totals


# --- arrays in lists and dicts, as parameters and state are ---------------------------------------


def copied(tree: Any, later: int = 0) -> Any:
    """Return copies of all arrays, in C order; of a state some steps later, whose numbers count."""
    if isinstance(tree, Mapping):
        return {name: copied(x, later) for name, x in tree.items()}
    if isinstance(tree, list):
        return [copied(x, later) for x in tree]
    if not hasattr(tree, "dtype"):
        return tree + later
    xp = array_namespace(tree)
    new = xp.empty(tree.shape, dtype=tree.dtype, device=device(tree))
    new[...] = tree
    return new


def written(places: Any, tree: Any) -> Any:
    """Write arrays to their places; return these, with the numbers of what was written."""
    if isinstance(places, Mapping):
        return {name: written(place, tree[name]) for name, place in places.items()}
    if isinstance(places, list):
        return [written(*pair) for pair in zip(places, tree, strict=True)]
    if not hasattr(places, "dtype"):
        return tree
    places[...] = tree
    return places


def same(places: Any, tree: Any) -> bool:
    """Tell whether all arrays are those of the places, and no others."""
    if isinstance(places, Mapping):
        return places.keys() == tree.keys() and all(same(x, tree[k]) for k, x in places.items())
    if isinstance(places, tuple):
        return all(map(same, places, tree))
    return places is tree or not hasattr(tree, "dtype")


def zeros(x: Array) -> Array:
    """Return zeros like an array."""
    return array_namespace(x).zeros(x.shape, dtype=x.dtype, device=device(x))
