"""What users test their own programs with: no broker, no worker, the same client."""

from __future__ import annotations

import asyncio
from typing import Any

import celery.exceptions
import pytest
from celery import Celery, chord, group

from bridgetask import BrokerUnreachable, InvalidOption, RemoteTraceback, Unconfirmed
from bridgetask.testing import InMemoryClient

from . import tasks
from .fix_rabbitmq import make_app


@pytest.fixture
def memory_app() -> Celery:
    celery = make_app("memory", "amqp://127.0.0.1:1//")

    @celery.task(shared=False, name="memory.add")
    def add(x: int, y: int) -> int:
        return x + y

    @celery.task(shared=False, name="memory.fail")
    def fail() -> None:
        raise tasks.ComplexError(3, "why")

    return celery


async def test_tasks_of_the_app_are_run(memory_app: Celery) -> None:
    async with InMemoryClient(memory_app) as client:
        assert await client.send_task("memory.add", (1, 2)) == 3
        handle = client.delay(memory_app.tasks["memory.add"], 2, y=3)
        await handle.sent()
        assert [update.state async for update in handle.updates()] == ["SUCCESS"]
        assert await handle == 5
    assert [(task.name, task.args, task.kwargs) for task in client.sent] == [
        ("memory.add", [1, 2], {}),
        ("memory.add", [2], {"y": 3}),
    ]
    assert client.sent[0].routing_key == "celery"


@pytest.mark.parametrize("protocol", [1, 2])
async def test_both_task_protocols_are_read(memory_app: Celery, protocol: int) -> None:
    memory_app.conf.task_protocol = protocol
    async with InMemoryClient(memory_app) as client:
        assert await client.send_task("memory.add", (1, 2), compression="gzip") == 3


async def test_exceptions_arrive_as_over_a_broker(memory_app: Celery) -> None:
    async with InMemoryClient(memory_app) as client:
        with pytest.raises(tasks.ComplexError) as caught:
            await client.send_task("memory.fail")
    assert caught.value.code == 3
    assert isinstance(caught.value.__cause__, RemoteTraceback)


async def test_results_stand_in_for_tasks(memory_app: Celery) -> None:
    results: dict[str, Any] = {
        "a.value": [1, 2],
        "an.error": LookupError("gone"),
        "a.function": lambda x: x * 2,
        "memory.add": 42,
    }
    async with InMemoryClient(memory_app, results=results) as client:
        assert await client.send_task("a.value") == [1, 2]
        assert await client.send_task("a.function", (4,)) == 8
        assert await client.send_task("memory.add", (1, 1)) == 42
        with pytest.raises(LookupError, match="gone"):
            await client.send_task("an.error")
        with pytest.raises(celery.exceptions.NotRegistered):
            await client.send_task("unknown")


async def test_chains_and_links_run_through(memory_app: Celery) -> None:
    add, fail = memory_app.tasks["memory.add"], memory_app.tasks["memory.fail"]
    async with InMemoryClient(memory_app) as client:
        chained = client.apply_async(add.s(1, 2) | add.s(3) | add.si(5, 5))
        assert await chained == 10
        assert chained.parent is not None
        assert await chained.parent == 6
        assert await client.apply_async(add, (1, 1), link=add.s(10)) == 2
        with pytest.raises(tasks.ComplexError):
            await client.apply_async(fail.s() | add.si(1, 1))


async def test_a_send_can_be_made_to_fail(memory_app: Celery) -> None:
    async with InMemoryClient(memory_app) as client:
        client.send_error = BrokerUnreachable("made up")
        with pytest.raises(BrokerUnreachable, match="made up"):
            await client.send_task("memory.add", (1, 2))
        assert client.sent == []


async def test_a_task_whose_outcome_is_unknown_can_be_sent_again_under_its_id(
    memory_app: Celery,
) -> None:
    async with InMemoryClient(memory_app, results={"t": "ran"}) as client:
        client.send_error = Unconfirmed("made up", task_id="the-id")
        first = client.send_task("t", task_id="the-id")
        with pytest.raises(Unconfirmed) as caught:
            await first
        client.send_error = None
        again = client.send_task("t", task_id=caught.value.task_id)
        assert await again == "ran"
        with pytest.raises(Unconfirmed):
            await first.sent()
        assert await client.result("the-id") == "ran"


async def test_commands_are_taken_note_of(memory_app: Celery) -> None:
    async with InMemoryClient(memory_app) as client:
        assert await client.control.ping(limit=1) == [{"in-process": {"ok": "pong"}}]
        await client.control.revoke("some-id")
        assert client.commands == ["ping", "revoke"]


