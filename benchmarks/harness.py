"""Servers, client processes, and rounds in which the clients take turns."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kombu import Connection

from tests.redis_servers import Redis
from tests.servers import RabbitMQ, Worker

from .app import HELD, PARKED, QUEUE, SINK
from .clients import CLIENTS

__all__ = [
    "ClientProcess",
    "Failed",
    "broker",
    "medians",
    "purge",
    "redis",
    "replier",
    "rounds",
    "worker",
]

_PROJECT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A client could not do a workload."""


@contextmanager
def broker() -> Iterator[str]:
    """Yield the URL of a RabbitMQ: the one that ``BRIDGETASK_AMQP_URL`` names, or a private one."""
    if named := os.environ.get("BRIDGETASK_AMQP_URL"):
        yield named
        return
    with RabbitMQ() as node:
        yield node.url()


@contextmanager
def redis() -> Iterator[str]:
    """Yield the URL of a Redis: the one that ``BRIDGETASK_REDIS_URL`` names, or a private one."""
    if named := os.environ.get("BRIDGETASK_REDIS_URL"):
        yield named
        return
    with Redis() as server:
        yield server.url()


def purge(url: str) -> None:
    """Empty the queues that nobody reads."""
    with Connection(url) as connection:
        for queue in (QUEUE, HELD, PARKED, SINK):
            connection.default_channel.queue_declare(queue, durable=True, auto_delete=False)
            connection.default_channel.queue_purge(queue)


def _start(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=_PROJECT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> None:
    """Close a process's standard input, which ends it."""
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@contextmanager
def replier(url: str, backend: str = "rpc://") -> Iterator[None]:
    """Answer all tasks at once while inside."""
    process = _start("benchmarks.replier", url, backend)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise RuntimeError("the replier did not start")
        yield
    finally:
        _finish(process)


@contextmanager
def worker(url: str, backend: str) -> Iterator[None]:
    """Have a stock prefork worker with two processes run the tasks while inside."""
    environment = {"BRIDGETASK_AMQP_URL": url, "BRIDGETASK_BENCHMARKS_BACKEND": backend}
    with Worker("benchmarks.tasks", environment=environment, name="bench"):
        yield


class ClientProcess:
    """A client in a process of its own."""

    def __init__(self, name: str, url: str, backend: str = "rpc://") -> None:
        self.name = name
        self._process = _start(
            *("benchmarks.clients", name, url, backend),
            environment=dict(CLIENTS[name].environment),
        )

    def run(self, workload: str, *, timeout: float = 300, **options: Any) -> dict[str, Any]:
        """Do a workload; return its figures.

        :raises Failed: the client ended, or has no figures after ``timeout`` seconds.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([workload, options]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name} ended before {workload}") from None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise Failed(f"{self.name} took more than {timeout:.0f} s for {workload}")
        answer = self._process.stdout.readline()
        if not answer:
            raise Failed(f"{self.name} failed at {workload}")
        figures: dict[str, Any] = json.loads(answer)
        return figures

    def system_calls(self, workload: str, **options: Any) -> int | None:
        """Do a workload; return how many system calls it took, or None if none can be counted."""
        if not (strace := shutil.which("strace")):
            return None
        with tempfile.NamedTemporaryFile("r") as counted:
            tracer = subprocess.Popen(
                [strace, "-f", "-c", "-o", counted.name, "-p", str(self._process.pid)],
                stderr=subprocess.PIPE,
                text=True,
            )
            assert tracer.stderr is not None
            attached = "attached" in tracer.stderr.readline()
            if attached:
                self.run(workload, **options)
                tracer.send_signal(signal.SIGINT)
            tracer.communicate()
            total = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+)", counted.read(), re.M)
        return int(total[1]) if attached and total else None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        _finish(self._process)


def rounds(
    names: Sequence[str],
    url: str,
    workloads: Sequence[tuple[str, dict[str, Any]]],
    count: int,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Let the clients take turns; return client -> workload -> the figures of each round.

    A first round warms up and does not count.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names}
    with ExitStack() as stack:
        clients = {name: ClientProcess(name, url) for name in names}
        for client in clients.values():
            stack.callback(client.close)
        for number in range(count + 1):
            for workload, options in workloads:
                if number == 0:
                    options = {**options, "count": max(1, options["count"] // 10)}
                for name, client in clients.items():
                    figures = client.run(workload, **options)
                    if number:
                        found[name].setdefault(workload, []).append(figures)
            purge(url)
    return found


def medians(figures: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Boil rounds down: tasks a second, microseconds of CPU a task, milliseconds of the rest."""
    medians: dict[str, float] = {
        "per_second": statistics.median(each["count"] / each["seconds"] for each in figures),
        "cpu_us": statistics.median(each["cpu"] / each["count"] * 1e6 for each in figures),
        "peak_mb": statistics.median(each["peak"] / 1e6 for each in figures),
    }
    for key, name in (("latencies", ""), ("late", "stall_")):
        if key in figures[0]:
            ordered = [sorted(each[key]) for each in figures]
            for share in (50, 99):
                medians[f"{name}p{share}_ms"] = statistics.median(
                    each[len(each) * share // 100] * 1e3 for each in ordered
                )
            medians[f"{name}max_ms"] = statistics.median(each[-1] * 1e3 for each in ordered)
    return medians
