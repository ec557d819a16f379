from __future__ import annotations

import asyncio
import gc
import traceback
from typing import Any

import celery.exceptions
import pytest
from celery import Celery, group
from kombu.compression import get_encoder

from bridgetask import (
    AsyncResult,
    Client,
    ClientClosed,
    RemoteTraceback,
    ResultTimeout,
    ResultUnavailable,
    TaskFailed,
    TaskRevoked,
)

from .. import tasks


async def test_what_is_not_awaited_answers_with_what_is_known(client: Client) -> None:
    handle = client.delay(tasks.add, 1, 2)
    assert (handle.state, handle.status, handle.result) == ("PENDING", "PENDING", None)
    assert (handle.traceback, handle.children, handle.parent) == (None, None, None)
    assert not handle.ready()
    assert not handle.successful()
    assert not handle.failed()
    assert repr(handle) == f"<AsyncResult: tests.tasks.add[{handle.id}] PENDING>"
    assert await handle == 3
    assert (handle.state, handle.result, handle.info) == ("SUCCESS", 3, 3)
    assert handle.ready()
    assert handle.successful()
    assert not handle.failed()
    assert handle.children == []
    assert handle.task_id == handle.id
    assert handle.name == "tests.tasks.add"


async def test_any_number_of_tasks_may_wait(client: Client) -> None:
    handle = client.delay(tasks.sleep, 0.1, "x")
    assert await asyncio.gather(*(handle.get() for _ in range(50)), handle) == ["x"] * 51


async def test_cancelling_one_who_waits_touches_nobody_else(client: Client) -> None:
    handle = client.delay(tasks.sleep, 0.3, "x")
    cancelled, stays = asyncio.create_task(handle.get()), asyncio.create_task(handle.get())
    await handle.sent()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await stays == "x"
    assert await handle == "x"


async def test_a_timeout_is_celerys_and_the_builtin_one_and_touches_nothing(client: Client) -> None:
    handle = client.delay(tasks.sleep, 0.3, "x")
    with pytest.raises(ResultTimeout, match=rf"task {handle.id} gave no result") as caught:
        await handle.get(timeout=0.05)
    assert isinstance(caught.value, celery.exceptions.TimeoutError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.task_id == handle.id
    with pytest.raises(ResultTimeout):
        await handle.get(timeout=0)
    assert await handle.get(timeout=10) == "x"
    assert await handle.get(timeout=0) == "x"


async def test_an_exception_is_raised_as_its_own_class_with_the_remote_traceback(
    client: Client,
) -> None:
    handle = client.delay(tasks.fail, "ComplexError", 7, "why")
    with pytest.raises(tasks.ComplexError) as caught:
        await handle
    assert (caught.value.code, caught.value.reason) == (7, "why")
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    printed = "".join(traceback.format_exception(caught.value))
    assert "in fail" in printed
    assert "raise kinds[kind](*args)" in printed
    assert handle.failed()
    assert handle.traceback is not None
    assert "in fail" in handle.traceback
    assert handle.result is caught.value


async def test_propagate_false_returns_the_exception(client: Client) -> None:
    error = await client.delay(tasks.fail, "ValueError", "x").get(propagate=False)
    assert isinstance(error, ValueError)


async def test_a_tasks_own_timeout_error_is_not_taken_for_ours(client: Client) -> None:
    with pytest.raises(TimeoutError, match="the task's") as caught:
        await client.delay(tasks.fail, "TimeoutError", "the task's").get(timeout=10)
    assert not isinstance(caught.value, ResultTimeout)


@pytest.mark.parametrize("kind", ["Made", "StopIteration"])
async def test_what_cannot_be_rebuilt_or_raised_is_wrapped(client: Client, kind: str) -> None:
    with pytest.raises(TaskFailed, match=kind) as caught:
        await client.delay(tasks.fail, kind, "x")
    assert caught.value.exc_type == kind
    assert caught.value.exc_args == ("x",)
    assert caught.value.traceback is not None
    assert "in fail" in caught.value.traceback


async def test_retried_and_repeated_states_end_in_one_result(client: Client) -> None:
    handle = client.delay(tasks.retry_once)
    states = [update.state async for update in handle.updates()]
    assert states == ["STARTED", "RETRY", "STARTED", "SUCCESS"]
    assert await handle == 1


async def test_updates_give_every_state_in_order_with_its_meta(client: Client) -> None:
    handle = client.delay(tasks.progress, 5)
    seen = [(update.state, update.result) async for update in handle.updates()]
    assert seen[0][0] == "STARTED"
    assert set(seen[0][1]) == {"pid", "hostname"}
    assert seen[1:] == [*(("PROGRESS", {"step": step}) for step in range(5)), ("SUCCESS", 5)]
    assert await handle == 5


async def test_updates_asked_for_late_begin_with_what_is_known(client: Client) -> None:
    handle = client.delay(tasks.progress, 5)
    await handle
    states = [update.state async for update in handle.updates()]
    assert states == ["STARTED", *["PROGRESS"] * 5, "SUCCESS"]


async def test_updates_raise_what_makes_a_result_impossible(lonely_client: Client) -> None:
    handle = lonely_client.send_task("nothing")
    updates = handle.updates()
    waiting = asyncio.create_task(anext(updates))
    await handle.sent()
    await handle.forget()
    with pytest.raises(ResultUnavailable, match="was forgotten"):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(updates)
    with pytest.raises(ResultUnavailable, match="was forgotten"):
        await anext(handle.updates())


async def test_an_iteration_over_updates_can_be_cancelled_and_continued(client: Client) -> None:
    handle = client.delay(tasks.sleep, 0.2, "x")
    updates = handle.updates()
    assert (await anext(updates)).state == "STARTED"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(updates), 0.02)
    assert (await anext(updates)).result == "x"


