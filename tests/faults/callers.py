"""One set of calls over both front ends, so that a fault is written down once for both."""

from __future__ import annotations

import asyncio
from typing import Any

from celery import Celery
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred

from bridgetask import Client
from bridgetask.twisted_compat import DeferredTask, TwistedCelery

__all__ = ["AsyncioCaller", "Caller", "TwistedCaller"]


class AsyncioCaller:
    """Calls tasks through :class:`bridgetask.Client`, whose handles are given out as they are."""

    def __init__(self, app: Celery, **options: Any) -> None:
        self.client = Client(app, **options)

    def send_task(self, name: str, args: Any = (), **options: Any) -> Any:
        return self.client.send_task(name, args, **options)

    async def connect(self) -> None:
        await self.client.connect()

    async def close(self) -> None:
        await self.client.close()


class TwistedCaller:
    """Calls tasks through :class:`TwistedCelery`, on a reactor that runs on this event loop."""

    def __init__(self, app: Celery, **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._reactor = AsyncioSelectorReactor(self._loop)
        self._reactor.startRunning(installSignalHandlers=False)  # what run() does, but for the loop
        self._tx_app = TwistedCelery(app, reactor=self._reactor, **options)
        self.client = self._tx_app.client

    def send_task(self, name: str, args: Any = (), **options: Any) -> Any:
        return TwistedCall(self._tx_app.send_task(name, args, **options), self._loop)

    async def connect(self) -> None:
        await self._tx_app.connect().asFuture(self._loop)

    async def close(self) -> None:
        await self._tx_app.disconnect().asFuture(self._loop)
        self._reactor.removeAll()
        self._reactor.waker.connectionLost(None)


class TwistedCall:
    """A :class:`DeferredTask` with the methods of an ``AsyncResult``, each by its Deferred."""

    def __init__(self, deferred: DeferredTask, loop: asyncio.AbstractEventLoop) -> None:
        self.deferred = deferred
        self.id: str = deferred.task_id
        self._loop = loop
        self._outcome: asyncio.Future[Any] = loop.create_future()
        self._outcome.add_done_callback(lambda outcome: outcome.exception())
        deferred.addCallbacks(
            self._outcome.set_result, lambda failure: self._outcome.set_exception(failure.value)
        )

    def __await__(self) -> Any:
        return asyncio.shield(self._outcome).__await__()

    def ready(self) -> bool:
        return self.deferred.ready()

    def cancel(self) -> None:
        self.deferred.cancel()

    async def get(self, timeout: float | None = None) -> Any:
        return await self._awaited(self.deferred.get(timeout=timeout))

    async def sent(self) -> None:
        await self._awaited(self.deferred.sent())

    async def revoke(self) -> None:
        await self._awaited(self.deferred.revoke())

    def _awaited(self, deferred: Deferred[Any]) -> asyncio.Future[Any]:
        return deferred.asFuture(self._loop)


Caller = AsyncioCaller | TwistedCaller
