from __future__ import annotations

import asyncio
import time

import pytest
from celery import Celery

from bridgetask import Client, InvalidOption, TaskRevoked

from .. import tasks
from ..servers import Worker


async def test_a_ping_reaches_the_workers(client: Client, worker: Worker) -> None:
    assert {worker.name: {"ok": "pong"}} in await client.control.ping(timeout=1)


async def test_a_ping_returns_as_soon_as_those_asked_have_answered(
    client: Client, worker: Worker
) -> None:
    began = time.monotonic()
    assert await client.control.ping([worker.name], timeout=30) == [{worker.name: {"ok": "pong"}}]
    assert await client.control.ping(limit=1, timeout=30) == [{worker.name: {"ok": "pong"}}]
    assert time.monotonic() - began < 20


async def test_a_ping_with_nobody_there_gives_nothing(client: Client) -> None:
    assert await client.control.ping(["nobody@nowhere"], timeout=0.1) == []


async def test_pings_at_the_same_time_get_their_own_replies(client: Client, worker: Worker) -> None:
    replies = await asyncio.gather(
        *(client.control.ping([worker.name], timeout=30) for _ in range(20)),
        client.control.ping(["nobody@nowhere"], timeout=0.1),
    )
    assert replies == [[{worker.name: {"ok": "pong"}}]] * 20 + [[]]


async def test_a_bad_destination_is_refused(client: Client) -> None:
    with pytest.raises(InvalidOption, match="destination: must be a list or tuple, not str"):
        await client.control.ping("worker@host")
    with pytest.raises(InvalidOption, match="destination: must be a list or tuple, not str"):
        await client.control.revoke("id", destination="worker@host")


async def test_several_tasks_are_revoked_with_one_command(client: Client) -> None:
    handles = [client.apply_async(tasks.add, (1, 2), countdown=60) for _ in range(3)]
    await asyncio.gather(*(handle.sent() for handle in handles))
    await client.control.revoke([handle.id for handle in handles])
    for handle in handles:
        with pytest.raises(TaskRevoked):
            await handle


async def test_a_revoked_task_does_not_run(app: Celery, client: Client, tmp_path: object) -> None:
    ran = f"{tmp_path}/ran"
    handle = client.send_task("tests.tasks.ignored", (ran,), countdown=0.5, ignore_result=False)
    await handle.sent()
    await client.control.revoke(handle.id)
    # Whatever was due after it has run; it has not.
    await client.send_task("tests.tasks.add", (1, 2), countdown=1).get(timeout=20)
    with pytest.raises(FileNotFoundError):
        open(ran)  # noqa: PTH123, SIM115
