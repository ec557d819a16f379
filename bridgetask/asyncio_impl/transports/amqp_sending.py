"""One message on its way to RabbitMQ: what is known of it, and what is told when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiormq import spec

from ...errors import BridgetaskError
from ...wire.message import OutgoingMessage
from ..completion import Completion

__all__ = ["Sending", "amqp_properties"]

#: Bytes from which on a message goes alone. RabbitMQ 4 refuses what is larger than 16 MiB, by
#: closing the channel under everything that is on its way.
_ALONE = 16 * 1024 * 1024


class Sending:
    """A message on its way."""

    __slots__ = (
        "alone",
        "delivery",
        "expiry",
        "last_error",
        "message",
        "number",
        "prepare",
        "retries",
        "task",
        "unanswered",
    )

    def __init__(
        self,
        number: int,
        message: OutgoingMessage,
        delivery: Completion,
        prepare: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.number: int = number
        self.message: OutgoingMessage = message
        self.delivery: Completion = delivery
        self.prepare: Callable[[], Awaitable[None]] | None = prepare
        self.expiry: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        #: How many times it left without an answer so far. Each may have reached the broker.
        self.unanswered: int = 0
        #: Whether it must be the only one on its way, so that a refusal is known to be its own.
        self.alone: bool = len(message.body) >= _ALONE
        self.retries: int = 0
        self.last_error: BridgetaskError | None = None

    def __lt__(self, other: Sending) -> bool:
        return self.number < other.number


def amqp_properties(message: OutgoingMessage) -> spec.Basic.Properties:
    """Return a message's properties by aiormq's names."""
    properties: dict[str, Any] = dict(message.properties)
    properties["message_type"] = properties.pop("type", None)
    return spec.Basic.Properties(**properties)
