"""Every mistake gets an error that names the argument and what is accepted; one table."""

from __future__ import annotations

import numpy as np
import pytest

import agnostic_xent as ax

IMAGES, FILTERS = np.ones((2, 4, 5, 5)), np.ones((6, 4, 3, 3))
LOGITS, LABELS = np.ones((3, 4)), np.array([0, 1, 3])


CASES = [
    # operation, arrays, options, error, message
    ("conv2d", (IMAGES[0], FILTERS), {}, ValueError, r"x must have 4 dimensions \(N, C, H, W\), got 3"),
    ("conv2d", (IMAGES, FILTERS[0]), {}, ValueError, r"w must have 4 dimensions"),
    ("conv2d", (IMAGES, FILTERS[:, :3]), {}, ValueError, r"w of shape .* takes 3 channels .* has 4"),
    ("conv2d", (IMAGES, FILTERS, np.ones(5)), {}, ValueError, r"b must have shape \(6,\)"),
    ("conv2d", (IMAGES, np.ones((6, 4, 7, 3))), {}, ValueError, r"window's height of 7 .* larger than the padded"),
    ("conv2d", (IMAGES, FILTERS), {"dilation": 3}, ValueError, r"window's height of 3 \(dilation 3\)"),
    ("conv2d", (IMAGES[:, :, :0], FILTERS), {"padding": 2}, ValueError, r"window's height"),
    ("conv2d", (IMAGES, FILTERS), {"stride": 0}, ValueError, r"stride must be an integer >= 1 or a pair"),
    ("conv2d", (IMAGES, FILTERS), {"stride": 1.5}, ValueError, r"stride must be an integer"),
    ("conv2d", (IMAGES, FILTERS), {"padding": -1}, ValueError, r"padding must be an integer >= 0"),
    ("conv2d", (IMAGES, FILTERS), {"padding": "full"}, ValueError, r"padding must be .*\"same\".* got 'full'"),
    ("conv2d", (IMAGES, FILTERS), {"padding": ((1, 2), 3, 4)}, ValueError, r"padding must be"),
    ("conv2d", (IMAGES, FILTERS), {"padding": (1, 2, 3)}, ValueError, r"padding must be"),
    ("conv2d", (IMAGES, FILTERS), {"dilation": True}, ValueError, r"dilation must be"),
    ("conv2d", (IMAGES, FILTERS), {"groups": 3}, ValueError, "groups must divide the 4"),
    ("conv2d", (IMAGES, FILTERS), {"activation": "tanh"}, ValueError, r"activation must be one of None, 'relu'"),
    ("conv1d", (IMAGES, FILTERS[..., 0]), {}, ValueError, r"x must have 3 dimensions \(N, C, L\), got 4"),
    ("conv1d", (IMAGES[..., 0], FILTERS), {}, ValueError, r"w must have 3 dimensions \(K, C / groups, KL\), got 4"),
    ("conv1d", (IMAGES[..., 0], np.ones((6, 4, 7))), {}, ValueError, r"window's length of 7 .* larger than the padded"),
    ("conv1d", (IMAGES[..., 0], FILTERS[..., 0]), {"stride": (1, 2)}, ValueError, r"stride .* a tuple \(length,\) of them"),
    ("conv1d", (IMAGES[..., 0], FILTERS[..., 0]), {"padding": (1, 2)}, ValueError, r"padding must be .*\(\(before, after\),\).* got \(1, 2\)"),
    ("conv1d", (IMAGES[..., 0], FILTERS[..., 0]), {"groups": 3}, ValueError, "groups must divide the 4"),
    ("conv3d", (IMAGES, FILTERS[..., None]), {}, ValueError, r"x must have 5 dimensions \(N, C, D, H, W\), got 4"),
    ("conv3d", (IMAGES[..., None], np.ones((6, 4, 6, 1, 1))), {}, ValueError, r"window's depth of 6"),
    ("conv3d", (IMAGES[..., None], FILTERS[..., None]), {"dilation": (1, 2)}, ValueError, r"dilation .* a triple \(depth, height, width\)"),
    ("conv3d", (IMAGES[..., None], FILTERS[..., None]), {"padding": ((1, 2), (0, 1), (-1, 0))}, ValueError, r"padding .*\(\(front, back\), "),
    ("max_pool1d", (IMAGES, 2), {}, ValueError, r"x must have 3 dimensions"),
    ("max_pool3d", (IMAGES[..., None], (2, 2, 1)), {"padding": (0, 2, 0)}, ValueError, r"padding must leave a pixel"),
    ("avg_pool3d", (IMAGES[..., None], (2, 2)), {}, ValueError, r"window .* a triple"),
    ("global_avg_pool", (IMAGES[0, 0],), {}, ValueError, r"x must have 3 or more dimensions \(N, C, \.\.\.\), got 2"),
    ("batch_norm", (np.ones(4), *[np.ones(4)] * 4), {}, ValueError, r"x must have 2 or more dimensions"),
    ("gelu", (IMAGES,), {"approximate": "erf"}, ValueError, r"approximate must be one of 'none', 'tanh'"),
    ("leaky_relu", (IMAGES,), {"negative_slope": -1}, ValueError, r"negative_slope must be a finite number >= 0"),
    ("layer_norm", (IMAGES, np.ones(4), np.ones(4)), {}, ValueError, r"x must have shape \(\.\.\., \(4,\)\) to fit weight"),
    ("layer_norm", (IMAGES, np.ones(5), np.ones(4)), {}, ValueError, r"bias must have shape \(5,\)"),
    ("group_norm", (IMAGES, np.ones(4), np.ones(4)), {"groups": 3}, ValueError, r"groups must divide the 4 channels of x, got 3"),
    ("group_norm", (IMAGES, np.ones(3), np.ones(4)), {"groups": 2}, ValueError, r"weight must have shape \(4,\)"),
    ("group_norm", (IMAGES[..., :0], np.ones(4), np.ones(4)), {"groups": 2}, ValueError, r"at least one number a channel"),
    ("max_pool2d", (IMAGES[0], 2), {}, ValueError, r"x must have 4 dimensions"),
    ("max_pool2d", (IMAGES, 6), {}, ValueError, r"window's height of 6"),
    ("max_pool2d", (IMAGES, 2), {"padding": 2}, ValueError, r"padding must leave a pixel .* of 2 \(dilation 1, stride 2\) holds none of \d pixels"),
    ("avg_pool2d", (IMAGES, 0), {}, ValueError, r"window must be an integer >= 1"),
    ("avg_pool2d", (IMAGES, 2), {"stride": (1, 2, 3)}, ValueError, r"stride must be"),
    ("avg_pool2d", (IMAGES[:, :, :, :0], 2), {}, ValueError, r"window's width"),
    ("global_avg_pool2d", (IMAGES[..., :0],), {}, ValueError, r"at least one pixel"),
    ("dense", (LOGITS, np.ones((2, 5))), {}, ValueError, r"x must have shape \(\.\.\., 5\) to fit w"),
    ("dense", (LOGITS, np.ones(4)), {}, ValueError, r"w must have 2 dimensions"),
    ("dense", (LOGITS, np.ones((2, 4)), np.ones(3)), {}, ValueError, r"b must have shape \(2,\)"),
    ("batch_norm", (IMAGES, np.ones(3), *[np.ones(4)] * 3), {}, ValueError, r"weight must have shape \(4,\)"),
    ("batch_norm", (IMAGES[:1, :, :1, :1], *[np.ones(4)] * 4), {"train": True}, ValueError, r"x of shape .* at least 2"),
    ("dropout", (LOGITS,), {"rate": 1.0}, ValueError, r"rate must be in \[0, 1\)"),
    ("dropout", (LOGITS,), {"rng": "seed"}, TypeError, r"rng must be"),
    ("softmax", (LOGITS,), {"axis": 2}, ValueError, r"axis 2 is out of range .* -2 to 1"),
    ("log_softmax", (np.ones(()),), {"axis": 1}, ValueError, r"axis 1 is out of range .* -1 to 0"),
    ("logsumexp", (LOGITS,), {"axis": 0.5}, TypeError, r"axis must be an integer, a tuple"),
    ("logsumexp", (LOGITS,), {"axis": (0, True)}, TypeError, r"axis must be an integer, a tuple"),
    ("logsumexp", (LOGITS,), {"axis": (1, -1)}, ValueError, r"axis must name each axis once, got \(1, -1\)"),
    ("logsumexp", (LOGITS,), {"axis": (0, 2)}, ValueError, r"axis 2 is out of range"),
    ("cross_entropy", (np.ones(()), np.asarray(0)), {}, ValueError, r"logits must have at least one dimension"),
    ("dense", (np.ones(()), np.ones((2, 5))), {}, ValueError, r"x must have shape \(\.\.\., 5\) to fit w"),
    ("cross_entropy", (LOGITS, LABELS.astype(float)), {}, ValueError, r"target must have shape \(3, 4\)"),
    ("cross_entropy", (LOGITS, LABELS.astype("float32")), {}, TypeError, r"target must be labels of an integer dtype"),
    ("cross_entropy", (LOGITS, LABELS == 1), {}, TypeError, r"target must be labels of an integer dtype"),
    ("cross_entropy", (LOGITS, LABELS[:2]), {}, ValueError, r"target must have shape \(3,\)"),
    ("cross_entropy", (LOGITS, LABELS + 1), {}, ValueError, r"target\[2\] is 4, but labels must be in \[0, 4\)"),
    ("cross_entropy", (LOGITS, LABELS - 1), {}, ValueError, r"target\[0\] is -1"),
    ("cross_entropy", (LOGITS, LABELS), {"reduction": "avg"}, ValueError, r"reduction must be one of 'mean', 'sum', 'none'"),
    ("cross_entropy", (LOGITS, [0, 1, 3]), {}, TypeError, r"target must be an array"),
    ("nll_loss", (LOGITS.astype(int), LABELS), {}, TypeError, r"log_probs must have a real floating dtype"),
    ("categorical_cross_entropy", (LOGITS, LABELS), {"axis": 5}, ValueError, r"out of range for probs"),
    ("binary_cross_entropy", (LOGITS, LOGITS[:2]), {}, ValueError, r"target must have shape \(3, 4\)"),
    ("binary_cross_entropy_with_logits", (LOGITS, LABELS), {}, TypeError, r"target must have a real floating dtype"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arrays", "options", "error", "message"),
    CASES,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)],
)
def test_bad_input(name, arrays, options, error, message):
    operation = getattr(ax, name)
    with pytest.raises(error, match=message):
        operation(*arrays, **options)
    with pytest.raises(error, match=message):
        operation.vjp(*arrays, **options)


