"""Fixtures: one Redis and one worker that stores results there, for the whole run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.backends import redis as _redis  # noqa: F401 (the first client would, and so block)

from .fix_rabbitmq import close_celery, make_app
from .redis_servers import Redis, Sentinels
from .servers import Worker

#: The queue that the worker consumes which stores results in Redis.
QUEUE = "redis-results"
#: Commands that go to this exchange do not reach the worker whose results come by ``rpc://``.
CONTROL_EXCHANGE = "redis-results"

AppFactory = Callable[..., Celery]


@pytest.fixture(scope="session")
def redis_server(certificates: dict[str, Path]) -> Iterator[Redis]:
    """A private server with TLS and with users; ``deaf`` may not subscribe to anything."""
    with Redis(
        users={
            "alice": "on >al1ces-r3dis ~* &* +@all",
            "deaf": "on >d3afs-r3dis ~* resetchannels +@all",
        },
        tls={"ca": certificates["ca"], "cert": certificates["cert"], "key": certificates["key"]},
    ) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of a Redis: ``BRIDGETASK_REDIS_URL``, or the private server."""
    named = os.environ.get("BRIDGETASK_REDIS_URL")
    return named or request.getfixturevalue("redis_server").url()


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server of the test's own, to be stopped or starved."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def sentinels() -> Iterator[Sentinels]:
    """A master, its replica, and three sentinels. A test that fails over uses them last."""
    with Sentinels() as running:
        yield running


@pytest.fixture(scope="session")
def redis_worker(broker_url: str, redis_url: str) -> Iterator[Worker | None]:
    """A worker for ``tests.tasks`` with results in Redis; None where one runs already."""
    if os.environ.get("BRIDGETASK_TEST_WORKER"):
        yield None
        return
    environment = {
        "BRIDGETASK_TEST_BROKER": broker_url,
        "BRIDGETASK_TEST_BACKEND": redis_url,
        "BRIDGETASK_TEST_QUEUE": QUEUE,
        "BRIDGETASK_TEST_CONTROL_EXCHANGE": CONTROL_EXCHANGE,
        "BRIDGETASK_TEST_TRACK_STARTED": "1",
    }
    with Worker("tests.tasks", environment=environment, name="redis-tests") as running:
        yield running


@pytest.fixture
def redis_app(broker_url: str, redis_url: str, redis_worker: Worker | None) -> Iterator[Celery]:
    """An app whose tasks a worker runs, with results in Redis."""
    celery = make_app(
        "redis_app",
        broker_url,
        redis_url,
        task_default_queue=QUEUE,
        control_exchange="celery" if redis_worker is None else CONTROL_EXCHANGE,
        accept_content=["json", "pickle"],
    )
    yield celery
    close_celery(celery)


@pytest.fixture
def store_app(broker_url: str, redis_url: str) -> Iterator[AppFactory]:
    """Makes apps with results in Redis, whose tasks nobody runs; see :func:`report`."""
    made: list[Celery] = []

    def make(backend: str = redis_url, **conf: Any) -> Celery:
        conf.setdefault("task_default_queue", "lonely")
        made.append(make_app("store_app", broker_url, backend, **conf))
        return made[-1]

    yield make
    for each in made:
        close_celery(each)


async def report(
    celery: Celery, *task_ids: str, result: Any = None, state: str = "SUCCESS", **options: Any
) -> None:
    """Store a result for each task with Celery's own backend, as a worker does."""

    def store(backend: Any) -> None:
        for task_id in task_ids:
            backend.store_result(task_id, result, state, **options)

    await with_celerys_backend(celery, store)


async def with_celerys_backend(celery: Celery, work: Callable[[Any], Any]) -> Any:
    """Return what ``work`` does with Celery's own backend, in a thread."""

    def run() -> Any:
        backend = celery._get_backend()
        try:
            return work(backend)
        finally:
            backend.client.connection_pool.disconnect()

    return await asyncio.to_thread(run)
