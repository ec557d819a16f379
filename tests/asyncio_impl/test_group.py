from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature, StampingVisitor

from bridgetask import (
    AsyncResult,
    Client,
    ClientClosed,
    GroupResult,
    InvalidOption,
    NotRoutable,
    ResultTimeout,
    ResultUnavailable,
)
from bridgetask.wire.canvas import AT_ONCE

from .. import tasks

add = tasks.add


async def test_a_group_gathers_its_members_in_order(client: Client) -> None:
    called = client.apply_async(group(add.s(i, i) for i in range(10)))
    assert isinstance(called, GroupResult)
    assert await called == [2 * i for i in range(10)]
    assert [await member for member in called] == [2 * i for i in range(10)]
    assert called.ready()
    assert called.successful()
    assert not called.failed()
    assert not called.waiting()
    assert called.completed_count() == len(called) == len(called.children) == 10
    assert called[3].result == 6
    assert called == called
    assert repr(called) == f"<GroupResult: {called.id} of 10>"


async def test_partial_arguments_go_to_every_member(client: Client) -> None:
    assert await client.apply_async(group(add.s(1), add.s(2)), (10,)) == [11, 12]
    assert await client.delay(group(add.s(1, 1), add.si(2, 2))) == [2, 4]


async def test_groups_in_groups_are_flattened_as_in_celery(client: Client) -> None:
    nested = group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3)), add.s(4, 4) | add.s(1))
    assert await client.apply_async(nested) == [2, 4, 6, 9]


async def test_a_group_of_one_chain_that_ends_in_a_group_is_that_group(client: Client) -> None:
    called = client.apply_async(group(add.s(1, 1) | group(add.s(1), add.s(2))))
    assert await called == [3, 4]
    assert await called.parent == 2  # type: ignore[misc]


async def test_members_that_end_in_groups_give_lists(client: Client) -> None:
    nested = group(add.s(1, 1) | group(add.s(1), add.s(2)), add.s(0, 0))
    called = client.apply_async(nested)
    assert await called == [[3, 4], 0]
    assert isinstance(called[0], GroupResult)
    assert called.completed_count() == 2


async def test_an_empty_group_gives_an_empty_list(client: Client) -> None:
    called = client.apply_async(group())
    assert await called == []
    assert len(called) == 0
    await called.sent()
    assert [member async for member in called.as_completed()] == []


async def test_a_chain_may_end_in_a_group_of_a_generator(client: Client) -> None:
    called: Any = client.apply_async(add.s(1, 1) | group(add.s(n) for n in range(3)))
    assert await called == [2, 3, 4]


async def test_a_chain_may_end_in_a_group(client: Client) -> None:
    called: Any = client.apply_async(add.s(1, 1) | group(add.s(1), add.s(2) | add.s(3)))
    assert await called == [3, 7]
    assert await called.parent == 2
    assert [type(child) for child in called.parent.children] == [GroupResult]
    assert called.parent.children[0] == called


async def test_a_group_after_a_task_that_fails_raises_what_that_raised(client: Client) -> None:
    called = client.apply_async(tasks.fail.s("ValueError", "first") | group(add.s(1), add.s(2)))
    with pytest.raises(ValueError, match="first"):
        await called.get(timeout=30)


async def test_map_starmap_and_chunks_run_as_in_celery(client: Client) -> None:
    assert await client.apply_async(add.starmap([(1, 1), (2, 2)])) == [2, 4]
    assert await client.apply_async(tasks.echo.map([1, 2])) == [[[1], {}], [[2], {}]]
    chunked = client.apply_async(add.chunks(zip(range(25), range(25), strict=True), 10))
    assert [len(part) for part in await chunked] == [10, 10, 5]  # type: ignore[arg-type]


