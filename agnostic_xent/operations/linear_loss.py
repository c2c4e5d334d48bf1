"""Cross entropy of a linear layer's output, whose logits never exist whole.

Notation as in ``losses.py``. The logits of a block of rows are computed, used and dropped: the
memory is that of a block and of the gradients, however many classes there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

from ..core.arrays import Array, array_namespace, constant, device, narrow, widen
from ..core.cached import cached_property
from ..core.checks import check_ndim, check_shape, float_namespace, integer, namespace
from ..core.communication import Communicator
from ..core.operation import Pullback, normalized, operation, repeatable
from .class_loss import ClassLoss, check_not_empty, class_options
from .class_parallel import ClassParallelLoss
from .dense import add_product
from .labels import as_indices, is_labels, label_check, not_ignored
from .losses import cross_entropy
from .reductions import Reduction, times
from .scores import log_of, score_options, tempered, untempered

__all__ = ["linear_cross_entropy"]

HELD_PORTABLE, HELD_BY_KERNEL = 8, 1.25
"""How many arrays of the size of a block's logits there are at the peak, measured: with the
portable definition of `cross_entropy`, and with a kernel, which makes the logits their gradient."""


@operation
def linear_cross_entropy(
    x: Array,
    weight: Array,
    target: Array,
    bias: Array | None = None,
    *,
    class_weight: Array | None = None,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_prior: Array | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    normalize: str | float | None = None,
    on_empty: str = "nan",
    check_labels: bool = True,
    return_logsumexp: bool = False,
    memory: int = 64 * 2**20,
    communicator: Communicator | None = None,
) -> Any:
    """Softmax cross entropy of the logits ``z = x weight^T + bias``, block of rows by block.

    The value and gradients of `dense` followed by `cross_entropy`, without the (N, classes) array
    of logits: for many classes the largest of a training step by far. Half precision is multiplied
    and summed in float32, for which the weights are copied once. With ``vjp`` and a mean or a sum
    the logits are computed once, for the value and the gradients; with "none" once more by the
    pullback, as in each further call of a pullback. Automatic differentiation through the value
    keeps the blocks; ``vjp`` does not.

    Parameters
    ----------
    x : array, shape (N, D)
        Features, real floating dtype.
    weight : array, shape (classes, D)
        One row a class, of the dtype of ``x``.
    target : array
        Integer labels in [0, classes), shape (N,); or probabilities, shape (N, classes), of the
        dtype of ``x``.
    bias : array, shape (classes,), optional
        Bias.
    class_weight : array, shape (classes,), optional
        Weight of each class.
    sample_weight : array, shape (N,), optional
        Weight of each sample.
    ignore_index, label_smoothing, temperature, softcap, class_prior, z_loss, reduction, \
