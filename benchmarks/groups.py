"""A large group, or chord, and all its results: bridgetask beside Celery's own client.

A real worker runs the members. How often each client asks Redis shows in the server's own count of
commands; what the worker does there for every result is counted in a run without a client's
results, and taken off.

``python -m benchmarks.groups --help``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
from celery import Celery, chord, group
from redis import Redis as RedisClient

from tests.redis_servers import Redis
from tests.servers import Worker

from .clients.serving import Asyncio
from .harness import broker
from .workloads import Ticker

QUEUE = "bench.groups"
#: Seconds that a run may take.
PATIENCE = 600


def make_app(url: str, backend: str | None) -> Celery:
    app = Celery("bench", broker=url, backend=backend, set_as_current=False)
    app.conf.task_default_queue = QUEUE
    return app


def signature(app: Celery, kind: str, members: int) -> Any:
    header = group(
        [app.signature("tests.tasks.add", (number, 1)) for number in range(members)], app=app
    )
    return header if kind == "group" else chord(header, app.signature("tests.tasks.total"), app=app)


def expected(kind: str, members: int) -> Any:
    values = list(range(1, members + 1))
    return values if kind == "group" else sum(values)


def with_celery(url: str, backend: str, kind: str, members: int) -> dict[str, Any]:
    called = signature(make_app(url, backend), kind, members)
    _ready()
    began = time.perf_counter()
    result = called.apply_async()
    sent = time.perf_counter() - began
    in_order = result.get(timeout=PATIENCE) == expected(kind, members)
    seconds = time.perf_counter() - began
    # An event loop would have waited all the while.
    return {
        "sent": sent,
        "seconds": seconds,
        "stall": seconds,
        "busy": time.thread_time(),
        "in_order": in_order,
    }


def with_bridgetask(url: str, backend: str, kind: str, members: int) -> dict[str, Any]:
    from bridgetask import Client

    async def main() -> dict[str, Any]:
        app = make_app(url, backend)
        called = signature(app, kind, members)
        async with Client(app) as client:
            await client.connect()
            _ready()
            async with Ticker(Asyncio()) as ticker:
                await asyncio.sleep(0.01)
                began = time.perf_counter()
                result = client.apply_async(called)
                await result.sent()
                sent = time.perf_counter() - began
                in_order = await result.get(timeout=PATIENCE) == expected(kind, members)
                seconds = time.perf_counter() - began
                await asyncio.sleep(0.01)
        return {
            "sent": sent,
            "seconds": seconds,
            "stall": max(ticker.late),
            "busy": max(ticker.busy),
            "in_order": in_order,
        }

    return asyncio.run(main())


def with_nobody(url: str, backend: str, kind: str, members: int) -> dict[str, Any]:
    """Send the same tasks, and ask for no results."""
    app = make_app(url, None)
    _ready()
    began = time.perf_counter()
    group([app.signature("tests.tasks.add", (n, 1)) for n in range(members)], app=app).apply_async()
    sent = time.perf_counter() - began
    with app.connection_for_read() as connection:
        while connection.default_channel.queue_declare(QUEUE, passive=True).message_count:
            time.sleep(0.1)
    time.sleep(1)
    return {"sent": sent}


CLIENTS: dict[str, Callable[[str, str, str, int], dict[str, Any]]] = {
    "nobody": with_nobody,
    "celery": with_celery,
    "bridgetask": with_bridgetask,
}


def _ready() -> None:
    """Tell the process that measures that all is prepared, and wait until it is, too."""
    print("ready", flush=True)
    sys.stdin.readline()


def commands(backend: str) -> Counter[str]:
    """Return how often each command was called so far."""
    with RedisClient.from_url(backend) as client:
        stats = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})


def run(name: str, url: str, backend: str, kind: str, members: int) -> dict[str, Any]:
    """Let a client of its own process do it; return its figures and those of its servers."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.groups"),
            *("--client", name, url, backend, kind, str(members)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        of_redis = backend.startswith("redis")
        before = commands(backend) if of_redis else Counter()
        process.stdin.write("\n")
        process.stdin.flush()
        connections, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            with_peer = [each for each in watched.net_connections("tcp") if each.raddr]
            connections = max(connections, len(with_peer))
            time.sleep(0.2)
        answer = process.stdout.read()
    if not answer:
        raise RuntimeError(f"{name} failed")
    figures: dict[str, Any] = json.loads(answer)
    asked = commands(backend) - before if of_redis else Counter()
    asked.pop("info", None)
    return {**figures, "connections": connections, "commands": asked}


def report(name: str, figures: dict[str, Any], members: int, worker: Counter[str]) -> None:
    own = Counter(figures["commands"])
    own.subtract(worker)
    listed = ", ".join(f"{command} {count}" for command, count in own.most_common() if count > 0)
    print(
        f"  {name:11} {figures['seconds']:7.2f} s, sent after {figures['sent']:6.2f} s,"
        f" worst stall {figures['stall'] * 1e3:8.1f} ms ({figures['busy'] * 1e3:.1f} ms of CPU),"
        f" {figures['connections']} connections,"
        f" in order: {figures['in_order']}"
    )
    if figures["commands"]:
        print(
            f"  {'':11} Redis commands a task: {figures['commands'].total() / members:.2f},"
            f" of which the client's: {(+own).total() / members:.4f} ({listed})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--backend", choices=["redis", "rpc"], default="redis")
    parser.add_argument("--kind", choices=["group", "chord"], default="group")
    parser.add_argument("--only", nargs="*", default=["celery", "bridgetask"], help="clients")
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        name, url, backend, kind, members = arguments.client
        print(json.dumps(CLIENTS[name](url, backend, kind, int(members))), flush=True)
        return
    kind, members = arguments.kind, arguments.members
    with broker() as url, Redis() as redis:
        backend = redis.url() if arguments.backend == "redis" else "rpc://"
        environment = {
            "BRIDGETASK_TEST_BROKER": url,
            "BRIDGETASK_TEST_BACKEND": backend,
            "BRIDGETASK_TEST_QUEUE": QUEUE,
        }
        with Worker("tests.tasks", environment=environment, name="groups"):
            worker: Counter[str] = Counter()
            if backend != "rpc://" and kind == "group":
                worker = run("nobody", url, backend, kind, members)["commands"]
            print(f"{kind} of {members} members, results by {arguments.backend}")
            for name in arguments.only:
                report(name, run(name, url, backend, kind, members), members, worker)


if __name__ == "__main__":
    main()
