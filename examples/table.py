"""A CSV file with a column of labels, of numbers and texts: from the file to a report.

``python examples/table.py FILE LABEL`` takes your own; without one it writes e-mails as numbers.
Needs: python -m pip install ".[plot,sklearn,tables]"
"""

import sys
import tempfile
from pathlib import Path

import pandas

from agnostic_xent import LogisticRegression, save_report
from agnostic_xent.datasets import load_spambase, load_table

path, label = sys.argv[1:] or (Path(tempfile.mkdtemp(), "mails.csv"), "kind")
if len(sys.argv) == 1:
    mails = load_spambase()
    kinds = [mails.classes[i] for i in mails.train_y]
    pandas.DataFrame(mails.train_x).assign(kind=kinds).to_csv(path, index=False)

data = load_table(path, label=label)
classifier = LogisticRegression().fit(data.train_x, data.train_y)
report = Path(path).with_suffix(".html")
save_report(report, classifier, data.test_x, data.test_y)
print(f"accuracy: {classifier.score(data.test_x, data.test_y):.3f}, see {report}")
