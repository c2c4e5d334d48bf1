"""Exercises from a watch: MiniRocket and logistic regression, tested on people never seen before.

Needs scikit-learn: python -m pip install scikit-learn
"""

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agnostic_xent import LogisticRegression, MiniRocket, recording_log_proba, windows
from agnostic_xent.datasets import load_watch

watch = load_watch()
cut = windows(watch.signals, length=200, step=100, people=watch.people)  # four seconds each
labels = watch.labels[cut.recording]
test = np.isin(cut.person, [1, 2])  # people 3 to 10 are trained on

rocket = MiniRocket(4000, random_state=0)
model = make_pipeline(rocket, StandardScaler(), LogisticRegression(C=1e-3))
model.fit(cut.x[~test], labels[~test])

log_proba = model.predict_log_proba(cut.x[test])
recordings, together = recording_log_proba(log_proba, cut.recording[test])
print(f"windows: {np.mean(log_proba.argmax(axis=1) == labels[test]):.3f}")
print(f"recordings: {np.mean(together.argmax(axis=1) == watch.labels[recordings]):.3f}")
for person in (1, 2):
    own = watch.people[recordings] == person
    right = together.argmax(axis=1)[own] == watch.labels[recordings[own]]
    print(f"person {person}: {right.sum()} of {len(right)} recordings right")
