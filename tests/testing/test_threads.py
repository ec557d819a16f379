"""Tasks that run in a thread: what they may do, and what is seen of them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from typing import Any

import pytest
from celery import Celery, signals

from bridgetask import BrokerUnreachable
from bridgetask.testing import InMemoryClient

from .gate import LONG, Gate


async def five() -> int:
    await asyncio.sleep(0)
    return 5


# What a task may do.


async def test_a_task_may_run_an_event_loop_of_its_own(celery: Celery) -> None:
    @celery.task(shared=False, name="run")
    def run() -> int:
        return asyncio.run(five())

    async with InMemoryClient(celery) as client:
        assert [await client.delay(run) for _ in range(3)] == [5, 5, 5]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="workers have no such loop either")
async def test_a_task_has_a_current_event_loop_as_in_the_main_thread_of_a_worker(
    celery: Celery,
) -> None:
    loops = []

    @celery.task(shared=False, name="run")
    def run() -> int:
        loops.append(asyncio.get_event_loop())
        return loops[-1].run_until_complete(five())

    async with InMemoryClient(celery) as client:
        assert [await client.delay(run) for _ in range(2)] == [5, 5]
    assert loops[0] is loops[1] is not asyncio.get_running_loop()
    assert loops[0].is_closed()


async def test_a_task_may_use_async_to_sync(celery: Celery) -> None:
    sync = pytest.importorskip("asgiref.sync")

    @celery.task(shared=False, name="convert", bind=True)
    def convert(self: Any) -> str:
        report = self.update_state

        async def work() -> str:
            report(task_id=task_id, state="A", meta=1)
            await sync.sync_to_async(report)(task_id=task_id, state="B", meta=2)
            await asyncio.to_thread(report, task_id=task_id, state="C", meta=3)
            return str(celery.tasks["add"].delay(1, await five()).id)

        task_id = self.request.id
        converted: str = sync.async_to_sync(work)()
        return converted

    async with InMemoryClient(celery) as client:
        call = client.delay(convert)
        assert [update.state async for update in call.updates()] == ["A", "B", "C", "SUCCESS"]
        assert await client.result(await call) == 6


async def test_a_task_that_blocks_leaves_the_loop_alone(celery: Celery, gate: Gate) -> None:
    @celery.task(shared=False, name="block")
    def block() -> str:
        gate()
        return "done"

    async with InMemoryClient(celery) as client:
        call = client.delay(block)
        await gate.reached()
        assert await client.control.ping() == [{"in-process": {"ok": "pong"}}]
        waits = client.send_task("add", (1, 2))
        await waits.sent()
        assert [task.name for task in client.sent] == ["block", "add"]
        client.send_error = BrokerUnreachable("made up")
        with pytest.raises(BrokerUnreachable):
            await client.send_task("add", (3, 4))
        assert not call.ready()
        assert not waits.ready()
        gate.open()
        assert (await call, await waits) == ("done", 3)


async def test_a_task_may_take_a_lock_that_the_test_holds(celery: Celery) -> None:
    lock = threading.Lock()

    @celery.task(shared=False, name="take")
    def take() -> bool:
        with lock:
            return True

    async with InMemoryClient(celery) as client:
        with lock:
            call = client.delay(take)
            await call.sent()
            assert not call.ready()
        assert await call


async def test_tasks_run_in_their_order_in_one_thread_that_is_theirs(celery: Celery) -> None:
    local, variable = threading.local(), contextvars.ContextVar("variable", default=0)
    variable.set(100)
    names: list[str] = []

    @celery.task(shared=False, name="count")
    def count(number: int) -> list[int]:
        names.append(threading.current_thread().name)
        local.runs = getattr(local, "runs", 0) + 1
        variable.set(variable.get() + 1)
        return [number, local.runs, variable.get()]

    async with InMemoryClient(celery) as client:
        calls = [client.delay(count, number) for number in range(1, 5)]
        assert [await call for call in calls] == [[n, n, n] for n in range(1, 5)]
    assert (hasattr(local, "runs"), variable.get()) == (False, 100)
    assert names == ["bridgetask worker"] * 4


async def test_a_task_that_exits_or_breaks_takes_no_other_with_it(celery: Celery) -> None:
    @celery.task(shared=False, name="leave")
    def leave() -> None:
        sys.exit(3)

    async with InMemoryClient(celery) as client:
        calls = [client.delay(leave), client.send_task("add", (1, 2))]
        left, added = await asyncio.gather(*calls, return_exceptions=True)
    assert "SystemExit(3)" in str(left)
    assert added == 3


@pytest.mark.parametrize("inline", [False, True])
def test_an_interrupt_in_a_task_is_the_program_s(celery: Celery, inline: bool) -> None:
    @celery.task(shared=False, name="interrupt")
    def interrupt() -> None:
        raise KeyboardInterrupt("pressed")

    async def main() -> None:
        async with InMemoryClient(celery, inline=inline) as client:
            await client.delay(interrupt)

    with pytest.raises(KeyboardInterrupt, match="pressed"):
        asyncio.run(main())


# What is seen while a task runs.


async def test_progress_is_seen_while_the_task_runs(celery: Celery) -> None:
    seen = threading.Event()

    @celery.task(shared=False, name="progress", bind=True)
    def progress(self: Any) -> bool:
        self.update_state(state="PROGRESS", meta={"done": 1})
        return seen.wait(LONG)

    async with InMemoryClient(celery) as client:
        call = client.delay(progress)
        async for update in call.updates():
            if update.state == "PROGRESS":
                assert update.result == {"done": 1}
                assert (await client.result(call.id).refresh()).state == "PROGRESS"  # type: ignore[union-attr]
                seen.set()
        assert await call


async def test_every_state_is_seen_once_and_in_order(celery: Celery) -> None:
    @celery.task(shared=False, name="progress", bind=True)
    def progress(self: Any, steps: int) -> None:
        for step in range(steps):
            self.update_state(state="PROGRESS", meta=step)

    async with InMemoryClient(celery) as client:
        call = client.delay(progress, 1000)
        by_id = client.result(call.id)
        seen, again = [], []

        async def ask() -> None:
            while not again:
                await by_id.refresh()
                await asyncio.sleep(0)

        asking = asyncio.create_task(ask())
        async for update in call.updates():
            seen.append(update.result)
        again.append(True)
        await asking
    assert seen == [*range(1000), None]


async def test_a_retry_is_seen_before_the_next_run(celery: Celery, gate: Gate) -> None:
    @celery.task(shared=False, name="again", bind=True)
    def again(self: Any) -> int:
        if not self.request.retries:
            raise self.retry(countdown=3600)
        gate()
        return int(self.request.retries)

    async with InMemoryClient(celery) as client:
        call = client.delay(again)
        updates = call.updates()
        assert (await anext(updates)).state == "RETRY"
        gate.open()
        assert [update.state async for update in updates] == ["SUCCESS"]
        assert [task.name for task in client.sent] == ["again"] * 2


async def test_a_final_state_of_the_task_s_own_making_is_seen_at_once(
    celery: Celery, gate: Gate
) -> None:
    @celery.task(shared=False, name="early", bind=True)
    def early(self: Any) -> None:
        self.update_state(state="SUCCESS", meta="early")
        gate()

    async with InMemoryClient(celery) as client:
        assert await client.delay(early) == "early"
        gate.open()


async def test_how_a_task_ends_is_told_when_all_is_done(celery: Celery, gate: Gate) -> None:
    done: list[str] = []

    class Hooked(celery.Task):  # type: ignore[misc, name-defined]
        def on_success(self, *_: Any) -> None:
            done.append("on_success")

        def after_return(self, *_: Any) -> None:
            gate()
            done.append("after_return")

    def postrun(**_: Any) -> None:
        done.append("postrun")

    def published(sender: str, **_: Any) -> None:
        done.append(f"published {sender}")

    @celery.task(shared=False, base=Hooked, name="hooked")
    def hooked() -> int:
        return 1

    add = celery.tasks["add"]
    signals.task_postrun.connect(postrun)
    signals.after_task_publish.connect(published)
    try:
        async with InMemoryClient(celery) as client:
            call = client.apply_async(hooked, link=add.s(2))
            await gate.reached()
            assert await client.result(call.id).refresh() is None
            assert not await call.exists()
            assert not call.ready()
            gate.open()
            assert await call == 1
            assert done[:4] == ["published hooked", "on_success", "after_return", "postrun"]
            assert done[4:] in (["published add"], ["published add", "postrun"])
            assert [task.name for task in client.sent] == ["hooked", "add"]
            assert await call.exists()
    finally:
        signals.task_postrun.disconnect(postrun)
        signals.after_task_publish.disconnect(published)


async def test_map_has_no_more_calls_in_flight_than_its_limit(celery: Celery, gate: Gate) -> None:
    @celery.task(shared=False, name="hold")
    def hold(number: int) -> int:
        if number == 3:
            gate()
        return number

    async with InMemoryClient(celery) as client:
        values: list[int] = []
        async for value in client.map(hold, range(20), limit=4):
            values.append(value)
            if value == 2:
                await gate.reached()
                assert len(client.sent) <= 3 + 4
                gate.open()
    assert values == list(range(20))
