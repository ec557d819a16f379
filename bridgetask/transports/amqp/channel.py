"""What carries messages on one channel: publishing with confirms, receiving with acknowledgements.

There are two implementations. :mod:`.direct` writes and reads the frames of messages itself, and
is used unless ``BRIDGETASK_AMQP=plain`` is set in the environment. :mod:`.plain` calls aiormq's own
methods, which costs more and relies on less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import aiormq.abc

from ...core.completion import Completion
from ...core.publishing import Sending
from ...wire.message import Properties

__all__ = ["ConsumingChannel", "OnMessage", "PublishingChannel"]

#: Takes a message's body and properties. It may not raise.
OnMessage = Callable[[bytes, Properties], None]


class PublishingChannel(Protocol):
    """Publishes on one channel with confirms, in the order in which it is given messages."""

    #: How many messages may be given to it in one turn of the event loop.
    per_turn: int
    #: Done once the channel is closed, and what became of each message was told.
    all_answered: Completion

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be published on it any more."""

    def publish(self, sending: Sending) -> None:
        """Take a message. What becomes of it is told once, unless it is forgotten.

        :raises InvalidOption: it can't be encoded.
        """

    def flush(self) -> None:
        """Write what was published. To be called before the turn of the event loop ends."""

    async def drain(self) -> None:
        """Write what was published, and return when the socket takes more.

        Nothing may be published meanwhile.
        """

    def forget(self, sending: Sending) -> None:
        """Do not tell what became of a message, nor hold on to it."""


class ConsumingChannel(Protocol):
    """Receives the messages of one consumer on one channel, and acknowledges them.

    One frame acknowledges all messages of a turn of the event loop, after they were handed over.
    """

    async def on_delivery(self, message: aiormq.abc.DeliveredMessage) -> None:
        """Take a message from aiormq: the callback for its ``basic_consume``."""

    def stop(self) -> None:
        """Acknowledge nothing more."""
