"""The clients that are compared, each in a process of its own.

``python -m benchmarks.clients NAME URL`` reads workloads from standard input, a line of JSON each,
and writes the figures of each as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .workloads import WORKLOADS, measured

__all__ = ["CLIENTS", "QUEUE", "SINK", "TASK"]

#: The queue that the replier answers.
QUEUE = "bench"
#: The queue of what is only sent.
SINK = "bench.sink"
TASK = "bench.add"


def make_app(url: str, backend: str = "rpc://") -> Any:
    """Return a Celery app, configured as any other."""
    from celery import Celery

    app = Celery("bench", broker=url, backend=backend)
    app.conf.task_default_queue = QUEUE
    return app


class BridgetaskClient:
    def __init__(self, url: str) -> None:
        from bridgetask import Client

        self._client = Client(make_app(url))

    async def open(self) -> None:
        await self._client.connect()

    async def close(self) -> None:
        await self._client.close()

    def call(self, *args: Any) -> Any:
        return self._client.send_task(TASK, args)

    def send(self, *args: Any) -> Any:
        return self._client.send_task(TASK, args, queue=SINK, ignore_result=True)


class FloorClient:
    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        from .floor import Floor

        self._calls = await Floor.connect(self._url, QUEUE, TASK)
        self._sends = await Floor.connect(self._url, SINK, TASK)
        self.call, self.send = self._calls.call, self._sends.send

    async def close(self) -> None:
        await self._calls.close()
        await self._sends.close()


class CeleryClient:
    """Celery's own, which blocks."""

    def __init__(self, url: str) -> None:
        self._app = make_app(url)

    def one_by_one(self, count: int) -> dict[str, Any]:
        import time

        latencies = []
        with measured(count) as figures:
            for number in range(count):
                began = time.perf_counter()
                self._app.send_task(TASK, (number, 2)).get()
                latencies.append(time.perf_counter() - began)
        return {**figures, "latencies": latencies}

    def burst(self, count: int, window: int) -> dict[str, Any]:
        with measured(count) as figures:
            for first in range(0, count, window):
                calls = [
                    self._app.send_task(TASK, (number, 2))
                    for number in range(first, min(first + window, count))
                ]
                for call in calls:
                    call.get()
        return figures

    def send(self, count: int, window: int) -> dict[str, Any]:
        with measured(count) as figures:
            for number in range(count):
                self._app.send_task(TASK, (number, 2), queue=SINK, ignore_result=True)
        return figures


def serve_async(client: Any, uvloop: bool = False) -> None:
    """Do what standard input says on an event loop."""

    async def main() -> None:
        await client.open()
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, options = json.loads(line)
            _answer(await WORKLOADS[name](client, **options))
        await client.close()

    if uvloop:
        import uvloop as library

        library.run(main())
    else:
        asyncio.run(main())


def serve_blocking(client: Any) -> None:
    for line in sys.stdin:
        name, options = json.loads(line)
        _answer(getattr(client, name)(**options))


def _answer(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)


def _plain(url: str) -> None:
    os.environ["BRIDGETASK_AMQP"] = "plain"
    serve_async(BridgetaskClient(url))


CLIENTS: dict[str, Callable[[str], None]] = {
    "bridgetask": lambda url: serve_async(BridgetaskClient(url)),
    "bridgetask, uvloop": lambda url: serve_async(BridgetaskClient(url), uvloop=True),
    "bridgetask, plain aio-pika": _plain,
    "celery": lambda url: serve_blocking(CeleryClient(url)),
    "floor": lambda url: serve_async(FloorClient(url)),
}


if __name__ == "__main__":
    CLIENTS[sys.argv[1]](sys.argv[2])
