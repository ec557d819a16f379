"""RabbitMQ: one connection to send, and one for results and replies."""

from __future__ import annotations

import asyncio

from ...wire.wire import Wire
from ..pending import PendingResults
from .amqp_connection import AmqpConnection
from .amqp_results import AmqpControlChannel, RpcResults
from .amqp_sender import AmqpSender
from .base import Transports

__all__ = ["amqp_transports"]


def amqp_transports(
    wire: Wire, pending: PendingResults, loop: asyncio.AbstractEventLoop
) -> Transports:
    """Return what connects a session to RabbitMQ. Nothing connects before it is used."""
    settings = wire.settings
    reading = AmqpConnection(settings.read, "results")
    return Transports(
        sender=AmqpSender(
            AmqpConnection(settings.write, "tasks"), loop, max_in_flight=settings.max_in_flight
        ),
        results=RpcResults(
            reading, wire.recorder.reply_to, settings.results.expires, wire.decoder, pending
        ),
        replies=AmqpControlChannel(reading, wire.mailbox),
    )