async def test_signatures_can_be_called_again_and_stay_as_they_were(client: Client) -> None:
    for signature in (
        group(add.s(1, 1), add.s(2, 2) | add.s(1)),
        group(add.s(i, 1) for i in range(3)),
        chain(add.s(1, 1), add.s(2)),
        add.chunks([(1, 1)], 1),
    ):
        before = repr(dict(signature))
        first, second = client.apply_async(signature), client.apply_async(signature)
        assert await first == await second
        assert first.id != second.id
        assert "task_id" not in repr(dict(signature))
        if "regen" not in before:
            assert repr(dict(signature)) == before


async def test_a_signature_that_was_serialised_is_called(client: Client) -> None:
    plain: Any = Signature.from_dict(
        {**group(add.s(1, 1), add.s(2, 2)), "kwargs": {"tasks": [dict(add.s(1, 1)), add.s(2, 2)]}}
    )
    assert await client.apply_async(plain) == [2, 4]


async def test_frozen_ids_are_kept(client: Client) -> None:
    signature = add.s(1, 1)
    frozen = signature.freeze()
    assert client.apply_async(signature).id == frozen.id
    steps = chain(add.s(1, 1).set(task_id="the-first"), add.s(1).set(task_id="the-last"))
    called: Any = client.apply_async(steps)
    assert (called.id, called.parent.id) == ("the-last", "the-first")
    assert await called == 3


async def test_options_set_on_signatures_and_skew_reach_the_worker(client: Client) -> None:
    called = client.apply_async(group(add.s(1, i) for i in range(3)).skew(start=0.1, step=0.1))
    assert await called == [1, 2, 3]
    about = tasks.about_me.s().set(priority=3, headers={"x": "y"})
    said = await client.apply_async(group(about, about))
    assert [(each["headers"]["x"], each["delivery_info"]["priority"]) for each in said] == [
        ("y", 3)
    ] * 2


async def test_stamps_reach_the_worker(client: Client) -> None:
    class Numbered(StampingVisitor):
        numbers = count()

        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {"number": next(self.numbers), "stamped_headers": ["number"]}

    signature = group(tasks.stamps.s(), tasks.stamps.s())
    signature.stamp(visitor=Numbered())
    assert await client.apply_async(signature) == [{"number": 0}, {"number": 1}]


async def test_a_member_s_exception_is_raised_as_soon_as_it_is_there(client: Client) -> None:
    called = client.apply_async(group(tasks.sleep.s(1.0), tasks.fail.s("ValueError", "member")))
    with pytest.raises(ValueError, match="member"):
        await called.get(timeout=30)
    assert called.failed()
    assert called.waiting()
    values = await called.get(propagate=False)
    assert values[0] is None
    assert isinstance(values[1], ValueError)
    assert called.completed_count() == 1


async def test_members_come_as_they_are_completed(client: Client) -> None:
    called = client.apply_async(group(tasks.sleep.s(0.6, "slow"), add.s(1, 1)))
    assert [member.result async for member in called.as_completed()] == [2, "slow"]
    assert [member.result async for member in called.as_completed()] == [2, "slow"]


async def test_a_timeout_leaves_the_group_to_be_waited_for_again(client: Client) -> None:
    called = client.apply_async(group(tasks.sleep.s(0.5, i) for i in range(2)))
    for _ in range(3):
        with pytest.raises(ResultTimeout, match="was not complete within"):
            await called.get(timeout=0.01)
    assert await called == [0, 1]


async def test_cancelling_one_who_waits_for_a_group_touches_nobody_else(client: Client) -> None:
    called = client.apply_async(group(tasks.sleep.s(0.3, i) for i in range(2)))
    waiting = asyncio.create_task(called.get())
    other = asyncio.create_task(called.get())
    await asyncio.sleep(0)
    waiting.cancel()
    assert await other == [0, 1]


async def test_cancelling_the_last_one_who_waits_revokes_all_if_asked_to(client: Client) -> None:
    called = client.apply_async(group(add.s(1, 1), add.s(2, 2)), on_cancel="revoke", countdown=60)
    waiting = asyncio.create_task(called.get())
    await called.sent()
    waiting.cancel()
    states = [member async for member in called.as_completed()]
    assert [member.state for member in states] == ["REVOKED", "REVOKED"]  # type: ignore[union-attr]


