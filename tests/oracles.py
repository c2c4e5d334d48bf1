"""Slow, plain references in float64, written from the formulas with loops over single elements."""

from __future__ import annotations

import math
from itertools import product

import numpy as np


def elementwise(f):
    return lambda x: np.array([f(float(v)) for v in x.ravel()]).reshape(x.shape)


relu = elementwise(lambda v: v if v > 0 else 0.0)
sigmoid = elementwise(
    lambda v: 1 / (1 + math.exp(-v)) if v > 0 else math.exp(v) / (1 + math.exp(v))
)
log_sigmoid = elementwise(lambda v: min(v, 0.0) - math.log1p(math.exp(-abs(v))))


tanh = elementwise(math.tanh)
silu = elementwise(lambda v: v * float(sigmoid(np.asarray(v))))


def leaky_relu(x, *, negative_slope=0.01):
    return elementwise(lambda v: v if v > 0 else negative_slope * v)(x)


def gelu(x, *, approximate="none"):
    if approximate == "tanh":
        inner = lambda v: math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)  # noqa: E731
        return elementwise(lambda v: v * (1 + math.tanh(inner(v))) / 2)(x)
    return elementwise(lambda v: v * math.erfc(-v / math.sqrt(2)) / 2)(x)


def rows(f):
    """Apply a function of one row along an axis."""

    def along(x, *, axis=-1):
        if x.size == 0:
            return x
        if x.ndim == 0:
            return f(x.reshape(1)).reshape(())
        last = np.moveaxis(x, axis, -1)
        found = np.array([f(row) for row in last.reshape(-1, last.shape[-1])])
        return np.moveaxis(found.reshape(last.shape), -1, axis)

    return along


def _logsumexp(row):
    top = max(row)
    return top + math.log(math.fsum(math.exp(v - top) for v in row))


def logsumexp(x, *, axis=-1, keepdims=False):
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = {a % x.ndim for a in axes if x.ndim}
    y = np.empty([1 if a in axes else n for a, n in enumerate(x.shape)])
    for place in np.ndindex(y.shape):
        part = x[tuple(slice(None) if a in axes else slice(i, i + 1) for a, i in enumerate(place))]
        y[place] = _logsumexp(part.ravel()) if part.size else -math.inf
    return y if keepdims else y.squeeze(tuple(axes))


@rows
def log_softmax(row):
    shifted = row - max(row)
    return shifted - _logsumexp(shifted)


@rows
def softmax(row):
    exps = [math.exp(v - max(row)) for v in row]
    return np.array(exps) / math.fsum(exps)


def sizes(v, rank):
    return (v,) * rank if isinstance(v, int) else tuple(v)


