"""RabbitMQ: one connection to send, and one for results and replies."""

from __future__ import annotations

import asyncio
import os

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
    """Return what connects a session to RabbitMQ. Nothing connects before it is used.

    ``BRIDGETASK_AMQP=plain`` in the environment makes messages go through aiormq's own methods.
    """
    settings = wire.settings
    plain = os.environ.get("BRIDGETASK_AMQP") == "plain"
    reading = AmqpConnection(settings.read, "results", plain=plain)
    return Transports(
        sender=AmqpSender(AmqpConnection(settings.write, "tasks", plain=plain), loop),
        results=RpcResults(
            reading, wire.recorder.reply_to, settings.results.expires, wire.decoder, pending
        ),
        replies=AmqpControlChannel(reading, wire.mailbox),
    )
