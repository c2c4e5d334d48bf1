"""scikit-learn's own checks of estimators: those of `parametrize_with_checks`, all of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import VERSIONS

pytest.importorskip("sklearn")

import estimator_checks

LACKING = re.compile(
    r"(array_api_strict|cupy|dpnp|pandas|torch) is not installed|requires cuda"
    r"|No (CUDA|MPS|XPU)|no XPU device|PYTORCH_ENABLE_MPS_FALLBACK is not set"
)
"""Why a check may be passed over: it needs a device or a library that is not here."""


@pytest.mark.parametrize("name", ["lbfgs", "sgd", "average", "cnn", "rocket", "conformal"])
def test_all_checks_pass(name, record_property):
    script = Path(__file__).with_name("estimator_checks.py")
    hidden = [] if VERSIONS["cupy"] else ["cupy"]  # the checks try what they can import
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        # whose from_dlpack takes no device, by which scikit-learn reads the devices of this one
        hidden.append("array_api_strict")
    done = subprocess.run(
        [sys.executable, str(script), name, *hidden],
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    counts = Counter(result["status"] for result in results)
    record_property("summary", f"scikit-learn's checks of {name}: {dict(counts)}")
    assert [r for r in results if r["status"] not in ("passed", "skipped", "xfail")] == []
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert failed == {*estimator_checks.EXPECTED.get(name, {})}
    skipped = [r["exception"] for r in results if r["status"] == "skipped"]
    assert [reason for reason in skipped if not LACKING.search(reason)] == []
    assert counts["passed"] >= (40 if name == "rocket" else 60)
    ran = {r["check_name"] for r in results if r["status"] == "passed"}
    assert "check_array_api_input" in ran
    assert "check_array_api_same_namespace" in ran | failed or "array_api_strict" in hidden
