"""The reactor, the servers, and a watch over what tests leave behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

# Before anything imports twisted.internet.reactor. BRIDGETASK_TEST_REACTOR=default leaves Twisted
# its own choice; a test of this suite runs the Twisted tests once more so.
if os.environ.get("BRIDGETASK_TEST_REACTOR") != "default":
    from twisted.internet import asyncioreactor

    asyncioreactor.install(asyncio.new_event_loop())

from celery import Celery

# Before any event loop runs: importing reads files, which blocks.
import bridgetask.transports.amqp.plug
import bridgetask.transports.redis.plug  # noqa: F401
from bridgetask import Client

from .asyncio_debug import keep_short_stacks
from .blocking import blocking_refused
from .fix_passwords import no_password_logged, watch_over_the_session
from .fix_rabbitmq import (
    app,
    broker_url,
    certificates,
    lonely_app,
    rabbitmq,
    spare_app,
    spare_worker,
    worker,
)
from .fix_redis import (
    own_redis,
    redis_app,
    redis_broker_app,
    redis_broker_worker,
    redis_lonely_app,
    redis_rpc_app,
    redis_rpc_worker,
    redis_server,
    redis_url,
    redis_worker,
    sentinels,
    store_app,
)

__all__ = [
    "app",
    "broker_url",
    "certificates",
    "lonely_app",
    "no_password_logged",
    "own_redis",
    "rabbitmq",
    "redis_app",
    "redis_broker_app",
    "redis_broker_worker",
    "redis_lonely_app",
    "redis_rpc_app",
    "redis_rpc_worker",
    "redis_server",
    "redis_url",
    "redis_worker",
    "sentinels",
    "spare_app",
    "spare_worker",
    "store_app",
    "worker",
]


def open_connections() -> set[int]:
    """Return the descriptors of this process's TCP connections."""
    return {fd for each in Path("/dev/fd").iterdir() if is_connection(fd := int(each.name))}


def is_connection(fd: int) -> bool:
    """Tell whether a descriptor is one of a TCP socket that has a peer."""
    try:
        borrowed = socket.socket(fileno=fd)
    except OSError:  # no socket, or not open any more
        return False
    try:
        borrowed.getpeername()
        return borrowed.family in (socket.AF_INET, socket.AF_INET6)
    except OSError:
        return False
    finally:
        borrowed.detach()


def threads() -> set[threading.Thread]:
    """Return the threads of this process, but for Twisted's and asyncio's pools of workers."""
    return {
        each
        for each in threading.enumerate()
        if not each.name.startswith(("asyncio_", "PoolThread", "worker output"))
    }


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread or a connection."""
    # Long-lived ones first: they are nobody's leak.
    long_lived = (
        *("rabbitmq", "redis_server", "redis_worker", "redis_broker_worker", "redis_rpc_worker"),
        *("sentinels", "spare_worker", "worker"),
    )
    for name in long_lived:
        if name in request.fixturenames:
            request.getfixturevalue(name)
    before = threads(), open_connections()
    yield
    deadline = time.monotonic() + 5
    while True:
        gc.collect()
        left = threads() - before[0], open_connections() - before[1]
        if not any(left):
            break
        assert time.monotonic() < deadline, f"left behind: threads {left[0]}, sockets {left[1]}"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
async def no_task_left_behind(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Fail an asyncio test that leaves a task, or that makes bridgetask block the loop."""
    allowed = request.node.get_closest_marker("blocks") is not None
    with nullcontext() if allowed else blocking_refused():
        yield
    # aiormq ends its own tasks in the turns after its connection was closed.
    for _ in range(20):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            break
        await asyncio.sleep(0.01)
    assert not left


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    watch_over_the_session(config)
    keep_short_stacks()


def pytest_unconfigure() -> None:
    """Close the loop of the asyncio reactor, which Twisted leaves to the end of the process."""
    from twisted.internet import reactor

    loop = getattr(reactor, "_asyncioEventloop", None)
    if loop is not None:
        loop.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spare synchronous tests an event loop that they have no use for."""
    for item in items:
        if not isinstance(item, pytest.Function) or not asyncio.iscoroutinefunction(item.obj):
            names: list[str] = item.fixturenames  # type: ignore[attr-defined]
            if "no_task_left_behind" in names:
                names.remove("no_task_left_behind")


def pytest_collection_finish() -> None:
    """Let the collections after each test pass over all that is there before the first one.

    The modules of the libraries are most of it, and make a collection take 120 ms.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
async def client(app: Celery) -> AsyncIterator[Client]:
    """A client whose tasks a real worker runs."""
    async with Client(app) as opened:
        yield opened


@pytest.fixture
async def spare_client(spare_app: Celery) -> AsyncIterator[Client]:
    """A client whose tasks a worker runs that tests may tell what they like."""
    async with Client(spare_app) as opened:
        yield opened


@pytest.fixture
async def lonely_client(lonely_app: Celery) -> AsyncIterator[Client]:
    """A client whose tasks nobody runs."""
    async with Client(lonely_app) as opened:
        yield opened


@pytest.fixture
def collected_logs(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that lists the warnings and errors that were logged.

    It leaves out what asyncio logs in debug mode where the machine is slow.
    """

    def messages() -> list[Any]:
        logged = [each.getMessage() for each in caplog.records if each.levelno >= 30]
        return [message for message in logged if not message.startswith("Executing <")]

    return messages
