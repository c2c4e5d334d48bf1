"""The public names and their signatures, as ``public_api.txt`` freezes them.

After a change on purpose: ``python tests/public_api.py`` writes the file anew, and the change log
says what changed for users.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import agnostic_xent as ax

FILE = Path(__file__).with_name("public_api.txt")
NEED_SCIKIT_LEARN = [*ax._OF_SCIKIT_LEARN]


def public_api() -> str:
    """Return a line for each public name, and for each public member of a class."""
    lines = []
    for name in sorted({*ax.__all__, *NEED_SCIKIT_LEARN}):
        member = getattr(ax, name)
        lines.append(name + signature(member))
        if isinstance(member, type):
            lines += [f"{name}.{line}" for line in members(member)]
    return "\n".join(lines) + "\n"


def members(cls: type) -> list[str]:
    """Return the public methods and properties that a class or a base of this package defines."""
    own = [c for c in cls.__mro__ if c.__module__.partition(".")[0] == "agnostic_xent"]
    names = {name for c in own for name in vars(c) if not name.startswith("_")}
    lines = []
    for name in sorted(names):
        member = inspect.getattr_static(cls, name)
        member = getattr(member, "fn", member)  # of what is there under a condition
        if isinstance(member, classmethod):
            lines.append(name + signature(getattr(cls, name)))
        elif isinstance(member, property):
            lines.append(name)
        member = getattr(member, "fn", member)  # of what is there under a condition
        if inspect.isfunction(member) and member.__module__.startswith("agnostic_xent"):
            lines.append(name + signature(member))
    return lines


def signature(member: Any) -> str:
    """Return the parameters with their defaults, without their types."""
    if inspect.isclass(member) and issubclass(member, Exception):
        return ""
    found = inspect.signature(member)
    plain = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    return str(found.replace(parameters=plain, return_annotation=found.empty))


if __name__ == "__main__":
    FILE.write_text(public_api())
