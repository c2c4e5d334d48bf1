"""Which file of a package imports which, read from the text of all its files.

A file is named by its place: "core.arrays" is core/arrays.py, "core.__init__" is core/__init__.py.
A room of a folder is a file or a folder in it, seen from there: "core" is a room of the package.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

Graph = dict[str, set[str]]
"""Name -> the names that it imports."""


def sources(package: Path) -> dict[str, Path]:
    """Return the path of each file of a package by its name."""
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
    }


def import_graph(package: Path) -> Graph:
    """Return which files of a package each of its files imports, at its top or in a function.

    That a module's import runs the ``__init__`` of the folders around it does not count.
    """
    files = sources(package)
    return {
        file: {
            found
            for name in imported_names(path.read_text(), f"{package.name}.{file}")
            if (found := file_of(name, package.name, files)) is not None
        }
        for file, path in files.items()
    }


def file_of(name: str, package: str, files: Iterable[str]) -> str | None:
    """Return the file of a package that a dotted name is or lies in; None outside the package."""
    parts = name.split(".")
    if parts[0] != package:
        return None
    inner = parts[1:]
    for candidate in (inner, [*inner, "__init__"], [*inner[:-1]], [*inner[:-1], "__init__"]):
        if ".".join(candidate) in files:
            return ".".join(candidate)
    raise ValueError(f"{name} is no file of {package}, and no name in one")


def imported_names(text: str, module: str) -> Iterator[str]:
    """Yield the dotted names that a module imports: modules, and the names taken from them."""
    folder = module.split(".")[:-1]
    for node in imports(text):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute("." * node.level + (node.module or ""), folder)
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node.args[0], ast.Constant):
            yield absolute(node.args[0].value, folder)


def absolute(name: str, folder: list[str]) -> str:
    """Return a dotted name without its leading dots, which count from a folder upwards."""
    level = len(name) - len(name.lstrip("."))
    base = folder[: len(folder) + 1 - level] if level else []
    return ".".join([*base, *filter(None, name[level:].split("."))])


@functools.cache
def imports(text: str) -> list[Any]:
    """Return the nodes of a module's text that import, those inside functions too."""
    return [node for node in ast.walk(ast.parse(text)) if is_import(node)]


def is_import(node: ast.AST) -> bool:
    """Return whether a node is an import or calls ``importlib.import_module``."""
    called = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
    return called or isinstance(node, (ast.Import, ast.ImportFrom))


def computes_imports(text: str) -> bool:
    """Return whether a module imports another one whose name its text does not say."""
    calls = [node for node in imports(text) if isinstance(node, ast.Call)]
    return any(not isinstance(node.args[0], ast.Constant) for node in calls)


# --- rooms and floors ----------------------------------------------------------------------------


def folders(graph: Graph) -> list[str]:
    """Return all folders of a graph's files; "" is the package itself."""
    return sorted(
        {".".join(name.split(".")[:n]) for name in graph for n in range(name.count(".") + 1)}
    )


def room_of(file: str, folder: str) -> str | None:
    """Return the room of a folder that a file is or lies in; None for a file elsewhere."""
    parts, place = file.split("."), folder.split(".") if folder else []
    return parts[len(place)] if parts[: len(place)] == place else None


def rooms(graph: Graph, folder: str) -> Graph:
    """Return which rooms of a folder import which other ones."""
    found: Graph = {}
    for file, targets in graph.items():
        room = room_of(file, folder)
        if room is not None:
            others = {room_of(target, folder) for target in targets} - {None, room}
            found.setdefault(room, set()).update(others)
    return found


def in_order(graph: Graph) -> list[str]:
    """Return names, each after those that it imports; ``graphlib.CycleError`` where none is so."""
    return list(TopologicalSorter(graph).static_order())


def floors(graph: Graph) -> int:
    """Return the length of the longest chain of imports."""
    height: dict[str, int] = {}
    for name in in_order(graph):
        height[name] = 1 + max((height[target] for target in graph[name]), default=0)
    return max(height.values())


def reachable(graph: Graph, start: Iterable[str]) -> set[str]:
    """Return files together with all that they import, and what these import."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found
