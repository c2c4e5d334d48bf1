"""Predictions of more pictures than need fit into memory, from one file to another."""

import tempfile
import time
from pathlib import Path

import numpy as np

from agnostic_xent import SGD, Progress, compile_predictor, cross_entropy, fit, predict, small_cnn
from agnostic_xent.datasets import load_fashion_mnist

data = load_fashion_mnist()
model, shape = small_cnn(), (1, 28, 28)
params, _ = model.init(0, shape)
task = {"loss": cross_entropy, "optimizer": SGD(0.05, momentum=0.9), "epochs": 1, "rng": 0}
params, _ = fit(model, params, (data.train_x, data.train_y), **task)

folder = Path(tempfile.mkdtemp())
np.save(folder / "pictures.npy", np.concatenate([data.test_x] * 10))

# in one call: the file is read piece by piece, and only the logits are kept
start = time.perf_counter()
logits = predict(model, params, folder / "pictures.npy", callbacks=[Progress()])
speed = len(logits) / (time.perf_counter() - start)

# piece by piece, where not even the logits should be in memory
predictor = compile_predictor(model, params, shape)
pictures = np.load(folder / "pictures.npy", mmap_mode="r")
labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", "uint8", (len(pictures),))
for first in range(0, len(pictures), 512):
    piece = slice(first, first + 512)
    labels[piece] = predictor(pictures[piece]).argmax(axis=1)
labels.flush()

right = np.mean(np.load(folder / "labels.npy") == np.tile(data.test_y, 10))
same = np.mean(labels == logits.argmax(axis=1))
print(
    f"{len(labels)} pictures, {speed:,.0f} a second: accuracy {right:.3f}, same labels {same:.3f}"
)
