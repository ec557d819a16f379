"""Closed connections, restarts, a deleted queue, no memory: nothing is lost.

Both front ends go through each fault together, since these take their time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from bridgetask import ResultTimeout, SendTimeout

from ..fix_proxy import Proxy
from ..patience import LATE, until
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
        reply_queue = calls.client._sessions.codec.recorder.reply_to
        await asyncio.to_thread(node.delete_queue, reply_queue)
        await until(partial(node.consumers, reply_queue), within=5 + LATE)
    assert await asyncio.gather(*(calls.send_task(ADD, (1, 1)) for calls in opened)) == [2, 2]
    await asyncio.to_thread(node.delete_queue, "nobody-listens")


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
    proxy: Proxy,
    queue: str,
    taken: Callable[[], Awaitable[list[str]]],
) -> None:
    conf = {
        "broker_read_url": f"amqp://127.0.0.1:{proxy.port}//",
        "broker_write_url": node.url(),
    }
    opened = callers("amqp://127.0.0.1:1//", conf=conf, send_timeout=4)
    pending = [calls.send_task(SLEEP, (0.1, "early")) for calls in opened]
    await asyncio.gather(*(call.sent() for call in pending))
    proxy.refuse()
    proxy.cut()
    for calls in opened:  # the results wait in the broker
        await until(partial(node.messages, calls.client._sessions.codec.recorder.reply_to))
    assert not any(call.ready() for call in pending)

    await asyncio.to_thread(alarm, True)
    began = time.monotonic()
    proxy.restore()
    assert await asyncio.gather(*pending) == ["early", "early"]
    held = [call for each in opened for call in await blocked(each, queue)]
    for call in held:
        with pytest.raises(SendTimeout, match="the broker is blocked"):
            await call.sent()
    stuck = [await blocked(each, queue) for each in callers(node.url())]
    closing = time.monotonic()
    assert closing - began < 4 + 10 + LATE
    await asyncio.gather(*(calls.close() for calls in opened))
    assert time.monotonic() - closing < 5 + LATE

    await asyncio.to_thread(alarm, False)
    for call in [call for each in stuck for call in each]:
        await call.sent()  # held until there was room again
    assert not {call.id for call in held} & set(await taken())


async def blocked(calls: Caller, queue: str) -> list[Any]:
    """Return calls on a connection that is blocked: RabbitMQ blocks one when it first publishes."""
    first = calls.send_task("nothing", queue=queue)
    with suppress(ResultTimeout):
        await first.get(timeout=0.5)
    return [calls.send_task("nothing", queue=queue) for _ in range(5)]
