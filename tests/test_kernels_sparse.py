"""The CPU kernels of sparse rows: values, layouts, bits, and what they decline."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")
pytest.importorskip("scipy")

from scipy import sparse

from agnostic_xent import kernels
from agnostic_xent.core.operation import ROUTINES
from agnostic_xent.core.sparse import as_csr
from agnostic_xent.kernels.cpu.toolchain import threads as toolchain
from agnostic_xent.operations.sparse import sparse_affine_vjp, sparse_product, sparse_sums

DTYPES = ("float32", "float64")


def drawn(seed, dtype="float64", rows=57, columns=83, units=3):
    """Return sparse rows, weights and factors; row 0 and column 0 have no entry."""
    rng = np.random.default_rng(seed)
    x = sparse.random(rows, columns, 0.2, format="csr", random_state=rng).tolil()
    x[0, :], x[:, 0] = 0, 0
    x = sparse.csr_array(x, dtype=dtype)
    w, d = rng.standard_normal((units, columns)), rng.standard_normal((rows, units))
    return x, w.astype(dtype), d.astype(dtype)


@pytest.mark.parametrize("mode", ["require", "portable"])
@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("units", [1, 2, 9])
def test_values(units, dtype, index, mode):
    x, w, d = drawn(0, dtype, units=units)
    x.indices, x.indptr = x.indices.astype(index), x.indptr.astype(index)
    b, dense = np.arange(units).astype(dtype), x.toarray().astype("float64")
    with kernels(mode):
        y, pullback = sparse_affine_vjp(as_csr(x), w, b)
        dw, db = pullback(d)
    assert {a.dtype.name for a in (y, dw, db)} == {dtype}
    assert_close(y, dense @ w.T + b, dtype, 83)
    assert_close(dw, d.T @ dense, dtype, 57)
    assert_close(db, d.sum(axis=0), dtype, 57)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_values_of_drawn_shapes(seed, rows, columns, units):
    x, w, d = drawn(seed, rows=rows, columns=columns, units=units)
    rows, dense = as_csr(x), x.toarray()
    assert_close(sparse_product([w], rows.arrays), dense @ w.T, "float64", columns)
    found = sparse_sums([d], rows.arrays, columns=columns)
    assert_close(found, d.T @ dense, "float64", len(rows))


@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_for_any_number_of_threads(threads, units, monkeypatch):
    x, w, d = drawn(1, rows=2000, columns=500, units=units)
    x.indices = np.minimum(x.indices, 40 + x.indices // 5).astype("int32")  # few are met often
    x.has_canonical_format = False
    rows = as_csr(x)
    assert rows.entries * units > 1 << 14

    def both():
        sums = sparse_sums([d], rows.arrays, columns=500)
        return [sparse_product([w], rows.arrays).tobytes(), np.ascontiguousarray(sums).tobytes()]

    monkeypatch.setattr(toolchain, "threads", lambda: 1)
    alone = both()
    monkeypatch.setattr(toolchain, "threads", lambda: threads)
    assert both() == alone


def test_layouts_of_weights_and_factors():
    x, w, d = drawn(2)
    rows, dense = as_csr(x), x.toarray()
    wide = np.repeat(w, 2, axis=1)[:, ::2]
    for each in (w, np.asfortranarray(w), wide, w[:, ::-1][:, ::-1]):
        assert_close(sparse_product([each], rows.arrays), dense @ w.T, "float64", 83)
    for each in (d, np.asfortranarray(d), np.repeat(d, 2, axis=0)[::2]):
        found = sparse_sums([each], rows.arrays, columns=83)
        assert_close(found, d.T @ dense, "float64", 57)


def test_infinity_and_nan_are_met_by_entries_alone():
    x, w, _ = drawn(3)
    w[:, 0] = np.nan  # a column without entries
    assert np.isfinite(sparse_product([w], as_csr(x).arrays)).all()
    column = x.indices[0]
    w[:, column] = np.inf
    found = sparse_product([w], as_csr(x).arrays)
    assert not np.isfinite(found[x.toarray()[:, column] != 0]).any()


DECLINED = {
    "another dtype": (lambda x, w: (x, w.astype("float32")), "arrays of one dtype"),
    "byte order": (lambda x, w: (x, w.astype(">f8")), "native byte order, not >f8"),
    "class": (lambda x, w: (x, w.view(np.recarray)), "numpy.ndarray, not recarray"),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_is_declined(name):
    change, reason = DECLINED[name]
    x, w, _ = drawn(4)
    x, w = change(x, w)
    with kernels("require"), pytest.raises(RuntimeError, match=reason):
        ROUTINES["sparse_product"].kernel(w, *as_csr(x).arrays)
    assert ROUTINES["sparse_product"].kernel(w, *as_csr(x).arrays) is None


# --- rows ----------------------------------------------------------------------------------------


def test_rows_are_cut_and_taken():
    x, _, _ = drawn(5)
    rows, dense = as_csr(x), x.toarray()
    some = np.asarray([7, 0, 7, 56])
    for picked in (slice(3, 9), slice(0, 0), slice(50, 99), (slice(2, 5), ...), some):
        expected = dense[picked[0] if isinstance(picked, tuple) else picked]
        np.testing.assert_array_equal(rows[picked].matrix.toarray(), expected)
        assert rows[picked].shape == expected.shape
    factors = np.arange(57.0)
    np.testing.assert_array_equal(rows.times(factors).matrix.toarray(), factors[:, None] * dense)


def test_entries_are_put_in_order_and_summed_in_a_copy():
    data, columns = np.asarray([1.0, 2.0, 4.0, 0.0]), np.asarray([5, 2, 5, 1])
    x = sparse.csr_matrix((data, columns, [0, 0, 3, 4]), shape=(3, 7))
    rows = as_csr(x)
    assert rows.indices.tolist() == [2, 5, 1]  # an entry of 0 stays one
    assert rows.data.tolist() == [2.0, 5.0, 0.0]
    assert x.indices.tolist() == [5, 2, 5, 1]
    assert x.data.tolist() == [1.0, 2.0, 4.0, 0.0]
    ordered = sparse.csr_matrix(rows.matrix)
    assert np.shares_memory(as_csr(ordered).data, ordered.data)


BROKEN = {
    "a column too far": lambda x: x.indices.__setitem__(3, 83),
    "a negative column": lambda x: x.indices.__setitem__(3, -1),
    "rows that overlap": lambda x: x.indptr.__setitem__(3, x.indptr[-1]),
    "no first entry": lambda x: x.indptr.__setitem__(0, 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_matrix_is_refused(name):
    x, _, _ = drawn(6)
    BROKEN[name](x)
    with pytest.raises(ValueError, match=r"no whole CSR matrix|index pointer should start with 0"):
        as_csr(x)
