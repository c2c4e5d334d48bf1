"""A spam filter: logistic regression on 4,601 e-mails, its accuracy, calibration and top features.

Needs scikit-learn: python -m pip install scikit-learn
"""

import numpy as np

from agnostic_xent import LogisticRegression, confusion_matrix, expected_calibration_error
from agnostic_xent.datasets import load_spambase

mails = load_spambase()
classifier = LogisticRegression().fit(mails.train_x, mails.train_y)

predicted = classifier.predict(mails.test_x)
print(f"accuracy: {np.mean(predicted == mails.test_y):.3f}")
print("ham and spam, by row, taken for ham and spam, by column:")
print(confusion_matrix(mails.test_y, predicted, classes=2))
error = expected_calibration_error(classifier.predict_proba(mails.test_x), mails.test_y)
print(f"its probabilities are off by {error:.3f} on average")
strongest = np.argsort(-np.abs(classifier.coef_[0]))[:5]
print("features that count most:", ", ".join(map(str, strongest)))
