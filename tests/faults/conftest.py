"""A node and a worker to do harm to, a proxy before the node, and callers that must survive it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from kombu import Connection

from ..fix_proxy import Proxy
from ..fix_rabbitmq import make_app, take
from ..servers import RabbitMQ, Worker
from .callers import AsyncioCaller, Caller, TwistedCaller

CALLERS = {"asyncio": AsyncioCaller, "twisted": TwistedCaller}


@pytest.fixture(scope="session")
def node() -> Iterator[RabbitMQ]:
    """A private node that tests of this folder may stop, kill, and starve."""
    with RabbitMQ(users={"leaver": "leaver"}) as running:
        yield running


@pytest.fixture(scope="session")
def node_worker(node: RabbitMQ) -> Iterator[Worker]:
    """A worker for ``tests.tasks`` on :func:`node`."""
    environment = {
        "BRIDGETASK_TEST_BROKER": node.url(),
        "BRIDGETASK_TEST_CONFIRM_PUBLISH": "1",
    }
    with Worker("tests.tasks", environment=environment, name="faults", concurrency=4) as running:
        yield running


@pytest.fixture
def proxy(node: RabbitMQ) -> Iterator[Proxy]:
    """A proxy in front of :func:`node`."""
    with Proxy(node.port) as running:
        yield running


OpenCaller = Callable[..., Caller]


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Caller]]:
    """Open callers that are closed at the end: ``opened(kind, url, **options)``.

    ``conf`` are settings of the app; all other options are the client's.
    """
    callers: list[Caller] = []

    def open_one(kind: str, url: str, conf: dict[str, Any] | None = None, **options: Any) -> Caller:
        settings = dict(conf or {})
        backend = settings.pop("result_backend", "rpc://")
        app = make_app(f"faults-{kind}", url, backend, **settings)
        callers.append(CALLERS[kind](app, **options))
        return callers[-1]

    yield open_one
    await asyncio.gather(*(caller.close() for caller in callers))


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, opened: OpenCaller) -> OpenCaller:
    """Open a caller of each front end, in turn: ``caller(url, **options)``."""

    def open_one(url: str, **options: Any) -> Caller:
        return opened(request.param, url, **options)

    return open_one


@pytest.fixture
def callers(opened: OpenCaller) -> Callable[..., list[Caller]]:
    """Open a caller of both front ends, where a fault is too costly to do it twice."""

    def open_all(url: str, **options: Any) -> list[Caller]:
        return [opened(kind, url, **options) for kind in CALLERS]

    return open_all


@pytest.fixture
def queue(request: pytest.FixtureRequest, node: RabbitMQ) -> Iterator[str]:
    """The name of a queue of the test's own, which is deleted at its end."""
    name = request.node.originalname[:40]
    yield name
    with Connection(node.url()) as connection:
        connection.default_channel.queue_delete(name)


@pytest.fixture
def taken(node: RabbitMQ, queue: str) -> Callable[[], Any]:
    """Return a function that takes all messages from :func:`queue`, and gives their task ids."""

    async def task_ids() -> list[str]:
        messages = await asyncio.to_thread(take, node.url(), queue, delete=False)
        return [each.properties["correlation_id"] for each in messages]

    return task_ids