async def test_linked_tasks_answer_to_us_as_children(client: Client) -> None:
    link = tasks.add.s(10)
    link.link(tasks.add.s(100))
    handle = client.apply_async(tasks.add, (1, 1), link=link)
    collected = [(node.id, value) async for node, value in handle.collect()]
    assert [value for _, value in collected] == [2, 12, 112]
    assert handle.children is not None
    assert handle.children[0].id == collected[1][0]


async def test_a_handle_is_told_though_the_one_that_waited_before_is_gone(client: Client) -> None:
    call = client.apply_async(tasks.sleep.s(0.5, 1) | tasks.add.s(1))

    def another() -> Any:  # as whoever asks for children gets
        return client._calls.handle_of_tree(client._sessions.running(), call.as_tuple())

    with pytest.raises(ResultTimeout):
        await another().get(timeout=0.01)
    gc.collect()
    assert await another().get(timeout=10) == 2
    assert await another().get(timeout=10) == 2


async def test_a_failure_calls_the_linked_error_task(client: Client, tmp_path: Any) -> None:
    ran = tmp_path / "ran"
    error_task = tasks.ignored.si(str(ran))
    handle = client.apply_async(tasks.fail, ("ValueError",), link_error=error_task)
    with pytest.raises(ValueError):
        await handle
    for _ in range(200):
        if ran.exists() and ran.read_text():
            break
        await asyncio.sleep(0.02)
    assert ran.read_text() == "ran\n"


async def test_revoking_a_task_that_waits_resolves_it_as_revoked_at_once(client: Client) -> None:
    handle = client.apply_async(tasks.add, (1, 2), countdown=60)
    waiting = asyncio.create_task(handle.get())
    await handle.sent()
    await handle.revoke()
    with pytest.raises(TaskRevoked) as caught:
        await waiting
    assert isinstance(caught.value, celery.exceptions.TaskRevokedError)
    assert caught.value.task_id == handle.id
    assert handle.state == "REVOKED"
    assert handle.ready()


async def test_terminating_a_task_that_runs_stops_it(client: Client) -> None:
    handle = client.delay(tasks.sleep, 60)
    started = await anext(handle.updates())
    assert started.state == "STARTED"
    await handle.revoke(terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevoked):
        await handle
    assert await client.delay(tasks.add, 1, 1).get(timeout=20) == 2


async def test_revoking_a_task_that_runs_leaves_it_alone(client: Client) -> None:
    handle = client.delay(tasks.sleep, 0.5, "done")
    await anext(handle.updates())
    await handle.revoke()
    assert await handle == "done"


async def test_a_worker_that_revokes_says_so(client: Client) -> None:
    handle = client.apply_async(tasks.add, (1, 2), expires=0.001, countdown=0.3)
    with pytest.raises(TaskRevoked):
        await handle.get(timeout=10)


@pytest.mark.parametrize("on_cancel", ["revoke", "terminate"])
async def test_cancelling_the_last_who_waits_revokes_if_asked_to(
    client: Client, on_cancel: Any
) -> None:
    handle = client.apply_async(tasks.add, (1, 2), countdown=300, on_cancel=on_cancel)
    background = client._sessions.running()._background
    first, last = asyncio.create_task(handle.get()), asyncio.create_task(handle.get())
    await handle.sent()
    first.cancel()
    await asyncio.wait([first])
    assert not background
    last.cancel()
    await asyncio.wait([last])
    assert len(background) == 1
    with pytest.raises(TaskRevoked):
        await handle.get(timeout=10)


async def test_a_task_is_revoked_though_the_client_closes_in_the_turn_of_the_cancelling(
    client: Client, app: Celery
) -> None:
    calls: list[AsyncResult[int]] = []

    async def call() -> None:
        async with Client(app, on_cancel="revoke") as leaving:
            calls.append(leaving.apply_async(tasks.add, (1, 2), countdown=300))
            await calls[0]

    calling = asyncio.create_task(call())
    while not calls:
        await asyncio.sleep(0)
    await calls[0].sent()
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    (revoked,) = (await client.control.inspect().revoked()).values()
    assert calls[0].id in revoked


