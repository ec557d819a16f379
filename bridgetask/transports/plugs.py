"""The transports that an app's configuration asks for."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from ..core.decoding import Decoding
from ..core.outbox import AmqpSender
from ..core.outcomes import PendingResults
from ..core.protocols import ReplyListener, ResultSource, ResultStore, Transports
from ..wire.codec import Wire
from .amqp.connection import AmqpConnection
from .amqp.control import AmqpControlChannel
from .amqp.results import RpcResults
from .redis import settings as redis_settings

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["configured_transports", "preload"]


def preload(app: Celery) -> None:
    """Import what Redis needs, where the app is known to use it.

    The first call is made on the event loop, which must not wait for files.
    """
    if redis_settings.preload(app):
        from .redis import results as redis_results  # noqa: F401


def configured_transports(
    wire: Wire,
    pending: PendingResults,
    replies: ReplyListener,
    loop: asyncio.AbstractEventLoop,
) -> Transports:
    """Return what connects a session to RabbitMQ, and to Redis where that stores results.

    One connection sends; another one is for replies and events, and for results by ``rpc://``.
    Nothing connects before it is used.

    ``BRIDGETASK_AMQP=plain`` in the environment makes messages go through aiormq's own methods.
    """
    settings = wire.settings
    plain = os.environ.get("BRIDGETASK_AMQP") == "plain"
    reading = AmqpConnection(settings.read, "results", plain=plain)
    writing = AmqpConnection(settings.write, "tasks", plain=plain)
    results: ResultSource
    store: ResultStore | None = None
    if settings.results.redis is not None:
        from .redis.results import RedisResults  # redis is an extra

        results = store = RedisResults(
            settings.results.redis,
            wire.recorder.backend.get_key_for_task,
            wire.decoder,
            pending,
            Decoding(loop),
            loop,
        )
    else:
        results = RpcResults(
            reading,
            wire.recorder.reply_to,
            settings.results.expires,
            wire.decoder,
            pending,
            Decoding(loop),
        )
    return Transports(
        sender=AmqpSender(writing, store, loop, max_in_flight=settings.max_in_flight),
        results=results,
        control=AmqpControlChannel(reading, wire.mailbox, replies),
        store=store,
    )