async def test_questions_are_answered_at_once(memory_app: Celery) -> None:
    replies = {
        "stats": {"total": {"memory.add": 1}},
        "query_task": lambda ids: {each: ["active", {}] for each in ids},
    }
    async with InMemoryClient(memory_app, replies=replies) as client, asyncio.timeout(10):
        asked = client.control.inspect(timeout=60)
        assert await asked.ping() == {"in-process": {"ok": "pong"}}
        assert await asked.stats() == {"in-process": {"total": {"memory.add": 1}}}
        assert await asked.query_task("x") == {"in-process": {"x": ["active", {}]}}
        assert await asked.active() == {"in-process": []}
        assert "memory.add" in (await asked.registered())["in-process"]
        assert await client.control.rate_limit("t", 1, reply=True, timeout=60) == [
            {"in-process": {"ok": "rate_limit: nothing was done"}}
        ]
        assert await client.control.rate_limit("t", 1) is None
        assert await client.control.purge() == 0


async def test_only_those_who_are_asked_answer(memory_app: Celery) -> None:
    async with InMemoryClient(memory_app) as client:
        control = client.control
        assert await control.ping(["in-process"]) == [{"in-process": {"ok": "pong"}}]
        assert await control.ping(["other"], timeout=0.05) == []
        assert await control.ping(pattern="x*", matcher="glob", timeout=0.05) == []


async def test_an_error_in_a_reply_is_reported_as_by_a_worker(memory_app: Celery) -> None:
    def refuse(**_: Any) -> None:
        raise ValueError("no")

    async with InMemoryClient(memory_app, replies={"stats": refuse}) as client:
        answer = await client.control.inspect().stats()
        assert answer == {"in-process": {"error": "ValueError('no')"}}


async def test_events_are_those_that_the_test_sends(memory_app: Celery) -> None:
    async with InMemoryClient(memory_app) as client:
        client.send_event("worker-online")
        await asyncio.sleep(0)  # it is gone by now: nobody listens yet
        async with client.events() as events, client.events(types={"task-failed"}) as failures:
            client.send_event("task-received", uuid="x", name="t")
            client.send_event("task-failed", uuid="x", exception="ValueError()")
            client.send_event("worker-heartbeat", hostname="w@h")
            read = [await anext(events) for _ in range(3)]
            assert (await anext(failures))["uuid"] == "x"
        client.send_event("worker-online")
        assert [event async for event in events] == []
    assert [event["type"] for event in read] == [
        "task-received",
        "task-failed",
        "worker-heartbeat",
    ]
    assert [event["hostname"] for event in read] == ["in-process", "in-process", "w@h"]
    assert events.state.tasks["x"].state == "FAILURE"
    assert client.commands == ["heartbeat", "heartbeat"]


async def test_sending_a_task_is_an_event_where_that_is_configured(memory_app: Celery) -> None:
    memory_app.conf.task_send_sent_event = True
    async with InMemoryClient(memory_app) as client, client.events() as events:
        call = client.send_task("memory.add", (1, 2))
        event = await anext(events)
        assert (event["type"], event["uuid"]) == ("task-sent", call.id)


async def test_what_ran_before_it_was_revoked_has_its_result(memory_app: Celery) -> None:
    async with InMemoryClient(memory_app, results={"t": 1}) as client:
        handle = client.send_task("t")
        assert [update.state async for update in handle.updates()] == ["SUCCESS"]
        await handle.revoke()
        assert await handle == 1


async def test_closing_delivers_what_was_sent(memory_app: Celery) -> None:
    client = InMemoryClient(memory_app, results={"t": 1})
    handle = client.send_task("t")
    await client.close()
    assert await handle == 1


async def test_events_reach_nobody_and_harm_nobody(memory_app: Celery) -> None:
    memory_app.conf.task_send_sent_event = True
    async with InMemoryClient(memory_app) as client:
        assert await client.send_task("memory.add", (1, 2)) == 3
    assert len(client.sent) == 1


async def test_groups_and_chains_that_end_in_groups_are_run(memory_app: Celery) -> None:
    add, fail = memory_app.tasks["memory.add"], memory_app.tasks["memory.fail"]
    async with InMemoryClient(memory_app) as client:
        members = group(add.s(1), add.s(2))
        assert await client.apply_async(members, (1,)) == [2, 3]
        assert await client.apply_async(add.s(1, 1) | members) == [3, 4]
        assert [value async for value in client.map(add.s(1), [1, 2])] == [2, 3]
        with pytest.raises(tasks.ComplexError):
            await client.apply_async(fail.si() | members)


async def test_chords_are_run_where_the_configured_backend_can_run_them() -> None:
    celery = make_app("memory", "amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0")

    @celery.task(shared=False)
    def double(x: int) -> int:
        return 2 * x

    @celery.task(shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    async with InMemoryClient(celery) as client:
        assert await client.apply_async(chord([double.s(n) for n in (1, 2)], total.s())) == 6
        nested = group(double.s(1) | double.s(), double.s(2)) | total.s() | double.s()
        assert await client.apply_async(nested) == 16
    with pytest.raises(InvalidOption, match="can't be a chord"):
        async with InMemoryClient(make_app("rpc", "amqp://127.0.0.1:1//")) as client:
            client.apply_async(chord([double.s(1)], total.s()))
