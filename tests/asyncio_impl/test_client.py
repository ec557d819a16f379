from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Coroutine
from typing import Any

import pytest
from celery import Celery, signals
from celery.local import Proxy

from bridgetask import (
    AsyncResult,
    Client,
    ClientClosed,
    InvalidOption,
    ResultUnavailable,
    WrongEventLoop,
    errors,
)
from bridgetask.asyncio_impl.session import Session

from .. import tasks
from ..fix_rabbitmq import make_app, take


async def test_a_task_called_by_name_returns_its_value(client: Client) -> None:
    assert await client.send_task("tests.tasks.add", args=(1, 2)) == 3
    assert await client.send_task("tests.tasks.add", kwargs={"x": 1, "y": 2}) == 3


async def test_a_task_object_can_be_called_like_delay(client: Client) -> None:
    handle = client.delay(tasks.add, 2, 3)
    assert isinstance(handle, AsyncResult)
    assert await handle == 5
    assert await client.delay(tasks.add, x=2, y=4) == 6


async def test_a_signature_can_be_applied_with_more_arguments(client: Client) -> None:
    assert await client.apply_async(tasks.add.s(1), (4,)) == 5
    assert await client.apply_async(tasks.add.si(1, 1), (4,)) == 2
    assert await client.delay(tasks.add.s(1), 4) == 5


async def test_a_chain_gives_its_last_value_and_links_its_steps_by_parent(client: Client) -> None:
    chain = tasks.add.s(1, 2) | tasks.add.s(3) | tasks.add.s(4)
    handle = client.apply_async(chain)
    assert await handle == 10
    assert handle.parent is not None
    assert await handle.parent == 6
    assert handle.parent.parent is not None
    assert await handle.parent.parent == 3
    assert handle.parent.parent.parent is None


async def test_a_chain_raises_what_an_early_step_raised(client: Client) -> None:
    handle = client.apply_async(tasks.fail.s("ValueError", "early") | tasks.add.si(1, 2))
    with pytest.raises(ValueError, match="early"):
        await handle


async def test_what_is_no_task_is_refused(client: Client) -> None:
    with pytest.raises(InvalidOption, match="task: must be a Celery task or signature"):
        client.apply_async(print)  # type: ignore[arg-type]


async def test_wrong_arguments_of_a_task_raise_type_error_at_the_call(client: Client) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        client.delay(tasks.add, 1)  # type: ignore[call-arg]


async def test_calls_before_the_connection_all_go_out_in_order(
    lonely_app: Celery, broker_url: str
) -> None:
    client = Client(lonely_app)
    handles = [client.send_task("nothing", (number,), queue="order") for number in range(200)]
    await asyncio.gather(*(handle.sent() for handle in handles))
    await client.close()
    bodies = [json.loads(each.body) for each in take(broker_url, "order")]
    assert [body[0][0] for body in bodies] == list(range(200))


async def test_the_app_may_be_given_as_a_proxy_such_as_current_app(app: Celery) -> None:
    async with Client(Proxy(lambda: app)) as client:
        assert client.app is app
        assert await client.send_task("tests.tasks.add", (1, 2)) == 3


async def test_two_clients_share_a_process(app: Celery) -> None:
    async with Client(app) as one, Client(app) as other:
        results = await asyncio.gather(
            *(each.delay(tasks.add, number, 0) for each in (one, other) for number in range(20))
        )
    assert results == [*range(20), *range(20)]


def test_one_client_serves_two_event_loops_one_after_the_other(app: Celery) -> None:
    client = Client(app)

    async def call_and_leave_open() -> Any:
        value = await client.delay(tasks.add, 1, 1)
        session = client._sessions.current
        assert session is not None
        await session.close(5)  # the loop ends, the client does not
        return value

    async def call_and_close() -> Any:
        async with client:
            return await client.delay(tasks.add, 2, 2)

    assert asyncio.run(call_and_leave_open()) == 2
    assert asyncio.run(call_and_close()) == 4


