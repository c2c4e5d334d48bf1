"""A class that is rare: what its accuracy hides, and what weights change.

Needs scikit-learn: python -m pip install scikit-learn
"""

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from agnostic_xent import LogisticRegression, confusion_matrix
from agnostic_xent.datasets import load_spambase

mails = load_spambase()
spam = np.flatnonzero(mails.train_y == 1)[:60]  # all other mails are fine
kept = np.concatenate([np.flatnonzero(mails.train_y == 0), spam])
x, y = mails.train_x[kept], mails.train_y[kept]

for class_weight in (None, "balanced"):
    predicted = LogisticRegression(class_weight=class_weight).fit(x, y).predict(mails.test_x)
    print(f"class_weight={class_weight}: ham and spam, by row, taken for ham and spam, by column")
    print(confusion_matrix(mails.test_y, predicted, classes=2))
    print(f"balanced accuracy: {balanced_accuracy_score(mails.test_y, predicted):.3f}")