normalize, on_empty, check_labels, return_logsumexp
        As for `cross_entropy`.
    memory : int
        Bytes that the temporary blocks of logits may take together; at least one row is computed
        at a time.
    communicator : Communicator, optional
        Such as `MPICommunicator`: the ranks over which the classes are split, the first ones on
        rank 0. ``weight``, ``bias``, ``class_weight``, ``class_prior`` and probabilities are then
        a rank's slice, and so are their gradients; x and labels have to be the same on all ranks,
        which get the same value and gradient of x.

    Returns
    -------
    loss : array
        A scalar, or with "none" shape (N,); the dtype of ``x``.
    logsumexp : array
        If asked for: shape (N,).

    Raises
    ------
    ValueError
        If shapes do not fit, an option is out of range, or a label is.
    TypeError
        If ``target`` has neither an integer dtype nor that of ``x``.

    References
    ----------
    E. Wijmans, B. Huval, A. Hertzberg, V. Koltun, P. Krähenbühl. Cut your losses in
    large-vocabulary language models. ICLR 2025, arXiv:2411.09009. Classes over ranks: M. Shoeybi
    and others. Megatron-LM. arXiv:1909.08053.

    Examples
    --------
    >>> x, weight = xp.asarray([[2.0], [-2.0]]), xp.asarray([[1.0], [0.0]])
    >>> loss = linear_cross_entropy(x, weight, xp.asarray([0, 1]))
    >>> round(float(loss), 6)
    0.126928
    """
    _check_arrays(x, weight, bias, class_weight, sample_weight, class_prior)
    namespace(x=x, target=target)
    classes = weight.shape[0]
    weights: dict[str, Any] = {"class_weight": class_weight, "sample_weight": sample_weight}
    options = weights | class_options(
        "x weight^T", (x.shape[0], classes), 1, x.dtype, target, class_weight, sample_weight,
        ignore_index, label_smoothing, reduction, normalize, on_empty, "class_weight",
    )  # fmt: skip
    options |= score_options(classes, temperature, softcap, class_prior, z_loss)
    options |= {"memory": integer("memory", memory), "return_logsumexp": bool(return_logsumexp)}
    slices = () if communicator is None else tuple(communicator.gather(classes))
    options |= {"communicator": communicator, "slices": slices}
    classes = sum(slices) or classes
    check = label_check(2, target, classes, ignore_index) if check_labels else None
    raises = on_empty == "raise" and reduction == "mean"
    if raises or communicator is not None:  # ranks must not differ in what they remember
        if check is not None:
            check(x, weight, target)
        if raises:
            check_not_empty(_LinearLoss(x, weight, target, bias, **options).denominator)
        return normalized(x, weight, target, bias, **options)
    return repeatable(x, weight, target, bias, check_values=check, **options)


@linear_cross_entropy.definition
def _(x: Array, weight: Array, target: Array, bias: Array | None, **options: Any) -> Any:
    loss = _LinearLoss(x, weight, target, bias, **options)
    value, sums, _ = loss.sweep()
    return (narrow(value, x), narrow(sums, x)) if loss.return_logsumexp else narrow(value, x)


@linear_cross_entropy.pullback
def _(
    x: Array,
    weight: Array,
    target: Array,
    bias: Array | None,
    *,
    wrt: frozenset[int],
    **options: Any,
) -> tuple[Any, Pullback]:
    loss = _LinearLoss(x, weight, target, bias, **options)
    # Of a scalar, all cotangents are multiples of 1: its gradients come with the value.
    scalar = loss.reduction != "none"
    value, sums, gradients = loss.sweep(constant(1, loss.w) if scalar else None, wrt)
    unused = [gradients] if scalar else []

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dy = widen(dy)
        if unused:  # scaled where they lie, for they are large; a second call computes anew
            found = unused.pop()
            for i, g in enumerate(found):
                if g is not None:
                    g *= dy
                    found[i] = g
        else:
            found = loss.sweep(dy, wrt)[2]
        return tuple(None if g is None else narrow(g, x) for g in found)

    value = narrow(value, x)
    return (value, narrow(sums, x)) if loss.return_logsumexp else value, pullback


@dataclass(frozen=True)
class _LinearLoss:
    """The loss of all rows and its gradients; fields are the normalised arguments."""

    x: Array
    weight: Array
    target: Array
    bias: Array | None
    class_weight: Array | None
    sample_weight: Array | None
    ignore_index: int | None
    label_smoothing: float
    temperature: float
    softcap: float | None
    class_prior: Array | None
    z_loss: float
    reduction: str
    normalize: str | float | None
    on_empty: str
    return_logsumexp: bool
    memory: int
    communicator: Communicator | None
    slices: tuple[int, ...]
    """How many of the classes each rank has, if they are split."""

    def sweep(
        self, dy: Array | None = None, wrt: frozenset[int] = frozenset()
    ) -> tuple[Array, Array | None, list[Array | None]]:
        """Return the value, the log-sum-exps and, given the value's cotangent, all gradients."""
        xp = array_namespace(self.x)
        wrt = frozenset() if dy is None else wrt
        scale = self._of_terms(dy) if wrt else None
        dw = xp.zeros_like(self.w) if 1 in wrt else None
        db = xp.zeros_like(widen(self.bias)) if 3 in wrt and self.bias is not None else None
        terms, sums, dxs, dts = [], [], [], []
        for rows in self._blocks():
            x = widen(self.x[rows, ...])
            term, log_sum, dz, dt = self._block(x, rows, scale, wrt)
            terms.append(term)
            if log_sum is not None:
                sums.append(log_sum)
            if 0 in wrt:
                dxs.append(dz @ self.w)
            if dw is not None:
                dw = add_product(dw, dz, x)
            if dt is not None:
                dts.append(dt)
            if db is not None:
                db = db + xp.sum(dz, axis=0)
            del dz  # before the next block is made
        value = self._reduction.value(xp.concat(terms, axis=0))
        dx = xp.concat(dxs, axis=0) if dxs else None
        if dx is not None and self.communicator is not None:
            dx = self.communicator.sum(dx)
        dt = self._target_gradient(xp.concat(dts, axis=0), dy, value) if dts else None
        return value, xp.concat(sums, axis=0) if sums else None, [dx, dw, dt, db]

    # --- a block of rows -------------------------------------------------------------------------

    def _blocks(self) -> Iterator[slice]:
        """Yield the rows of each block; an empty batch is one block without rows."""
        n, size = self.x.shape[0], self._rows
        for start in range(0, max(1, n), size):
            yield slice(start, min(start + size, n))

    @cached_property
    def _rows(self) -> int:
        """How many rows a block has."""
        xp, none = array_namespace(self.w), slice(0, 0)
        z = xp.zeros((0, self.w.shape[0]), dtype=self.w.dtype, device=device(self.w))
        target, options = self._arguments(none)
        implementation, _ = cross_entropy.implementation(z, target, **options)
        held = HELD_BY_KERNEL if is_labels(target) else HELD_PORTABLE + 2
        if implementation.name == "portable" or self.communicator is not None:
            held = HELD_PORTABLE
        row_bytes: int = max(self.w.shape[0], *self.slices, 0) * xp.finfo(self.w.dtype).bits // 8
        return max(1, int(self.memory / max(1, held * row_bytes)))

    def _block(
        self, x: Array, rows: slice, scale: Array | None, wrt: frozenset[int]
    ) -> tuple[Array, Array | None, Array | None, Array | None]:
        """Return a block's terms and log-sum-exps, and the gradients of its logits and target."""
        z = x @ array_namespace(x).matrix_transpose(self.w)  # (rows, classes)
        if self.bias is not None:
            z += widen(self.bias)[None, :]
        target, options = self._arguments(rows)
        if self.communicator is not None:
            return self._split_block(z, target, rows, scale, wrt)
        dz, dt = None, None
        if scale is None:
            value = cross_entropy(z, target, **options)
        else:
            wanted = (0, 1) if 2 in wrt else (0,)
            value, pullback = cross_entropy.vjp(z, target, wrt=wanted, **options)
            dz, dt = pullback(scale[rows])
        terms, sums = value if self.return_logsumexp else (value, None)
        return terms, sums, dz, dt

    def _split_block(
        self, z: Array, target: Array, rows: slice, scale: Array | None, wrt: frozenset[int]
    ) -> tuple[Array, Array | None, Array | None, Array | None]:
        """Return the same for a slice of the classes."""
        assert self.communicator is not None
        names = ("weight", "sample_weight", "ignore_index", "label_smoothing", "z_loss")
        options = {name: self._arguments(rows)[1][name] for name in names}
        loss = ClassParallelLoss(
            tempered(z, self.temperature, self.softcap),
            target,
            self._first,
            sum(self.slices),
            self.communicator,
            log_prior=log_of(self.class_prior),
            **options,
        )
        sums = loss.log_sum if self.return_logsumexp else None
        if scale is None:
            return loss.terms, sums, None, None
        dt = loss.target_gradient(scale[rows]) if 2 in wrt and not is_labels(target) else None
        dz = untempered(loss.gradient(scale[rows]), z, self.temperature, self.softcap)
        return loss.terms, sums, dz, dt

    def _arguments(self, rows: slice) -> tuple[Array, dict[str, Any]]:
        """Return the target and the options with which `cross_entropy` gives a block's terms."""
        weight, samples, prior = self.class_weight, self.sample_weight, self.class_prior
        return widen(self.target[rows, ...]), {
            "weight": None if weight is None else widen(weight),
            "sample_weight": None if samples is None else widen(samples[rows]),
            "ignore_index": self.ignore_index,
            "label_smoothing": self.label_smoothing,
            "temperature": self.temperature,
            "softcap": self.softcap,
            "class_prior": None if prior is None else widen(prior),
            "z_loss": self.z_loss,
            "reduction": "none",
            "check_labels": False,
            "return_logsumexp": self.return_logsumexp,
            "overwrite_logits": True,
        }

    def _in_slice(self, labels: Array) -> Array:
        """Return labels as positions in the slice of classes, -1 for those that are ignored."""
        here, counted = as_indices(labels) - self._first, not_ignored(labels, self.ignore_index)
        if counted is None:
            return here
        return array_namespace(here).where(counted, here, constant(-1, here))

    @property
    def _first(self) -> int:
        """Which of all classes is the first one here."""
        return 0 if self.communicator is None else sum(self.slices[: self.communicator.rank])

    # --- the mean over all rows ------------------------------------------------------------------

    @cached_property
    def w(self) -> Array:
        """The weights, in the dtype that everything is computed in."""
        return widen(self.weight)

    @cached_property
    def denominator(self) -> Array | float:
        """What the mean divides by: a number, or a scalar array."""
        if not isinstance(self.normalize, (str, NoneType)):
            return float(self.normalize)
        xp, classes = array_namespace(self.x), self.w.shape[0]
        zero: Array = constant(0, self.w)
        total: Array = 0
        for rows in self._blocks():
            target, options = self._arguments(rows)
            part = ClassLoss(
                log_p=xp.broadcast_to(zero, (rows.stop - rows.start, classes)),  # for its shape
                target=target,
                axis=1,
                weight=options["weight"],
                sample_weight=options["sample_weight"],
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
                reduction="mean",
                normalize=self.normalize,
                on_empty=self.on_empty,
            )
            if self.slices and part.weighs_classes and is_labels(target):
                part = replace(part, target=self._in_slice(target), ignore_index=None)
            total = total + part.denominator
        shared = self.communicator if part.weighs_classes else None
        return total if shared is None else shared.sum(total)

    @cached_property
    def _reduction(self) -> Reduction:
        denominator = self.denominator if self.reduction == "mean" else 1
        return Reduction(self.reduction, denominator, self.on_empty)

    def _of_terms(self, dy: Array) -> Array:
        """Return the cotangent of each row's term, given that of the value."""
        xp, n = array_namespace(self.w), self.x.shape[0]
        return self._reduction.cotangents(dy, xp.zeros(n, dtype=dy.dtype, device=device(dy)))

    def _target_gradient(self, dt: Array, dy: Array, value: Array) -> Array:
        """Complete the gradient of the terms by that of a denominator that sums the targets."""
        if not (self.reduction == "mean" and self.normalize == "weight"):
            return dt
        xp, share = array_namespace(dt), self._of_terms(dy * value)
        if self.sample_weight is not None:
            share = times(widen(self.sample_weight), share)
        share = xp.expand_dims(share, axis=1)
        return dt - (share if self.class_weight is None else share * widen(self.class_weight))


def _check_arrays(
    x: Array,
    weight: Array,
    bias: Array | None,
    class_weight: Array | None,
    sample_weight: Array | None,
    class_prior: Array | None,
) -> None:
    float_namespace(
        x=x, weight=weight, bias=bias, class_weight=class_weight, sample_weight=sample_weight,
        class_prior=class_prior,
    )  # fmt: skip
    check_ndim("x", x, 2, "(N, D)")
    check_ndim("weight", weight, 2, "(classes, D)")
    classes, features = weight.shape
    if x.shape[1] != features:
        raise ValueError(
            f"x must have shape (N, {features}) to fit weight of shape {tuple(weight.shape)}, "
            f"got {tuple(x.shape)}"
        )
    if bias is not None:
        check_shape("bias", bias, (classes,), "one bias a class")
