"""Which answers can be trusted: sets with a promised coverage, wrong labels, an explanation.

Needs scikit-learn: python -m pip install scikit-learn
"""

import numpy as np
from sklearn.frozen import FrozenEstimator

from agnostic_xent import (
    CNNClassifier,
    ConformalClassifier,
    find_label_issues,
    small_cnn,
)
from agnostic_xent.datasets import load_fashion_mnist

data = load_fashion_mnist()
names = np.asarray(data.classes)
x, y, test_y = data.train_x[:3000], names[data.train_y[:3000]], names[data.test_y]
classifier = CNNClassifier(small_cnn(), epochs=3, random_state=0)

rng = np.random.default_rng(0)
flipped = rng.choice(3000, 90, replace=False)
noisy = y.copy()
noisy[flipped] = names[(data.train_y[flipped] + rng.integers(1, 10, 90)) % 10]
issues = find_label_issues(classifier, x, noisy, cv=3)
found = np.isin(flipped, issues["index"][:150]).mean()
print(f"wrong labels among the 150 most suspicious samples: {found:.3f} of 90")

classifier.fit(x, y)
sets = ConformalClassifier(FrozenEstimator(classifier), coverage=0.95, method="lac")
sets.fit(data.train_x[3000:], names[data.train_y[3000:]])
taken = sets.predict_sets(data.test_x)
covered = taken[np.arange(len(test_y)), np.searchsorted(sets.classes_, test_y)].mean()
print(f"sets that hold the true class: {covered:.3f}, of {taken.sum(axis=1).mean():.2f} classes")

speaks_for = classifier.attributions(data.test_x[:1])[0, 0]  # (28, 28)
row, column = np.unravel_index(speaks_for.argmax(), speaks_for.shape)
print(f"{classifier.predict(data.test_x[:1])[0]}: most of all for pixel {row}, {column}")
