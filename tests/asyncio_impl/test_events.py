from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.events.state import State
from kombu import Connection

from bridgetask import (
    BrokerUnreachable,
    Client,
    ClientClosed,
    Events,
    InvalidOption,
    WrongEventLoop,
)

from ..fakes import proxy
from ..fix_rabbitmq import close_celery, make_app
from ..patience import until
from ..servers import RabbitMQ, Worker, free_ports


@pytest.fixture
async def quiet_client(quiet_app: Celery) -> AsyncIterator[Client]:
    """A client of an event exchange that no worker sends to."""
    async with Client(quiet_app) as opened:
        yield opened


@pytest.fixture
def quiet_app(broker_url: str) -> Any:
    exchange = f"events-{uuid4()}"
    app = make_app("quiet", broker_url, event_exchange=exchange, control_exchange=exchange)
    yield app
    close_celery(app)


async def send(app: Celery, *types: str, **fields: Any) -> None:
    """Send events as Celery's own dispatcher does, with a number each."""

    def dispatch() -> None:
        with (
            app.connection_for_write() as connection,
            app.events.Dispatcher(connection, hostname="w@h") as dispatcher,
        ):
            for number, name in enumerate(types):
                dispatcher.send(name, **{"uuid": f"task-{number}", "n": number, **fields})

    await asyncio.to_thread(dispatch)


async def publish(app: Celery, body: Any, **options: Any) -> None:
    """Send what may be no event at all."""

    def put() -> None:
        with Connection(app.conf.broker_url) as connection:
            connection.Producer().publish(
                body, exchange=app.conf.event_exchange, routing_key="any.thing", **options
            )

    await asyncio.to_thread(put)


async def queues(rabbitmq: RabbitMQ, virtual_host: str = "/") -> set[str]:
    rows = await asyncio.to_thread(rabbitmq.names, "queues", "name", virtual_host=virtual_host)
    return {name for [name] in rows}


async def gone(rabbitmq: RabbitMQ, queue: str) -> None:
    """Return once a queue is deleted."""
    await until(lambda: not rabbitmq.has_queue(queue))


# The stream of real workers.


async def test_the_events_of_a_worker_and_its_tasks_arrive(
    spare_client: Client, spare_worker: Worker
) -> None:
    await spare_client.control.enable_events()
    seen: dict[str, dict[str, Any]] = {}
    async with asyncio.timeout(60), spare_client.events() as events:
        call = spare_client.send_task("tests.tasks.add", (1, 2))
        async for event in events:
            if event["type"] == "worker-heartbeat" or event.get("uuid") == call.id:
                seen[event["type"]] = event
            if "task-succeeded" in seen and "worker-heartbeat" in seen:
                break
    await spare_client.control.disable_events()
    assert seen.keys() >= {"task-received", "task-started", "task-succeeded", "worker-heartbeat"}
    assert {event["hostname"] for event in seen.values()} == {spare_worker.name}
    assert all(time.time() - event["local_received"] < 60 for event in seen.values())
    task = events.state.tasks[call.id]
    assert isinstance(events.state, State)
    assert (task.state, task.name, task.result) == ("SUCCESS", "tests.tasks.add", "3")
    assert events.state.workers[spare_worker.name].alive
    assert await call == 3


async def test_workers_tell_of_themselves_as_soon_as_a_capture_begins(
    spare_client: Client, spare_worker: Worker
) -> None:
    """Celery's worker sends a heartbeat every two seconds; nobody needs to wait for it."""
    for _ in range(3):
        began = time.monotonic()
        async for event in spare_client.events(types=["worker-heartbeat"]):
            assert event["hostname"] == spare_worker.name
            break
        if time.monotonic() - began < 0.5:
            return
    pytest.fail("no heartbeat came at once, three times")


# What is read.


