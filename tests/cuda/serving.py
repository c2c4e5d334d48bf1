"""Run the tests of this folder one by one, as another process asks for them.

The first line that it writes is a list of all names, in JSON. Then it reads a name a line and
answers with null, or with the text of what went wrong. ``test_cuda_simulator.py`` starts it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


class Service:
    """A plugin of pytest that waits for names of tests where pytest would run all of them."""

    def __init__(self) -> None:
        self.requests, self.answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else is written goes to the log
        self.reports: list[pytest.TestReport] = []

    def answer(self, found: Any) -> None:
        """Write ``found`` as a line of JSON."""
        print(json.dumps(found), file=self.answers, flush=True)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run tests until there are no more requests; none if a file cannot be imported."""
        if not session.testsfailed:
            items = {item.nodeid: item for item in session.items}
            self.answer(list(items))
            for line in self.requests:
                self.reports.clear()
                item = items[json.loads(line)]
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
                self.answer("\n".join(map(text_of, self.reports)) or None)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the report of a test's set-up, call or end, unless it passed."""
        if not report.passed:
            self.reports.append(report)


def text_of(report: pytest.TestReport) -> str:
    """Return what pytest would print of a report: the outcome, the error, and captured output."""
    captured = (f"--- {title} ---\n{text}" for title, text in report.sections)
    return "\n".join((f"{report.outcome} in {report.when}:", report.longreprtext, *captured))


if __name__ == "__main__":
    pytest.main(["-p", "no:cacheprovider", str(Path(__file__).parent)], plugins=[Service()])
