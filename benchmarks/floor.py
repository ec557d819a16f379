"""The floor: AMQP by one ``asyncio.Protocol``, and nothing that a call could do without.

No library, no recovery, no errors but exceptions. Frames are encoded beforehand but for ids,
arguments and bodies, written once a turn of the event loop, and read from one buffer. What is here
is what RabbitMQ and the event loop cost; everything above it is what a client adds.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from struct import Struct, pack
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["Amqp", "Floor"]

_FRAME = Struct(">BHI")
_METHOD = Struct(">HH")
_CONFIRM = Struct(">QB")
_SIZES = Struct(">HHQH")
_END = b"\xce"
_LONG = Struct(">I")

_DELIVER, _ACK, _NACK = (60, 60), (60, 80), (60, 120)
_CHANNEL = 1


def short(text: str | bytes) -> bytes:
    """Encode a short string."""
    data = text.encode() if isinstance(text, str) else text
    return bytes((len(data),)) + data


def long(data: bytes) -> bytes:
    """Encode a long string."""
    return _LONG.pack(len(data)) + data


def method(class_id: int, method_id: int, arguments: bytes = b"", channel: int = _CHANNEL) -> bytes:
    """Encode a method's frame."""
    payload = _METHOD.pack(class_id, method_id) + arguments
    return _FRAME.pack(1, channel, len(payload)) + payload + _END


def consuming(queue: str, *, wait: bool = True) -> bytes:
    """Encode the frame that begins to consume ``queue``; the consumer is named as it is."""
    flags = b"\0" if wait else b"\x08"
    return method(60, 20, b"\0\0" + short(queue) + short(queue) + flags + _LONG.pack(0))


def no_longer_consuming(queue: str) -> bytes:
    """Encode the frame that ends what :func:`consuming` began."""
    return method(60, 30, short(queue) + b"\1")


def content(properties: bytes, body: bytes) -> bytes:
    """Encode the frames that follow a publish. ``properties`` begin with their flags."""
    header = pack(">HHQ", 60, 0, len(body)) + properties
    return b"".join(
        (
            *(_FRAME.pack(2, _CHANNEL, len(header)), header, _END),
            *(_FRAME.pack(3, _CHANNEL, len(body)), body, _END),
        )
    )