async def test_events_arrive_in_order_and_as_celery_reads_them(quiet_client: Client) -> None:
    app = quiet_client.app
    async with quiet_client.events() as events:
        await send(app, "worker-online", "task-sent", "task-received", "custom-thing")
        read = [await asyncio.wait_for(anext(events), 10) for _ in range(4)]
    assert [event["type"] for event in read] == [
        "worker-online",
        "task-sent",
        "task-received",
        "custom-thing",
    ]
    assert [event["n"] for event in read] == [0, 1, 2, 3]
    for event in read:
        assert event.keys() >= {"timestamp", "local_received", "clock", "hostname", "pid"}
        assert abs(event["timestamp"] - time.time()) < 60
    clock = app.clock.value
    assert clock >= max(event["clock"] for event in read)
    assert set(events.state.tasks) == {"task-1", "task-2"}
    assert events.dropped == events.interruptions == 0


async def test_many_events_in_one_message_are_read_one_by_one(quiet_client: Client) -> None:
    app = quiet_client.app

    def dispatch() -> None:
        with app.connection_for_write() as connection:
            dispatcher = app.events.Dispatcher(connection, hostname="w@h", buffer_group={"task"})
            for number in range(5):
                dispatcher.send("task-received", uuid=str(number), name="t")
            dispatcher.flush()
            dispatcher.close()

    async with quiet_client.events() as events:
        await asyncio.to_thread(dispatch)
        read = [await asyncio.wait_for(anext(events), 10) for _ in range(5)]
    assert [event["uuid"] for event in read] == ["0", "1", "2", "3", "4"]
    assert events.state.task_count == 5


async def test_only_the_types_that_were_asked_for_are_iterated_over(quiet_client: Client) -> None:
    async with quiet_client.events(types={"task-failed"}) as events:
        await send(quiet_client.app, "task-received", "task-failed", "worker-online", uuid="one")
        assert (await asyncio.wait_for(anext(events), 10))["type"] == "task-failed"
        await send(quiet_client.app, "task-received", "task-failed", uuid="two")
        assert (await asyncio.wait_for(anext(events), 10))["uuid"] == "two"
    assert set(events.state.tasks) == {"one", "two"}
    assert events.state.workers


async def test_the_routing_key_says_which_the_broker_sends(quiet_client: Client) -> None:
    async with quiet_client.events(routing_key="worker.#") as events:
        await send(quiet_client.app, "task-failed", "worker-online")
        assert (await asyncio.wait_for(anext(events), 10))["type"] == "worker-online"
    assert not events.state.tasks


async def test_a_state_of_the_users_own_is_kept(quiet_client: Client) -> None:
    joined: list[str] = []
    state = State(on_node_join=lambda worker: joined.append(worker.hostname))
    async with quiet_client.events(state=state) as events:
        assert events.state is state
        await send(quiet_client.app, "worker-online")
        await asyncio.wait_for(anext(events), 10)
    assert joined == ["w@h"]


async def test_what_cannot_be_read_is_logged_and_harms_nobody(
    quiet_client: Client, collected_logs: Callable[[], list[str]]
) -> None:
    app = quiet_client.app
    json_type = {"content_type": "application/json", "content_encoding": "utf-8"}

    def fail(state: State, event: dict[str, Any]) -> None:
        if event["type"] == "task-broken":
            raise ValueError("made up")

    async with quiet_client.events(state=State(callback=fail)) as events:
        await publish(app, b"{", **json_type)
        await publish(app, b"\x80\x04N.", content_type="application/x-python-serialize")
        await publish(
            app, json.dumps([{"n": "no type"}, {"type": "task-fine", "n": 1}]), **json_type
        )
        await publish(app, json.dumps("nonsense"), **json_type)
        await publish(app, json.dumps({"type": "task-without-uuid"}), **json_type)
        await send(app, "task-broken", "worker-online")
        read = [(await asyncio.wait_for(anext(events), 10))["type"] for _ in range(4)]
    assert read == ["task-fine", "task-without-uuid", "task-broken", "worker-online"]
    logged = "\n".join(collected_logs())
    assert logged.count("Dropped events that can't be read") == 2
    assert logged.count("Dropped an event that can't be read") == 2
    assert logged.count("Celery's State could not take the event") == 3


