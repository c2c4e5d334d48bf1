"""Options of ``train`` that say how steps are taken, and what they start from."""

from __future__ import annotations

import types

import numpy as np
import pytest
from cli_case import keep_model, one_error_line
from cli_case import no_report as no_report
from cli_case import toys as toys
from training_case import same

from agnostic_xent import ClipByNorm, CutMix, Mixup, MovingAverage, cli, load_params


@pytest.fixture
def calls(monkeypatch):
    """Record what `fit` is called with, and what it returns."""
    found, fit = [], cli.train.fit

    def spy(model, params, data, **options):
        result, history = fit(model, params, data, **options)
        found.append(types.SimpleNamespace(params=params, result=result, **options))
        return result, history

    monkeypatch.setattr(cli.train, "fit", spy)
    return found


def test_nothing_is_tuned_unless_somebody_says_so(toys, calls):
    assert cli.main(["train", "--epochs", "1"]) == 0
    (run,) = calls
    assert (run.accumulate, run.drop_last, run.trainable) == (1, False, None)
    assert not isinstance(run.optimizer, ClipByNorm | MovingAverage)


@pytest.mark.parametrize(("options", "steps"), [([], 2), (["--drop-last"], 1)])
def test_options_of_steps_reach_the_training(toys, calls, options, steps):
    """80 samples are a step of 3 times 25 and another one of 5."""
    options = ["--accumulate", "3", "--clip", "0.5", "--average", "0.9", *options]
    assert cli.main(["train", "--epochs", "2", "--batch-size", "25", *options]) == 0
    (run,) = calls
    assert (run.accumulate, run.drop_last) == (3, "--drop-last" in options)
    assert run.optimizer.decay == 0.9
    assert run.optimizer.optimizer.norm == 0.5
    assert run.optimizer.rate(2 * steps - 1) > 0 == run.optimizer.rate(2 * steps)


@pytest.mark.parametrize("mix", [Mixup(), CutMix()])
def test_mixtures_reach_the_training(toys, calls, mix, capsys):
    name = type(mix).__name__.lower()
    assert cli.main(["train", "--epochs", "1", "--mix", name]) == 0
    assert calls[0].mix == mix
    capsys.readouterr()
    assert cli.main(["train", "logistic", "--mix", name]) == 2
    known = "cnn and signals" if name == "mixup" else "cnn"
    error = f"argument --mix: {name} is for {known}, not for logistic"
    assert one_error_line(capsys) == error


def test_averages_are_kept(toys, calls, no_report, tmp_path):
    assert cli.main(["train", "--epochs", "1", "--average", "0.9", "--out", str(tmp_path)]) == 0
    same(load_params(tmp_path / "model.safetensors"), calls[0].result)


def test_a_last_layer_for_other_classes(toys, calls, no_report, tmp_path):
    """Alone, and with all the others; the layers before are those of the model in the folder."""
    old = keep_model(tmp_path / "old", classes=("a", "b", "c"))
    source = load_params(old / "model.safetensors")
    for options in (["--freeze"], []):
        assert cli.main(["train", "--epochs", "1", "--start", str(old), *options]) == 0
    frozen, free = calls
    (last,) = frozen.trainable
    assert f"{last}.weight" == next(k for k, w in source.items() if w.ndim == 2)
    assert frozen.params[f"{last}.weight"].shape[0] == 2
    for name, w in source.items():
        if not name.startswith(f"{last}."):
            np.testing.assert_array_equal(frozen.params[name], w)
            np.testing.assert_array_equal(frozen.result[name], w)
    assert any((free.result[name] != w).any() for name, w in source.items() if "weight" in name
               and not name.startswith(f"{last}."))  # fmt: skip


ERRORS = {
    "nothing to freeze": (["--freeze"], "argument --freeze: needs --start"),
    "no folder": (["--start", "nowhere"], "--start: argument DIR: nowhere must be a folder"),
    "no count": (["--accumulate", "0"], "argument --accumulate: must be an integer >= 1"),
    "no share": (["--average", "1"], "argument --average: must be a number in [0, 1)"),
    "no norm": (["--clip", "-1"], "argument --clip: must be a number > 0"),
    "no step": (
        ["--drop-last", "--batch-size", "81"], "drop_last=True leaves no step: one takes 81",
    ),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_errors(toys, capsys, error):
    arguments, text = ERRORS[error]
    assert cli.main(["train", *arguments]) == 2
    found = capsys.readouterr().err
    assert text in found
    assert found.count("\n") == 1


@pytest.mark.parametrize("kind", ["logistic", "cnn"])
def test_a_model_of_other_samples_is_refused(toys, capsys, tmp_path, kind):
    shape = (1, 8, 9) if kind == "cnn" else (3,)
    old = keep_model(tmp_path / "old", model=kind, shape=shape)
    assert cli.main(["train", kind, "--start", str(old)]) == 2
    assert (
        "argument --start: is for cnn or signals and samples of the same shape"
        in capsys.readouterr().err
    )
