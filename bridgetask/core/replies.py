"""The replies to control commands, by the ticket of each command. There is no I/O here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import BridgetaskError, ResultUnavailable
from ..wire.control import Command
from .completion import Completion

__all__ = ["PendingReplies", "Replies"]


class Replies:
    """The replies to one command, as far as they have come.

    :param enough: how many to wait for, or None where that is not known.
    :param callback: called with each. What it raises ends the waiting.
    """

    def __init__(self, enough: int | None, callback: Callable[[Any], object] | None) -> None:
        self._enough = enough
        self._callback = callback
        self._received: list[dict[str, Any]] = []
        self._complete = Completion()

    def add(self, reply: dict[str, Any]) -> None:
        """Take a reply."""
        if self._complete.done:
            return
        self._received.append(reply)
        try:
            if self._callback is not None:
                self._callback(reply)
        except Exception as error:
            self._complete.complete(error)
        else:
            if len(self._received) == self._enough:
                self._complete.complete()

    def settle_for(self, enough: int | None) -> None:
        """Wait for no more replies than that, unless it is None."""
        if enough is None:
            return
        self._enough = enough
        if len(self._received) >= enough and not self._complete.done:
            self._complete.complete()

    def fail(self, error: BridgetaskError) -> None:
        """Give up on those that are still to come."""
        if not self._complete.done:
            self._complete.complete(error)

    async def wait(self, timeout: float | None) -> list[dict[str, Any]]:
        """Return the replies, once there are enough, or ``timeout`` seconds have passed.

        :raises BridgetaskError: the reason why some can't come any more.
        :raises Exception: what the callback raised.
        """
        try:
            async with asyncio.timeout(timeout) as scope:
                await self._complete.wait()
        except TimeoutError:
            if not scope.expired():  # it is the callback's own
                raise
        return self._received


class PendingReplies:
    """The commands that wait for replies."""

    def __init__(self) -> None:
        self._waiting: dict[str, Replies] = {}

    @contextmanager
    def expect(self, command: Command, workers: int | None) -> Iterator[Replies]:
        """Collect the replies to one command while the block runs.

        :param workers: how many workers there are, where that is known.
        """
        assert command.ticket is not None
        replies = Replies(command.enough(workers), command.callback)
        self._waiting[command.ticket] = replies
        try:
            yield replies
        finally:
            del self._waiting[command.ticket]

    def deliver(self, ticket: str, reply: Any) -> None:
        """Hand a reply to whoever waits for it. One that comes too late is nobody's."""
        replies = self._waiting.get(ticket)
        if replies is not None:
            replies.add(reply)

    def interrupted(self) -> None:
        """Fail those who wait: replies may have been lost with the connection."""
        self.fail_all(ResultUnavailable("the connection was lost while replies were awaited"))

    def fail_all(self, error: BridgetaskError) -> None:
        """Give up on every reply that is still to come."""
        for replies in self._waiting.values():
            replies.fail(error)
