"""Which part of the package may import which: downwards, in no circle, few rooms on few floors."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from graphlib import CycleError
from pathlib import Path

import pytest
from import_graph import (
    Graph,
    computes_imports,
    floors,
    folders,
    import_graph,
    imported_names,
    in_order,
    rooms,
    sources,
)

import agnostic_xent

PACKAGE = Path(agnostic_xent.__file__).parent
GRAPH = import_graph(PACKAGE)

WINGS = {  # from the lowest to the highest: what each room of the package may import
    "core": set(),
    "datasets": {"core"},
    "operations": {"core"},
    "kernels": {"core", "operations"},
    "info": {"core", "kernels"},
    "network": {"core", "operations"},
    "training": {"core", "operations", "network"},
    "evaluation": {"core", "datasets", "operations", "network", "training", "info"},
    "estimators": {"core", "datasets", "operations", "network", "training", "evaluation"},
    "__init__": {
        "core", "operations", "kernels", "info", "network", "training", "evaluation", "estimators"
    },
    "cli": {"core", "datasets", "info", "network", "training", "evaluation", "__init__"},
    "__main__": {"core", "cli"},
}  # fmt: skip
KERNELS = {
    "__init__": set(),
    "stamps": set(),
    "compiler": set(),
    "store": {"stamps", "compiler"},
    "shapes": set(),
    "cpu": {"stamps", "compiler", "store", "shapes"},
    "cuda": {"stamps", "compiler", "store", "shapes"},
}
TOOLS = ("toolchain", "simd")
"""Rooms of a half of kernels/, from the lowest to the highest; its families stand above them."""
ROOFS = ("warmup", "__init__")

LIBRARIES = re.compile(r"\b(cupy|torch|jax|dask)\b")
NAME_LIBRARIES = {"core.arrays", "core.communication", "core.conversion", "core.uploads"}
COMPUTE_IMPORTS = {
    "cli.data",  # the sparse matrices of the library that is asked for
    "cli.warmup",  # the half that is asked for
    "core.conversion",  # the library that is asked for
    "core.operation",  # the half for an array's library
    "info",  # all libraries
    "kernels.cuda.toolchain.device",  # CuPy or its stand-in
    "kernels.cpu.warmup",  # all files of its half, as does the other
    "kernels.cuda.warmup",
}


# --- the rules -----------------------------------------------------------------------------------


def faults(graph: Graph) -> list[str]:
    """Return what is wrong with the imports of the package, a line each."""
    found = [*circles("files", graph)]
    for folder in folders(graph):
        found += circles(f"rooms of {folder or 'the package'}", rooms(graph, folder))
    found += forbidden(WINGS, rooms(graph, ""))
    found += forbidden(KERNELS, rooms(graph, "kernels"), "kernels.")
    for half in ("cpu", "cuda"):
        inside = rooms(graph, f"kernels.{half}")
        found += forbidden(allowed_in_half(inside), inside, f"kernels.{half}.")
    return found


def circles(what: str, graph: Graph) -> Iterator[str]:
    """Yield a line that names a circle of imports in a graph, if there is one."""
    try:
        in_order(graph)
    except CycleError as error:
        yield f"a circle of {what}: {' <- '.join(error.args[1])}"


def forbidden(allowed: Graph, found: Graph, prefix: str = "") -> Iterator[str]:
    """Yield a line for each import that is not among those that are allowed."""
    for name, targets in found.items():
        for target in sorted(targets - allowed.get(name, set())):
            yield f"{prefix}{name} imports {prefix}{target}"


def allowed_in_half(names: Iterable[str]) -> Graph:
    """Return what the rooms of a half of kernels/ may import: no family imports another one."""
    families = {*names} - {*TOOLS, *ROOFS}
    tools = {name: {*TOOLS[:height]} for height, name in enumerate(TOOLS)}
    above = {name: {*TOOLS} for name in families} | {name: {*TOOLS, *families} for name in ROOFS}
    return tools | above


def libraries_named(text: str) -> list[str]:
    """Return the array libraries beside NumPy that a module imports, or names in an import."""
    return [name for name in imported_names(text, "agnostic_xent.here") if LIBRARIES.search(name)]


# --- the package keeps them ----------------------------------------------------------------------


def test_imports_point_downwards_and_in_no_circle():
    assert faults(GRAPH) == []


def test_the_tables_name_all_rooms_from_the_lowest_to_the_highest():
    assert WINGS.keys() == rooms(GRAPH, "").keys()
    assert KERNELS.keys() == rooms(GRAPH, "kernels").keys()
    for height, allowed in enumerate(WINGS.values()):
        assert allowed <= {*list(WINGS)[:height]}


@pytest.mark.parametrize(("folder", "most"), [("", 15), ("kernels.cpu", 14), ("kernels.cuda", 14)])
def test_a_folder_has_few_rooms(folder, most):
    assert len(rooms(GRAPH, folder)) <= most


def test_the_package_has_few_floors():
    assert floors(rooms(GRAPH, "")) <= 11


def test_array_libraries_are_named_in_core_and_kernels_alone():
    found = {file for file, path in sources(PACKAGE).items() if libraries_named(path.read_text())}
    assert {file for file in found if not file.startswith("kernels.")} <= NAME_LIBRARIES


def test_few_files_import_what_their_text_does_not_name():
    found = {file for file, path in sources(PACKAGE).items() if computes_imports(path.read_text())}
    assert found == COMPUTE_IMPORTS


# --- and who breaks one is found -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "target", "line"),
    [
        ("core.new", "training.loop", "core imports training"),
        ("core.new", "__init__", "core imports __init__"),
        ("datasets.known", "operations.dense", "datasets imports operations"),
        ("info", "network.layers", "info imports network"),
        ("operations.new", "network.layers", "operations imports network"),
        ("network.new", "kernels.cpu.new", "network imports kernels"),
        ("training.ranks.new", "evaluation.metrics", "training imports evaluation"),
        ("estimators.new", "cli.train", "estimators imports cli"),
        ("__init__", "cli.train", "__init__ imports cli"),
        ("kernels.cpu.conv.new", "network.layers", "kernels imports network"),
        (
            "kernels.cpu.pool.new",
            "kernels.cpu.conv.new",
            "kernels.cpu.pool imports kernels.cpu.conv",
        ),
        (
            "kernels.cuda.dropout",
            "kernels.cuda.new",
            "kernels.cuda.dropout imports kernels.cuda.new",
        ),
        ("kernels.cuda.dropout", "kernels.cpu.new", "kernels.cuda imports kernels.cpu"),
        ("kernels.cpu.simd.new", "kernels.cpu.new", "kernels.cpu.simd imports kernels.cpu.new"),
        ("kernels.cpu.new", "kernels.cpu.warmup", "kernels.cpu.new imports kernels.cpu.warmup"),
        (
            "kernels.cpu.toolchain.new",
            "kernels.cpu.simd.new",
            "kernels.cpu.toolchain imports kernels.cpu.simd",
        ),
        ("kernels.stamps", "kernels.cpu.new", "kernels.stamps imports kernels.cpu"),
        ("new", "core.arrays", "new imports core"),
    ],
)
def test_a_forbidden_import_is_found(file, target, line):
    assert line in faults(GRAPH | {file: GRAPH.get(file, set()) | {target}})


def test_a_circle_is_found():
    of_files = {"network.a": {"network.b"}, "network.b": {"network.c"}, "network.c": {"network.a"}}
    lines = faults(GRAPH | of_files)
    assert [line.partition(":")[0] for line in lines] == [
        "a circle of files",
        "a circle of rooms of network",
    ]
    of_rooms = {
        "training.ranks.a": {"training.b"},
        "training.c": {"training.ranks.d"},
        "training.b": {"training.c"},
    }
    assert [line.partition(":")[0] for line in faults(GRAPH | of_rooms)] == [
        "a circle of rooms of training"
    ]


def test_an_import_is_found_however_it_is_written(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "agnostic_xent", ignore=shutil.ignore_patterns("data"))
    planted = {
        "core/new.py": "from ..training.loop import fit",
        "core/checks.py": "def late():\n    from .. import network",
        "datasets/known.py": "import agnostic_xent.network.layers as layers",
        "info.py": "if TYPE_CHECKING:\n    from . import training",
        "operations/dense.py": "importlib.import_module('..network.layers', __package__)",
        "network/layers/base.py": "import_module('agnostic_xent.cli')",
        "training/steps.py": "from .. import fit",
        "kernels/cpu/pool/rows.py": "from ..conv.convolution import *",
    }
    for file, text in planted.items():
        with (tmp_path / "agnostic_xent" / file).open("a") as stream:
            stream.write(f"\n{text}\n")
    found = faults(import_graph(tmp_path / "agnostic_xent"))
    assert [line for line in found if "circle" not in line] == [
        "core imports network",
        "core imports training",
        "datasets imports network",
        "info imports training",
        "network imports cli",
        "operations imports network",
        "training imports __init__",
        "kernels.cpu.pool imports kernels.cpu.conv",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import torch",
        "import numpy, dask.array",
        "from jax import numpy",
        "def f():\n    import_module('cupy.cuda.nccl')",
        "from array_api_compat import torch",
    ],
)
def test_an_array_library_is_found(text):
    assert libraries_named(text)
    assert not libraries_named("import numpy\nfrom .core.arrays import is_dask")
