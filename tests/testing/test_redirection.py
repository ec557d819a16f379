"""Whom the app belongs to while a task runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery, current_app
from celery.backends.cache import CacheBackend

from bridgetask.testing import InMemoryClient
from bridgetask.transports.memory.redirection import redirected

from .gate import LONG, Gate


async def test_others_see_the_app_as_it_is_while_a_task_runs(celery: Celery, gate: Gate) -> None:
    seen: list[Any] = []
    own = celery.backend  # of this thread

    @celery.task(shared=False, name="hold")
    def hold() -> None:
        seen.append(type(celery.backend))
        gate()

    async with InMemoryClient(celery) as client:
        call = client.delay(hold)
        await gate.reached()
        assert celery.backend is own
        assert await asyncio.to_thread(lambda: type(celery.backend)) is CacheBackend
        celery.send_task("elsewhere", task_id="the-id")  # to the app's own broker
        celery.backend.store_result("the-id", 5, "SUCCESS")
        assert celery.AsyncResult("the-id").get() == 5
        gate.open()
        await call
        assert [task.name for task in client.sent] == ["hold"]
        assert not await client.result("the-id").exists()
    assert seen != [CacheBackend]


async def test_what_a_task_runs_elsewhere_with_its_context_is_its_own(celery: Celery) -> None:
    """As asyncio and asgiref do it. A plain thread sees the app as it is."""
    seen: list[Any] = []

    def look(task_id: str) -> Any:
        celery.tasks["add"].update_state(task_id=task_id, state="LOOKED")
        return current_app._get_current_object() is celery

    @celery.task(shared=False, name="spread", bind=True)
    def spread(self: Any) -> list[Any]:
        task_id = self.request.id
        with ThreadPoolExecutor(1) as pool:
            in_context = pool.submit(contextvars.copy_context().run, look, task_id)
            plain = pool.submit(lambda: seen.append(type(celery.backend)))
            plain.result()
            return [in_context.result(), asyncio.run(asyncio.to_thread(look, task_id))]

    async with InMemoryClient(celery) as client:
        call = client.delay(spread)
        states = [update.state async for update in call.updates()]
        assert states == ["LOOKED", "LOOKED", "SUCCESS"]
        assert await call == [True, True]
    assert seen == [CacheBackend]


def test_an_app_may_be_asked_for_an_attribute_while_its_redirection_ends(celery: Celery) -> None:
    with redirected(celery, {}):
        ask = type(celery).__getattribute__
    assert ask(celery, "main") == celery.main  # the app has had its own class back in between


async def test_what_outlives_a_task_sees_the_app_as_it_is(celery: Celery) -> None:
    kept: list[contextvars.Context] = []

    @celery.task(shared=False, name="keep")
    def keep() -> None:
        kept.append(contextvars.copy_context())

    async with InMemoryClient(celery) as client:
        await client.delay(keep)
    assert type(kept[0].run(lambda: celery.backend)) is CacheBackend


async def test_many_threads_of_a_task_may_send_at_once(celery: Celery) -> None:
    add = celery.tasks["add"]

    @celery.task(shared=False, name="spread")
    def spread(number: int) -> list[str]:
        async def send() -> list[Any]:
            sends = (asyncio.to_thread(add.delay, each, each) for each in range(number))
            return await asyncio.gather(*sends)

        return [sent.id for sent in asyncio.run(send())]

    async with InMemoryClient(celery) as client:
        ids = await client.delay(spread, 200)
        values = [await client.result(task_id) for task_id in ids]
        assert values == [2 * number for number in range(200)]
        assert len(client.sent) == 201


async def test_a_client_may_be_used_within_a_task(celery: Celery) -> None:
    add = celery.tasks["add"]

    @celery.task(shared=False, name="outer")
    def outer() -> list[Any]:
        async def call() -> list[Any]:
            async with InMemoryClient(celery) as inner:
                pong = await inner.control.ping()
                return [await inner.delay(add, 1, 2), len(inner.sent), pong]

        return [*asyncio.run(call()), add.delay(3, 4).id]

    async with InMemoryClient(celery) as client:
        *of_the_inner, task_id = await client.delay(outer)
        assert of_the_inner == [3, 1, [{"in-process": {"ok": "pong"}}]]
        assert await client.result(task_id) == 7
        assert [task.name for task in client.sent] == ["outer", "add"]
        assert client.commands == []


async def test_two_clients_run_tasks_at_once(celery: Celery) -> None:
    barrier = threading.Barrier(2, timeout=LONG)

    @celery.task(shared=False, name="meet")
    def meet(number: int) -> list[Any]:
        barrier.wait()
        called = celery.tasks["add"].delay(number, number)
        barrier.wait()
        return [number, called.id]

    async with InMemoryClient(celery) as one, InMemoryClient(celery) as other:
        met = await asyncio.gather(one.delay(meet, 1), other.delay(meet, 2))
        assert [number for number, _ in met] == [1, 2]
        assert await one.result(met[0][1]) == 2
        assert await other.result(met[1][1]) == 4
        assert not await one.result(met[1][1]).exists()


def test_one_client_after_the_other_on_loops_of_their_own(celery: Celery) -> None:
    async def main(number: int) -> Any:
        async with InMemoryClient(celery) as client:
            return await client.delay(celery.tasks["add"], number, 1)

    assert [asyncio.run(main(number)) for number in range(3)] == [1, 2, 3]
