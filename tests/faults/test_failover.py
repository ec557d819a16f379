"""One of two brokers is killed under load: the other takes over, or the load waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import pytest
from kombu import Queue

from bridgetask import Refused, SendError, Unconfirmed

from ..fix_rabbitmq import take
from ..patience import LATE, PATIENCE
from ..servers import RabbitMQ, Worker
from .callers import Caller
from .load import PATIENT, Load

Callers = Callable[..., list[Caller]]


@pytest.fixture
async def pair(node: RabbitMQ) -> AsyncIterator[tuple[RabbitMQ, RabbitMQ]]:
    """Two brokers that know nothing of each other; the first may be killed."""
    first = RabbitMQ()
    try:
        await asyncio.to_thread(first.start)
        yield first, node
    finally:
        await asyncio.to_thread(first.stop)


async def test_when_the_first_of_two_brokers_is_killed_the_second_takes_over(
    callers: Callers, pair: tuple[RabbitMQ, RabbitMQ], node_worker: Worker
) -> None:
    first, second = pair
    opened = callers(f"{first.url()};{second.url()}", send_timeout=20)
    environment = {
        "BRIDGETASK_TEST_BROKER": first.url(),
        "BRIDGETASK_TEST_CONFIRM_PUBLISH": "1",
    }
    with Worker("tests.tasks", environment=environment, name="first"):
        async with Load(opened, "tests.tasks.add") as load:
            await asyncio.to_thread(first.kill)
            killed = len(load.handles)
            began = time.monotonic()
            probe = opened[0].send_task("tests.tasks.add", (1, 1))
            assert await probe == 2
            print(f"recovered in {time.monotonic() - began:.1f} s")
            assert time.monotonic() - began < 10 + LATE
            await asyncio.sleep(0.5)
        # Nothing is sent to nowhere: each has its answer, or went down with the first broker.
        later = await asyncio.gather(
            *(handle.get(timeout=PATIENCE) for handle in load.handles[killed:])
        )
        outcomes = await asyncio.gather(
            *(handle.get(timeout=5) for handle in load.handles), return_exceptions=True
        )
    assert later
    for number, outcome in enumerate(outcomes):
        assert outcome == number + 1 or (isinstance(outcome, Exception) and number < killed)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) > len(outcomes) / 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[RabbitMQ, RabbitMQ]]:
    """A cluster of two nodes."""
    with RabbitMQ() as first, RabbitMQ(cluster=first) as second:
        second.join()
        yield first, second


async def test_when_a_node_of_a_cluster_is_killed_a_quorum_queue_loses_nothing(
    callers: Callers, cluster: tuple[RabbitMQ, RabbitMQ]
) -> None:
    """Of two nodes both make the quorum: sends wait for the node, or are refused by the queue."""
    first, second = cluster
    queue = Queue("quorum", queue_arguments={"x-queue-type": "quorum"})
    opened = callers(f"{first.url()};{second.url()}", send_timeout=60, conf=PATIENT)
    async with Load(opened, "nothing", queue=queue, ignore_result=True) as load:
        await asyncio.to_thread(first.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(first.start)
        began = time.monotonic()
        while True:
            probe = opened[0].send_task("nothing", queue=queue, ignore_result=True)
            with suppress(SendError):
                await probe.sent()
                break
        print(f"recovered in {time.monotonic() - began:.1f} s")
    confirmed, refused, unknown = {probe.id}, set(), set()
    for handle in load.handles:
        try:
            await handle.sent()
        except Refused:  # by basic.nack
            refused.add(handle.id)
        except Unconfirmed:  # the same, but it had been sent before
            unknown.add(handle.id)
        else:
            confirmed.add(handle.id)
    messages = await asyncio.to_thread(take, second.url(), "quorum")
    there = {each.properties["correlation_id"] for each in messages}
    assert confirmed <= there
    assert not refused & there
    assert len(confirmed) > 50  # those from before and after it at the least


async def test_results_wait_for_the_node_that_holds_the_reply_queue(
    callers: Callers, cluster: tuple[RabbitMQ, RabbitMQ]
) -> None:
    """A classic queue is down with its node, and can't be declared on another one meanwhile."""
    first, second = cluster
    opened = callers(f"{first.url()};{second.url()}", send_timeout=3, conf=PATIENT)
    environment = {
        "BRIDGETASK_TEST_BROKER": second.url(),
        "BRIDGETASK_TEST_CONFIRM_PUBLISH": "1",
    }
    worker = Worker("tests.tasks", environment=environment, name="second")
    await asyncio.to_thread(worker.start)
    try:
        assert await asyncio.gather(
            *(calls.send_task("tests.tasks.add", (1, 1)) for calls in opened)
        ) == [2, 2]
        await asyncio.to_thread(first.kill)
        with pytest.raises(SendError):
            await opened[0].send_task("tests.tasks.add", (1, 1)).sent()
        await asyncio.to_thread(first.start)
        deadline = time.monotonic() + PATIENCE
        for calls in opened:
            while True:
                with suppress(SendError):
                    call = calls.send_task("tests.tasks.add", (2, 2))
                    assert await call.get(timeout=PATIENCE) == 4
                    break
                assert time.monotonic() < deadline
    finally:
        await asyncio.to_thread(worker.stop)
