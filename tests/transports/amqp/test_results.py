"""Receiving results: what breaks one of them, and what breaks the connection."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from bridgetask import AsyncResult, BrokerUnreachable, Client, ResultUndecodable

from ... import tasks
from ...fakes import Proxy, proxy
from ...fix_rabbitmq import make_app, take
from ...patience import PATIENCE
from ...servers import RabbitMQ

Reply = Callable[..., None]


@pytest.fixture
def reply(broker_url: str) -> Reply:
    """Publish a message into a client's reply queue, as a worker might, or anybody else."""

    def publish(client: Client, body: Any, task_id: str | None = None, **properties: Any) -> None:
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            properties.setdefault("content_type", "application/json")
            properties.setdefault("content_encoding", "utf-8")
        with Connection(broker_url) as connection:
            connection.Producer().publish(
                body,
                exchange="",
                routing_key=client._sessions.codec.recorder.reply_to,
                correlation_id=task_id,
                **properties,
            )

    return publish


def success(task_id: str, result: Any = 1) -> dict[str, Any]:
    return {"task_id": task_id, "status": "SUCCESS", "result": result, "children": []}


@pytest.mark.parametrize(
    ("body", "properties", "reason"),
    [
        (b"{nonsense", {"content_type": "application/json"}, "JSONDecodeError|DecodeError"),
        (b"\x80\x04N.", {"content_type": "application/x-python-serialize"}, "ContentDisallowed"),
        (b"{}", {"content_type": "application/json"}, "KeyError"),
        (b"[1, 2]", {"content_type": "application/json"}, "TypeError"),
        (b"x", {"content_type": "application/json", "headers": {"compression": "odd"}}, "KeyError"),
        (b"", {"content_type": "application/json"}, "the result can.t be read"),
    ],
    ids=["undecodable", "disallowed", "empty", "wrong shape", "compression", "no body"],
)
async def test_a_result_that_cannot_be_read_fails_alone(
    lonely_client: Client, reply: Reply, body: bytes, properties: dict[str, Any], reason: str
) -> None:
    broken, fine = (lonely_client.send_task("nothing") for _ in range(2))
    await fine.sent()
    await asyncio.to_thread(
        reply, lonely_client, body, broken.id, **{"content_encoding": "utf-8", **properties}
    )
    await asyncio.to_thread(reply, lonely_client, success(fine.id, "fine"), fine.id)
    assert await fine.get(timeout=10) == "fine"
    with pytest.raises(ResultUndecodable, match=reason) as caught:
        await broken.get(timeout=10)
    assert caught.value.task_id == broken.id


async def test_results_for_nobody_are_logged_at_most_once_and_harm_nobody(
    lonely_client: Client, reply: Reply, collected_logs: Callable[[], list[str]]
) -> None:
    handle = lonely_client.send_task("nothing")
    await handle.sent()
    stranger = str(uuid.uuid4())
    await asyncio.to_thread(reply, lonely_client, success(stranger), stranger)
    await asyncio.to_thread(
        reply,
        lonely_client,
        b"{",
        stranger,
        content_type="application/json",
        content_encoding="utf-8",
    )
    await asyncio.to_thread(
        reply, lonely_client, b"{", None, content_type="application/json", content_encoding="utf-8"
    )
    await asyncio.to_thread(reply, lonely_client, success(handle.id), handle.id)
    assert await handle.get(timeout=10) == 1
    assert len([line for line in collected_logs() if "Dropped a message" in line]) == 2


async def test_a_result_is_matched_by_its_body_and_not_by_its_correlation_id(
    lonely_client: Client, reply: Reply
) -> None:
    one, other = (lonely_client.send_task("nothing") for _ in range(2))
    await other.sent()
    await asyncio.to_thread(reply, lonely_client, success(one.id, "one"), other.id)
    assert await one.get(timeout=10) == "one"
    assert not other.ready()


