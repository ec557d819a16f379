"""Messages of anybody who may write into the reply queue: each fails its own result at most."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from bridgetask import Client, ResultUndecodable
from bridgetask.wire.message import Properties

from ..fix_rabbitmq import make_app
from ..servers import RabbitMQ
from .raw import long, publish, short

executed: list[str] = []


class Payload:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return executed.append, ("pickle",)


def success(task_id: str, result: Any = "fine") -> bytes:
    return json.dumps({"task_id": task_id, "status": "SUCCESS", "result": result}).encode()


def nested_headers(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + long(table)
    return b"\x20\x00" + long(table)


#: Flags and properties that RabbitMQ passes on, and that no AMQP library is happy with.
BROKEN_PROPERTIES = {
    "a correlation id that is no UTF-8": b"\x04\x00" + short(b"\xff" * 36),
    "the same with the properties of a result": (
        b"\x84\x00" + short(b"application/json") + short(b"\xff" * 36)
    ),
    "a content type that is no UTF-8": b"\x80\x00" + short(b"\xff\xfe"),
    "a time beyond the calendar": b"\x00\x40" + b"\xff" * 8,
    "such a time in a header": b"\x20\x00" + long(b"\x01tT" + b"\xff" * 8),
    "the name of a header that is no UTF-8": b"\x20\x00" + long(b"\x02\xff\xfft\x01"),
    "deeply nested headers": nested_headers(3000),
    "no properties": b"\x00\x00",
}


@pytest.mark.parametrize("encoded", BROKEN_PROPERTIES.values(), ids=BROKEN_PROPERTIES)
async def test_properties_that_cannot_be_read_keep_no_result_out(
    lonely_client: Client, rabbitmq: RabbitMQ, encoded: bytes
) -> None:
    handle = lonely_client.send_task("nothing")
    await handle.sent()
    for _ in range(3):
        await asyncio.to_thread(publish, rabbitmq, lonely_client, b"{}", encoded_properties=encoded)
    await asyncio.to_thread(
        publish,
        rabbitmq,
        lonely_client,
        success(handle.id),
        content_type="application/json",
        correlation_id=handle.id,
    )
    assert await handle.get(timeout=10) == "fine"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-python-serialize", pickle.dumps(Payload())),
        ("application/x-yaml", b"!!python/object/apply:os.system ['false']"),
        ("application/x-msgpack", b"\x80"),
        ("application/nobody-knows", b"x"),
    ],
)
async def test_content_that_is_not_accepted_reaches_no_decoder(
    lonely_client: Client, rabbitmq: RabbitMQ, content_type: str, body: bytes
) -> None:
    handle = lonely_client.send_task("nothing")
    await handle.sent()
    await asyncio.to_thread(
        publish,
        rabbitmq,
        lonely_client,
        body,
        content_type=content_type,
        correlation_id=handle.id,
    )
    with pytest.raises(ResultUndecodable, match="ContentDisallowed"):
        await handle.get(timeout=10)
    assert executed == []


async def test_pickle_is_decoded_where_the_app_turned_it_on(rabbitmq: RabbitMQ) -> None:
    celery: Celery = make_app(
        "pickles", rabbitmq.url(), task_default_queue="lonely", result_accept_content=["pickle"]
    )
    async with Client(celery) as client:
        handle = client.send_task("nothing")
        await handle.sent()
        meta = {"task_id": handle.id, "status": "SUCCESS", "result": {1, 2}}
        await asyncio.to_thread(
            publish,
            rabbitmq,
            client,
            pickle.dumps(meta),
            content_type="application/x-python-serialize",
            content_encoding="binary",
            correlation_id=handle.id,
        )
        assert await handle.get(timeout=10) == {1, 2}


async def test_a_result_above_the_limit_fails_alone(lonely_app: Celery, rabbitmq: RabbitMQ) -> None:
    async with Client(lonely_app, max_result_size=10_000) as client:
        large, fine = (client.send_task("nothing") for _ in range(2))
        await fine.sent()
        for task_id, result in ((large.id, "x" * 10_000), (fine.id, "x" * 9_000)):
            await asyncio.to_thread(
                publish,
                rabbitmq,
                client,
                success(task_id, result),
                content_type="application/json",
                correlation_id=task_id,
            )
        assert len(await fine.get(timeout=10)) == 9_000
        with pytest.raises(ResultUndecodable, match="more than 10000 bytes"):
            await large.get(timeout=10)


def deep_chain(depth: int) -> list[Any]:
    tree: list[Any] = [["first", None], None]
    for number in range(depth):
        tree = [[str(number), tree], None]
    return tree


CHILDREN: dict[str, Any] = {
    "of a wrong shape": [[1, 2, 3]],
    "of wrong types": [[[5, None], None]],
    "with members of a wrong shape": [[["g", None], [5]]],
    "nested too deeply": [deep_chain(400)],
    "with a parent of a wrong shape": [[["g", {"x": 1}], None]],
}


@pytest.mark.parametrize("children", CHILDREN.values(), ids=CHILDREN)
async def test_children_that_cannot_be_read_are_an_error_of_their_own(
    lonely_client: Client, rabbitmq: RabbitMQ, children: Any
) -> None:
    handle = lonely_client.send_task("nothing")
    await handle.sent()
    body = {"task_id": handle.id, "status": "SUCCESS", "result": 1, "children": children}
    await asyncio.to_thread(
        publish,
        rabbitmq,
        lonely_client,
        json.dumps(body),
        content_type="application/json",
        correlation_id=handle.id,
    )
    assert await handle.get(timeout=10) == 1
    if children == CHILDREN["nested too deeply"]:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(300)
        try:
            with pytest.raises(ResultUndecodable, match="too deeply"):
                _ = handle.children
        finally:
            sys.setrecursionlimit(limit)
        return
    with pytest.raises(ResultUndecodable):
        _ = handle.children


def replies(client: Client) -> Callable[..., Any]:
    def read(body: bytes = b"{}", **headers: Any) -> Any:
        return client._sessions.codec.mailbox.reply(
            body, Properties("application/json", "utf-8", headers)
        )

    return read


def test_a_reply_cannot_set_the_clock_beyond_what_can_be_sent(lonely_app: Celery) -> None:
    client = Client(lonely_app)
    read = replies(client)
    ours = client._sessions.codec.mailbox._mailbox.clock
    before = ours.value
    for clock in (2**63 - 1, -(2**63), 10**30, 1e308, "1", [1], float("inf")):
        with pytest.raises((TypeError, ValueError)):
            read(ticket="t", clock=clock)
    assert ours.value == before
    assert read(ticket="t", clock=before + 5) == ("t", {})
    assert ours.value > before


def test_a_reply_with_odd_headers_is_refused(lonely_app: Celery) -> None:
    read = replies(Client(lonely_app))
    odd: list[dict[str, Any]] = [
        {},
        {"ticket": None},
        {"ticket": ["t"]},
        {"ticket": {"a": 1}},
        {"ticket": "t", "expires": "soon"},
        {"ticket": "t", "compression": "unknown"},
    ]
    for headers in odd:
        with pytest.raises((KeyError, TypeError, ValueError)):
            read(**headers)


async def test_a_flood_of_replies_that_cannot_be_read_harms_no_command(
    app: Celery, rabbitmq: RabbitMQ, collected_logs: Callable[[], list[str]]
) -> None:
    async with Client(app) as client:
        assert await client.control.ping(timeout=5, limit=1)
        queue = client._sessions.codec.mailbox.reply_queue

        def flood() -> None:
            from kombu import Connection

            with Connection(rabbitmq.url()) as connection:
                producer = connection.Producer()
                for number in range(200):
                    producer.publish(
                        b"\xff",
                        exchange="",
                        routing_key=queue,
                        headers={"ticket": ["t"], "clock": 2**62 + number},
                        content_type="application/json",
                        content_encoding="utf-8",
                    )

        await asyncio.to_thread(flood)
        assert await client.control.ping(timeout=5, limit=1)
    assert len([line for line in collected_logs() if "can't be read" in line]) == 10
