"""Publishing to RabbitMQ: declarations, confirms, returns, refusals, and lost connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from celery import Celery, signals
from kombu import Connection, Exchange, Queue

from bridgetask import (
    BrokerUnreachable,
    Client,
    ClientClosed,
    InvalidOption,
    NotRoutable,
    Refused,
    SendTimeout,
    Unconfirmed,
)
from bridgetask.core.completion import Completion
from bridgetask.core.publishing import Sending
from bridgetask.transports.amqp.connection import AmqpConnection
from bridgetask.transports.amqp.publisher import AmqpPublisher
from bridgetask.transports.amqp.settings import AmqpSettings
from bridgetask.wire.message import OutgoingMessage

from ...fakes import proxy
from ...fix_rabbitmq import MESSAGE_LIMIT, make_app, take
from ...servers import RabbitMQ, free_ports

#: What needs no declarations.
MESSAGE = OutgoingMessage("", "nowhere", b"", {}, mandatory=False)


async def arrived(url: str, queue: str, count: int) -> None:
    """Return once so many messages are in a queue."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        with Connection(url) as connection:
            channel = connection.default_channel
            while channel.queue_declare(queue, passive=True).message_count < count:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    await asyncio.to_thread(wait)


async def test_messages_arrive_in_the_order_of_the_calls(
    lonely_client: Client, broker_url: str
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    handles = [lonely_client.send_task("nothing", (number,), queue="s") for number in range(2000)]
    await asyncio.gather(*(handle.sent() for handle in handles))
    bodies = [json.loads(each.body) for each in await asyncio.to_thread(take, broker_url, "s")]
    assert [body[0][0] for body in bodies] == list(range(2000))


async def test_a_queue_and_its_exchange_are_declared_as_celery_would(
    lonely_client: Client, rabbitmq: RabbitMQ
) -> None:
    topic = Exchange("declared.topic", "topic", durable=False, arguments={"x-odd": "1"})
    queue = Queue(
        "declared",
        topic,
        routing_key="a.#",
        expires=60,
        max_priority=5,
        max_length=10,
        queue_arguments={"x-queue-mode": "lazy"},
    )
    await lonely_client.send_task("nothing", queue=queue, routing_key="a.b").sent()
    await lonely_client.send_task("nothing", queue="quorum").sent()
    queues = await asyncio.to_thread(rabbitmq.names, "queues", "name", "durable", "arguments")
    (declared,) = (row for row in queues if row[0] == "declared")
    assert declared[1] == "true"
    for argument in ('"x-expires",60000', '"x-max-priority",5', '"x-max-length",10', "lazy"):
        assert argument in declared[2]
    exchanges = await asyncio.to_thread(rabbitmq.names, "exchanges", "name", "type", "durable")
    assert ["declared.topic", "topic", "false"] in exchanges
    bindings = await asyncio.to_thread(
        rabbitmq.names, "bindings", "source_name", "destination_name", "routing_key"
    )
    assert ["declared.topic", "declared", "a.#"] in bindings
    await asyncio.to_thread(take, rabbitmq.url(), "declared")
    await asyncio.to_thread(take, rabbitmq.url(), "quorum")


async def test_a_quorum_queue_is_declared_as_configured(rabbitmq: RabbitMQ) -> None:
    celery = make_app(
        "quorum",
        rabbitmq.url(),
        task_default_queue="is-quorum",
        task_default_queue_type="quorum",
        task_default_exchange_type="topic",
    )
    async with Client(celery) as client:
        await client.send_task("nothing").sent()
    queues = await asyncio.to_thread(rabbitmq.names, "queues", "name", "type")
    assert ["is-quorum", "quorum"] in queues
    await asyncio.to_thread(take, rabbitmq.url(), "is-quorum")


async def test_declarations_are_made_once_a_connection_and_again_after_a_loss(
    rabbitmq: RabbitMQ,
) -> None:
    async with proxy(rabbitmq.port) as between:
        url = f"amqp://127.0.0.1:{between.port}//"
        async with Client(make_app("once", url, task_default_queue="declared-once")) as client:
            await client.send_task("nothing").sent()
            await asyncio.to_thread(rabbitmq.delete_queue, "declared-once")
            with pytest.raises(NotRoutable):  # known to be declared on this connection
                await client.send_task("nothing").sent()
            between.cut()
            await client.send_task("nothing").sent()
    assert len(await asyncio.to_thread(take, rabbitmq.url(), "declared-once")) == 1


async def test_a_message_that_no_queue_takes_is_not_routable(lonely_client: Client) -> None:
    handle = lonely_client.send_task("nothing", exchange="amq.topic", routing_key="no.body")
    with pytest.raises(NotRoutable, match=r"NO_ROUTE: no queue is bound for .*'no.body'") as caught:
        await handle
    assert caught.value.task_id == handle.id
    with pytest.raises(NotRoutable):
        await handle.sent()


async def test_a_missing_exchange_is_refused_and_harms_nobody_else(
    lonely_client: Client, broker_url: str
) -> None:
    around = [lonely_client.send_task("nothing", queue="fine") for _ in range(50)]
    missing = [
        lonely_client.send_task("nothing", exchange="missing", routing_key="x") for _ in range(3)
    ]
    around += [lonely_client.send_task("nothing", queue="fine") for _ in range(50)]
    for handle in missing:
        with pytest.raises(Refused, match="no exchange 'missing'") as caught:
            await handle.sent()
        assert caught.value.code == 404
    await asyncio.gather(*(handle.sent() for handle in around))
    assert len(await asyncio.to_thread(take, broker_url, "fine")) == 100


async def test_a_queue_declared_before_with_other_arguments_is_refused_and_harms_nobody_else(
    lonely_client: Client, broker_url: str
) -> None:
    await lonely_client.send_task("nothing", queue=Queue("other", max_length=5)).sent()
    around = [lonely_client.send_task("nothing", queue="fine") for _ in range(50)]
    handle = lonely_client.send_task("nothing", queue=Queue("other", max_length=6))
    around += [lonely_client.send_task("nothing", queue="fine") for _ in range(50)]
    with pytest.raises(Refused, match="inequivalent arg 'x-max-length'") as caught:
        await handle
    assert caught.value.code == 406
    await asyncio.gather(*(each.sent() for each in around))
    await lonely_client.send_task("nothing", queue=Queue("other", max_length=5)).sent()
    assert len(await asyncio.to_thread(take, broker_url, "fine")) == 100
    assert len(await asyncio.to_thread(take, broker_url, "other")) == 2


async def test_a_message_above_the_brokers_limit_is_refused_and_harms_nobody_else(
    rabbitmq: RabbitMQ, lonely_client: Client
) -> None:
    around = [lonely_client.send_task("nothing", (n,), queue="size") for n in range(50)]
    large = lonely_client.send_task("nothing", ("x" * (MESSAGE_LIMIT + 1),), queue="size")
    around += [lonely_client.send_task("nothing", (n,), queue="size") for n in range(50)]
    with pytest.raises(Refused, match="larger than configured max size") as caught:
        await large
    assert caught.value.code == 406
    await asyncio.gather(*(each.sent() for each in around))
    taken = await asyncio.to_thread(take, rabbitmq.url(), "size")
    assert len({each.properties["correlation_id"] for each in taken}) == 100


async def test_a_large_message_gets_through(lonely_client: Client, broker_url: str) -> None:
    await lonely_client.send_task("nothing", ("x" * (MESSAGE_LIMIT - 1000),), queue="large").sent()
    (message,) = await asyncio.to_thread(take, broker_url, "large")
    assert len(message.body) > MESSAGE_LIMIT - 1000


async def test_a_full_queue_refuses_by_nack(lonely_client: Client, broker_url: str) -> None:
    full = Queue("full", max_length=1, queue_arguments={"x-overflow": "reject-publish"})
    await lonely_client.send_task("nothing", queue=full).sent()
    with pytest.raises(Refused, match="did not accept"):
        await lonely_client.send_task("nothing", queue=full).sent()
    await asyncio.to_thread(take, broker_url, "full")


async def test_missing_permission_is_refused_and_harms_nobody_else(rabbitmq: RabbitMQ) -> None:
    await asyncio.to_thread(
        rabbitmq.ctl,
        "set_permissions",
        "nobody",
        "^(may|bridgetask.*)$",
        "^(may|amq.default)?$",
        ".*",
    )
    url = rabbitmq.url(user="nobody", password="n0bodys-p4ssword")
    celery = make_app("limited", url)
    try:
        async with Client(celery) as client:
            may = Queue("may", Exchange(""), routing_key="may")
            await client.send_task("nothing", queue=may).sent()
            with pytest.raises(Refused, match="refused for user 'nobody'") as caught:
                await client.send_task("nothing", queue="may-not").sent()
            assert caught.value.code == 403
            around = [client.send_task("nothing", queue=may) for _ in range(20)]
            denied = client.send_task("nothing", queue=may, exchange="amq.direct", routing_key="x")
            around += [client.send_task("nothing", queue=may) for _ in range(20)]
            with pytest.raises(Refused, match=r"amq\.direct"):
                await denied.sent()
            await asyncio.gather(*(each.sent() for each in around))
    finally:
        await asyncio.to_thread(rabbitmq.ctl, "clear_permissions", "nobody")
    taken = await asyncio.to_thread(take, rabbitmq.url(), "may")
    assert len({each.properties["correlation_id"] for each in taken}) == 41


async def test_with_the_broker_down_a_send_fails_by_its_retry_policy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (dead,) = free_ports(1)
    policy = {"max_retries": 2, "interval_start": 0.01, "interval_step": 0.01}
    client = Client(make_app("down", f"amqp://127.0.0.1:{dead}//"))
    with pytest.raises(BrokerUnreachable, match=f"was not sent: can't connect to .*:{dead}"):
        await client.send_task("nothing", retry_policy=policy).sent()
    assert caplog.text.count("Trying again") == 2
    await client.close()


async def test_the_timeouts_of_a_call_count_too(rabbitmq: RabbitMQ) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app("timeouts", f"amqp://127.0.0.1:{between.port}//")
        client = Client(celery)
        await client.send_task("nothing", queue="timeouts").sent()
        between.mute = True
        handle = client.send_task("nothing", queue="timeouts", confirm_timeout=0.2)
        with pytest.raises(Unconfirmed, match="may or may not") as caught:
            await handle
        assert caught.value.task_id == handle.id
        between.cut()
        await client.close()
    assert len(await asyncio.to_thread(take, rabbitmq.url(), "timeouts")) == 2


async def test_what_cannot_be_encoded_fails_alone(lonely_client: Client, broker_url: str) -> None:
    good = [lonely_client.send_task("nothing", queue="encodes") for _ in range(5)]
    bad = lonely_client.send_task("nothing", queue="encodes", headers={"x": object()})
    undeclarable = lonely_client.send_task(
        "nothing", queue=Queue("undeclarable", queue_arguments={"x-odd": object()})
    )
    good += [lonely_client.send_task("nothing", queue="encodes") for _ in range(5)]
    with pytest.raises(InvalidOption, match="headers: can't be encoded"):
        await bad
    with pytest.raises(InvalidOption, match="queue: can't be declared"):
        await undeclarable
    await asyncio.gather(*(handle.sent() for handle in good))
    assert len(await asyncio.to_thread(take, broker_url, "encodes")) == 10


async def test_the_deadline_of_a_message_that_never_left_is_a_send_timeout(
    lonely_app: Celery, rabbitmq: RabbitMQ
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app(
            "held", f"amqp://127.0.0.1:{between.port}//", broker_connection_timeout=30
        )
        between.mute = True  # connecting hangs
        client = Client(celery, send_timeout=0.3, close_timeout=0.5)
        with pytest.raises(SendTimeout, match="the deadline passed"):
            await client.send_task("nothing").sent()
        await client.close()


async def test_what_was_on_its_way_goes_again_under_its_id_or_is_unconfirmed(
    rabbitmq: RabbitMQ,
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app("again", f"amqp://127.0.0.1:{between.port}//")
        async with Client(celery) as client:
            await client.send_task("nothing", queue="again").sent()
            between.mute = True
            again = [client.send_task("nothing", queue="again") for _ in range(20)]
            once = client.send_task("nothing", queue="again", retry=False)
            await arrived(rabbitmq.url(), "again", 22)  # and no confirm comes
            between.mute = False
            between.cut()
            await asyncio.gather(*(handle.sent() for handle in again))
            with pytest.raises(Unconfirmed) as caught:
                await once.sent()
            assert caught.value.task_id == once.id
    taken = await asyncio.to_thread(take, rabbitmq.url(), "again")
    counts = Counter(each.properties["correlation_id"] for each in taken)
    assert {counts[handle.id] for handle in again} == {2}
    assert counts[once.id] == 1
    assert len(counts) == 22


async def test_a_result_settles_a_send_that_was_never_confirmed(
    app: Celery, rabbitmq: RabbitMQ
) -> None:
    published: list[str] = []

    def after(headers: dict[str, Any], **_: Any) -> None:
        published.append(headers["id"])

    async with proxy(rabbitmq.port) as between:
        celery = make_app(
            "settles",
            None,
            broker_read_url=rabbitmq.url(),
            broker_write_url=f"amqp://127.0.0.1:{between.port}//",
        )
        signals.after_task_publish.connect(after)
        try:
            async with Client(celery) as client:
                assert await client.send_task("tests.tasks.add", (1, 1)) == 2
                between.mute = True
                handle = client.send_task("tests.tasks.add", (2, 2))
                assert await handle == 4
                await handle.sent()
                between.mute = False
                between.cut()
                assert await client.send_task("tests.tasks.add", (3, 3)) == 6
        finally:
            signals.after_task_publish.disconnect(after)
    assert published.count(handle.id) == 1


async def test_a_broker_that_stops_answering_is_given_up_and_connected_to_again(
    rabbitmq: RabbitMQ,
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app(
            "stops", f"amqp://127.0.0.1:{between.port}//", broker_connection_timeout=0.3
        )
        async with Client(celery) as client:
            await client.send_task("nothing", queue="stops").sent()
            accepted = between.accepted
            between.mute = True
            handle = client.send_task("nothing", queue="stops-too")  # declaring gets no answer
            async with asyncio.timeout(30):
                while between.accepted == accepted:
                    await asyncio.sleep(0.01)
            between.mute = False
            await handle.sent()
    for queue in ("stops", "stops-too"):
        assert len(await asyncio.to_thread(take, rabbitmq.url(), queue)) == 1


# The publisher by itself.


@pytest.fixture
async def publisher(broker_url: str, amqp_path: str) -> AsyncIterator[AmqpPublisher]:
    """A publisher on a connection that its name tells from all others."""
    settings = AmqpSettings.from_app(make_app("publisher", broker_url)).write
    connection = AmqpConnection(settings, "by itself", plain=amqp_path == "plain")
    made = AmqpPublisher(connection)
    made.start(lambda sending, error: None)
    yield made
    await made.close()


async def test_connecting_and_preparing_at_once_open_one_channel(
    publisher: AmqpPublisher, rabbitmq: RabbitMQ
) -> None:
    await asyncio.gather(publisher.connect(), publisher.prepare(MESSAGE), publisher.connect())
    assert publisher.ready(MESSAGE)
    rows = await asyncio.to_thread(rabbitmq.names, "connections", "client_properties", "channels")
    assert [channels for properties, channels in rows if "by itself" in properties] == ["1"]


async def test_a_publisher_that_is_retired_does_not_connect(publisher: AmqpPublisher) -> None:
    publisher.retire()
    with pytest.raises(ClientClosed):
        await publisher.prepare(MESSAGE)
    assert not publisher.is_open


async def test_forgetting_a_message_that_is_not_on_its_way_does_nothing(
    publisher: AmqpPublisher,
) -> None:
    await publisher.connect()
    publisher.forget(Sending(0, MESSAGE, Completion(), 0, None))
    assert publisher.is_open
