"""What the curves of a training say, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FEWEST = 3
"""Epochs from which curves say something."""
STILL = 0.01
"""A loss that fell by more than this share in the last tenth of the training still falls."""
RISEN = 1.05
"""A validation loss of so many times its least has risen."""
CHANCE = 0.98
"""The share of the loss of chance above which a loss has not left it."""


def best_epoch(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> int | None:
    """Return the epoch, counted from 1, after which the validation loss was least."""
    losses = curves.get("loss", {}).get("validation")
    return None if not losses else min(range(len(losses)), key=losses.__getitem__) + 1


def in_words(
    curves: Mapping[str, Mapping[str, Sequence[float]]], chance: float, unit: str = "epoch"
) -> str:
    """Return what the losses of a training say; nothing where there are too few.

    Parameters
    ----------
    curves : mapping
        Such as `curves_of` a history.
    chance : float
        The loss of a model that knows the shares of the classes alone.
    unit : str
        What a training is counted in.
    """
    lines = curves.get("loss", {})
    training, validation = lines.get("training", ()), lines.get("validation", ())
    if len(training) < FEWEST:
        return ""
    if training[-1] > CHANCE * chance:
        return (
            f"The loss, {training[-1]:.4g}, is still that of chance, {chance:.4g}: nothing is "
            "learnt. Look at the learning rate, the scale of the samples, and the labels."
        )
    best, said = best_epoch(curves), []
    if best is not None:
        said.append(f"The validation loss was least, {validation[best - 1]:.4g}, at {unit} {best}.")
        if validation[-1] > RISEN * validation[best - 1] and training[-1] < training[best - 1]:
            said.append(
                f"Since then it has risen to {validation[-1]:.4g}, and that of the training has "
                "fallen: the model overfits. Augmentation, weight decay or early stopping help."
            )
            return " ".join(said)
    watched = validation or training
    tenth = max(1, len(watched) // 10)
    falls = watched[-1] < (1 - STILL) * watched[-1 - tenth]
    falls = falls and (best is None or best > len(watched) - tenth)
    said.append(
        f"The loss still falls at the end: more {unit}s may help."
        if falls
        else "The loss no longer falls at the end."
    )
    return " ".join(said)