def test_a_fork_while_another_thread_makes_the_session_hangs_nobody() -> None:
    program = """
import os, signal, threading
from celery import Celery
from bridgetask import Client

client = Client(Celery(broker="amqp://", backend="rpc://"))
making, forked = threading.Event(), threading.Event()

def make():
    with client._sessions._making:
        making.set()
        forked.wait()

thread = threading.Thread(target=make)
thread.start()
making.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(10)
    client._sessions.codec
    os._exit(0)
forked.set()
print(os.waitpid(pid, 0)[1])
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=True, timeout=30).stdout == b"0\n"


def test_use_from_another_loop_is_a_clear_error(app: Celery) -> None:
    client = Client(app)
    loop = asyncio.new_event_loop()
    handle = None

    async def call() -> AsyncResult[int]:
        return client.delay(tasks.add, 1, 1)

    async def call_elsewhere() -> None:
        with pytest.raises(WrongEventLoop, match="another event loop"):
            client.delay(tasks.add, 1, 1)
        with pytest.raises(WrongEventLoop, match="another event loop"):
            await client.close()

    handle = loop.run_until_complete(call())

    async def wait_elsewhere() -> None:
        with pytest.raises(WrongEventLoop, match="another event loop"):
            await handle
        with pytest.raises(WrongEventLoop):
            await handle.sent()

    asyncio.run(call_elsewhere())
    asyncio.run(wait_elsewhere())
    client._sessions.closed = False
    assert loop.run_until_complete(handle.get()) == 2
    loop.run_until_complete(client.close())
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()


def test_use_without_a_running_loop_is_a_clear_error(app: Celery) -> None:
    with pytest.raises(WrongEventLoop, match="no event loop is running"):
        Client(app).delay(tasks.add, 1, 1)


async def test_use_after_close_is_a_clear_error(app: Celery) -> None:
    client = Client(app)
    handle = client.delay(tasks.add, 1, 1)
    assert await handle == 2
    await client.close()
    await client.close()
    assert client.closed
    for call in (
        lambda: client.delay(tasks.add, 1, 1),
        lambda: client.send_task("tests.tasks.add"),
        lambda: client.result("x"),
    ):
        with pytest.raises(ClientClosed, match="the client is closed"):
            call()
    with pytest.raises(ClientClosed):
        await client.connect()
    with pytest.raises(ClientClosed):
        await client.control.ping()
    assert await handle == 2  # what is known stays known


async def test_closing_sends_what_is_queued_first(lonely_app: Celery, broker_url: str) -> None:
    client = Client(lonely_app)
    handles = [client.send_task("nothing", queue="drain") for _ in range(50)]
    await client.close()
    for handle in handles:
        await handle.sent()
    assert len(take(broker_url, "drain")) == 50


async def test_closing_fails_the_results_that_are_awaited(lonely_app: Celery) -> None:
    client = Client(lonely_app)
    waiting = asyncio.ensure_future(client.send_task("nothing").get())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ClientClosed, match="while the result was awaited"):
        await waiting


async def test_closing_an_idle_client_does_nothing(app: Celery) -> None:
    await Client(app).close()


async def test_closing_deletes_the_reply_queue(app: Celery, rabbitmq: Any) -> None:
    async with Client(app) as client:
        await client.delay(tasks.add, 1, 1)
        queue = client._sessions.codec.recorder.reply_to
        during = await asyncio.to_thread(rabbitmq.names, "queues", "name", "durable", "auto_delete")
        assert [queue, "true", "false"] in during
    assert not await asyncio.to_thread(rabbitmq.has_queue, queue)


async def test_the_reply_queue_expires(app: Celery, rabbitmq: Any) -> None:
    async with Client(app) as client:
        await client.delay(tasks.add, 1, 1)
        listed = await asyncio.to_thread(rabbitmq.names, "queues", "name", "arguments", "exclusive")
    (row,) = (row for row in listed if row[0] == client._sessions.codec.recorder.reply_to)
    assert row[1:] == ['[{"x-expires",86400000}]', "false"]


async def test_a_client_left_unclosed_warns_and_leaves_nothing(lonely_app: Celery) -> None:
    client: Client | None = Client(lonely_app)
    assert client is not None
    await client.send_task("nothing").sent()
    with pytest.warns(ResourceWarning, match="unclosed <Client of lonely open>"):
        del client
        gc.collect()
    await asyncio.sleep(0.1)  # the leak checks look at what is left


def run_and_leave_open(main: Coroutine[Any, Any, None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(main)
        gc.collect()


def test_a_loop_that_ends_with_an_open_client_ends_quietly(
    lonely_app: Celery, collected_logs: Any
) -> None:
    async def main() -> None:
        client = Client(lonely_app)
        await client.send_task("nothing").sent()

    run_and_leave_open(main())
    assert not [line for line in collected_logs() if "never retrieved" in line]


def test_a_loop_that_ends_with_an_open_client_ends_quietly_though_there_is_no_time_to_close(
    lonely_app: Celery, collected_logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Session.close

    async def close_without_time(session: Session, timeout: float) -> None:
        await close(session, 0.0)

    async def main() -> None:
        await Client(lonely_app).connect()

    monkeypatch.setattr(Session, "close", close_without_time)
    run_and_leave_open(main())
    assert collected_logs() == []


async def test_the_users_app_is_not_altered(app: Celery) -> None:
    app.finalize()  # as the first who looks at its tasks does
    before = {key: value for key, value in app.__dict__.items() if key != "_local"}
    local = dict(app._local.__dict__)
    async with Client(app) as client:
        await client.delay(tasks.add, 1, 1)
        await client.apply_async(tasks.add.s(1, 2) | tasks.add.s(3))
        await client.send_task("tests.tasks.add", (1, 1), countdown=0.01)
    after = {key: value for key, value in app.__dict__.items() if key in before}
    assert after == before
    assert app._local.__dict__ == local
    assert app._pool is None
    assert tasks.add.app is app


def test_celerys_own_blocking_client_works_beside_us(app: Celery, broker_url: str) -> None:
    # In a process of its own: Celery's client keeps its connections for as long as that lives.
    program = """
