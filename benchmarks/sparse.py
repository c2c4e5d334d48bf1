"""Logistic regression of sparse rows, against scikit-learn: bags of words.

Words are drawn by Zipf's law, rows have length 1, and the classes are drawn by a linear model of
most words. Where ``apt-cache`` knows packages, their descriptions are real texts: which section is
a package from? Each training has a process of its own, for the memory that it takes at most.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier

import agnostic_xent as ax

from .measure import described, in_subprocess, machine, table, write

EPOCHS, TESTED = 5, 5
"""Passes of SGD; and a sample of so many is held out."""
LARGE, SMALL = (200_000, 100_000, 64), (20_000, 20_000, 64)
"""Rows, words and words a row before those that repeat are one."""


def main(quick: bool, inner: str | None, seed: int | None = None) -> None:
    """Measure, and write the results."""
    known = trainings()
    if inner is not None:
        Path(inner).write_text(json.dumps(measure(list(known)[seed or 0], quick)))
        return
    result: dict[str, Any] = {
        "machine": machine(),
        "shape": SMALL if quick else LARGE,
        "cores": len(os.sched_getaffinity(0)),
        "trainings": [in_subprocess("sparse", quick, {}, seed=i) for i in range(len(known))],
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
    x = sparse.csr_matrix(x)
    x.sum_duplicates()  # put in order again, as vectorizers of text do
    z = 3 * (x @ rng.standard_normal((words, classes)))
    return x, np.argmax(z + rng.gumbel(size=z.shape), axis=1)


def descriptions() -> tuple[Any, Any]:
    """Return the packages' descriptions in a line as hashed words and pairs, and their sections.

    Of the sections with 100 packages or more; in an order that a seed draws.
    """
    known = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True)
    texts, sections = [], []
    for package in known.stdout.split("\n\n"):
        section = re.search(r"^Section: (.*)$", package, re.MULTILINE)
        text = re.search(r"^Description(?:-en)?: (.*)$", package, re.MULTILINE)
        if section and text:
            texts.append(text[1])
            sections.append(section[1].split("/")[-1])
    _, y, counts = np.unique(sections, return_inverse=True, return_counts=True)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(counts[y] >= 100))
    hashed = HashingVectorizer(n_features=1 << 18, ngram_range=(1, 2))
    return hashed.transform([texts[i] for i in rows]), np.unique(y[rows], return_inverse=True)[1]


def samples(classes: int | str, quick: bool) -> tuple[Any, Any]:
    """Return the rows and classes of a task."""
    if isinstance(classes, int):
        return drawn(*(SMALL if quick else LARGE), classes)
    x, y = descriptions()
    x, y = (x[:10_000], y[:10_000]) if quick else (x, y)
    return x, y if classes == "sections" else (y == np.bincount(y).argmax()).astype(int)


Trainings = dict[tuple[str, int | str, str], Callable[[], Any]]
"""What is trained, by training, classes and library."""


def trainings() -> Trainings:
    """Return all trainings; those of descriptions where there are some."""
    made = of_steps(2, 2.0, 1.0) | of_optimum(2, 1.0)
    made |= {
        ("lasso", 2, "agnostic_xent"): lambda: ax.LogisticRegression(l1_ratio=1.0),
        ("lasso", 2, "scikit-learn"): lambda: LogisticRegression(solver="liblinear", l1_ratio=1.0),
    }
    made |= of_steps(20, 2.0, 1.0) | of_optimum(20, 1.0)
    if shutil.which("apt-cache"):
        made |= of_steps("sections", 4.0, 4.0)
        made |= of_steps("largest section", 4.0, 4.0) | of_optimum("largest section", 10.0)
    return made


def of_steps(classes: int | str, falling: float, constant: float) -> Trainings:
    """Return trainings by SGD, and ours' learning rates."""
    peer = {"loss": "log_loss", "alpha": 1e-5, "max_iter": EPOCHS, "tol": None, "random_state": 0}
    ours = {"solver": "sgd", "batch_size": 1, "C": np.inf, "max_iter": EPOCHS, "random_state": 0}

    def falls() -> Any:
        steps = EPOCHS * (50_000 if isinstance(classes, str) else 160_000)
        return ax.LogisticRegression(learning_rate=ax.cosine(falling, steps=steps), **ours)

    def averages() -> Any:
        return ax.LogisticRegression(learning_rate=constant, average=True, **ours)

    return {
        ("SGD", classes, "agnostic_xent"): falls,
        ("SGD, averaged", classes, "agnostic_xent"): averages,
        ("SGD", classes, "scikit-learn"): lambda: SGDClassifier(**peer),
        ("SGD, averaged", classes, "scikit-learn"): lambda: SGDClassifier(average=True, **peer),
    }


def of_optimum(classes: int | str, C: float) -> Trainings:
    """Return trainings to the optimum."""
    return {
        ("optimum", classes, "agnostic_xent"): lambda: ax.LogisticRegression(C=C),
        ("optimum", classes, "scikit-learn"): lambda: LogisticRegression(C=C, max_iter=10_000),
    }


def measure(name: tuple[str, int | str, str], quick: bool) -> dict[str, Any]:
    """Return seconds, accuracy, objective and memory of a training, after one of few rows."""
    task, classes, library = name
    x, y = samples(classes, quick)
    held = np.arange(len(y)) % TESTED == 0
    train, test = (x[~held], y[~held]), (x[held], y[held])
    make = trainings()[name]
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
        "rows": x.shape[0],
        "seconds": seconds,
        "accuracy": float(model.score(*test)),
        "objective": None if "SGD" in task else objective(model, *train, share),
        "coefficients": int(np.count_nonzero(model.coef_)),
        "memory": (peak() - before) / size,
        "matrix": size,
    }


def objective(model: Any, x: Any, y: Any, share: float) -> float:
    """Return the sum of the losses and the penalty divided by C."""
    z = x @ model.coef_.T + model.intercept_
    z = np.hstack([np.zeros_like(z), z]) if z.shape[1] == 1 else z
    losses = logsumexp(z, axis=1) - z[np.arange(len(y)), y]
    ridge, lasso = np.square(model.coef_).sum() / 2, np.abs(model.coef_).sum()
    return float(losses.sum() + ((1 - share) * ridge + share * lasso) / model.C)


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
    text += "have C=1 (of descriptions\n10) and their defaults, but `max_iter=10_000`; liblinear "
    text += "penalises the intercept, too. Memory is\nwhat the process took at most, above that "
    text += "before, in sizes of the matrix.\n"
    text += "\nWhere `apt-cache` knows packages, their descriptions in a line are hashed to 2^18 "
    text += "words and pairs:\nwhich section is a package from, or is it from the largest one? "
    counts = {case["rows"] for case in result["trainings"] if isinstance(case["classes"], str)}
    text += f"Here there are {max(counts, default=0):,}.\n"
    text += f"\n{described(result['machine'])} Cores in use: {result['cores']}.\n\n"
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
