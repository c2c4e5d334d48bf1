"""The programs of examples/ run as they stand, each in a process of its own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NUMBER = r"(\d+\.?\d*(?:e-?\d+)?)"
PROGRAMS = {  # what it needs, a pattern for what it prints, and what has to hold for the numbers
    "spam_filter.py": ("sklearn", rf"accuracy: {NUMBER}\n", lambda accuracy: accuracy > 0.92),
    "watch.py": (
        "sklearn",
        rf"windows: {NUMBER}\nrecordings: {NUMBER}\n",
        lambda windows, recordings: windows > 0.8 and recordings > 0.8,
    ),
    "photos.py": ("PIL", rf"accuracy: {NUMBER},", lambda accuracy: accuracy > 0.6),
    "table.py": ("pandas", rf"accuracy: {NUMBER},", lambda accuracy: accuracy > 0.9),
    "rare_class.py": (
        "sklearn",
        rf"balanced accuracy: {NUMBER}\n(?:.*\n)*balanced accuracy: {NUMBER}\n",
        lambda plain, weighted: plain < 0.8 < 0.9 < weighted,
    ),
    "deployment.py": (
        "onnxruntime",
        rf"largest difference: {NUMBER}\n",
        lambda apart: apart < 1e-4,
    ),
    "texts.py": ("sklearn", rf"accuracy: {NUMBER} on", lambda accuracy: accuracy > 0.95),
    "fashion_mnist.py": (None, rf"test accuracy: {NUMBER}\n", lambda accuracy: accuracy > 0.8),
    "loss_in_jax.py": (
        "jax",
        rf"step   0: loss {NUMBER}\n(?:.*\n)*step 100: loss {NUMBER}\n",
        lambda first, last: last < first / 2,
    ),
    "loss_in_torch.py": (
        "torch",
        rf"step  0: loss {NUMBER}\n(?:.*\n)*largest gradient of a logit: {NUMBER}\n",
        lambda first, gradient: gradient < 0.1 < first,
    ),
    "trust.py": (
        "sklearn",
        rf"samples: {NUMBER} of 90\n.* class: {NUMBER}, of {NUMBER} classes\n",
        lambda found, covered, size: found > 0.7 and abs(covered - 0.95) < 0.015 and size < 3,
    ),
    "service.py": (
        None,
        rf"class {NUMBER} of {NUMBER}: {NUMBER}, {NUMBER} s\n",
        lambda found, right, probability, seconds: found == right and probability > 0.5,
    ),
    "batch_job.py": (
        None,
        rf"accuracy {NUMBER}, same labels {NUMBER}\n",
        lambda accuracy, same: accuracy > 0.7 and same == 1,
    ),
    "large_vocabulary.py": (
        None,
        rf"in_parts : loss {NUMBER},.* {NUMBER} MiB .*\nby_logits: loss {NUMBER},.* {NUMBER} MiB",
        lambda loss, parts, same, whole: loss == same and parts < whole / 2,
    ),
}


SHORT = ("photos.py", "table.py", "watch.py", "rare_class.py", "deployment.py")
"""One for each job, of under 30 lines."""


def test_every_program_is_here():
    assert PROGRAMS.keys() == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_runs(name):
    library, pattern, holds = PROGRAMS[name]
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}")
    assert len((EXAMPLES / name).read_text().splitlines()) < (30 if name in SHORT else 50)
    # behind a shell: a child of this process would have its peak of memory
    command = ["sh", "-c", '"$0" "$1"; exit $?', sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(pattern, done.stdout)
    assert found, done.stdout
    assert holds(*map(float, found.groups())), done.stdout