async def test_a_timeout_does_not_count_as_cancelling(app: Celery) -> None:
    async with Client(app, on_cancel="terminate") as client:
        handle = client.delay(tasks.sleep, 0.3, "x")
        with pytest.raises(ResultTimeout):
            await handle.get(timeout=0.05)
        assert await handle == "x"


async def test_forgetting_ends_the_waiting(lonely_client: Client) -> None:
    handle = lonely_client.send_task("nothing")
    waiting = asyncio.create_task(handle.get())
    await handle.sent()
    await handle.forget()
    with pytest.raises(ResultUnavailable, match="forgotten"):
        await waiting
    assert handle.result is None


async def test_refreshing_gives_the_latest_update(client: Client) -> None:
    handle = client.delay(tasks.sleep, 0.2, 5)
    await anext(handle.updates())
    update = await handle.refresh()
    assert update is not None
    assert update.state == "STARTED"
    await handle
    update = await handle.refresh()
    assert update is not None
    assert update.result == 5


async def test_a_dropped_handle_leaves_nothing_behind(client: Client) -> None:
    client.delay(tasks.add, 1, 2)
    last = client.delay(tasks.add, 3, 4)
    assert await last == 7
    assert client._sessions.current is not None
    assert len(client._sessions.current.pending) == 1
    del last
    assert len(client._sessions.current.pending) == 0


async def test_handles_are_equal_by_their_id(client: Client) -> None:
    handle = client.delay(tasks.add, 1, 2)
    assert handle == client.result(handle.id)
    assert hash(handle) == hash(client.result(handle.id))
    await handle


async def test_a_handle_stands_for_its_id_as_celerys_does(client: Client) -> None:
    handle = client.delay(tasks.add, 1, 2)
    called = client.apply_async(group(tasks.add.s(1, 1), tasks.add.s(2, 2)))
    for each in (handle, called):
        assert str(each) == each.id
        assert each == each.id
        assert each != "another"
        assert {each.id: 1}[each] == 1
        assert each != 5


async def test_raising_an_error_many_times_does_not_make_it_grow(client: Client) -> None:
    handle = client.delay(tasks.fail, "ValueError", "no")
    lengths = set()
    for _ in range(3):
        with pytest.raises(ValueError, match="no") as raised:
            await handle
        lengths.add(len(traceback.extract_tb(raised.value.__traceback__)))
    assert len(lengths) == 1


async def test_forgetting_a_chain_forgets_its_steps(client: Client) -> None:
    handle = client.apply_async(tasks.add.s(1, 1) | tasks.add.s(2) | tasks.add.s(3))
    assert await handle == 7
    parent = handle.parent
    assert isinstance(parent, AsyncResult)
    assert parent.parent is not None
    await handle.forget()
    for each in (handle, parent, parent.parent):
        with pytest.raises(ResultUnavailable, match=f"{each.id} was forgotten"):
            await each


async def test_a_task_may_have_an_argument_named_task(client: Client) -> None:
    assert await client.delay(tasks.echo, task="x") == [[], {"task": "x"}]


@pytest.mark.blocks
async def test_eager_tasks_end_as_celerys_own_result_of_them_says(lonely_app: Celery) -> None:
    lonely_app.conf.task_always_eager = True

    @lonely_app.task(shared=False, ignore_result=True)
    def divide(x: int, y: int) -> float:
        return x / y

    @lonely_app.task(shared=False)
    def leave(how: str) -> None:
        raise getattr(celery.exceptions, how)

    async with Client(lonely_app) as client:
        assert await client.delay(divide, 6, 2) == divide.delay(6, 2).get() == 3
        failed = client.delay(divide, 1, 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as raised:
                await failed
            frames = traceback.extract_tb(raised.value.__traceback__)
            assert [frame.name for frame in frames].count("divide") == 1
        for how in ("Ignore", "Reject"):
            left, theirs = client.delay(leave, how), leave.delay(how)
            assert await asyncio.wait_for(left.get(), 5) is theirs.get() is None
            assert left.state == theirs.state


async def test_waiting_after_the_client_was_closed_is_refused(lonely_app: Celery) -> None:
    client = Client(lonely_app)
    handle = client.send_task("nothing")
    await client.close()
    with pytest.raises(ClientClosed):
        await handle
    with pytest.raises(ClientClosed):
        await handle.refresh()
    await handle.sent()


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
@pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "zstd"])
async def test_every_serializer_and_compression_gets_through(
    client: Client, serializer: str, compression: str | None
) -> None:
    if compression is not None:
        try:
            get_encoder(compression)
        except KeyError:
            pytest.skip(f"{compression} is not installed")
    value = ["ä", 1, {"x": [2.5, None, True]}]
    handle = client.apply_async(
        tasks.echo, value, {"k": "v"}, serializer=serializer, compression=compression
    )
    assert await handle == [value, {"k": "v"}]
