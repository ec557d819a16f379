"""Redis as a backend plug."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.decoding import Decoding
from ...core.plugs import BackendCapabilities, BrokerConnections, SessionContext
from ...wire.message import StoreWrite
from .connection import RedisConnector
from .link import OnRedis, RedisLink
from .recording import recording_backend
from .results import RedisResults
from .settings import RedisSettings

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["RedisBackend"]


class RedisBackend:
    """A Redis that results are stored in, as an app's configuration describes it.

    :raises InvalidOption: the configuration can't be used, or the package ``redis`` is missing.
    """

    capabilities: BackendCapabilities = BackendCapabilities(
        pushes=True, stores=True, uses_reply_to=False
    )
    unavailable: str | None = None
    refuses_calls = False

    def __init__(self, app: Celery) -> None:
        self.settings: RedisSettings = RedisSettings.from_app(app)
        self._app = app

    def recording_backend(self, view: Any, record: Callable[[StoreWrite], None]) -> Any:
        return recording_backend(self._app, view, record)

    def connect(
        self, context: SessionContext, broker: BrokerConnections
    ) -> tuple[RedisResults, RedisResults]:
        codec, server = context.codec, self.settings.server
        if isinstance(broker, OnRedis) and broker.link.connector.serves(server):
            link = broker.link
        else:
            link = RedisLink(RedisConnector(server), context.loop)
        results = RedisResults(
            link,
            server.db,
            self.settings.retry,
            codec.recorder.backend.get_key_for_task,
            codec.decoder,
            context.outcomes,
            Decoding(context.loop),
            context.loop,
        )
        return results, results
