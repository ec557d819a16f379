"""Servers, client processes, and rounds in which the clients take turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.servers import RabbitMQ

from .clients import QUEUE

__all__ = ["ClientProcess", "broker", "medians", "replier", "rounds"]

_PROJECT = Path(__file__).resolve().parent.parent


@contextmanager
def broker() -> Iterator[str]:
    """Yield the URL of a RabbitMQ: the one that ``BRIDGETASK_AMQP_URL`` names, or a private one."""
    if named := os.environ.get("BRIDGETASK_AMQP_URL"):
        yield named
        return
    with RabbitMQ() as node:
        yield node.url()


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=_PROJECT,
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
def replier(url: str) -> Iterator[None]:
    """Answer all tasks at once while inside."""
    process = _start("benchmarks.replier", url, QUEUE)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise RuntimeError("the replier did not start")
        yield
    finally:
        _finish(process)


class ClientProcess:
    """A client in a process of its own."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._process = _start("benchmarks.clients", name, url)

    def run(self, workload: str, **options: Any) -> dict[str, Any]:
        """Do a workload; return its figures."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([workload, options]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} failed at {workload}")
        figures: dict[str, Any] = json.loads(answer)
        return figures

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
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {workload: [] for workload, _ in workloads} for name in names
    }
    with ExitStack() as stack:
        clients = [ClientProcess(name, url) for name in names]
        for client in clients:
            stack.callback(client.close)
        for number in range(count + 1):
            for workload, options in workloads:
                if number == 0:
                    options = {**options, "count": max(1, options["count"] // 10)}
                for client in clients:
                    figures = client.run(workload, **options)
                    if number:
                        found[client.name][workload].append(figures)
    return found


def medians(figures: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Boil rounds down: tasks a second, microseconds of CPU a task, milliseconds of the rest."""
    medians: dict[str, float] = {
        "per_second": statistics.median(each["count"] / each["seconds"] for each in figures),
        "cpu_us": statistics.median(each["cpu"] / each["count"] * 1e6 for each in figures),
    }
    if "latencies" in figures[0]:
        every = sorted(value for each in figures for value in each["latencies"])
        medians["p50_ms"] = every[len(every) // 2] * 1e3
        medians["p99_ms"] = every[len(every) * 99 // 100] * 1e3
        medians["max_ms"] = every[-1] * 1e3
    if "late" in figures[0]:
        medians["stall_ms"] = statistics.median(max(each["late"]) * 1e3 for each in figures)
    return medians
