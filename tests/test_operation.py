"""The place where a kernel is chosen, with toy kernels."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import agnostic_xent as ax
from agnostic_xent.core import operation as module
from agnostic_xent.core.arrays import array_namespace
from agnostic_xent.core.checks import float_namespace
from agnostic_xent.core.operation import Implementation, Operation, normalized, repeatable


@pytest.fixture
def doubled():
    """An operation with one kernel for NumPy arrays that says which one it is."""

    def contract(x, y=None, *, factor=2):
        float_namespace(x=x, y=y)
        return normalized(x, y, factor=factor)

    made = Operation(contract)
    calls = []

    @made.definition
    def value(x, y, *, factor):
        calls.append("portable")
        return x * factor

    @made.pullback
    def vjp(x, y, *, factor):
        return value(x, y, factor=factor), lambda dy: (dy * factor, None if y is None else dy)

    def kernel(x, y, *, factor):
        calls.append("kernel")
        return x * factor

    def takes(x, y, *, factor):
        if x.dtype != np.float32:
            return f"it takes float32, not {x.dtype}"
        return None if x.ndim == 1 else "it takes one dimension"

    def kernel_vjp(x, y, *, factor, wrt):
        calls.append(f"kernel {sorted(wrt)}")
        return kernel(x, y, factor=factor), lambda dy: (dy * factor, None)

    toy = Implementation("toy", kernel, kernel_vjp, takes, options=("factor",))
    made.add_kernel("numpy", toy)
    made.calls = calls
    return made


def single(*shape):
    return np.ones(shape, dtype=np.float32)


def test_a_kernel_runs_where_it_takes_the_arguments(doubled):
    assert doubled(single(3)).tolist() == [2, 2, 2]
    doubled(np.ones(3))
    doubled(single(3, 1))
    doubled(single(4), factor=3)
    assert doubled.calls == ["kernel", "portable", "portable", "kernel"]


def test_explain_says_which_and_why(doubled):
    assert ax.explain(doubled, single(3)) == "contract: toy (it takes these arguments)"
    assert ax.explain(doubled, np.ones(3)).endswith("(toy: it takes float32, not float64)")
    with ax.kernels("portable"):
        assert ax.explain(doubled, single(3)).endswith("(kernels are switched off)")
    assert doubled.calls == []  # nothing ran


def test_explain_names_a_library_without_kernels(doubled):
    strict = pytest.importorskip("array_api_strict")
    line = ax.explain(doubled, strict.ones(3, dtype=strict.float32))
    assert line == "contract: portable (no kernel for array_api_strict arrays)"


def test_modes(doubled):
    with ax.kernels("portable"):
        doubled(single(3))
        with ax.kernels("require"):
            doubled(single(3))
            with pytest.raises(RuntimeError, match="takes float32, not float64"):
                doubled(np.ones(3))
        doubled(single(3))
    doubled(single(3))
    assert doubled.calls == ["portable", "kernel", "portable", "kernel"]


def test_the_mode_belongs_to_a_thread(doubled):
    with ax.kernels("portable"):
        thread = threading.Thread(target=doubled, args=(single(3),))
        thread.start()
        thread.join()
    assert doubled.calls == ["kernel"]


def test_a_wrong_mode_is_an_error():
    with pytest.raises(
        ValueError, match="mode must be one of 'auto', 'direct', 'portable', 'require'"
    ):
        ax.kernels("fast").__enter__()


@pytest.mark.parametrize(("value", "code"), [("portable", 0), ("require", 1), ("fast", 1)])
def test_the_environment_variable(value, code):
    program = "import numpy, agnostic_xent; agnostic_xent.logsumexp(numpy.ones(2, 'f2'))"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"AGNOSTIC_XENT_KERNELS": value, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == code, found.stderr
    if value == "fast":
        assert "AGNOSTIC_XENT_KERNELS must be one of" in found.stderr


def test_the_decision_is_remembered(doubled):
    questions = []
    (implementation,) = doubled._kernels["numpy"]
    counting = Implementation(
        "counting",
        implementation.value,
        implementation.vjp,
        lambda *arrays, **options: questions.append(options),
        options=("factor",),
    )
    doubled._kernels["numpy"] = [counting]
    for n in (1, 2, 3):
        doubled(single(n))
    doubled(single(2), factor=3)
    doubled(np.ones(2))
    assert len(questions) == 3  # once a combination of dtypes, dimensions and options
    for rate in (0.1, 0.2, 0.3):
        doubled(single(2), factor=rate)
    assert len(questions) == 4  # for a float, once: a schedule has no end of them
    doubled(single(2), factor=2.0)
    assert len(questions) == 5  # but for the default
    assert len(doubled._decisions) == 5


@pytest.mark.parametrize("factors", [(2.0, 3.0), (3.0, 2.0)])
def test_a_kernel_may_decline_what_is_not_the_default(doubled, factors):
    (toy,) = doubled._kernels["numpy"]
    doubled._kernels["numpy"] = [
        dataclasses.replace(toy, takes=lambda x, y, factor: "too much" if factor > 2 else None)
    ]
    for factor in factors:
        doubled(single(3), factor=factor)
    assert doubled.calls == ["kernel" if factor == 2 else "portable" for factor in factors]


def test_kernels_load_with_the_first_array(monkeypatch, tmp_path):
    """A kernel package is imported when the first array of its library is seen, not before."""
    (tmp_path / "toy_kernels.py").write_text(
        "from agnostic_xent.core.operation import OPERATIONS, Implementation\n"
        "OPERATIONS['sigmoid'].add_kernel('numpy', Implementation('toy', lambda x: x * 0 + 7, "
        "None))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(module.KERNEL_PACKAGES, "numpy", "toy_kernels")
    monkeypatch.setattr(ax.sigmoid, "_kernels", {})
    monkeypatch.setattr(ax.sigmoid, "_decisions", {})
    monkeypatch.setattr(ax.sigmoid, "_seen", {})
    module.load_kernels.cache_clear()
    try:
        assert "toy_kernels" not in sys.modules
        assert float(ax.sigmoid(np.ones(2))[0]) == 7
        assert "toy_kernels" in sys.modules
    finally:
        module.load_kernels.cache_clear()
        sys.modules.pop("toy_kernels", None)


@pytest.fixture
def asked():
    """An operation with a repeatable contract, and the calls of the contract and of its check."""
    calls = []

    def contract(x, y=None, factor=2, *, scale=None):
        calls.append("contract")
        float_namespace(x=x, y=y, scale=scale)
        if factor == 0:
            raise ValueError("factor must not be 0")
        check = lambda x, y: calls.append(f"check {float(x[0])}")  # noqa: E731
        return repeatable(x, y, check_values=check, factor=float(factor), scale=scale)

    made = Operation(contract)
    made.calls = calls

    @made.definition
    def value(x, y, *, factor, scale):
        return x * factor * (1 if scale is None else scale)

    @made.pullback
    def vjp(x, y, *, factor, scale):
        return value(x, y, factor=factor, scale=scale), lambda dy: (dy, None)

    return made


def test_a_repeatable_contract_is_asked_once(asked):
    for n in (1.0, 2.0):
        x = np.full(3, n, dtype=np.float32)
        assert asked(x, factor=3)[0] == 3 * n
        assert asked.vjp(x, factor=3)[0][0] == 3 * n
    assert asked.calls == ["contract", "check 1.0", "check 1.0", "check 2.0", "check 2.0"]


def test_a_repeatable_contract_is_asked_about_what_is_new(asked):
    asked(single(3))
    for call in (
        lambda: asked(single(4)),
        lambda: asked(np.ones(3)),
        lambda: asked(single(3), single(3)),
        lambda: asked(single(3), factor=3),
        lambda: asked(single(3), factor=True),
        lambda: asked(single(3), factor=3.0),
        lambda: asked(single(3), scale=single(3)),
    ):
        asked.calls.clear()
        call()
        assert asked.calls[0] == "contract"
    for n in (2, 3):  # an option that is an array is this call's, not an earlier one's
        assert asked(single(3), scale=n * single(3))[0] == 2 * n
    for _ in range(2):  # what is refused is refused again
        with pytest.raises(ValueError, match="factor must not be 0"):
            asked(single(3), factor=0)
    asked.calls.clear()
    for _ in range(2):  # by position, behind what arrays there may be
        for factor in (3, 4):
            assert asked(single(3), None, factor)[0] == factor
    assert asked.calls.count("contract") == 2
    with ax.kernels("portable"):
        assert asked(single(3))[0] == 2


IMAGES, FILTERS = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 2, 2), np.float32)
EQUAL = [  # options that are taken, and equal ones that are not
    (ax.conv2d, (IMAGES, FILTERS), {"stride": (1, 1)}, {"stride": (1, True)}),
    (ax.conv2d, (IMAGES, FILTERS), {"dilation": (1, 1)}, {"dilation": (1, 1.0)}),
    (ax.conv2d, (IMAGES, FILTERS), {"padding": ((1, 0), (0, 1))}, {"padding": ((1, 0), (0, True))}),
    (ax.conv2d, (IMAGES, FILTERS), {"groups": 1}, {"groups": True}),
    (ax.max_pool2d, (IMAGES, 2), {"padding": (1, 1)}, {"padding": (1, np.True_)}),
    (ax.avg_pool2d, (IMAGES, (2, 1)), {}, {"window": (2, True)}),
    (ax.logsumexp, (IMAGES,), {"axis": (0, 1)}, {"axis": (0, True)}),
    (ax.softmax, (IMAGES,), {"axis": 1}, {"axis": 1.0}),
]


@pytest.mark.parametrize(("op", "arguments", "good", "bad"), EQUAL)
def test_equal_options_of_another_type_are_told_apart(op, arguments, good, bad):
    """True and 1.0 are no sizes, also where 1 has been seen before."""
    if "window" in bad:
        arguments, good = arguments[:1], {"window": arguments[1]}
    op(*arguments, **good)
    for options in (bad, good, bad):
        if options is good:
            op(*arguments, **good)
        else:
            with pytest.raises((TypeError, ValueError), match=f"{next(iter(bad))} must be"):
                op(*arguments, **bad)


def test_what_a_repeatable_contract_cannot_be_known_by(asked):
    strict = pytest.importorskip("array_api_strict")
    zero_dim = np.asarray(2.0, dtype=np.float32)
    for arguments in [
        {"x": single(3)},  # by keyword
        {"x": strict.ones(3, dtype=strict.float32)},
        {"x": single(3), "scale": zero_dim},
    ]:
        asked.calls.clear()
        for _ in range(2):
            asked(**arguments)
        assert asked.calls.count("contract") == 2
    for factor in (zero_dim, zero_dim[()]):  # numbers of NumPy, by position
        assert asked(single(3), None, factor)[0] == 2
    assert not asked._seen


def test_few_calls_are_remembered(asked, monkeypatch):
    monkeypatch.setattr(module, "SEEN", 10)
    for n in range(1, 40):
        asked(single(n))
    assert len(asked._seen) <= 10


def test_portable_code_is_quiet_and_the_pullback_too(asked):
    x = np.array([np.inf, -1], dtype=np.float32)
    with ax.kernels("portable"):
        value, pullback = ax.log_softmax.vjp(x)
        assert np.isnan(value).all()
        assert np.isnan(pullback(x)[0]).all()


def test_wrt_reaches_a_kernel_that_asks(doubled):
    doubled.vjp(single(3), single(3), wrt=[1])
    assert doubled.calls[0] == "kernel [1]"


def test_wrt_must_be_positions(doubled):
    with pytest.raises(ValueError, match=r"wrt must hold positions of array arguments, 0 to 1"):
        doubled.vjp(single(3), wrt=[2])


@pytest.mark.parametrize(
    ("cotangent", "error", "message"),
    [
        (np.ones((2, 1), dtype=np.float32), ValueError, "cotangent must have shape"),
        (np.ones(3), TypeError, "cotangent has dtype float64 but value has float32"),
        ([1, 1, 1], TypeError, "cotangent must be an array"),
    ],
)
def test_a_wrong_cotangent_is_an_error(cotangent, error, message):
    _, pullback = ax.relu.vjp(single(3))
    with pytest.raises(error, match=message):
        pullback(cotangent)


def test_an_operation_looks_like_its_function():
    assert ax.relu.__name__ == "relu"
    assert ax.relu.__module__ == "agnostic_xent"
    assert "Rectified linear unit" in ax.relu.__doc__
    assert repr(ax.relu) == "<operation relu(x: 'Array') -> 'Array'>"
    assert pickle.loads(pickle.dumps(ax.relu)) is ax.relu
    assert copy.deepcopy(ax.relu) is ax.relu


def test_explain_wants_an_operation():
    with pytest.raises(TypeError, match="op must be an operation such as relu"):
        ax.explain(array_namespace, np.ones(2))
