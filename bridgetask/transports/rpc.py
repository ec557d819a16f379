"""``rpc://`` as a backend plug: results come by the broker, whichever that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.plugs import BackendCapabilities, BrokerConnections, SessionContext
from ..core.receiving import ResultSource
from ..wire.backend import RecordingBackend
from ..wire.message import StoreWrite

__all__ = ["RpcBackend"]


class RpcBackend:
    """Workers send results to an address of the client's. Nothing is stored."""

    capabilities: BackendCapabilities = BackendCapabilities(
        pushes=True, stores=False, uses_reply_to=True
    )
    unavailable: str | None = None
    refuses_calls = False

    def recording_backend(self, view: Any, record: Callable[[StoreWrite], None]) -> Any:
        return RecordingBackend()

    def connect(
        self, context: SessionContext, broker: BrokerConnections
    ) -> tuple[ResultSource, None]:
        return broker.results(), None
