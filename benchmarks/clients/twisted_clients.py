"""Clients for Twisted programs."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from . import PARKED, QUEUE, SINK, TASK, make_app
from .asyncio_clients import make_group

__all__ = ["Bridgetask", "CeleryInThreads", "Poller"]


class Bridgetask:
    def __init__(self, url: str, backend: str) -> None:
        from bridgetask.twisted_compat import TwistedCelery

        self._app = make_app(url, backend)
        self._client = TwistedCelery(self._app)

    async def open(self) -> None:
        await self._client.connect()

    async def close(self) -> None:
        await self._client.disconnect()

    def call(self, *args: Any, queue: str = QUEUE) -> Awaitable[Any]:
        return self._client.send_task(TASK, args, queue=queue)

    def send(self, *args: Any) -> Awaitable[Any]:
        return self._client.send_task(TASK, args, queue=SINK, ignore_result=True)

    def group(self, size: int) -> Awaitable[Any]:
        return self._client.apply_async(make_group(self._app, size))

    async def park(self, *args: Any) -> Any:
        call = self._client.send_task(TASK, args, queue=PARKED)
        await call.sent()
        return call


class CeleryInThreads:
    """Celery's client by ``deferToThread``."""

    def __init__(self, url: str, backend: str) -> None:
        self._app = make_app(url, backend)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def call(self, *args: Any, queue: str = QUEUE) -> Awaitable[Any]:
        from twisted.internet.threads import deferToThread

        return deferToThread(lambda: self._app.send_task(TASK, args, queue=queue).get())

    def send(self, *args: Any) -> Awaitable[Any]:
        from twisted.internet.threads import deferToThread

        return deferToThread(self._app.send_task, TASK, args, queue=SINK, ignore_result=True)

    def group(self, size: int) -> Awaitable[Any]:
        from twisted.internet.threads import deferToThread

        return deferToThread(lambda: make_group(self._app, size).apply_async().get())


class Poller:
    """Sends on the reactor's thread, and asks for each result every 50 ms."""

    #: Seconds between two questions for a result.
    PERIOD = 0.05

    def __init__(self, url: str, backend: str) -> None:
        self._app = make_app(url, backend)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def call(self, *args: Any, queue: str = QUEUE) -> Awaitable[Any]:
        return self._polled(self._app.send_task(TASK, args, queue=queue))

    def send(self, *args: Any) -> Awaitable[Any]:
        from twisted.internet.defer import succeed

        return succeed(self._app.send_task(TASK, args, queue=SINK, ignore_result=True))

    def group(self, size: int) -> Awaitable[Any]:
        return self._polled(make_group(self._app, size).apply_async())

    def _polled(self, called: Any) -> Awaitable[Any]:
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred

        answer: Deferred[Any] = Deferred()

        def look() -> None:
            if called.ready():
                answer.callback(called.get())
            else:
                reactor.callLater(self.PERIOD, look)  # type: ignore[attr-defined]

        look()
        return answer
