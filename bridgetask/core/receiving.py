"""The protocols of what receives: results, stored results, replies to commands, and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import BridgetaskError
from ..wire.control import Purge
from ..wire.events import EventCapture
from ..wire.message import StoreWrite

__all__ = [
    "ControlChannel",
    "EventListener",
    "Receiver",
    "ReplyListener",
    "ResultSource",
    "ResultStore",
    "Subscription",
]


class Receiver(Protocol):
    """Receives what workers answer to messages."""

    @property
    def ready(self) -> bool:
        """Whether :meth:`prepare` has nothing to do."""

    async def prepare(self) -> None:
        """Return once nothing can be missed of what is expected, connecting where that is needed.

        :raises BackendError: results are stored elsewhere, and can't be received from there.
        :raises SendError: answers come by way of the broker, and can't be received from there.
        """


class ResultSource(Receiver, Protocol):
    """Delivers what workers report to the pending results."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """Begin to get ready for what these tasks will report."""

    async def settle(self) -> None:
        """Return once no result is on its way that is known to come.

        That can be known of a worker in this process. All others return at once.
        """

    async def close(self) -> None:
        """Stop for good. What workers still send is dropped."""

    def abort(self) -> None:
        """Drop the connection on the spot, with no goodbye."""


class ResultStore(Protocol):
    """Keeps results, for any client to read. All of it raises ``BackendError``."""

    async def watch(self, task_id: str) -> None:
        """Return once what is stored of a task is delivered, and nothing later can be missed."""

    async def fetch(self, task_ids: Sequence[str]) -> None:
        """Read what is stored of tasks, and deliver it."""

    async def exists(self, task_id: str) -> bool:
        """Tell whether anything is stored of a task."""

    async def forget(self, task_id: str) -> None:
        """Delete what is stored of a task, and expect nothing of it any more."""

    async def read(self, key: bytes) -> bytes | None:
        """Return what is stored under a key, or None."""

    async def write(self, writes: Sequence[StoreWrite]) -> None:
        """Return once all of it is stored, in order."""


class ReplyListener(Protocol):
    """Takes what workers reply to commands."""

    def deliver(self, ticket: str, reply: Any) -> None:
        """Take a reply to the command with this ticket."""

    def interrupted(self) -> None:
        """Learn that replies may be missing, and that none come until listening begins again."""


class EventListener(Protocol):
    """Takes what workers tell of themselves and of tasks."""

    def push(self, event: dict[str, Any]) -> None:
        """Take an event."""

    def consuming(self) -> None:
        """Learn that no event is missed from now on."""

    def interrupted(self) -> None:
        """Learn that events are missed from now on."""

    def fail(self, error: BridgetaskError) -> None:
        """Learn that no event will ever come again."""


class Subscription(Protocol):
    """A capture of events. Once started, it goes on by itself, across lost connections."""

    async def start(self) -> None:
        """Return once no event is missed."""

    async def close(self) -> None:
        """Stop for good, and leave nothing behind."""


class ControlChannel(Receiver, Protocol):
    """Receives what workers say beside results: replies to commands, and events."""

    @property
    def workers(self) -> int | None:
        """How many workers there are, where that is known."""

    def subscribe(self, capture: EventCapture, listener: EventListener) -> Subscription:
        """Return a capture of events that is yet to be started."""

    async def purge(self, purge: Purge) -> int:
        """Empty a queue; return how many messages were in it."""

    async def close(self) -> None:
        """Stop for good, after all others that receive have stopped."""

    def abort(self) -> None:
        """Drop the connection on the spot, with no goodbye."""