async def test_a_group_is_revoked_and_forgotten_as_a_whole(client: Client) -> None:
    called = client.apply_async(group(add.s(1, 1), add.s(2, 2)), countdown=60)
    await called.revoke()
    assert called.ready()
    assert called.failed() is False
    forgotten = client.apply_async(group(add.s(1, 1), add.s(2, 2)), countdown=60)
    await forgotten.forget()
    with pytest.raises(ResultUnavailable, match="was forgotten"):
        await forgotten
    await client.control.revoke([member.id for member in forgotten])


async def test_ignored_members_count_as_done_once_they_are_sent(client: Client) -> None:
    assert await client.apply_async(group(tasks.ignored.s(), add.s(1, 1))) == [None, 2]


async def test_a_large_group_is_called_piece_by_piece(client: Client) -> None:
    size = 5 * AT_ONCE
    called = client.apply_async(group(add.s(i, 1) for i in range(size)))
    assert 0 < len(called._members) <= AT_ONCE
    assert not called.ready()
    await called.sent()
    assert len(called) == size
    assert await called == [i + 1 for i in range(size)]


async def test_asking_for_the_members_of_a_large_group_calls_what_is_left(client: Client) -> None:
    size = 3 * AT_ONCE
    called = client.apply_async(group([add.s(i, 1) for i in range(size)]))
    assert len(called.results) == size
    assert await called == [i + 1 for i in range(size)]


async def test_a_member_that_cannot_be_sent_fails_the_group_and_no_other(client: Client) -> None:
    members = [add.s(1, 1) for _ in range(2 * AT_ONCE)]
    members.append(tasks.echo.s(object()))
    called = client.apply_async(group(members))
    with pytest.raises(InvalidOption, match="args, kwargs: can't be serialised"):
        await called
    with pytest.raises(InvalidOption, match="args, kwargs: can't be serialised"):
        await called.sent()
    small = group(add.s(1, 1), tasks.echo.s(object()))
    with pytest.raises(InvalidOption, match="args, kwargs: can't be serialised"):
        client.apply_async(small)
    assert await client.delay(add, 1, 1) == 2


async def test_members_before_one_that_cannot_be_sent_are_sent_whoever_asks_for_them(
    client: Client,
) -> None:
    members = [add.s(n, 1) for n in range(2 * AT_ONCE)]
    called = client.apply_async(group([*members, tasks.echo.s(object()), *members]))
    with pytest.raises(InvalidOption, match="args, kwargs: can't be serialised"):
        called.results  # noqa: B018
    sent = called.results
    assert len(sent) > AT_ONCE
    assert await asyncio.gather(*sent) == [n + 1 for n in range(len(sent))]
    assert client._sessions.running().backlog._count == 0


async def test_what_makes_the_members_may_look_at_those_that_there_are(client: Client) -> None:
    seen = []

    def members() -> Iterator[Any]:
        for n in range(3 * AT_ONCE):
            if n == 2 * AT_ONCE:
                seen.append(len(called))
            yield add.s(n, 1)

    called = client.apply_async(group(members()))
    values = await called.get(timeout=20)
    assert values == list(range(1, 3 * AT_ONCE + 1))
    assert AT_ONCE <= seen[0] <= 2 * AT_ONCE


async def test_a_member_that_is_not_routable_fails_the_group(
    lonely_app: Celery, collected_logs: Callable[[], list[str]]
) -> None:
    async with Client(lonely_app) as client:
        lost = lonely_app.signature("x").set(exchange="amq.topic", routing_key="no.body")
        called = client.apply_async(group(lost, lost))
        with pytest.raises(NotRoutable):
            await called.sent()
        with pytest.raises(NotRoutable):
            await called
    del called, lost
    gc.collect()
    assert not collected_logs()


async def test_closing_under_a_large_group_says_so(lonely_app: Celery, broker_url: str) -> None:
    client = Client(lonely_app, close_timeout=0.2)
    lonely_app.conf.broker_url = "amqp://127.0.0.1:1//"
    called = client.apply_async(group(lonely_app.signature("x") for _ in range(30 * AT_ONCE)))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(ClientClosed):
        await called


