"""Clients for Twisted programs."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..app import QUEUE, SINK, TASK
from .bases import AppClient, BridgetaskClient, make_group

__all__ = ["Bridgetask", "CeleryInThreads", "Poller"]


class Bridgetask(BridgetaskClient):
    def __init__(self, url: str, backend: str) -> None:
        from bridgetask.twisted_compat import TwistedCelery

        super().__init__(url, backend)
        self._client = TwistedCelery(self._app)

    async def close(self) -> None:
        await self._client.disconnect()


class CeleryInThreads(AppClient):
    """Celery's client by ``deferToThread``."""

    def call(self, *args: Any, queue: str = QUEUE) -> Awaitable[Any]:
        from twisted.internet.threads import deferToThread

        return deferToThread(lambda: self._app.send_task(TASK, args, queue=queue).get())

    def send(self, *args: Any) -> Awaitable[Any]:
        from twisted.internet.threads import deferToThread

        return deferToThread(self._app.send_task, TASK, args, queue=SINK, ignore_result=True)

    def group(self, size: int) -> Awaitable[Any]:
        from twisted.internet.threads import deferToThread

        return deferToThread(lambda: make_group(self._app, size).apply_async().get())


class Poller(AppClient):
    """Sends on the reactor's thread, and asks for each result every 50 ms."""

    #: Seconds between two questions for a result.
    PERIOD = 0.05

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
