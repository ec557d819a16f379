"""Fixtures: one Redis for the whole run, as result backend and as broker, and workers for both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.backends import redis as _redis  # noqa: F401 (the first client would, and so block)

from bridgetask.transports.redis import broker as _broker  # noqa: F401 (the same)
from bridgetask.transports.redis import plug as _plug  # noqa: F401 (the same)

from .fix_rabbitmq import close_celery, configured, make_app
from .redis_servers import Redis, Sentinels
from .servers import Worker

#: The queue that the worker consumes which stores results in Redis.
QUEUE = "redis-results"
#: The databases of the workers that have Redis as their broker: with results there, and by rpc://.
_BROKER_DB, _STORE_DB, _RPC_DB = 10, 11, 12
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


@pytest.fixture(scope="session")
def redis_broker_worker(redis_server: Redis) -> Iterator[Worker]:
    """A worker for ``tests.tasks`` with Redis as its broker and for its results."""
    environment = {
        "BRIDGETASK_TEST_BROKER": redis_server.url(_BROKER_DB),
        "BRIDGETASK_TEST_BACKEND": redis_server.url(_STORE_DB),
        "BRIDGETASK_TEST_CONTROL_EXCHANGE": CONTROL_EXCHANGE,
        "BRIDGETASK_TEST_TRACK_STARTED": "1",
    }
    with Worker("tests.tasks", environment=environment, name="all-redis") as running:
        yield running


@pytest.fixture
def redis_broker_app(redis_server: Redis, redis_broker_worker: Worker) -> Iterator[Celery]:
    """An app with Redis as broker and for results, whose tasks a worker runs."""
    celery = make_app(
        "redis_broker_app",
        redis_server.url(_BROKER_DB),
        redis_server.url(_STORE_DB),
        control_exchange=CONTROL_EXCHANGE,
        accept_content=["json", "pickle"],
    )
    yield celery
    close_celery(celery)


@pytest.fixture(scope="session")
def redis_rpc_worker(redis_server: Redis) -> Iterator[Worker]:
    """A worker for ``tests.tasks`` with Redis as its broker and results by ``rpc://``."""
    environment = {
        "BRIDGETASK_TEST_BROKER": redis_server.url(_RPC_DB),
        "BRIDGETASK_TEST_TRACK_STARTED": "1",
    }
    with Worker("tests.tasks", environment=environment, name="tests-on-redis") as running:
        yield running


@pytest.fixture
def redis_rpc_app(redis_server: Redis, redis_rpc_worker: Worker) -> Iterator[Celery]:
    """The app of ``tests.tasks`` with Redis as broker, whose tasks a worker runs."""
    from . import tasks

    tasks.app.conf.broker_url = redis_server.url(_RPC_DB)
    yield configured(tasks.app)
    close_celery(tasks.app)


@pytest.fixture
def redis_lonely_app(redis_server: Redis) -> Iterator[Celery]:
    """An app with Redis as broker, whose default queue no worker consumes."""
    url = redis_server.url(_RPC_DB)
    celery = make_app("lonely", url, task_default_queue="lonely")
    yield celery
    close_celery(celery)


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
