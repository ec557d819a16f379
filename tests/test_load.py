"""Many tasks at once: right answers, empty registries, a loop that is never late by much."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest
from celery import Celery

from bridgetask import Client, ResultTimeout

from . import tasks
from .patience import PATIENCE

#: Seconds that ten thousand tasks may take on a machine with other things to do.
LONG = 600
#: Tasks; a tenth of them is cancelled, and a tenth timed out, while they wait.
COUNT = 10_000


@pytest.mark.timeout(LONG)
async def test_ten_thousand_tasks_each_get_their_own_answer(app: Celery) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    chance = random.Random(20261121)
    async with Client(app, send_timeout=LONG) as client:

        async def call(number: int) -> str:
            handle = client.delay(tasks.add, number, 7)
            kind = chance.random()
            if kind < 0.1:
                waiting = asyncio.ensure_future(handle.get())
                await asyncio.sleep(chance.random() * 0.2)
                if waiting.cancel():
                    await asyncio.wait([waiting])
                    return "cancelled"
                assert await waiting == number + 7
            elif kind < 0.2:
                try:
                    assert await handle.get(timeout=chance.random() * 0.2) == number + 7
                except ResultTimeout:
                    return "timed out"
            else:
                assert await handle == number + 7
            return "answered"

        ends = await asyncio.gather(*(call(number) for number in range(COUNT)))
        counts = {end: ends.count(end) for end in sorted(set(ends))}
        assert counts["answered"] >= 0.8 * COUNT - 200
        assert counts["cancelled"] > 500
        assert counts["timed out"] > 500

        # What nobody waits for any more is answered too, by and by; then nothing is left.
        assert await client.delay(tasks.add, 0, 0) == 0
        session: Any = client._sessions.current
        await asyncio.wait_for(session._outbox.drain(), PATIENCE)  # a result may precede a confirm
        gc.collect()
        assert len(session.pending) == 0
        assert not session.pending.held
        assert session._outbox.queued == 0
        async with asyncio.timeout(PATIENCE):  # confirms of what was answered before them
            while session._outbox.in_flight:
                await asyncio.sleep(0.01)
        assert not session._background


@pytest.mark.timeout(LONG)
async def test_ten_thousand_results_come_from_redis(redis_app: Celery) -> None:
    asyncio.get_running_loop().set_debug(False)
    async with Client(redis_app, send_timeout=LONG) as client:
        handles = []
        for number in range(COUNT):
            handles.append(client.send_task("tests.tasks.add", (number, 7)))
            if number % 50 == 49:
                await asyncio.sleep(0)
        assert await asyncio.gather(*handles) == list(range(7, COUNT + 7))
        session: Any = client._sessions.current
        assert len(session._results._watches) == 0
        del handles
        gc.collect()
        assert len(session.pending) == 0


async def test_a_thousand_tasks_in_flight_keep_the_loop_free(app: Celery) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(False)
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            late.append(loop.time() - due)

    async with Client(app) as client:
        await client.delay(tasks.add, 0, 0)
        ticker = asyncio.create_task(tick())
        handles = []
        for number in range(1000):
            handles.append(client.delay(tasks.add, number, 1))
            if number % 50 == 49:
                await asyncio.sleep(0)
        assert await asyncio.gather(*handles) == list(range(1, 1001))
        ticker.cancel()
    # How late is a benchmark's figure; that the loop turned all the while is what is tested.
    assert len(late) > 20
