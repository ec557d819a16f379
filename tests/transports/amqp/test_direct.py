"""Past aiormq: what that relies on, and what it must do as well as aiormq does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiormq
import pytest
from celery import Celery
from kombu import Exchange, Queue

from bridgetask import Client, NotRoutable, Refused
from bridgetask.core.completion import Completion
from bridgetask.core.publishing import Sending
from bridgetask.transports.amqp import reader as reader_module
from bridgetask.transports.amqp.connection import AmqpConnection
from bridgetask.transports.amqp.direct import DirectPublisher
from bridgetask.transports.amqp.frames import HEARTBEAT, METHOD, Method
from bridgetask.transports.amqp.settings import AmqpSettings
from bridgetask.transports.amqp.splitter import FrameSplitter
from bridgetask.wire.message import OutgoingMessage

from ... import tasks
from ...fix_rabbitmq import take
from ...security.inputs import frame


@pytest.fixture(autouse=True)
def amqp_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """One way only: this is about the direct one."""
    monkeypatch.setenv("BRIDGETASK_AMQP", "direct")


# What this relies on. Where one of these fails, a new aiormq has changed it.


@pytest.fixture
async def connection(lonely_app: Celery) -> AsyncIterator[AmqpConnection]:
    opened = AmqpConnection(AmqpSettings.from_app(lonely_app).write, "pinned")
    await opened.open()
    yield opened
    await opened.close()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return types and payloads of frames; fail where these are not whole."""
    splitter = FrameSplitter(2**32)
    splitter.feed(data)
    found = [(kind, data[begin:end]) for kind, _, data, begin, end in splitter.frames()]
    assert splitter.unread == 0
    return found


async def test_aiormq_reads_and_writes_by_the_streams_that_it_is_given(
    connection: AmqpConnection,
) -> None:
    reader, writer = connection._connection.streams  # type: ignore[union-attr]
    fed: list[bytes] = []
    written: list[bytes] = []
    feed, write = reader._feed_aiormq, writer.transport.write

    def feeding(data: bytes) -> None:
        fed.append(data)
        feed(data)

    def writing(data: Any) -> None:
        written.append(bytes(data))
        write(data)

    reader._feed_aiormq = feeding  # type: ignore[method-assign]
    writer.transport.write = writing  # type: ignore[method-assign]
    channel = await connection.channel(confirms=True)
    await channel.queue_declare("pinned", auto_delete=True)
    await channel.basic_publish(b"x" * 300_000, routing_key="pinned", wait=True)
    await channel.queue_delete("pinned")
    await channel.close()
    # Everything passed through here, frame by frame: no write ends within one.
    assert sum(len(frames(each)) for each in written) >= 7
    answers = [payload[:4] for each in fed for kind, payload in frames(each) if kind == METHOD]
    assert len(answers) == 6


async def test_aiormq_tells_the_number_of_a_channel_and_the_size_of_frames(
    connection: AmqpConnection,
) -> None:
    channel = await connection.channel(confirms=False)
    other = await connection.channel(confirms=False)
    assert isinstance(channel, aiormq.Channel)
    assert {channel.number, other.number} == {1, 2}
    assert channel.connection.connection_tune.frame_max == 131_072


async def test_aiormq_tells_when_a_channel_is_closed_and_why(connection: AmqpConnection) -> None:
    channel = await connection.channel(confirms=False)
    closing = channel.closing
    assert not channel.is_closed
    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
        await channel.queue_declare("missing", passive=True)
    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity, match="no queue 'missing'"):
        await asyncio.wait_for(closing, 5)
    assert channel.is_closed


async def test_aiormq_tells_when_the_connection_under_a_channel_is_lost(
    connection: AmqpConnection,
) -> None:
    channel = await connection.channel(confirms=False)
    closing = channel.closing
    connection.abort()
    with pytest.raises((aiormq.exceptions.AMQPError, asyncio.CancelledError, OSError)):
        await asyncio.wait_for(closing, 5)
    assert channel.is_closed


async def test_aiormq_takes_a_heartbeat_at_any_time(connection: AmqpConnection) -> None:
    reader, _ = connection._connection.streams  # type: ignore[union-attr]
    channel = await connection.channel(confirms=False)
    for _ in range(3):
        reader._feed_aiormq(HEARTBEAT)
        await channel.basic_qos(prefetch_count=1)
    assert connection.is_open


# Messages.


