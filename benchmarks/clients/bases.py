"""What several clients have in common."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..app import PARKED, QUEUE, SINK, TASK, make_app

__all__ = ["AppClient", "BridgetaskClient", "make_group"]


class AppClient:
    """A client that uses a Celery app, and has nothing to open or close."""

    def __init__(self, url: str, backend: str) -> None:
        self._app = make_app(url, backend)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass


class BridgetaskClient(AppClient):
    """What asyncio's and Twisted's clients are both told alike."""

    _client: Any

    async def open(self) -> None:
        await self._client.connect()

    def call(self, *args: Any, queue: str = QUEUE) -> Awaitable[Any]:
        called: Awaitable[Any] = self._client.send_task(TASK, args, queue=queue)
        return called

    def send(self, *args: Any) -> Awaitable[Any]:
        sent: Awaitable[Any] = self._client.send_task(TASK, args, queue=SINK, ignore_result=True)
        return sent

    def group(self, size: int) -> Awaitable[Any]:
        called: Awaitable[Any] = self._client.apply_async(make_group(self._app, size))
        return called

    async def park(self, *args: Any) -> Any:
        call = self._client.send_task(TASK, args, queue=PARKED)
        await call.sent()
        return call


def make_group(app: Any, size: int) -> Any:
    """Return a group of ``size`` calls."""
    from celery import group

    return group([app.signature(TASK, (number, 2)) for number in range(size)], app=app)
