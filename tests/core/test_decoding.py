"""Where results are decoded, and what is done when they come in faster than that goes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from bridgetask import Client, ClientClosed, TaskUpdate
from bridgetask.core import decoding
from bridgetask.core.decoding import Decoding

from ..fix_rabbitmq import make_app
from ..redis_servers import Redis
from ..security.raw import publish
from ..servers import RabbitMQ


class Gate:
    """Decodes nothing before it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def decode(self, task_id: str) -> Callable[[bool], TaskUpdate]:
        def decode(in_steps: bool) -> TaskUpdate:
            assert self.opened.wait(10)
            return TaskUpdate(task_id, "SUCCESS", in_steps)

        return decode


@pytest.fixture
async def on_loop() -> AsyncIterator[Decoding]:
    made = Decoding(asyncio.get_running_loop())
    yield made
    made.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_slow_is_decoded_in_steps_and_keeps_its_order(on_loop: Decoding) -> None:
    gate, delivered = Gate(), []
    for slow in (True, False):
        on_loop.take(gate.decode("t"), "t", delivered.append, delivered.append, size=1, slow=slow)
    gate.opened.set()
    await until(lambda: len(delivered) == 2)
    assert [update.result for update in delivered] == [True, True]


async def test_who_hands_over_is_told_when_there_is_too_much_and_when_there_is_room(
    on_loop: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_FULL", 100)
    told: list[str] = []
    on_loop.on_full = lambda: told.append("full")
    on_loop.on_room = lambda: told.append("room")
    gate, delivered = Gate(), []
    for size in (60, 30):
        on_loop.take(
            gate.decode("t"), "t", delivered.append, delivered.append, size=size, slow=True
        )
    assert told == []
    on_loop.take(gate.decode("t"), "t", delivered.append, delivered.append, size=10, slow=True)
    assert told == ["full"]
    gate.opened.set()
    await until(lambda: len(delivered) == 3)
    assert told == ["full", "room"]


HandOver = Callable[[str, str], Awaitable[None]]


async def receives_all_though_full_all_the_time(client: Client, hand_over: HandOver) -> None:
    text = "x" * 200_000
    handles = [client.send_task("nothing", queue="nobody") for _ in range(20)]
    for handle in handles:
        await handle.sent()
    for handle in handles:
        body = json.dumps({"task_id": handle.id, "status": "SUCCESS", "result": text})
        await hand_over(handle.id, body)
    async with asyncio.timeout(30):
        for handle in handles:
            assert await handle == text


async def test_results_of_rabbitmq_arrive_though_reading_is_held_for_each(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_FULL", 1)
    celery = make_app("held", rabbitmq.url())
    async with Client(celery, heartbeat=1) as client:

        async def hand_over(task_id: str, body: str) -> None:
            await asyncio.to_thread(
                publish,
                rabbitmq,
                client,
                body,
                content_type="application/json",
                correlation_id=task_id,
            )

        await receives_all_though_full_all_the_time(client, hand_over)
        session: Any = client._sessions.current
        reader, _ = session._results._consumer._connection._connection.streams
        assert not reader.is_held


async def test_a_connection_that_is_held_is_not_taken_for_dead(
    rabbitmq: RabbitMQ, collected_logs: Callable[[], list[str]]
) -> None:
    async with Client(make_app("held", rabbitmq.url()), heartbeat=1) as client:
        await client.connect()
        session: Any = client._sessions.current
        connection = session._results._consumer._connection
        connection.hold()
        await asyncio.sleep(3.5)
        connection.release()
        assert connection.is_open
        await asyncio.sleep(0.5)
        assert connection.is_open
    assert not any("silent" in line for line in collected_logs())


async def test_results_of_redis_arrive_though_reading_is_held_for_each(
    rabbitmq: RabbitMQ, own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_FULL", 1)
    import redis

    celery = make_app("held", rabbitmq.url(), own_redis.url())
    with redis.Redis.from_url(own_redis.url()) as other:
        async with Client(celery) as client:
            key_for = client._sessions.codec.recorder.backend.get_key_for_task

            async def hand_over(task_id: str, body: str) -> None:
                await asyncio.to_thread(other.publish, key_for(task_id), body)

            await receives_all_though_full_all_the_time(client, hand_over)


async def test_who_waits_for_the_thread_is_told_of_the_end_and_not_cancelled(
    on_loop: Decoding,
) -> None:
    gate = Gate()
    running = asyncio.ensure_future(on_loop.decode(gate.decode("t"), slow=True))
    waiting = asyncio.ensure_future(on_loop.decode(gate.decode("t"), slow=True))
    await asyncio.sleep(0.1)
    on_loop.close()
    gate.opened.set()
    with pytest.raises(ClientClosed):
        await waiting
    await running
