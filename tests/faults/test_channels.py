"""What poisons a channel, or leaks one: nobody else is harmed, and nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from twisted.internet.defer import CancelledError

from bridgetask import Refused

from ..servers import RabbitMQ
from .callers import Caller


async def test_mode_10_a_missing_exchange_harms_no_other_send(
    caller: Callable[..., Caller],
    node: RabbitMQ,
    queue: str,
    taken: Callable[[], Awaitable[list[str]]],
) -> None:
    calls = caller(node.url())
    lost = calls.send_task("nothing", exchange="missing", routing_key="x")
    good = [calls.send_task("nothing", queue=queue) for _ in range(100)]
    with pytest.raises(Refused, match="no exchange 'missing'"):
        await lost.sent()
    await asyncio.gather(*(call.sent() for call in good))
    assert await taken() == [call.id for call in good]


async def test_mode_11_cancelled_sends_leave_the_channel_in_order(
    caller: Callable[..., Caller],
    node: RabbitMQ,
    queue: str,
    taken: Callable[[], Awaitable[list[str]]],
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    calls = caller(node.url())
    chance = random.Random(11)
    await calls.send_task("nothing", queue=queue).sent()

    async def send(cancelled: bool) -> str:
        call = calls.send_task("nothing", queue=queue)
        sending = asyncio.ensure_future(call.sent())
        if cancelled:
            await asyncio.sleep(chance.random() * 0.3)
            sending.cancel()
        try:
            await sending
        except (asyncio.CancelledError, CancelledError):
            await call.sent()  # only the waiting was cancelled
        return str(call.id)

    sent = await asyncio.gather(*(send(chance.random() < 0.3) for _ in range(1000)))
    assert set(sent) < set(await taken())


async def test_mode_14_ten_thousand_sends_need_no_further_channel_or_connection(
    caller: Callable[..., Caller], node: RabbitMQ, queue: str
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    calls = caller(node.url(), send_timeout=240)

    async def counts() -> tuple[int, int]:
        channels = await asyncio.to_thread(node.names, "channels", "pid")
        connections = await asyncio.to_thread(node.names, "connections", "pid")
        return len(channels), len(connections)

    await calls.send_task("nothing", queue=queue, ignore_result=True).sent()
    before = await counts()
    for _ in range(10):
        handles = [calls.send_task("nothing", queue=queue, ignore_result=True) for _ in range(1000)]
        await asyncio.gather(*(handle.sent() for handle in handles))
    assert await counts() == before
