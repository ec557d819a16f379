"""Notices a server that says nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from .stream import RedisStream

__all__ = ["Watchdog"]


class Watchdog:
    """Asks a server that is silent whether it is there, and gives it up where it owes an answer.

    One timer serves, which is mostly found to be early. What is read while the loop is blocked is
    handed over before a timer of that time, so a program that stopped for long loses nothing.

    :param interval: seconds of silence after which to ask; 0 for never.
    :param answer_timeout: seconds of silence after which to give up while an answer is owed.
    :param owed_since: returns the loop's time since when an answer is owed; None where none is.
    :param ask: asks the server something.
    """

    def __init__(
        self,
        stream: RedisStream,
        interval: float,
        answer_timeout: float,
        owed_since: Callable[[], float | None],
        ask: Callable[[], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._interval = interval
        self._answer_timeout = answer_timeout
        self._owed_since = owed_since
        self._ask = ask
        self._unwritten: float = inf
        self._timer: asyncio.TimerHandle | None = None
        self._look_at(self._loop.time() + interval if interval else None)

    def asked(self) -> None:
        """Take note that an answer is owed from now on, and none was before."""
        self._unwritten = inf
        due = self._loop.time() + self._answer_timeout
        if self._timer is None or self._timer.when() > due:
            self._look_at(due)

    def stop(self) -> None:
        """Look no more."""
        self._look_at(None)

    def _look_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        now, heard = self._loop.time(), self._heard()
        owed_since = self._owed_since()
        if owed_since is None:
            if not self._interval:
                return  # until something is asked
            due = heard + self._interval
            if due <= now:
                self._ask()
                due = now + self._answer_timeout
        else:
            due = max(owed_since, heard) + self._answer_timeout
            if due <= now:
                self._stream.lose("no answer in time")
                return
        self._look_at(due)

    def _heard(self) -> float:
        """Return when the server gave a sign of life last. Taking what is written is one, too."""
        unwritten, before = self._stream.unwritten, self._unwritten
        self._unwritten = unwritten
        takes = 0 < unwritten < before
        return self._loop.time() if takes or self._stream.is_held else self._stream.heard