def margins(padding, window, stride, dilation, image):
    if padding == "valid":
        return ((0, 0),) * len(image)
    if padding == "same":
        out = []
        for n, k, s, d in zip(image, window, stride, dilation, strict=True):
            size = -(-n // s)
            total = max(0, (size - 1) * s + (k - 1) * d + 1 - n)
            out.append((total // 2, total - total // 2))
        return tuple(out)
    return tuple(sizes(side, 2) for side in sizes(padding, len(image)))


def conv(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None):
    (n, _, *image), (k, cg, *window) = x.shape, w.shape
    rank = len(image)
    stride, dilation = sizes(stride, rank), sizes(dilation, rank)
    edges = margins(padding, window, stride, dilation, image)
    out = [
        (image[a] + sum(edges[a]) - dilation[a] * (window[a] - 1) - 1) // stride[a] + 1
        for a in range(rank)
    ]
    y = np.zeros((n, k, *out))
    for m, f, *place in product(range(n), range(k), *map(range, out)):
        group = f // (k // groups)
        total = 0.0 if b is None else float(b[f])
        for ch, *tap in product(range(cg), *map(range, window)):
            at = [place[a] * stride[a] + tap[a] * dilation[a] - edges[a][0] for a in range(rank)]
            if all(0 <= at[a] < image[a] for a in range(rank)):
                total += float(w[f, ch, *tap]) * float(x[m, group * cg + ch, *at])
        y[m, f, *place] = max(total, 0.0) if activation == "relu" else total
    return y


conv1d = conv2d = conv3d = conv


def _pool_size(n, k, s, before, after, d, ceil_mode):
    span = n + before + after - d * (k - 1) - 1
    size = (math.ceil(span / s) if ceil_mode else span // s) + 1
    if ceil_mode and (size - 1) * s >= n + before:
        size -= 1
    return size


def _pool(x, window, stride, padding, dilation, ceil_mode, value):
    image = x.shape[2:]
    axes = range(len(image))
    window, dilation = sizes(window, len(image)), sizes(dilation, len(image))
    stride = window if stride is None else sizes(stride, len(image))
    edges = margins(padding, window, stride, dilation, image)
    out = [
        _pool_size(image[a], window[a], stride[a], *edges[a], dilation[a], ceil_mode) for a in axes
    ]
    y = np.zeros((*x.shape[:2], *out))
    for n, c, *place in product(*map(range, y.shape)):
        starts = [place[a] * stride[a] - edges[a][0] for a in axes]
        met = [
            [starts[a] + tap[a] * dilation[a] for a in axes] for tap in product(*map(range, window))
        ]
        inside = [float(x[n, c, *at]) for at in met if all(0 <= at[a] < image[a] for a in axes)]
        padded = math.prod(
            min(starts[a] + window[a], image[a] + edges[a][1]) - starts[a] for a in axes
        )
        y[n, c, *place] = value(inside, padded)
    return y


def max_pool(x, window, *, stride=None, padding=0, dilation=1, ceil_mode=False):
    return _pool(x, window, stride, padding, dilation, ceil_mode, lambda inside, _: max(inside))


def avg_pool(x, window, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    def mean(inside, padded):
        return math.fsum(inside) / (padded if count_include_pad else len(inside))

    return _pool(x, window, stride, padding, 1, ceil_mode, mean)


max_pool1d = max_pool2d = max_pool3d = max_pool
avg_pool1d = avg_pool2d = avg_pool3d = avg_pool


def global_avg_pool(x):
    return np.array([[math.fsum(channel.ravel()) / channel.size for channel in n] for n in x])


global_avg_pool2d = global_avg_pool


def dense(x, w, b=None):
    y = np.array([[math.fsum(r * v) for v in w] for r in x.reshape(-1, x.shape[-1])])
    return y.reshape(*x.shape[:-1], w.shape[0]) + (0 if b is None else b)


def batch_norm(
    x, weight, bias, running_mean, running_var, *, train=False, momentum=0.1, eps=1e-5,
    activation=None,
):  # fmt: skip
    y, mean, var = np.zeros_like(x), running_mean.copy(), running_var.copy()
    for c in range(x.shape[1]):
        values = x[:, c].ravel()
        m, v = running_mean[c], running_var[c]
        if train:
            m = math.fsum(values) / values.size
            v = math.fsum((values - m) ** 2) / values.size
            mean[c] = (1 - momentum) * running_mean[c] + momentum * m
            unbiased = v * values.size / (values.size - 1)
            var[c] = (1 - momentum) * running_var[c] + momentum * unbiased
        y[:, c] = (x[:, c] - m) / math.sqrt(v + eps) * weight[c] + bias[c]
    return relu(y) if activation == "relu" else y, mean, var


def _standardized(values, eps):
    mean = math.fsum(values) / values.size
    var = math.fsum((values - mean) ** 2) / values.size
    return (values - mean) / math.sqrt(var + eps)


def layer_norm(x, weight, bias, *, eps=1e-5):
    flat = x.reshape(-1, weight.size)
    y = np.array([_standardized(row, eps) for row in flat]).reshape(x.shape)
    return y * weight + bias


def group_norm(x, weight, bias, *, groups, eps=1e-5):
    flat = x.reshape(len(x) * groups, -1)
    y = np.array([_standardized(row, eps) for row in flat]).reshape(x.shape)
    per_channel = (-1, *(1 for _ in x.shape[2:]))
    return y * weight.reshape(per_channel) + bias.reshape(per_channel)


def add(x1, x2, *, activation=None):
    return relu(x1 + x2) if activation == "relu" else x1 + x2


def dropout(x, *, rate=0.5, rng):
    keep = np.random.default_rng(rng).random(x.shape) >= rate
    return x * keep / (1 - rate)


# --- losses --------------------------------------------------------------------------------------


def reduced(terms, reduction):
    if reduction == "none":
        return terms
    total = math.fsum(terms.ravel())
    return np.array(total if reduction == "sum" else total / terms.size)


def _class_terms(log_p, target, axis):
    log_p = np.moveaxis(log_p, axis, -1)
    flat = log_p.reshape(-1, log_p.shape[-1])
    if target.dtype.kind in "iu":
        terms = [
            -row[t] if 0 <= t < len(row) else math.nan  # what is not checked
            for row, t in zip(flat, target.ravel(), strict=True)
        ]
    else:
        soft = np.moveaxis(target, axis, -1).reshape(flat.shape)
        terms = [
            -math.fsum(t * v for t, v in zip(probs, row, strict=True) if t != 0)
            for probs, row in zip(soft, flat, strict=True)
        ]
    return np.array(terms).reshape(log_p.shape[:-1])


def cross_entropy(logits, target, *, axis=-1, reduction="mean", check_labels=True):
    return reduced(_class_terms(log_softmax(logits, axis=axis), target, axis), reduction)


def linear_cross_entropy(x, weight, target, bias=None, *, reduction="mean", memory=None):
    return cross_entropy(dense(x, weight, bias), target, reduction=reduction)


def nll_loss(log_probs, target, *, axis=-1, reduction="mean", check_labels=True):
    return reduced(_class_terms(log_probs, target, axis), reduction)


def categorical_cross_entropy(probs, target, *, axis=-1, reduction="mean", check_labels=True):
    return reduced(_class_terms(np.log(probs), target, axis), reduction)


def binary_cross_entropy(probs, target, *, reduction="mean"):
    def log(v):
        return max(math.log(v), -100.0) if v > 0 else -100.0

    terms = [
        -(t * log(p) + (1 - t) * log(1 - p))
        for p, t in zip(probs.ravel(), target.ravel(), strict=True)
    ]
    return reduced(np.array(terms).reshape(probs.shape), reduction)


def binary_cross_entropy_with_logits(logits, target, *, reduction="mean"):
    terms = [
        max(z, 0) - z * t + math.log1p(math.exp(-abs(z)))
        for z, t in zip(logits.ravel(), target.ravel(), strict=True)
    ]
    return reduced(np.array(terms).reshape(logits.shape), reduction)


def _cost_terms(logits, target, axis, cost):
    """Terms of a loss that is a cost of log p, summed with the target's probabilities."""
    log_p = log_softmax(logits, axis=axis)
    return _class_terms(-np.vectorize(cost, otypes=[float])(log_p), target, axis)


def focal_loss(logits, target, *, gamma=2.0, axis=-1, reduction="mean"):
    def cost(v):
        return -((1 - math.exp(v)) ** gamma) * v

    return reduced(_cost_terms(logits, target, axis, cost), reduction)


def generalized_cross_entropy(logits, target, *, q=0.7, axis=-1, reduction="mean"):
    return reduced(
        _cost_terms(logits, target, axis, lambda v: (1 - math.exp(v) ** q) / q), reduction
    )


def binary_focal_loss(logits, target, *, gamma=2.0, reduction="mean"):
    terms = []
    for z, t in zip(logits.ravel(), target.ravel(), strict=True):
        p = 1 / (1 + math.exp(-z))
        terms.append(-t * (1 - p) ** gamma * math.log(p) - (1 - t) * p**gamma * math.log(1 - p))
    return reduced(np.array(terms).reshape(logits.shape), reduction)


def _rows(x, axis):
    moved = np.moveaxis(x, axis, -1)
    return moved.reshape(-1, moved.shape[-1]), moved.shape[:-1]


def kl_divergence(logits, target_logits, *, temperature=1.0, axis=-1, reduction="mean"):
    (log_p, shape), (log_r, _) = (
        _rows(log_softmax(x / temperature, axis=axis), axis) for x in (logits, target_logits)
    )
    terms = [
        temperature**2 * math.fsum(math.exp(r) * (r - p) for p, r in zip(*rows, strict=True))
        for rows in zip(log_p, log_r, strict=True)
    ]
    return reduced(np.array(terms).reshape(shape), reduction)


def jensen_shannon_divergence(logits, target, *, mixing=0.5, axis=-1, reduction="mean"):
    probs, shape = _rows(np.exp(log_softmax(logits, axis=axis)), axis)
    if target.dtype.kind in "iu":
        targets = np.eye(probs.shape[1])[target.ravel()]
    else:
        targets, _ = _rows(target, axis)
    terms = []
    for p, t in zip(probs, targets, strict=True):
        m = mixing * t + (1 - mixing) * p
        of_t = math.fsum(v * math.log(v / w) for v, w in zip(t, m, strict=True) if v > 0)
        of_p = math.fsum(v * math.log(v / w) for v, w in zip(p, m, strict=True))
        terms.append(mixing * of_t + (1 - mixing) * of_p)
    return reduced(np.array(terms).reshape(shape), reduction)
