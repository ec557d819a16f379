"""A watch over all that the suite logs and warns: no password may be in it."""

from __future__ import annotations

import base64
import logging
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from twisted.logger import eventAsText, globalLogPublisher

from .servers import TESTERS_PASSWORD

#: The passwords that the tests use, but for guest's, which is a user's name as well.
PASSWORDS = (
    TESTERS_PASSWORD,
    "s3cr3t p@ss/word",
    "wr0ng-p4ssword",
    "n0bodys-p4ssword",
    "unparsable-s3cret",
    "al1ces-r3dis",
    "d3afs-r3dis",
)

_FORMATTER = logging.Formatter("%(name)s %(message)s")


def spellings(password: str) -> set[str]:
    """Return what a password looks like in plain, in a URL, and as the broker is told it."""
    encoded = base64.b64encode(password.encode()).decode()
    return {password, quote(password, safe=""), quote(password), encoded, repr(password)[1:-1]}


class PasswordWatch(logging.Handler):
    """Looks through each record, its traceback included, as it is logged."""

    def __init__(self, passwords: tuple[str, ...] = PASSWORDS) -> None:
        super().__init__(logging.DEBUG)
        self._spellings = {each for password in passwords for each in spellings(password)}
        #: What was found since somebody looked.
        self.leaks: list[str] = []
        self.seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.look(_FORMATTER.format(record))
        except Exception as error:  # not ours to judge here, and not to be lost either
            self.look(f"{record.name} {record.msg} {record.args} {error}")

    def look(self, text: str) -> None:
        self.seen += 1
        if any(spelling in text for spelling in self._spellings):
            self.leaks.append(text[:2000])

    def observe(self, event: Any) -> None:
        """Take an event of Twisted's log."""
        self.look(eventAsText(event))

    def take(self) -> list[str]:
        """Return what was found, and forget it."""
        leaks, self.leaks = self.leaks, []
        return leaks


WATCH = PasswordWatch()


def watch_over_the_session(config: pytest.Config) -> None:
    """Listen to everything at DEBUG, from here to the end of the process."""
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(WATCH)
    globalLogPublisher.addObserver(WATCH.observe)
    config.pluginmanager.register(_Warnings())
    # What pytest shows, and keeps for caplog, stays what it was: by default a root logger has this.
    plugin: Any = config.pluginmanager.get_plugin("logging-plugin")
    for handler in (plugin.caplog_handler, plugin.report_handler, plugin.log_file_handler):
        handler.setLevel(logging.WARNING)


class _Warnings:
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        WATCH.look(str(warning_message.message))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if leaks := WATCH.take():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            raise AssertionError(f"passwords were logged: {leaks}")


@pytest.fixture(autouse=True)
def no_password_logged() -> Iterator[None]:
    """Fail a test while which a password was logged."""
    yield
    leaks = WATCH.take()
    assert not leaks
