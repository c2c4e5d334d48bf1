"""Logistic regression, against scikit-learn: by per-sample SGD on Spambase, and to the optimum.

By SGD both run the same number of epochs over all 4601 e-mails in an order shuffled each epoch,
from zeros, with the same rates and L2 penalty; a call is the whole training, through `fit` here. To
the optimum both are estimators with their defaults; scikit-learn's also with a tolerance that
brings its objective down to ours.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier

import agnostic_xent as ax
from agnostic_xent.datasets import load_spambase

from .measure import alternate, described, machine, ratio, table, write

EPOCHS, RATE, PENALTY = 20, 0.005, 1e-3
NAMES = ("agnostic_xent", "scikit-learn")


def main(quick: bool, inner: str | None) -> None:
    """Measure, and write the results."""
    x, y = spambase()
    result: dict[str, Any] = {
        "machine": machine(),
        "shape": x.shape,
        "epochs": 3 if quick else EPOCHS,
        "minimum": minimum(x, y),
        "cases": [
            measure(x.astype(dtype), y, schedule, quick)
            for dtype in ("float32", "float64")
            for schedule in ("constant", "falling")
        ],
        "optima": [optimum(name, quick) for name in PROBLEMS],
    }
    write("logistic_quick" if quick else "logistic", result, report(result))


def measure(x: Any, y: Any, schedule: str, quick: bool) -> dict[str, Any]:
    """Return nanoseconds a sample and the objective after the last epoch."""
    epochs = 3 if quick else EPOCHS
    trainings = candidates(x, y, schedule, epochs)
    times = alternate(trainings, 1.0 if quick else 8.0, rounds=5 if quick else 15)
    samples = epochs * len(x)
    return {
        "dtype": str(x.dtype),
        "rate": schedule,
        "ns a sample": {name: 1e9 * float(np.median(t)) / samples for name, t in times.items()},
        "ratio": ratio(times, "scikit-learn", "agnostic_xent"),
        "objective": {
            name: float(np.median([objective(x, y, *train(seed)) for seed in range(9)]))
            for name, train in trainings.items()
        },
    }


def candidates(x: Any, y: Any, schedule: str, epochs: int) -> dict[str, Callable[[], Any]]:
    """Return the trainings; each returns weights (57,) and bias."""
    model, targets = ax.logistic(), y[:, None].astype(x.dtype)
    start = {"0.weight": np.zeros((1, x.shape[1]), x.dtype), "0.bias": np.zeros(1, x.dtype)}
    falling = schedule == "falling"
    rate = inverse_root if falling else RATE
    sgd = ax.SGD(rate, weight_decay=PENALTY, decay_bias=False)

    def ours(seed: int = 0) -> Any:
        params, _ = ax.fit(
            model, start, (x, targets), loss=ax.binary_cross_entropy_with_logits,
            optimizer=sgd, epochs=epochs, batch_size=1, rng=seed,
        )  # fmt: skip
        return params["0.weight"][0], params["0.bias"][0]

    def theirs(seed: int = 0) -> Any:
        classifier = SGDClassifier(
            loss="log_loss", alpha=PENALTY, max_iter=epochs, tol=None, random_state=seed, eta0=RATE,
            learning_rate="invscaling" if falling else "constant", power_t=0.5,
        )  # fmt: skip
        classifier.fit(x, y)
        return classifier.coef_[0], classifier.intercept_[0]

    return dict(zip(NAMES, (ours, theirs), strict=True))


def spambase() -> tuple[Any, Any]:
    """Return all e-mails, and which are spam."""
    data = load_spambase()
    return (
        np.concatenate([data.train_x, data.test_x]).astype("float64"),
        np.concatenate([data.train_y, data.test_y]),
    )


def drawn(samples: int, features: int, classes: int) -> tuple[Any, Any]:
    """Return correlated features, and classes drawn by a linear model of them."""
    rng = np.random.default_rng(0)
    mixed = np.eye(features) + 0.9 * rng.standard_normal((features, features)) / features**0.5
    x = rng.standard_normal((samples, features)) @ mixed
    z = x @ rng.standard_normal((features, classes)) / features**0.5
    return x, np.argmax(z + rng.gumbel(size=z.shape), axis=1)


PROBLEMS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "Spambase": spambase,
    "digits": lambda: load_digits(return_X_y=True),
    "100,000 x 100, 2 classes": lambda: drawn(100_000, 100, 2),
    "20,000 x 400, 10 classes": lambda: drawn(20_000, 400, 10),
    "300 x 20,000, 2 classes": lambda: drawn(300, 20_000, 2),
}


def optimum(problem: str, quick: bool) -> dict[str, Any]:
    """Return milliseconds of a fit to the optimum, and the objective there."""
    x, y = PROBLEMS[problem]()
    models = {
        "agnostic_xent": ax.LogisticRegression(),
        "scikit-learn": LogisticRegression(),
        "scikit-learn, as near": LogisticRegression(tol=1e-8, max_iter=10_000),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the peer's defaults
        fits = {name: functools.partial(model.fit, x, y) for name, model in models.items()}
        times = alternate(fits, 1.0 if quick else 10.0, rounds=3 if quick else 7)
    return {
        "problem": problem,
        "ms": {name: 1e3 * float(np.median(t)) for name, t in times.items()},
        "objective": {
            name: float(-model.predict_log_proba(x)[np.arange(len(y)), y].sum())
            + float(np.square(model.coef_).sum()) / 2
            for name, model in models.items()
        },
    }


def inverse_root(step: Any) -> Any:
    """Return the rate of scikit-learn's "invscaling" with a power of 0.5; of many steps at once."""
    return RATE / np.sqrt(step + 1)


