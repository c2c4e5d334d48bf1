"""The history of a run: its JSON comes back, and what is not a history is an error."""

import math

import pytest

from agnostic_xent import History
from agnostic_xent.training.history import Epoch

NAN = math.nan


def test_json_comes_back():
    history = History(
        [Epoch(1, 0.5, 0.8, 0.1, 2.0, 100.0), Epoch(2, 0.25, 0.9, 0.05, 2.5, 80.0, 0.3, 0.85)]
    )
    assert History.from_json(history.to_json()) == history
    assert type(History.from_json(history.to_json())) is History
    assert History.from_json(History().to_json()) == []


def test_what_is_not_finite_comes_back_as_nan():
    history = History([Epoch(1, math.inf, 0.8, 0.1, 2.0, 100.0, NAN, 0.1)])
    (epoch,) = History.from_json(history.to_json())
    assert math.isnan(epoch.loss)
    assert (epoch.accuracy, epoch.validation_loss, epoch.validation_accuracy) == (0.8, None, 0.1)


@pytest.mark.parametrize("text", ["", "{}", "3", "[3]", "[{}]", '[{"epoch": 1}]', '[{"x": 1}]'])
def test_other_text_is_an_error(text):
    with pytest.raises(ValueError, match="text must be the JSON of a history"):
        History.from_json(text)