async def test_a_buffer_that_is_full_drops_the_oldest_and_says_so(
    quiet_client: Client, collected_logs: Callable[[], list[str]]
) -> None:
    async with quiet_client.events(buffer_limit=3) as events:
        await send(quiet_client.app, *["task-received"] * 10)
        async with asyncio.timeout(10):
            while events.dropped < 7:
                await asyncio.sleep(0.01)
        read = [(await anext(events))["n"] for _ in range(3)]
        assert read == [7, 8, 9]
        assert len(events.state.tasks) == 10

        def warnings() -> int:
            return collected_logs().count("Events are dropped: nobody took the 3 that wait")

        assert warnings() == 1
        await send(quiet_client.app, *["task-received"] * 4)
        async with asyncio.timeout(10):
            while events.dropped < 8:
                await asyncio.sleep(0.01)
        assert warnings() == 2


async def test_two_captures_each_get_all(quiet_client: Client) -> None:
    async with quiet_client.events() as one, quiet_client.events() as other:
        await send(quiet_client.app, "worker-online")
        assert (await anext(one))["type"] == (await anext(other))["type"] == "worker-online"


# How it is declared.


async def test_the_queue_is_declared_as_celerys_receiver_declares_it(
    rabbitmq: RabbitMQ, quiet_app: Celery
) -> None:
    quiet_app.conf.update(event_queue_ttl=7, event_queue_expires=77, event_queue_prefix="pre")
    columns = "name", "durable", "auto_delete", "arguments", "exclusive"

    def declared() -> dict[str, list[str]]:
        rows = rabbitmq.names("queues", *columns)
        return {row[0]: row[1:] for row in rows if row[0].startswith("pre.")}

    def bindings() -> set[tuple[str, str]]:
        rows = rabbitmq.names("bindings", "source_name", "destination_name", "routing_key")
        return {(row[0], row[2]) for row in rows if row[1].startswith("pre.")} - {("", "")}

    def celerys() -> tuple[Any, Any]:
        with quiet_app.connection_for_read() as connection:
            receiver = quiet_app.events.Receiver(connection, routing_key="worker.*")
            with receiver.consumer_context(wakeup=False):
                return list(declared().values()), {b for b in bindings() if b[0]}

    expected = await asyncio.to_thread(celerys)
    async with Client(quiet_app) as client, client.events(routing_key="worker.*"):
        ours = (
            list((await asyncio.to_thread(declared)).values()),
            {b for b in await asyncio.to_thread(bindings) if b[0]},
        )
    assert ours == expected
    assert len(ours[0]) == len(ours[1]) == 1
    assert "x-message-ttl" in str(ours[0])