async def test_repeated_finals_are_harmless(lonely_client: Client, reply: Reply) -> None:
    handle = lonely_client.send_task("nothing")
    await handle.sent()
    for value in ("first", "second", "third"):
        await asyncio.to_thread(reply, lonely_client, success(handle.id, value), handle.id)
    last = lonely_client.send_task("nothing")
    await last.sent()
    await asyncio.to_thread(reply, lonely_client, success(last.id), last.id)
    await last.get(timeout=10)
    assert await handle == "first"


async def test_a_class_that_is_no_exception_is_refused(
    lonely_client: Client, reply: Reply, tmp_path: Any
) -> None:
    handle = lonely_client.send_task("nothing")
    await handle.sent()
    harm = {
        "exc_module": "os",
        "exc_type": "system",
        "exc_message": f"touch {tmp_path}/harm",
    }
    body = {"task_id": handle.id, "status": "FAILURE", "result": harm, "children": []}
    await asyncio.to_thread(reply, lonely_client, body, handle.id)
    with pytest.raises(ResultUndecodable, match="Expected an exception class"):
        await handle.get(timeout=10)
    assert not list(tmp_path.iterdir())


async def test_results_survive_closed_connections(app: Celery, rabbitmq: RabbitMQ) -> None:
    async with Client(app) as client:
        handles = [client.apply_async(tasks.sleep, (0.005, n)) for n in range(300)]
        await asyncio.gather(*(handle.sent() for handle in handles))
        await asyncio.to_thread(close_mine, rabbitmq)
        assert await asyncio.gather(*handles) == list(range(300))
        assert await client.delay(tasks.add, 1, 1) == 2


def close_mine(rabbitmq: RabbitMQ) -> None:
    for pid, properties in rabbitmq.names("connections", "pid", "client_properties"):
        if "bridgetask" in properties:
            rabbitmq.ctl("close_connection", pid, "test")


