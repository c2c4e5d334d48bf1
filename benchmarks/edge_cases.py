"""Set our answers in the losses' edge cases beside other libraries', as they are installed here.

``python -m benchmarks.edge_cases`` writes benchmarks/results/loss_edge_cases.md. "error" is an
exception; "-" is a library that has no such function or option.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "numpy")

INF = float("inf")
LIBRARIES = ("agnostic_xent", "torch", "optax", "keras", "scipy", "sklearn")
F32 = "float32"


def ours(z, t, dtype=F32, **options):
    import agnostic_xent as ax

    return ax.cross_entropy(np.asarray(z, dtype), _target(t, dtype), **options)


def torchs(z, t, dtype=F32, **options):
    import torch

    weight = options.pop("weight", None)
    if weight is not None:
        options["weight"] = torch.asarray(weight)
    z, t = torch.asarray(np.asarray(z, dtype)), torch.asarray(_target(t, dtype))
    return torch.nn.functional.cross_entropy(z, t, **options).numpy()


def optaxs(z, t, dtype=F32):
    import optax

    z, t = np.asarray(z, dtype), _target(t, dtype)
    integers = t.dtype.kind in "iu"
    name = "softmax_cross_entropy_with_integer_labels" if integers else "softmax_cross_entropy"
    return np.mean(getattr(optax, name)(z, t))


def keras(z, t, dtype=F32):
    import keras

    z, t = np.asarray(z, dtype), _target(t, dtype)
    integers = t.dtype.kind in "iu"
    name = "sparse_categorical_crossentropy" if integers else "categorical_crossentropy"
    return np.mean(getattr(keras.ops, name)(t, z, from_logits=True))


def scipys(z, t, dtype=F32):
    from scipy.special import log_softmax

    z, t = np.asarray(z, dtype), _target(t, dtype)
    log_p = log_softmax(z, axis=-1)
    if t.dtype.kind in "iu":
        return -np.mean(np.take_along_axis(log_p, t[:, None], axis=1))
    return -np.mean(np.sum(t * log_p, axis=-1))


def sklearns(z, t, dtype=F32):
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    return log_loss(t, softmax(np.asarray(z, dtype), axis=-1), labels=range(len(z[0])))


def bce(z, t) -> dict[str, Callable]:
    z, t = np.asarray(z, F32), np.asarray(t, F32)

    def of_torch():
        import torch

        f = torch.nn.functional.binary_cross_entropy_with_logits
        return f(torch.asarray(z), torch.asarray(t)).numpy()

    def of_ours():
        import agnostic_xent as ax

        return ax.binary_cross_entropy_with_logits(z, t)

    def of_keras():
        import keras

        return np.mean(keras.ops.binary_crossentropy(t, z, from_logits=True))

    def of_optax():
        import optax

        return np.mean(optax.sigmoid_binary_cross_entropy(z, t))

    return {"agnostic_xent": of_ours, "torch": of_torch, "keras": of_keras, "optax": of_optax}


def of_probabilities(p, t) -> dict[str, Callable]:
    p, t = np.asarray(p, F32), np.asarray(t, F32)

    def of_torch():
        import torch

        return torch.nn.functional.binary_cross_entropy(torch.asarray(p), torch.asarray(t)).numpy()

    def of_ours():
        import agnostic_xent as ax

        return ax.binary_cross_entropy(p, t)

    def of_keras():
        import keras

        return np.mean(keras.ops.binary_crossentropy(t, p))

    def of_sklearn():
        from sklearn.metrics import log_loss

        return log_loss(t, p, labels=[0, 1])

    return {
        "agnostic_xent": of_ours,
        "torch": of_torch,
        "keras": of_keras,
        "sklearn": of_sklearn,
    }


def slope_at_zero() -> dict[str, Callable]:
    """Return the gradient of the loss of probabilities where the logarithm is cut off."""
    p, t = np.zeros(1, F32), np.ones(1, F32)

    def of_torch():
        import torch

        leaf = torch.asarray(p).requires_grad_()
        torch.nn.functional.binary_cross_entropy(leaf, torch.asarray(t)).backward()
        return leaf.grad.numpy()[0]

    def of_ours():
        import agnostic_xent as ax

        loss, pullback = ax.binary_cross_entropy.vjp(p, t)
        return pullback(np.ones_like(loss))[0][0]

    return {"agnostic_xent": of_ours, "torch": of_torch}


def _target(t, dtype):
    t = np.asarray(t)
    return t.astype(dtype) if t.dtype.kind == "f" else t


def everywhere(z, t, **named) -> dict[str, Callable]:
    functions = dict(zip(LIBRARIES, (ours, torchs, optaxs, keras, scipys, sklearns), strict=True))
    return {name: lambda f=f: f(z, t, **named) for name, f in functions.items()}


def with_options(z, t, **options) -> dict[str, Callable]:
    return {
        "agnostic_xent": lambda: ours(z, t, **options),
        "torch": lambda: torchs(z, t, **options),
    }


def ours_alone(z, t, **options) -> dict[str, Callable]:
    """Options that torch does not have."""
    return {"agnostic_xent": lambda: ours(z, t, **options)}


Z = [[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]]
W = np.array([4.0, 1.0, 2.0], F32)
ONE_HOT = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
CASES = [
    ("logits (1e8, 1e8), exactly 0.6931", everywhere([[1e8, 1e8]], [0])),
    ("logits (0, 30), label 1, exactly 9.358e-14", everywhere([[0.0, 30.0]], [1])),
    ("-inf where the soft target is 0, exactly 0.6931",
     everywhere([[0.0, -INF, 0.0]], [[0.5, 0.0, 0.5]])),
    ("-inf on the label, exactly inf", everywhere([[0.0, -INF]], [1])),
    ("a row of -inf, exactly nan", everywhere([[-INF, -INF]], [0])),
    ("+inf at another class than the label, exactly nan", everywhere([[INF, 0.0]], [1])),
    ("logits (0, -inf), label 0, exactly 0", everywhere([[0.0, -INF]], [0])),
    ("the same with label smoothing 0.1, exactly inf",
     with_options([[0.0, -INF]], [0], label_smoothing=0.1)),
    ("label 7 of 3 classes, a mistake", everywhere([Z[0]], [7])),
    ("label -1 of 3 classes, a mistake", everywhere([Z[0]], [-1])),
    ("70,000 equal float16 logits, exactly 11.16",
     everywhere(np.zeros((1, 70_000)), [3], dtype="float16")),
    ("100,000 float16 rows of loss 8.0003, their mean",
     everywhere(np.tile([8.0, 0.0], (100_000, 1)), np.ones(100_000, "int64"), dtype="float16")),
    ("int32 labels, exactly 0.2887", everywhere(Z, np.array([2, 0], "int32"))),
    ("uint8 labels, exactly 0.2887", everywhere(Z, np.array([2, 0], "uint8"))),
    ("empty batch", everywhere(np.zeros((0, 3)), np.zeros(0, "int64"))),
    ("all labels ignored", with_options(Z, [-1, -1], ignore_index=-1)),
    ("all labels ignored, on_empty=\"zero\"",
     ours_alone(Z, [-1, -1], ignore_index=-1, on_empty="zero")),
    ("all labels ignored, summed", with_options(Z, [-1, -1], ignore_index=-1, reduction="sum")),
    ("ignore_index 255, mean of the other, exactly 0.1698",
     with_options(Z, [255, 0], ignore_index=255)),
    ("ignore_index that is a class, exactly 0.1698", with_options(Z, [1, 0], ignore_index=1)),
    ("class weights 0 at each label", with_options(Z, [2, 0], weight=0 * W)),
    ("class weights, labels", with_options(Z, [2, 0], weight=W)),
    ("class weights, the same labels one-hot", with_options(Z, ONE_HOT, weight=W)),
    ("class weights, labels, normalize=\"count\"",
     ours_alone(Z, [2, 0], weight=W, normalize="count")),
    ("class weights, one-hot, normalize=\"count\"",
     ours_alone(Z, ONE_HOT, weight=W, normalize="count")),
    ("the sum over a batch of 8 of which these are two, divided by 8",
     ours_alone(Z, [2, 0], normalize=8)),
    ("class weights, smoothing, an ignored label",
     with_options(Z, [-100, 0], weight=W, label_smoothing=0.1, ignore_index=-100)),
    ("binary, logits -100 and 100, both wrong, exactly 100", bce([-100.0, 100.0], [1.0, 0.0])),
    ("binary, logits -inf and inf, both right, exactly 0", bce([-INF, INF], [0.0, 1.0])),
    ("binary, probabilities 0 and 1, both right, exactly 0", of_probabilities([0.0, 1.0], [0, 1])),
    ("binary, probabilities 0 and 1, both wrong, exactly inf",
     of_probabilities([0.0, 1.0], [1, 0])),
    ("the gradient at such a 0, where the loss is cut off", slope_at_zero()),
]  # fmt: skip


def answer(compute: Callable | None) -> str:
    if compute is None:
        return "-"
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            return f"{float(compute()):.4g}"
    except Exception as error:  # whatever a library raises is its answer
        return f"error ({type(error).__name__})"


def versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
            found[name] = getattr(module, "__version__", "")
        except ImportError:
            continue
    return found


def main() -> None:
    present = versions()
    lines = [
        "# Edge cases of cross entropy: what libraries answer",
        "",
        "Written by `python -m benchmarks.edge_cases`; mean reduction, float32 unless said.",
        "`error` is an exception, `-` no such function or option.",
        "",
        "| case | " + " | ".join(f"{name} {version}" for name, version in present.items()) + " |",
        "| --- |" + " --- |" * len(present),
    ]
    for about, answers in CASES:
        cells = [answer(answers.get(name)) for name in present]
        lines.append(f"| {about} | " + " | ".join(cells) + " |")
    path = Path(__file__).parent / "results" / "loss_edge_cases.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
