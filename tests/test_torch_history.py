"""torch's autograd: what trains or predicts keeps no record, and what is an operation does."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import agnostic_xent as ax  # noqa: E402

SEED, SAMPLES = 5, 24
MODEL = ax.Sequential(ax.Conv2d(2, 3), ax.ReLU(), ax.Flatten(), ax.Dense(3))
RNG = np.random.default_rng(SEED)
LABELS = torch.asarray(RNG.integers(0, 3, SAMPLES))


def recorded(*shape):
    """Return what a network in front of ours would hand over: a tensor with a history."""
    return torch.asarray(RNG.standard_normal(shape).astype("float32")).requires_grad_() * 1.0


def leaves():
    """Return parameters as ``dict(net.named_parameters())`` has them."""
    return {
        name: torch.nn.Parameter(w)
        for name, w in ax.to_backend(MODEL.init(SEED, (1, 6, 6))[0], torch).items()
    }


def trained(data, **changed):
    options = {"loss": ax.cross_entropy, "optimizer": ax.SGD(0.1, 0.9), "epochs": 1, "rng": 0}
    return ax.fit(MODEL, leaves(), data, batch_size=8, **options | changed)[0]


def stepped(optimizer):
    params, state = leaves(), optimizer.init(leaves())
    for _ in range(2):
        grads = {name: recorded(*w.shape) for name, w in params.items() if name != "3.bias"}
        params, state = optimizer.update(params, grads, state)
    return params, state


def classified(classifier, *shape):
    x = recorded(SAMPLES, *shape)
    classifier.fit(x, LABELS, sample_weight=recorded(SAMPLES) ** 2)
    assert isinstance(classifier.score(x, LABELS), float)
    copy.deepcopy(classifier)
    return vars(classifier), classifier.predict_log_proba(x), classifier.decision_function(x)


def logistic(**options):
    pytest.importorskip("sklearn")
    return classified(ax.LogisticRegression(random_state=0, **options), 5)


def network():
    pytest.importorskip("sklearn")
    return classified(ax.CNNClassifier(MODEL, epochs=1, random_state=0), 1, 6, 6)


RESULTS = {
    "fit": lambda: trained((recorded(SAMPLES, 1, 6, 6), LABELS)),
    "fit of batches": lambda: trained([(recorded(8, 1, 6, 6), LABELS[:8])]),
    "fit with class weights": lambda: trained(
        (recorded(SAMPLES, 1, 6, 6), LABELS),
        loss=functools.partial(ax.cross_entropy, weight=recorded(3) ** 2),
    ),
    "predict": lambda: ax.predict(MODEL, leaves(), recorded(SAMPLES, 1, 6, 6), batch_size=10),
    "SGD": lambda: stepped(ax.SGD(0.1, 0.9)),
    "AdamW": lambda: stepped(ax.AdamW()),
    "LogisticRegression, lbfgs": logistic,
    "LogisticRegression, sgd": lambda: logistic(solver="sgd"),
    "LogisticRegression, average": lambda: logistic(solver="sgd", average=True),
    "CNNClassifier": network,
}


def tensors(found):
    """Yield all tensors in dicts, tuples and lists."""
    if isinstance(found, dict | tuple | list):
        for part in found.values() if isinstance(found, dict) else found:
            yield from tensors(part)
    elif isinstance(found, torch.Tensor):
        yield found


@pytest.mark.parametrize("name", RESULTS)
def test_what_has_its_own_gradients_records_nothing(name):
    found = [*tensors(RESULTS[name]())]
    assert found
    for x in found:
        assert not x.requires_grad
        np.asarray(x)


def test_evaluate_reads_numbers():
    data = recorded(SAMPLES, 1, 6, 6), LABELS
    weighted = functools.partial(ax.cross_entropy, weight=recorded(3) ** 2)
    loss, accuracy = ax.evaluate(MODEL, leaves(), data, loss=weighted, batch_size=10)
    assert np.isfinite(loss)
    assert 0 <= accuracy <= 1


def test_an_operation_is_recorded():
    x, w = recorded(SAMPLES, 5), torch.zeros((3, 5), requires_grad=True)
    ax.cross_entropy(ax.dense(x, w), LABELS).backward()
    expected = ax.cross_entropy.vjp(torch.zeros((SAMPLES, 3)), LABELS)[1](torch.asarray(1.0))[0]
    torch.testing.assert_close(w.grad, expected.T @ x.detach())
