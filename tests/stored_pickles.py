"""An object of every public class, and their pickles, as an earlier version has written them.

``python tests/stored_pickles.py`` adds the pickles of new classes to ``stored_pickles.json`` and
leaves those that are there: they stand for files that users have.
"""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator

import agnostic_xent as ax

FILE = Path(__file__).with_name("stored_pickles.json")
UNPICKLED = {"MPICommunicator", "NCCLCommunicator", "TensorBoard"}
"""Classes whose objects hold an open connection or file."""


def objects() -> dict[str, Any]:
    """Return an object of every public class that can be stored."""
    x, y = np.linspace(-1, 1, 96).reshape(6, 1, 4, 4), np.asarray([0, 1] * 3)
    model = ax.Sequential(ax.Conv2d(2, 3), ax.ReLU(), ax.Flatten(), ax.Dense(2))
    epoch = ax.Epoch(1, 0.5, 0.75, 0.1, 2.0, 100.0)
    schedule = ax.warmup(ax.cosine(0.1, steps=100), steps=10)
    cnn = ax.CNNClassifier(  # with the optimizer that was the default when it was stored
        model, optimizer=ax.AdamW(1e-3), epochs=1, batch_size=3, random_state=0
    )
    logistic = ax.LogisticRegression(solver="sgd", max_iter=2, random_state=0)
    logistic.fit(x.reshape(6, -1), y)
    made = [
        ax.SGD(schedule, momentum=0.9),
        ax.AdamW(ax.step_decay(0.1, every=10)),
        ax.ClipByNorm(ax.SGD(0.1), norm=1.0),
        ax.LayerRates(ax.AdamW(), {"0": 0.1}),
        ax.MovingAverage(ax.SGD(0.1), 0.99),
        ax.constant(0.1),
        ax.cosine(0.1, steps=100),
        ax.step_decay(0.1, every=10),
        schedule,
        model,
        ax.Residual(ax.Conv2d(3, 3, padding=1)),
        ax.Conv2d(3, 3, padding="same", activation="relu"),
        ax.Dense(3),
        ax.ReLU(),
        ax.Flatten(),
        ax.Standardize(),
        ax.Dropout(0.25),
        ax.RandomFlip(),
        ax.RandomShift(2),
        ax.RandomCrop(3),
        ax.Cutout(2),
        ax.Mixup(0.2),
        ax.CutMix(),
        ax.RandomRotation3d(25),
        ax.RandomScale(0.1),
        ax.Jitter(0.05),
        ax.BatchNorm2d(),
        ax.MaxPool2d(2),
        ax.AvgPool2d(2),
        ax.GlobalAvgPool2d(),
        ax.Conv1d(3, 5, stride=2),
        ax.Conv3d(3, (1, 3, 3), activation="relu"),
        ax.BatchNorm1d(),
        ax.BatchNorm3d(),
        ax.MaxPool1d(2),
        ax.MaxPool3d(2),
        ax.AvgPool1d(2),
        ax.AvgPool3d(2),
        ax.GlobalAvgPool(),
        ax.Tanh(),
        ax.SiLU(),
        ax.GELU("tanh"),
        ax.LeakyReLU(0.2),
        ax.LayerNorm(2),
        ax.GroupNorm(4),
        ax.Callback(),
        ax.EarlyStopping(3),
        ax.JsonLines("history.jsonl"),
        ax.KeepBest("best.safetensors"),
        ax.Progress(),
        epoch,
        ax.History([epoch]),
        ax.LearningRates([0.1, 0.2], [2.0, 1.0]),
        ax.ConformalSets(0.8, penalty=0.1, unpenalized=2),
        ax.DivergenceError("the loss became NaN", epoch=1, step=2, layer="0"),
        logistic,
        ax.LogisticRegressionCV(Cs=[1.0], cv=2).fit(x.reshape(6, -1), y),
        cnn.fit(x, y),
        ax.windows([x[0, 0]], 3, 1),
        ax.MiniRocket(84, random_state=0).fit(x.reshape(6, 1, 16)),
        ax.ConformalClassifier(FrozenEstimator(logistic), coverage=0.5).fit(x.reshape(6, -1), y),
    ]
    return {type(x).__name__: x for x in made}


if __name__ == "__main__":
    stored = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, x in objects().items():
        if name not in stored:
            stored[name] = base64.b64encode(pickle.dumps(x, protocol=4)).decode()
    FILE.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
