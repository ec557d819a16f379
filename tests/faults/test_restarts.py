"""Connections are closed, the broker restarts, a queue is deleted, memory runs out: nothing is lost.

Both front ends go through each fault together, since these take their time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from bridgetask import SendTimeout, Unconfirmed

from ..servers import RabbitMQ, Worker
from .callers import Caller

ADD = "tests.tasks.add"
SLEEP = "tests.tasks.sleep"

Callers = Callable[..., list[Caller]]


async def test_mode_4_a_thousand_results_survive_closed_connections(
    callers: Callers, node: RabbitMQ, node_worker: Worker
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow

    async def survives(calls: Caller) -> None:
        pending = [calls.send_task(ADD, (number, 1)) for number in range(1000)]
        answers = asyncio.gather(*pending)
        assert await answers == list(range(1, 1001))

    both = asyncio.gather(*(survives(calls) for calls in callers(node.url())))
    await asyncio.to_thread(node.close_all_connections)
    await both


async def test_mode_5_results_survive_a_restart_of_the_broker(
    callers: Callers, node: RabbitMQ, node_worker: Worker
) -> None:
    opened = callers(node.url(), send_timeout=60)

    async def pending(calls: Caller) -> list[Any]:
        calls_made = [calls.send_task(SLEEP, (3, number)) for number in range(8)]
        await asyncio.gather(*(call.sent() for call in calls_made))
        return calls_made

    before = [call for calls in opened for call in await pending(calls)]
    await asyncio.to_thread(node.ctl, "stop_app")
    policy = {"max_retries": None, "interval_start": 0.2}
    during = [calls.send_task(ADD, (1, 1), retry_policy=policy) for calls in opened]
    await asyncio.sleep(10)
    await asyncio.to_thread(node.ctl, "start_app")
    assert await asyncio.gather(*before) == [*range(8), *range(8)]
    assert await asyncio.gather(*during) == [2, 2]


async def test_mode_6_a_deleted_reply_queue_is_consumed_again_in_five_seconds(
    callers: Callers, node: RabbitMQ, node_worker: Worker
) -> None:
    opened = callers(node.url())
    await asyncio.gather(*(calls.send_task(ADD, (1, 1)) for calls in opened))
    pending = [calls.send_task("nothing", queue="nobody-listens") for calls in opened]
    await asyncio.gather(*(call.sent() for call in pending))
    for calls in opened:
        reply_queue = calls.client._reply_to
        await asyncio.to_thread(node.ctl, "delete_queue", reply_queue)
        await until_consumed(node, reply_queue, timeout=5)
    assert await asyncio.gather(*(calls.send_task(ADD, (1, 1)) for calls in opened)) == [2, 2]
    await asyncio.to_thread(node.ctl, "delete_queue", "nobody-listens")


async def until_consumed(node: RabbitMQ, queue: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while [queue, "1"] not in await asyncio.to_thread(node.names, "queues", "name", "consumers"):
        assert time.monotonic() < deadline


@pytest.fixture(params=["memory", "disk"])
def alarm(request: pytest.FixtureRequest, node: RabbitMQ) -> Iterator[Callable[[bool], None]]:
    set_alarm = node.set_memory_alarm if request.param == "memory" else node.set_disk_alarm
    yield set_alarm
    set_alarm(False)


async def test_mode_9_an_alarm_fails_sends_in_time_and_lets_results_through(
    callers: Callers,
    node: RabbitMQ,
    node_worker: Worker,
    alarm: Callable[[bool], None],
    queue: str,
    taken: Callable[[], Awaitable[list[str]]],
) -> None:
    opened = callers(node.url(), send_timeout=1.5)

    async def blocked(calls: Caller) -> tuple[Any, list[Any]]:
        # RabbitMQ tells a connection that it is blocked when it publishes for the first time.
        first = calls.send_task("nothing", queue=queue)
        await asyncio.wait([asyncio.ensure_future(first.sent())])
        held = [calls.send_task("nothing", queue=queue) for _ in range(5)]
        for call in held:
            with pytest.raises(SendTimeout, match="blocked"):
                await call.sent()
        return first, held

    await asyncio.gather(*(calls.send_task("nothing", queue=queue).sent() for calls in opened))
    await asyncio.to_thread(alarm, True)
    began = time.monotonic()
    outcomes = await asyncio.gather(*(blocked(calls) for calls in opened))
    assert time.monotonic() - began < 4
    await asyncio.to_thread(alarm, False)
    # What was reported as not sent is not sent, and afterwards all goes on.
    await asyncio.gather(*(calls.send_task("nothing", queue=queue).sent() for calls in opened))
    there = await taken()
    assert not {call.id for _, held in outcomes for call in held} & set(there)