def test_a_bad_label_is_named_on_every_row(row):
    logits, labels = row.array(np.ones((2, 3, 2)), "float32"), row.array(np.array([[0, 1], [7, 2]]))
    if row.name == "dask":  # nothing is read from a graph: the bad label's loss is NaN
        loss = ax.cross_entropy(logits, labels, axis=1, reduction="none")
        assert np.isnan(ax.to_numpy(loss)).tolist() == [[False, False], [True, False]]
    else:
        with pytest.raises(
            ValueError, match=r"^target\[1, 0\] is 7, but labels must be in \[0, 3\)$"
        ):
            ax.cross_entropy(logits, labels, axis=1)


def test_an_unchecked_bad_label_is_nan(row):
    logits, labels = row.array(np.ones((3, 4)), "float32"), row.array(np.array([0, 4, -1]))

    def both(logits, labels):
        options = {"reduction": "none", "check_labels": False}
        loss, pullback = ax.cross_entropy.vjp(logits, labels, **options)
        return loss, pullback(loss * 0 + 1)[0]

    loss, gradient = row.call(both, logits, labels)
    assert np.isnan(ax.to_numpy(loss)).tolist() == [False, True, True]
    assert np.isnan(ax.to_numpy(gradient)).all(axis=1).tolist() == [False, True, True]
