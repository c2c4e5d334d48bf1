"""What the answers of classifiers promise, beside captum and cleanlab, on Fashion-MNIST.

Coverage of prediction sets on the 10,000 official test images; how many of 500 flipped labels are
among the first that are named; explanations of 20 images by both libraries. The official files are
read from where ``load_fashion_mnist("full")`` looks for them.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.datasets import Dataset, load_fashion_mnist
from agnostic_xent.evaluation.label_issues import ranked_issues

from .fashion_mnist import torch_lenet
from .measure import described, machine, table, write

SEEDS = (0, 1, 2)
BATCH, TRAINED, CALIBRATED = 64, 20_000, 10_000
FLIPPED, NAMED, FOLDS = 500, 600, 5
IMAGES, STEPS = 20, (50, 256)
METHODS: dict[str, dict[str, Any]] = {
    "lac": {"method": "lac"},
    "aps": {},
    "aps, random": {"random": True},
    "aps, penalty 0.05 after 2, random": {"penalty": 0.05, "unpenalized": 2, "random": True},
}

Row = dict[str, Any]


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    seeds = SEEDS[:1] if quick else SEEDS
    full, part = load_fashion_mnist("full"), load_fashion_mnist()
    result = {
        "machine": machine(),
        "sets": [row for seed in seeds for row in sets(full, seed)],
        "labels": [flipped_labels(part, seed) for seed in seeds],
        "explanations": explanations(part),
    }
    write("trust_quick" if quick else "trust", result, report(result))


def trained(model: Any, x: Any, y: Any, epochs: int, seed: int) -> dict[str, Any]:
    params, _ = model.init(seed, x.shape[1:])
    rate = ax.cosine(0.05, steps=epochs * (len(x) // BATCH + 1))
    return ax.fit(
        model, params, (x, y), loss=ax.cross_entropy, optimizer=ax.SGD(rate, momentum=0.9),
        epochs=epochs, batch_size=BATCH, rng=seed,
    )[0]  # fmt: skip


def sets(data: Dataset, seed: int) -> list[Row]:
    """Return how often sets hold the true class, by method and coverage."""
    rng, model, test = np.random.default_rng(seed), ax.small_cnn(), data.test_y
    order = rng.permutation(len(data.train_x))
    train, held = order[:TRAINED], order[-CALIBRATED:]
    params = trained(model, data.train_x[train], data.train_y[train], 4, seed)
    images = data.train_x[held], data.test_x
    own, new = (ax.softmax(ax.predict(model, params, x)) for x in images)
    draws = [rng.random(len(p), np.float32) for p in (own, new)]
    rows = []
    for coverage in (0.9, 0.95, 0.99):
        for name, given in METHODS.items():
            options = {k: v for k, v in given.items() if k != "random"}
            u = draws if given.get("random") else [None, None]
            made = ax.fit_conformal(
                own, data.train_y[held], coverage=coverage, uniform=u[0], **options
            )
            taken = made(new, uniform=u[1])
            sizes = taken.sum(axis=1)
            rows.append(
                {
                    "seed": seed,
                    "accuracy": float(ax.accuracy(new, test)),
                    "coverage": coverage,
                    "method": name,
                    "covered": float(taken[np.arange(len(test)), test].mean()),
                    "size": float(sizes.mean()),
                    "largest": int(sizes.max()),
                    "empty": float(np.mean(sizes == 0)),
                }
            )
    return rows


def flipped_labels(data: Dataset, seed: int) -> Row:
    """Return the share of flipped labels among the first that each way names."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    rng, n, classes = np.random.default_rng(seed), len(data.train_x), len(data.classes)
    x, y = data.train_x, data.train_y.copy()
    flipped = rng.choice(n, FLIPPED, replace=False)
    y[flipped] = (y[flipped] + rng.integers(1, classes, FLIPPED)) % classes
    p, fold, model = np.zeros((n, classes)), rng.permutation(n) % FOLDS, ax.small_cnn()
    for k in range(FOLDS):
        params = trained(model, x[fold != k], y[fold != k], 6, seed)
        p[fold == k] = ax.softmax(ax.predict(model, params, x[fold == k]))
    options = {"return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    ranks = {
        "label_issues": ranked_issues(p, y),
        "cleanlab, default": find_label_issues(y, p, **options),
        "cleanlab, by class": find_label_issues(y, p, filter_by="prune_by_class", **options),
        "cleanlab, quality scores": np.argsort(get_label_quality_scores(y, p)),
    }
    found = {k: float(np.isin(rows[:NAMED], flipped).sum()) / FLIPPED for k, rows in ranks.items()}
    return {"seed": seed, "named": len(ranks["label_issues"]), **found}


