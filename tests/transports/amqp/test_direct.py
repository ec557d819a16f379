"""Past aiormq: what that relies on, and what it must do as well as aiormq does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiormq
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue

from bridgetask import Client, NotRoutable, Refused
from bridgetask.core.completion import Completion
from bridgetask.settings import Settings
from bridgetask.transports.amqp import reader as reader_module
from bridgetask.transports.amqp.connection import AmqpConnection
from bridgetask.transports.amqp.direct import DirectPublisher
from bridgetask.transports.amqp.frames import FRAME, HEARTBEAT, METHOD, Method
from bridgetask.transports.amqp.plain import Sending
from bridgetask.transports.amqp.reader import FrameReader
from bridgetask.wire.message import OutgoingMessage

from ... import tasks
from ...fix_rabbitmq import take


@pytest.fixture(autouse=True)
def amqp_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """One way only: this is about the direct one."""
    monkeypatch.setenv("BRIDGETASK_AMQP", "direct")


# What this relies on. Where one of these fails, a new aiormq has changed it.


@pytest.fixture
async def connection(lonely_app: Celery) -> AsyncIterator[AmqpConnection]:
    opened = AmqpConnection(Settings.from_app(lonely_app).write, "pinned")
    await opened.open()
    yield opened
    await opened.close()


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split bytes into frames; fails where they are not whole."""
    at = 0
    while at < len(data):
        kind, channel, size = FRAME.unpack_from(data, at)
        assert data[at + FRAME.size + size] == 0xCE
        yield kind, channel, data[at + FRAME.size : at + FRAME.size + size]
        at += FRAME.size + size + 1
    assert at == len(data)


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
    assert sum(len(list(frames(each))) for each in written) >= 7
    answers = [payload[:4] for each in fed for kind, _, payload in frames(each) if kind == METHOD]
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


# Reading frames.


class Recorded:
    """Takes the methods of one channel."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        if kind == METHOD:
            self.taken.append(data[begin:end])
        return kind == METHOD


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


def frames_in(stream: bytes) -> Iterator[bytes]:
    while stream:
        _, _, size = FRAME.unpack_from(stream)
        end = FRAME.size + size + 1
        yield stream[:end]
        stream = stream[end:]


some_frames = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 3), st.binary(max_size=30)), max_size=12
)


@given(some_frames, st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_frames_are_told_apart_wherever_the_stream_is_cut(
    sent: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    loop = asyncio.new_event_loop()
    reader, ours = FrameReader(loop), Recorded()
    reader.attach(2, ours)
    stream = b"".join(frame(*each) for each in sent)
    at = number = 0
    while at < len(stream):
        size = sizes[number % len(sizes)]
        reader.feed_data(stream[at : at + size])
        at, number = at + size, number + 1
    reader.feed_eof()
    left = loop.run_until_complete(reader.read())
    loop.close()
    is_ours = [kind == METHOD and channel == 2 for kind, channel, _ in sent]
    assert ours.taken == [each[2] for each, mine in zip(sent, is_ours, strict=True) if mine]
    others = [frame(*each) for each, mine in zip(sent, is_ours, strict=True) if not mine]
    assert [each for each in frames_in(left) if each != HEARTBEAT] == others


async def test_aiormq_is_shown_signs_of_life_while_all_frames_are_ours() -> None:
    loop = asyncio.get_running_loop()
    reader = FrameReader(loop)
    reader.attach(1, Recorded())
    for _ in range(10):
        reader.feed_data(frame(METHOD, 1, b"ours"))
    reader._sign_of_life = loop.time() - 0.001  # a second has passed
    for _ in range(10):
        reader.feed_data(frame(METHOD, 1, b"ours"))
    reader.feed_eof()
    assert await reader.read() == HEARTBEAT * 2


@pytest.mark.parametrize("noise", [b"AMQP\0\0\x09\x01", b"\x01\0\1\0\0\0\1xy" + b"z" * 20])
async def test_what_is_no_amqp_is_left_to_aiormq_to_complain_about(noise: bytes) -> None:
    reader = FrameReader(asyncio.get_running_loop())
    reader.attach(1, Recorded())
    reader.feed_data(noise)
    reader.feed_eof()
    assert await reader.read() == noise


async def test_much_that_comes_at_once_is_read_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "_SLICE", -1)
    reader, ours = FrameReader(asyncio.get_running_loop()), Recorded()
    reader.attach(1, ours)
    reader.feed_data(b"".join(frame(METHOD, 1, bytes([n])) for n in range(40)))
    assert len(ours.taken) == 16
    reader.feed_data(frame(METHOD, 1, b"more") + frame(METHOD, 2, b"other"))
    assert len(ours.taken) == 16
    await asyncio.sleep(0)
    assert len(ours.taken) == 32
    while len(ours.taken) < 41:
        await asyncio.sleep(0)
    assert ours.taken == [*(bytes([n]) for n in range(40)), b"more"]
    assert reader._size == 0


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
    sender: Any = lonely_client._session._sender  # type: ignore[union-attr]
    publisher = sender._publisher
    assert isinstance(publisher, DirectPublisher)
    assert not publisher._unconfirmed
    assert not publisher._out
    assert publisher._first == 1501
    assert not sender._deadlines._waiting
    await asyncio.to_thread(take, broker_url, "settled")


async def test_a_confirm_of_nothing_is_logged(
    lonely_client: Client, broker_url: str, collected_logs: Callable[[], list[str]]
) -> None:
    await lonely_client.send_task("nothing", queue="confirms").sent()
    sender: Any = lonely_client._session._sender  # type: ignore[union-attr]
    ack = Method.ACK.to_bytes(4, "big") + (99).to_bytes(8, "big") + b"\0"
    reader, _ = sender._connection._connection.streams
    reader.feed_data(frame(METHOD, sender._publisher._number, ack))
    assert any("confirmed 99" in line for line in collected_logs())
    await lonely_client.send_task("nothing", queue="confirms").sent()
    await asyncio.to_thread(take, broker_url, "confirms")
