"""Kept machine code is stale after an edit of whatever it may depend on, and of nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from import_graph import import_graph, reachable, sources

from agnostic_xent.kernels import stamps

GRAPH = import_graph(stamps.PACKAGE)
AROUND = {"kernels.stamps", "kernels.store", "kernels.compiler"}
"""What keeps code, on which the code itself does not depend."""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package that the stamps are taken of."""
    copy = tmp_path / "agnostic_xent"
    shutil.copytree(stamps.PACKAGE, copy, ignore=shutil.ignore_patterns("data"))
    monkeypatch.setattr(stamps, "PACKAGE", copy)
    return copy


@pytest.mark.parametrize("half", ["cpu", "cuda"])
def test_an_edit_of_whatever_a_half_imports_is_seen(package, half):
    before, files = stamps.source_stamp(half), sources(package)
    own = [file for file in files if file.startswith(f"kernels.{half}.")]
    imported = reachable(GRAPH, own) - AROUND
    assert {file.split(".")[0] for file in imported} == {"core", "operations", "kernels"}
    for file in imported:
        text = files[file].read_bytes()
        files[file].write_bytes(text + b"# edited\n")
        assert stamps.source_stamp(half) != before, file
        files[file].write_bytes(text)
    assert stamps.source_stamp(half) == before


def test_an_edit_elsewhere_is_not_seen(package):
    before = {half: stamps.source_stamp(half) for half in ("cpu", "cuda")}
    for file in (
        "network/layers/base.py",
        "training/loop.py",
        "cli/train.py",
        "kernels/__init__.py",
    ):
        (package / file).write_text("# edited\n")
    assert {half: stamps.source_stamp(half) for half in before} == before
    (package / "kernels/cuda/warmup.py").write_text("# edited\n")
    assert stamps.source_stamp("cpu") == before["cpu"]


@pytest.mark.parametrize("folder", ["core", "operations", "kernels/cpu", "kernels/cpu/simd"])
def test_a_file_more_or_elsewhere_or_less_is_seen(package, folder):
    old, new = package / folder / "old.py", package / folder / "new.py"
    found = [stamps.source_stamp("cpu")]
    old.write_text("x = 1\n")
    found.append(stamps.source_stamp("cpu"))
    old.rename(new)
    found.append(stamps.source_stamp("cpu"))
    new.rename(package / "kernels/cpu/loss/old.py")
    found.append(stamps.source_stamp("cpu"))
    assert len({*found}) == 4
    (package / "kernels/cpu/loss/old.py").unlink()
    assert stamps.source_stamp("cpu") == found[0]
