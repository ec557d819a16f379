"""The two protocols between the client and whatever carries messages and results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...wire.message import OutgoingMessage
from ..completion import Completion

__all__ = ["ControlChannel", "ResultSource", "Sender", "Transports"]


class Sender(Protocol):
    """Hands messages to a broker, in the order in which it is given them."""

    @property
    def queued(self) -> int:
        """How many messages have not been settled."""

    def send(
        self,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        results: ResultSource | None = None,
    ) -> None:
        """Take a message at once, to be sent as soon as that can be done.

        :param delivery: completed when the broker has the message, or failed with a
            :class:`bridgetask.errors.SendError`.
        :param deadline: the loop's time by which it must have been settled.
        :param results: started before the message goes, unless it is ready; what starting it
            raises counts as a failed attempt.
        """

    async def connect(self) -> None:
        """Connect now. Raises what a message would have failed with."""

    async def drain(self) -> None:
        """Return when every message that was taken has been settled."""

    async def close(self) -> None:
        """Disconnect. Messages that are not settled fail."""

    def abort(self) -> None:
        """Drop the connection on the spot, with no goodbye."""


class ResultSource(Protocol):
    """Delivers what workers report to the pending results."""

    @property
    def ready(self) -> bool:
        """Whether :meth:`start` has nothing to do."""

    async def start(self) -> None:
        """Return once results of tasks that are sent from now on can't be missed."""

    async def close(self) -> None:
        """Stop for good. What workers still send is dropped."""

    def abort(self) -> None:
        """Drop the connection on the spot, with no goodbye."""


class ControlChannel(Protocol):
    """Receives the replies of workers to commands."""

    async def listen(self, on_reply: Callable[[str, object], None]) -> None:
        """Return once replies can arrive: ``on_reply(ticket, what a worker said)``."""


@dataclass(frozen=True, slots=True)
class Transports:
    """What a session is connected by."""

    sender: Sender
    results: ResultSource
    replies: ControlChannel
