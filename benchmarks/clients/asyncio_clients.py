"""Clients for asyncio programs."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

from ..app import HELD, PARKED, QUEUE, SINK, TASK, make_app
from .bases import AppClient, BridgetaskClient, make_group

__all__ = [
    "Acelery",
    "AioCelery",
    "Bridgetask",
    "CeleryInThreads",
    "FaststreamCelery",
    "FloorClient",
    "PlainAioPika",
]


class Bridgetask(BridgetaskClient):
    def __init__(self, url: str, backend: str) -> None:
        from bridgetask import Client

        super().__init__(url, backend)
        self._client = Client(self._app)

    async def close(self) -> None:
        await self._client.close()


class CeleryInThreads(AppClient):
    """Celery's client by ``asyncio.to_thread``."""

    def call(self, *args: Any, queue: str = QUEUE) -> Awaitable[Any]:
        return asyncio.to_thread(lambda: self._app.send_task(TASK, args, queue=queue).get())

    def send(self, *args: Any) -> Awaitable[Any]:
        return asyncio.to_thread(self._app.send_task, TASK, args, queue=SINK, ignore_result=True)

    def group(self, size: int) -> Awaitable[Any]:
        return asyncio.to_thread(lambda: make_group(self._app, size).apply_async().get())


class AioCelery:
    def __init__(self, url: str, backend: str) -> None:
        import aio_celery

        self._app = aio_celery.Celery()
        self._app.conf.update(broker_url=url, result_backend=backend)
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        await self._stack.enter_async_context(self._app.setup())

    async def close(self) -> None:
        await self._stack.aclose()

    async def call(self, *args: Any, queue: str = QUEUE) -> Any:
        result = await self._app.send_task(TASK, args=args, queue=queue)
        return await result.get()

    async def send(self, *args: Any) -> None:
        await self._app.send_task(TASK, args=args, queue=SINK)


class Acelery(AppClient):
    async def open(self) -> None:
        from acelery import AIOExecutable

        self._made: Any = AIOExecutable

    async def call(self, *args: Any, queue: str = QUEUE) -> Any:
        result = await self._made(self._app.signature(TASK, args)).apply_async(queue=queue)
        return await result.get()

    async def send(self, *args: Any) -> None:
        signature = self._app.signature(TASK, args, ignore_result=True)
        await self._made(signature).apply_async(queue=SINK)

    async def group(self, size: int) -> Any:
        from acelery import AIOResult

        called = await asyncio.to_thread(make_group(self._app, size).apply_async)
        results = [AIOResult(each, return_type=Any) for each in called.results]
        return await asyncio.gather(*(each.get() for each in results))


class FaststreamCelery:
    def __init__(self, url: str, backend: str) -> None:
        from faststream_celery import CeleryBroker

        stored = None if backend == "rpc://" else backend
        self._broker = CeleryBroker(url, result_backend=stored, logger=None)

    async def open(self) -> None:
        await self._broker.start()

    async def close(self) -> None:
        await self._broker.stop()

    async def call(self, *args: Any, queue: str = QUEUE) -> Any:
        message = await self._broker.request(self._task(args), queue, timeout=600)
        return await message.decode()

    def send(self, *args: Any) -> Awaitable[Any]:
        return self._broker.publish(self._task(args), SINK)

    def _task(self, args: tuple[Any, ...]) -> Any:
        from faststream_celery import CeleryTask

        return CeleryTask(TASK, args=args)


class PlainAioPika:
    """One publisher and one consumer of replies, written by hand."""

    def __init__(self, url: str, backend: str) -> None:
        import aio_pika

        self._url, self._library = url, aio_pika
        self._app = make_app(url, backend)
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    async def open(self) -> None:
        self._connection = await self._library.connect_robust(self._url)
        self._channel = await self._connection.channel()
        for queue in (QUEUE, HELD, PARKED, SINK):
            await self._channel.declare_queue(queue, durable=True)
        replies = await self._channel.declare_queue(exclusive=True)
        self._sessions.codec.recorder.reply_to = replies.name
        await replies.consume(self._on_reply, no_ack=True)

    async def close(self) -> None:
        await self._connection.close()

    def _publish(self, task_id: str, args: tuple[Any, ...], queue: str, **options: Any) -> Any:
        built = self._app.amqp.as_task_v2(task_id, TASK, args, {}, **options)
        message = self._library.Message(
            json.dumps(built.body).encode(),
            headers=built.headers,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=self._library.DeliveryMode.PERSISTENT,
            correlation_id=task_id,
            reply_to=self._sessions.codec.recorder.reply_to,
        )
        return self._channel.default_exchange.publish(message, queue)

    async def call(self, *args: Any, queue: str = QUEUE) -> Any:
        return await (await self._called(args, queue))

    async def _called(self, args: tuple[Any, ...], queue: str) -> asyncio.Future[Any]:
        task_id = str(uuid.uuid4())
        waiting = self._waiting[task_id] = asyncio.get_running_loop().create_future()
        await self._publish(task_id, args, queue)
        return waiting

    def send(self, *args: Any) -> Awaitable[Any]:
        return self._publish(str(uuid.uuid4()), args, SINK, ignore_result=True)

    async def park(self, *args: Any) -> Any:
        return await self._called(args, PARKED)

    def _on_reply(self, message: Any) -> None:
        answer = json.loads(message.body)
        waiting = self._waiting.pop(answer["task_id"], None)
        if waiting is not None:
            waiting.set_result(answer["result"])


class FloorClient:
    def __init__(self, url: str, backend: str) -> None:
        self._url = url

    async def open(self) -> None:
        from ..floor import Floor

        self._floors = {
            queue: await Floor.connect(self._url, queue, TASK)
            for queue in (QUEUE, HELD, PARKED, SINK)
        }
        self.send = self._floors[SINK].send

    async def close(self) -> None:
        for floor in self._floors.values():
            await floor.close()

    def call(self, *args: Any, queue: str = QUEUE) -> Awaitable[Any]:
        return self._floors[queue].call(*args)

    async def park(self, *args: Any) -> Any:
        return self._floors[PARKED].call(*args)
