"""The README's Python blocks run as they stand, one after the other, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_code_blocks(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"(<!-- needs a GPU -->\n)?```python\n(.*?)```", README.read_text(), re.DOTALL
    )
    assert len(blocks) == 6
    space: dict = {}
    for needs_gpu, block in blocks:
        code = compile(block, str(README), "exec")
        if not needs_gpu:
            exec(code, space)
    assert len(space["history"]) == 1
    assert space["dlogits"].shape == (1, 3)
    assert "Most confident mistakes" in (tmp_path / "report.html").read_text(encoding="utf-8")
    score, predicted, kernel, portable = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[\d( \d){4}\]", predicted)
    assert 0.7 < float(score) <= 1
    assert kernel == "cross_entropy: Numba loops (it takes these arguments)"
    assert portable == "cross_entropy: portable (kernels are switched off)"


def test_every_operation_and_layer_is_listed():
    import agnostic_xent as ax
    from agnostic_xent.core.operation import OPERATIONS
    from agnostic_xent.network.layers import Layer

    text = README.read_text()
    layers = [n for n in ax.__all__ if isinstance(getattr(ax, n), type)]
    layers = [n for n in layers if issubclass(getattr(ax, n), Layer)]
    assert [name for name in [*OPERATIONS, *layers] if not re.search(rf"\b{name}\b", text)] == []
