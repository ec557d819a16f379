"""What the worker in ``InMemoryClient`` does with tasks: what a real one would do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import pytest
from celery import Celery, chord, group, shared_task, signals
from celery.backends.cache import CacheBackend
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, WorkerLostError
from kombu import serialization
from kombu.exceptions import EncodeError

from bridgetask import (
    InvalidOption,
    ResultTimeout,
    ResultUnavailable,
    ResultUndecodable,
    TaskRevoked,
)
from bridgetask.testing import InMemoryClient

from .fix_rabbitmq import make_app

MakeClient: TypeAlias = Callable[..., InMemoryClient]

#: Nobody listens there: what connects to it fails.
NOWHERE = "127.0.0.1:1"


@shared_task(name="shared.double")
def double(number: int) -> int:
    return 2 * number


def app_of(broker: str | None, backend: str | None, **conf: Any) -> Celery:
    """Return an app with a few tasks."""
    celery = make_app("worker", broker, backend, **conf)

    @celery.task(shared=False, name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @celery.task(shared=False, name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @celery.task(shared=False, name="fail")
    def fail() -> None:
        raise LookupError("gone")

    return celery


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.blocks)], ids=["in a thread", "inline"]
)
def in_memory(request: pytest.FixtureRequest) -> MakeClient:
    """Return what makes a client, whose tasks run in a thread or on the event loop."""
    return partial(InMemoryClient, inline=request.param)


@pytest.fixture
def unreachable() -> Celery:
    """An app that fails where it does any I/O."""
    return app_of(f"amqp://{NOWHERE}//", f"redis://{NOWHERE}/0")


@pytest.fixture
def loop_errors() -> Iterator[list[dict[str, Any]]]:
    """What nobody but the event loop's handler of exceptions learns of."""
    return []


@pytest.fixture(autouse=True)
async def nothing_is_lost_in_the_loop(loop_errors: list[dict[str, Any]]) -> Any:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: loop_errors.append(context))
    yield
    assert loop_errors == []


def states_of(call: Any) -> list[tuple[str, Any]]:
    return [(update.state, update.result) for update in call._outcome.history]


# Any configuration.


@pytest.mark.parametrize(
    ("broker", "backend"),
    [
        ("memory://", "cache+memory://"),
        (f"redis://{NOWHERE}/0", f"redis://{NOWHERE}/0"),
        ("sqs://key:secret@", "dynamodb://"),  # their libraries are not installed
        ("no.such.module:Transport://", "no-such-backend://"),
        (None, None),
    ],
)
async def test_any_broker_and_backend_will_do(
    broker: str | None, backend: str | None, in_memory: MakeClient
) -> None:
    app = app_of(broker, backend)
    add, total = app.tasks["add"], app.tasks["total"]
    async with in_memory(app) as client:
        call = client.delay(add, 1, 2)
        assert await call == 3
        assert await client.result(call.id) == 3
        assert await call.exists()
        parts = [add.s(number, 1) for number in range(3)]
        assert await client.apply_async(chord(parts, total.s()), countdown=1) == 6
        sent = client.apply_async(group(parts))
        await sent.save()
        assert await (await client.group_result(sent.id)) == [1, 2, 3]
        await call.forget()
        assert not await call.exists()
        with pytest.raises(ResultTimeout):
            await client.result("never-sent").get(timeout=0)


async def test_by_rpc_there_is_no_more_than_by_rpc_in_earnest(in_memory: MakeClient) -> None:
    app = app_of(f"amqp://{NOWHERE}//", "rpc://")
    add, total = app.tasks["add"], app.tasks["total"]

    @app.task(shared=False, name="chords")
    def chords() -> None:
        chord([add.s(1, 1)], total.s()).delay()

    async with in_memory(app) as client:
        with pytest.raises(InvalidOption, match="can't be a chord"):
            client.apply_async(chord([add.s(1, 1)], total.s()))
        with pytest.raises(InvalidOption, match="can't be a chord"):
            await client.delay(chords)
        with pytest.raises(ResultUnavailable):
            await client.result("sent-elsewhere")


async def test_large_chords_are_run(unreachable: Celery, in_memory: MakeClient) -> None:
    add, total = unreachable.tasks["add"], unreachable.tasks["total"]
    async with in_memory(unreachable) as client:
        parts = (add.s(number, 1) for number in range(300))
        assert await client.apply_async(chord(parts, total.s())) == sum(range(301))


