"""Workloads come in and figures go out, on every kind of event loop."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from ..workloads import WORKLOADS

__all__ = ["serve_asyncio", "serve_blocking", "serve_twisted", "serve_twisted_on_asyncio"]


class Asyncio:
    """What workloads need of asyncio."""

    sleep = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def gather(self, coroutines: Iterable[Coroutine[Any, Any, Any]]) -> Awaitable[Any]:
        return asyncio.gather(*coroutines)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def readline(self) -> Awaitable[str]:
        return asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


class Twisted:
    """The same of Twisted."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def sleep(self, seconds: float) -> Awaitable[Any]:
        from twisted.internet.task import deferLater

        return deferLater(self._reactor, seconds)

    def gather(self, coroutines: Iterable[Coroutine[Any, Any, Any]]) -> Awaitable[Any]:
        from twisted.internet.defer import Deferred, gatherResults

        return gatherResults([Deferred.fromCoroutine(each) for each in coroutines])

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(coroutine)

    def readline(self) -> Awaitable[str]:
        from twisted.internet.threads import deferToThread

        return deferToThread(sys.stdin.readline)


async def _serve(client: Any, loop: Any) -> None:
    await client.open()
    while line := await loop.readline():
        name, options = json.loads(line)
        _answer(await WORKLOADS[name](client, loop, **options))
    await client.close()


def serve_asyncio(client: Any) -> None:
    async def main() -> None:
        await _serve(client, Asyncio())

    asyncio.run(main())


def serve_uvloop(client: Any) -> None:
    import uvloop

    async def main() -> None:
        await _serve(client, Asyncio())

    uvloop.run(main())


def serve_twisted(client: Any) -> None:
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    react(lambda reactor: Deferred.fromCoroutine(_serve(client, Twisted(reactor))))


def serve_twisted_on_asyncio(client: Any) -> None:
    from bridgetask.twisted_compat import install

    install()
    serve_twisted(client)


def serve_blocking(client: Any) -> None:
    for line in sys.stdin:
        name, options = json.loads(line)
        does: Callable[..., dict[str, Any]] = getattr(client, name)
        _answer(does(**options))


def _answer(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)
