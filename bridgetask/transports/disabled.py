"""No result backend, or one that can't be used: tasks are sent, and no result comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.plugs import BackendCapabilities, BrokerConnections, SessionContext
from ..wire.backend import RecordingBackend
from ..wire.message import StoreWrite

__all__ = ["DisabledBackend"]


class DisabledBackend:
    """Stands for a backend that no results come from.

    :param unavailable: why that is so.
    :param refuses_calls: whether a call is refused unless its result is ignored.
    """

    capabilities: BackendCapabilities = BackendCapabilities(
        pushes=False, stores=False, uses_reply_to=False
    )

    def __init__(self, unavailable: str, *, refuses_calls: bool = False) -> None:
        self.unavailable: str | None = unavailable
        self.refuses_calls: bool = refuses_calls

    def recording_backend(self, view: Any, record: Callable[[StoreWrite], None]) -> Any:
        return RecordingBackend()

    def connect(self, context: SessionContext, broker: BrokerConnections) -> tuple[NoResults, None]:
        return NoResults(), None


class NoResults:
    """A source that no result ever comes from."""

    ready = True

    async def prepare(self) -> None:
        """Do nothing: nothing can be missed."""

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing."""

    async def settle(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""
