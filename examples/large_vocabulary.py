"""The head of a language model: the loss over 50,000 words without the array of their logits."""

import resource

import numpy as np

from agnostic_xent import cross_entropy, dense, linear_cross_entropy

TOKENS, FEATURES, WORDS = 1024, 32, 50_000
rng = np.random.default_rng(0)
x = rng.standard_normal((TOKENS, FEATURES), dtype="float32")
weight = rng.standard_normal((WORDS, FEATURES), dtype="float32") / 6
words = rng.integers(0, WORDS, TOKENS)


def in_parts(x, words):
    """Return loss and gradients with a part of the logits in memory at a time."""
    loss, pullback = linear_cross_entropy.vjp(x, weight, words, wrt=(0, 1))
    return loss, *pullback(np.ones_like(loss))[:2]


def by_logits(x, words):
    """Return the same through the (TOKENS, WORDS) array of logits."""
    logits, pull_dense = dense.vjp(x, weight)
    loss, pull_loss = cross_entropy.vjp(logits, words, wrt=(0,))
    return loss, *pull_dense(pull_loss(np.ones_like(loss))[0])[:2]


def peak():
    """Return the most memory that the process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


for way in (in_parts, by_logits):
    way(x[:2], words[:2])  # loads the kernels
for way in (in_parts, by_logits):  # in this order: the peak never falls
    before = peak()
    loss, dx, dweight = way(x, words)
    print(f"{way.__name__:9}: loss {loss:.4f}, |dx| {np.linalg.norm(dx):.5f}, ", end="")
    print(f"{peak() - before:.0f} MiB more than before")
