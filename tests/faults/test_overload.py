"""More is sent than the broker takes: callers wait, then are told, and memory is bounded."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from bridgetask import Client, InvalidOption, Overloaded

from ..fix_proxy import Proxy
from ..fix_rabbitmq import make_app
from ..patience import PATIENCE
from ..servers import RabbitMQ
from .callers import Caller

Taken = Callable[[], Awaitable[list[str]]]


async def test_no_more_than_max_in_flight_go_out_without_a_confirm(
    caller: Callable[..., Caller], proxy: Proxy, queue: str, taken: Taken
) -> None:
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", max_in_flight=10)
    first = calls.send_task("nothing", queue=queue)
    await first.sent()
    proxy.swallow_confirms()
    handles = [calls.send_task("nothing", queue=queue) for _ in range(30)]
    there = set(await taken())
    async with asyncio.timeout(PATIENCE):
        while len(there) < 11:
            there |= set(await taken())
    await asyncio.sleep(0.3)
    there |= set(await taken())
    assert there == {first.id, *(handle.id for handle in handles[:10])}
    proxy.heal()
    await asyncio.gather(*(handle.sent() for handle in handles))
    assert {handle.id for handle in handles} == set(await taken())


async def test_beyond_max_queued_a_call_raises_and_memory_stays_bounded(
    caller: Callable[..., Caller], proxy: Proxy, queue: str, taken: Taken
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", max_queued=1000)
    await calls.send_task("nothing", queue=queue).sent()
    proxy.stall()
    admitted = [calls.send_task("nothing", queue=queue) for _ in range(1000)]

    def refused(times: int) -> None:
        for _ in range(times):
            with pytest.raises(Overloaded, match="1000 messages wait for the broker's confirm"):
                calls.send_task("nothing", queue=queue)

    refused(100)
    tracemalloc.start()
    refused(100)
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    refused(2000)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 100_000
    proxy.restore()
    await asyncio.gather(*(handle.sent() for handle in admitted))
    await calls.send_task("nothing", queue=queue).sent()
    assert len(set(await taken())) == 1002


async def test_a_blocked_broker_counts_as_overload(
    callers: Callable[..., list[Caller]], node: RabbitMQ, queue: str
) -> None:
    opened = callers(node.url(), max_queued=20)
    await asyncio.gather(*(calls.send_task("nothing", queue=queue).sent() for calls in opened))
    await asyncio.to_thread(node.set_memory_alarm, True)
    try:
        handles = [calls.send_task("nothing", queue=queue) for calls in opened for _ in range(20)]
        await asyncio.sleep(0.2)
        for calls in opened:
            with pytest.raises(Overloaded):
                calls.send_task("nothing", queue=queue)
    finally:
        await asyncio.to_thread(node.set_memory_alarm, False)
    await asyncio.gather(*(handle.sent() for handle in handles))
    await asyncio.gather(*(calls.send_task("nothing", queue=queue).sent() for calls in opened))


@pytest.mark.parametrize("option", ["max_in_flight", "max_queued"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "many", None])
def test_bounds_must_be_positive_whole_numbers(option: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=option):
        Client(make_app("bounds", "amqp://"), **{option: value})  # type: ignore[arg-type]