async def test_the_serializer_of_events_is_accepted(quiet_app: Celery) -> None:
    quiet_app.conf.event_serializer = "pickle"
    async with Client(quiet_app) as client, client.events() as events:
        await send(quiet_app, "worker-online", odd={1, 2})
        assert (await asyncio.wait_for(anext(events), 10))["odd"] == {1, 2}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"types": "task-failed"}, "types: must be a collection of event types"),
        ({"routing_key": 1}, "routing_key: must be a string, not 1"),
        ({"buffer_limit": 0}, "buffer_limit: must be a positive whole number, not 0"),
        ({"state": 1}, "state: must be a celery.events.state.State, not 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    quiet_app: Celery, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidOption, match=problem):
        Client(quiet_app).events(**options)


@pytest.mark.skipif(not hasattr(Celery("x").conf, "event_queue_durable"), reason="an older Celery")
def test_impossible_settings_are_refused_by_name(quiet_app: Celery) -> None:
    quiet_app.conf.update(event_queue_exclusive=True, event_queue_durable=True)
    with pytest.raises(InvalidOption, match=r"event_queue_exclusive: .*cannot be both"):
        Client(quiet_app).events()


# How it ends.


async def test_leaving_the_block_deletes_the_queue_and_ends_the_iteration(
    rabbitmq: RabbitMQ, quiet_client: Client
) -> None:
    async with quiet_client.events() as events:
        queue = events._stream.capture.queue
        assert await asyncio.to_thread(rabbitmq.has_queue, queue)
        assert queue in repr(events)
        await send(quiet_client.app, "worker-online")
        while not events._stream._buffer:
            await asyncio.sleep(0.01)
    assert not await asyncio.to_thread(rabbitmq.has_queue, queue)
    assert [event["type"] async for event in events] == ["worker-online"]  # what had arrived
    await events.aclose()


async def test_a_capture_can_be_started_again(rabbitmq: RabbitMQ, quiet_client: Client) -> None:
    events = quiet_client.events()
    for number in range(3):
        async with events:
            await send(quiet_client.app, "task-received", uuid=str(number))
            assert (await asyncio.wait_for(anext(events), 10))["uuid"] == str(number)
    assert set(events.state.tasks) == {"0", "1", "2"}
    assert not await asyncio.to_thread(rabbitmq.has_queue, events._stream.capture.queue)


async def test_a_capture_that_is_closed_while_it_starts_can_be_started_again(
    quiet_client: Client,
) -> None:
    for delay in (0, 0.001, 0.002, 0.004, 0.008):
        events = quiet_client.events()
        starting = asyncio.create_task(events.start())
        await asyncio.sleep(delay)
        await events.aclose()
        await starting
        async with events:
            await send(quiet_client.app, "worker-online")
            assert (await asyncio.wait_for(anext(events), 10))["type"] == "worker-online"


async def test_a_capture_that_is_started_while_it_closes_begins_anew(
    quiet_client: Client,
) -> None:
    events = quiet_client.events()
    await events.start()
    closing = asyncio.create_task(events.aclose())
    await asyncio.sleep(0)
    await events.start()
    await closing
    await send(quiet_client.app, "worker-online")
    assert (await asyncio.wait_for(anext(events), 10))["type"] == "worker-online"
    await events.aclose()


async def test_closing_ends_an_iteration_that_waits(quiet_client: Client) -> None:
    events = quiet_client.events()

    async def read() -> list[Any]:
        return [event async for event in events]

    for delay in (0, 0.001, 0.01, 0.1):
        await events.start()
        reading = asyncio.create_task(read())
        await asyncio.sleep(delay)
        await events.aclose()
        assert await asyncio.wait_for(reading, 10) == []


async def test_breaking_out_of_the_loop_deletes_the_queue(
    rabbitmq: RabbitMQ, quiet_client: Client
) -> None:
    before = await queues(rabbitmq)
    sending = asyncio.create_task(_keep_sending(quiet_client.app))
    async for _ in quiet_client.events():
        [queue] = await queues(rabbitmq) - before
        break
    await gone(rabbitmq, queue)
    session: Any = quiet_client._sessions.current
    await until(lambda: not session._subscriptions)
    sending.cancel()
    await asyncio.wait([sending])


async def _keep_sending(app: Celery) -> None:
    while True:
        await send(app, "worker-online")
        await asyncio.sleep(0.05)


async def test_cancelling_the_loop_deletes_the_queue(
    rabbitmq: RabbitMQ, quiet_client: Client
) -> None:
    before = await queues(rabbitmq)

    async def read() -> None:
        async for _ in quiet_client.events():
            pass

    reading = asyncio.create_task(read())
    async with asyncio.timeout(30):
        while not (mine := await queues(rabbitmq) - before):
            await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await reading
    await gone(rabbitmq, mine.pop())
    assert caught.value.__traceback__  # it is still held, and holds no stream


async def test_waiting_for_an_event_can_be_cancelled_and_continued(quiet_client: Client) -> None:
    async with quiet_client.events() as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await send(quiet_client.app, "worker-online")
        assert (await asyncio.wait_for(anext(events), 10))["type"] == "worker-online"


async def test_a_capture_that_is_cancelled_while_it_starts_leaves_nothing_behind(
    rabbitmq: RabbitMQ, quiet_client: Client
) -> None:
    before = await queues(rabbitmq)
    for delay in (0, 0.001, 0.002, 0.004, 0.008):
        events = quiet_client.events()
        starting = asyncio.create_task(events.start())
        await asyncio.sleep(delay)
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        await events.aclose()
    async with asyncio.timeout(30):
        while await queues(rabbitmq) - before:
            await asyncio.sleep(0.05)


async def test_captures_leave_no_channel_behind(rabbitmq: RabbitMQ, quiet_client: Client) -> None:
    def channels() -> int:
        rows = rabbitmq.names("connections", "channels", "client_properties")
        return sum(int(count) for count, properties in rows if "bridgetask" in properties)

    async with quiet_client.events(wakeup=False):
        pass
    before = await asyncio.to_thread(channels)
    for _ in range(10):
        async with quiet_client.events(wakeup=False):
            pass
    assert await asyncio.to_thread(channels) == before


async def test_closing_the_client_ends_the_iteration_with_an_error(
    rabbitmq: RabbitMQ, quiet_app: Celery
) -> None:
    client = Client(quiet_app)
    events = client.events()
    await events.start()
    reading = asyncio.create_task(events.__anext__())
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(ClientClosed, match="closed while events were captured"):
        await reading
    with pytest.raises(ClientClosed):
        await anext(events)
    await gone(rabbitmq, events._stream.capture.queue)
    with pytest.raises(ClientClosed):
        await client.events().start()
    await events.aclose()


async def test_a_capture_that_never_began_ends_without_a_trace(quiet_client: Client) -> None:
    events = quiet_client.events()
    await events.aclose()
    assert [event async for event in events] == []
    del events
    quiet_client.events()
    gc.collect()


# Faults.


async def test_a_capture_goes_on_after_a_lost_connection_and_says_what_it_missed(
    quiet_app: Celery, rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridgetask")
    async with proxy(rabbitmq.port) as between:
        celery = make_app(
            "cut",
            f"amqp://127.0.0.1:{between.port}//",
            event_exchange=quiet_app.conf.event_exchange,
            control_exchange=quiet_app.conf.control_exchange,
        )
        async with Client(celery) as client, client.events() as events:
            await send(quiet_app, "worker-online")
            assert (await asyncio.wait_for(anext(events), 10))["type"] == "worker-online"
            waiting = asyncio.create_task(events.__anext__())
            await asyncio.sleep(0.05)
            between.refuse = True
            between.cut()
            await asyncio.sleep(0.5)
            await send(quiet_app, "task-missed")
            assert not waiting.done()
            between.refuse = False
            sending = asyncio.create_task(_keep_sending(quiet_app))
            assert (await asyncio.wait_for(waiting, 20))["type"] == "worker-online"
            sending.cancel()
            await asyncio.wait([sending])
            assert events.interruptions == 1
    messages = [record.getMessage() for record in caplog.records]
    assert "Events are missed until they can be consumed again" in messages
    assert f"Consuming {events._stream.capture.queue} again" in messages


async def test_a_queue_that_somebody_deletes_is_declared_again(
    rabbitmq: RabbitMQ, quiet_client: Client
) -> None:
    async with quiet_client.events() as events:
        await asyncio.to_thread(rabbitmq.ctl, "delete_queue", events._stream.capture.queue)
        sending = asyncio.create_task(_keep_sending(quiet_client.app))
        assert (await asyncio.wait_for(anext(events), 20))["type"] == "worker-online"
        assert events.interruptions == 1
        sending.cancel()
        await asyncio.wait([sending])


async def test_with_no_broker_up_a_capture_fails_in_time() -> None:
    [port] = free_ports(1)
    client = Client(make_app("down", f"amqp://127.0.0.1:{port}//"), send_timeout=2)
    with pytest.raises(BrokerUnreachable):
        async with client.events():
            pass
    with pytest.raises(BrokerUnreachable):
        async for _ in client.events():
            pass
    await client.close()


def test_a_capture_belongs_to_one_event_loop(quiet_app: Celery) -> None:
    client = Client(quiet_app)

    async def begin() -> Events:
        events = client.events()
        await events.start()
        return events

    with pytest.warns(ResourceWarning, match="the event loop ended with an open client"):
        events = asyncio.run(begin())

    async def go_on() -> None:
        with pytest.raises((WrongEventLoop, ClientClosed)):
            await anext(events)

    asyncio.run(go_on())
