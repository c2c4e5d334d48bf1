"""Logistic regression of sparse rows, against scikit-learn: bags of words.

Words are drawn by Zipf's law, rows have length 1, and the classes are drawn by a linear model of
most words. Each training has a process of its own, for the memory that it takes at most.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier

import agnostic_xent as ax

from .measure import described, in_subprocess, machine, table, write

EPOCHS, TESTED = 5, 5
"""Passes of SGD; and a sample of so many is held out."""
LARGE, SMALL = (200_000, 100_000, 64), (20_000, 20_000, 64)
"""Rows, words and words a row before those that repeat are one."""


def main(quick: bool, inner: str | None, seed: int | None = None) -> None:
    """Measure, and write the results."""
    if inner is not None:
        names = [*trainings(2), *trainings(20)]
        Path(inner).write_text(json.dumps(measure(names[seed or 0], quick)))
        return
    names = [*trainings(2), *trainings(20)]
    result: dict[str, Any] = {
        "machine": machine(),
        "shape": SMALL if quick else LARGE,
        "trainings": [in_subprocess("sparse", quick, {}, seed=i) for i in range(len(names))],
    }
    write("sparse_quick" if quick else "sparse", result, report(result))


def drawn(rows: int, words: int, length: int, classes: int) -> tuple[Any, Any]:
    """Return bags of words (rows, words), and the class of each."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(10, words + 10)
    columns = rng.choice(words, (rows, length), p=chances / chances.sum())
    indptr = np.arange(0, rows * length + 1, length)
    x = sparse.csr_matrix((np.ones(columns.size), columns.ravel(), indptr), shape=(rows, words))
    x.sum_duplicates()
    x = sparse.diags_array(1 / np.sqrt(np.asarray(x.power(2).sum(axis=1)).ravel())) @ x
    z = 3 * (x @ rng.standard_normal((words, classes)))
    return sparse.csr_matrix(x), np.argmax(z + rng.gumbel(size=z.shape), axis=1)


def trainings(classes: int) -> dict[tuple[str, int, str], Callable[[], Any]]:
    """Return what is trained, by task, classes and library; "" of what one of them cannot."""
    steps = {"solver": "sgd", "max_iter": EPOCHS, "random_state": 0}
    of_peer = {"loss": "log_loss", "max_iter": EPOCHS, "tol": None, "random_state": 0}
    made: dict[tuple[str, int, str], Callable[[], Any]] = {
        ("SGD", classes, "agnostic_xent"): lambda: ax.LogisticRegression(
            batch_size=1, learning_rate=ax.cosine(2.0, steps=EPOCHS * 160_000), C=np.inf, **steps
        ),
        ("SGD, averaged", classes, "agnostic_xent"): lambda: ax.LogisticRegression(
            batch_size=1, learning_rate=1.0, average=True, C=np.inf, **steps
        ),
        ("SGD", classes, "scikit-learn"): lambda: SGDClassifier(alpha=1e-5, **of_peer),
        ("SGD, averaged", classes, "scikit-learn"): lambda: SGDClassifier(
            alpha=1e-5, average=True, **of_peer
        ),
        ("optimum", classes, "agnostic_xent"): lambda: ax.LogisticRegression(),
        ("optimum", classes, "scikit-learn"): lambda: LogisticRegression(max_iter=10_000),
    }
    if classes == 2:
        made |= {
            ("lasso", 2, "agnostic_xent"): lambda: ax.LogisticRegression(l1_ratio=1.0),
            ("lasso", 2, "scikit-learn"): lambda: LogisticRegression(
                solver="liblinear", l1_ratio=1.0
            ),
        }
    return made


def measure(name: tuple[str, int, str], quick: bool) -> dict[str, Any]:
    """Return seconds, accuracy, objective and memory of a training, after one of few rows."""
    task, classes, library = name
    x, y = drawn(*(SMALL if quick else LARGE), classes)
    held = np.arange(len(y)) % TESTED == 0
    train, test = (x[~held], y[~held]), (x[held], y[held])
    make = trainings(classes)[name]
    size = sum(array.nbytes for array in (train[0].data, train[0].indices, train[0].indptr))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        make().fit(train[0][:500], train[1][:500])
        before, start = forgotten_peak(), time.perf_counter()
        model = make().fit(*train)
        seconds = time.perf_counter() - start
    share = 1.0 if task == "lasso" else 0.0
    return {
        "task": task,
        "classes": classes,
        "library": library,
        "seconds": seconds,
        "accuracy": float(model.score(*test)),
        "objective": objective(model, *train, share) if "SGD" not in task else None,
        "coefficients": int(np.count_nonzero(model.coef_)),
        "memory": (peak() - before) / size,
        "matrix": size,
    }


def objective(model: Any, x: Any, y: Any, share: float) -> float:
    """Return the sum of the losses and the penalty, for C = 1."""
    z = x @ model.coef_.T + model.intercept_
    z = np.hstack([np.zeros_like(z), z]) if z.shape[1] == 1 else z
    losses = logsumexp(z, axis=1) - z[np.arange(len(y)), y]
    ridge, lasso = np.square(model.coef_).sum() / 2, np.abs(model.coef_).sum()
    return float(losses.sum() + (1 - share) * ridge + share * lasso)


def forgotten_peak() -> int:
    """Let Linux forget the most memory that this process has had; return what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the most memory that this process has had since then, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    rows, words, length = result["shape"]
    text = "# Logistic regression of sparse rows\n\n"
    text += (
        f"Written by `python -m benchmarks sparse`: {rows:,} bags of {length} words of {words:,},"
    )
    text += f" of which\na fifth is held out; float64. SGD takes {EPOCHS} passes, a sample a step: "
    text += "scikit-learn's of several\nclasses trains one against the rest. To the optimum both "
    text += "have C=1 and their defaults, but\n`max_iter=10_000`; liblinear penalises the "
    text += "intercept, too. Memory is what the process took\nat most, above that before, in sizes "
    text += "of the matrix.\n"
    text += f"\n{described(result['machine'])}\n\n"
    header = ["training", "classes", "library", "s", "accuracy", "objective", "not 0", "memory"]
    return text + table(
        header,
        [
            [
                case["task"],
                str(case["classes"]),
                case["library"],
                f"{case['seconds']:.3f}",
                f"{case['accuracy']:.4f}",
                "" if case["objective"] is None else f"{case['objective']:.7g}",
                f"{case['coefficients']:,}",
                f"{case['memory']:.1f}",
            ]
            for case in result["trainings"]
        ],
    )