async def test_results_are_as_large_as_over_a_broker(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    async with in_memory(unreachable, results={"t": "x" * 1000}, max_result_size=500) as client:
        with pytest.raises(ResultUndecodable, match="more than 500 bytes"):
            await client.send_task("t")


# What goes wrong.


async def test_a_value_that_cannot_be_serialised_is_a_failure(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    async with in_memory(unreachable, results={"t": object()}) as client:
        with pytest.raises(EncodeError, match="JSON"):
            await client.send_task("t")


async def test_a_failure_that_cannot_be_reported_in_full_is_reported(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    unreachable.conf.result_extended = True

    @unreachable.task(shared=False, bind=True, name="spoil")
    def spoil(self: Any) -> None:
        self.request.kwargs["x"] = object()

    async with in_memory(unreachable) as client:
        with pytest.raises(EncodeError, match="JSON"):
            await client.delay(spoil)


async def test_a_message_that_cannot_be_read_is_a_failure(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    def refuse(_: object) -> None:
        raise LookupError("unreadable")

    serialization.register("oneway", lambda _: "x", refuse, "application/x-oneway")
    try:
        async with in_memory(unreachable) as client:
            with pytest.raises(Exception, match="unreadable"):
                await client.send_task("add", (1, 2), serializer="oneway")
    finally:
        serialization.unregister("oneway")


async def test_what_fails_around_a_task_is_a_failure(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    class Loader(type(unreachable.loader)):  # type: ignore[misc]
        def on_task_init(self, task_id: str, task: object) -> None:
            raise LookupError("not now")

    unreachable.loader = Loader(unreachable)
    add = unreachable.tasks["add"]
    async with in_memory(unreachable) as client:
        call = client.apply_async(add.s(1, 2) | add.s(3))
        with pytest.raises(Exception, match="not now"):
            await call.parent
        with pytest.raises(Exception, match="not now"):
            await client.result(call.id)


async def test_a_task_that_exits_takes_a_worker_with_it(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    @unreachable.task(shared=False, name="leave")
    def leave() -> None:
        raise SystemExit(3)

    async with in_memory(unreachable) as client:
        with pytest.raises(WorkerLostError, match=r"SystemExit\(3\)"):
            await client.delay(leave)


@pytest.mark.parametrize("error", [Ignore(), Reject("no"), Reject("no", requeue=True)])
async def test_ignored_and_rejected_tasks_are_left_to_celery(
    unreachable: Celery, error: Exception, in_memory: MakeClient
) -> None:
    @unreachable.task(shared=False, name="leave")
    def leave() -> None:
        raise error

    async with in_memory(unreachable) as client:
        call = client.delay(leave)
        assert await client.send_task("add", (1, 2)) == 3  # its turn has come and gone
        if call.state == "FAILURE":  # from Celery 5.7 on a worker reports so what it drops
            assert isinstance(error, Reject)
            assert not error.requeue
        else:
            with pytest.raises(ResultTimeout):
                await call.get(timeout=0)
        assert [task.name for task in client.sent] == ["leave", "add"]


async def test_expired_tasks_are_revoked(unreachable: Celery, in_memory: MakeClient) -> None:
    async with in_memory(unreachable) as client:
        with pytest.raises(TaskRevoked, match="expired"):
            await client.send_task("add", (1, 2), expires=-1)


# What a worker reports.


async def test_started_is_reported_where_that_is_configured(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    @unreachable.task(shared=False, name="tracked", track_started=True)
    def tracked() -> None: ...

    async with in_memory(unreachable) as client:
        untold, told = client.send_task("add", (1, 2)), client.delay(tracked)
        assert [update.state async for update in untold.updates()] == ["SUCCESS"]
        assert [update.state async for update in told.updates()] == ["STARTED", "SUCCESS"]
        assert told._outcome.history[0].result["hostname"] == "in-process"


async def test_states_of_a_task_s_own_are_delivered(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    @unreachable.task(shared=False, bind=True, name="progress")
    def progress(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"done": 1})
        self.update_state(state="PROGRESS", meta={"done": 2})
        return "all"

    async with in_memory(unreachable) as client:
        call = client.delay(progress)
        assert [(update.state, update.result) async for update in call.updates()] == [
            ("PROGRESS", {"done": 1}),
            ("PROGRESS", {"done": 2}),
            ("SUCCESS", "all"),
        ]


async def test_a_task_that_retries_is_run_again_at_once(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    @unreachable.task(shared=False, bind=True, name="again", max_retries=2)
    def again(self: Any, wanted: int) -> list[Any]:
        if self.request.retries < wanted:
            raise self.retry(countdown=3600, exc=LookupError("not yet"))
        return [self.request.retries, self.request.id]

    async with in_memory(unreachable) as client:
        call = client.delay(again, 2)
        assert await call == [2, call.id]
        assert [state for state, _ in states_of(call)] == ["RETRY", "RETRY", "SUCCESS"]
        assert isinstance(states_of(call)[0][1], LookupError)
        with pytest.raises(LookupError, match="not yet"):
            await client.delay(again, 3)
    assert [task.name for task in client.sent] == ["again"] * 6


async def test_tasks_retry_by_themselves(unreachable: Celery, in_memory: MakeClient) -> None:
    tried: list[int] = []

    @unreachable.task(shared=False, bind=True, name="auto", autoretry_for=(OSError,), max_retries=1)
    def auto(self: Any, error: bool) -> None:
        tried.append(self.request.retries)
        if error:
            raise OSError("down")
        self.retry()

    async with in_memory(unreachable) as client:
        with pytest.raises(OSError, match="down"):
            await client.delay(auto, True)
        with pytest.raises(MaxRetriesExceededError):
            await client.delay(auto, False)
    assert tried == [0, 1, 0, 1]


async def test_closing_ends_what_retries_for_ever(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    runs: list[int] = []

    @unreachable.task(shared=False, bind=True, name="again", max_retries=None)
    def again(self: Any) -> None:
        runs.append(self.request.retries)
        self.retry(countdown=1)

    client = in_memory(unreachable, close_timeout=0.1)
    client.delay(again)
    await client.close()
    so_far = len(runs)
    assert runs == list(range(so_far))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(runs) == so_far


async def test_closing_runs_a_chain_to_its_end(unreachable: Celery, in_memory: MakeClient) -> None:
    add = unreachable.tasks["add"]
    client = in_memory(unreachable)
    call = client.apply_async(add.s(1, 2) | add.s(3) | add.s(4))
    await client.close()
    assert await call == 10


# What a task calls.


async def test_linked_tasks_are_run(unreachable: Celery, in_memory: MakeClient) -> None:
    ran: list[Any] = []

    @unreachable.task(shared=False, name="on_success")
    def on_success(value: Any) -> None:
        ran.append(value)

    @unreachable.task(shared=False, name="on_error")
    def on_error(request: Any, error: Exception, remote_traceback: Any) -> None:
        ran.append((request.id, str(error)))

    @unreachable.task(shared=False, name="on_error_by_id")
    def on_error_by_id(task_id: str) -> None:
        ran.append(task_id)

    add, fail = unreachable.tasks["add"], unreachable.tasks["fail"]
    errbacks = [on_error.s(), on_error_by_id.s()]
    async with in_memory(unreachable) as client:
        linked = client.apply_async(add, (1, 2), link=[on_success.s(), add.s(4)])
        assert await linked == 3
        assert linked.children is not None
        [links] = linked.children
        assert await links == [None, 7]
        failed = client.apply_async(fail, link=on_success.s(), link_error=errbacks)
        with pytest.raises(LookupError):
            await failed
    assert ran == [3, (failed.id, "gone"), failed.id]


async def test_chords_are_run_wherever_they_stand(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    add, total, fail = (unreachable.tasks[name] for name in ("add", "total", "fail"))
    parts = group(add.s(1), add.s(2))
    async with in_memory(unreachable) as client:
        assert await client.apply_async(add.s(1, 1) | parts | total.s()) == 7
        assert await client.apply_async(add.s(1, 1) | chord(parts, total.s()) | add.s(1)) == 8
        inner = group(add.s(1, 1), add.s(2, 2)) | total.s()
        assert await client.apply_async(group(inner, add.s(1, 2)) | total.s()) == 9
        with pytest.raises(LookupError):
            await client.apply_async(chord([add.s(1, 1), fail.s()], total.s()))
        with pytest.raises(LookupError):
            await client.apply_async(chord([add.s(1, 1), fail.s()], group(total.s(), total.s())))


async def test_what_a_task_calls_goes_to_the_same_worker(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    add, total = unreachable.tasks["add"], unreachable.tasks["total"]
    published: list[str] = []

    @signals.after_task_publish.connect
    def note(sender: str, **_: Any) -> None:
        published.append(sender)

    @unreachable.task(shared=False, bind=True, name="caller")
    def caller(self: Any) -> str:
        add.delay(1, 2)
        unreachable.send_task("add", (3, 4))
        (add.s(5, 6) | add.s(7)).delay()
        group(add.s(8, 9), add.s(0, 0)).delay()
        chord([add.s(1, 1)], total.s()).delay()
        assert self.app is unreachable
        return str(self.request.id)

    async with in_memory(unreachable) as client:
        call = client.delay(caller)
        assert await call == call.id
        values = [await child for child in call.children or ()]
    assert values == [3, 7, 11, [17, 0], [2]]
    assert [task.args for task in client.sent[1:]] == [
        *([1, 2], [3, 4], [5, 6], [8, 9], [0, 0], [1, 1]),
        *([11, 7], [[2]]),
    ]
    assert {task.headers["root_id"] for task in client.sent} == {call.id}
    assert published == [task.name for task in client.sent]


async def test_a_task_may_send_commands_and_ask_the_backend(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    add = unreachable.tasks["add"]

    @unreachable.task(shared=False, name="caller")
    def caller(earlier: str) -> list[Any]:
        unreachable.control.revoke("some-id")
        return [
            unreachable.AsyncResult(earlier).get(),
            add.delay(1, 2).state,
            unreachable.control.purge(),
            unreachable.control.inspect().ping(),
        ]

    async with in_memory(unreachable) as client:
        earlier = client.delay(add, 1, 2)
        assert await client.delay(caller, earlier.id) == [3, "PENDING", 0, None]
    assert client.commands == ["revoke", "ping"]


async def test_a_task_cannot_wait_for_one_that_it_calls(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    add = unreachable.tasks["add"]

    @unreachable.task(shared=False, name="impatient")
    def impatient() -> Any:
        return add.delay(1, 2).get()

    async with in_memory(unreachable) as client:
        with pytest.raises(RuntimeError, match="within a task"):
            await client.delay(impatient)


async def test_an_app_is_redirected_for_nobody_but_the_task_that_runs(
    in_memory: MakeClient,
) -> None:
    app = app_of("memory://", "cache+memory://")
    own_class, seen = type(app), []

    def look() -> None:
        seen.append(type(app.backend))

    @app.task(shared=False, name="look_around")
    def look_around() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        look()

    async with in_memory(app) as client:
        await client.delay(look_around)
        look()
    of_the_thread, of_the_task, outside = seen
    assert of_the_thread is outside is CacheBackend
    assert of_the_task is not CacheBackend
    assert type(app) is own_class


async def test_tasks_that_are_shared_belong_to_the_app_that_runs_them(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    @unreachable.task(shared=False, name="caller")
    def caller() -> None:
        double.delay(2)

    async with in_memory(unreachable) as client:
        call = client.delay(caller)
        await call
        assert call.children is not None
        assert [await child for child in call.children] == [4]


# What a task sees.


@pytest.mark.parametrize("protocol", [1, 2])
async def test_a_task_sees_the_request_that_a_worker_would_show(
    unreachable: Celery, protocol: int, in_memory: MakeClient
) -> None:
    unreachable.conf.task_protocol = protocol
    names = ("id", "group", "retries", "correlation_id", "is_eager", "called_directly", "hostname")

    @unreachable.task(shared=False, bind=True, name="shown")
    def shown(self: Any) -> dict[str, Any]:
        request = self.request
        rest = {"delivery_info": request.delivery_info, "reply_to": request.reply_to}
        return {name: getattr(request, name) for name in names} | rest | {"x": request.headers}

    async with in_memory(unreachable) as client:
        call = client.apply_async(shown, headers={"x": "y"}, priority=3)
        seen = await call
    assert seen.pop("x")["x"] == "y"
    assert seen.pop("reply_to") == client._sessions.codec.recorder.reply_to
    assert seen == {
        "id": call.id,
        "group": None,
        "retries": 0,
        "correlation_id": call.id,
        "is_eager": False,
        "called_directly": False,
        "hostname": "in-process",
        "delivery_info": {
            "exchange": "",
            "routing_key": "celery",
            "priority": 3,
            "redelivered": False,
        },
    }


async def test_a_task_sees_whom_it_belongs_to(unreachable: Celery, in_memory: MakeClient) -> None:
    @unreachable.task(shared=False, bind=True, name="kin")
    def kin(self: Any, *_: Any) -> list[Any]:
        return [self.request.root_id, self.request.parent_id, self.request.group]

    async with in_memory(unreachable) as client:
        call = client.apply_async(kin.s() | group(kin.s(), kin.s()))
        first = call.parent
        assert first is not None
        assert await call == [[first.id, first.id, call.id]] * 2
        assert await first == [first.id, None, None]


async def test_what_stands_in_for_a_task_takes_its_place_in_canvas(
    unreachable: Celery, in_memory: MakeClient
) -> None:
    add, total = unreachable.tasks["add"], unreachable.tasks["total"]
    results: dict[str, Callable[..., Any]] = {"add": lambda x, y: x * y}
    async with in_memory(unreachable, results=results) as client:
        assert await client.apply_async(add.s(2, 3) | group(add.s(2), add.s(3)) | total.s()) == 30
        unknown = unreachable.signature("unknown")
        call = client.apply_async(unknown | add.s(1))
        with pytest.raises(Exception, match="unknown"):
            await client.result(call.id)
