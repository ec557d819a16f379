"""Stands in for a worker that takes no time: answers every task at once, with the same value.

With a real worker one measures the worker. This answers some ten thousand tasks a second, from a
process of its own: ``python -m benchmarks.replier URL QUEUE``.
"""

from __future__ import annotations

import asyncio
import sys

from .floor import Amqp, content, method, short

__all__ = ["RESULT"]

#: What every task returns.
RESULT = 3

_DELIVERY_MODE = b"\x01"  # transient, as Celery's rpc backend has it
_PROPERTIES = b"\xfc\x00\x10application/json\x05utf-8\0\0\0\0" + _DELIVERY_MODE + b"\0"
_BODY = b'{"status": "SUCCESS", "result": %d, "traceback": null, "children": [], "task_id": "%%s"}'
_BODY %= RESULT


class Replier:
    """Answers the tasks of one queue."""

    def __init__(self, amqp: Amqp) -> None:
        self._amqp = amqp
        self._publish: dict[bytes, bytes] = {}
        amqp.on_message = self._on_message

    def _on_message(self, properties: memoryview, body: bytes) -> None:
        task_id, reply_to = addresses(bytes(properties))
        if not reply_to:
            return
        publish = self._publish.get(reply_to)
        if publish is None:
            publish = method(60, 40, b"\0\0" + short("") + short(reply_to) + b"\0")
            self._publish[reply_to] = publish
        self._amqp.write(publish + content(_PROPERTIES + short(task_id), _BODY % task_id))


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


async def main(url: str, queue: str) -> None:
    amqp = await Amqp.connect(url)
    replier = Replier(amqp)
    await amqp.declare(queue)
    await amqp.consume(queue)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    amqp.close()
    del replier


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
