"""Redis as a broker plug."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.decoding import Decoding
from ...core.plugs import BrokerCapabilities, SessionContext
from ...wire.virtual import VirtualRecordingChannel
from .broker_control import RedisControl
from .broker_settings import RedisBrokerSettings
from .channel import KombuCommands
from .connection import FailoverConnector
from .link import OnRedis, RedisLink
from .publisher import RedisPublisher
from .rpc_results import RedisRpcResults

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = ["RedisBroker"]


class RedisBroker:
    """A Redis that messages go through, as an app's configuration describes it.

    :param heartbeat: seconds after which a silent server is taken for dead; see
        :meth:`RedisBrokerSettings.from_app`.
    :raises InvalidOption: the configuration can't be used.
    """

    capabilities: BrokerCapabilities = BrokerCapabilities(
        confirms=True,
        returns_unroutable=True,
        counts_workers=True,
        fanout=True,
        carries_results=True,
    )

    def __init__(self, app: Celery, *, heartbeat: float | None = None) -> None:
        self.settings: RedisBrokerSettings = RedisBrokerSettings.from_app(app, heartbeat=heartbeat)
        self._app = app

    def recording_channel(self) -> VirtualRecordingChannel:
        return VirtualRecordingChannel()

    def unconnected(self) -> Connection:
        return self._app.connection_for_write()

    def connect(self, context: SessionContext) -> RedisConnections:
        return RedisConnections(self._app, self.settings, context)


class RedisConnections(OnRedis):
    """What connects a session to Redis. Nothing connects before it is used.

    One connection is for all commands, one to listen by, and one waits for what is pushed to the
    client's own list. Where an app reads from another server than it writes to, what is received
    has its own connection for commands.
    """

    def __init__(self, app: Celery, settings: RedisBrokerSettings, context: SessionContext) -> None:
        loop, codec = context.loop, context.codec
        self._context = context
        self.link: RedisLink = RedisLink(FailoverConnector(settings.write), loop)
        reading = self.link
        if settings.read != settings.write:
            reading = RedisLink(FailoverConnector(settings.read), loop)
        self.publisher: RedisPublisher = RedisPublisher(
            self.link.pipeline, KombuCommands(app.connection_for_write()), loop
        )
        self.control: RedisControl = RedisControl(
            reading,
            codec.recorder.reply_to,
            codec.mailbox,
            context.replies,
            KombuCommands(app.connection_for_read()),
            loop,
        )

    def results(self) -> RedisRpcResults:
        context = self._context
        results = RedisRpcResults(
            self.control.inbox, context.codec.decoder, context.outcomes, Decoding(context.loop)
        )
        self.control.results = results
        return results
