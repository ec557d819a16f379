"""Publishing: order, confirms, returns, refusals, retries, deadlines."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any
from unittest.mock import MagicMock

import pytest
from celery import Celery, signals
from kombu import Exchange, Queue

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

from ...fakes import proxy
from ...fix_rabbitmq import MESSAGE_LIMIT, make_app, take
from ...servers import RabbitMQ, free_ports


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
    celery = make_app("once", rabbitmq.url(), task_default_queue="declared-once")
    async with Client(celery) as client:
        await client.send_task("nothing").sent()
        await asyncio.to_thread(rabbitmq.delete_queue, "declared-once")
        with pytest.raises(NotRoutable):  # known to be declared on this connection
            await client.send_task("nothing").sent()
        sender = client._sessions.current._outbox  # type: ignore[union-attr]
        sender._connection.abort()  # type: ignore[attr-defined]
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
    celery = make_app("down", f"amqp://127.0.0.1:{dead}//")
    client = Client(celery)
    policy = {"max_retries": 2, "interval_start": 0.01, "interval_step": 0.01}
    with pytest.raises(BrokerUnreachable, match=f"was not sent: can't connect to .*:{dead}"):
        await client.send_task("nothing", retry_policy=policy).sent()
    assert caplog.text.count("Trying again") == 2
    caplog.clear()
    with pytest.raises(BrokerUnreachable):
        await client.send_task("nothing", retry=False).sent()
    assert "Trying again" not in caplog.text
    # Each message keeps to its own policy.
    patient = client.send_task("nothing", retry_policy={"max_retries": 5, "interval_step": 0.01})
    hasty = client.send_task("nothing", retry=False)
    with pytest.raises(BrokerUnreachable):
        await hasty.sent()
    assert not patient._delivery.done  # type: ignore[union-attr]
    with pytest.raises(BrokerUnreachable):
        await patient
    await client.close()


async def test_send_timeout_covers_all_that_sending_takes() -> None:
    (dead,) = free_ports(1)
    celery = make_app(
        "slow",
        f"amqp://127.0.0.1:{dead}//",
        task_publish_retry_policy={"max_retries": None, "interval_start": 0.05},
    )
    client = Client(celery, send_timeout=0.3)
    with pytest.raises(BrokerUnreachable, match="can't connect"):
        await client.send_task("nothing")
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


async def test_what_was_lost_unconfirmed_is_sent_again_under_its_id(rabbitmq: RabbitMQ) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app("again", f"amqp://127.0.0.1:{between.port}//")
        async with Client(celery) as client:
            await client.send_task("nothing", queue="again").sent()
            between.mute = True
            handles = [client.send_task("nothing", queue="again") for _ in range(20)]
            await asyncio.sleep(0.2)  # they are out; no confirm comes
            between.mute = False
            between.cut()
            await asyncio.gather(*(handle.sent() for handle in handles))
    taken = await asyncio.to_thread(take, rabbitmq.url(), "again")
    ids = [each.properties["correlation_id"] for each in taken]
    assert {handle.id for handle in handles} <= set(ids)
    assert len(set(ids)) == 21


async def test_without_retry_what_was_lost_unconfirmed_is_reported_unknown(
    rabbitmq: RabbitMQ,
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app("unknown", f"amqp://127.0.0.1:{between.port}//")
        async with Client(celery) as client:
            await client.send_task("nothing", queue="unknown").sent()
            between.mute = True
            handle = client.send_task("nothing", queue="unknown", retry=False)
            await asyncio.sleep(0.2)
            between.mute = False
            between.cut()
            with pytest.raises(Unconfirmed) as caught:
                await handle.sent()
            assert caught.value.task_id == handle.id
    assert len(await asyncio.to_thread(take, rabbitmq.url(), "unknown")) == 2


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
        async with Client(celery) as client:
            assert await client.send_task("tests.tasks.add", (1, 1)) == 2
            signals.after_task_publish.connect(after)
            try:
                between.mute = True
                handle = client.send_task("tests.tasks.add", (2, 2))
                assert await handle == 4
                await handle.sent()
                between.mute = False
                between.cut()
                await client.send_task("tests.tasks.add", (3, 3))
                await client._sessions.current._outbox.drain()  # type: ignore[union-attr]
            finally:
                signals.after_task_publish.disconnect(after)
            assert published.count(handle.id) == 1


async def test_a_message_that_was_answered_and_never_confirmed_makes_room_at_its_deadline(
    app: Celery, rabbitmq: RabbitMQ
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app(
            "room",
            None,
            broker_read_url=rabbitmq.url(),
            broker_write_url=f"amqp://127.0.0.1:{between.port}//",
        )
        async with Client(celery, max_in_flight=1, send_timeout=2) as client:
            sender: Any = client._sessions.current._outbox  # type: ignore[union-attr]
            assert await client.send_task("tests.tasks.add", (1, 1)) == 2
            while sender._in_flight:
                await asyncio.sleep(0.01)
            between.mute = True
            assert await client.send_task("tests.tasks.add", (2, 2)) == 4
            await asyncio.sleep(1)  # its confirm is lost
            between.mute = False
            handle = client.send_task("tests.tasks.add", (3, 3))
            await handle.sent()
            assert await handle == 6


async def test_an_earlier_attempt_that_got_no_answer_makes_a_refusal_unknown(
    rabbitmq: RabbitMQ,
) -> None:
    queue = Queue("twice", Exchange("amq.direct"), routing_key="twice-key")
    async with proxy(rabbitmq.port) as between:
        celery = make_app("twice", f"amqp://127.0.0.1:{between.port}//")
        async with Client(celery) as client:
            where = {"exchange": "amq.direct", "routing_key": "twice-key"}
            await client.send_task("nothing", queue=queue, **where).sent()
            between.mute = True
            handle = client.send_task("nothing", declare=[], **where)
            await asyncio.sleep(0.2)  # it is out, and in the queue; no confirm comes
            assert len(await asyncio.to_thread(take, rabbitmq.url(), "twice")) == 2
            between.mute = False
            between.cut()  # it goes out again, and now no queue takes it
            with pytest.raises(Unconfirmed, match="no queue is bound"):
                await handle.sent()


async def test_a_broker_that_stops_answering_is_given_up_and_connected_to_again(
    rabbitmq: RabbitMQ,
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app(
            "stops", f"amqp://127.0.0.1:{between.port}//", broker_connection_timeout=0.3
        )
        async with Client(celery) as client:
            await client.send_task("nothing", queue="stops").sent()
            between.mute = True
            handle = client.send_task("nothing", queue="stops-too")  # declaring gets no answer
            await asyncio.sleep(0.4)
            between.mute = False
            await handle.sent()
            assert between.accepted > 2
    for queue in ("stops", "stops-too"):
        assert len(await asyncio.to_thread(take, rabbitmq.url(), queue)) == 1


async def test_closing_under_unsent_and_unconfirmed_messages_says_which_is_which(
    rabbitmq: RabbitMQ,
) -> None:
    (dead,) = free_ports(1)
    celery = make_app("closing", f"amqp://127.0.0.1:{dead}//")
    celery.conf.task_publish_retry_policy = {"max_retries": None, "interval_start": 0.1}
    client = Client(celery, close_timeout=0.5)
    unsent = client.send_task("nothing")
    await client.close()
    with pytest.raises(ClientClosed, match="before the message was sent"):
        await unsent.sent()
    async with proxy(rabbitmq.port) as between:
        celery = make_app("closing", f"amqp://127.0.0.1:{between.port}//")
        client = Client(celery, close_timeout=0.5)
        await client.send_task("nothing", queue="closing").sent()
        between.mute = True
        unconfirmed = client.send_task("nothing", queue="closing")
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(Unconfirmed):
            await unconfirmed
    await asyncio.to_thread(take, rabbitmq.url(), "closing")


async def test_cancelling_who_waits_for_a_send_does_not_cancel_it(
    lonely_client: Client, broker_url: str
) -> None:
    handles = [lonely_client.send_task("nothing", queue="waits") for _ in range(200)]
    waiting = [asyncio.create_task(handle.sent()) for handle in handles]
    for number, task in enumerate(waiting):
        if number % 3 == 0:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.gather(*(handle.sent() for handle in handles))
    assert len(await asyncio.to_thread(take, broker_url, "waits")) == 200


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


async def test_a_task_that_was_lost_and_that_nobody_asked_for_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (dead,) = free_ports(1)
    celery = make_app("silent", f"amqp://127.0.0.1:{dead}//")
    client = Client(celery)
    client.send_task("nothing", retry=False)
    held = client.send_task("nothing", retry=False)
    asked = client.send_task("nothing", retry=False)
    with pytest.raises(BrokerUnreachable):
        await asked
    assert len(lost := [each for each in caplog.records if "nobody asked" in each.message]) == 1
    assert lost[0].levelno == logging.ERROR
    # While somebody holds the handle he may still ask.
    held_id = held.id
    await client.close()
    del held
    gc.collect()
    # A traceback may hold it for a while; by the end of the test it is told.
    told = [each.message for each in caplog.records if "nobody asked" in each.message]
    assert not any(asked.id in message for message in told)
    assert all(held_id in message for message in told[1:])


async def test_a_failing_receiver_of_after_task_publish_fails_nothing(
    lonely_client: Client, broker_url: str
) -> None:
    def fails(**_: Any) -> None:
        raise RuntimeError("receiver")

    signals.after_task_publish.connect(fails)
    try:
        await lonely_client.send_task("nothing", queue="receiver").sent()
    finally:
        signals.after_task_publish.disconnect(fails)
    assert len(await asyncio.to_thread(take, broker_url, "receiver")) == 1


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


async def test_connecting_while_a_message_is_to_go_opens_one_channel_for_both(
    rabbitmq: RabbitMQ,
) -> None:
    client = Client(make_app("both", rabbitmq.url()))
    handle = client.send_task("nothing", queue="both", ignore_result=True)
    session: Any = client._sessions.current
    connection = session._outbox._connection
    open_one = connection.publisher
    opened = []

    async def publisher(on_settled: Any) -> Any:
        opened.append(await open_one(on_settled))
        return opened[-1]

    connection.publisher = publisher
    await asyncio.gather(client.connect(), handle.sent())
    assert len(opened) == 1
    await client.close()
    await asyncio.to_thread(take, rabbitmq.url(), "both")


async def test_a_receiver_that_is_lost_while_the_sender_connects_is_prepared_again(
    lonely_client: Client,
) -> None:
    session: Any = lonely_client._sessions.current
    sender, results = session._outbox, session._results
    await results.prepare()
    open_channel, prepare = sender._open_channel, results.prepare
    done: list[str] = []

    async def open_and_lose() -> None:
        await open_channel()
        if not done:
            results._consumer._connection.abort()
            while results.ready:
                await asyncio.sleep(0)
        done.append("opened")

    async def prepare_again() -> None:
        done.append("prepared")
        await prepare()

    sender._open_channel, results.prepare = open_and_lose, prepare_again
    sender._connection.abort()
    await lonely_client.send_task("nothing").sent()
    assert done[:2] == ["opened", "prepared"]


async def test_a_message_that_comes_after_closing_fails_at_once(lonely_client: Client) -> None:
    session: Any = lonely_client._sessions.current
    [message] = lonely_client._sessions.codec.recorder.send_task("t", None, None, {}).messages
    await lonely_client.close()
    delivery = Completion()
    session._outbox.send(message, delivery, asyncio.get_running_loop().time() + 30)
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(delivery.wait(), 5)
    assert not session._outbox.queued


async def test_forgetting_a_message_that_is_not_on_its_way_does_nothing(
    lonely_client: Client,
) -> None:
    sender: Any = lonely_client._sessions.current._outbox  # type: ignore[union-attr]
    sender._publisher.forget(Sending(0, MagicMock(body=b""), Completion(), 0, None))