class Amqp(asyncio.Protocol):
    """One connection with one channel."""

    def __init__(self) -> None:
        self.on_message: Callable[[memoryview, bytes], None] = lambda properties, body: None
        self.on_confirm: Callable[[int, bool], None] = lambda tag, multiple: None
        self._answer: asyncio.Future[bytes] | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._unacknowledged = 0
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, url: str) -> Amqp:
        """Log in at ``url`` and open the channel."""
        parts = urlsplit(url)
        _, made = await asyncio.get_running_loop().create_connection(
            cls, parts.hostname, parts.port or 5672
        )
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        login = long(f"\0{user}\0{password}".encode())
        await made.call(b"AMQP\0\0\x09\x01")  # the answer is Connection.Start
        start_ok = _LONG.pack(0) + short("PLAIN") + login + short("en_US")
        tune = await made.call(method(10, 11, start_ok, 0))
        made.write(method(10, 31, tune[4:10] + b"\0\0", 0))  # no heartbeats
        host = unquote(parts.path[1:]) or "/"
        await made.call(method(10, 40, short(host) + short("") + b"\0", 0))
        await made.call(method(20, 10, short("")))
        return made

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport

    async def call(self, frame: bytes) -> bytes:
        """Send a method and return the payload of its answer."""
        self._answer = self._loop.create_future()
        self.write(frame)
        return await self._answer

    async def confirm_select(self) -> None:
        await self.call(method(85, 10, b"\0"))

    async def declare(self, queue: str, *, durable: bool = True) -> None:
        flags = bytes((durable << 1,))
        await self.call(method(50, 10, b"\0\0" + short(queue) + flags + _LONG.pack(0)))

    async def delete(self, queue: str) -> None:
        await self.call(method(50, 40, b"\0\0" + short(queue) + b"\0"))

    async def consume(self, queue: str, prefetch: int = 1000) -> None:
        await self.call(method(60, 10, pack(">IHB", 0, prefetch, 0)))
        await self.call(consuming(queue))

    def write(self, data: bytes) -> None:
        """Write at the end of this turn of the event loop, together with all else."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        self.transport.write(b"".join(self._out))
        self._out.clear()

    def close(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        view = memoryview(data)
        at, end = 0, len(data)
        while end - at >= 8:
            kind, _, size = _FRAME.unpack_from(data, at)
            after = at + size + 8
            if after > end:
                break
            if kind == 1:
                name = _METHOD.unpack_from(data, at + 7)
                if name == _DELIVER:
                    whole = self._delivered(data, view, at, after, end)
                    if not whole:
                        break
                    after = whole
                elif name == _ACK:
                    tag, multiple = _CONFIRM.unpack_from(data, at + 11)
                    self.on_confirm(tag, bool(multiple))
                elif self._answer is not None and not self._answer.done():
                    self._answer.set_result(data[at + 7 : after - 1])
                else:
                    raise ConnectionError(f"unexpected method {name}: {data[at:after]!r}")
            at = after
        self._rest = data[at:]
        if self._unacknowledged:
            self.write(method(60, 80, _CONFIRM.pack(self._unacknowledged, 1)))
            self._unacknowledged = 0

    def _delivered(self, data: bytes, view: memoryview, at: int, header: int, end: int) -> int:
        """Hand over a message if all of it is there; return where it ends, or 0."""
        if end - header < 8:
            return 0
        size = _FRAME.unpack_from(data, header)[2]
        body = header + size + 8
        if body > end:
            return 0
        length = int.from_bytes(data[header + 11 : header + 19], "big")
        parts = []
        properties = view[header + 19 : body - 1]
        while length:
            if end - body < 8:
                return 0
            size = _FRAME.unpack_from(data, body)[2]
            if body + size + 8 > end:
                return 0
            parts.append(data[body + 7 : body + 7 + size])
            length -= size
            body += size + 8
        tag = at + 12 + data[at + 11]
        self._unacknowledged = int.from_bytes(data[tag : tag + 8], "big")
        self.on_message(properties, parts[0] if len(parts) == 1 else b"".join(parts))
        return body


class Floor:
    """Calls of one task, from a template of its message."""

    def __init__(self, amqp: Amqp, queue: str, task: str) -> None:
        self._amqp = amqp
        self._reply_to = f"floor.{uuid.uuid4()}"
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._unconfirmed: dict[int, asyncio.Future[None]] = {}
        self._published = self._confirmed = 0
        self._publish = method(60, 40, b"\0\0" + short("") + short(queue) + b"\1")
        self._task = task
        self._loop = asyncio.get_running_loop()
        amqp.on_message = self._on_message
        amqp.on_confirm = self._on_confirm

    @classmethod
    async def connect(cls, url: str, queue: str, task: str) -> Floor:
        amqp = await Amqp.connect(url)
        floor = cls(amqp, queue, task)
        await amqp.confirm_select()
        await amqp.declare(queue)
        await amqp.declare(floor._reply_to)
        await amqp.consume(floor._reply_to)
        return floor

    async def close(self) -> None:
        await self._amqp.delete(self._reply_to)
        self._amqp.close()

    def call(self, *args: Any) -> asyncio.Future[bytes]:
        """Send the task; the future gets the undecoded result."""
        task_id = str(uuid.uuid4()).encode()
        waiting = self._waiting[task_id] = self._loop.create_future()
        self._send(task_id, args, self._reply_to)
        return waiting

    def send(self, *args: Any) -> asyncio.Future[None]:
        """Send the task; the future is done once the broker has confirmed it."""
        self._send(str(uuid.uuid4()).encode(), args, "")
        confirmed = self._unconfirmed[self._published] = self._loop.create_future()
        return confirmed

    def _send(self, task_id: bytes, args: tuple[Any, ...], reply_to: str) -> None:
        self._published += 1
        shown = repr(args).encode()
        body = b'[%s, {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
        body %= json.dumps(args).encode()
        self._amqp.write(self._publish + content(self._properties(task_id, shown, reply_to), body))

    def _properties(self, task_id: bytes, shown: bytes, reply_to: str) -> bytes:
        name = self._task.encode()
        table = b"".join(
            (
                *(b"\x04langS\0\0\0\x02py\x04taskS", long(name), b"\x02idS", long(task_id)),
                b"\x06shadowV\x03etaV\x07expiresV\x05groupV\x0bgroup_indexV",
                b"\x07retriesI\0\0\0\0\x09timelimitA\0\0\0\x02VV",
                *(b"\x07root_idS", long(task_id), b"\x09parent_idV"),
                *(b"\x08argsreprS", long(shown), b"\x0akwargsreprS\0\0\0\x02{}"),
                *(b"\x06originS", long(b"gen1@floor"), b"\x0dignore_resultt\0"),
                b"\x15replaced_task_nestingI\0\0\0\0\x0fstamped_headersV\x06stampsF\0\0\0\0",
            )
        )
        return b"".join(
            (
                b"\xfe\x00\x10application/json\x05utf-8",
                *(long(table), b"\x02\0", short(task_id), short(reply_to)),
            )
        )

    def _on_message(self, properties: memoryview, body: bytes) -> None:
        waiting = self._waiting.pop(bytes(properties[-36:]), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(body)

    def _on_confirm(self, tag: int, multiple: bool) -> None:
        first = self._confirmed + 1 if multiple else tag
        for each in range(first, tag + 1):
            confirmed = self._unconfirmed.pop(each, None)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
        if multiple:
            self._confirmed = tag