@pytest.mark.parametrize(
    "signature",
    [
        chord([add.s(1, 1), add.s(2, 2)], tasks.echo.s()),
        group(add.s(1, 1), add.s(2, 2)) | tasks.echo.s(),
        add.s(1, 1) | group(add.s(1), add.s(2)) | tasks.echo.s(),
        group(add.s(1, 1), chord([add.s(1, 1), add.s(2, 2)], tasks.echo.s())),
        chord([], tasks.echo.s()) | group(add.s(1), add.s(2)) | tasks.echo.s(),
    ],
)
async def test_a_chord_is_refused_where_the_backend_cannot_run_it(
    lonely_client: Client, signature: Any
) -> None:
    with pytest.raises(InvalidOption, match="task: can't be a chord"):
        lonely_client.apply_async(signature)


async def test_a_signature_of_an_unknown_type_is_refused(lonely_client: Client) -> None:
    unknown = {"task": "x", "args": [], "kwargs": {}, "options": {}, "subtask_type": "nonsense"}
    for signature in (group([unknown]), group([add.s(1, 1)] * AT_ONCE + [unknown])):
        with pytest.raises(InvalidOption, match="task: holds a signature of the unknown type"):
            await lonely_client.apply_async(signature)
    with pytest.raises(InvalidOption, match="task: must consist of signatures, not of 3"):
        lonely_client.apply_async(group([3]))


async def test_an_empty_chain_is_refused(lonely_client: Client) -> None:
    with pytest.raises(InvalidOption, match="task: is an empty"):
        lonely_client.apply_async(chain())


async def test_links_of_members_and_of_later_steps_report_here(client: Client) -> None:
    linked = add.s(1, 1).set(link=[add.s(10)])
    called = client.apply_async(group(linked, add.s(0, 0)))
    assert await called == [2, 0]
    member = called[0]
    assert isinstance(member, AsyncResult)
    assert member.children is not None
    assert [await child for child in member.children] == [12]
    later: Any = client.apply_async(add.s(1, 1) | linked.clone().set(args=(5,)))
    step = add.s(3)
    step.link(add.s(100))
    later = client.apply_async(add.s(1, 1) | step)
    assert [value async for _, value in later.collect()] == [5, 105]
    assert await later.get_leaf() == 105
    pairs = [(parent and parent.result, node.result) async for parent, node in later.iterdeps()]
    assert pairs == [(None, 5), (5, 105)]


async def test_the_tree_of_a_group_is_walked(client: Client) -> None:
    called = client.apply_async(group(add.s(1, 1), add.s(2, 2)))
    assert [value async for _, value in called.collect()] == [[2, 4], 2, 4]
    waiting = client.apply_async(group(add.s(1, 1), add.s(2, 2)), countdown=60)
    nodes = [node async for _, node in waiting.iterdeps(intermediate=True)]
    assert nodes == [waiting, *waiting.results]
    await waiting.revoke()


@pytest.mark.blocks
async def test_eager_groups_run_on_the_spot(lonely_app: Celery) -> None:
    lonely_app.conf.task_always_eager = True

    @lonely_app.task(shared=False)
    def double(x: int) -> int:
        return 2 * x

    async with Client(lonely_app) as client:
        called = client.apply_async(group(double.s(i) for i in range(3)))
        assert called.ready()
        assert await called == [0, 2, 4]
        steps: Any = client.apply_async(double.s(1) | double.s())
        assert await steps == 4
        assert await steps.parent == 2
        assert await client.apply_async(chord([double.s(1), double.s(2)], double.s())) == [2, 4] * 2


async def test_nothing_is_left_of_groups_that_nobody_holds(client: Client) -> None:
    session = client._sessions.running()
    for called in [client.apply_async(group(add.s(i, 1) for i in range(20))) for _ in range(5)]:
        await called.get()
    del called
    gc.collect()
    assert len(session.pending) == 0
    assert not session.pending.held