import asyncio
from bridgetask import Client
from tests.tasks import add, app

def blocking():
    return app.send_task("tests.tasks.add", (20, 1)).get(timeout=10)

async def main():
    results.append(blocking())
    async with Client(app) as client:
        ours = [client.delay(add, number, 0) for number in range(50)]
        results.extend(await asyncio.gather(*(asyncio.to_thread(blocking) for _ in range(3))))
        results.append(blocking())
        assert await asyncio.gather(*ours) == list(range(50))
    results.append(add.delay(20, 1).get(timeout=10))

results = [blocking()]
asyncio.run(main())
results.append(blocking())
print(results)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BRIDGETASK_TEST_BROKER": broker_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stdout == f"{[21] * 8}\n", finished.stderr


async def test_many_tasks_in_flight_use_two_connections_and_one_consumer(
    app: Celery, rabbitmq: Any
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    count = threading.active_count()
    async with Client(app) as client:
        handles = [client.delay(tasks.add, number, 1) for number in range(1000)]
        assert await asyncio.gather(*handles) == list(range(1, 1001))
        assert threading.active_count() == count
        names = await asyncio.to_thread(rabbitmq.names, "connections", "client_properties")
        consumers = await asyncio.to_thread(rabbitmq.names, "consumers", "queue_name")
    mine = [row for row in names if f":{os.getpid()}" in row[0] and "bridgetask" in row[0]]
    assert len(mine) == 2
    queue = client._sessions.codec.recorder.reply_to
    assert [row for row in consumers if row[0] == queue] == [[queue]]


async def test_ignored_results_give_none_once_the_broker_has_the_task(client: Client) -> None:
    handle = client.send_task("tests.tasks.add", (1, 2), ignore_result=True)
    assert handle.ignored
    assert await handle is None
    assert handle._delivery is not None
    assert handle._delivery.done


async def test_a_task_that_ignores_its_result_is_known_to(client: Client) -> None:
    assert await client.delay(tasks.ignored) is None  # type: ignore[func-returns-value]
    assert await client.send_task("tests.tasks.ignored") is None


@pytest.mark.blocks
async def test_with_task_always_eager_the_task_runs_on_the_spot(lonely_app: Celery) -> None:
    @lonely_app.task(shared=False)
    def double(x: int) -> int:
        return 2 * x

    @lonely_app.task(shared=False)
    def fail() -> None:
        raise ValueError("eager")

    lonely_app.conf.task_always_eager = True
    client = Client(lonely_app)
    handle = client.delay(double, 2)
    assert handle.ready()
    assert await handle == 4
    await handle.sent()
    with pytest.raises(ValueError, match="eager"):
        await client.delay(fail)
    await client.close()


async def test_without_a_backend_tasks_are_sent_and_awaiting_is_refused(broker_url: str) -> None:
    celery = make_app("nobackend", broker_url, None)
    async with Client(celery) as client:
        handle = client.send_task("nothing", queue="nobackend")
        await handle.sent()
        with pytest.raises(ResultUnavailable, match="no result backend is configured"):
            await handle
        with pytest.raises(ResultUnavailable, match="no result backend is configured"):
            handle.updates()
        assert await client.send_task("nothing", queue="nobackend", ignore_result=True) is None
    assert len(take(broker_url, "nobackend")) == 2


async def test_an_unsupported_backend_is_refused_unless_results_are_ignored(
    broker_url: str,
) -> None:
    celery = make_app("other", broker_url, "db+sqlite:///x.db")
    async with Client(celery) as client:
        with pytest.raises(InvalidOption, match=r"result_backend: .*db.*supported are rpc://"):
            client.send_task("nothing", queue="other")
        assert await client.send_task("nothing", queue="other", ignore_result=True) is None
    assert len(take(broker_url, "other")) == 1


async def test_a_result_of_an_unknown_task_is_refused_at_once(client: Client) -> None:
    handle = client.result(str(uuid.uuid4()))
    assert handle.state == "PENDING"
    with pytest.raises(ResultUnavailable, match="only to the client that sent the task"):
        await handle


async def test_a_result_of_our_own_task_can_be_asked_for_by_id(client: Client) -> None:
    handle = client.delay(tasks.add, 1, 2)
    again = client.result(handle.id)
    assert again == handle
    assert await again == 3
    assert handle.state == "SUCCESS"


async def test_a_result_that_goes_elsewhere_is_refused_at_once(client: Client) -> None:
    handle = client.send_task("tests.tasks.add", (1, 2), reply_to="somebody-else")
    await handle.sent()
    with pytest.raises(ResultUnavailable, match="reply_to"):
        await handle


async def test_signals_are_sent_and_after_task_publish_follows_the_confirm(client: Client) -> None:
    events: list[str] = []

    def before(sender: str, headers: dict[str, Any], **_: Any) -> None:
        headers["traced"] = "yes"
        events.append("before")

    def after(sender: str, headers: dict[str, Any], body: Any, **_: Any) -> None:
        assert handle is not None
        events.append(f"after {sender} {headers['id'] == handle.id} {body[0]}")

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    handle = None
    try:
        handle = client.delay(tasks.about_me)
        events.append("returned")
        await handle.sent()
        events.append("sent")
        about = await handle
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert events == ["before", "returned", "after tests.tasks.about_me True ()", "sent"]
    assert about["headers"]["traced"] == "yes"


async def test_task_sent_events_go_out(broker_url: str) -> None:
    celery = make_app("events", broker_url, task_send_sent_event=True, task_default_queue="events")
    with celery.connection_for_read() as connection:
        channel = connection.default_channel
        exchange = celery.events.Dispatcher(connection, enabled=False).exchange(channel)
        exchange.declare()
        channel.queue_declare("heard", auto_delete=True)
        channel.queue_bind("heard", exchange.name, "task.sent")
        async with Client(celery) as client:
            handle = client.send_task("nothing", (1,))
            await handle.sent()
        heard = channel.basic_get("heard")
        channel.queue_delete("heard")
        channel.queue_delete("events")
    assert heard is not None
    assert heard.headers["hostname"]
    assert handle.id in heard.body


@pytest.mark.parametrize(
    ("option", "value"), [("send_timeout", 0), ("close_timeout", -1), ("send_timeout", "5")]
)
def test_bad_timeouts_are_refused(app: Celery, option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"{option}: must be a positive number"):
        Client(app, **{option: value})


@pytest.mark.parametrize("heartbeat", [-1, "30"])
def test_a_bad_heartbeat_is_refused(app: Celery, heartbeat: Any) -> None:
    with pytest.raises(InvalidOption, match="heartbeat: must be a number of seconds, 0 for never"):
        Client(app, heartbeat=heartbeat)


async def test_a_bad_on_cancel_is_refused(client: Client) -> None:
    with pytest.raises(InvalidOption, match="on_cancel: must be None, 'revoke' or 'terminate'"):
        Client(client.app, on_cancel="kill")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="on_cancel"):
        client.send_task("nothing", on_cancel="kill")


async def test_connect_reports_a_broker_that_is_not_there() -> None:
    celery = make_app("nowhere", "amqp://127.0.0.1:1//")
    client = Client(celery, send_timeout=5)
    with pytest.raises(errors.BrokerUnreachable, match=r"amqp://guest:\*\*@127.0.0.1:1/%2F"):
        await client.connect()
    with pytest.raises(errors.BrokerUnreachable):
        async with client:
            pass
    await client.close()
