"""Prediction: a model made ready once for samples of a shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..core.arrays import Array, array_namespace, device
from ..core.checks import namespace
from ..core.conversion import detached
from ..core.modes import current_mode
from ..core.plans import Constants, NoPlan, Plan, plan_of, planner_for
from .augmentation import Cutout, RandomFlip, RandomShift
from .containers import Chain, Part, Residual, Sequential, _check_layer, outer_params, parts
from .exchange import match_params
from .folding import fold_batch_norm
from .layers import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalAvgPool2d,
    Layer,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    Params,
    ReLU,
)
from .layers.convolution import _Convolution
from .signal_augmentation import Jitter, RandomRotation3d, RandomScale

__all__ = ["compile_predictor"]

PLANNED = {
    AvgPool1d, AvgPool2d, AvgPool3d, BatchNorm1d, BatchNorm2d, BatchNorm3d, Chain, Conv1d, Conv2d,
    Conv3d, Cutout, Dense, Dropout, Flatten, GlobalAvgPool, GlobalAvgPool2d, Jitter, MaxPool1d,
    MaxPool2d, MaxPool3d, RandomFlip, RandomRotation3d, RandomScale, RandomShift, ReLU, Residual,
    Sequential,
}  # fmt: skip
"""Layers that do the same whatever the numbers of their input are."""

FEWEST, MOST = 8, 64
"""Samples of a piece of a batch."""

FEWEST_IMAGES = 4
"""Of half a batch: models of convolutions do two halves in two threads faster than shared steps."""

PIECE_BYTES = 1 << 20
"""What the arrays of a piece may take, so that they stay in a second-level cache."""

WORTH_A_PLAN = 512
"""Samples from which it is faster to compile a model of convolutions first."""

FORMS = 64
"""Shapes and types of samples whose plan is found at once."""


def compile_predictor(
    model: Layer, params: Mapping[str, Array], sample_shape: tuple[int, ...]
) -> Predictor:
    """Return a function of samples that does what a model does in inference, faster.

    Batch normalization is folded into convolutions (`fold_batch_norm`). On NumPy the first call
    for a number of samples makes a plan: weights are laid out as the kernels read them, the arrays
    between layers get their places in one piece of memory, and the whole net runs as one table of
    calls without Python between them. Elsewhere the folded model runs as it is.

    Parameters
    ----------
    model : layer
        Such as `Sequential`. Layers of other classes than those of this package run as they are.
    params : mapping of str to array
        Its parameters, of any library; they are copied.
    sample_shape : tuple of int
        Of one sample, such as (C, H, W).

    Returns
    -------
    callable
        ``predictor(x)`` is the output for any number of samples x, of the library and dtype of
        ``params``. Several threads may call it at a time, and it can be pickled;
        ``explain(predictor)`` lists what it does.

    Raises
    ------
    ValueError
        If ``params`` are not those of the model.

    Examples
    --------
    >>> model = Sequential(Conv2d(4, 3, bias=False), BatchNorm2d(), ReLU(), Flatten(), Dense(10))
    >>> params, _ = model.init(0, (1, 8, 8))
    >>> predictor = compile_predictor(model, to_backend(params, xp), (1, 8, 8))
    >>> y = predictor(xp.ones((2, 1, 8, 8), dtype=xp.float32))
    >>> tuple(y.shape)
    (2, 10)
    """
    _check_layer("model", model)
    shape = tuple(sample_shape)
    own = match_params(model, detached(params), shape)
    if own:
        namespace(**{f"params[{name!r}]": w for name, w in own.items()})
    copies = {name: array_namespace(w).asarray(w, copy=True) for name, w in own.items()}
    return Predictor(model, copies, shape)


def predictor_for(
    model: Layer, params: Mapping[str, Array], samples: int | None
) -> Callable[[Array], Array]:
    """Return what predicts so many samples, or nobody knows how many: compiled if that pays.

    Without convolutions a large batch is as fast layer by layer.
    """
    few = samples is not None and samples < WORTH_A_PLAN
    if few or not _has_convolutions(model):
        return functools.partial(model, params)
    return Predictor(model, dict(params))


def _has_convolutions(layer: Layer) -> bool:
    return isinstance(layer, _Convolution) or any(map(_has_convolutions, layer.children().values()))


class Predictor:
    """A model made ready for prediction; see `compile_predictor`."""

    def __init__(self, model: Layer, params: Params, sample_shape: tuple[int, ...] | None = None):
        """Make ready; without ``sample_shape`` samples are not checked."""
        self.model, self.params = fold_batch_norm(model, params)
        self.sample_shape = sample_shape
        self._stretches = _stretches(self.model, self.params)
        self._like = next(iter(self.params.values()), None)
        self._ready: dict[Any, Plan] = {}
        """The only plan that samples like some before went through, by their type."""

    def __call__(self, x: Array) -> Array:
        """Return the model's output for samples x (N, *sample_shape), one row a sample."""
        form = type(x), getattr(x, "dtype", None), getattr(x, "shape", None), current_mode()
        plan = self._ready.get(form)
        if plan is not None:
            return plan(x)
        if self.sample_shape is not None:
            _check_samples(x, self.sample_shape, self._like)
        if len(self._stretches) == 1:
            plans = self._stretches[0].plans_for(x)
            if len(plans) == 1:
                if len(self._ready) >= FORMS:
                    self._ready.clear()
                self._ready[form] = plans[0][1]
        return _through(self._stretches, x)

    def __reduce__(self) -> Any:
        return compile_predictor, (self.model, self.params, self.sample_shape)

    def __repr__(self) -> str:
        return f"compile_predictor({self.model!r}, params, {self.sample_shape})"

    def explained(self, samples: int = 1) -> str:
        """Return a line for each step of a prediction for so many samples, and its microseconds."""
        like: Any = self._like
        if like is None:
            return f"{self.model!r} without parameters: layer by layer"
        shape = (samples, *(self.sample_shape or ()))
        xp = array_namespace(like)
        x = xp.zeros(shape, dtype=like.dtype, device=device(like))
        return "\n".join(_explained(self._stretches, x))


