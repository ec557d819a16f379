"""Targets that read frames of AMQP; see ``targets.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pamqp.header
from amqp.serialization import decode_properties_basic

from bridgetask.core.completion import Completion
from bridgetask.core.publishing import Sending
from bridgetask.transports.amqp.direct import DirectConsumer, DirectPublisher
from bridgetask.transports.amqp.frames import FRAME, PropertiesDecoder, encode_ack
from bridgetask.transports.amqp.reader import FrameReader, _without_broken_properties
from bridgetask.transports.amqp.splitter import FrameError, FrameSplitter
from bridgetask.wire.message import OutgoingMessage

from . import inputs
from .inputs import CONSUMER, PUBLISHER, Choices

LOOP = asyncio.new_event_loop()
MESSAGE = OutgoingMessage("exchange", "key", b"body", {"correlation_id": "id"}, mandatory=True)
HARMLESS = b"harmless"


def settle() -> None:
    LOOP.run_until_complete(asyncio.sleep(0))


class Socket(asyncio.Transport):
    """A socket, and what writes to it, that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.transport = self
        self.aborted = False
        self.written: list[Any] = []

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    async def drain(self) -> None:
        pass

    def write(self, data: Any) -> None:
        self.written.append(data)

    def writelines(self, pieces: Any) -> None:
        self.written += pieces

    def set_protocol(self, protocol: Any) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def properties(data: bytes) -> None:
    """Properties, with what is remembered of earlier ones: as py-amqp reads them, or none."""
    choices, decoder = Choices(data), PropertiesDecoder()
    for _ in range(4):
        encoded = inputs.properties(choices)
        found = decoder.decode(encoded)
        try:
            expected, _ = decode_properties_basic(encoded, 0)
        except Exception:
            expected = {}
        if found != (None, None, None, None):
            assert found.content_type == expected.get("content_type")
            assert found.content_encoding == expected.get("content_encoding")
            assert found.correlation_id == expected.get("correlation_id")
        assert sum(map(len, decoder._known)) < 65 * 1024
        if len(encoded) >= 2:  # the flags, without which no broker sends any
            told = _without_broken_properties(b"\0\x3c\0\0" + bytes(8) + encoded + b"\xce")
            pamqp.header.ContentHeader().unmarshal(told[:-1])
        if not choices:
            break


class Channels:
    """A connection without a socket: a reader, and the channels that take frames from it."""

    def __init__(self, on_message: Callable[..., None]) -> None:
        self.socket: Any = Socket()
        self.reader = FrameReader(asyncio.get_running_loop())
        self.reader.transport = self.socket
        self.settled: list[tuple[Sending, Any]] = []
        self.consumer = DirectConsumer(self.channel(CONSUMER), self.reader, self.socket, on_message)
        self.publisher = DirectPublisher(
            self.channel(PUBLISHER),
            self.reader,
            self.socket,
            lambda *told: self.settled.append(told),
        )

    def channel(self, number: int) -> Any:
        tune = SimpleNamespace(frame_max=131_072)
        return SimpleNamespace(
            number=number,
            closing=LOOP.create_future(),
            is_closed=False,
            connection=SimpleNamespace(connection_tune=tune),
        )

    def feed(self, stream: bytes, choices: Choices) -> None:
        """Feed the stream, cut anywhere."""
        splitter = self.reader.splitter
        for chunk in inputs.chunks(stream, choices):
            self.reader.feed_data(chunk)
            while self.reader._interrupted:
                settle()
            assert splitter.unread <= splitter.largest_frame + FRAME.size


async def connected(on_message: Callable[..., None]) -> Channels:
    return Channels(on_message)


def frames(data: bytes) -> None:
    """Frames, cut anywhere: broken ones end the connection, and harm nothing else."""
    choices = Choices(data)
    handed_over: list[tuple[Any, ...]] = []
    channels = LOOP.run_until_complete(connected(lambda *message: handed_over.append(message)))
    sendings = [Sending(number, MESSAGE, Completion(), 0, None) for number in range(2)]
    for sending in sendings:
        channels.publisher.publish(sending)
    whole, broken = [], False
    for _ in range(12):
        if choices.number(4):
            body = inputs.body(choices)
            whole.append((inputs.properties(choices), body, choices.pick([1, 100, 100_000])))
        else:
            broken = True
            break
        if not choices:
            break
    stream = b"".join(
        inputs.delivery(*each) for each in whole if len(each[1]) < 2000 or each[2] > 1
    )
    sent = [each[1] for each in whole if len(each[1]) < 2000 or each[2] > 1]
    noise = inputs.broken_frame(choices) if broken else b""
    channels.feed(stream + noise, choices)
    assert [message[0] for message in handed_over[: len(sent)]] == sent
    settle()
    if sent and not channels.reader._ended and not channels.consumer.is_closed:
        assert encode_ack(CONSUMER, 1) in channels.socket.written
    settled = [sending for sending, _ in channels.settled]
    assert len(set(settled)) == len(settled)
    if not broken:
        assert not channels.reader._ended
        assert len(handed_over) == len(sent)
        channels.feed(inputs.delivery(b"\0\0", HARMLESS), choices)
        assert handed_over[-1][0] == HARMLESS


def splitter(data: bytes) -> None:
    """Streams of frames, cut anywhere: the frames are the same, and no byte is lost."""
    choices = Choices(data)
    largest = choices.pick([131_072, 0, 8, 300])
    stream = inputs.stream(choices)
    at_once = split([stream], largest, lambda: False)
    assert at_once == split(inputs.chunks(stream, choices), largest, lambda: choices.number(4) == 1)
    found, _, rest = at_once
    assert b"".join(found) + rest == stream


def split(
    chunks: Iterable[bytes], largest: int, leaves_off: Callable[[], bool]
) -> tuple[list[bytes], type[FrameError] | None, bytes]:
    """Return the frames, the error that ended them, if any, and what follows them."""
    splitter = FrameSplitter(largest)
    found: list[bytes] = []
    error: type[FrameError] | None = None

    def read() -> None:
        for kind, channel, data, begin, end in splitter.frames():
            found.append(inputs.frame(kind, channel, data[begin:end]))
            if leaves_off():
                return
        assert splitter.unread <= largest + FRAME.size  # a frame without its last byte

    for chunk in (*chunks, b""):
        may_have_frames = splitter.feed(chunk)
        while may_have_frames and error is None:
            count = len(found)
            try:
                read()
            except FrameError as reason:
                error = type(reason)
            may_have_frames = len(found) > count
    return found, error, splitter.take_rest()
