"""Images of uint8 are taken as the training saw them, whatever holds them later."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

import agnostic_xent as ax
from agnostic_xent.core.conversion import backend

MODEL = ax.Sequential(ax.Conv2d(4, 3), ax.ReLU(), ax.Flatten(), ax.Dense(2))


def images(count=64):
    rng = np.random.default_rng(0)
    y = np.arange(count) % 2
    x = rng.integers(0, 200, (count, 1, 6, 6)) + 50 * y[:, None, None, None]
    return x.astype(np.uint8), y


def classifier(model=MODEL, **options):
    return ax.CNNClassifier(model, epochs=3, batch_size=16, random_state=0, **options)


@pytest.mark.parametrize("optimizer", [None, ax.SGD(0.05, momentum=0.9), ax.AdamW(1e-3)])
@pytest.mark.parametrize("model", [None, MODEL])
def test_uint8_train_as_floats_do(model, optimizer):
    x, y = images()
    shares = (x / np.float32(255)).astype("f4")
    found = classifier(model, optimizer=optimizer).fit(x, y)
    expected = classifier(model, optimizer=optimizer).fit(shares, y)
    np.testing.assert_allclose(found.predict_proba(x), expected.predict_proba(shares), atol=1e-4)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_levels_are_taken_in_any_dtype(library):
    pytest.importorskip(library)
    xp = backend(library)
    x, y = images()
    there = xp.asarray(x)
    fitted = classifier().fit(there, y)
    expected = ax.to_numpy(fitted.predict_proba(there))
    for dtype in (xp.int32, xp.float32, xp.int16):
        same = xp.astype(there, dtype)
        np.testing.assert_array_equal(ax.to_numpy(fitted.predict_proba(same)), expected)
    with pytest.raises(ValueError, match="fitted on levels from 0 to 255; multiply X by 255"):
        fitted.predict(xp.asarray((x / 255).astype("f4")))


def test_levels_for_a_classifier_of_shares():
    x, y = images()
    shares = (x / np.float32(255)).astype("f4")
    fitted = classifier().fit(shares, y)
    np.testing.assert_allclose(fitted.predict_proba(x), fitted.predict_proba(shares), rtol=1e-5)
    other = classifier().fit(shares * 2 - 1, y)  # of another scale: what uint8 are is not known
    assert np.array_equal(other.predict_proba(x), other.predict_proba(x.astype("f4")))


def test_masks_stay_what_they_are():
    x, y = images()
    masks = (x > 120).astype(np.uint8)
    found = classifier().fit(masks, y).predict_proba(masks)
    expected = classifier().fit(masks.astype("f4"), y).predict_proba(masks.astype("f4"))
    assert np.array_equal(found, expected)


def test_files_and_lists(tmp_path):
    x, y = images()
    np.save(tmp_path / "x.npy", x)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    fitted = classifier().fit(stored, y)
    np.testing.assert_allclose(fitted.predict_proba(stored), fitted.predict_proba(x), rtol=1e-5)
    listed = classifier().fit([*x], y)
    assert np.array_equal(listed.predict_proba(x), classifier().fit(x, y).predict_proba(x))


def test_dask():
    da = pytest.importorskip("dask.array")
    x, y = images()
    fitted = classifier().fit(x, y)
    lazy = fitted.predict_proba(da.from_array(x, chunks=(20, -1, -1, -1)))
    np.testing.assert_allclose(np.asarray(lazy), fitted.predict_proba(x), rtol=1e-5)
    there = classifier().fit(da.from_array(x, chunks=(20, -1, -1, -1)), y)
    assert there._levels == fitted._levels


def test_later_parts_go_by_the_first():
    x, y = images()
    parts, other = classifier(), classifier()
    for numbers in (x, x):
        parts.partial_fit(numbers, y, classes=[0, 1])
    for numbers in (x, x.astype("f4")):
        other.partial_fit(numbers, y, classes=[0, 1])
    assert np.array_equal(parts.predict_proba(x), other.predict_proba(x))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16"])
def test_integers_of_other_dtypes_are_levels_as_well(dtype):
    x, y = images()
    fitted = classifier().fit(x.astype(dtype), y)
    expected = classifier().fit(x, y)
    np.testing.assert_array_equal(fitted.predict_proba(x), expected.predict_proba(x))
    shares = (x / np.float32(255)).astype("f4")
    of_shares = classifier().fit(shares, y)
    np.testing.assert_allclose(
        of_shares.predict_proba(x.astype(dtype)), of_shares.predict_proba(shares), rtol=1e-5
    )
    small = (x // 16).astype(dtype)  # 0 to 15, as digits of 4 bits: what white is is not known
    assert not classifier().fit(small, y)._levels[0]


def test_images_with_channels_last_are_refused_by_name():
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 3, 9, 8)).astype("f4"), np.arange(20) % 2
    fitted = ax.CNNClassifier(epochs=1, random_state=0).fit(x, y)
    last = np.moveaxis(x, 1, -1)
    for call in (lambda: fitted.predict(last), lambda: fitted.fit(last, y)):
        with pytest.raises(ValueError, match=r"channel last; numpy.moveaxis\(x, -1, 1\) puts it"):
            call()
