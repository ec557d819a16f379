"""Updates, whenever they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from celery import Celery, group

from bridgetask import ResultUnavailable
from bridgetask.testing import InMemoryClient

from ..fix_rabbitmq import make_app
from .conftest import MakeClient
from .gate import LONG


@pytest.fixture
async def client(in_memory: MakeClient, celery: Celery) -> AsyncIterator[InMemoryClient]:
    @celery.task(shared=False, name="progress", bind=True)
    def progress(self: Any) -> str:
        self.update_state(state="PROGRESS", meta=1)
        return "done"

    async with in_memory(celery) as opened:
        yield opened


async def all_of(updates: Any) -> list[tuple[str, Any]]:
    async with asyncio.timeout(LONG):
        return [(update.state, update.result) async for update in updates]


async def test_updates_may_be_asked_for_before_the_task_is_sent(client: InMemoryClient) -> None:
    updates = client.result("the-id").updates()
    client.send_task("progress", task_id="the-id")
    assert await all_of(updates) == [("PROGRESS", 1), ("SUCCESS", "done")]


async def end_of(client: InMemoryClient) -> str:
    call = client.send_task("progress")
    await call
    return call.id


async def end_of_a_failure(client: InMemoryClient) -> str:
    call = client.send_task("unknown")
    with pytest.raises(Exception, match="unknown"):
        await call
    return call.id


@pytest.mark.parametrize(
    ("ended", "state"), [(end_of, "SUCCESS"), (end_of_a_failure, "FAILURE")], ids=["good", "bad"]
)
async def test_updates_of_a_task_that_has_ended_are_its_final_one(
    client: InMemoryClient, ended: Callable[[InMemoryClient], Awaitable[str]], state: str
) -> None:
    task_id = await ended(client)
    handle = client.result(task_id)
    for _ in range(2):  # the second time the handle knows it
        assert [name for name, _ in await all_of(handle.updates())] == [state]
    updates, more = client.result(task_id).updates(), client.result(task_id).updates()
    assert await all_of(updates) == await all_of(more) != []


async def test_updates_of_a_handle_that_saw_them_are_all(client: InMemoryClient) -> None:
    call = client.send_task("progress")
    assert await call == "done"
    assert await all_of(call.updates()) == [("PROGRESS", 1), ("SUCCESS", "done")]
    assert await all_of(client.result(call.id).updates()) == await all_of(call.updates())


async def test_members_of_a_stored_group_that_have_ended_complete(client: InMemoryClient) -> None:
    parts = [client.app.tasks["add"].s(number, 1) for number in range(3)]
    sent = client.apply_async(group(parts))
    assert await sent == [1, 2, 3]
    await sent.save()
    group_id = sent.id
    del sent
    stored = await client.group_result(group_id)
    async with asyncio.timeout(LONG):
        assert sorted([await member async for member in stored.as_completed()]) == [1, 2, 3]


async def test_updates_by_rpc_of_another_s_task_are_refused() -> None:
    app = make_app("rpc", "amqp://127.0.0.1:1//", "rpc://")
    async with InMemoryClient(app) as client:
        with pytest.raises(ResultUnavailable):
            client.result("sent-elsewhere").updates()
