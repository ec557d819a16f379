from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import celery.result
import pytest
from celery import Celery, group

from bridgetask import AsyncResult, Client, GroupResult
from bridgetask.asyncio_impl.handle import (
    Handle,
    delivery_of,
    is_done,
    is_settled,
    line_of,
    outcomes_of,
    value_of,
    when_done,
)

from .. import tasks

#: The names that groups have beside Celery's.
OF_GROUPS = {"as_completed", "collect", "iterdeps", "refresh", "sent"}
#: A group with a member that ends in a group.
NESTED = group(tasks.add.s(1, 1), tasks.add.s(2, 2) | group(tasks.identity.s(), tasks.add.s(3)))


async def test_a_handle_keeps_the_session_of_a_dropped_client_open(app: Celery) -> None:
    call = Client(app).delay(tasks.sleep, 0.2, "x")
    gc.collect()
    assert await call == "x"
    session = call._session
    with pytest.warns(ResourceWarning, match="unclosed <Client of tests.tasks open>"):
        del call
        gc.collect()
    while not session.closed:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("ours", "celerys", "added"),
    [
        (AsyncResult, celery.result.AsyncResult, {"refresh", "sent", "updates"}),
        (GroupResult, celery.result.GroupResult, OF_GROUPS),
    ],
)
def test_users_see_celerys_names_and_few_others(ours: type, celerys: type, added: set[str]) -> None:
    public = {name for name in dir(ours) if not name.startswith("_")}
    assert {name for name in public if not hasattr(celerys, name)} == added


async def test_a_handle_has_slots_alone(client: Client) -> None:
    """200,000 of them may be pending."""
    call = client.delay(tasks.add, 1, 2)
    called = client.apply_async(group(tasks.add.s(1, 1)))
    assert not hasattr(call, "__dict__")
    assert not hasattr(called, "__dict__")
    assert sys.getsizeof(call) <= 11 * 8 + 32
    await asyncio.gather(call, called)


@pytest.mark.parametrize(
    ("signature", "options", "value"),
    [
        (tasks.add.s(1, 2), {}, 3),
        (tasks.add.s(1, 2), {"ignore_result": True}, None),
        (group(tasks.add.s(1, 1), tasks.add.s(2, 2)), {}, [2, 4]),
        (NESTED, {}, [2, [4, 7]]),
    ],
    ids=["task", "ignored", "group", "nested"],
)
async def test_a_handle_that_has_its_value_is_settled_and_done(
    client: Client, signature: Any, options: dict[str, Any], value: Any
) -> None:
    handle: Handle = client.apply_async(signature, **options)
    told: list[str] = []
    when_done(handle, lambda: told.append("before"))
    assert (is_settled(handle), is_done(handle), told) == (False, False, [])
    assert await handle == value
    assert (is_settled(handle), is_done(handle), told) == (True, True, ["before"])
    assert value_of(handle) == value
    when_done(handle, lambda: told.append("after"))
    assert told == ["before", "after"]
    delivery = delivery_of(handle)
    assert delivery is not None
    assert delivery.done


async def test_a_handle_whose_task_failed_is_settled(client: Client) -> None:
    called = client.apply_async(group(tasks.add.s(1, 1), tasks.fail.s("ValueError")))
    for handle in (called, called[1]):
        with pytest.raises(ValueError):
            await handle
        with pytest.raises(ValueError):
            value_of(handle)
    await called[0]
    assert is_settled(called)
    assert is_done(called)


async def test_a_handle_that_was_given_up_is_done_and_not_settled(client: Client) -> None:
    called = client.apply_async(group(tasks.add.s(1, 1), tasks.add.s(2, 2)), countdown=300)
    for handle in (called, called[0]):
        await handle.forget()
        assert is_done(handle)
        assert not is_settled(handle)
    await called.revoke()


async def test_a_group_has_the_outcomes_of_all_tasks_in_it(client: Client) -> None:
    called = client.apply_async(NESTED)
    first, nested = called
    assert isinstance(nested, GroupResult)
    assert [each.task_id for each in outcomes_of(called)] == [first.id, nested[0].id, nested[1].id]
    assert await called == [2, [4, 7]]


async def test_the_line_of_a_handle_ends_with_the_first_of_the_chain(client: Client) -> None:
    call = client.apply_async(tasks.add.s(1, 1) | tasks.add.s(2) | tasks.add.s(3))
    assert [node.id for node in line_of(call)] == call.as_list()
    assert await call == 7
    assert [value_of(node) for node in line_of(call)] == [7, 4, 2]
