"""Options of ``train`` that say what is minimised."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from cli_case import no_report as no_report
from cli_case import one_error_line
from cli_case import toys as toys

from agnostic_xent import cli, cross_entropy, focal_loss, generalized_cross_entropy, to_numpy


@pytest.fixture
def losses(monkeypatch):
    """Record the losses that `fit` is called with."""
    found, fit = [], cli.train.fit

    def spy(*arguments, loss, **options):
        found.append(loss)
        return fit(*arguments, loss=loss, **options)

    monkeypatch.setattr(cli.train, "fit", spy)
    return found


def train(*options):
    return cli.main(["train", "--epochs", "1", *options])


def test_cross_entropy_unless_somebody_says_otherwise(toys, losses):
    assert train() == 0
    assert losses == [cross_entropy]


CHOICES = {
    "prior": (["--class-prior"], cross_entropy, ("class_prior",)),
    "smooth": (["--label-smoothing", "0.1"], cross_entropy, ("label_smoothing",)),
    "both": (
        ["--label-smoothing", "0.1", "--class-prior"],
        cross_entropy,
        ("label_smoothing", "class_prior"),
    ),
    "focal": (["--loss", "focal_loss"], focal_loss, ()),
    "generalized": (
        ["--loss", "generalized_cross_entropy", "--label-smoothing", "0.1"],
        generalized_cross_entropy,
        ("label_smoothing",),
    ),
}
OPTIONS = {"class_prior": [40, 40], "label_smoothing": 0.1}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_minimised(toys, losses, no_report, tmp_path, choice):
    arguments, operation, names = CHOICES[choice]
    assert train(*arguments, "--out", str(tmp_path)) == 0
    (loss,) = losses
    given = loss.keywords if isinstance(loss, functools.partial) else {}
    assert (loss.func if given else loss) is operation
    assert tuple(given) == names
    for name in names:
        np.testing.assert_array_equal(to_numpy(given[name]), OPTIONS[name])
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["loss"] == operation.name
    assert kept["class_prior"] == ("class_prior" in names)
    assert kept["label_smoothing"] == (0.1 if "label_smoothing" in names else 0)


def test_a_prior_is_where_the_samples_are(toys, losses):
    torch = pytest.importorskip("torch")
    assert train("--class-prior", "--backend", "torch") == 0
    assert isinstance(losses[0].keywords["class_prior"], torch.Tensor)


@pytest.mark.parametrize("choice", ["both", "focal"])
def test_a_folder_keeps_what_was_minimised(toys, no_report, tmp_path, choice):
    pytest.importorskip("sklearn")
    from agnostic_xent import load_classifier

    arguments, operation, names = CHOICES[choice]
    assert train(*arguments, "--out", str(tmp_path)) == 0
    found = load_classifier(tmp_path)
    assert found.class_prior == ("empirical" if "class_prior" in names else None)
    smoothed = functools.partial(operation, label_smoothing=0.1)
    assert repr(found.loss) == repr(smoothed if "label_smoothing" in names else operation)


ERRORS = {
    "no such loss": (["--loss", "hinge"], "argument --loss: invalid choice"),
    "no share": (["--label-smoothing", "1"], "argument --label-smoothing: must be a number in [0"),
    "prior of another loss": (
        ["--loss", "focal_loss", "--class-prior"],
        "argument --class-prior: is for cross_entropy, not for focal_loss",
    ),
    "loss of rows": (
        ["logistic", "--loss", "focal_loss"], "argument --loss: is for networks, not for logistic",
    ),
    "prior of rows": (["logistic", "--class-prior"], "argument --class-prior: is for networks"),
    "smooth rows": (
        ["logistic", "--label-smoothing", "0.1"], "argument --label-smoothing: is for networks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_errors(toys, losses, capsys, error):
    arguments, text = ERRORS[error]
    assert train(*arguments) == 2
    assert one_error_line(capsys).startswith(text)
    assert losses == []
