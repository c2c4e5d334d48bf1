"""The models: shapes, parameter counts, and a falling loss on a tiny problem."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import Row, assert_close

from agnostic_xent import SGD, cross_entropy, fit, lenet, logistic, resnet, small_cnn
from agnostic_xent.network.layers import STATISTICS

SEED = 4


def conv(channels, filters, size, bias=True):
    return filters * channels * size**2 + bias * filters


def resnet_size(depth, channels, classes):
    """Add up He et al.'s table: stem, three stages of n blocks, classifier."""
    total, before = conv(channels, 16, 3, bias=False) + 2 * 16, 16
    for filters in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            total += conv(before, filters, 3, False) + conv(filters, filters, 3, False)
            total += 4 * filters
            if before != filters:
                total += conv(before, filters, 1, False) + 2 * filters
            before = filters
    return total + 65 * classes


MODELS = {  # name: model, shape of a sample, number of outputs, trained numbers
    "logistic": (logistic(), (57,), 1, 58),
    "logistic-3": (logistic(3), (57,), 3, 3 * 58),
    "small-cnn": (small_cnn(), (1, 28, 28), 10, 160 + 4640 + 10 * (32 * 7 * 7 + 1)),
    "small-cnn-odd": (small_cnn(4), (3, 9, 11), 4, 448 + 4640 + 4 * (32 * 2 * 2 + 1)),
    "lenet": (lenet(), (1, 28, 28), 10, 320 + 18496 + 128 * (64 * 14 * 14 + 1) + 1290),
    "lenet-2": (lenet(2), (3, 6, 6), 2, 896 + 18496 + 128 * (64 * 3 * 3 + 1) + 258),
    "resnet-8": (resnet(8), (3, 8, 8), 10, resnet_size(8, 3, 10)),
    "resnet-14": (resnet(14, classes=4), (1, 9, 9), 4, resnet_size(14, 1, 4)),
    "resnet-20": (resnet(), (3, 32, 32), 10, resnet_size(20, 3, 10)),
}


def trained_size(params):
    sizes = {k: v.size for k, v in params.items() if k.rpartition(".")[2] not in STATISTICS}
    return sum(sizes.values())


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_sizes(name):
    model, shape, outputs, size = MODELS[name]
    params, out = model.init(SEED, shape)
    assert out == (outputs,)
    assert trained_size(params) == size
    x = np.random.default_rng(SEED).standard_normal((2, *shape)).astype("float32")
    logits = model(params, x)
    assert (logits.shape, logits.dtype) == ((2, outputs), "float32")
    assert np.isfinite(logits).all()


def test_resnet_20_has_the_papers_size():
    """0.27 million (arXiv:1512.03385, table 6)."""
    assert round(trained_size(resnet(20).init(SEED, (3, 32, 32))[0]) / 1e6, 2) == 0.27


@pytest.mark.parametrize(
    ("model", "shape"),
    [(small_cnn(3), (1, 8, 8)), (lenet(3), (1, 8, 8)), (resnet(8, 3), (2, 8, 8))],
    ids=["small-cnn", "lenet", "resnet-8"],
)
def test_training_lowers_the_loss(model, shape):
    """Three classes of noise around three fixed images."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(0, 3, 24)
    x = rng.standard_normal((3, *shape))[y] + rng.standard_normal((24, *shape)) / 2
    params, _ = model.init(SEED, shape)
    _, history = fit(
        model,
        params,
        (x.astype("float32"), y),
        loss=cross_entropy,
        optimizer=SGD(0.005, momentum=0.9),
        epochs=8,
        batch_size=8,
        rng=SEED,
    )
    losses = history.column("loss")
    assert np.isfinite(losses).all()
    assert losses[0] < 3 * math.log(3)
    assert losses[-1] < losses[0] / 3
    assert history[-1].accuracy == 1


def test_every_row_computes_the_same_logits_and_gradients(row: Row):
    model, shape, rng = small_cnn(3), (1, 8, 8), np.random.default_rng(SEED)
    params, _ = model.init(rng, shape)
    x, dy = rng.standard_normal((3, *shape)), rng.standard_normal((3, 3))

    def run(params, x, dy):
        y, pullback = model.vjp(params, x, input_grad=False)
        return y, pullback(dy)[1]

    exact = {k: v.astype("float64") for k, v in params.items()}
    expected, expected_grads = run(
        exact, x.astype("float32").astype("float64"), dy.astype("float32").astype("float64")
    )
    own = {k: row.array(v) for k, v in params.items()}
    y, grads = row.call(run, own, row.array(x, "float32"), row.array(dy, "float32"))
    row.check(y, "float32")
    assert_close(y, expected, "float32", 200)
    assert grads.keys() == params.keys()
    for name, g in grads.items():
        row.check(g, "float32")
        assert_close(g, expected_grads[name], "float32", 400)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: logistic(1), r"classes .* 1"),
        (lambda: logistic(2.5), r"classes .* 2.5"),
        (lambda: small_cnn(0), r"classes .* 0"),
        (lambda: lenet("ten"), r"classes .* 'ten'"),
        (lambda: resnet(8, classes=-1), r"classes .* -1"),
        (lambda: resnet(2), r"depth .* 2"),
        (lambda: resnet(9), r"depth .* 9"),
        (lambda: resnet(18), r"depth .* 18"),
        (lambda: resnet(8.0), r"depth .* 8.0"),
        (lambda: resnet("8"), r"depth .* '8'"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()
