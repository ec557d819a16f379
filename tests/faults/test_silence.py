"""The broker, or the network, says nothing: who waits is told in time, and all goes on after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from bridgetask import BrokerUnreachable, SendTimeout, Unconfirmed

from ..fix_proxy import Proxy
from ..patience import LATE
from ..servers import Worker
from .callers import Caller

ADD = "tests.tasks.add"
SLEEP = "tests.tasks.sleep"


async def test_mode_1_a_broker_that_freezes_fails_a_send_by_its_deadline(
    caller: Callable[..., Caller], proxy: Proxy, queue: str
) -> None:
    through = f"amqp://127.0.0.1:{proxy.port}//"
    calls = caller(through, send_timeout=3, close_timeout=1, heartbeat=1)
    await calls.send_task("nothing", queue=queue).sent()
    proxy.stall()
    began = time.monotonic()
    mid_publish = calls.send_task("nothing", queue=queue)
    with pytest.raises(Unconfirmed):
        await mid_publish.sent()
    # By now the connection is known to be dead, and none can be made: this one never leaves.
    with pytest.raises((BrokerUnreachable, SendTimeout)):
        await calls.send_task("nothing", queue=queue).sent()
    assert time.monotonic() - began < 2 * 3 + LATE
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    proxy.heal()
    await calls.send_task("nothing", queue=queue).sent()


async def test_mode_2_a_confirm_that_never_comes_is_unconfirmed_on_time(
    caller: Callable[..., Caller],
    proxy: Proxy,
    queue: str,
    taken: Callable[[], Awaitable[list[str]]],
) -> None:
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", send_timeout=3)
    await calls.send_task("nothing", queue=queue).sent()
    proxy.swallow_confirms()
    began = time.monotonic()
    silent = [calls.send_task("nothing", queue=queue) for _ in range(100)]
    for call in silent:
        with pytest.raises(Unconfirmed) as caught:
            await call.sent()
        assert caught.value.task_id == call.id
    assert 2.9 < time.monotonic() - began < 3 + LATE
    proxy.restore()
    await calls.send_task("nothing", queue=queue).sent()


async def test_closing_waits_for_no_confirm_of_a_task_that_is_answered(
    caller: Callable[..., Caller], proxy: Proxy, node_worker: Worker
) -> None:
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", close_timeout=90)
    assert await calls.send_task(ADD, (1, 1)) == 2
    proxy.swallow_confirms()
    answered = calls.send_task(SLEEP, (0.5, 1))
    async with asyncio.timeout(30):
        await calls.close()
    assert await answered == 1


async def test_mode_7_a_half_open_connection_is_noticed_within_the_heartbeat(
    caller: Callable[..., Caller], proxy: Proxy, node_worker: Worker
) -> None:
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", heartbeat=2)
    assert await calls.send_task(ADD, (1, 1)) == 2
    pending = [calls.send_task(SLEEP, (0.5, number)) for number in range(8)]
    await asyncio.gather(*(call.sent() for call in pending))
    proxy.drop()
    proxy.restore()  # new connections get through; those from before are dead, and do not know it
    began = time.monotonic()
    sent_into_it = calls.send_task(ADD, (2, 2))
    await sent_into_it.sent()
    assert time.monotonic() - began < 2 + LATE
    # RabbitMQ notices too, in its time, and delivers again what it had put on that connection.
    assert await asyncio.gather(sent_into_it, *pending) == [4, *range(8)]
    assert time.monotonic() - began < 3 * 2 + 2 * LATE


async def test_mode_8_an_unknown_outcome_is_said_to_be_and_is_not_sent_twice(
    caller: Callable[..., Caller],
    proxy: Proxy,
    queue: str,
    taken: Callable[[], Awaitable[list[str]]],
) -> None:
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", send_timeout=3)
    await calls.send_task("nothing", queue=queue).sent()
    proxy.hold_confirms(5)
    late = calls.send_task("nothing", queue=queue)
    with pytest.raises(Unconfirmed) as caught:
        await late.sent()
    assert caught.value.task_id == late.id
    assert (await taken()).count(late.id) == 1
    proxy.restore()
    again = calls.send_task("nothing", queue=queue, task_id=late.id)
    assert again.id == late.id
    await asyncio.sleep(2.2)  # the first confirm arrives, for a message that nobody waits for
    await again.sent()
    assert await taken() == [late.id]
