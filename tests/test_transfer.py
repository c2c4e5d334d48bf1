"""Starting from the parameters of another model: all but a last layer of other classes."""

from __future__ import annotations

import numpy as np
import pytest
from training_case import CNN, IMAGE, each_home, images, train

import agnostic_xent as ax
from agnostic_xent import Dense, ReLU, Sequential, load_params, save_params, to_numpy
from agnostic_xent import transfer_params as transfer

SHAPE = (3,)


def net(*units, seed=0, bias=True):
    layers = [layer for n in units[:-1] for layer in (Dense(n), ReLU())]
    return Sequential(*layers, Dense(units[-1], bias=bias)).init(seed, SHAPE)[0]


@each_home
def test_all_but_the_last_layer_comes_from_the_other_model(home, tmp_path):
    old = train(model=CNN)[0]
    save_params(tmp_path / "old", old)
    model = Sequential(*CNN.layers[:-1], Dense(5))
    fresh = {k: home.array(v) for k, v in model.init(1, IMAGE)[0].items()}
    found = transfer(fresh, load_params(tmp_path / "old"))
    assert list(found) == list(fresh)
    for name, w in found.items():
        home.check(w, "float32")
        expected = to_numpy(fresh[name]) if name.startswith("6.") else old[name]
        np.testing.assert_array_equal(to_numpy(w), expected)


def test_the_last_layer_is_trained_alone():
    x, y = images()
    model = Sequential(*CNN.layers[:-1], Dense(5))
    first = transfer(model.init(1, IMAGE)[0], train(model=CNN)[0])
    for name, w in train((x, y + 2), model=model, params=first, trainable=["6"])[0].items():
        assert (w != first[name]).any() == name.startswith("6.")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_take_the_dtype_of_the_model(dtype):
    found = transfer({k: w.astype(dtype) for k, w in net(4, 2).items()}, net(4, 3, seed=1))
    assert all(w.dtype == dtype for w in found.values())
    np.testing.assert_array_equal(found["0.weight"], net(4, 3, seed=1)["0.weight"].astype(dtype))


def test_a_last_layer_that_fits_is_taken_too():
    found, source = transfer(net(4, 2), net(4, 2, seed=1)), net(4, 2, seed=1)
    assert all((found[name] == w).all() for name, w in source.items())


def test_what_torch_counts_is_passed_over():
    source = net(4, 2, seed=1) | {"0.num_batches_tracked": np.asarray(5)}
    assert "0.num_batches_tracked" not in transfer(net(4, 2), source)


def test_a_last_layer_without_a_bias():
    found = transfer(net(4, 2), net(4, 2, seed=1, bias=False))
    assert (found["2.weight"] == net(4, 2)["2.weight"]).all()  # all of it is fresh, or nothing
    assert "2.bias" not in transfer(net(4, 2, bias=False), net(4, 3, seed=1))


DIFFERENT = {
    "another width": (net(5, 2), r"source\['0.weight'\] must have shape \(4, 3\) .*is of shape"),
    "one layer less": (net(2), r"source\['0.weight'\] must have shape"),
    "one layer more": (net(4, 2, 2), "source has 4.bias, 4.weight, which params has not"),
    "another name": ({"a": np.zeros(3)}, r"source\['0.weight'\] must .* but is missing"),
}


@pytest.mark.parametrize("difference", DIFFERENT)
def test_other_layers_may_not_differ(difference):
    source, text = DIFFERENT[difference]
    before = net(4, 2)
    with pytest.raises(ValueError, match=text):
        ax.transfer_params(before, source)
