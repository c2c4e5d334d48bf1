"""What the CUDA kernels are not asked for: options that they do not know, and nothing at all."""

import numpy as np
import pytest
import toy_option

from agnostic_xent import explain, relu
from agnostic_xent.core.operation import OPERATIONS, load_kernels

load_kernels("numpy")
WITH_KERNELS = sorted(name for name in OPERATIONS if OPERATIONS[name]._kernels.get("numpy"))


@pytest.mark.parametrize("name", WITH_KERNELS)
def test_an_option_that_a_kernel_does_not_know(name):
    toy_option.check_unknown_option(name)


def test_arrays_without_elements():
    assert "nothing to compute" in explain(relu, np.ones((0, 3), "f4"))