def _check_samples(x: Any, shape: tuple[int, ...], like: Any) -> None:
    namespace(x=x) if like is None else namespace(params=like, x=x)
    if tuple(x.shape[1:]) != shape or not x.ndim:
        letters = ", ".join(["N", *map(str, shape)])
        raise ValueError(f"x must have shape ({letters}), got {tuple(x.shape)}")


class _Stretch:
    """Layers one after the other that can be planned together, or one that cannot."""

    def __init__(self, part: Part, planned: bool):
        self.part, self.planned = part if planned else _with_planned_branches(part), planned
        self.plans: dict[Any, Plan | str] = {}
        """By how many samples of what type they are for, or why there is none."""
        self.constants: Constants = {}

    def __call__(self, x: Array) -> Array:
        """Return the output."""
        outputs, first = [], 0
        for samples, plan in self.plans_for(x):
            outputs.append(plan(x[first : first + samples]))
            first += samples
        if not outputs:
            return self.part(x)
        return outputs[0] if len(outputs) == 1 else array_namespace(x).concat(outputs)

    def plans_for(self, x: Array) -> list[tuple[int, Plan]]:
        """Return what x goes through: so many samples through each plan; nothing if none can be."""
        planner, samples = planner_for(x) if self.planned else None, x.shape[0]
        if planner is None or samples == 0:
            return []
        piece = samples
        if planner.in_pieces:
            one = self._plan(x, 1)
            if isinstance(one, str):
                return []
            piece = self._piece(samples, one.size)
        rest = samples % piece
        parts = [(samples - rest, piece), (rest, rest)]
        plans = [(count, self._plan(x, size)) for count, size in parts if count]
        known = [(count, plan) for count, plan in plans if not isinstance(plan, str)]
        return known if len(known) == len(plans) else []

    def _piece(self, samples: int, size: int) -> int:
        """Return the samples of a piece of so many, given the bytes that one needs."""
        fit = PIECE_BYTES // max(1, size)
        piece = min(MOST, samples, max(FEWEST, 1 << fit.bit_length() >> 1))
        in_halves = samples >= 2 * FEWEST_IMAGES and _has_convolutions(self.part.layer)
        return min(piece, samples // 2) if in_halves else piece

    def _plan(self, x: Array, samples: int) -> Plan | str:
        """Return the plan for so many samples such as x, or why there is none."""
        key = current_mode(), samples, x.dtype, x.shape[1:]
        if key in self.plans:
            return self.plans[key]
        plan: Plan | str = "kernels are switched off"
        planner = planner_for(x)
        if current_mode() != "portable":
            blank = array_namespace(x).zeros((samples, *x.shape[1:]), dtype=x.dtype)
            try:
                plan = plan_of(self.part.__call__, blank, self.constants)
            except NoPlan as why:
                plan = str(why)
        if planner is not None:
            for oldest in list(self.plans)[: 1 - planner.kept]:
                self.plans.pop(oldest, None)
        self.plans[key] = plan
        return plan

    def explained(self, x: Array) -> list[str]:
        """Return a line for each step."""
        name = type(self.part.layer).__name__
        if not self.planned:
            inner = [b for b in self.part.layer.children().values() if isinstance(b, _Branch)]
            lines = [line for branch in inner for line in _explained(branch.stretches, x)]
            return [*lines, f"{name}: {'sum of these' if inner else 'layer by layer'}"]
        plan = self._plan(x, x.shape[0])
        if isinstance(plan, str):
            return [f"{name}: layer by layer ({plan})"]
        plan(x)
        return [
            f"{step.name}: {step.seconds * 1e6:.1f} us, {step.parts} parts"
            for step in plan.steps(x)
        ]


class _Branch(Layer):
    """Stretches as a layer of a residual block; they have their parameters."""

    def __init__(self, stretches: list[_Stretch]):
        self.stretches = stretches

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output."""
        return _through(self.stretches, x)


def _with_planned_branches(part: Part) -> Part:
    """Return a residual block whose branches are planned where they can be, or any other layer."""
    if type(part.layer) is not Residual:
        return part
    branches = {
        name: _Branch(_stretches(branch.layer, branch.params))
        for name, branch in parts(part.layer, part.params).items()
    }
    return Part(part.layer.rebuilt(branches), {}, {})


def _through(stretches: list[_Stretch], x: Array) -> Array:
    """Return the output of stretches one after the other."""
    for stretch in stretches:
        x = stretch(x)
    return x


def _explained(stretches: list[_Stretch], x: Array) -> list[str]:
    """Return a line for each of their steps."""
    lines: list[str] = []
    for stretch in stretches:
        lines += stretch.explained(x)
        x = stretch(x)
    return lines


def _stretches(model: Layer, params: Params) -> list[_Stretch]:
    """Return a model as stretches, one after the other."""
    steps = (
        parts(model, params).values() if type(model) is Sequential else [Part(model, params, {})]
    )
    found: list[tuple[bool, list[Part]]] = []
    for step in steps:
        planned = _is_planned(step.layer)
        if found and planned and found[-1][0]:
            found[-1][1].append(step)
        else:
            found.append((planned, [step]))
    return [_Stretch(_as_one(group), planned) for planned, group in found]


def _is_planned(layer: Layer) -> bool:
    return type(layer) in PLANNED and all(map(_is_planned, layer.children().values()))


def _as_one(group: list[Part]) -> Part:
    """Return layers one after the other as one."""
    if len(group) == 1:
        return group[0]
    params: Params = {}
    for i, part in enumerate(group):
        params |= outer_params(str(i), part.params)
    return Part(Sequential(*(part.layer for part in group)), params, {})
