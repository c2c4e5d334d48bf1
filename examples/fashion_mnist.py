"""A small CNN on images of clothes; the one line that moves it to a GPU is the import of xp.

``python examples/fashion_mnist.py`` runs on the processor, and on an NVIDIA GPU with ``cupy`` after
it, which needs CuPy: python -m pip install ".[cuda13]"
"""

import importlib
import sys

from agnostic_xent import SGD, Progress, cosine, cross_entropy, evaluate, fit, lenet, to_backend
from agnostic_xent.datasets import load_fashion_mnist

xp = importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "numpy")

data = load_fashion_mnist()
train = xp.asarray(data.train_x), xp.asarray(data.train_y)
test = xp.asarray(data.test_x), xp.asarray(data.test_y)

model = lenet(classes=10)
params, _ = model.init(0, (1, 28, 28))
params, history = fit(
    model,
    to_backend(params, xp),
    train,
    loss=cross_entropy,
    optimizer=SGD(cosine(0.05, steps=157), momentum=0.9),
    epochs=1,
    batch_size=64,
    rng=0,
    validation=test,
    callbacks=[Progress()],
)
print(f"test accuracy: {evaluate(model, params, test, loss=cross_entropy)[1]:.3f}")
