"""Tasks that ``InMemoryClient`` runs in a thread: what they may do, and what is seen of them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, current_app, signals
from celery.backends.cache import CacheBackend

from bridgetask import BrokerUnreachable, ClientClosed, ResultUnavailable
from bridgetask.testing import InMemoryClient

from .fix_rabbitmq import make_app

#: Seconds that something may take which takes none.
LONG = 30.0


@pytest.fixture
def celery() -> Celery:
    """An app that connects nowhere, not even where it is used by itself."""
    app = make_app("threads", "memory://", "cache+memory://")

    @app.task(shared=False, name="add")
    def add(x: int, y: int) -> int:
        return x + y

    return app


class Gate:
    """A place in a task where it waits for the test, without the event loop."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self._reached.set()
        assert self._open.wait(LONG)

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, LONG)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that lists what bridgetask has logged."""

    def messages() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name.startswith("bridgetask")]

    return messages


def workers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "bridgetask worker"]


async def worker_ended() -> None:
    async with asyncio.timeout(LONG):
        while workers():
            await asyncio.sleep(0.01)


def states_of(call: Any) -> list[tuple[str, Any]]:
    return [(update.state, update.result) for update in call._outcome.history]


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
            report(task_id=self.request.id or task_id, state="A", meta=1)
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


def test_an_interrupt_in_a_task_is_the_program_s(celery: Celery) -> None:
    @celery.task(shared=False, name="interrupt")
    def interrupt() -> None:
        raise KeyboardInterrupt("pressed")

    async def main() -> None:
        async with InMemoryClient(celery) as client:
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


# Whom the app belongs to meanwhile.


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


# Closing.


async def test_closing_waits_for_what_runs_and_for_what_that_sends(
    celery: Celery, gate: Gate, said: Callable[[], list[str]]
) -> None:
    @celery.task(shared=False, name="caller")
    def caller() -> str:
        gate()
        return str(celery.tasks["add"].delay(1, 2).id)

    client = InMemoryClient(celery, close_timeout=LONG)
    call = client.delay(caller)
    awaited = asyncio.create_task(call.get())
    await gate.reached()
    closing = asyncio.create_task(client.close())
    while not client.closed:
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        client.send_task("add", (1, 2))
    gate.open()
    await closing
    assert workers() == []
    assert [task.id for task in client.sent] == [call.id, await awaited]
    assert said() == []


async def test_closing_leaves_a_task_that_blocks_for_ever(
    celery: Celery, gate: Gate, said: Callable[[], list[str]]
) -> None:
    @celery.task(shared=False, name="block", bind=True)
    def block(self: Any) -> None:
        gate()
        self.update_state(state="LATE")

    client = InMemoryClient(celery, close_timeout=0.1)
    call, never = client.delay(block), client.send_task("add", (1, 2))
    awaited = asyncio.create_task(never.get())
    await never.sent()
    await gate.reached()
    async with asyncio.timeout(LONG):
        await client.close()
    for waits in (call, awaited):
        with pytest.raises(ClientClosed):
            await waits
    assert said() == [
        "Closing abandons 0 messages without a confirm, and 1 awaited results",
        f"Closing leaves block[{call.id}] running",
    ]
    gate.open()
    await worker_ended()
    assert [task.name for task in client.sent] == ["block", "add"]
    assert states_of(call) == []


async def test_a_dropped_client_leaves_no_thread(celery: Celery) -> None:
    client = InMemoryClient(celery)
    assert await client.send_task("add", (1, 2)) == 3
    with pytest.warns(ResourceWarning, match="unclosed"):
        del client
        gc.collect()
    await worker_ended()


PROGRAM = """
import asyncio, gc, os, threading, warnings
from celery import Celery
from bridgetask.testing import InMemoryClient

warnings.simplefilter("ignore")
app = Celery("program", broker="memory://", backend="cache+memory://")

@app.task(name="add")
def add(x, y):
    return x + y

@app.task(name="block")
def block():
    threading.Event().wait()
"""


def run_program(code: str) -> str:
    command = [sys.executable, "-c", PROGRAM + code]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return finished.stdout


def test_a_task_that_blocks_for_ever_does_not_hold_up_the_end_of_the_program() -> None:
    assert (
        run_program("""
async def main():
    async with InMemoryClient(app, close_timeout=0.1) as client:
        await client.delay(block).sent()
    print("closed")

asyncio.run(main())
""")
        == "closed\n"
    )


def test_a_loop_that_is_closed_under_a_client_leaves_no_thread() -> None:
    assert (
        run_program("""
client = InMemoryClient(app)

async def call():
    return await client.delay(add, 1, 2)

loop = asyncio.new_event_loop()
print(loop.run_until_complete(call()))
[thread] = [each for each in threading.enumerate() if each.name == "bridgetask worker"]
loop.close()
del client, loop
for _ in range(300):
    gc.collect()  # the thread may have held the client until now
    thread.join(0.1)
print(thread.is_alive())
""")
        == "3\nFalse\n"
    )


def test_a_forked_process_has_a_worker_of_its_own() -> None:
    assert (
        run_program("""
client = InMemoryClient(app)

async def call(x):
    return await client.delay(add, x, 2)

async def call_and_close(x):
    value = await call(x)
    await client.close()
    return value

loop = asyncio.new_event_loop()
print(loop.run_until_complete(call(1)), flush=True)
pid = os.fork()
if not pid:
    print(asyncio.run(call_and_close(2)), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(loop.run_until_complete(call_and_close(3)))
""")
        == "3\n4\n5\n"
    )


# Updates, whenever they are asked for.


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.blocks)], ids=["in a thread", "inline"]
)
async def client(request: pytest.FixtureRequest, celery: Celery) -> Any:
    @celery.task(shared=False, name="progress", bind=True)
    def progress(self: Any) -> str:
        self.update_state(state="PROGRESS", meta=1)
        return "done"

    async with InMemoryClient(celery, inline=request.param) as opened:
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
    add = client.app.signature("add")
    sent = client.apply_async(client.app.signature("add", (1, 1)) | add.clone((2,)))
    assert await sent == 4
    handles = [client.result(sent.id)]
    async with asyncio.timeout(LONG):
        assert [await handle for handle in handles] == [4]


async def test_updates_by_rpc_of_another_s_task_are_refused() -> None:
    app = make_app("rpc", "amqp://127.0.0.1:1//", "rpc://")
    async with InMemoryClient(app) as client:
        with pytest.raises(ResultUnavailable):
            client.result("sent-elsewhere").updates()


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
