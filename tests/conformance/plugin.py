"""A pytest plugin under which what Celery's tests do as a client goes through bridgetask.

It translates calls, and does nothing else: no test is changed, left out or repeated. What the
worker does, in its thread and its processes, stays Celery's own. At the end it lists what went
through bridgetask, and what did not: see :mod:`tests.conformance.audit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from .audit import Audit
from .bridge import Bridge
from .calls import route_calls, route_control
from .results import route_results
from .routing import Router


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Conformance(), "bridgetask conformance")


class Conformance:
    """Routes calls from when pytest is configured until it ends."""

    def __init__(self) -> None:
        self._bridge = Bridge()
        self._router = Router(self._bridge)
        self._audit = Audit(self._bridge)
        self._routed: Counter[str] = Counter()
        self._past: Counter[str] = Counter()
        self._bridge.watch_workers()
        route_calls(self._router, self._bridge)
        route_control(self._router, self._bridge)
        route_results(self._router, self._bridge)
        self._audit.begin()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Close the clients after each test: each has an app of its own."""
        try:
            return (yield)
        finally:
            self._bridge.close_clients()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
        """Note with a test what went through bridgetask, and what past it."""
        if call.when != "teardown":
            return
        routed, past = self._router.calls, self._audit.counted
        item.user_properties += [("routed", dict(routed)), ("past", dict(past))]
        self._routed += routed
        self._past += past
        routed.clear()
        past.clear()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for title, counted in (
            ("through bridgetask", self._routed),
            ("past bridgetask", self._past),
        ):
            terminalreporter.section(title)
            for what, count in counted.most_common():
                terminalreporter.write_line(f"{count:8} {what}")

    def pytest_unconfigure(self) -> None:
        self._bridge.close()
