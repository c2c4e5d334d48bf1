"""Two trainings beside each other on one page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..core.files import write_atomically
from ..core.requirements import missing
from ..training.history import History
from .lettering import drawing, printable
from .page import TEMPLATE, svg
from .pictures import BLUE, STYLE, VERMILION, Curves, curves_of
from .words import best_epoch, in_words

__all__ = ["Trained", "save_comparison"]

COMPARISON = TEMPLATE.with_name("comparison.html")
COLORS = BLUE, VERMILION
LINES = {"training": ":", "validation": "-"}


class Trained(NamedTuple):
    """A training as it is compared."""

    name: str
    history: History
    chance: float
    """The loss of a model that knows the classes alone."""
    settings: Mapping[str, str]


def save_comparison(path: str | os.PathLike[str], first: Trained, second: Trained) -> None:
    """Write a page with the curves of two trainings, their ends, and the settings that differ.

    Parameters
    ----------
    path : path
        The file; an older one is replaced only when the new one is complete.
    first, second : Trained
        With an epoch at least.

    Raises
    ------
    ImportError
        If matplotlib or jinja2 is not installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing("a report", "matplotlib", "jinja2") from error

    runs = first, second
    names = [printable(run.name) for run in runs]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    style = TEMPLATE.read_text("utf-8").partition("<style>")[2].partition("</style>")[0]
    with drawing(STYLE | {"svg.hashsalt": "agnostic_xent", "svg.fonttype": "path"}, names):
        page = environment.from_string(COMPARISON.read_text("utf-8")).render(
            style=style,
            names=names,
            ends=_rows(*map(_ends, runs)),
            words=[in_words(curves_of(run.history), run.chance) for run in runs],
            picture=svg((8.0, 6.0), _drawn(names, [curves_of(run.history) for run in runs])),
            settings=sorted(
                _rows(*(run.settings for run in runs)), key=lambda row: row[1] == row[2]
            ),
        )
    write_atomically(path, page.encode())


def _ends(run: Trained) -> dict[str, str]:
    """Return where a training ended, in numbers."""
    last, best = run.history[-1], best_epoch(curves_of(run.history))
    found = {
        "test accuracy": last.validation_accuracy,
        "test loss": last.validation_loss,
        "training accuracy": last.accuracy,
        "training loss": last.loss,
    }
    numbers = {
        name: f"{x:.4f}" if name.endswith("accuracy") else f"{x:.4g}"
        for name, x in found.items()
        if x is not None
    }
    if best is not None:
        numbers["epoch of the least test loss"] = f"{best} of {len(run.history)}"
    return numbers | {"training": f"{sum(run.history.column('seconds')):.3g} s"}


def _rows(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return what two mappings hold, by name; a dash where one has nothing."""
    names = dict.fromkeys([*first, *second])
    return [(x, printable(first.get(x, "–")), printable(second.get(x, "–"))) for x in names]


def _drawn(names: list[str], runs: list[Curves]) -> Callable[[Any], None]:
    """Return what draws the loss and the accuracy of both trainings."""

    def draw(figure: Any) -> None:
        axes = figure.subplots(2, 1, sharex=True)
        for ax, quantity in zip(axes, ("loss", "accuracy"), strict=True):
            ax.set_title(quantity.capitalize(), loc="left", fontweight="bold")
            ax.grid(axis="y", color="#E6E6E6")
            for name, curves, color in zip(names, runs, COLORS, strict=True):
                for of, values in curves[quantity].items():
                    epochs = range(1, len(values) + 1)
                    ax.plot(epochs, values, LINES[of], color=color, lw=2, label=f"{name}, {of}")
        axes[0].legend(frameon=False)
        axes[1].set_xlabel("epoch")

    return draw
