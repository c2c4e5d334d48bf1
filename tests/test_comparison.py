"""Two trained models on one page."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from cli_case import keep_model, one_error_line
from cli_case import no_report as no_report
from cli_case import toys as toys
from report_case import Page

from agnostic_xent import LogisticRegression, cli


@pytest.mark.usefixtures("toys", "no_report")
def test_two_runs_on_one_page(tmp_path, capsys):
    folders = [tmp_path / "<one>", tmp_path / "two"]
    for folder, rate in zip(folders, ("0.005", "0.001"), strict=True):
        command = ["train", "--epochs", "3", "--learning-rate", rate, "--out", str(folder)]
        assert cli.main(command) == 0
    capsys.readouterr()
    out = tmp_path / "pages" / "both.html"
    assert cli.main(["report", *map(str, folders), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    found = Page(out)
    histories = [cli.saved.read(folder)[2] for folder in folders]
    rows = {row[0]: row[1:] for row in found.rows if row}
    assert rows["test accuracy"] == [f"{h[-1].validation_accuracy:.4f}" for h in histories]
    assert rows["training loss"] == [f"{h[-1].loss:.4g}" for h in histories]
    assert rows["learning rate"] == ["0.005", "0.001"]  # which differs
    assert rows["batch size"] == ["64"]  # which does not
    settings = [row[0] for row in found.rows if row and row[0] in ("learning rate", "batch size")]
    assert settings == ["learning rate", "batch size"]
    assert rows["command"][0].startswith("agnostic-xent train --epochs 3 --learning-rate 0.005")
    assert rows["date"][0][:2] == "20"
    assert "<one>" not in found.text
    assert len(found.pictures) == 1
    assert "http" not in found.text.replace("http://www.w3.org", "")
    text = out.read_bytes()
    assert cli.main(["report", *map(str, folders), "--out", str(out)]) == 0
    assert out.read_bytes() == text


def test_refusals(tmp_path, capsys):
    folder = keep_model(tmp_path / "run")
    assert cli.main(["report", str(folder), str(tmp_path / "none")]) == 2
    assert "must be a folder that train --out" in one_error_line(capsys)
    pytest.importorskip("sklearn")
    from agnostic_xent import save_classifier

    save_classifier(tmp_path / "lbfgs", LogisticRegression().fit([[0.0], [1.0]], [0, 1]))
    assert cli.main(["report", str(folder), str(tmp_path / "lbfgs")]) == 2
    assert "a training without epochs" in one_error_line(capsys)
