"""Results that the worker in this process has stored."""

from __future__ import annotations

from collections.abc import Sequence

from ...wire.message import StoreWrite
from .backend import MemoryBackend
from .results import MemoryResults

__all__ = ["MemoryStore"]


class MemoryStore:
    """Answers for what is stored: of tasks, for what was announced of them."""

    def __init__(self, backend: MemoryBackend, results: MemoryResults) -> None:
        self._backend = backend
        self._results = results

    async def watch(self, task_id: str) -> None:
        await self._results.fetch([task_id])

    async def fetch(self, task_ids: Sequence[str]) -> None:
        await self._results.fetch(task_ids)

    async def exists(self, task_id: str) -> bool:
        return self._backend.announcements.latest(task_id) is not None

    async def forget(self, task_id: str) -> None:
        self._backend.forget(task_id)

    async def read(self, key: bytes) -> bytes | None:
        return self._backend.get(key)

    async def write(self, writes: Sequence[StoreWrite]) -> None:
        """Do nothing: the backend has kept it already."""
