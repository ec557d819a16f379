"""Canvas on a result backend that can count the parts of a chord, and store groups."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signals
from celery.exceptions import ChordError
from celery.result import GroupResult as CelerysGroupResult

from bridgetask import (
    Client,
    ClientClosed,
    GroupResult,
    InvalidOption,
    NotSent,
    ResultTimeout,
    ResultUnavailable,
    ResultUndecodable,
)
from bridgetask.wire.canvas import AT_ONCE

from ..fix_redis import with_celerys_backend


def add(app: Celery, *args: Any) -> Any:
    return app.signature("tests.tasks.add", args)


def total(app: Celery) -> Any:
    return app.signature("tests.tasks.total")


async def test_every_way_to_write_a_chord_gives_the_body_s_value(redis_app: Celery) -> None:
    header = [add(redis_app, number, number) for number in range(4)]
    body = total(redis_app)
    written = [
        chord(header, body, app=redis_app),
        group(header, app=redis_app) | body,
        chain(add(redis_app, 0, 0), group(add(redis_app, n) for n in (0, 2, 4, 6)), body),
        chord((each for each in header), body, app=redis_app),
        group(header, app=redis_app) | body | add(redis_app, 0),
        chord([chord(header, body, app=redis_app)], body, app=redis_app),
    ]
    async with Client(redis_app) as client:
        calls = [client.apply_async(each) for each in written]
        assert await asyncio.gather(*(call.get(timeout=30) for call in calls)) == [12] * 6


async def test_a_group_after_a_chord_and_a_chord_in_a_group(redis_app: Celery) -> None:
    inner = chord([add(redis_app, 1, 1), add(redis_app, 2, 2)], total(redis_app), app=redis_app)
    async with Client(redis_app) as client:
        after: Any = client.apply_async(inner | group(add(redis_app, 1), add(redis_app, 2)))
        assert await after.get(timeout=20) == [7, 8]
        within = client.apply_async(group([inner, add(redis_app, 0, 1)], app=redis_app))
        assert await within.get(timeout=20) == [6, 1]


async def test_a_failed_header_raises_though_its_body_is_a_chord_which_nobody_tells(
    redis_app: Celery,
) -> None:
    failing = redis_app.signature("tests.tasks.fail", ("ValueError", "of the header"))
    unchanged = redis_app.signature("tests.tasks.add", (1, 1), immutable=True)
    body = chord([unchanged, unchanged], total(redis_app), app=redis_app)
    async with Client(redis_app) as client:
        call: Any = client.apply_async(chord([add(redis_app, 1, 1), failing], body, app=redis_app))
        waiting = asyncio.create_task(call.get())
        for _ in range(2):
            with pytest.raises(ValueError, match="of the header"):
                await call.get(timeout=30)
        with pytest.raises(ValueError, match="of the header"):
            await waiting
        assert not call._outcome.awaited
        with pytest.raises(ResultTimeout):
            await call.get(timeout=0.1, propagate=False)


async def test_an_empty_header_calls_the_body_at_once(redis_app: Celery) -> None:
    async with Client(redis_app) as client:
        assert await client.apply_async(chord([], total(redis_app), app=redis_app)).get(10) == 0


async def test_the_parent_of_a_body_is_its_header(redis_app: Celery) -> None:
    header = [add(redis_app, 1, 1), add(redis_app, 2, 2)]
    async with Client(redis_app) as client:
        call = client.apply_async(chord(header, total(redis_app), app=redis_app))
        assert await call.get(timeout=20) == 6
        assert isinstance(call.parent, GroupResult)
        assert [await each for each in call.parent] == [2, 4]
        assert call.as_tuple() == ((call.id, call.parent.as_tuple()), None)
        assert call.as_list() == [call.id, call.parent.id]


async def test_the_header_of_a_large_chord_is_called_piece_by_piece(redis_app: Celery) -> None:
    size = 3 * AT_ONCE
    header = [add(redis_app, number, 1) for number in range(size)]
    async with Client(redis_app, send_timeout=90) as client:
        call: Any = client.apply_async(chord(header, total(redis_app), app=redis_app))
        assert 0 < len(call.parent._members) <= AT_ONCE
        await call.sent()
        assert await call == sum(range(1, size + 1))
        assert await call.parent == list(range(1, size + 1))


@pytest.mark.parametrize("kind", [group, chord])
async def test_members_that_take_long_to_make_are_sent_as_they_are_made(
    redis_app: Celery, kind: Any
) -> None:
    published = 0
    published_before: list[int] = []

    def after(**_: Any) -> None:
        nonlocal published
        published += 1

    def members() -> Any:
        for number in range(6):
            until = perf_counter() + 0.06
            while perf_counter() < until:
                pass
            published_before.append(published)
            yield add(redis_app, number, 1)

    signals.after_task_publish.connect(after)
    async with Client(redis_app) as client:
        whole = group(members()) if kind is group else chord(members(), total(redis_app))
        answer = await client.apply_async(whole).get(timeout=30)
    assert answer == [1, 2, 3, 4, 5, 6] if kind is group else 21
    # Celery looks ahead: it makes two members before it calls the first.
    assert published_before[:3] == [0, 0, 1]
    assert published_before == sorted(published_before)


async def test_asking_for_the_header_of_a_large_chord_calls_what_is_left(redis_app: Celery) -> None:
    size = 2 * AT_ONCE
    header = (add(redis_app, number, 1) for number in range(size))
    async with Client(redis_app) as client:
        call: Any = client.apply_async(chord(header, total(redis_app), app=redis_app))
        assert len(call.parent.results) == size
        assert await call == sum(range(1, size + 1))


async def test_a_large_chord_fails_with_a_task_of_its_header_that_cannot_be_sent(
    redis_app: Celery,
) -> None:
    header = [add(redis_app, number, 1) for number in range(2 * AT_ONCE)]
    header.append(redis_app.signature("tests.tasks.echo", (object(),)))
    async with Client(redis_app) as client:
        call: Any = client.apply_async(chord(header, total(redis_app), app=redis_app))
        for waiting in (call.get(timeout=20), call.sent(), call.parent.sent()):
            with pytest.raises(InvalidOption, match="args, kwargs: can't be serialised"):
                await waiting


async def test_a_large_chord_fails_with_what_celery_raises_for_its_header(
    redis_app: Celery,
) -> None:
    @redis_app.task(shared=False)
    def takes_one(x: int) -> None: ...

    header = [add(redis_app, number, 1) for number in range(2 * AT_ONCE)]
    header.append(takes_one.s(1, 2))
    async with Client(redis_app) as client:
        call = client.apply_async(chord(header, total(redis_app), app=redis_app))
        with pytest.raises(NotSent, match="can't be sent: TypeError") as raised:
            await call.get(timeout=20)
        assert isinstance(raised.value.__cause__, TypeError)


async def test_closing_under_a_large_chord_says_so(redis_app: Celery) -> None:
    client = Client(redis_app, close_timeout=0.2)
    redis_app.conf.broker_url = "amqp://127.0.0.1:1//"
    header = (add(redis_app, 1, 1) for _ in range(30 * AT_ONCE))
    call = client.apply_async(chord(header, total(redis_app), app=redis_app))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(ClientClosed):
        await call


async def test_a_failing_part_is_raised_in_place_of_the_chord_s_own_error(
    redis_app: Celery,
) -> None:
    fail = redis_app.signature("tests.tasks.fail", ("ValueError", "part"))
    async with Client(redis_app) as client:
        call = client.apply_async(chord([add(redis_app, 1, 1), fail], total(redis_app)))
        with pytest.raises(ValueError, match="part"):
            await call.get(timeout=20)
        assert isinstance(await call.get(timeout=20, propagate=False), ChordError)
        assert isinstance(call.result, ChordError)


async def test_a_saved_group_is_restored_by_any_client(redis_app: Celery) -> None:
    async with Client(redis_app) as client, Client(redis_app) as other:
        called = client.apply_async(
            group(add(redis_app, 1, 1), add(redis_app, 2, 2) | add(redis_app, 1), app=redis_app)
        )
        await called.save()
        assert await called.get(timeout=20) == [2, 5]
        restored = await other.group_result(called.id)
        assert restored.as_tuple() == called.as_tuple()
        assert restored == called
        assert await restored.get(timeout=10) == [2, 5]
        await restored.delete()
        with pytest.raises(ResultUnavailable, match=f"no group {called.id} is stored"):
            await client.group_result(called.id)


async def test_what_celery_saved_is_restored(redis_app: Celery) -> None:
    saved = CelerysGroupResult("saved-by-celery", [])
    await with_celerys_backend(redis_app, lambda backend: backend.save_group(saved.id, saved))
    async with Client(redis_app) as client:
        restored = await client.group_result("saved-by-celery")
        assert await restored == []
        await restored.delete()


async def test_what_is_stored_but_no_group_is_refused(redis_app: Celery) -> None:
    async with Client(redis_app) as client:
        key = client._sessions.codec.recorder.backend.get_key_for_group("broken")
        store = client._sessions.running().store
        assert store is not None
        for stored in (b"{", b'{"result": [["an-id", null], null]}', b'{"result": 3}', b"{}"):
            await with_celerys_backend(
                redis_app, lambda backend, stored=stored: backend.client.set(key, stored)
            )
            with pytest.raises(ResultUndecodable):
                await client.group_result("broken")
        await with_celerys_backend(redis_app, lambda backend: backend.client.delete(key))


async def test_groups_can_not_be_stored_by_rpc(lonely_client: Client) -> None:
    called = lonely_client.apply_async(group())
    for attempt in (called.save(), called.delete(), lonely_client.group_result("x")):
        with pytest.raises(ResultUnavailable, match="only a backend that stores results"):
            await attempt


async def test_children_that_are_groups_are_walked(redis_app: Celery) -> None:
    async with Client(redis_app) as client:
        call = client.send_task("tests.tasks.group_from_task", (3,))
        nodes = [(type(node), value) async for node, value in call.collect()]
    assert [value for _, value in nodes[1:]] == [[0, 1, 2], 0, 1, 2]
    assert nodes[1][0] is GroupResult
