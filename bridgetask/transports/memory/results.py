"""Results that the worker in this process has stored."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.plugs import SessionContext
from ...errors import ResultUndecodable
from ...wire.message import StoreWrite
from .worker import InProcessWorker

__all__ = ["MemoryResults"]


class MemoryResults:
    """Delivers what the worker has stored, and answers for what is stored."""

    #: Results are delivered as they come about.
    ready = True

    def __init__(self, worker: InProcessWorker, context: SessionContext) -> None:
        self._backend = worker.backend
        self._decoder = context.codec.decoder
        self._outcomes = context.outcomes

    def report(self, task_id: str, payload: bytes) -> None:
        """Deliver what is stored of a task."""
        try:
            self._outcomes.deliver(self._decoder.decode_stored(payload, task_id))
        except ResultUndecodable as error:
            self._outcomes.deliver_undecodable(error)

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: results are delivered as they come about."""

    async def prepare(self) -> None:
        """Do nothing, either."""

    async def watch(self, task_id: str) -> None:
        await self.fetch([task_id])

    async def fetch(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            payload = self._backend.payload(task_id)
            if payload is not None:
                self.report(task_id, payload)

    async def exists(self, task_id: str) -> bool:
        return self._backend.payload(task_id) is not None

    async def forget(self, task_id: str) -> None:
        self._backend.forget(task_id)

    async def read(self, key: bytes) -> bytes | None:
        return self._backend.get(key)

    async def write(self, writes: Sequence[StoreWrite]) -> None:
        """Do nothing: the backend has kept it already."""

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def abort(self) -> None:
        """Do nothing, either."""