def objective(x: Any, y: Any, w: Any, b: Any) -> float:
    """Return the mean loss with its penalty, in float64."""
    z = x.astype("float64") @ w.astype("float64") + float(b)
    loss = np.logaddexp(0, np.where(y == 1, -z, z)).mean()
    return float(loss + PENALTY / 2 * np.square(w, dtype="float64").sum())


def minimum(x: Any, y: Any) -> float:
    """Return the least that the objective can be."""
    exact = LogisticRegression(C=1 / (PENALTY * len(x)), tol=1e-10, max_iter=10_000)
    exact.fit(x.astype("float64"), y)
    return objective(x, y, exact.coef_[0], exact.intercept_[0])


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    n, d = result["shape"]
    text = "# Logistic regression: per-sample SGD\n\n"
    text += f"Written by `python -m benchmarks logistic`: Spambase, {n} samples of {d} features,\n"
    text += (
        f"{result['epochs']} epochs from zeros, L2 penalty {PENALTY:g}, rate {RATE:g}: constant,\n"
    )
    text += "or falling as 1 / sqrt(step), by a function of all steps of an epoch at once.\n"
    text += "Nanoseconds a sample of the whole training: medians over rounds in turns. Objective:\n"
    text += "mean loss and penalty at the end, in float64, median over 9 seeds; its minimum is\n"
    text += f"{result['minimum']:.6f}.\n"
    text += f"\n{described(result['machine'])}\n\n"
    rows = []
    for case in result["cases"]:
        r, cells = case["ratio"], [case["dtype"], case["rate"]]
        cells += [f"{case['ns a sample'][name]:.0f}" for name in NAMES]
        cells += [f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})"]
        rows.append(cells + [f"{case['objective'][name]:.6f}" for name in NAMES])
    header = ["dtype", "rate", *(f"{name}, ns" for name in NAMES), "time over ours"]
    text += table(header + [f"{name}, objective" for name in NAMES], rows)
    return text + optima_table(result["optima"])


def optima_table(found: list[dict[str, Any]]) -> str:
    """Return the part of the report on fits to the optimum."""
    text = (
        "\n## To the optimum\n\nMilliseconds of `LogisticRegression().fit`, medians over rounds in "
    )
    text += "turns, and the objective `sum l + |w|^2 / 2`.\nscikit-learn as near has "
    text += "`tol=1e-8, max_iter=10_000`.\n\n"
    names = list(found[0]["ms"])
    header = ["samples", *(f"{name}, ms" for name in names), *(f"{n}, objective" for n in names)]
    return text + table(
        header,
        [
            [
                case["problem"],
                *(f"{case['ms'][name]:.1f}" for name in names),
                *(f"{case['objective'][name]:.7g}" for name in names),
            ]
            for case in found
        ],
    )