async def test_results_arrive_whole_and_in_order_when_reading_is_interrupted_all_the_time(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_SLICE", -1)
    monkeypatch.setattr(reader_module, "_LOOK", 1)
    async with Client(app) as client:
        large = "x" * 300_000
        handles = [client.delay(tasks.echo, number) for number in range(100)]
        echo = client.delay(tasks.echo, large)
        assert [(await handle)[0][0] for handle in handles] == list(range(100))
        assert (await echo)[0][0] == large


async def test_messages_carry_no_id_of_their_own(lonely_client: Client, broker_url: str) -> None:
    await lonely_client.send_task("nothing", queue="bare").sent()
    (message,) = await asyncio.to_thread(take, broker_url, "bare")
    assert message.properties.get("message_id") is None


async def test_of_many_messages_those_that_come_back_are_known(
    lonely_client: Client, broker_url: str
) -> None:
    bound = Queue("bound", Exchange("amq.topic"), routing_key="yes")
    await lonely_client.send_task(
        "nothing", queue=bound, exchange="amq.topic", routing_key="yes"
    ).sent()
    handles = [
        lonely_client.send_task(
            "nothing", (number,), exchange="amq.topic", routing_key="no" if number % 3 else "yes"
        )
        for number in range(300)
    ]
    same = [  # the same task id on both ways
        lonely_client.send_task("nothing", exchange="amq.topic", routing_key=key, task_id="same")
        for key in ("no", "yes")
    ]
    outcomes = await asyncio.gather(*(each.sent() for each in handles), return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        if number % 3:
            assert isinstance(outcome, NotRoutable)
            assert outcome.task_id == handles[number].id
        else:
            assert outcome is None
    with pytest.raises(NotRoutable):
        await same[0].sent()
    await same[1].sent()
    assert len(await asyncio.to_thread(take, broker_url, "bound")) == 102


async def test_a_body_of_many_frames_comes_back_as_not_routable(lonely_client: Client) -> None:
    with pytest.raises(NotRoutable):
        await lonely_client.send_task(
            "nothing", ("x" * 500_000,), exchange="amq.topic", routing_key="no"
        ).sent()
    with pytest.raises(NotRoutable):
        await lonely_client.send_task("nothing", exchange="amq.topic", routing_key="no").sent()


async def test_a_channel_that_is_closed_within_a_message_takes_nothing_else_with_it(
    connection: AmqpConnection,
) -> None:
    settled: list[tuple[int, Any]] = []
    publisher = await connection.publisher(
        lambda sending, error: settled.append((sending.number, error))
    )
    for number, exchange, size in ((0, "missing", 1), (1, "", 30_000_000)):
        message = OutgoingMessage(exchange, "pinned", bytes(size), {}, mandatory=False)
        publisher.publish(Sending(number, message, Completion(), 0, None))
    await publisher.drain()
    async with asyncio.timeout(10):
        while len(settled) < 2:
            await asyncio.sleep(0.01)
    assert [number for number, _ in settled] == [1, 0]
    assert all(isinstance(error, Refused) and error.code == 404 for _, error in settled)
    await asyncio.sleep(0.5)  # a frame that belongs nowhere would have ended the connection
    assert connection.is_open
    assert not (await connection.channel(confirms=True)).is_closed


async def test_nothing_is_left_of_messages_that_are_settled(
    lonely_client: Client, broker_url: str
) -> None:
    handles = [lonely_client.send_task("nothing", queue="settled") for _ in range(1500)]
    await asyncio.gather(*(handle.sent() for handle in handles))
    sender: Any = lonely_client._sessions.current._outbox  # type: ignore[union-attr]
    publisher = sender._publisher._channel
    assert isinstance(publisher, DirectPublisher)
    assert not len(publisher._unconfirmed)
    assert not publisher._out
    await asyncio.to_thread(take, broker_url, "settled")


async def test_a_confirm_of_nothing_is_logged(
    lonely_client: Client, broker_url: str, collected_logs: Callable[[], list[str]]
) -> None:
    await lonely_client.send_task("nothing", queue="confirms").sent()
    sender: Any = lonely_client._sessions.current._outbox  # type: ignore[union-attr]
    ack = Method.ACK.to_bytes(4, "big") + (99).to_bytes(8, "big") + b"\0"
    reader, _ = sender._publisher._connection._connection.streams
    reader.feed_data(frame(METHOD, sender._publisher._channel._number, ack))
    assert any("delivery tag 99" in line for line in collected_logs())
    await lonely_client.send_task("nothing", queue="confirms").sent()
    await asyncio.to_thread(take, broker_url, "confirms")
