"""Cross entropy of NumPy arrays: what is found out once for all calls that are alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....core.arrays import quiet
from ....core.operation import OPERATIONS, Pullback
from ....operations.labels import ignored_label
from ..simd.elementary import BIAS
from ..simd.elements import FEW, SMALL
from ..simd.few import FEW as FEW_CLASSES
from ..toolchain.arguments import NOTHING, flat
from ..toolchain.memory import SMALLEST, empty
from . import loops
from .soft_targets import Numbers, soft

FEW_PIXELS = 32
"""Pixels behind the classes' axis below which a copy with the classes last is faster."""

REDUCTIONS = {"mean": loops.MEAN, "sum": loops.TOTAL, "none": loops.NONE}
NO_TERMS = np.empty(0)
ARRAYS = ("weight", "sample_weight", "class_prior")
"""The options that are arrays."""

portable = OPERATIONS["cross_entropy"].portable


class Plan:
    """What calls have in common: the shapes and dtypes of their arrays, and the other options."""

    few_pixels: float = FEW_PIXELS

    def __init__(self, logits: Any, options: dict[str, Any]):
        axis, shape = options["axis"], logits.shape
        self.axis, self.shape = axis, shape
        self.dtype, self.kind = logits.dtype, logits.dtype.type
        self.options, self.reduction = options, options["reduction"]
        self.softcap, self.temperature = options["softcap"] or 0.0, options["temperature"]
        self.samples = shape[:axis] + shape[axis + 1 :]
        self.count, self.classes = math.prod(self.samples), shape[axis]
        inner = math.prod(shape[axis + 1 :])
        self.moves = 1 < inner < self.few_pixels
        in_rows = self.moves or inner == 1
        self.form: Any = (self.count, self.classes)
        if not in_rows:
            self.form = (self.count // inner, self.classes, inner)
        self.overwrites = options["overwrite_logits"] and not self.moves
        self.alone = logits.size < FEW
        self.new = empty if logits.nbytes >= SMALLEST else np.empty
        self.nothing = np.empty((0,) * len(self.form), self.dtype)

    def set_up(self, target: Any, by_class: bool, weighted: bool, check_values: Any) -> None:
        """Choose the loops, and the options that they read."""
        options, self.check_values = self.options, check_values
        ignore = ignored_label(options["ignore_index"], np.iinfo(target), 64)
        self.loop_options = self.options_for(ignore, by_class, weighted, check_values is not None)
        rows = loops.short if self.classes <= FEW_CLASSES else loops.long
        self.loop = (loops.planes if len(self.form) == 3 else rows)[self.dtype]
        smooth = options["label_smoothing"] > 0
        self.no_weight = np.ones(self.classes if smooth else 0, self.dtype)
        self.no_sample_weight = NOTHING[self.dtype]

    def value(self, logits: Any, target: Any, **arrays: Any) -> Any:
        """Return the loss; ``arrays`` are those among the options."""
        return self.run(target, self.read(logits, target, **arrays), self.nothing)

    def vjp(
        self, logits: Any, target: Any, *, wrt: frozenset[int], **arrays: Any
    ) -> tuple[Any, Pullback]:
        """Return the loss and its pullback."""
        given, wanted = self.read(logits, target, **arrays), 0 in wrt
        over = wanted and self.overwrites and logits.flags.c_contiguous and logits.flags.writeable
        x, *_ = given
        ready = [x if over else self.new(self.form, self.dtype) if wanted else self.nothing]
        loss = self.run(target, given, ready[0])

        def pullback(dy: Any) -> tuple[Any, Any]:
            if not wanted:
                return None, None
            # The array goes out once: its new owner may write to it. A second call recomputes it.
            if ready:
                g = ready.pop()
            elif over:
                raise RuntimeError(
                    "overwrite_logits=True: the logits are gone, so the pullback can be called but "
                    "once"
                )
            else:
                g = self.new(self.form, self.dtype)
                self.run(target, given, g)
            return self.scaled(g, given, dy), None

        return loss, pullback

    def read(
        self,
        logits: Any,
        target: Any,
        weight: Any = None,
        sample_weight: Any = None,
        class_prior: Any = None,
    ) -> tuple[Any, ...]:
        """Return the arrays as the loops read them."""
        x = np.ascontiguousarray(np.moveaxis(logits, self.axis, -1) if self.moves else logits)
        labels = np.ascontiguousarray(target, np.int64)
        return (
            x if x.shape == self.form else x.reshape(self.form),
            labels if labels.ndim == 1 else labels.reshape(-1),
            self.no_weight if weight is None else np.ascontiguousarray(weight),
            self.no_sample_weight if sample_weight is None else flat(sample_weight),
            NOTHING[self.dtype] if class_prior is None else np.ascontiguousarray(class_prior),
        )

    def run(self, target: Any, given: tuple[Any, ...], g: Any) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if that has elements."""
        none, sums = self.reduction == "none", self.options["return_logsumexp"]
        kept = none or sums or not self.alone
        terms = np.empty(self.count * (1 + sums)) if kept else NO_TERMS
        try:
            if self.alone:
                loss = self.loop.part(*given, self.loop_options, g, terms, 1, 0)
            else:
                loss = self.run_in_parts(given, g, terms)
        except IndexError:
            x, *_ = given
            self.check_values(x, target)
            raise
        return self.result(terms, loss)

    def result(self, terms: Any, loss: float) -> Any:
        """Return the terms or the loss that they add up to; log-sum-exps as well, if asked for."""
        found = self.as_loss(terms[: self.count]) if self.reduction == "none" else self.kind(loss)
        sums = self.options["return_logsumexp"]
        return (found, self.as_loss(terms[self.count :])) if sums else found

    def run_in_parts(self, given: tuple[Any, ...], g: Any, terms: Any) -> float:
        """Return the mean or the sum of the terms, which several threads write."""
        _, labels, weight, sample_weight, _ = given
        survey = loops.survey[self.dtype]
        divisor, weight_sum = survey(labels, weight, sample_weight, self.classes, self.loop_options)
        options = loops.Options(*self.loop_options)
        known = tuple(options._replace(divisor=divisor, weight_sum=weight_sum))
        self.loop(*given, known, g, terms)
        loss: float = loops.summed[()](terms[: self.count], known)
        return loss

    def as_loss(self, terms: Any) -> Any:
        """Return the terms in the dtype and shape that they should have."""
        with quiet():
            return terms.astype(self.dtype).reshape(self.samples)

    def scaled(self, g: Any, given: tuple[Any, ...], dy: Any) -> Any:
        """Multiply a gradient by the cotangent, in place, and lay it out as the logits."""
        if dy.ndim or float(dy) != 1:
            scale = loops.scale_planes if len(self.form) == 3 else loops.scale_rows
            _, labels, _, sample_weight, *_ = given
            arguments = g, labels, sample_weight, self.loop_options, flat(dy)
            scale[self.dtype](*arguments, alone=self.alone)
        if self.moves:
            rows = g.reshape(*self.samples, self.classes)
            return np.ascontiguousarray(np.moveaxis(rows, -1, self.axis))
        return g if self.form == self.shape else g.reshape(self.shape)

    def options_for(
        self, ignore: int | None, by_class: bool, weighted: bool, checks: bool
    ) -> tuple[Any, ...]:
        """Return the options that are no arrays as the loops read them: an unnamed `Options`."""
        options, normalize = self.options, self.options["normalize"]
        found = loops.Options(
            ignore=ignore or 0,
            ignores=ignore is not None,
            smoothing=options["label_smoothing"],
            temperature=self.temperature,
            softcap=self.softcap,
            unbias=1 / BIAS[self.dtype],
            reduction=REDUCTIONS[self.reduction],
            divisor=normalize if isinstance(normalize, float) else 0.0,
            by_count=normalize == "count" or not weighted,
            by_class=by_class,
            empty=0.0 if options["on_empty"] == "zero" else math.nan,
            checks=checks,
            z_loss=options["z_loss"],
            sums=options["return_logsumexp"],
        )
        return tuple(found)


class SoftPlan(Plan):
    """What calls with probabilities have in common, which are always taken in rows."""

    few_pixels: float = math.inf

    def set_up(self, target: Any, by_class: bool, weighted: bool, check_values: Any) -> None:
        """Choose the loops; what `scaled` reads is that nothing is ignored."""
        self.overwrites = False  # the gradient of the target needs the logits
        self.loop, self.alone = soft[self.dtype], self.count * self.classes < SMALL
        self.loop_options = self.options_for(None, by_class, weighted, False)
        self.no_weight = np.ones(self.classes, self.dtype)
        self.no_sample_weight = NOTHING[self.dtype]

    def vjp(
        self, logits: Any, target: Any, *, wrt: frozenset[int], **arrays: Any
    ) -> tuple[Any, Pullback]:
        """Return the loss and its pullback, which knows the gradient of the target, too."""
        loss, of_logits = super().vjp(logits, target, wrt=wrt, **arrays)

        def pullback(dy: Any) -> tuple[Any, Any]:
            dt = None
            if 1 in wrt:
                missing = dict.fromkeys(ARRAYS)
                dt = portable.vjp(logits, target, **self.options | missing | arrays)[1](dy)[1]
            return of_logits(dy)[0], dt

        return loss, pullback

    def read(self, logits: Any, target: Any, *others: Any, **arrays: Any) -> tuple[Any, ...]:
        """Return the arrays as the loops read them, after labels that `scaled` can read."""
        labels = np.zeros(self.count, np.int64)
        t = flat(np.moveaxis(target, self.axis, -1)).reshape(self.form)
        return *super().read(logits, labels, *others, **arrays), t

    def run(self, target: Any, given: tuple[Any, ...], g: Any) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if that has elements."""
        x, _, weight, sample_weight, prior, t = given
        options, divisor, unit = self.options, self.divisor(t, weight, sample_weight), 1.0
        terms = np.empty(self.count * (1 + options["return_logsumexp"]))
        empty_mean = 0.0 if options["on_empty"] == "zero" else math.nan
        if self.reduction == "mean":
            unit = 1 / divisor if divisor else empty_mean
        smoothing = options["label_smoothing"]
        numbers = Numbers(
            kept=1 - smoothing,
            spread=smoothing / self.classes,
            inverse_temperature=(self.softcap or 1.0) / self.temperature,
            temperature=self.temperature,
            softcap=self.softcap,
            unbias=1 / BIAS[self.dtype],
            weight_sum=float(np.sum(weight, dtype=float)),
            unit=unit / self.temperature,
            z_loss=options["z_loss"],
            sums=options["return_logsumexp"],
        )
        numbers_in, alone = tuple(numbers), self.alone
        self.loop(x, t, weight, sample_weight, prior, numbers_in, g, terms, alone=alone)
        total = float(np.sum(terms[: self.count]))
        if self.reduction == "mean":
            total = total / divisor if divisor else empty_mean
        return self.result(terms, total)

    def divisor(self, t: Any, weight: Any, sample_weight: Any) -> float:
        """Return what a mean divides by."""
        normalize = self.options["normalize"]
        if isinstance(normalize, float):
            return normalize
        if normalize != "weight":
            return float(self.count)
        masses = t @ weight
        if sample_weight.size:
            dead = sample_weight == 0
            masses = np.where(dead, 0, masses * sample_weight)
        return float(np.sum(masses, dtype=float))
