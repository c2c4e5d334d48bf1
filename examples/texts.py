"""Which library is a docstring from? Words that an l1 penalty has chosen tell it.

Needs scikit-learn: python -m pip install scikit-learn
"""

import inspect

import numpy as np
import scipy.linalg
import scipy.stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from agnostic_xent import LogisticRegression

texts, labels = [], []
for name, library in (("numpy", np), ("linalg", scipy.linalg), ("stats", scipy.stats)):
    for member in map(library.__dict__.get, library.__all__):
        if callable(member) and (text := inspect.getdoc(member)):
            texts.append(text)
            labels.append(name)
train, test, train_labels, test_labels = train_test_split(
    texts, labels, test_size=0.25, random_state=0, stratify=labels
)
words = TfidfVectorizer(sublinear_tf=True)  # rows stay sparse all the way
model = make_pipeline(words, LogisticRegression(C=20.0, l1_ratio=1.0)).fit(train, train_labels)

print(f"accuracy: {model.score(test, test_labels):.3f} on {len(test)} docstrings")
coefficients, names = model[-1].coef_, words.get_feature_names_out()
print(f"words that count: {np.count_nonzero(coefficients.any(axis=0))} of {len(names)}")
for label, row in zip(model.classes_, coefficients, strict=True):
    print(f"{label}: {', '.join(names[np.argsort(-row)[:6]])}")
print("new:", model.predict(["Compute the eigenvalues of a symmetric matrix."])[0])
