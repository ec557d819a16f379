"""What docs/reliability.md promises of sends and results, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from bridgetask import NotSent, Unconfirmed

from ..fix_proxy import Proxy
from ..patience import LATE, until
from ..servers import RabbitMQ, Worker
from .callers import Caller

SLEEP = "tests.tasks.sleep"
Taken = Callable[[], Awaitable[list[str]]]


async def test_what_is_confirmed_is_there_and_what_is_not_sent_is_not(
    caller: Callable[..., Caller], proxy: Proxy, queue: str, taken: Taken
) -> None:
    """Sends go on through cuts, outages and lost confirms; each outcome is told, and is true."""
    calls = caller(
        f"amqp://127.0.0.1:{proxy.port}//",
        send_timeout=2,
        conf={"task_publish_retry_policy": {"max_retries": 1, "interval_start": 0}},
    )
    handles = []

    async def load() -> None:
        for _ in range(300):
            handles.append(calls.send_task("nothing", queue=queue))
            await asyncio.sleep(0.01)

    async def harm() -> None:
        for _ in range(4):
            await asyncio.sleep(0.2)
            proxy.cut()
            await asyncio.sleep(0.1)
            proxy.refuse()
            proxy.cut()
            await asyncio.sleep(0.2)
            proxy.restore()
            proxy.swallow_confirms()
            await asyncio.sleep(0.2)
            proxy.heal()

    await calls.send_task("nothing", queue=queue).sent()
    await asyncio.gather(load(), harm())
    confirmed, not_sent, unknown = set(), set(), set()
    for handle in handles:
        try:
            await handle.sent()
        except NotSent as error:
            not_sent.add(error.task_id)
        except Unconfirmed as error:
            unknown.add(error.task_id)
        else:
            confirmed.add(handle.id)
    there = set(await taken())
    assert confirmed
    assert not_sent
    assert confirmed <= there
    assert not not_sent & there
    assert confirmed | not_sent | unknown == {handle.id for handle in handles}


async def test_results_of_an_outage_arrive_until_x_expires(
    callers: Callable[..., list[Caller]], proxy: Proxy, node: RabbitMQ, node_worker: Worker
) -> None:
    """The reply queue outlives the connection by ``result_expires``."""
    through = f"amqp://127.0.0.1:{proxy.port}//"
    opened = callers(through, conf={"result_expires": 30})
    pending = [calls.send_task(SLEEP, (0.2, "x")) for calls in opened]
    await asyncio.gather(*(call.sent() for call in pending))
    proxy.refuse()
    proxy.cut()
    for calls in opened:
        await until(partial(node.messages, calls.client._sessions.codec.recorder.reply_to))
    proxy.restore()
    assert await asyncio.gather(*pending) == ["x", "x"]


@pytest.mark.parametrize("wait", ["connect", "sent", "get", "revoke", "close"])
async def test_no_call_waits_longer_than_its_deadline(
    caller: Callable[..., Caller], proxy: Proxy, wait: str
) -> None:
    """Nothing answers: each call ends by its own deadline, whatever it comes to."""
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", send_timeout=1, close_timeout=1)
    proxy.stall()
    handle = calls.send_task("nothing")
    waits = {
        "connect": calls.connect,
        "sent": handle.sent,
        "get": lambda: handle.get(timeout=0.5),
        "revoke": handle.revoke,
        "close": calls.close,
    }
    waiting = asyncio.ensure_future(waits[wait]())
    _, late = await asyncio.wait([waiting], timeout=1 + LATE)
    assert not late
    waiting.exception()
    proxy.heal()
