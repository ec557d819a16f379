"""Clients that block, and do the workloads in their own way."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..app import PARKED, QUEUE, SINK, TASK
from ..workloads import argument, measured, memory
from .bases import AppClient, make_group

__all__ = ["CeleryClient", "Frames"]


class CeleryClient(AppClient):
    """Celery's own."""

    def one_by_one(self, count: int) -> dict[str, Any]:
        latencies = []
        with measured(count) as figures:
            for number in range(count):
                began = time.perf_counter()
                self._app.send_task(TASK, (number, 2)).get()
                latencies.append(time.perf_counter() - began)
        return {**figures, "latencies": latencies}

    def burst(self, count: int, window: int, size: int = 0) -> dict[str, Any]:
        first, second = argument(size)
        with measured(count) as figures:
            for begin in range(0, count, window):
                calls = [
                    self._app.send_task(TASK, (first, second), queue=QUEUE)
                    for _ in range(min(window, count - begin))
                ]
                for call in calls:
                    call.get()
        return figures

    large = burst

    def send(self, count: int, window: int) -> dict[str, Any]:
        with measured(count) as figures:
            for number in range(count):
                self._app.send_task(TASK, (number, 2), queue=SINK, ignore_result=True)
        return figures

    def send_one_by_one(self, count: int) -> dict[str, Any]:
        return self.send(count, 1)

    def groups(self, count: int, size: int) -> dict[str, Any]:
        with measured(count * size) as figures:
            for _ in range(count):
                make_group(self._app, size).apply_async().get()
        return figures

    def pending(self, levels: list[int], count: int, window: int) -> dict[str, Any]:
        parked: list[Any] = []
        before, steps = memory(), []
        for level in levels:
            while len(parked) < level:
                parked.append(self._app.send_task(TASK, (len(parked), 2), queue=PARKED))
            held = memory() - before
            bursts = [self.burst(count, window) for _ in range(5)]
            steps.append({"pending": level, "bytes": held / level, "bursts": bursts})
        return {"steps": steps}


class Frames:
    """The frames of one publish, written as they are."""

    def __init__(self, url: str, backend: str) -> None:
        from ..floor import Amqp, Floor, content, method, short

        self._loop = asyncio.new_event_loop()
        self._amqp = self._loop.run_until_complete(self._connected(Amqp, url))
        floor = Floor.__new__(Floor)
        floor._task = TASK
        properties = floor._properties(b"0" * 36, b"(1, 2)", "")
        body = b'[[1, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
        publish = method(60, 40, b"\0\0" + short("") + short(SINK) + b"\0")
        self._frames = publish + content(properties, body)

    async def _connected(self, amqp: Any, url: str) -> Any:
        made = await amqp.connect(url)
        await made.declare(SINK)
        return made

    def send(self, count: int, window: int) -> dict[str, Any]:
        return self._loop.run_until_complete(self._send(count, window))

    async def _send(self, count: int, window: int) -> dict[str, Any]:
        pieces = self._frames * window
        with measured(count) as figures:
            for begin in range(0, count, window):
                self._amqp.transport.write(pieces[: len(self._frames) * (count - begin)])
            await self._amqp.declare(SINK)  # answered when all before it has been taken
        return figures