def explanations(data: Dataset) -> list[Row]:
    """Return how far explanations of the same nets by both libraries are apart."""
    import torch
    from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion

    torch.set_num_threads(1)
    rows, x = [], data.test_x[:IMAGES]
    for name, model, layer in (("small_cnn", ax.small_cnn(), "4"), ("lenet", ax.lenet(), "3")):
        params = trained(model, data.train_x[:3000], data.train_y[:3000], 3, 0)
        for dtype in ("float32", "float64"):
            own, images = {k: v.astype(dtype) for k, v in params.items()}, x.astype(dtype)
            net = torch_lenet(model, {k: v.shape for k, v in own.items()})
            net = net.to(getattr(torch, dtype)).eval()
            net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in own.items()})
            inputs, target = (
                torch.from_numpy(images),
                torch.from_numpy(model(own, images).argmax(1)),
            )
            for steps in STEPS:
                began = time.perf_counter()
                found = ax.integrated_gradients(model, own, images, steps=steps)
                middle = time.perf_counter()
                theirs = IntegratedGradients(net).attribute(inputs, target=target, n_steps=steps)
                end = time.perf_counter()
                logits, zero = model(own, images), model(own, np.zeros_like(images))
                best = np.arange(IMAGES), target.numpy()
                difference = (logits - zero)[best]
                gap = np.abs(found.sum(axis=(1, 2, 3)) - difference).max()
                rows.append(
                    {
                        "net": name, "dtype": dtype, "what": f"integrated gradients, {steps} steps",
                        "apart": float(np.abs(found - theirs.detach().numpy()).max()),
                        "largest": float(np.abs(found).max()),
                        "gap": float(gap / np.abs(difference).max()),
                        "seconds": middle - began, "captum": end - middle,
                    }
                )  # fmt: skip
            cover = Occlusion(net).attribute(
                inputs, sliding_window_shapes=(1, 5, 4), strides=(1, 3, 2), target=target
            )
            cam = LayerGradCam(net, net[int(layer)]).attribute(
                inputs, target=target, relu_attributions=True
            )
            cam = LayerAttribution.interpolate(cam, x.shape[2:], "bilinear")
            for what, found, theirs in (
                (
                    "occlusion",
                    ax.occlusion(model, own, images, window=(5, 4), stride=(3, 2)),
                    cover,
                ),
                ("Grad-CAM", ax.grad_cam(model, own, images, layer=layer), cam),
            ):
                apart = np.abs(found - theirs.detach().numpy()[:, 0]).max()
                own_row = {"apart": float(apart), "largest": float(np.abs(found).max())}
                rows.append({"net": name, "dtype": dtype, "what": what, **own_row})
    return rows


def report(result: dict[str, Any]) -> str:
    """Return the results as a page."""
    of_sets = [
        [str(r["seed"]), f"{r['accuracy']:.4f}", f"{r['coverage']:.2f}", r["method"],
         f"{r['covered']:.4f}", f"{r['size']:.3f}", str(r["largest"]), f"{r['empty']:.3f}"]
        for r in result["sets"]
    ]  # fmt: skip
    names = [k for k in result["labels"][0] if k not in ("seed", "named")]
    of_labels = [
        [str(r["seed"]), str(r["named"]), *(f"{r[k]:.3f}" for k in names)] for r in result["labels"]
    ]
    of_explanations = [
        [r["net"], r["dtype"], r["what"], f"{r['apart']:.1e}", f"{r['largest']:.3g}",
         *(f"{r[k]:{form}}" if k in r else "" for k, form in
           (("gap", ".1e"), ("seconds", ".2f"), ("captum", ".2f")))]
        for r in result["explanations"]
    ]  # fmt: skip
    return "\n".join([
        "# Answers one can trust", "", described(result["machine"]), "",
        f"Prediction sets: `small_cnn` trained on {TRAINED:,} images of Fashion-MNIST, calibrated "
        f"on {CALIBRATED:,} others, on the 10,000 official test images. The standard deviation of "
        "what is covered is 0.004 at a coverage of 0.9.", "",
        table(["seed", "accuracy", "coverage", "method", "covered", "classes a set", "largest",
               "empty"], of_sets), "",
        f"Labels: the share of {FLIPPED} flipped labels of 10,000 that are among the first {NAMED} "
        f"samples named; probabilities by {FOLDS} folds of `small_cnn`.", "",
        table(["seed", "named in all", *names], of_labels), "",
        f"Explanations of {IMAGES} test images beside captum's: the largest difference, largest "
        "number, by how much the sum is not the difference of logits (of the largest such "
        "difference), and the seconds of both on one thread, once each.", "",
        table(["net", "dtype", "what", "apart", "largest", "gap", "seconds", "captum's"],
              of_explanations), "",
    ])  # fmt: skip
