"""Stands in for a worker that takes no time: answers every task at once, with the same value.

With a real worker one measures the worker. This answers some ten thousand tasks a second, from a
process of its own: ``python -m benchmarks.replier URL BACKEND``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from urllib.parse import urlsplit

from .app import HELD, PARKED, QUEUE, SINK
from .floor import Amqp, consuming, content, method, no_longer_consuming, short
from .workloads import HOLD, RELEASE

__all__ = ["RESULT", "addresses"]

#: What every task returns.
RESULT = 3

_DELIVERY_MODE = b"\x01"  # transient, as Celery's rpc backend has it
_PROPERTIES = b"\xfc\x00\x10application/json\x05utf-8\0\0\0\0" + _DELIVERY_MODE + b"\0"
_BODY = b'{"status": "SUCCESS", "result": %d, "traceback": null, "children": [], "task_id": "%%s"}'
_BODY %= RESULT
_RELEASE, _HOLD = (f'[["{word}"'.encode() for word in (RELEASE, HOLD))


class Replier:
    """Answers the tasks of one queue; of the held one, too, between two words."""

    def __init__(self, amqp: Amqp, redis: Redis | None) -> None:
        self._amqp = amqp
        self._redis = redis
        self._publish: dict[bytes, bytes] = {}
        amqp.on_message = self._on_message

    def _on_message(self, properties: memoryview, body: bytes) -> None:
        if body.startswith(_RELEASE):
            self._amqp.write(consuming(HELD, wait=False))
        elif body.startswith(_HOLD):
            self._amqp.write(no_longer_consuming(HELD))
        task_id, reply_to = addresses(bytes(properties))
        if self._redis is not None:
            self._redis.store(task_id, _BODY % task_id)
            return
        if not reply_to:
            return
        publish = self._publish.get(reply_to)
        if publish is None:
            publish = method(60, 40, b"\0\0" + short("") + short(reply_to) + b"\0")
            self._publish[reply_to] = publish
        self._amqp.write(publish + content(_PROPERTIES + short(task_id), _BODY % task_id))


class Redis(asyncio.Protocol):
    """Stores and announces results as Celery's backend does."""

    _EXPIRES = b"3600"

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, url: str) -> Redis:
        parts = urlsplit(url)
        _, made = await asyncio.get_running_loop().create_connection(
            cls, parts.hostname, parts.port or 6379
        )
        made._write(b"SELECT", parts.path[1:].encode() or b"0")
        return made

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        if b"\r\n-" in data or data.startswith(b"-"):
            raise ConnectionError(f"Redis answered {data!r}")

    def store(self, task_id: bytes, body: bytes) -> None:
        key = b"celery-task-meta-" + task_id
        self._write(b"SETEX", key, self._EXPIRES, body)
        self._write(b"PUBLISH", key, body)

    def _write(self, *words: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(b"*%d\r\n" % len(words))
        self._out.extend(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


def addresses(properties: bytes) -> tuple[bytes, bytes]:
    """Return ``correlation_id`` and ``reply_to`` of encoded properties."""
    flags = int.from_bytes(properties[:2], "big")
    at, found = 2, [b"", b""]
    for bit in range(15, 8, -1):
        if not flags & 1 << bit:
            continue
        if bit == 13:
            size, begin = int.from_bytes(properties[at : at + 4], "big"), at + 4
        elif bit in (12, 11):
            size, begin = 1, at
        else:
            size, begin = properties[at], at + 1
        at = begin + size
        if bit in (10, 9):
            found[10 - bit] = properties[begin:at]
    return found[0], found[1]


async def main(url: str, backend: str) -> None:
    amqp = await Amqp.connect(url)
    redis = None if backend == "rpc://" else await Redis.connect(backend)
    replier = Replier(amqp, redis)
    for queue in (QUEUE, HELD, PARKED, SINK):
        await amqp.declare(queue)
    await amqp.consume(QUEUE)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    amqp.close()
    del replier


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
