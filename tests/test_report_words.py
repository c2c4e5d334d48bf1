"""What the report says of a training in words, and of the mistakes of a class."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agnostic_xent.evaluation.page import _scores
from agnostic_xent.evaluation.words import best_epoch, in_words

CHANCE = math.log(2)


def curves(training, validation=None):
    lines = {"training": training} | ({} if validation is None else {"validation": validation})
    return {"loss": lines}


@pytest.mark.parametrize(
    ("training", "validation", "best", "said"),
    [
        ([0.6, 0.5], None, None, ""),
        ([0.7, 0.69, 0.693], None, None, "is still that of chance, 0.6931"),
        ([0.7, 0.69, 0.693], [0.69, 0.7, 0.7], 1, "is still that of chance"),
        ([0.6, 0.5, 0.4], None, None, "The loss still falls at the end: more epochs may help."),
        ([0.6, 0.4, 0.399], None, None, "The loss no longer falls at the end."),
        (
            [0.6, 0.4, 0.2, 0.1],
            [0.5, 0.3, 0.35, 0.4],
            2,
            "least, 0.3, at epoch 2. Since then it has risen to 0.4, and that of the training",
        ),
        ([0.6, 0.4, 0.2], [0.5, 0.4, 0.3], 3, "at epoch 3. The loss still falls"),
        ([0.6, 0.4, 0.2], [0.5, 0.3, 0.301], 2, "at epoch 2. The loss no longer falls"),
        ([0.6, 0.4, 0.3], [0.2, 0.4, 0.3], 1, "at epoch 1. Since then it has risen"),
        ([0.6, 0.6, 0.6], [0.2, 0.4, 0.3], 1, "at epoch 1. The loss no longer falls"),
        ([0.1, 0.4, 0.5], [0.2, 0.4, 0.5], 1, "The loss no longer falls"),  # both rise
        ([0.6, 0.5, 0.4], [math.nan] * 3, 1, "The loss no longer falls"),
    ],
)
def test_a_training_in_words(training, validation, best, said):
    found = in_words(curves(training, validation), CHANCE)
    assert said in found
    assert bool(said) == bool(found)
    assert best_epoch(curves(training, validation)) == best


def test_an_objective_has_no_epochs():
    lines = {"objective": {"training": [0.5, 0.4, 0.3, 0.2]}}
    assert in_words(lines, CHANCE, "iteration") == ""
    assert best_epoch(lines) is None


def test_where_the_mistakes_of_a_class_go():
    matrix = np.asarray([[5, 1, 2], [0, 9, 0], [3, 3, 1]])
    found = [row["taken_for"] for row in _scores(matrix, ["a", "b", "c"])]
    assert found == ["c, 2", "–", "a, 3"]
