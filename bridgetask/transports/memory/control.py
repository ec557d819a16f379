"""Commands to the worker in this process, and events."""

from __future__ import annotations

from ...core.plugs import SessionContext
from ...core.receiving import EventListener
from ...wire.control import Purge
from ...wire.events import EventCapture
from ...wire.message import OutgoingMessage
from .journal import Journal
from .worker import InProcessWorker

__all__ = ["MemoryCapture", "MemoryControl"]


class MemoryControl:
    """Obeys commands at once, and hands events to those who capture them."""

    #: How many answer to commands.
    workers: int | None = 1
    ready = True

    def __init__(self, worker: InProcessWorker, journal: Journal, context: SessionContext) -> None:
        self._worker = worker
        self._journal = journal
        self._replies = context.replies
        self._captures: list[MemoryCapture] = []

    def take(self, message: OutgoingMessage) -> None:
        """Take a command or an event."""
        obeyed = self._worker.obey(message)
        if obeyed is None:
            for capture in self._captures:
                capture.take(message)
            return
        name, replies = obeyed
        self._journal.commands.append(name)
        for ticket, reply in replies:
            self._replies.deliver(ticket, reply)

    async def prepare(self) -> None:
        """Do nothing: no reply can be missed."""

    def subscribe(self, capture: EventCapture, listener: EventListener) -> MemoryCapture:
        return MemoryCapture(capture, listener, self._captures)

    async def purge(self, purge: Purge) -> int:
        """Empty a queue: nothing ever waits in one."""
        return 0

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def abort(self) -> None:
        """Do nothing, either."""


class MemoryCapture:
    """A capture of the events that are sent in this process."""

    def __init__(
        self, capture: EventCapture, listener: EventListener, captures: list[MemoryCapture]
    ) -> None:
        self._capture = capture
        self._listener = listener
        self._captures = captures

    def take(self, message: OutgoingMessage) -> None:
        if self._capture.takes(message):
            for event in self._capture.read(message.body, message.received):
                self._listener.push(event)

    async def start(self) -> None:
        if self not in self._captures:
            self._captures.append(self)
            self._listener.consuming()

    async def close(self) -> None:
        if self in self._captures:
            self._captures.remove(self)
