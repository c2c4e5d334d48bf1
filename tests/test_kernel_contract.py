"""What a kernel promises: it runs only on options that it knows, the others at their defaults."""

from __future__ import annotations

import pytest
import toy_option
from conftest import has_kernel
from samples import SAMPLES

from agnostic_xent.core.operation import OPERATIONS, ROUTINES

WITH_KERNELS = sorted(name for name in OPERATIONS if has_kernel(name, "numpy"))
ROUTINES_WITH_KERNELS = sorted(name for name in ROUTINES if "numpy" in ROUTINES[name]._kernels)


@pytest.mark.parametrize("name", WITH_KERNELS)
def test_an_option_that_a_kernel_does_not_know(name):
    toy_option.check_unknown_option(name)


@pytest.mark.parametrize("name", WITH_KERNELS)
def test_kernels_know_the_options_that_there_are(name):
    operation, sample = OPERATIONS[name], toy_option.SAMPLE_OF[name]
    called = operation._contract(*sample.arrays, *sample.extra, **sample.options)
    for kernel in operation._kernels["numpy"]:
        assert {*kernel.options} - operation.options <= called.options.keys()


@pytest.mark.parametrize("name", ROUTINES_WITH_KERNELS)
def test_an_option_of_a_routine_that_a_kernel_does_not_know(name):
    for kernel in ROUTINES[name]._kernels["numpy"]:
        options = dict.fromkeys(kernel.options, 0.0)
        assert ROUTINES[name]._why_unknown(kernel, options) is None
        why = ROUTINES[name]._why_unknown(kernel, options | {"toy": 0.0})
        assert why == "it does not know the option toy"


def test_every_operation_with_a_kernel_has_a_sample():
    assert {*WITH_KERNELS} <= {sample.operation for sample in SAMPLES}
