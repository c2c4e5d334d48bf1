"""Exercises from a watch: accuracy on people that were never seen, and the time of five folds.

Windows of four seconds, a step of two: 2,229 of 140 recordings of ten people. Each fold holds out
two of them (GroupKFold). A recording gets the class of the mean log-probability of its windows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import agnostic_xent as ax
from agnostic_xent.datasets import load_watch

from .measure import described, machine, table, write

FOLDS, SEEDS = 5, (0, 1, 2)
EPOCHS, BATCH = 20, 64
DEGREES = 25

WATCH = load_watch()
CUT = ax.windows(WATCH.signals, 200, 100, people=WATCH.people)
LABELS = WATCH.labels[CUT.recording]


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    seeds = SEEDS[:1] if quick else SEEDS
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result: dict[str, Any] = {"machine": machine(), "threads": threads}
    result |= {name: [measured(fitted, seed) for seed in seeds] for name, fitted in WAYS.items()}
    write("watch_quick" if quick else "watch", result, report(result))


Fitted = Callable[[Any, Any, int], Callable[[Any], Any]]
"""From the numbers of windows to train on, their labels and a seed to log-probabilities."""


def measured(fitted: Fitted, seed: int) -> dict[str, float]:
    """Return the accuracy of windows and of recordings, and the seconds of all folds."""
    windows = recordings = 0
    start = time.perf_counter()
    for train, test in GroupKFold(FOLDS).split(LABELS, LABELS, CUT.person):
        log_proba = fitted(train, LABELS[train], seed)(test)
        windows += np.count_nonzero(log_proba.argmax(axis=1) == LABELS[test])
        numbers, together = ax.recording_log_proba(log_proba, CUT.recording[test])
        recordings += np.count_nonzero(together.argmax(axis=1) == WATCH.labels[numbers])
    return {
        "windows": windows / len(LABELS),
        "recordings": recordings / len(WATCH.labels),
        "seconds": time.perf_counter() - start,
    }


def rocket(copies: int) -> Fitted:
    """Return MiniRocket and logistic regression, also of turned copies of the windows."""

    def fitted(train: Any, y: Any, seed: int) -> Callable[[Any], Any]:
        turn = ax.RandomRotation3d(DEGREES)
        turned = [turn.vjp({}, CUT.x[train], rng=seed + i)[0] for i in range(copies)]
        model = make_pipeline(
            ax.MiniRocket(random_state=seed),
            StandardScaler(),
            ax.LogisticRegression(C=1e-3, tol=1e-4),
        )
        model.fit(np.concatenate([CUT.x[train], *turned]), np.tile(y, 1 + copies))
        return lambda test: model.predict_log_proba(CUT.x[test])

    return fitted


def network(augment: str | None) -> Fitted:
    """Return the network of signals, whose samples may be turned in training."""

    def fitted(train: Any, y: Any, seed: int) -> Callable[[Any], Any]:
        model = ax.CNNClassifier(
            signals=True, augment=augment, epochs=EPOCHS, batch_size=BATCH, random_state=seed
        )
        model.fit(CUT.x[train], y)
        return lambda test: model.predict_log_proba(CUT.x[test])

    return fitted


WAYS = {
    "MiniRocket, logistic regression": rocket(0),
    "the same, and two turned copies of the windows": rocket(2),
    "signal_cnn": network(None),
    "signal_cnn, random rotations": network("sensors"),
}


def report(result: dict[str, Any]) -> str:
    """Return the results as a page."""
    rows = [
        [
            name,
            *(", ".join(f"{run[key]:.3f}" for run in result[name]) for key in ACCURACIES),
            ", ".join(f"{run['seconds']:.1f}" for run in result[name]),
        ]
        for name in WAYS
    ]
    return f"""# Exercises from a watch, on people never seen

Written by `python -m benchmarks watch`. Windows of 4 s with a step of 2 s, five folds of
two people each; a recording by the mean log-probability of its windows; one number for
each of the seeds. `signal_cnn` is trained for {EPOCHS} epochs with batches of {BATCH}. Seconds
are those of five folds, training and prediction, on {result["threads"]} core(s).

{described(result["machine"])}

{table(["what", "windows", "recordings", "seconds"], rows)}"""


ACCURACIES = "windows", "recordings"
