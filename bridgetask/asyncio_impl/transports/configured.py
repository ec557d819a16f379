"""The transports that an app's configuration asks for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ... import redis_settings
from ...wire.wire import Wire
from ..decoding import Decoding
from ..pending import PendingResults
from .amqp_connection import AmqpConnection
from .amqp_results import AmqpControlChannel, RpcResults
from .amqp_sender import AmqpSender
from .base import Transports

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["configured_transports", "preload"]


def preload(app: Celery) -> None:
    """Import what Redis needs, where the app is known to use it.

    The first call is made on the event loop, which must not wait for files.
    """
    if redis_settings.preload(app):
        from . import redis_results  # noqa: F401


def configured_transports(
    wire: Wire, pending: PendingResults, loop: asyncio.AbstractEventLoop
) -> Transports:
    """Return what connects a session to RabbitMQ, and to Redis where that stores results.

    One connection sends; another one is for replies, and for results by ``rpc://``. Nothing
    connects before it is used.
    """
    settings = wire.settings
    reading = AmqpConnection(settings.read, "results")
    sender = AmqpSender(AmqpConnection(settings.write, "tasks"), loop)
    replies = AmqpControlChannel(reading, wire.mailbox)
    if settings.results.redis is not None:
        from .redis_results import RedisResults  # redis is an extra

        stored = RedisResults(
            settings.results.redis,
            wire.recorder.backend.get_key_for_task,
            wire.decoder,
            pending,
            Decoding(loop),
            loop,
        )
        return Transports(sender=sender, results=stored, replies=replies, store=stored)
    results = RpcResults(
        reading,
        wire.recorder.reply_to,
        settings.results.expires,
        wire.decoder,
        pending,
        Decoding(loop),
    )
    return Transports(sender=sender, results=results, replies=replies)
