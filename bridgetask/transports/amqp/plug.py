"""RabbitMQ as a broker plug."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...core.decoding import Decoding
from ...core.plugs import BrokerCapabilities, SessionContext
from ...settings import result_expires
from ...wire.producer import RecordingChannel
from .connection import AmqpConnection
from .control import AmqpControlChannel
from .publisher import AmqpPublisher
from .results import RpcResults
from .settings import AmqpSettings

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = ["AmqpBroker"]


class AmqpBroker:
    """A RabbitMQ, as an app's configuration describes it.

    :param heartbeat: seconds after which a silent broker is taken for dead; see
        :meth:`AmqpSettings.from_app`.
    :raises InvalidOption: the configuration can't be used.
    """

    capabilities: BrokerCapabilities = BrokerCapabilities(
        confirms=True,
        returns_unroutable=True,
        counts_workers=False,
        fanout=True,
        carries_results=True,
    )

    def __init__(self, app: Celery, *, heartbeat: float | None = None) -> None:
        self.settings: AmqpSettings = AmqpSettings.from_app(app, heartbeat=heartbeat)
        self._app = app

    def recording_channel(self) -> RecordingChannel:
        return RecordingChannel()

    def unconnected(self) -> Connection:
        return self._app.connection_for_write()

    def connect(self, context: SessionContext) -> AmqpConnections:
        return AmqpConnections(self.settings, result_expires(self._app), context)


class AmqpConnections:
    """What connects a session to RabbitMQ. Nothing connects before it is used.

    One connection sends; another one is for replies and events, and for results by ``rpc://``.

    ``BRIDGETASK_AMQP=plain`` in the environment makes aiormq's own methods publish and receive; see
    :mod:`.channel`.
    """

    def __init__(self, settings: AmqpSettings, expires: float, context: SessionContext) -> None:
        plain = os.environ.get("BRIDGETASK_AMQP") == "plain"
        self._expires = expires
        self._context = context
        self._reading = AmqpConnection(settings.read, "results", plain=plain)
        self.publisher: AmqpPublisher = AmqpPublisher(
            AmqpConnection(settings.write, "tasks", plain=plain)
        )
        self.control: AmqpControlChannel = AmqpControlChannel(
            self._reading, context.codec.mailbox, context.replies
        )

    def results(self) -> RpcResults:
        context = self._context
        return RpcResults(
            self._reading,
            context.codec.recorder.reply_to,
            self._expires,
            context.codec.decoder,
            context.outcomes,
            Decoding(context.loop),
        )