async def test_results_that_come_while_the_connection_is_down_arrive_after_it(
    app: Celery, rabbitmq: RabbitMQ
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app("outage", f"amqp://127.0.0.1:{between.port}//")
        async with Client(celery) as client:
            handles = [client.send_task("tests.tasks.sleep", (0.1, n)) for n in range(10)]
            await asyncio.gather(*(handle.sent() for handle in handles))
            between.refuse = True
            between.cut()
            await asyncio.sleep(1.5)  # by now the worker has answered them all
            between.refuse = False
            results = await asyncio.wait_for(asyncio.gather(*handles), PATIENCE)
            assert results == list(range(10))


async def test_a_deleted_reply_queue_is_declared_and_consumed_again(
    app: Celery, rabbitmq: RabbitMQ
) -> None:
    async with Client(app) as client:
        handle = client.delay(tasks.sleep, 2, "x")
        await handle.sent()
        await asyncio.to_thread(rabbitmq.delete_queue, client._sessions.codec.recorder.reply_to)
        assert not handle.ready()
        assert await handle.get(timeout=20) == "x"
        await asyncio.to_thread(rabbitmq.delete_queue, client._sessions.codec.recorder.reply_to)
        session: Any = client._sessions.current
        async with asyncio.timeout(10):  # else the result may come before that is noticed
            while session._results.ready:
                await asyncio.sleep(0.01)
        assert await client.delay(tasks.add, 1, 1).get(timeout=10) == 2


async def test_a_linked_task_reports_though_the_connection_was_lost_before_anybody_asked(
    app: Celery, rabbitmq: RabbitMQ
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app("linked", f"amqp://127.0.0.1:{between.port}//")
        async with Client(celery) as client:
            linked = celery.signature("tests.tasks.sleep", (1, "x"), immutable=True)
            call = client.send_task("tests.tasks.add", (1, 1), link=linked)
            assert await call == 2
            between.cut()
            session: Any = client._sessions.current
            async with asyncio.timeout(10):
                while session._results._consumer._channel is not None:
                    await asyncio.sleep(0.01)
            [child] = call.children
            assert await child.get(timeout=10) == "x"


@asynccontextmanager
async def awaiting_a_result(
    rabbitmq: RabbitMQ, **settings: Any
) -> AsyncIterator[tuple[Client, AsyncResult[Any], Proxy]]:
    """Yield a client, the handle of a task that a worker has begun, and the proxy between."""
    async with proxy(rabbitmq.port) as between:
        celery = make_app("between", f"amqp://127.0.0.1:{between.port}//", **settings)
        async with Client(celery) as client:
            handle = client.send_task("tests.tasks.sleep", (1, "x"))
            await handle.sent()
            yield client, handle, between


async def test_a_consumer_that_is_lost_again_as_it_begins_again_is_made_again(
    app: Celery, rabbitmq: RabbitMQ
) -> None:
    async with awaiting_a_result(rabbitmq) as (client, handle, between):
        session: Any = client._sessions.current
        consumer = session._results._consumer
        start = consumer.start
        starts = 0

        async def start_and_lose() -> None:
            nonlocal starts
            starts += 1
            await start()
            if starts == 1:
                between.cut()
                while consumer._channel is not None:
                    await asyncio.sleep(0.01)

        consumer.start = start_and_lose
        between.cut()
        assert await handle.get(timeout=10) == "x"
        assert starts == 2


async def test_a_consumer_whose_close_was_cancelled_does_not_stay(rabbitmq: RabbitMQ) -> None:
    async with proxy(rabbitmq.port) as between:
        between.delay = 0.1
        async with Client(make_app("stays", f"amqp://127.0.0.1:{between.port}//")) as client:
            session: Any = client._sessions.current
            consumer = session._control._consumer
            starting = asyncio.create_task(consumer.start())
            await asyncio.sleep(0.05)
            closing = asyncio.create_task(consumer.close())
            await asyncio.sleep(0)
            closing.cancel()
            await starting
            assert not consumer.consuming
            assert not await asyncio.to_thread(rabbitmq.has_queue, consumer._queue)


async def test_a_password_that_cannot_be_had_for_a_while_is_asked_for_again(
    app: Celery, rabbitmq: RabbitMQ, collected_logs: Callable[[], list[str]]
) -> None:
    missing = 0

    def password() -> str:
        nonlocal missing
        if missing:
            missing -= 1
            raise ValueError("no token for s3cr3t p@ss/word")
        return "guest"

    async with awaiting_a_result(rabbitmq, broker_password=password) as (client, handle, between):
        missing = 1
        between.cut()
        assert await handle.get(timeout=10) == "x"
        assert missing == 0
        (line,) = [line for line in collected_logs() if "Trying again" in line]
        assert "ValueError while asking for the password. Trying again" in line
        missing = 1
        between.cut()
        await client.send_task("nothing", queue="token", ignore_result=True).sent()
        assert missing == 0
    await asyncio.to_thread(take, rabbitmq.url(), "token")


async def test_a_consumer_begins_again_whatever_keeps_it_from_that(
    app: Celery, rabbitmq: RabbitMQ, collected_logs: Callable[[], list[str]]
) -> None:
    async with awaiting_a_result(rabbitmq) as (client, handle, between):
        session: Any = client._sessions.current
        consumer = session._results._consumer
        start = consumer.start

        async def fail() -> None:
            consumer.start = start
            raise LookupError("odd")

        consumer.start = fail
        between.cut()
        assert await handle.get(timeout=10) == "x"
        assert any("Trying again" in line for line in collected_logs())


async def test_a_connection_that_is_held_is_not_given_up_for_giving_no_answer(
    app: Celery, rabbitmq: RabbitMQ
) -> None:
    celery = make_app("held", rabbitmq.url(), broker_connection_timeout=1)
    async with Client(celery) as client:
        session: Any = client._sessions.current
        connection = session._results._consumer._connection
        session._results._decoding.on_full()
        with pytest.raises(BrokerUnreachable, match="no answer in time"):
            await connection.channel(confirms=False)
        assert connection.is_open
        session._results._decoding.on_room()
        assert session._results.ready
        assert await client.send_task("tests.tasks.add", (1, 1)) == 2
        await (await connection.channel(confirms=False)).close()
