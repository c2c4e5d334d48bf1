"""The README's Python blocks run as they stand, one after the other, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_code_blocks(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(compile(block, str(README), "exec"), space)
    assert space["dlogits"].shape == (1, 3)
    assert "Most confident mistakes" in (tmp_path / "report.html").read_text(encoding="utf-8")
    score, loss = capsys.readouterr().out.splitlines()
    assert 0.7 < float(score) <= 1
    assert 0.2 < float(loss) < 0.5


def test_the_documentation_opens_with_the_same_lines():
    first = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    assert first in (ROOT / "docs" / "index.md").read_text()


def test_links():
    """What the README and its neighbours link to in the repository exists."""
    for page in [README, *ROOT.glob("[A-Z]*.md")]:
        links = re.findall(r"\]\((?!https?:|mailto:)([^)#]+)", page.read_text())
        assert [link for link in links if not (ROOT / link).exists()] == [], page.name


def test_every_operation_and_layer_is_listed():
    import agnostic_xent as ax
    from agnostic_xent.core.operation import OPERATIONS
    from agnostic_xent.network.layers import Layer

    text = (ROOT / "docs" / "operations.md").read_text()
    layers = [n for n in ax.__all__ if isinstance(getattr(ax, n), type)]
    layers = [n for n in layers if issubclass(getattr(ax, n), Layer)]
    assert [name for name in [*OPERATIONS, *layers] if not re.search(rf"\b{name}\b", text)] == []
