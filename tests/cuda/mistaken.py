"""Kernels with a mistake in their text, in place of the right ones: the tests have to notice it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agnostic_xent.core.operation import OPERATIONS, ROUTINES
from agnostic_xent.kernels.cuda.toolchain import device


def plant(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, old: str, new: str,
    family: Sequence[ModuleType] = (),
) -> dict[str, ModuleType]:  # fmt: skip
    """Load a module with ``new`` in place of ``old``, and let the kernels that it registers run.

    ``family`` are the modules to be loaded anew with it, each after those that it imports. Returns
    what was loaded, by the names of the files.
    """

    def replace(name: str, **functions: Any) -> None:
        for kernel in (OPERATIONS | ROUTINES)[name]._kernels["numpy"]:
            if kernel.value.__module__ == functions["value"].__module__:
                for part, function in functions.items():
                    monkeypatch.setitem(vars(kernel), part, function)

    def register(name: str, value: Any, vjp: Any, *others: Any, **described: Any) -> None:
        replace(name, value=value, vjp=vjp)

    def register_routine(name: str, value: Any, *others: Any) -> None:
        replace(name, value=value)

    monkeypatch.setattr(device, "register", register)
    monkeypatch.setattr(device, "register_routine", register_routine)
    found = {}
    for each in family or [module]:
        text = Path(each.__file__).read_text()
        if each is module:
            assert old in text
            text = text.replace(old, new)
        found[Path(each.__file__).stem] = loaded(monkeypatch, each, text)
    return found


def loaded(monkeypatch: pytest.MonkeyPatch, module: ModuleType, text: str) -> ModuleType:
    """Return what a module would be with this text; imports find it in the module's place."""
    package, _, name = module.__name__.rpartition(".")
    made = ModuleType(module.__name__)
    made.__package__ = package
    monkeypatch.setitem(sys.modules, module.__name__, made)
    monkeypatch.setattr(sys.modules[package], name, made)
    exec(compile(text, f"{name}, mistaken", "exec"), vars(made))
    return made
