"""How long one large result stops the event loop, from RabbitMQ and from Redis.

    python -m benchmarks.large_results --megabytes 20 200

It starts servers of its own. Another process hands the result to them, as a worker would.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from celery import Celery

from bridgetask import Client
from tests.redis_servers import Redis
from tests.servers import RabbitMQ

MEGABYTE = 1_000_000

#: What a result may look like, by the number of its bytes.
SHAPES: dict[str, Callable[[int], Any]] = {
    "numbers": lambda size: [1_000_000 + number for number in range(size // 9)],
    "objects": lambda size: [
        {"id": 10_000_000 + number, "ok": True} for number in range(size // 30)
    ],
    "one string": lambda size: "x" * size,
}

HAND_OVER = """
import json, sys
from benchmarks.large_results import SHAPES
url, address, task_id, shape, size = sys.argv[1:]
meta = {"task_id": task_id, "status": "SUCCESS", "result": SHAPES[shape](int(size))}
body = json.dumps(meta, separators=(",", ":")).encode()
if url.startswith("redis"):
    from redis import Redis
    with Redis.from_url(url) as redis, redis.pipeline() as pipeline:
        pipeline.set(address, body, ex=600).publish(address, body).execute()
else:
    from kombu import Connection
    with Connection(url) as connection:
        connection.Producer().publish(
            body, exchange="", routing_key=address, content_type="application/json",
            content_encoding="utf-8", correlation_id=task_id,
        )
"""


class Stalls:
    """The longest time that the event loop did not turn, in seconds.

    By the clock, and by what this process used of a processor meanwhile: other processes have no
    part in that.
    """

    def __init__(self) -> None:
        self.longest = self.longest_cpu = 0.0

    async def watch(self) -> None:
        last, last_cpu = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now, cpu = time.perf_counter(), time.process_time()
            self.longest = max(self.longest, now - last)
            self.longest_cpu = max(self.longest_cpu, cpu - last_cpu)
            last, last_cpu = now, cpu


async def measure(url: str, broker: str, shape: str, size: int) -> tuple[Stalls, float]:
    """Return the longest stall, and the seconds of a processor that all of it took."""
    app = Celery("large", broker=broker, backend="rpc://" if url == broker else url)
    async with Client(app, max_result_size=512 * 1024 * 1024) as client:
        handle = client.send_task("nothing", queue="nobody")
        await handle.sent()
        wire = client._sessions.codec
        address = wire.recorder.reply_to
        if url != broker:
            address = wire.recorder.backend.get_key_for_task(handle.id).decode()
        stalls = Stalls()
        watching = asyncio.create_task(stalls.watch())
        began = time.process_time()
        handing = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HAND_OVER, url, address, handle.id, shape, str(size)),
        )
        result = await handle.get(timeout=300)
        took = time.process_time() - began
        watching.cancel()
        await handing.wait()
        assert len(result) * 9 >= size / 4
    return stalls, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    options = parser.parse_args()
    limit = 512 * 1024 * 1024
    with RabbitMQ(config={"max_message_size": limit}) as node, Redis() as redis:
        for backend, url in (("rpc://", node.url()), ("redis://", redis.url())):
            for megabytes in options.megabytes:
                for shape in options.shapes:
                    measuring = measure(url, node.url(), shape, megabytes * MEGABYTE)
                    stalls, took = asyncio.run(measuring)
                    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                    print(
                        f"{backend} {megabytes} MB, {shape}: longest stall"
                        f" {stalls.longest_cpu * 1000:.0f} ms of a processor,"
                        f" {stalls.longest * 1000:.0f} ms by the clock;"
                        f" {took:.1f} s of a processor in all; at most {most} MB so far",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
