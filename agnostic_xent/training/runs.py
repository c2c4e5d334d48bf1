"""Where a training run stands, and the file that it goes on from."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.arrays import Array, array_namespace, device, library
from ..core.conversion import to_backend
from ..core.files import remove_left_over
from ..core.locks import locked
from ..network.checkpoints import checksum, host_arrays, load_record, save_record
from ..network.layers import Params
from .batches import ArraySource, Source
from .history import Epoch, History
from .objective import operation_of, options_of
from .optimizers import State
from .steps import Task

if TYPE_CHECKING:
    import numpy as np

__all__ = ["load_checkpoint"]

FILE = "checkpoint.safetensors"
PACKAGES = ("agnostic-xent", "numpy", "numba")
"""Whose versions have to be the same on all ranks."""

OPTIMIZER = "optimizer"
START, RNG = "start (checksum of its parameters)", "rng (checksum of its first state)"
STEPS = re.compile(r"\bsteps=\d+")
"""In the text of an optimizer, how long its schedule is."""

KIND = "checkpoint of agnostic_xent, version 1"


@dataclass
class Run:
    """Where a run stands between two epochs: all that the next one depends on."""

    params: Params
    state: State
    """Of the optimizer."""
    rng: np.random.Generator
    history: History = field(default_factory=History)
    ended: bool = False
    """Whether a callback has ended it."""


class RunFile:
    """The file in a folder that holds where a run stands.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    task : Task
        What is trained, on what, and how; together with the start, what a file must be of.
    seeded : bool
        Whether the random numbers are to be those of the run in the file from the first on.
    """

    def __init__(self, folder: str | os.PathLike[str], task: Task, *, seeded: bool):
        self.path = Path(folder) / FILE
        self._task, self._seeded = task, seeded

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs away from the folder while a block runs.

        Raises
        ------
        BlockingIOError
            If one is there.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f"{FILE}.lock")):
            remove_left_over(self.path)
            yield

    def resume(self, run: Run, epochs: int) -> None:
        """Bring a run that starts to where the file says; where there is none, write the first.

        Raises
        ------
        ValueError
            If the file is damaged, of another run, or of more epochs; the run is as it was.
        OSError
            If the file cannot be read or written.
        """
        self._settings, self._epochs = settings(self._task, run, self._seeded), epochs
        if not self.path.exists():
            self.save(run)
        saved = _load(self.path)  # also of a new run: one way to start
        self._check_settings(saved)
        if not self._has_more_steps(saved):
            self._check_rates(saved.rates)
        if len(saved.history) > epochs:
            raise ValueError(
                f"epochs must be at least the {len(saved.history)} that {self.path} has behind it, "
                f"got {epochs}"
            )
        like = next(iter(run.params.values()))
        xp, place = array_namespace(like), device(like)
        run.params = to_backend(saved.params, xp, place)
        run.state = _unpacked(saved.state, saved.arrays, xp, place)
        run.history, run.ended = saved.history, saved.ended
        run.rng.bit_generator.state = saved.rng  # last: it may be the caller's own

    def save(self, run: Run) -> None:
        """Replace the file by one of where the run stands now."""
        arrays: dict[str, Array] = {f"params:{name}": w for name, w in run.params.items()}
        shown = self._task.averages(run.params, run.state)
        record = {
            "settings": self._settings,
            "epochs": self._epochs,
            "rates": [[step, self._task.optimizer.rate(step)] for step in _looked_at(run.state)],
            "params": [*run.params],
            "state": _packed(run.state, arrays, "state"),
            "result": _entered(shown, arrays),
            "rng": _plain(run.rng.bit_generator.state),
            "history": [asdict(epoch) for epoch in run.history],
            "ended": run.ended,
        }
        save_record(self.path, KIND, record, arrays)

    def _check_settings(self, saved: _Saved) -> None:
        differences = [
            in_words(name, str(saved.settings.get(name)), str(value))
            for name, value in self._settings.items()
            if saved.settings.get(name) != value
            and not (name == OPTIMIZER and self._has_more_steps(saved))
        ]
        if differences and self._epochs < saved.epochs:
            differences.append(f"its epochs are {saved.epochs}, here {self._epochs}")
        if differences:
            raise ValueError(f"{self.path} is of another run: {'; '.join(differences)}")

    def _has_more_steps(self, saved: _Saved) -> bool:
        """Return whether the schedule differs in steps alone, and there are more epochs."""
        old, new = (str(of.get(OPTIMIZER)) for of in (saved.settings, self._settings))
        return (
            self._epochs > saved.epochs and old != new and STEPS.sub("", old) == STEPS.sub("", new)
        )

    def _check_rates(self, rates: list[tuple[int, float]]) -> None:
        """Compare schedules where they have been: of a function nothing else is kept."""
        for step, rate in rates:
            if (here := self._task.optimizer.rate(step)) != rate:
                raise ValueError(
                    f"{self.path} is of another run: its learning rate at step {step} was {rate}, "
                    f"here {here}"
                )


def load_checkpoint(folder: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], History]:
    """Read what `fit` keeps in a folder: the parameters after its last epoch, and the history.

    Returns
    -------
    params : dict of str to numpy.ndarray
        `to_backend` converts them.
    history : History
        Empty before the end of the first epoch.

    Raises
    ------
    ValueError
        If the file is damaged, or no checkpoint.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> folder, data = tempfile.mkdtemp(), (xp.asarray([[0.0], [1.0]]), xp.asarray([0, 1]))
    >>> task = {"loss": cross_entropy, "optimizer": SGD(1.0), "epochs": 2, "checkpoint": folder}
    >>> w, _ = fit(Sequential(Dense(2)), {"0.weight": xp.zeros((2, 1))}, data, **task)
    >>> params, history = load_checkpoint(folder)
    >>> bool((params["0.weight"] == w["0.weight"]).all()), len(history)
    (True, 2)
    """
    saved = _load(Path(folder) / FILE)
    return saved.result, saved.history


class _Saved(NamedTuple):
    """What a file holds."""

    settings: dict[str, Any]
    epochs: int
    """Of the whole run."""
    rates: list[tuple[int, float]]
    params: dict[str, np.ndarray]
    state: Any
    """With names in place of arrays."""
    result: dict[str, np.ndarray]
    """What `fit` returns: the parameters, or averages of them."""
    arrays: dict[str, np.ndarray]
    rng: dict[str, Any]
    history: History
    ended: bool


def _load(path: Path) -> _Saved:
    record, arrays = load_record(path, KIND)
    try:
        return _Saved(
            settings={"mix": "None"} | record["settings"],  # which older files do not have
            epochs=int(record.get("epochs", 0)),  # nor these
            rates=[(int(step), float(rate)) for step, rate in record["rates"]],
            params={name: arrays[f"params:{name}"] for name in record["params"]},
            state=record["state"],
            result={name: arrays[key] for name, key in record["result"].items()},
            arrays=arrays,
            rng=dict(record["rng"]),
            history=History([Epoch(**epoch) for epoch in record["history"]]),
            ended=bool(record["ended"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its record is not one of fit ({error!r})") from error


# --- what tells one run from another -------------------------------------------------------------


def settings(task: Task, run: Run, seeded: bool) -> dict[str, Any]:
    """Return what tells a run from another, by name."""
    random = json.dumps(_plain(run.rng.bit_generator.state))
    loss = {name: x for name, x in options_of(task.loss).items() if name != "check_labels"}
    return {
        "model": _text(task.model),
        "loss": _text({operation_of(task.loss).name: loss}),
        OPTIMIZER: _text(task.optimizer),
        "batch_size": task.batch_size,
        "mix": _text(None if task.mixing is None else task.mixing.how),
        "accumulate": task.accumulate,
        "drop_last": task.drop_last,
        "data": _shapes(task.source),
        START: checksum("", host_arrays(run.params)),
        RNG: checksum(random, {}) if seeded else "None",
    }


def in_words(name: str, saved: str, here: str) -> str:
    """Return what differs between a setting that is kept and the one of a new run."""
    if name == START:
        return "its start is of other parameters, such as of another seed"
    if name == RNG and "None" not in (saved, here):
        return "its rng is another one, such as of another seed"
    name = name.partition(" (")[0]
    fields = [re.findall(r"(\w+)=([^\s=,()]+)", text) for text in (saved, here)]
    frames = [re.sub(r"=[^\s=,()]+", "", text) for text in (saved, here)]
    if fields[0] and frames[0] == frames[1]:
        pairs = zip(*fields, strict=True)
        found = ", ".join(f"{k}={a} (here {b})" for (k, a), (_, b) in pairs if a != b)
        return f"its {name} has {found}"
    return f"its {name} is {saved}, here {here}"


def facts(task: Task, held_out: Task | None, run: Run, epochs: int) -> dict[str, Any]:
    """Return, by name, what has to be the same on all ranks that train together."""
    from importlib import metadata  # slow to import

    arrays = library(next(iter(run.params.values())))
    return {
        **{f"version of {name}": metadata.version(name) for name in PACKAGES},
        "array library": f"{arrays} {sys.modules[arrays].__version__}",
        **settings(task, run, True),
        "validation": "None" if held_out is None else _shapes(held_out.source),
        "epochs": epochs,
    }


def fingerprint(run: Run) -> dict[str, Any]:
    """Return a checksum of the parameters, which all ranks have to compute alike."""
    name = f"checksum of the parameters after epoch {len(run.history)}"
    return {name: checksum("", host_arrays(run.params))}


def _text(x: Any) -> str:
    """Return a representation without line ends and addresses, which no two processes share."""
    return " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(x)).split())


def _shapes(source: Source) -> str:
    if not isinstance(source, ArraySource):
        return "an iterable"
    parts = (("x", source.x), ("y", source.y))
    return ", ".join(
        f"{name} {tuple(x.shape)} {str(x.dtype).rpartition('.')[2]}" for name, x in parts
    )


def _looked_at(state: State) -> list[int]:
    """Return some of the steps taken, counted from 0: the first, the powers of 2, the last."""
    taken: int = state["step"]
    powers = (1 << i for i in range((taken - 1).bit_length()))
    return sorted({0, *powers, taken - 1}) if taken else []


# --- what JSON does not hold ---------------------------------------------------------------------


def _plain(x: Any) -> Any:
    """Return a state of a bit generator with lists for arrays."""
    if isinstance(x, dict):
        return {name: _plain(value) for name, value in x.items()}
    return x.tolist() if hasattr(x, "tolist") else x


def _packed(state: Any, arrays: dict[str, Array], name: str) -> Any:
    """Return nested dicts of numbers with names in place of arrays, which are entered."""
    if isinstance(state, dict):
        return {key: _packed(value, arrays, f"{name}:{key}") for key, value in state.items()}
    if state is None or isinstance(state, (int, float)):
        return state
    if not hasattr(state, "dtype"):
        raise TypeError(
            f"a checkpoint takes an optimizer's state of nested dicts, arrays and numbers, "
            f"got {state!r} in {name}"
        )
    arrays[name] = state
    return name


def _entered(params: Params, arrays: dict[str, Array]) -> dict[str, str]:
    """Return the names of arrays that are entered, unless they are there already."""
    known = {id(x): key for key, x in arrays.items()}
    keys = {name: known.get(id(w), f"result:{name}") for name, w in params.items()}
    arrays |= {keys[name]: w for name, w in params.items()}
    return keys


def _unpacked(state: Any, arrays: dict[str, np.ndarray], xp: ModuleType, place: Any) -> Any:
    if isinstance(state, dict):
        return {key: _unpacked(value, arrays, xp, place) for key, value in state.items()}
    return to_backend(arrays[state], xp, place) if isinstance(state, str) else state
