"""A pytest plugin that writes down how each test ended, as JSON. It changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-report", type=Path, help="where to write the outcomes")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--conformance-report")
    if path is not None:
        config.pluginmanager.register(Report(path), "conformance report")


class Report:
    """The outcomes of a run: ``passed``, ``failed``, ``skipped``, ``xfailed`` or ``xpassed``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if type(report) is not pytest.TestReport:
            return  # of a subtest; the test that holds it fails with it
        test = self._tests.setdefault(
            report.nodeid, {"outcome": "passed", "seconds": 0.0, "reruns": 0, "message": ""}
        )
        test["seconds"] = round(test["seconds"] + report.duration, 2)
        test.update(report.user_properties)
        outcome: str = report.outcome
        if outcome == "rerun":  # by the suite's own markers
            test["reruns"] += 1
            test["outcome"], test["message"] = "passed", ""
            return
        if hasattr(report, "wasxfail"):
            outcome = {"skipped": "xfailed", "passed": "xpassed"}.get(outcome, outcome)
        if outcome != "passed" and test["outcome"] != "failed":
            test["outcome"], test["message"] = outcome, _last_line(report)

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._tests, indent=1))


def _last_line(report: pytest.TestReport) -> str:
    """Return what went wrong, in a line."""
    longrepr: Any = report.longrepr
    if isinstance(longrepr, tuple):  # a skip
        return str(longrepr[2])
    crash = getattr(longrepr, "reprcrash", None)
    return str(crash.message if crash else longrepr).strip().split("\n")[0]
